// SPDX-License-Identifier: GPL-2.0
//! Bad input: each call names its errno, and nothing changed.

use crate::buffer::{Buffer, PAGE};
use crate::harness::{Child, Env, Outcome, Stop, Test, ensure, ensure_eq, test};
use crate::sys::errno;
use hmm_uapi::{Device, Direction, PAGE_SIZE, ioctl, raw, sys};
use std::mem::size_of;
use std::os::fd::AsRawFd;

pub const TESTS: &[Test] = &[
    test("input::unknown_calls", unknown),
    test("input::no_structure", no_structure),
    test("input::structure_on_the_edge", edge),
    test("input::ranges_of_the_legacy_calls", legacy_ranges),
    test("input::ranges_of_move", move_ranges),
    test("input::ranges_of_compute", compute_ranges),
    test("input::sizes_of_structures", sizes),
    test("input::garbage_in_every_field", garbage),
    test("input::unmapped_and_forbidden_memory", unmapped),
    test("input::pages_that_do_not_go", pages_that_do_not_go),
    test("input::bad_buffers", bad_buffers),
    test("input::release_ignores_its_fields", release_fields),
    test("input::read_and_write_on_the_node", node_calls),
    test("input::random_structures", random),
];

/// End of the user's half of the address space: with five levels of page tables it is larger.
fn top() -> u64 {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let bits = if cpu.contains(" la57") { 56 } else { 47 };
    (1 << bits) - PAGE
}

const KERNEL: u64 = 0xffff_8880_0000_0000;

const LEGACY: [(&str, u32); 8] = [
    ("READ", ioctl::READ_NR),
    ("WRITE", ioctl::WRITE_NR),
    ("MIGRATE_TO_DEV", ioctl::MIGRATE_TO_DEV),
    ("MIGRATE_TO_SYS", ioctl::MIGRATE_TO_SYS),
    ("SNAPSHOT", ioctl::SNAPSHOT),
    ("EXCLUSIVE", ioctl::EXCLUSIVE),
    ("CHECK_EXCLUSIVE", ioctl::CHECK_EXCLUSIVE),
    ("READ_UNLOCKED", ioctl::READ_UNLOCKED),
];

/// A device and memory whose state must not change.
struct Stage {
    device: Device,
    buffer: Buffer,
    /// Where calls may put what they read.
    space: Buffer,
}

impl Stage {
    /// 16 pages, the first 8 on the device.
    fn new(env: &Env) -> Result<Self, Stop> {
        let stage = Self {
            device: env.open()?,
            buffer: Buffer::filled(16, 1)?,
            space: Buffer::new(16)?,
        };
        stage
            .device
            .mv(stage.buffer.part(0..8), Direction::ToDevice)?;
        Ok(stage)
    }

    fn state(&self) -> Result<(Vec<hmm_uapi::Place>, [u64; 8]), Stop> {
        let info = self.device.info()?;
        Ok((
            self.buffer.places(&self.device)?,
            [
                info.frames_total,
                info.frames_free,
                info.frames_claimed,
                info.frames_resident,
                info.to_device,
                info.to_ram_request,
                info.to_ram_fault,
                info.cpu_faults,
            ],
        ))
    }

    /// The call fails with `want` and nothing changed.
    fn refuses<T>(&self, what: &str, nr: u32, mut arg: T, want: i32) -> Outcome {
        let before = self.state()?;
        // SAFETY: `arg` is as large as `nr` says, or the test is about the kernel noticing.
        let got = unsafe { raw(self.device.as_raw_fd(), nr, (&raw mut arg).cast()) };
        ensure_eq!(got, Err(want), "{what}");
        ensure_eq!(self.state()?, before, "state after {what}");
        Ok(())
    }

    /// The bytes are right in the end.
    fn end(self) -> Outcome {
        self.buffer.verify(1)
    }

    fn cmd(&self) -> sys::hmm_dmirror_cmd {
        sys::hmm_dmirror_cmd {
            addr: self.buffer.addr(),
            ptr: self.space.addr(),
            npages: 16,
            ..Default::default()
        }
    }

