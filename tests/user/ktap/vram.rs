// SPDX-License-Identifier: GPL-2.0
//! `hmm_vram`: a PCI device with memory of its own, its engine, and work on plain pointers.
//!
//! The machine has three of them: the first two have a DMA engine, and the second one has a page
//! that cannot be written and one that cannot be read; the third one is copied by the CPU. In one
//! machine they stand on the root bus, where they cannot talk to each other, in another one behind
//! a switch, where they can, and where a port reports errors of the bus.

use crate::buffer::{Buffer, PAGE, all_counted, skipped, word};
use crate::harness::{
    Child, Env, Outcome, Stop, Test, conserved, ensure, ensure_eq, long, skip, test,
};
use crate::sys::{pipe, read, sleep_ms, write_from};
use hmm_uapi::vram::{axpy, copy, fill, sort, sum};
use hmm_uapi::{Device, Direction, Kind, Range, sys, vram_sys};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    long("sleep::with_pages_resident", sleeps),
    test("vram::there_and_back", there_and_back),
    test("vram::commands_compute", commands),
    test("vram::commands_at_any_offset", odd_offsets),
    test("vram::commands_in_order_and_remembered", jobs),
    test("vram::bad_submissions", bad_submissions),
    test("vram::commands_on_forbidden_memory", forbidden),
    test("vram::contexts_side_by_side", contexts),
    test("vram::a_context_ends_while_busy", ends_while_busy),
    test("vram::descriptor_of_another_process", descriptor),
    test("vram::full_memory_is_no_error", full),
    long("vram::more_than_the_memory", oversubscribed),
    test("vram::two_devices", two_devices),
    test("vram::from_device_to_device", peers),
    test("vram::from_a_device_that_is_gone", lost_peer),
    test("vram::outside_sees_what_is_resident", outside_sees),
    test("vram::outside_sees_no_other_process", outside_other),
    test("vram::nothing_remains_after_unbind", nothing_remains),
    test("vram::scribbled_memory_is_noticed", scribbled),
    test("vram::pages_that_fail", bad_pages),
    test("vram::lost_interrupts", lost_interrupts),
    test("vram::a_hanging_engine_is_reset", hang),
    test("vram::an_engine_that_stays_down", stays_down),
    test("vram::completions_that_cannot_be", odd_completions),
    test("vram::hostile_registers", hostile_registers),
    test("vram::pulled_out", pulled_out),
    test("vram::lost_while_busy", lost_while_busy),
    test("vram::reset_from_outside", reset_from_outside),
    test("vram::errors_of_the_bus", bus_errors),
    test("vram::given_up_by_the_bus", given_up),
    long("vram::unbind_with_a_pinned_page", pinned),
    long("vram::unbind_under_load", unbind_under_load),
    long("vram::unplugged_under_load", unplugged),
    Test {
        name: "vram::bind_and_unbind_many_times",
        run: bind_cycles,
        seconds: 900,
    },
];

const DRIVER: &str = "/sys/bus/pci/drivers/hmm_vram";
const PARAMETERS: &str = "/sys/module/hmm_vram/parameters";

/// A node, the PCI function behind it, and the file behind that.
struct Card {
    node: PathBuf,
    function: String,
    file: &'static str,
}

impl Card {
    fn find(env: &Env, number: usize) -> Result<Self, Stop> {
        let node = env.devices.get(number).ok_or("no such device")?.clone();
        let name = node
            .file_name()
            .ok_or("no name")?
            .to_string_lossy()
            .into_owned();
        let link = fs::read_link(format!("/sys/class/misc/{name}/device"))?;
        let function = link
            .file_name()
            .ok_or("no function")?
            .to_string_lossy()
            .into_owned();
        let file = match function.as_str() {
            "0000:00:04.0" | "0000:03:00.0" => "vram0",
            "0000:00:05.0" | "0000:04:00.0" => "vram1",
            _ => "vram2",
        };
        Ok(Self {
            node,
            function,
            file,
        })
    }

    /// One of each kind; the pages of both are all good.
    fn good(env: &Env) -> Result<[Self; 2], Stop> {
        Ok([Self::find(env, 0)?, Self::find(env, env.devices.len() - 1)?])
    }

    fn open(&self) -> Result<Device, Stop> {
        Ok(Device::open(&self.node)?)
    }

    fn unbind(&self) -> Outcome {
        Ok(fs::write(format!("{DRIVER}/unbind"), &self.function)?)
    }

    /// Binds it again, if it is not bound.
    fn bind(&self) -> Outcome {
        if !Path::new(&format!("{DRIVER}/{}", self.function)).exists() {
            fs::write(format!("{DRIVER}/bind"), &self.function)?;
        }
        let end = Instant::now() + Duration::from_secs(10);
        while self.open().is_err() {
            ensure!(
                Instant::now() < end,
                "{} does not come back",
                self.node.display()
            );
            sleep_ms(10);
        }
        Ok(())
    }

    /// As it was: what a test has done to the device ends with a new driver.
    fn renew(&self) -> Outcome {
        let _ = self.unbind();
        self.bind()
    }

    /// Plays a trick on the driver.
    fn trick(&self, name: &str, value: u32) -> Outcome {
        let path = format!("/sys/kernel/debug/hmm_vram/{}/{name}", self.function);
        fs::write(&path, value.to_string()).map_err(|error| format!("{path}: {error}").into())
    }

    fn path(&self) -> PathBuf {
        Path::new("/sys/bus/pci/devices").join(&self.function)
    }

    fn has_engine(&self) -> bool {
        self.file != "vram2"
    }

    /// Behind a switch, not on the root bus.
    fn has_port(&self) -> bool {
        !self.function.starts_with("0000:00:")
    }

    /// Why nobody reports errors of the bus.
    fn without_reports(&self) -> Option<&'static str> {
        if !self.has_port() {
            return Some("on the root bus there is no port that reports errors");
        }
        let heard = fs::read_dir("/sys/bus/pci_express/drivers/aer").is_ok_and(|entries| {
            entries
                .flatten()
                .any(|entry| entry.file_name().to_string_lossy().contains(":pcie"))
        });
        (!heard).then_some("this kernel does not listen to ports that report errors (AER)")
    }

    /// Whether its engine can fetch from another one's memory.
    fn fetches(&self) -> Result<bool, Stop> {
        let symbols = fs::read_to_string("/proc/kallsyms")?;
        Ok(self.has_engine() && self.has_port() && symbols.contains(" pci_p2pdma_distance_many"))
    }
}

/// The watchdog's patience, shorter for a moment.
struct Patience(String);

impl Patience {
    fn short() -> Result<Self, Stop> {
        let path = format!("{PARAMETERS}/timeout_ms");
        let before = fs::read_to_string(&path)?;
        fs::write(&path, "400")?;
        Ok(Self(before))
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        let _ = fs::write(format!("{PARAMETERS}/timeout_ms"), self.0.trim());
    }
}

/// What the driver is going to complain about is no failure of the run, until this is dropped.
struct Expect;

impl Expect {
    fn lines(pattern: &str) -> Result<Self, Stop> {
        note(&format!("hmm-vm: expect {pattern}"))?;
        Ok(Self)
    }
}

impl Drop for Expect {
    fn drop(&mut self) {
        let _ = note("hmm-vm: expect");
    }
}

