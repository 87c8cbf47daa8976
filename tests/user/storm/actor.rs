// SPDX-License-Identifier: GPL-2.0
//! One thread and its steps.

use crate::arena::{Arena, Mismatch, Result, Stop, block_of, expected};
use crate::board::Board;
use crate::plan::{Actor, Kind, PAGES, PLANT_EVERY, Plan, Plant, Step, contents, name};
use crate::sys::errno;
use crate::{calls, sys};
use hmm_uapi::{Device, Direction, PAGE_SIZE, Place, Range as Span, sys as abi};
use std::fmt::Write as _;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

const MADV_PAGEOUT: i32 = 21;
const MADV_COLLAPSE: i32 = 25;
/// Pages that a pipe holds.
const PIPE: usize = 16;

/// What all actors of a run have in common.
pub struct Stage {
    pub seed: u64,
    pub board: &'static Board,
    /// The nodes; a machine with one device has it twice.
    pub nodes: [std::path::PathBuf; 2],
    pub threads: usize,
    pub trace: bool,
    /// Devices fail on purpose.
    pub inject: bool,
    /// Pages go wrong on purpose.
    pub plant: Option<Plant>,
    /// This kernel lets one process read and write the memory of another.
    pub remote: bool,
    /// A block device for O_DIRECT.
    pub disk: Option<File>,
    /// The control file that makes the memory cgroup give up memory.
    pub reclaim: Option<File>,
}

impl Stage {
    pub fn open(&self) -> Result<[Device; 2]> {
        Ok([Device::open(&self.nodes[0])?, Device::open(&self.nodes[1])?])
    }
}

/// A thread with its memory.
pub struct Player<'a> {
    pub stage: &'a Stage,
    pub actor: Actor,
    pub arena: Arena,
    pub devices: &'a [Device; 2],
}