    fn mv(&self) -> sys::hmm_dmirror_move {
        sys::hmm_dmirror_move {
            size: size_of::<sys::hmm_dmirror_move>() as u32,
            direction: sys::HMM_DMIRROR_TO_DEVICE,
            addr: self.buffer.addr(),
            len: 16 * PAGE,
            ..Default::default()
        }
    }

    fn compute(&self) -> sys::hmm_dmirror_compute {
        sys::hmm_dmirror_compute {
            size: size_of::<sys::hmm_dmirror_compute>() as u32,
            op: sys::HMM_DMIRROR_CHECKSUM,
            addr: self.buffer.addr(),
            len: 16 * PAGE,
            ..Default::default()
        }
    }
}

fn info_arg() -> sys::hmm_dmirror_info {
    sys::hmm_dmirror_info {
        size: size_of::<sys::hmm_dmirror_info>() as u32,
        ..Default::default()
    }
}

fn fail_arg() -> sys::hmm_dmirror_fail {
    sys::hmm_dmirror_fail {
        size: size_of::<sys::hmm_dmirror_fail>() as u32,
        leg: sys::HMM_DMIRROR_FAIL_WAIT,
        skip: 1 << 40,
        count: 1,
    }
}

fn unknown(env: &Env) -> Outcome {
    let stage = Stage::new(env)?;
    for nr in [0x0a, 0x10, 0x3f, 0x44, 0xff] {
        for size in [0, 40, 96] {
            let nr = ioctl::ioc(3, b'H', nr, size);
            stage.refuses(&format!("{nr:#x}"), nr, [0_u64; 32], libc::ENOTTY)?;
        }
    }
    // The right number in another size, direction or under another letter.
    for (what, nr) in [
        ("READ, 32 bytes", ioctl::ioc(3, b'H', 0, 32)),
        ("READ, write only", ioctl::ioc(1, b'H', 0, 40)),
        ("INFO, 88 bytes", ioctl::ioc(3, b'H', 0x40, 88)),
        ("INFO, without a size", ioctl::ioc(0, b'H', 0x40, 0)),
        ("INFO, other letter", ioctl::ioc(3, b'h', 0x40, 96)),
        ("FAIL, both ways", ioctl::ioc(3, b'H', 0x43, 24)),
        ("zero", 0),
        ("TCGETS", 0x5401),
    ] {
        stage.refuses(what, nr, [0_u64; 32], libc::ENOTTY)?;
    }
    stage.end()
}

/// All calls that take a structure; RELEASE takes one and does not look at it.
fn all_calls() -> Vec<(&'static str, u32)> {
    let mut calls = LEGACY.to_vec();
    calls.extend([
        ("FLAGS", ioctl::FLAGS),
        ("INFO", ioctl::INFO),
        ("MOVE", ioctl::MOVE),
        ("COMPUTE", ioctl::COMPUTE),
        ("FAIL", ioctl::FAIL),
    ]);
    calls
}

fn no_structure(env: &Env) -> Outcome {
    let stage = Stage::new(env)?;
    let unmapped = Buffer::new(1)?;
    unmapped.unmap(0..1)?;
    let before = stage.state()?;
    for (what, nr) in all_calls() {
        for arg in [0, 1, unmapped.addr(), top(), KERNEL, u64::MAX] {
            // SAFETY: the kernel has to refuse these addresses.
            let got = unsafe { raw(stage.device.as_raw_fd(), nr, arg as *mut _) };
            ensure_eq!(
                got,
                Err(libc::EFAULT),
                "{what} with its structure at {arg:#x}"
            );
        }
    }
    ensure_eq!(stage.state()?, before);
    stage.end()
}

/// A structure of which only the first half can be read.
fn edge(env: &Env) -> Outcome {
    let stage = Stage::new(env)?;
    let buffer = Buffer::new(2)?;
    buffer.unmap(1..2)?;
    let before = stage.state()?;
    for (what, nr) in all_calls() {
        // SAFETY: the kernel has to refuse this address.
        let got = unsafe { raw(stage.device.as_raw_fd(), nr, (buffer.at(1) - 16) as *mut _) };
        ensure_eq!(got, Err(libc::EFAULT), "{what}");
    }
    ensure_eq!(stage.state()?, before);
    stage.end()
}