fn note(text: &str) -> Outcome {
    let mut log = OpenOptions::new().write(true).open("/dev/kmsg")?;
    Ok(writeln!(log, "{text}")?)
}

/// The world outside this machine: files behind devices, and the monitor.
struct Outside {
    reader: BufReader<File>,
    writer: File,
}

impl Outside {
    fn new() -> Result<Self, Stop> {
        let writer = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/ttyS2")?;
        let reader = BufReader::new(writer.try_clone()?);
        Ok(Self { reader, writer })
    }

    fn ask(&mut self, request: &str) -> Result<String, Stop> {
        writeln!(self.writer, "{request}")?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        match line.trim().strip_prefix("ok") {
            Some(answer) => Ok(answer.trim().to_owned()),
            None => Err(Stop::Fail(format!("{request}: {line}"))),
        }
    }

    /// In how many pages of a device's memory a word is.
    fn find(&mut self, card: &Card, value: u64) -> Result<usize, Stop> {
        Ok(self
            .ask(&format!("find {} {value:x}", card.file))?
            .parse()?)
    }

    /// How many pages are not all zeroes.
    fn used(&mut self, card: &Card) -> Result<usize, Stop> {
        Ok(self.ask(&format!("used {}", card.file))?.parse()?)
    }
}

/// A word for each page that is nowhere else.
fn mark(buffer: &Buffer, value: u64) {
    for page in 0..buffer.pages() {
        buffer.set(page * 512 + 7, value);
    }
}

/// A value that no earlier test has used.
fn unique() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: room for eight bytes.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    u64::from_ne_bytes(bytes) | 0x8000_0000_0000_0001
}

/// Commands of a test work on memory that the test alone knows, and looks at afterwards.
fn run(
    device: &Device,
    commands: &[vram_sys::hmm_vram_command],
) -> Result<vram_sys::hmm_vram_wait, Stop> {
    // SAFETY: as said.
    Ok(unsafe { device.run(commands) }?)
}

fn submit(device: &Device, commands: &[vram_sys::hmm_vram_command]) -> hmm_uapi::Result<u64> {
    // SAFETY: as in `run`.
    unsafe { device.submit(commands, 0) }
}

fn words(buffer: &Buffer, first: usize, count: usize) -> Range {
    Range {
        addr: buffer.addr() + first as u64 * 8,
        len: count as u64 * 8,
    }
}

fn there_and_back(env: &Env) -> Outcome {
    for card in Card::good(env)? {
        let device = card.open()?;
        let before = device.status()?;
        let pages = 3000;
        let buffer = Buffer::filled(pages, 1)?;
        buffer.to_device(&device)?;
        buffer.verify(1)?;
        let back = buffer.local(&device)?;
        ensure_eq!(
            back,
            if env.is_private() { 0 } else { pages },
            "pages left on {}",
            card.function
        );
        buffer.to_device(&device)?;
        buffer.to_ram(&device)?;
        buffer.verify(1)?;
        let status = device.status()?;
        let dma = vram_sys::HMM_VRAM_ENGINE_DMA;
        ensure_eq!(status.engine == dma, card.has_engine(), "{status:?}");
        let bytes = status.bytes - before.bytes;
        if card.has_engine() {
            let moves = if env.is_private() { 4 } else { 2 };
            ensure!(bytes >= moves * pages as u64 * PAGE, "{bytes} bytes by DMA");
            // Coalesced: a command is for more than a page.
            let commands = status.commands - before.commands;
            ensure!(commands * 4 < moves * pages as u64, "{commands} commands");
        }
        conserved(&device)?;
    }
    Ok(())
}

fn commands(env: &Env) -> Outcome {
    for card in Card::good(env)? {
        let device = card.open()?;
        let (pages, count) = (700, 700 * 512);
        let x = Buffer::filled(pages, 2)?;
        let y = Buffer::filled(pages, 3)?;
        let z = Buffer::new(pages)?;
        let total = Buffer::new(1)?;
        let a = 0x1234_5678_9abc_def1;
        let done = run(
            &device,
            &[
                axpy(y.addr(), a, x.range()),
                copy(z.addr(), y.range()),
                sum(total.addr() + 16, z.range()),
                fill(x.part(0..350), 0),
                fill(x.part(350..700), 5),
            ],
        )?;
        ensure_eq!(done.done, 5);
        ensure!(done.moved >= 2100, "first touch moves: {done:?}");
        ensure!(done.video_pages > 0, "{done:?}");
        if card.has_engine() {
            // The copy, and the half that was filled with zeroes.
            ensure_eq!(done.dma_bytes, (700 + 350) * PAGE, "{done:?}");
        }
        let value = |index: usize| word(3, index).wrapping_add(a.wrapping_mul(word(2, index)));
        ensure_eq!(
            total.get(2),
            (0..count).map(value).fold(0, u64::wrapping_add)
        );
        y.compare(0..pages, value)?;
        z.compare(0..pages, value)?;
        x.compare(0..350, |_| 0)?;
        x.compare(350..700, |_| 5)?;

        z.fill(4);
        run(&device, &[sort(z.range())])?;
        let mut sorted: Vec<_> = (0..count).map(|index| word(4, index)).collect();
        sorted.sort_unstable();
        z.compare(0..pages, |index| sorted[index])?;

        // Where it is, without moving.
        let ram = Buffer::filled(64, 5)?;
        // SAFETY: the test's own memory.
        let job = unsafe { device.submit(&[fill(ram.range(), 9)], vram_sys::HMM_VRAM_STAY) }?;
        let stayed = device.wait(job, 10_000)?;
        ensure_eq!(
            (stayed.error, stayed.moved, stayed.video_pages),
            (0, 0, 0),
            "{stayed:?}"
        );
        ensure_eq!(ram.local(&device)?, 0);
        ram.compare(0..64, |_| 9)?;
    }
    Ok(())
}

/// Operands that lie differently in their pages, and end anywhere.
fn odd_offsets(env: &Env) -> Outcome {
    let device = env.open()?;
    for (to, from, count) in [
        (1, 3, 5),
        (511, 0, 2),
        (100, 511, 4000),
        (0, 1, 512),
        (512, 0, 1537),
        (7, 7, 3000),
    ] {
        let x = Buffer::filled(16, 6)?;
        let y = Buffer::filled(16, 7)?;
        let inside = |index: usize| index >= to && index < to + count;
        run(
            &device,
            &[axpy(y.addr() + to as u64 * 8, 3, words(&x, from, count))],
        )?;
        let grown = |index: usize| match inside(index) {
            true => word(7, index).wrapping_add(word(6, index - to + from).wrapping_mul(3)),
            false => word(7, index),
        };
        y.compare(0..16, grown)?;
        run(
            &device,
            &[copy(y.addr() + to as u64 * 8, words(&x, from, count))],
        )?;
        let copied = |index: usize| {
            word(
                if inside(index) { 6 } else { 7 },
                if inside(index) {
                    index - to + from
                } else {
                    index
                },
            )
        };
        y.compare(0..16, copied)?;
        run(&device, &[fill(words(&y, to, count), 0)])?;
        y.compare(
            0..16,
            |index| if inside(index) { 0 } else { word(7, index) },
        )?;
        x.verify(6)?;
        run(
            &device,
            &[
                sort(words(&x, from, count)),
                sum(x.addr() + from as u64 * 8, words(&x, from, count)),
            ],
        )?;
        let mut sorted: Vec<_> = (from..from + count).map(|index| word(6, index)).collect();
        sorted.sort_unstable();
        let total = sorted.iter().copied().fold(0, u64::wrapping_add);
        x.compare(0..16, |index| match index {
            _ if index == from => total,
            _ if index > from && index < from + count => sorted[index - from],
            _ => word(6, index),
        })?;
    }
    Ok(())
}