impl Player<'_> {
    /// Takes its steps, and looks at everything at the end.
    pub fn play(&mut self, steps: usize) -> Result {
        for step in Plan::new(self.stage.seed, self.actor).take(steps) {
            if self.stage.board.has_failed() {
                return Ok(());
            }
            if self.stage.trace {
                println!("# {} {step}", self.actor);
            }
            let Actor {
                process, thread, ..
            } = self.actor;
            self.stage.board.begin(process, thread, step.number);
            let begin = Instant::now();
            let effect = self
                .take(&step)
                .inspect_err(|stop| self.tell(&step, stop))?;
            self.stage
                .board
                .did(step.kind as usize, effect, begin.elapsed());
            if let Some(plant) = self.stage.plant
                && step.number.is_multiple_of(PLANT_EVERY)
            {
                self.plant(plant, &step)?;
            }
        }
        let last = Plan::new(self.stage.seed, self.actor)
            .nth(steps)
            .expect("plans have no end");
        self.arena
            .verify(0..PAGES)
            .map(drop)
            .inspect_err(|stop| self.tell(&last, stop))
    }

    /// One step. What it came to, in pages mostly.
    fn take(&mut self, step: &Step) -> Result<usize> {
        let pages = step.pages.clone();
        let device = &self.devices[step.device];
        let (seed, actor, number) = (self.stage.seed, self.actor, step.number);
        let new = move |page| contents(seed, actor, number, page);
        match step.kind {
            Kind::Write => self.arena.write(pages.clone(), new)?,
            Kind::Verify => return self.arena.verify(pages),
            Kind::ToDevice => return self.migrate(step, device, Direction::ToDevice),
            Kind::ToDeviceHoles => return self.migrate(step, device, Direction::ToDeviceWithHoles),
            Kind::ToRam => return self.migrate(step, device, Direction::ToRam),
            Kind::DeviceWrite => {
                self.arena.allow(pages.clone())?;
                let image = Arena::image(pages.clone(), new);
                // SAFETY: a part of the arena that only this thread writes.
                let result = unsafe { device.write(self.arena.at(pages.start) as u64, &image) };
                if self.tolerate(result)?.is_none() {
                    // Perhaps a part of it was written.
                    self.arena.write(pages, new)?;
                    return Ok(0);
                }
                self.arena.written(pages.clone(), new);
            }
            Kind::DeviceRead | Kind::Exclusive => {
                if !self.arena.is_readable(pages.clone()) {
                    return Ok(0);
                }
                let mut image = vec![0; pages.len() * PAGE_SIZE];
                let at = self.arena.at(pages.start) as u64;
                let result = if step.kind == Kind::DeviceRead {
                    device.read(at, &mut image)
                } else {
                    // It takes pages that may be written only.
                    self.arena.allow(pages.clone())?;
                    device.exclusive(at, &mut image)
                };
                if self.tolerate(result)?.is_none() {
                    return Ok(0);
                }
                self.arena.compare(pages.clone(), &image)?;
            }
            Kind::Snapshot => {
                let mut places = vec![Place(0x7f); pages.len()];
                let result = device.snapshot(self.arena.at(pages.start) as u64, &mut places);
                if self.tolerate(result)?.is_none() {
                    return Ok(0);
                }
                return Ok(places.iter().filter(|place| place.is_local()).count());
            }
            Kind::Release => {
                device.release()?;
                return Ok(1);
            }
            Kind::Fail => return self.fail(step, device),
            Kind::ReadOnly => self.arena.forbid(pages.clone(), false)?,
            Kind::NoAccess => self.arena.forbid(pages.clone(), true)?,
            Kind::Discard => self.arena.discard(pages.clone())?,
            Kind::Collapse => return self.collapse(step),
            Kind::NoHuge => {
                return Ok(self
                    .arena
                    .advise(block_of(pages.start), libc::MADV_NOHUGEPAGE)
                    .is_ok()
                    .into());
            }
            Kind::Huge => {
                return Ok(self
                    .arena
                    .advise(block_of(pages.start), libc::MADV_HUGEPAGE)
                    .is_ok()
                    .into());
            }
            Kind::PageOut => {
                return Ok(if self.arena.advise(pages.clone(), MADV_PAGEOUT).is_ok() {
                    pages.len()
                } else {
                    0
                });
            }
            Kind::Reclaim => {
                let Some(file) = &self.stage.reclaim else {
                    return Ok(0);
                };
                return Ok(calls::write(file.as_raw_fd(), b"256K").is_ok().into());
            }
            Kind::Move | Kind::MoveLeaving => {
                let to = step.choice as usize % PAGES;
                self.arena
                    .relocate(pages.clone(), to, step.kind == Kind::MoveLeaving)?;
            }
            Kind::Unmap => self.arena.unmap(pages.clone())?,
            Kind::Fork => self.fork(step)?,
            Kind::RemoteRead | Kind::RemoteWrite if !self.stage.remote => return Ok(0),
            Kind::RemoteRead => {
                if !self.arena.is_readable(pages.clone()) {
                    return Ok(0);
                }
                let mut image = vec![0; pages.len() * PAGE_SIZE];
                let at = self.arena.at(pages.start);
                // SAFETY: of a process that waits for nothing but this.
                self.whole(|| calls::read_remote(unsafe { libc::getpid() }, at, &mut image))?;
                self.arena.compare(pages.clone(), &image)?;
            }
            Kind::RemoteWrite => {
                self.arena.allow(pages.clone())?;
                let image = Arena::image(pages.clone(), new);
                let at = self.arena.at(pages.start);
                self.whole(|| calls::write_remote(at, &image))?;
                self.arena.written(pages.clone(), new);
            }
            Kind::Splice => return self.splice(step, device),
            Kind::Direct => return self.direct(step, device),
        }
        Ok(pages.len())
    }

    /// Sends pages of this arena or, now and then, of another thread's.
    fn migrate(&self, step: &Step, device: &Device, direction: Direction) -> Result<usize> {
        let slot = if step.choice.is_multiple_of(5) {
            (step.choice >> 8) as usize % self.stage.threads
        } else {
            self.actor.thread
        };
        let range = Span {
            addr: Arena::address_in(slot, step.pages.start) as u64,
            len: (step.pages.len() * PAGE_SIZE) as u64,
        };
        let moved = device.mv(range, direction)?;
        let sum = moved.moved + moved.skipped.iter().sum::<u64>();
        if sum != step.pages.len() as u64 {
            return Err(Stop::Other(format!(
                "moved and skipped are {sum} of {}: {moved:?}",
                step.pages.len()
            )));
        }
        Ok(moved.moved as usize)
    }

    /// Does to a page what must never happen to one, and does not tell the model.
    fn plant(&mut self, plant: Plant, step: &Step) -> Result {
        let page = step.choice as usize % (PAGES - 1);
        let (here, next) = (page..page + 1, page + 1..page + 2);
        if !self.arena.is_mapped(page..page + 2) {
            return Ok(());
        }
        match plant {
            Plant::Lost => self.arena.lose(here),
            Plant::Foreign => self.arena.swap(here, next),
            Plant::Word => {
                self.arena.allow(here)?;
                let mut image = [0; PAGE_SIZE];
                let at = self.arena.at(page) as u64;
                let device = &self.devices[step.device];
                if self.tolerate(device.read(at, &mut image))?.is_some() {
                    image[step.choice as usize >> 8 & 0xfff] ^= 1;
                    // SAFETY: a page of the arena, which only this thread writes.
                    self.tolerate(unsafe { device.write(at, &image) })?;
                }
                Ok(())
            }
        }
    }

    /// A device that was told to fail may refuse. `None`: it did.
    fn tolerate<T>(&self, result: hmm_uapi::Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            // Memory that was not still for a second, and calls that this kernel does not have.
            Err(error) if matches!(error.errno, libc::EBUSY | libc::EOPNOTSUPP) => {
                self.stage.board.refused.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) if self.stage.inject && matches!(error.errno, libc::EFAULT | libc::EIO) => {
                self.stage.board.refused.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Repeats a call until it has done all it was asked for, as long as a failing device can explain
    /// that it did not.
    fn whole(&self, mut call: impl FnMut() -> std::io::Result<bool>) -> Result {
        for _ in 0..200 {
            match call() {
                Ok(true) => return Ok(()),
                Ok(false) if self.stage.inject => {}
                Ok(false) => return Err(Stop::Other("it was done in part only".into())),
                Err(error) if self.stage.inject && error.raw_os_error() == Some(libc::EFAULT) => {}
                Err(error) => return Err(error.into()),
            }
            self.stage.board.refused.fetch_add(1, Ordering::Relaxed);
        }
        Err(Stop::Other("refused 200 times".into()))
    }

    fn fail(&self, step: &Step, device: &Device) -> Result<usize> {
        if !self.stage.inject {
            return Ok(0);
        }
        let legs = [
            abi::HMM_DMIRROR_FAIL_COPY_TO_DEVICE,
            abi::HMM_DMIRROR_FAIL_COPY_TO_RAM,
            abi::HMM_DMIRROR_FAIL_ZERO,
            abi::HMM_DMIRROR_FAIL_WAIT,
        ];
        let leg = legs[step.choice as usize % legs.len()];
        device.fail(leg, step.choice >> 8 & 7, 1 + (step.choice >> 16 & 3))?;
        Ok(1)
    }

    /// Makes a huge page: of what is there, which the kernel often refuses, or of small pages that are
    /// written anew.
    fn collapse(&mut self, step: &Step) -> Result<usize> {
        let block = block_of(step.pages.start);
        if step.choice & 1 == 0 {
            let (seed, actor, number) = (self.stage.seed, self.actor, step.number);
            self.arena.map(block.clone())?;
            let _ = self.arena.advise(block.clone(), libc::MADV_NOHUGEPAGE);
            self.arena.write(block.clone(), move |page| {
                contents(seed, actor, number, page)
            })?;
            let _ = self.arena.advise(block.clone(), libc::MADV_HUGEPAGE);
        }
        Ok(self.arena.advise(block, MADV_COLLAPSE).is_ok().into())
    }

    fn fork(&mut self, step: &Step) -> Result {
        let mut pid = -1;
        for _ in 0..100 {
            // SAFETY: the child uses what survives a fork of a process with threads: the C library
            // repairs its heap, and no lock of ours is held.
            pid = unsafe { libc::fork() };
            // The kernel says so, too, when the page of a device-exclusive entry is locked by somebody
            // at that moment (try_restore_exclusive_pte(), and dup_mm() knows one errno only).
            if pid >= 0 || errno() != libc::ENOMEM {
                break;
            }
            sys::sleep_ms(1);
        }
        sys::check(pid)?;
        if pid == 0 {
            let code = match self.child(step) {
                Ok(()) => 0,
                // The memory of a parent goes before its children hear that it is dead: reading it fails.
                Err(Stop::Other(_)) if self.is_doomed() => 0,
                Err(stop) => {
                    self.tell(step, &Stop::Other(format!("in the child: {stop}")));
                    1
                }
            };
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(code) };
        }
        let kill = step.choice & 3 == 0;
        let outcome = self.beside_child(step);
        if kill {
            // SAFETY: our own child, not yet reaped.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let mut status = 0;
        // SAFETY: room for the status.
        while unsafe { libc::waitpid(pid, &mut status, 0) } < 0 {}
        outcome?;
        if status == 0
            || kill && libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL
        {
            return Ok(());
        }
        Err(Stop::Other(format!(
            "the child ended with status {status:#x}"
        )))
    }

    /// The parent, meanwhile: it changes the second half of the pages, and leaves the first alone.
    fn beside_child(&mut self, step: &Step) -> Result {
        let (seed, actor, number) = (self.stage.seed, self.actor, step.number);
        let (first, second) = halves(&step.pages);
        self.arena
            .write(second, move |page| contents(seed, actor, number, page))?;
        self.arena.verify(first).map(drop)
    }

    /// Whether the process of this actor has killed itself.
    fn is_doomed(&self) -> bool {
        self.stage.board.processes[self.actor.process]
            .doomed
            .load(Ordering::Acquire)
    }

    /// The child: has what its parent had, and changes it for itself alone.
    fn child(&mut self, step: &Step) -> Result {
        // SAFETY: an option of the calling process only.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let pages = step.pages.clone();
        self.arena.verify(pages.clone())?;
        let (first, _) = halves(&pages);
        if self.stage.remote && self.arena.is_readable(first.clone()) && !first.is_empty() {
            let mut image = vec![0; first.len() * PAGE_SIZE];
            let at = self.arena.at(first.start);
            // SAFETY: no more than a question.
            self.whole(|| calls::read_remote(unsafe { libc::getppid() }, at, &mut image))?;
            self.arena.compare(first, &image)?;
        }
        let devices = self.stage.open()?;
        let device = &devices[step.device];
        self.migrate(step, device, Direction::ToDevice)?;
        self.arena.verify(pages.clone())?;
        self.migrate(step, device, Direction::ToDeviceWithHoles)?;
        let (seed, actor, number) = (self.stage.seed, self.actor, step.number);
        self.arena.write(pages.clone(), move |page| {
            !contents(seed, actor, number, page)
        })?;
        self.migrate(step, device, Direction::ToDevice)?;
        // Half of them end with what they have on the device.
        if step.choice & 4 == 0 {
            self.arena.verify(pages)?;
        }
        Ok(())
    }

    /// Pages that are in a pipe: they cannot move, or they can, but the pipe holds what it was given.
    fn splice(&self, step: &Step, device: &Device) -> Result<usize> {
        let pages = step.pages.start..step.pages.end.min(step.pages.start + PIPE);
        if !self.arena.is_readable(pages.clone()) {
            return Ok(0);
        }
        let (read, write) = sys::pipe()?;
        let len = pages.len() * PAGE_SIZE;
        let at = self.arena.at(pages.start);
        let mut put = 0;
        self.whole(|| {
            put += calls::splice_from(write.as_raw_fd(), at + put, len - put)?;
            Ok(put == len)
        })?;
        self.migrate(step, device, Direction::ToDevice)?;
        if step.choice & 8 == 0 {
            self.arena.verify(pages.clone())?;
        }
        let mut image = vec![0; len];
        let mut got = 0;
        while got < len {
            got += sys::read(read.as_raw_fd(), &mut image[got..])?;
        }
        self.arena.compare(pages.clone(), &image)?;
        Ok(pages.len())
    }

    /// To a disk, past the page cache, and back into pages that hold nothing by then, and are on the
    /// device.
    fn direct(&mut self, step: &Step, device: &Device) -> Result<usize> {
        let Some(disk) = &self.stage.disk else {
            return Ok(0);
        };
        let pages = step.pages.clone();
        if !self.arena.is_mapped(pages.clone()) {
            return Ok(0);
        }
        self.arena.allow(pages.clone())?;
        let Actor {
            process, thread, ..
        } = self.actor;
        let place = ((process * self.stage.threads + thread) * PAGES * PAGE_SIZE) as u64;
        let (at, len) = (self.arena.at(pages.start), pages.len() * PAGE_SIZE);
        let mut done = 0;
        self.whole(|| {
            done += calls::put_at(disk.as_raw_fd(), at + done, len - done, place + done as u64)?;
            Ok(done == len)
        })?;
        let held: Vec<u64> = pages
            .clone()
            .map(|page| self.arena.contents_of(page))
            .collect();
        self.arena.discard(pages.clone())?;
        if step.choice & 16 == 0 {
            self.migrate(step, device, Direction::ToDeviceWithHoles)?;
        }
        let mut done = 0;
        self.whole(|| {
            done += calls::get_at(disk.as_raw_fd(), at + done, len - done, place + done as u64)?;
            Ok(done == len)
        })?;
        self.arena
            .written(pages.clone(), |page| held[page - pages.start]);
        self.arena.verify(pages)
    }

    /// Says what is wrong, where, and what was done to that page before.
    fn tell(&self, step: &Step, stop: &Stop) {
        let mut text = format!("{} at {step}: {stop}\n", self.actor);
        if let Stop::Mismatch(mismatch) = stop {
            let _ = writeln!(text, "that is {}", self.origin(step.number, mismatch));
            let mut before: Vec<Step> = Plan::new(self.stage.seed, self.actor)
                .take(step.number + 1)
                .filter(|step| {
                    let to = step.choice as usize % PAGES;
                    let target = matches!(step.kind, Kind::Move | Kind::MoveLeaving)
                        .then_some(to..to + step.pages.len());
                    step.pages.contains(&mismatch.page)
                        || target.is_some_and(|target| target.contains(&mismatch.page))
                        || matches!(step.kind, Kind::Collapse | Kind::Release | Kind::Fail)
                })
                .collect();
            let some = before.len().saturating_sub(14);
            before.drain(..some);
            let _ = writeln!(
                text,
                "the last steps of this thread that concern page {}:",
                mismatch.page
            );
            for step in before {
                let _ = writeln!(text, "  {step}");
            }
        }
        let _ = writeln!(text, "meanwhile:");
        for thread in 0..self.stage.threads {
            let actor = Actor {
                thread,
                ..self.actor
            };
            if let Some(number) = self.stage.board.step(actor.process, thread)
                && let Some(step) = Plan::new(self.stage.seed, actor).nth(number)
            {
                let _ = writeln!(text, "  {actor} {step}");
            }
        }
        self.stage.board.fail(&text);
    }

    /// Where a word that is in the wrong place comes from.
    fn origin(&self, steps: usize, mismatch: &Mismatch) -> String {
        if mismatch.got == 0 {
            return "a word of zeroes".into();
        }
        for thread in 0..self.stage.threads {
            let actor = Actor {
                thread,
                ..self.actor
            };
            for step in Plan::new(self.stage.seed, actor).take(steps + 200) {
                for page in step.pages.clone() {
                    let seed = contents(self.stage.seed, actor, step.number, page);
                    for (seed, whose) in [(seed, ""), (!seed, " (a child's)")] {
                        if expected(seed, mismatch.word) == mismatch.got {
                            return format!(
                                "what {actor}{whose} wrote to its page {page} in step #{} {}",
                                step.number,
                                name(step.kind)
                            );
                        }
                    }
                }
            }
        }
        "nothing that this process has ever written".into()
    }
}

/// The two halves of some pages; the first one may be empty.
fn halves(pages: &Range<usize>) -> (Range<usize>, Range<usize>) {
    let middle = pages.start + pages.len() / 2;
    (pages.start..middle, middle..pages.end)
}