/// Ranges that no call may accept, as (start, pages).
fn bad_ranges(good: u64) -> Vec<(&'static str, u64, u64)> {
    vec![
        ("unaligned by 1", good + 1, 1),
        ("unaligned by 8", good + 8, 16),
        ("unaligned by half a page", good + 2048, 2),
        ("no pages", good, 0),
        ("pages that overflow to 0", good, 1 << 52),
        ("pages that overflow to 1", good, (1 << 52) + 1),
        ("pages that wrap the address", good, (1 << 52) - 1),
        ("all ones", good, u64::MAX),
        ("half of all", good, 1 << 51),
        ("beyond the user's half", top() - PAGE, 2),
        ("at its end", top(), 1),
        ("not canonical", top() + PAGE, 1),
        ("not canonical, high", 0x8000_0000_0000_0000, 1),
        ("kernel memory", KERNEL, 1),
        ("the last page", u64::MAX - PAGE + 1, 1),
        ("across the end of all addresses", u64::MAX - PAGE + 1, 2),
        ("everything", 0, top() / PAGE + 1),
    ]
}

fn legacy_ranges(env: &Env) -> Outcome {
    let stage = Stage::new(env)?;
    for (call, nr) in LEGACY {
        for (what, addr, npages) in bad_ranges(stage.buffer.addr()) {
            let arg = sys::hmm_dmirror_cmd {
                addr,
                npages,
                ..stage.cmd()
            };
            stage.refuses(&format!("{call}: {what}"), nr, arg, libc::EINVAL)?;
        }
    }
    stage.end()
}

fn move_ranges(env: &Env) -> Outcome {
    let stage = Stage::new(env)?;
    for direction in [sys::HMM_DMIRROR_TO_DEVICE, sys::HMM_DMIRROR_TO_RAM] {
        for (what, addr, npages) in bad_ranges(stage.buffer.addr()) {
            if npages < 1 << 52 {
                let arg = sys::hmm_dmirror_move {
                    direction,
                    addr,
                    len: npages << 12,
                    ..stage.mv()
                };
                stage.refuses(
                    &format!("MOVE {direction}: {what}"),
                    ioctl::MOVE,
                    arg,
                    libc::EINVAL,
                )?;
            }
        }
        for len in [
            1,
            8,
            PAGE - 1,
            PAGE + 1,
            u64::MAX,
            u64::MAX - PAGE + 1,
            1 << 63,
        ] {
            let arg = sys::hmm_dmirror_move {
                direction,
                len,
                ..stage.mv()
            };
            stage.refuses(
                &format!("MOVE: {len:#x} bytes"),
                ioctl::MOVE,
                arg,
                libc::EINVAL,
            )?;
        }
    }
    stage.end()
}

fn compute_ranges(env: &Env) -> Outcome {
    let stage = Stage::new(env)?;
    for op in [sys::HMM_DMIRROR_CHECKSUM, sys::HMM_DMIRROR_ADD] {
        for (what, addr, npages) in bad_ranges(stage.buffer.addr()) {
            if npages < 1 << 52 {
                let arg = sys::hmm_dmirror_compute {
                    op,
                    addr,
                    len: npages << 12,
                    ..stage.compute()
                };
                stage.refuses(
                    &format!("COMPUTE {op}: {what}"),
                    ioctl::COMPUTE,
                    arg,
                    libc::EINVAL,
                )?;
            }
        }
        for len in [1, 8, PAGE - 1, PAGE + 1, u64::MAX, 1 << 63] {
            let arg = sys::hmm_dmirror_compute {
                op,
                len,
                ..stage.compute()
            };
            stage.refuses(
                &format!("COMPUTE: {len:#x} bytes"),
                ioctl::COMPUTE,
                arg,
                libc::EINVAL,
            )?;
        }
    }
    stage.end()
}