fn jobs(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::new(8)?;
    let mut last = 0;
    for step in 1..=100_u64 {
        loop {
            match submit(
                &device,
                &[
                    fill(buffer.range(), step),
                    axpy(buffer.addr(), 1, buffer.range()),
                ],
            ) {
                Ok(job) => {
                    ensure_eq!(job, last + 1, "jobs are counted");
                    last = job;
                    break;
                }
                // The queue is full: that is said, not waited for.
                Err(error) => ensure_eq!(error.errno, libc::EAGAIN),
            }
        }
    }
    ensure_eq!(device.wait(last, 20_000)?.error, 0);
    buffer.compare(0..8, |_| 200)?;
    ensure_eq!(device.wait(last - 63, 0)?.done, 2);
    for never in [0, last - 64, last + 1, u64::MAX] {
        ensure_eq!(
            device.wait(never, 0).map_err(|e| e.errno).err(),
            Some(libc::ENOENT),
            "job {never}"
        );
    }
    // A job that fails in the middle leaves the rest undone, and the next job is not concerned.
    let hole = Buffer::new(1)?;
    hole.unmap(0..1)?;
    let bad = submit(
        &device,
        &[
            fill(buffer.range(), 1),
            fill(hole.range(), 2),
            fill(buffer.range(), 3),
        ],
    )?;
    let good = submit(&device, &[axpy(buffer.addr(), 4, buffer.range())])?;
    let result = device.wait(bad, 20_000)?;
    ensure_eq!(
        (result.error as i32, result.done, result.fault_addr),
        (libc::EFAULT, 1, hole.addr())
    );
    ensure_eq!(device.wait(good, 20_000)?.error, 0);
    buffer.compare(0..8, |_| 5)
}

fn bad_submissions(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(4, 8)?;
    let (addr, range) = (buffer.addr(), buffer.part(0..1));
    let odd = |addr, len| Range { addr, len };
    let mut reserved = fill(range, 0);
    reserved.reserved = 1;
    let mut unknown = fill(range, 0);
    let mut none = unknown;
    (unknown.op, none.op) = (6, 0);
    let mut with_source = fill(range, 0);
    with_source.src = addr;
    let mut with_value = copy(addr, buffer.part(1..2));
    with_value.value = 1;
    let bad = [
        ("reserved", reserved),
        ("unknown", unknown),
        ("none", none),
        ("source", with_source),
        ("value", with_value),
        ("odd address", fill(odd(addr + 4, 8), 0)),
        ("odd length", fill(odd(addr, 12), 0)),
        ("empty", fill(odd(addr, 0), 0)),
        ("wraps", fill(odd(u64::MAX - 7, 4096), 0)),
        ("kernel", fill(odd(0xffff_8880_0000_0000, 4096), 0)),
        ("huge", fill(odd(0, !7), 0)),
        ("end of the world", sum(1 << 63, range)),
        ("overlap", copy(addr, odd(addr + 8, 4096))),
        ("axpy over itself", axpy(addr + 8, 1, odd(addr, 64))),
        (
            "too much to sort",
            sort(odd(addr, vram_sys::HMM_VRAM_SORT_MAX as u64 + 8)),
        ),
    ];
    for (what, command) in bad {
        let refused = submit(&device, &[command]).map_err(|e| e.errno);
        ensure_eq!(refused, Err(libc::EINVAL), "{what}");
        let refused = submit(&device, &[fill(range, 1), command]).map_err(|e| e.errno);
        ensure_eq!(refused, Err(libc::EINVAL), "{what}, second");
    }
    let many = vec![fill(range, 1); 257];
    ensure_eq!(
        submit(&device, &many).map_err(|e| e.errno),
        Err(libc::EINVAL),
        "257"
    );
    ensure_eq!(
        submit(&device, &[]).map_err(|e| e.errno),
        Err(libc::EINVAL),
        "none"
    );
    // SAFETY: refused.
    let flags = unsafe { device.submit(&[fill(range, 1)], 2) };
    ensure_eq!(flags.map_err(|e| e.errno), Err(libc::EINVAL), "flags");
    let mut arg = vram_sys::hmm_vram_submit {
        size: 32,
        nr: 1,
        commands: 8,
        ..Default::default()
    };
    // SAFETY: the structure that belongs to the call; the kernel checks the address in it.
    let raw = |arg: &mut vram_sys::hmm_vram_submit| unsafe {
        hmm_uapi::raw(
            device.as_raw_fd(),
            hmm_uapi::ioctl::VRAM_SUBMIT,
            std::ptr::from_mut(arg).cast(),
        )
    };
    ensure_eq!(raw(&mut arg), Err(libc::EFAULT), "no commands there");
    arg.size = 31;
    ensure_eq!(raw(&mut arg), Err(libc::EINVAL), "size");
    // SAFETY: refused.
    let unknown = unsafe {
        hmm_uapi::raw(
            device.as_raw_fd(),
            hmm_uapi::ioctl::FAIL,
            std::ptr::null_mut(),
        )
    };
    ensure_eq!(unknown, Err(libc::ENOTTY));
    buffer.verify(8)
}

fn forbidden(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(8, 9)?;
    buffer.protect(2..3, libc::PROT_READ)?;
    buffer.protect(4..5, libc::PROT_NONE)?;
    let error = |command| -> Result<(i32, u64), Stop> {
        let job = submit(&device, &[command])?;
        let result = device.wait(job, 20_000)?;
        Ok((result.error as i32, result.fault_addr))
    };
    ensure_eq!(
        error(fill(buffer.part(2..3), 0))?,
        (libc::EACCES, buffer.at(2)),
        "a page that may not be written"
    );
    ensure_eq!(
        error(fill(buffer.part(1..3), 1))?.0,
        libc::EACCES,
        "its neighbour as well"
    );
    ensure_eq!(
        error(sum(buffer.addr(), buffer.part(2..3)))?.0,
        0,
        "it may be read"
    );
    let (errno, addr) = error(sum(buffer.addr(), buffer.part(3..6)))?;
    ensure!(
        errno == libc::EFAULT || errno == libc::EACCES,
        "PROT_NONE: {errno}"
    );
    ensure_eq!(addr, buffer.at(4));
    ensure_eq!(
        error(fill(Range { addr: 0, len: 4096 }, 1))?,
        (libc::EFAULT, 0),
        "the page at 0"
    );
    buffer.protect(4..5, libc::PROT_READ | libc::PROT_WRITE)?;
    buffer.compare(1..2, |_| 1)?;
    buffer.verify_pages(2..8, 9)
}

