// SPDX-License-Identifier: GPL-2.0
//! Everything at once: threads that map, unmap, move, protect, fork and write their memory, while
//! others send all of it to two devices and back.

use crate::buffer::{Buffer, word};
use crate::harness::{Child, Env, Outcome, Stop, Test, conserved, ensure, long};
use crate::pattern::Dice;
use crate::sys::errno;
use hmm_uapi::{Device, Direction, Range};
use std::ops;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    long("storm::small_pages", small),
    long("storm::huge_pages", huge),
];

const TIME: Duration = Duration::from_secs(6);
const WORKERS: usize = 2;
const PAGES: usize = 1024;
const MADV_COLLAPSE: i32 = 25;

/// Some pages: often few, sometimes all.
fn some_pages(dice: &mut Dice) -> ops::Range<usize> {
    let most = [1, 16, 130, 600, PAGES][dice.below(5)];
    let start = dice.below(PAGES);
    start..(start + 1 + dice.below(most)).min(PAGES)
}

/// Memory and what has to be in it: a pattern per page, 0 for zeroes.
struct Model {
    buffer: Buffer,
    seeds: Vec<u64>,
    huge: bool,
}

impl Model {
    fn new(huge: bool) -> Result<Self, Stop> {
        let buffer = if huge {
            Buffer::huge(2)?
        } else {
            Buffer::new(PAGES)?
        };
        Ok(Self {
            buffer,
            seeds: vec![0; PAGES],
            huge,
        })
    }

    fn verify(&self, pages: ops::Range<usize>) -> Outcome {
        self.buffer
            .compare(pages, |index| match self.seeds[index / 512] {
                0 => 0,
                seed => word(seed, index),
            })
    }

    fn write(&mut self, pages: ops::Range<usize>, seed: u64) {
        self.buffer.fill_pages(pages.clone(), seed);
        self.seeds[pages].fill(seed);
    }

    fn map_anew(&mut self, pages: ops::Range<usize>) -> Outcome {
        let range = self.buffer.part(pages.clone());
        // SAFETY: replaces a part of our own mapping.
        let map = unsafe {
            libc::mmap(
                range.addr as *mut _,
                range.len as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        ensure!(map != libc::MAP_FAILED, "mmap: errno {}", errno());
        self.seeds[pages].fill(0);
        Ok(())
    }

    /// Takes the whole mapping to another place.
    fn move_away(&mut self) -> Outcome {
        let new = Self::new(self.huge)?;
        for page in (0..PAGES).step_by(128) {
            let (from, to) = (
                self.buffer.part(page..page + 128),
                new.buffer.part(page..page + 128),
            );
            // SAFETY: both are our own mappings; the new one is replaced.
            let moved = unsafe {
                libc::mremap(
                    from.addr as *mut _,
                    from.len as usize,
                    to.len as usize,
                    libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                    to.addr as *mut libc::c_void,
                )
            };
            if moved == libc::MAP_FAILED {
                // Older kernels refuse a piece that has become several mappings, and have unmapped
                // the target by then, where another thread may have mapped something since: both
                // buffers are left to themselves, and a fresh one takes their place.
                ensure!(errno() == libc::EFAULT, "mremap: errno {}", errno());
                std::mem::forget(std::mem::replace(self, Self::new(self.huge)?));
                std::mem::forget(new);
                return Ok(());
            }
        }
        // Nothing of the old place is left, and another thread may have mapped something there.
        std::mem::forget(std::mem::replace(&mut self.buffer, new.buffer));
        Ok(())
    }
}

fn work(number: u64, huge: bool, end: Instant, rounds: &AtomicU64) -> Outcome {
    let mut dice = Dice::new(number << 32);
    let mut model = Model::new(huge)?;
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        let pages = some_pages(&mut dice);
        match dice.below(12) {
            0..=2 => model.write(pages, number << 32 | round),
            3..=5 => model.verify(pages)?,
            6 => {
                model.buffer.advise(pages.clone(), libc::MADV_DONTNEED)?;
                model.seeds[pages].fill(0);
            }
            7 => {
                model.buffer.protect(pages.clone(), libc::PROT_READ)?;
                model.verify(pages.clone())?;
                model
                    .buffer
                    .protect(pages, libc::PROT_READ | libc::PROT_WRITE)?;
            }
            8 => model.map_anew(pages)?,
            9 => model.move_away()?,
            10 => {
                let child = Child::spawn(|| {
                    model.verify(pages.clone())?;
                    model.buffer.fill_pages(pages.clone(), 99);
                    model.buffer.verify_pages(pages.clone(), 99)
                })?;
                model.verify(pages.clone())?;
                child.join()?;
            }
            _ => {
                let block = dice.below(PAGES / 512) * 512;
                // It may refuse.
                let _ = model.buffer.advise(block..block + 512, MADV_COLLAPSE);
            }
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    model.verify(0..PAGES)
}

/// Sends parts of everything between two addresses somewhere.
fn send(device: &Device, number: u64, around: Range, over: &AtomicBool) -> Outcome {
    let mut dice = Dice::new(number << 40);
    while !over.load(Ordering::Acquire) {
        let pages = (around.len >> 12) as usize;
        let start = dice.below(pages) as u64;
        let len = 1 + dice.below((pages - start as usize).min(3000)) as u64;
        let range = Range {
            addr: around.addr + (start << 12),
            len: len << 12,
        };
        let direction = match dice.below(8) {
            0..=4 => Direction::ToDevice,
            5 => Direction::ToDeviceWithHoles,
            _ => Direction::ToRam,
        };
        crate::buffer::all_counted(&device.mv(range, direction)?)?;
        match dice.below(60) {
            0 => drop(device.release()?),
            // It may hit a hole; what it reads is of no interest.
            1 => drop(device.checksum(range)),
            _ => {}
        }
    }
    Ok(())
}

fn storm(env: &Env, huge: bool) -> Outcome {
    let device = env.open()?;
    let second = Device::open(env.devices.last().ok_or("no device")?)?;
    // New mappings are put below older ones: what the workers map lies around here.
    let here = Buffer::new(1)?.addr();
    let around = Range {
        addr: here - (96 << 20),
        len: 100 << 20,
    };
    let over = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    let end = Instant::now() + TIME;
    std::thread::scope(|scope| {
        let movers = [(&device, 1), (&second, 2)].map(|(device, number)| {
            let over = &over;
            scope.spawn(move || send(device, number, around, over))
        });
        let workers: Vec<_> = (1..=WORKERS as u64)
            .map(|number| {
                let rounds = &rounds;
                scope.spawn(move || work(number, huge, end, rounds))
            })
            .collect();
        let outcomes: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        over.store(true, Ordering::Release);
        let movers = movers.into_iter().map(|mover| mover.join());
        for outcome in outcomes.into_iter().chain(movers) {
            outcome.map_err(|_| "a thread panicked")??;
        }
        Outcome::Ok(())
    })?;
    let rounds = rounds.into_inner();
    ensure!(rounds > 20, "only {rounds} rounds");
    conserved(&device)?;
    conserved(&second)?;
    Ok(())
}

fn small(env: &Env) -> Outcome {
    storm(env, false)
}

fn huge(env: &Env) -> Outcome {
    storm(env, true)
}