fn sizes(env: &Env) -> Outcome {
    let stage = Stage::new(env)?;
    let wrong = |right: usize| {
        let right = right as u32;
        [
            0,
            1,
            4,
            right - 1,
            right - 8,
            right + 1,
            right + 8,
            4096,
            u32::MAX,
        ]
    };
    for size in wrong(size_of::<sys::hmm_dmirror_info>()) {
        let arg = sys::hmm_dmirror_info { size, ..info_arg() };
        stage.refuses(&format!("INFO of {size}"), ioctl::INFO, arg, libc::EINVAL)?;
    }
    for size in wrong(size_of::<sys::hmm_dmirror_move>()) {
        let arg = sys::hmm_dmirror_move { size, ..stage.mv() };
        stage.refuses(&format!("MOVE of {size}"), ioctl::MOVE, arg, libc::EINVAL)?;
    }
    for size in wrong(size_of::<sys::hmm_dmirror_compute>()) {
        let arg = sys::hmm_dmirror_compute {
            size,
            ..stage.compute()
        };
        stage.refuses(
            &format!("COMPUTE of {size}"),
            ioctl::COMPUTE,
            arg,
            libc::EINVAL,
        )?;
    }
    for size in wrong(size_of::<sys::hmm_dmirror_fail>()) {
        let arg = sys::hmm_dmirror_fail { size, ..fail_arg() };
        stage.refuses(&format!("FAIL of {size}"), ioctl::FAIL, arg, libc::EINVAL)?;
    }
    stage.end()
}

fn garbage(env: &Env) -> Outcome {
    const G: u64 = 0xdead_beef_0bad_cafe;
    let stage = Stage::new(env)?;
    let none = libc::EINVAL;
    let arg = sys::hmm_dmirror_info {
        reserved: 1,
        ..info_arg()
    };
    stage.refuses("INFO reserved", ioctl::INFO, arg, none)?;
    let arg = sys::hmm_dmirror_info {
        reserved: u32::MAX,
        ..info_arg()
    };
    stage.refuses("INFO reserved", ioctl::INFO, arg, none)?;
    for direction in [0, 3, 4, u32::MAX] {
        let arg = sys::hmm_dmirror_move {
            direction,
            ..stage.mv()
        };
        stage.refuses(
            &format!("MOVE direction {direction}"),
            ioctl::MOVE,
            arg,
            none,
        )?;
    }
    for flags in [4, 8, 1 << 63, u64::MAX] {
        let arg = sys::hmm_dmirror_move {
            flags,
            ..stage.mv()
        };
        stage.refuses(&format!("MOVE flags {flags:#x}"), ioctl::MOVE, arg, none)?;
    }
    for op in [0, 3, u32::MAX] {
        let arg = sys::hmm_dmirror_compute {
            op,
            ..stage.compute()
        };
        stage.refuses(&format!("COMPUTE op {op}"), ioctl::COMPUTE, arg, none)?;
    }
    let arg = sys::hmm_dmirror_compute {
        operand: 1,
        ..stage.compute()
    };
    stage.refuses("CHECKSUM with an operand", ioctl::COMPUTE, arg, none)?;
    for leg in [6, 7, 255, u32::MAX] {
        let arg = sys::hmm_dmirror_fail { leg, ..fail_arg() };
        stage.refuses(&format!("FAIL leg {leg}"), ioctl::FAIL, arg, none)?;
    }
    let off = sys::HMM_DMIRROR_FAIL_NONE;
    for (skip, count) in [(1, 0), (0, 1), (G, G)] {
        let arg = sys::hmm_dmirror_fail {
            leg: off,
            skip,
            count,
            ..fail_arg()
        };
        stage.refuses("FAIL off with numbers", ioctl::FAIL, arg, none)?;
    }
    let arg = sys::hmm_dmirror_fail {
        count: 0,
        ..fail_arg()
    };
    stage.refuses("FAIL never", ioctl::FAIL, arg, none)?;
    // What a call gives back may hold anything when it comes in.
    let mut arg = sys::hmm_dmirror_move {
        moved: G,
        ns: G,
        skipped: [G; 8],
        ..stage.mv()
    };
    // SAFETY: a good call.
    let result = unsafe { raw(stage.device.as_raw_fd(), ioctl::MOVE, (&raw mut arg).cast()) };
    ensure_eq!(result, Ok(()), "MOVE with garbage in its results");
    ensure_eq!(arg.moved, 8, "{arg:?}");
    crate::buffer::all_counted(&arg)?;
    let mut arg = sys::hmm_dmirror_cmd {
        cpages: G,
        faults: G,
        ..stage.cmd()
    };
    // SAFETY: a good call.
    let result = unsafe {
        raw(
            stage.device.as_raw_fd(),
            ioctl::READ_NR,
            (&raw mut arg).cast(),
        )
    };
    ensure_eq!(result, Ok(()), "READ with garbage in its results");
    ensure_eq!(arg.cpages, 16, "{arg:?}");
    ensure!(arg.faults <= 16, "{arg:?}");
    stage.space.verify(1)?;
    stage.end()
}