fn contexts(env: &Env) -> Outcome {
    let children: Vec<_> = (1..=3_u64)
        .map(|seed| {
            Child::spawn(move || {
                let device = env.open()?;
                let x = Buffer::filled(200, seed)?;
                let y = Buffer::new(200)?;
                for round in 1..=8_u64 {
                    run(&device, &[axpy(y.addr(), seed, x.range())])?;
                    // The CPU takes some of it home meanwhile.
                    x.verify_pages(0..50, seed)?;
                    let page = (round * 20) as usize;
                    y.compare(page..page + 1, |index| {
                        word(seed, index).wrapping_mul(seed * round)
                    })?;
                }
                y.compare(0..200, |index| word(seed, index).wrapping_mul(seed * 8))
            })
        })
        .collect::<Result<_, Stop>>()?;
    let first = env.open()?;
    let second = env.open()?;
    let buffer = Buffer::new(64)?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = [&first, &second]
            .into_iter()
            .map(|device| {
                let half = if std::ptr::eq(device, &first) {
                    0..32
                } else {
                    32..64
                };
                let buffer = &buffer;
                scope.spawn(move || {
                    (0..40).try_for_each(|_| {
                        run(
                            device,
                            &[
                                axpy(buffer.at(half.start), 1, buffer.part(half.clone())),
                                fill(buffer.part(half.clone()), 6),
                            ],
                        )
                        .map(drop)
                    })
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "panicked")?)
    })?;
    buffer.compare(0..64, |_| 6)?;
    for child in children {
        child.join()?;
    }
    conserved(&first).map(drop)
}

fn ends_while_busy(env: &Env) -> Outcome {
    let buffer = Buffer::new(1500)?;
    for round in 0..6 {
        let device = env.open()?;
        for _ in 0..8 {
            submit(
                &device,
                &[
                    fill(buffer.range(), 1),
                    axpy(buffer.addr(), 1, buffer.range()),
                ],
            )?;
        }
        sleep_ms(round * 3);
        drop(device);
    }
    // Nobody writes any more.
    let seen: Vec<_> = (0..1500).map(|page| buffer.get(page * 512)).collect();
    sleep_ms(50);
    ensure_eq!(
        (0..1500)
            .map(|page| buffer.get(page * 512))
            .collect::<Vec<_>>(),
        seen
    );
    for round in 0..3 {
        let child = Child::spawn(|| {
            let device = env.open()?;
            let buffer = Buffer::new(1500)?;
            loop {
                let _ = submit(&device, &[fill(buffer.range(), 1), sort(buffer.range())]);
            }
        })?;
        sleep_ms(100 + 50 * round);
        child.kill()?;
    }
    conserved(&env.open()?).map(drop)
}

fn descriptor(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(16, 10)?;
    buffer.to_device(&device)?;
    Child::spawn(|| {
        for (call, errno) in [
            ("INFO", device.info().err().map(|e| e.errno)),
            (
                "SUBMIT",
                submit(&device, &[fill(buffer.range(), 0)])
                    .err()
                    .map(|e| e.errno),
            ),
            ("WAIT", device.wait(1, 0).err().map(|e| e.errno)),
            ("STATUS", device.status().err().map(|e| e.errno)),
            (
                "MOVE",
                device
                    .mv(buffer.range(), Direction::ToRam)
                    .err()
                    .map(|e| e.errno),
            ),
            ("RELEASE", device.release().err().map(|e| e.errno)),
        ] {
            ensure_eq!(errno, Some(libc::EPERM), "{call}");
        }
        // With one of its own the child works on its own copy.
        let own = env.open()?;
        run(&own, &[fill(buffer.range(), 1)])?;
        buffer.compare(0..16, |_| 1)
    })?
    .join()?;
    buffer.verify(10)
}

fn full(env: &Env) -> Outcome {
    let device = env.open()?;
    let free = usize::try_from(device.info()?.frames_free)?;
    let all = Buffer::new(free + 500)?;
    let total = Buffer::new(1)?;
    let done = run(
        &device,
        &[fill(all.range(), 3), sum(total.addr(), all.range())],
    )?;
    ensure_eq!(total.get(0), (free as u64 + 500) * 512 * 3);
    ensure!(done.moved as usize + 600 >= free, "{done:?}");
    for page in (0..all.pages()).step_by(97) {
        all.compare(page..page + 1, |_| 3)?;
    }
    conserved(&device).map(drop)
}

fn two_devices(env: &Env) -> Outcome {
    // Not the one with bad pages: all have to arrive.
    let (first, second) = (env.open()?, Card::find(env, 2)?.open()?);
    let buffer = Buffer::filled(300, 11)?;
    for round in 0..3 {
        buffer.to_device(&first)?;
        // A command of the other one fetches it, wherever it is.
        for device in [&second, &first] {
            run(device, &[axpy(buffer.addr(), 0, buffer.range())])?;
            // Coherent memory of another device is used where it is.
            let there = buffer.local(device)?;
            ensure!(
                there == 300 || !env.is_private(),
                "{there} pages in round {round}"
            );
        }
    }
    buffer.verify(11)?;
    conserved(&first)?;
    conserved(&second).map(drop)
}

/// A device in use by more than it has room for: what was not used for longest goes home.
fn oversubscribed(env: &Env) -> Outcome {
    let device = env.open()?;
    let total = device.info()?.frames_total;
    let all = Buffer::new(usize::try_from(total * 3 / 2)?)?;
    let sums = Buffer::new(1)?;
    let done = run(
        &device,
        &[
            fill(all.range(), 3),
            axpy(all.addr(), 4, all.range()),
            sum(sums.addr(), all.range()),
        ],
    )?;
    ensure_eq!(sums.get(0), total * 3 / 2 * 512 * 15);
    // Each of the three went over all of it, and found most of it in the video memory.
    ensure!(done.moved > total * 2, "{done:?} of {total}");
    ensure!(done.video_pages > done.ram_pages * 4, "{done:?}");
    for page in (0..all.pages()).step_by(97) {
        all.compare(page..page + 1, |_| 15)?;
    }
    drop(all);
    // Three that take it from each other.
    let pages = usize::try_from(total / 2)?;
    let children: Vec<_> = (1..=3_u64)
        .map(|seed| {
            Child::spawn(move || {
                let device = env.open()?;
                let buffer = Buffer::new(pages)?;
                let commands = [
                    fill(buffer.range(), seed),
                    axpy(buffer.addr(), seed, buffer.range()),
                ];
                for _ in 0..3 {
                    run(&device, &commands)?;
                }
                buffer.compare(0..pages, |_| seed * (seed + 1))
            })
        })
        .collect::<Result<_, Stop>>()?;
    for child in children {
        child.join()?;
    }
    conserved(&device).map(drop)
}

/// Straight from one video memory to the other where the bus allows it, else by way of RAM.
fn peers(env: &Env) -> Outcome {
    let mut world = Outside::new()?;
    // On the root bus the second one has pages that fail.
    let pairs = [(0, 1), (1, 0), (2, 0), (0, 2)];
    let first = if Card::find(env, 0)?.has_port() { 0 } else { 2 };
    for (from, to) in pairs.into_iter().skip(first) {
        let (from, to) = (Card::find(env, from)?, Card::find(env, to)?);
        let (first, second) = (from.open()?, to.open()?);
        let (buffer, value) = (Buffer::filled(300, 40)?, unique());
        mark(&buffer, value);
        buffer.to_device(&first)?;
        ensure_eq!(world.find(&from, value)?, 300, "on {}", from.file);
        let before = [first.status()?.bytes, second.status()?.bytes];
        let moved = second.mv(buffer.range(), Direction::ToDevice)?;
        ensure_eq!(moved.moved, 300, "{moved:?}");
        ensure_eq!(buffer.local(&second)?, 300, "on {}", to.file);
        ensure_eq!(world.find(&to, value)?, 300, "on {}", to.file);
        if from.has_engine() {
            // Its own engine has nothing to do where the other one fetches.
            let bytes = first.status()?.bytes - before[0];
            let pages = if to.fetches()? { 0 } else { 300 };
            ensure_eq!(bytes, pages * PAGE, "from {} to {}", from.file, to.file);
        }
        if to.has_engine() {
            let bytes = second.status()?.bytes - before[1];
            ensure_eq!(bytes, 300 * PAGE, "by the engine of {}", to.file);
        }
        buffer.compare(0..300, |index| match index % 512 {
            7 => value,
            _ => word(40, index),
        })?;
        drop(buffer);
        conserved(&first)?;
        conserved(&second)?;
    }
    Ok(())
}

/// What nobody can read any more does not arrive anywhere.
fn lost_peer(env: &Env) -> Outcome {
    let (from, to) = (Card::find(env, 0)?, Card::find(env, 1)?);
    let (first, second) = (from.open()?, to.open()?);
    let _expect = Expect::lines("lost")?;
    let (buffer, mine) = (Buffer::filled(100, 41)?, Buffer::filled(1, 42)?);
    buffer.to_device(&first)?;
    from.trick("gone", 1)?;
    // A command finds it out.
    let job = submit(&first, &[fill(mine.range(), 1)])?;
    ensure_eq!(first.wait(job, 20_000)?.error as i32, libc::EIO);
    let moved = second.mv(buffer.range(), Direction::ToDevice)?;
    all_counted(&moved)?;
    ensure_eq!(moved.moved, 0, "{moved:?}");
    ensure_eq!(buffer.local(&first)?, 100, "pages that stayed");
    drop((buffer, first));
    from.renew()?;
    conserved(&second).map(drop)
}

fn outside_sees(env: &Env) -> Outcome {
    let mut world = Outside::new()?;
    for card in Card::good(env)? {
        let device = card.open()?;
        let (buffer, value) = (Buffer::filled(500, 12)?, unique());
        mark(&buffer, value);
        ensure_eq!(
            world.find(&card, value)?,
            0,
            "in {} before it moved",
            card.file
        );
        buffer.to_device(&device)?;
        ensure_eq!(
            world.find(&card, value)?,
            500,
            "in {} while it is there",
            card.file
        );
        // What the device writes is seen there as well.
        let other = unique();
        run(&device, &[fill(buffer.part(0..100), other)])?;
        ensure_eq!(world.find(&card, other)?, 100);
        ensure_eq!(world.find(&card, value)?, 400);
        buffer.compare(0..100, |_| other)?;
        ensure_eq!(buffer.get(100 * 512 + 7), value);
    }
    Ok(())
}

fn outside_other(env: &Env) -> Outcome {
    let mut world = Outside::new()?;
    let card = Card::find(env, 0)?;
    let secret = unique();
    Child::spawn(|| {
        let device = card.open()?;
        let buffer = Buffer::new(usize::try_from(device.info()?.frames_free)?)?;
        mark(&buffer, secret);
        device.mv(buffer.range(), Direction::ToDevice).map(drop)?;
        Ok(())
    })?
    .join()?;
    // Frames are overwritten as a whole when they are handed out: no zero page, and no old one.
    let device = card.open()?;
    let free = usize::try_from(conserved(&device)?.frames_free)?;
    let buffer = Buffer::new(free)?;
    let moved = device.mv(buffer.range(), Direction::ToDeviceWithHoles)?;
    ensure_eq!(moved.moved as usize, free, "{moved:?}");
    ensure_eq!(
        world.find(&card, secret)?,
        0,
        "pages that still hold what was another process's"
    );
    ensure_eq!(world.used(&card)?, 0, "pages that are not zero");
    let total = Buffer::filled(1, 1)?;
    // SAFETY: the test's own memory.
    let job = unsafe {
        device.submit(
            &[sum(total.addr(), buffer.range())],
            vram_sys::HMM_VRAM_STAY,
        )
    }?;
    ensure_eq!(device.wait(job, 60_000)?.error, 0);
    ensure_eq!(total.get(0), 0, "what the device sees");
    Ok(())
}

fn nothing_remains(env: &Env) -> Outcome {
    let mut world = Outside::new()?;
    for card in Card::good(env)? {
        let device = card.open()?;
        let (buffer, value) = (Buffer::filled(2000, 13)?, unique());
        mark(&buffer, value);
        buffer.to_device(&device)?;
        ensure!(world.used(&card)? >= 2000, "pages in use");
        drop(device);
        card.unbind()?;
        ensure_eq!(world.used(&card)?, 0, "pages of {} after unbind", card.file);
        card.bind()?;
        ensure_eq!(buffer.get(7), value);
        buffer.compare(0..2000, |index| {
            if index % 512 == 7 {
                value
            } else {
                word(13, index)
            }
        })?;
    }
    Ok(())
}

fn scribbled(env: &Env) -> Outcome {
    let mut world = Outside::new()?;
    let card = Card::find(env, 0)?;
    let device = card.open()?;
    let (buffer, value) = (Buffer::filled(400, 14)?, unique());
    buffer.set(200 * 512 + 7, value);
    let total = Buffer::new(1)?;
    run(&device, &[sum(total.addr(), buffer.range())])?;
    let before = total.get(0);
    world.ask(&format!("flip {} {value:x}", card.file))?;
    run(&device, &[sum(total.addr(), buffer.range())])?;
    ensure_eq!(total.get(0), before - 1, "the device's checksum notices");
    // And nothing but that word is different.
    buffer.compare(0..400, |index| {
        if index == 200 * 512 + 7 {
            value ^ 1
        } else {
            word(14, index)
        }
    })
}

/// Fills a device: one page cannot be written, and of what is there one cannot be read.
fn bad_pages(env: &Env) -> Outcome {
    let card = Card::find(env, 1)?;
    let device = card.open()?;
    let before = conserved(&device)?;
    let free = usize::try_from(before.frames_free)?;
    let buffer = Buffer::filled(free, 15)?;
    let moved = device.mv(buffer.range(), Direction::ToDevice)?;
    all_counted(&moved)?;
    // Not its neighbours, which were copied in the same command.
    let failed = skipped(&moved, sys::HMM_DMIRROR_SKIP_COPY);
    ensure_eq!((failed, moved.moved as usize), (1, free - 1), "{moved:?}");
    ensure_eq!(buffer.local(&device)?, free - 1);
    buffer.verify_pages(0..64, 15)?;
    let back = device.mv(buffer.range(), Direction::ToRam)?;
    all_counted(&back)?;
    ensure_eq!(skipped(&back, sys::HMM_DMIRROR_SKIP_COPY), 1, "{back:?}");
    let mut stuck = Vec::new();
    for (page, place) in buffer.places(&device)?.into_iter().enumerate() {
        if place.is_local()
            && device
                .mv(buffer.part(page..page + 1), Direction::ToRam)?
                .moved
                == 0
        {
            stuck.push(page);
        }
    }
    ensure_eq!(stuck.len(), 1, "pages that cannot be read: {stuck:?}");
    let page = stuck[0];
    if env.is_private() {
        // Who touches it is told, and does not get another page instead.
        let (_read, write) = pipe()?;
        let touched =
            write_from(write.as_raw_fd(), buffer.at(page), 8).map_err(|e| e.raw_os_error());
        ensure_eq!(touched, Err(Some(libc::EFAULT)));
    }
    buffer.verify_pages(0..page, 15)?;
    buffer.verify_pages(page + 1..free, 15)
}