fn unmapped(env: &Env) -> Outcome {
    let stage = Stage::new(env)?;
    // 16 pages of which page 4 is missing, or may not be read, or may not be written.
    for (what, prot, expected) in [
        (
            "hole",
            None,
            [libc::EFAULT, libc::EFAULT, libc::EINVAL, libc::EINVAL],
        ),
        (
            "forbidden page",
            Some(libc::PROT_NONE),
            [libc::EFAULT, libc::EFAULT, libc::EINVAL, libc::EINVAL],
        ),
        (
            "read-only page",
            Some(libc::PROT_READ),
            [0, libc::EPERM, 0, 0],
        ),
    ] {
        for on_device in [false, true] {
            let buffer = Buffer::filled(16, 2)?;
            if on_device {
                buffer.to_device(&stage.device)?;
            }
            match prot {
                None => buffer.unmap(4..5)?,
                Some(prot) => buffer.protect(4..5, prot)?,
            }
            for ((call, nr), want) in LEGACY.into_iter().zip(expected) {
                if want == 0 {
                    continue;
                }
                let arg = sys::hmm_dmirror_cmd {
                    addr: buffer.addr(),
                    ..stage.cmd()
                };
                stage.refuses(&format!("{call} over a {what}"), nr, arg, want)?;
                // WRITE may have reached the pages before; they got zeroes from the space.
                if nr == ioctl::WRITE_NR {
                    buffer.verify_pages(5..16, 2)?;
                    buffer.fill_pages(0..4, 2);
                }
            }
            let sum = sys::hmm_dmirror_compute {
                addr: buffer.addr(),
                ..stage.compute()
            };
            let add = sys::hmm_dmirror_compute {
                op: sys::HMM_DMIRROR_ADD,
                ..sum
            };
            if expected[0] != 0 {
                stage.refuses(
                    &format!("CHECKSUM over a {what}"),
                    ioctl::COMPUTE,
                    sum,
                    expected[0],
                )?;
            }
            stage.refuses(
                &format!("ADD over a {what}"),
                ioctl::COMPUTE,
                add,
                expected[1],
            )?;
            buffer.verify_pages(5..16, 2)?;
            if prot.is_some() {
                buffer.protect(4..5, libc::PROT_READ)?;
                buffer.verify_pages(4..5, 2)?;
            }
        }
    }
    // Nothing at all there.
    let nothing = Buffer::new(16)?;
    nothing.unmap(0..16)?;
    for (call, nr) in &LEGACY[..4] {
        let want = if call.starts_with('M') {
            libc::EINVAL
        } else {
            libc::EFAULT
        };
        let arg = sys::hmm_dmirror_cmd {
            addr: nothing.addr(),
            ..stage.cmd()
        };
        stage.refuses(&format!("{call} of nothing"), *nr, arg, want)?;
        let arg = sys::hmm_dmirror_cmd {
            addr: 0,
            ..stage.cmd()
        };
        stage.refuses(&format!("{call} at 0"), *nr, arg, want)?;
    }
    stage.end()
}

fn pages_that_do_not_go(env: &Env) -> Outcome {
    let stage = Stage::new(env)?;
    // Four own pages, then four of shared memory.
    let buffer = Buffer::filled(8, 3)?;
    // SAFETY: replaces half of our own mapping.
    let shared = unsafe {
        libc::mmap(
            buffer.at(4) as *mut _,
            4 * PAGE_SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    ensure!(shared != libc::MAP_FAILED, "mmap: errno {}", errno());
    buffer.fill(3);
    let mut seen = vec![0; 8 * PAGE_SIZE];
    let error = stage
        .device
        .migrate_to_dev(buffer.addr(), &mut seen)
        .unwrap_err();
    ensure_eq!(error.errno, libc::ENOENT, "MIGRATE_TO_DEV of shared memory");
    let places = buffer.places(&stage.device)?;
    ensure!(
        places[..4].iter().all(|place| place.is_local()),
        "pages before it: {places:?}"
    );
    ensure!(
        !places[4..].iter().any(|place| place.is_local()),
        "shared pages: {places:?}"
    );
    buffer.verify(3)?;
    // The program's own code: a file.
    let code = (unknown as *const () as u64) & !(PAGE - 1);
    let arg = sys::hmm_dmirror_cmd {
        addr: code,
        npages: 1,
        ..stage.cmd()
    };
    stage.refuses(
        "MIGRATE_TO_DEV of code",
        ioctl::MIGRATE_TO_DEV,
        arg,
        libc::ENOENT,
    )?;
    let arg = sys::hmm_dmirror_cmd {
        addr: code,
        npages: 1,
        ..stage.cmd()
    };
    let mut write = arg;
    write.ptr = stage.space.addr();
    stage.refuses("WRITE to code", ioctl::WRITE_NR, write, libc::EPERM)?;
    let done = stage.device.migrate_to_sys(code, 1)?;
    ensure_eq!(done.pages, 0, "MIGRATE_TO_SYS of code");
    let mut first = [0; PAGE_SIZE];
    stage.device.read(code, &mut first)?;
    // SAFETY: the program's own code can be read.
    let own = unsafe { std::slice::from_raw_parts(code as *const u8, PAGE_SIZE) };
    ensure!(first == own, "the device reads other code");
    stage.end()
}

fn bad_buffers(env: &Env) -> Outcome {
    let stage = Stage::new(env)?;
    let half = Buffer::new(16)?;
    half.unmap(8..16)?;
    let read_only = Buffer::filled(16, 4)?;
    read_only.protect(0..16, libc::PROT_READ)?;
    // The last one, or the next mapping would take its place.
    let gone = Buffer::new(16)?;
    gone.unmap(0..16)?;
    for (what, ptr) in [
        ("nowhere", 0),
        ("unmapped", gone.addr()),
        ("kernel memory", KERNEL),
        ("the end", u64::MAX - 100),
        ("not canonical", top() + PAGE),
        ("half unmapped", half.addr()),
        ("read-only", read_only.addr()),
    ] {
        let arg = sys::hmm_dmirror_cmd { ptr, ..stage.cmd() };
        stage.refuses(
            &format!("READ into {what}"),
            ioctl::READ_NR,
            arg,
            libc::EFAULT,
        )?;
        stage.refuses(
            &format!("TO_DEV into {what}"),
            ioctl::MIGRATE_TO_DEV,
            arg,
            libc::EFAULT,
        )?;
        if what != "read-only" {
            stage.refuses(
                &format!("WRITE from {what}"),
                ioctl::WRITE_NR,
                arg,
                libc::EFAULT,
            )?;
        }
        if what != "half unmapped" {
            stage.refuses(
                &format!("SNAPSHOT into {what}"),
                ioctl::SNAPSHOT,
                arg,
                libc::EFAULT,
            )?;
        }
    }
    // Half of WRITE's buffer could be read; what was not written is as it was.
    stage.buffer.verify_pages(8..16, 1)?;
    stage.buffer.fill(1);
    read_only.verify(4)?;
    // MIGRATE_TO_SYS and RELEASE have no buffer and do not look at ptr.
    let mut arg = sys::hmm_dmirror_cmd {
        ptr: KERNEL,
        ..stage.cmd()
    };
    // SAFETY: a good call.
    let result = unsafe {
        raw(
            stage.device.as_raw_fd(),
            ioctl::MIGRATE_TO_SYS,
            (&raw mut arg).cast(),
        )
    };
    ensure_eq!(result, Ok(()), "MIGRATE_TO_SYS with a bad ptr");
    stage.end()
}

fn release_fields(env: &Env) -> Outcome {
    let stage = Stage::new(env)?;
    let mut arg = sys::hmm_dmirror_cmd {
        addr: u64::MAX,
        ptr: KERNEL,
        npages: u64::MAX,
        cpages: 7,
        faults: 7,
    };
    let fd = stage.device.as_raw_fd();
    // SAFETY: RELEASE looks at no field, and not at the structure either.
    let results = unsafe {
        [
            raw(fd, ioctl::RELEASE, (&raw mut arg).cast()),
            raw(fd, ioctl::RELEASE, std::ptr::null_mut()),
        ]
    };
    ensure_eq!(results, [Ok(()); 2], "RELEASE with garbage in its fields");
    ensure_eq!(stage.buffer.local(&stage.device)?, 0);
    stage.end()
}

fn node_calls(env: &Env) -> Outcome {
    let stage = Stage::new(env)?;
    let fd = stage.device.as_raw_fd();
    let before = stage.state()?;
    let mut byte = [0_u8; 8];
    // SAFETY: room for its length.
    unsafe {
        ensure_eq!(libc::read(fd, byte.as_mut_ptr().cast(), 8), -1, "read");
        ensure_eq!(errno(), libc::EINVAL, "read");
        ensure_eq!(libc::write(fd, byte.as_ptr().cast(), 8), -1, "write");
        ensure_eq!(errno(), libc::EINVAL, "write");
        ensure!(libc::lseek(fd, 0, libc::SEEK_SET) <= 0, "lseek");
    }
    ensure_eq!(stage.state()?, before);
    stage.end()
}

/// Whatever the bytes are: an errno or a correct result, and other memory untouched.
fn random(env: &Env) -> Outcome {
    Child::spawn(|| {
        let stage = Stage::new(env)?;
        let interesting = |pick: u64, at: u64| match pick % 8 {
            0 => 0,
            1 => stage.buffer.addr(),
            2 => stage.space.addr(),
            3 => 16,
            4 => PAGE * (pick >> 8 & 31),
            5 => top() - PAGE,
            6 => u64::MAX,
            _ => crate::buffer::word(pick, at as usize),
        };
        for round in 0..4000_u64 {
            let calls = all_calls();
            let (_, nr) = calls[(crate::buffer::word(round, 999) % calls.len() as u64) as usize];
            // A good one would write to memory, or make the device fail, as it should.
            if nr == ioctl::FAIL || nr == ioctl::WRITE_NR {
                continue;
            }
            let mut arg = [0_u64; 32];
            for (at, field) in arg.iter_mut().enumerate() {
                *field = interesting(crate::buffer::word(round, at), at as u64);
            }
            let size = u64::from(nr >> 16 & 0x3fff);
            if round % 2 == 0 && nr >= ioctl::ioc(3, b'H', 0x40, 0) && nr & 0xff >= 0x40 {
                arg[0] = size | (crate::buffer::word(round, 77) % 4) << 32;
            }
            // An ADD with a good range would change memory as it should.
            if nr == ioctl::COMPUTE && arg[0] >> 32 == u64::from(sys::HMM_DMIRROR_ADD) {
                continue;
            }
            // READ and SNAPSHOT may only write where it does not matter.
            if nr & 0xff <= 9 {
                arg[1] = if arg[2] <= 16 { stage.space.addr() } else { 8 };
            }
            // SAFETY: the structure is large enough for any call; results go to unused memory.
            let _ = unsafe { raw(stage.device.as_raw_fd(), nr, arg.as_mut_ptr().cast()) };
        }
        crate::harness::conserved(&stage.device)?;
        stage.end()
    })?
    .join()
}