fn lost_interrupts(env: &Env) -> Outcome {
    let card = Card::find(env, 0)?;
    let device = card.open()?;
    let _patience = Patience::short()?;
    let before = device.status()?;
    let buffer = Buffer::filled(200, 16)?;
    for _ in 0..3 {
        card.trick("drop_interrupts", 1)?;
        buffer.to_device(&device)?;
        card.trick("drop_interrupts", 1)?;
        buffer.to_ram(&device)?;
    }
    card.trick("drop_interrupts", 0)?;
    buffer.verify(16)?;
    let status = device.status()?;
    ensure!(
        status.lost_interrupts > before.lost_interrupts,
        "{status:?}"
    );
    ensure_eq!(status.resets, before.resets, "no reset for that");
    Ok(())
}

fn hang(env: &Env) -> Outcome {
    let card = Card::find(env, 0)?;
    let device = card.open()?;
    let _patience = Patience::short()?;
    let _expect = Expect::lines("does not do what it should")?;
    let before = device.status()?;
    let buffer = Buffer::filled(600, 17)?;
    buffer.to_device(&device)?;
    card.trick("hang", 1)?;
    // On a CPU fault, on a request, and in a command.
    buffer.verify(17)?;
    card.trick("hang", 1)?;
    buffer.to_device(&device)?;
    card.trick("hang", 1)?;
    let other = Buffer::filled(600, 18)?;
    run(&device, &[copy(other.addr(), buffer.range())])?;
    other.verify(17)?;
    buffer.verify(17)?;
    let status = device.status()?;
    ensure!(status.resets > before.resets, "{status:?}");
    ensure_eq!(status.engine, vram_sys::HMM_VRAM_ENGINE_DMA, "{status:?}");
    card.trick("hang", 0)
}

fn stays_down(env: &Env) -> Outcome {
    let card = Card::find(env, 0)?;
    let _patience = Patience::short()?;
    let _expect =
        Expect::lines("does not come back|does not do what it should|the engine does not start")?;
    {
        let device = card.open()?;
        let buffer = Buffer::filled(600, 19)?;
        buffer.to_device(&device)?;
        card.trick("stuck", 1)?;
        card.trick("hang", 1)?;
        buffer.to_ram(&device)?;
        buffer.verify(19)?;
        let status = device.status()?;
        ensure_eq!(status.engine, vram_sys::HMM_VRAM_ENGINE_CPU, "{status:?}");
        // It goes on, slower.
        buffer.to_device(&device)?;
        let other = Buffer::new(600)?;
        run(
            &device,
            &[copy(other.addr(), buffer.range()), fill(buffer.range(), 0)],
        )?;
        other.verify(19)?;
        buffer.compare(0..600, |_| 0)?;
    }
    card.renew()?;
    let status = card.open()?.status()?;
    ensure_eq!(
        status.engine,
        vram_sys::HMM_VRAM_ENGINE_DMA,
        "a new driver starts it: {status:?}"
    );
    Ok(())
}

fn odd_completions(env: &Env) -> Outcome {
    let card = Card::find(env, 0)?;
    let device = card.open()?;
    let _expect = Expect::lines("does not do what it should")?;
    let before = device.status()?;
    let buffer = Buffer::filled(600, 20)?;
    for _ in 0..3 {
        card.trick("odd_completions", 1)?;
        buffer.to_device(&device)?;
        card.trick("odd_completions", 1)?;
        buffer.to_ram(&device)?;
        buffer.verify(20)?;
    }
    card.trick("odd_completions", 0)?;
    let status = device.status()?;
    ensure!(
        status.odd_completions > before.odd_completions,
        "{status:?}"
    );
    ensure!(status.resets > before.resets, "{status:?}");
    Ok(())
}

fn hostile_registers(env: &Env) -> Outcome {
    let card = Card::find(env, 0)?;
    let _expect = Expect::lines(
        "not ours|without a persistent|does not start|is not the memory region|not where the engine|probe (with|of)",
    )?;
    let _patience = Patience::short()?;
    let pretend = format!("{PARAMETERS}/pretend");
    card.unbind()?;
    let mut outcome = Ok(());
    for (what, value) in [
        ("all ones", "0,0xffffffff,4,0xffffffff"),
        ("nothing at all", "0,0,4,0"),
        ("no memory region", "4,0x20"),
        ("rings of two entries", "0,0x0f000001"),
        ("pages of 128 MiB", "4,0x010f0020"),
        ("doorbells beyond the BAR", "4,0x0100002f"),
        ("memory in BAR 7", "0xe00,0xe0"),
        ("memory in BAR 0", "0xe00,0"),
        ("memory in a BAR that is not there", "0xe00,0x40"),
        ("never ready", "0x1c,0"),
        ("always ready", "0x1c,1"),
        ("a status of all ones", "0x1c,0xffffffff"),
        ("memory that is never ready", "0xe08,0x100"),
    ] {
        fs::write(&pretend, value)?;
        let bound = fs::write(format!("{DRIVER}/bind"), &card.function);
        if bound.is_ok() {
            outcome = Err(Stop::Fail(format!("{what}: bound")));
            let _ = card.unbind();
        }
    }
    // One number is no pair.
    fs::write(&pretend, "0")?;
    card.bind()?;
    outcome
}

fn pulled_out(env: &Env) -> Outcome {
    let card = Card::find(env, 0)?;
    let _patience = Patience::short()?;
    let _expect = Expect::lines("lost")?;
    let device = card.open()?;
    let buffer = Buffer::filled(300, 21)?;
    let local = Buffer::filled(300, 22)?;
    buffer.to_device(&device)?;
    card.trick("gone", 1)?;
    // Nothing new goes there, and nobody gets anything else for what is there.
    let moved = device.mv(local.range(), Direction::ToDevice)?;
    ensure_eq!(
        skipped(&moved, sys::HMM_DMIRROR_SKIP_COPY),
        300,
        "{moved:?}"
    );
    if env.is_private() {
        let (_read, write) = pipe()?;
        let touched = write_from(write.as_raw_fd(), buffer.at(5), 8).map_err(|e| e.raw_os_error());
        ensure_eq!(touched, Err(Some(libc::EFAULT)), "a page that is gone");
    }
    all_counted(&moved)?;
    drop(device);
    // The rest of the memory is as it was, and lost pages are zeroes when the driver is gone.
    card.unbind()?;
    buffer.compare(0..300, |_| 0)?;
    local.verify(22)?;
    card.bind()?;
    let device = card.open()?;
    local.to_device(&device)?;
    local.verify(22)
}

fn lost_while_busy(env: &Env) -> Outcome {
    let card = Card::find(env, 0)?;
    let _expect = Expect::lines("lost")?;
    // Other processes use it as well: each is told, and what it has in RAM is as it was.
    let others: Vec<_> = (1..=3)
        .map(|seed| {
            Child::spawn(move || {
                let device = env.open()?;
                let work = Buffer::new(500)?;
                let kept = Buffer::filled(500, seed)?;
                loop {
                    let job = submit(&device, &[axpy(work.addr(), 1, work.range())]);
                    let errno = match job.and_then(|job| device.wait(job, 20_000)) {
                        Ok(result) => result.error as i32,
                        Err(error) => error.errno,
                    };
                    if errno != 0 {
                        ensure!([libc::EIO, libc::ENODEV].contains(&errno), "{errno}");
                        return kept.verify(seed);
                    }
                }
            })
        })
        .collect::<Result<_, Stop>>()?;
    let device = card.open()?;
    let x = Buffer::filled(2000, 23)?;
    let mut jobs = Vec::new();
    for _ in 0..20 {
        jobs.push(submit(&device, &[axpy(x.addr(), 1, x.range())])?);
    }
    card.trick("gone", 1)?;
    for other in others {
        other.join()?;
    }
    let mut errors = Vec::new();
    for job in &jobs {
        errors.push(device.wait(*job, 20_000)?.error as i32);
    }
    ensure!(
        errors
            .iter()
            .all(|errno| [0, libc::EIO, libc::ENODEV].contains(errno)),
        "{errors:?}"
    );
    ensure!(errors.last().is_some_and(|errno| *errno != 0), "{errors:?}");
    // Unbound while somebody waits: he is told.
    card.unbind()?;
    ensure_eq!(
        device.wait(jobs[0], 0).err().map(|e| e.errno),
        Some(libc::ENODEV)
    );
    ensure_eq!(device.info().err().map(|e| e.errno), Some(libc::ENODEV));
    drop(device);
    card.bind()?;
    let device = card.open()?;
    let y = Buffer::filled(200, 24)?;
    run(&device, &[axpy(y.addr(), 1, y.range())])?;
    y.compare(0..200, |index| word(24, index).wrapping_mul(2))
}

fn reset_from_outside(env: &Env) -> Outcome {
    let card = Card::find(env, 0)?;
    let path = card.path().join("reset");
    if !path.exists() {
        skip!("the function offers no reset to the bus");
    }
    under_load(&card, |_| {
        (0..4).try_for_each(|_| {
            sleep_ms(30);
            Ok(fs::write(&path, "1")?)
        })
    })
}

/// Does something to a device while a process moves pages there and back, and none may be lost.
fn under_load(card: &Card, act: impl FnOnce(&Device) -> Outcome) -> Outcome {
    let device = card.open()?;
    let buffer = Buffer::filled(800, 25)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                device.mv(buffer.range(), Direction::ToDevice)?;
                buffer.verify_pages(0..400, 25)?;
            }
            Outcome::Ok(())
        });
        let result = act(&device);
        stop.store(true, Ordering::Release);
        mover.join().map_err(|_| "panicked")??;
        result
    })?;
    buffer.verify(25)?;
    ensure_eq!(device.status()?.engine, vram_sys::HMM_VRAM_ENGINE_DMA);
    Ok(())
}

/// Has the port above the first device report an error; returns when that is over.
fn report_error(device: &Device, error: &str) -> Outcome {
    let before = device.status()?.resets;
    Outside::new()?.ask(&format!("monitor pcie_aer_inject_error dn0 {error}"))?;
    let end = Instant::now() + Duration::from_secs(20);
    while device.status()?.resets == before {
        ensure!(Instant::now() < end, "nobody told the driver of {error}");
        sleep_ms(10);
    }
    // A copy is done when there is an engine again, or none any more; the port needs a little longer.
    device.mv(Buffer::filled(1, 1)?.range(), Direction::ToDevice)?;
    sleep_ms(500);
    Ok(())
}

fn bus_errors(env: &Env) -> Outcome {
    let card = Card::find(env, 0)?;
    if let Some(why) = card.without_reports() {
        skip!("{why}");
    }
    // A completion that never came is no end of the world; an error of the link resets the bus.
    under_load(&card, |device| {
        ["COMP_TIME", "DLP", "COMP_TIME", "DLP"]
            .into_iter()
            .try_for_each(|error| report_error(device, error))
    })?;
    // And with a context at work on what is there already: the cores touch nothing while there is
    // nothing in the BAR.
    let device = card.open()?;
    let (x, y) = (Buffer::filled(2000, 45)?, Buffer::new(2000)?);
    let add = [axpy(y.addr(), 1, x.range())];
    run(&device, &add)?;
    let stop = AtomicBool::new(false);
    let times = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut times = 1;
            while !stop.load(Ordering::Acquire) {
                run(&device, &add)?;
                times += 1;
            }
            Ok::<u64, Stop>(times)
        });
        let result = report_error(&device, "DLP");
        stop.store(true, Ordering::Release);
        let times = worker.join().map_err(|_| "panicked")??;
        result.map(|()| times)
    })?;
    y.compare(0..2000, |index| word(45, index).wrapping_mul(times))
}

/// A device that does not come back from a reset of the bus: its driver is told that it is over.
fn given_up(env: &Env) -> Outcome {
    let card = Card::find(env, 0)?;
    if let Some(why) = card.without_reports() {
        skip!("{why}");
    }
    let _expect = Expect::lines("lost")?;
    let device = card.open()?;
    let (buffer, local) = (Buffer::filled(300, 43)?, Buffer::filled(300, 44)?);
    buffer.to_device(&device)?;
    card.trick("gone", 1)?;
    report_error(&device, "DLP")?;
    let end = Instant::now() + Duration::from_secs(20);
    while device.status()?.engine != vram_sys::HMM_VRAM_ENGINE_LOST {
        ensure!(Instant::now() < end, "the driver still has hope");
        sleep_ms(10);
    }
    ensure_eq!(device.mv(local.range(), Direction::ToDevice)?.moved, 0);
    drop(device);
    card.renew()?;
    local.verify(44)?;
    local.to_device(&card.open()?)?;
    local.verify(44)
}

/// A page that a pipe holds.
struct Held {
    page: usize,
    reader: OwnedFd,
    _writer: OwnedFd,
}

impl Held {
    fn new(buffer: &Buffer, page: usize) -> Result<Self, Stop> {
        let (reader, writer) = pipe()?;
        let vector = libc::iovec {
            iov_base: buffer.at(page) as *mut _,
            iov_len: 4096,
        };
        // SAFETY: one vector of our own memory, which is not written until the pipe is read.
        let put = unsafe { libc::vmsplice(writer.as_raw_fd(), &vector, 1, 0) };
        ensure_eq!(put, 4096);
        Ok(Self {
            page,
            reader,
            _writer: writer,
        })
    }

    /// What the pipe has must be what the page had.
    fn let_go(self, seed: u64) -> Outcome {
        let mut bytes = vec![0; 4096];
        read(self.reader.as_raw_fd(), &mut bytes)?;
        Buffer::same(&bytes, self.page, seed)
    }
}

/// Coherent memory that a pipe holds stays where it is, and the driver waits for it.
fn pinned(env: &Env) -> Outcome {
    let card = Card::find(env, 0)?;
    let device = card.open()?;
    let buffer = Buffer::filled(64, 26)?;
    buffer.to_device(&device)?;
    drop(device);
    let held = Held::new(&buffer, 3)?;
    let _expect = Expect::lines("removal waits for")?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let remover = scope.spawn(|| {
            let result = card.unbind();
            done.store(true, Ordering::Release);
            result
        });
        sleep_ms(1500);
        let waited = !done.load(Ordering::Acquire);
        held.let_go(26)?;
        remover.join().map_err(|_| "panicked")??;
        // Private memory came home before anybody could hold it.
        ensure!(
            !waited || env.kind == Kind::Coherent,
            "private memory cannot be held"
        );
        Outcome::Ok(())
    })?;
    buffer.verify(26)?;
    card.bind()
}

fn unbind_under_load(env: &Env) -> Outcome {
    let card = Card::find(env, 0)?;
    for round in 0..4 {
        let device = card.open()?;
        let buffers = [Buffer::filled(400, 27)?, Buffer::filled(400, 28)?];
        let work = Buffer::new(400)?;
        std::thread::scope(|scope| {
            let movers: Vec<_> = buffers
                .iter()
                .zip([27, 28])
                .map(|(buffer, seed)| {
                    let device = &device;
                    scope.spawn(move || {
                        loop {
                            match device.mv(buffer.range(), Direction::ToDevice) {
                                Ok(_) => buffer.verify_pages(0..200, seed)?,
                                Err(error) => {
                                    ensure_eq!(error.errno, libc::ENODEV, "MOVE");
                                    return buffer.verify(seed);
                                }
                            }
                        }
                    })
                })
                .collect();
            let worker = scope.spawn(|| {
                loop {
                    let errno = match submit(&device, &[axpy(work.addr(), 1, work.range())]) {
                        Ok(job) => match device.wait(job, 20_000) {
                            Ok(result) => result.error as i32,
                            Err(error) => error.errno,
                        },
                        Err(error) => error.errno,
                    };
                    if errno != 0 {
                        ensure_eq!(errno, libc::ENODEV, "commands");
                        return Outcome::Ok(());
                    }
                }
            });
            sleep_ms(40 * round + 20);
            let result = card.unbind();
            for thread in movers.into_iter().chain([worker]) {
                thread.join().map_err(|_| "panicked")??;
            }
            result
        })?;
        card.bind()?;
    }
    Ok(())
}

fn bind_cycles(env: &Env) -> Outcome {
    let buffer = Buffer::filled(32, 29)?;
    // A thousand in one of the machines; an engine takes longer to start and to stop than none.
    let rounds = if env.is_private() {
        [200, 800]
    } else {
        [20, 40]
    };
    for (card, rounds) in Card::good(env)?.into_iter().zip(rounds) {
        let begin = Instant::now();
        for round in 0..rounds {
            if round % 4 == 0 {
                buffer.to_device(&card.open()?)?;
            }
            card.unbind()?;
            card.bind()?;
        }
        let each = begin.elapsed() / rounds;
        println!("# {rounds} cycles of {}, {each:?} each", card.function);
    }
    buffer.verify(29)
}

/// Pulled out by the hypervisor, in order, while pages move; then another one is put in.
fn unplugged(env: &Env) -> Outcome {
    let mut world = Outside::new()?;
    for (card, id, like) in [
        (
            Card::find(env, 2)?,
            "iv2",
            "ivshmem-plain,addr=0x6,memdev=NEW",
        ),
        (
            Card::find(env, 0)?,
            "nv0",
            "nvme,serial=vram0,addr=0x4,drive=NEW-drive,pmrdev=NEW",
        ),
    ] {
        let resident = Buffer::filled(1500, 31)?;
        unplug(env, &mut world, &card, id, &resident)?;
        resident.verify(31)?;
        let path = card.path();
        let end = Instant::now() + Duration::from_secs(20);
        let mut answer = String::new();
        // QEMU may not have let go of what the old one used yet, and refuses until then.
        for turn in 0.. {
            if path.exists() {
                break;
            }
            ensure!(
                Instant::now() < end,
                "{} does not come back: {answer}",
                path.display()
            );
            // The same file under another name each time: QEMU takes no object twice, the name may
            // have been used by an earlier run of this test, and an nvme that is gone may keep its
            // drive for good (QEMU 7.2).
            if turn % 50 == 25 {
                let fresh = format!("new-{id}-{turn}");
                world.ask(&format!("monitor object_del {fresh}"))?;
                world.ask(&format!(
                    "monitor object_add memory-backend-file,id={fresh},share=on,mem-path={{{}}},size=64M",
                    card.file
                ))?;
                if card.has_engine() {
                    world.ask(&format!(
                        "monitor drive_add 0 if=none,id={fresh}-drive,format=raw,file.locking=off,file={{{}}}",
                        card.file
                    ))?;
                }
                answer = world.ask(&format!(
                    "monitor device_add {},id={id}",
                    like.replace("NEW", &fresh)
                ))?;
            }
            sleep_ms(20);
        }
        fs::write(path.join("driver_override"), "hmm_vram")?;
        fs::write("/sys/bus/pci/drivers_probe", &card.function)?;
        card.bind()?;
        let device = card.open()?;
        resident.to_device(&device)?;
        resident.verify(31)?;
    }
    Ok(())
}

/// Pulls out a device that has pages resident, others on their way, and one that a pipe holds.
fn unplug(env: &Env, world: &mut Outside, card: &Card, id: &str, resident: &Buffer) -> Outcome {
    let device = card.open()?;
    let buffer = Buffer::filled(1500, 30)?;
    resident.to_device(&device)?;
    let held = Held::new(resident, 3)?;
    let _expect = Expect::lines("removal waits for")?;
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            loop {
                match device.mv(buffer.range(), Direction::ToDevice) {
                    Ok(_) => buffer.verify_pages(0..300, 30)?,
                    Err(error) => {
                        ensure_eq!(error.errno, libc::ENODEV, "MOVE");
                        return Outcome::Ok(());
                    }
                }
            }
        });
        sleep_ms(100);
        world.ask(&format!("monitor device_del {id}"))?;
        mover.join().map_err(|_| "panicked")?
    })?;
    sleep_ms(1500);
    // Private memory came home before anybody could hold it.
    let there = card.path().exists();
    ensure!(there || env.is_private(), "gone with a page that is held");
    held.let_go(31)?;
    let end = Instant::now() + Duration::from_secs(20);
    while card.path().exists() {
        ensure!(Instant::now() < end, "{} is still there", card.function);
        sleep_ms(20);
    }
    buffer.verify(30)
}

fn sleeps(env: &Env) -> Outcome {
    if !fs::read_to_string("/sys/power/mem_sleep").is_ok_and(|modes| modes.contains("deep")) {
        skip!("this kernel cannot suspend to RAM here");
    }
    let cards = Card::good(env)?;
    let mut kept = Vec::new();
    for (seed, card) in (32..).zip(&cards) {
        let device = card.open()?;
        let buffer = Buffer::filled(700, seed)?;
        buffer.to_device(&device)?;
        kept.push((device, buffer, seed));
    }
    Outside::new()?.ask("wake")?;
    fs::write("/sys/power/mem_sleep", "deep")?;
    fs::write("/sys/power/state", "mem")?;
    for (device, buffer, seed) in &kept {
        // All of it is home, and the device is as good as before.
        ensure_eq!(buffer.local(device)?, 0, "pages on the device after sleep");
        buffer.verify(*seed)?;
        buffer.to_device(device)?;
        run(device, &[axpy(buffer.addr(), 1, buffer.range())])?;
        buffer.compare(0..700, |index| word(*seed, index).wrapping_mul(2))?;
    }
    let status = kept[0].0.status()?;
    ensure_eq!(status.engine, vram_sys::HMM_VRAM_ENGINE_DMA, "{status:?}");
    Ok(())
}
