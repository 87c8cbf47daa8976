// SPDX-License-Identifier: GPL-2.0
//! What a program says about its memory: every rule, bad input, and where hints end.

use crate::buffer::{Buffer, PAGE, refused_everywhere};
use crate::engine::{fill_up, leg};
use crate::harness::{Child, Env, Outcome, Stop, Test, ensure, ensure_eq, long, skip, test};
use crate::unload;
use hmm_uapi::sys::{
    HMM_DMIRROR_HINT_NONE as NONE, HMM_DMIRROR_HINT_PREFER_DEVICE as DEVICE,
    HMM_DMIRROR_HINT_PREFER_RAM as RAM, HMM_DMIRROR_HINT_READ_MOSTLY as READ_MOSTLY,
};
use hmm_uapi::{Device, Direction, Kind, Range};
use std::fs;
use std::ops;

pub const TESTS: &[Test] = &[
    test("hint::set_and_get", set_and_get),
    test("hint::bad_input_changes_nothing", bad_input),
    test("hint::device_faults_move", device_faults_move),
    test("hint::cpu_takes_little_back", cpu_takes_little_back),
    test("hint::cpu_takes_all_back", cpu_takes_all_back),
    test("hint::read_mostly_stays", read_mostly_stays),
    long("hint::the_last_to_go", the_last_to_go),
    test("hint::many_ranges", many_ranges),
    test("hint::of_one_process", of_one_process),
    test("hint::end_with_the_mapping", end_with_the_mapping),
    test("hint::end_with_the_last_descriptor", end_with_the_last),
    test("hint::without_memory", without_memory),
    test("hint::the_device_goes", the_device_goes),
];

const BLOCK: usize = 512;

/// The device, if it has memory and takes hints.
fn open(env: &Env) -> Result<Device, Stop> {
    if env.kind == Kind::None {
        skip!("hints are about device memory, and this device has none");
    }
    let device = env.open()?;
    let anywhere = Range {
        addr: PAGE,
        len: PAGE,
    };
    if device
        .get_hint(anywhere)
        .is_err_and(|e| e.errno == libc::ENOTTY)
    {
        skip!("this driver has no calls for hints");
    }
    Ok(device)
}

/// Small pages from a 2 MiB boundary on, filled.
fn blocks(n: usize, seed: u64) -> Result<Buffer, Stop> {
    let buffer = Buffer::huge(n)?;
    buffer.advise(0..buffer.pages(), libc::MADV_NOHUGEPAGE)?;
    buffer.fill(seed);
    Ok(buffer)
}

/// What was said about each page of a part, in runs.
fn runs(
    device: &Device,
    buffer: &Buffer,
    part: ops::Range<usize>,
) -> Result<Vec<(u32, usize)>, Stop> {
    let mut runs = Vec::new();
    let mut page = part.start;
    while page < part.end {
        let (hint, len) = device.get_hint(buffer.part(page..part.end))?;
        ensure!(len >= PAGE && len % PAGE == 0, "{len} bytes at page {page}");
        runs.push((hint, (len / PAGE) as usize));
        page += (len / PAGE) as usize;
    }
    ensure_eq!(page, part.end);
    Ok(runs)
}

fn set_and_get(env: &Env) -> Outcome {
    let device = open(env)?;
    let buffer = Buffer::new(2000)?;
    let all = 0..2000;
    ensure_eq!(runs(&device, &buffer, all.clone())?, [(NONE, 2000)]);
    // Nothing to take away yet.
    device.set_hint(buffer.range(), NONE)?;
    device.set_hint(buffer.part(100..1500), DEVICE)?;
    device.set_hint(buffer.part(700..701), RAM | READ_MOSTLY)?;
    let said = [
        (NONE, 100),
        (DEVICE, 600),
        (RAM | READ_MOSTLY, 1),
        (DEVICE, 799),
        (NONE, 500),
    ];
    ensure_eq!(runs(&device, &buffer, all.clone())?, said);
    ensure_eq!(runs(&device, &buffer, 400..500)?, [(DEVICE, 100)]);
    device.set_hint(buffer.part(700..701), DEVICE)?;
    ensure_eq!(
        runs(&device, &buffer, 99..1501)?,
        [(NONE, 1), (DEVICE, 1400), (NONE, 1)]
    );
    device.set_hint(buffer.part(0..600), NONE)?;
    device.set_hint(buffer.part(600..2000), READ_MOSTLY)?;
    ensure_eq!(
        runs(&device, &buffer, all.clone())?,
        [(NONE, 600), (READ_MOSTLY, 1400)]
    );
    device.set_hint(buffer.range(), NONE)?;
    ensure_eq!(runs(&device, &buffer, all)?, [(NONE, 2000)]);
    // Nothing was touched by any of this.
    ensure_eq!(buffer.local(&device)?, 0);
    Ok(())
}

fn bad_input(env: &Env) -> Outcome {
    let device = open(env)?;
    let buffer = Buffer::new(64)?;
    buffer.unmap(40..41)?;
    device.set_hint(buffer.part(0..20), DEVICE)?;
    let range = |addr, len| Range { addr, len };
    let (at, top) = (buffer.addr(), 1u64 << 57);
    for (bad, hint, errno) in [
        (buffer.part(0..20), DEVICE | RAM, libc::EINVAL),
        (buffer.part(0..20), 8, libc::EINVAL),
        (buffer.part(0..20), 1 << 31, libc::EINVAL),
        (range(at + 1, PAGE), RAM, libc::EINVAL),
        (range(at, PAGE - 1), RAM, libc::EINVAL),
        (range(at, 0), RAM, libc::EINVAL),
        (range(at, u64::MAX - 4095), RAM, libc::EINVAL),
        (range(top - PAGE, 2 * PAGE), RAM, libc::EINVAL),
        (range(u64::MAX - 4095, PAGE), RAM, libc::EINVAL),
        (buffer.part(10..64), RAM, libc::EFAULT),
        (buffer.part(40..41), RAM, libc::EFAULT),
    ] {
        let error = device.set_hint(bad, hint).err().map(|e| e.errno);
        ensure_eq!(error, Some(errno), "{bad:?}, {hint}");
        ensure_eq!(
            runs(&device, &buffer, 0..64)?,
            [(DEVICE, 20), (NONE, 44)],
            "{bad:?}, {hint}"
        );
    }
    for bad in [
        range(at + 1, PAGE),
        range(at, 0),
        range(at, u64::MAX - 4095),
    ] {
        let error = device.get_hint(bad).err().map(|e| e.errno);
        ensure_eq!(error, Some(libc::EINVAL), "{bad:?}");
    }
    // What is not mapped has no hint, but may be said to have none.
    device.set_hint(buffer.part(10..64), NONE)?;
    ensure_eq!(runs(&device, &buffer, 0..64)?, [(DEVICE, 10), (NONE, 54)]);
    Ok(())
}

fn device_faults_move(env: &Env) -> Outcome {
    let device = open(env)?;
    let buffer = Buffer::new(96)?;
    buffer.fill_pages(0..64, 3);
    device.set_hint(buffer.part(32..96), DEVICE)?;
    device.set_hint(buffer.part(0..16), RAM)?;
    ensure_eq!(buffer.local(&device)?, 0, "a hint moves nothing by itself");
    device.checksum(buffer.range())?;
    let places = buffer.places(&device)?;
    for (page, place) in places.iter().enumerate() {
        // Pages 64 to 96 were never touched: they come to be on the device.
        ensure_eq!(place.is_local(), page >= 32, "page {page}");
    }
    buffer.verify_pages(0..64, 3)?;
    buffer.compare(64..96, |_| 0)?;
    // A request moves what prefers RAM all the same.
    let moved = device.mv(buffer.part(0..16), Direction::ToDevice)?;
    ensure_eq!(moved.moved, 16, "{moved:?}");
    buffer.verify_pages(0..64, 3)
}

fn cpu_takes_little_back(env: &Env) -> Outcome {
    env.need_private()?;
    let device = open(env)?;
    let buffer = blocks(2, 5)?;
    buffer.to_device(&device)?;
    device.set_hint(buffer.part(0..BLOCK), DEVICE)?;
    for page in 0..100 {
        ensure_eq!(buffer.get(page * 512), crate::buffer::word(5, page * 512));
        let left = buffer.places_of(&device, 0..BLOCK)?;
        let left = left.iter().filter(|place| place.is_local()).count();
        ensure_eq!(left, BLOCK - page - 1, "after page {page}");
    }
    // Its neighbour without a hint comes by the window.
    buffer.verify_pages(BLOCK..2 * BLOCK, 5)?;
    let info = device.info()?;
    ensure!(info.cpu_faults < 100 + 50, "{info:?}");
    buffer.verify(5)
}

fn cpu_takes_all_back(env: &Env) -> Outcome {
    env.need_private()?;
    let device = open(env)?;
    let buffer = blocks(2, 6)?;
    buffer.to_device(&device)?;
    device.set_hint(buffer.part(40..900), RAM)?;
    device.set_hint(buffer.part(100..110), RAM | READ_MOSTLY)?;
    let before = device.info()?;
    ensure_eq!(buffer.get(200 * 512), crate::buffer::word(6, 200 * 512));
    let info = device.info()?;
    ensure_eq!(info.cpu_faults - before.cpu_faults, 1);
    for (page, place) in buffer.places(&device)?.iter().enumerate() {
        // All that the same was said about, up to the ends of the block.
        ensure_eq!(
            place.is_local(),
            !(110..BLOCK).contains(&page),
            "page {page}"
        );
    }
    buffer.verify(6)
}

fn read_mostly_stays(env: &Env) -> Outcome {
    let device = open(env)?;
    let buffer = Buffer::filled(96, 7)?;
    device.set_hint(buffer.part(32..64), READ_MOSTLY)?;
    device.set_hint(buffer.part(64..96), DEVICE | READ_MOSTLY)?;
    // What the device reads it may write where nothing was said: no further fault.
    device.checksum(buffer.range())?;
    ensure_eq!(buffer.local(&device)?, 0, "read");
    // SAFETY: plain numbers.
    let plain = unsafe { device.add(buffer.part(0..32), 0) }?;
    ensure_eq!(plain.faults, 0, "{plain:?}");
    ensure_eq!(
        device.checksum(buffer.part(32..96))?.faults,
        0,
        "read again"
    );
    // SAFETY: plain numbers.
    let stays = unsafe { device.add(buffer.part(32..64), 0) }?;
    ensure!(stays.faults > 0, "written without a fault: {stays:?}");
    ensure_eq!(
        buffer.local(&device)?,
        0,
        "written, and nothing said of a place"
    );
    // SAFETY: plain numbers.
    let moves = unsafe { device.add(buffer.part(64..96), 0) }?;
    ensure!(moves.faults > 0, "written without a fault: {moves:?}");
    ensure_eq!(moves.device_pages, 32, "{moves:?}");
    ensure_eq!(buffer.local(&device)?, 32);
    buffer.verify(7)
}

fn the_last_to_go(env: &Env) -> Outcome {
    let device = open(env)?;
    let kept = blocks(4, 8)?;
    device.set_hint(kept.range(), DEVICE)?;
    kept.to_device(&device)?;
    let old = fill_up(&device, 0)?;
    // Eight blocks come, so eight others go home, and their zeroes are forgotten there.
    let round = |seed| {
        let new = Buffer::filled(8 * BLOCK, seed)?;
        new.to_full_device(&device)?;
        let places = old.places(&device)?;
        for page in (0..old.pages()).step_by(BLOCK) {
            let end = (page + BLOCK).min(old.pages());
            if !places[page..end].iter().any(|place| place.is_local()) {
                old.advise(page..end, libc::MADV_DONTNEED)?;
            }
        }
        Ok::<_, Stop>(new)
    };
    let mut came = Vec::new();
    for seed in 0..8 {
        came.push(round(seed)?);
        ensure_eq!(kept.local(&device)?, kept.pages(), "round {seed}");
    }
    // Without the hint they go like any other.
    device.set_hint(kept.range(), NONE)?;
    let mut seed = 8;
    while kept.local(&device)? == kept.pages() {
        ensure!(
            seed < 48,
            "the hand has gone round, and none of them has gone"
        );
        came.push(round(seed)?);
        seed += 1;
    }
    kept.verify(8)?;
    for (seed, new) in came.iter().enumerate() {
        new.verify(seed as u64)?;
    }
    Ok(())
}

fn many_ranges(env: &Env) -> Outcome {
    let device = open(env)?;
    let pages = 20_000;
    let buffer = Buffer::new(pages)?;
    for page in (0..pages).step_by(2) {
        device.set_hint(buffer.part(page..page + 1), 1 + (page as u32 / 2) % 2)?;
    }
    for page in (0..pages - 1).step_by(997) {
        let (hint, len) = device.get_hint(buffer.part(page..pages))?;
        let said = if page % 2 == 0 {
            1 + (page as u32 / 2) % 2
        } else {
            NONE
        };
        ensure_eq!((hint, len), (said, PAGE), "page {page}");
    }
    // Holes in all of it, without a hint in between, so that no memory can be made ready.
    for page in (1..pages - 8).step_by(8) {
        buffer.unmap(page..page + 2)?;
    }
    for page in (1..pages - 8).step_by(8) {
        ensure_eq!(
            device.get_hint(buffer.part(page - 1..page))?.0,
            1 + (page as u32 / 2) % 2
        );
        ensure_eq!(runs(&device, &buffer, page..page + 2)?, [(NONE, 2)]);
    }
    device.set_hint(buffer.range(), NONE)?;
    ensure_eq!(runs(&device, &buffer, 0..pages)?, [(NONE, pages)]);
    Ok(())
}

fn of_one_process(env: &Env) -> Outcome {
    let device = open(env)?;
    let buffer = Buffer::filled(64, 9)?;
    device.set_hint(buffer.range(), DEVICE)?;
    // A child has the same memory at the same place, and has said nothing about it.
    let child = Child::spawn(|| {
        let own = env.open()?;
        ensure_eq!(runs(&own, &buffer, 0..64)?, [(NONE, 64)]);
        own.checksum(buffer.range())?;
        ensure_eq!(buffer.local(&own)?, 0, "moved by another's hint");
        own.set_hint(buffer.range(), RAM)?;
        ensure_eq!(runs(&own, &buffer, 0..64)?, [(RAM, 64)]);
        refused_everywhere(&device, &buffer, libc::EPERM)?;
        let error = device.set_hint(buffer.range(), NONE).err().map(|e| e.errno);
        ensure_eq!(error, Some(libc::EPERM));
        Ok(())
    })?;
    child.join()?;
    ensure_eq!(runs(&device, &buffer, 0..64)?, [(DEVICE, 64)]);
    device.checksum(buffer.range())?;
    ensure_eq!(buffer.local(&device)?, 64);
    buffer.verify(9)
}

/// Maps a part anew, at the same place.
fn map_again(buffer: &Buffer, part: ops::Range<usize>) -> Outcome {
    let range = buffer.part(part);
    // SAFETY: a part of our own mapping that nobody looks at meanwhile.
    let at = unsafe {
        libc::mmap(
            range.addr as *mut libc::c_void,
            range.len as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    ensure_eq!(at as u64, range.addr);
    Ok(())
}

fn end_with_the_mapping(env: &Env) -> Outcome {
    let device = open(env)?;
    let buffer = Buffer::filled(100, 10)?;
    device.set_hint(buffer.range(), DEVICE)?;
    // Pages and rights may go and come.
    buffer.advise(0..10, libc::MADV_DONTNEED)?;
    buffer.protect(10..20, libc::PROT_NONE)?;
    ensure_eq!(runs(&device, &buffer, 0..100)?, [(DEVICE, 100)]);
    buffer.unmap(20..30)?;
    let said = [(DEVICE, 20), (NONE, 10), (DEVICE, 70)];
    ensure_eq!(runs(&device, &buffer, 0..100)?, said);
    map_again(&buffer, 20..30)?;
    ensure_eq!(runs(&device, &buffer, 0..100)?, said, "mapped again");
    map_again(&buffer, 30..35)?;
    let said = [(DEVICE, 20), (NONE, 15), (DEVICE, 65)];
    ensure_eq!(runs(&device, &buffer, 0..100)?, said, "mapped over");
    // A part that moves leaves its hint behind, where it ends.
    let goal = Buffer::new(10)?;
    let from = buffer.part(50..60);
    // SAFETY: one part of our own memory takes the place of another.
    let at = unsafe {
        libc::mremap(
            from.addr as *mut libc::c_void,
            from.len as usize,
            from.len as usize,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            goal.addr() as *mut libc::c_void,
        )
    };
    ensure_eq!(at as u64, goal.addr());
    ensure_eq!(runs(&device, &goal, 0..10)?, [(NONE, 10)]);
    let said = [
        (DEVICE, 20),
        (NONE, 15),
        (DEVICE, 15),
        (NONE, 10),
        (DEVICE, 40),
    ];
    ensure_eq!(runs(&device, &buffer, 0..100)?, said, "moved away");
    Ok(())
}

fn end_with_the_last(env: &Env) -> Outcome {
    let device = open(env)?;
    let buffer = Buffer::new(50)?;
    device.set_hint(buffer.range(), RAM)?;
    let second = env.open()?;
    ensure_eq!(runs(&second, &buffer, 0..50)?, [(RAM, 50)]);
    drop(device);
    ensure_eq!(runs(&second, &buffer, 0..50)?, [(RAM, 50)]);
    if let Ok(other) = env.open_second() {
        ensure_eq!(
            runs(&other, &buffer, 0..50)?,
            [(NONE, 50)],
            "of another device"
        );
    }
    drop(second);
    let third = env.open()?;
    ensure_eq!(runs(&third, &buffer, 0..50)?, [(NONE, 50)]);
    Ok(())
}

fn without_memory(env: &Env) -> Outcome {
    let device = open(env)?;
    let file = leg("hint")?;
    let buffer = Buffer::new(100)?;
    fs::write(&file, "1")?;
    let error = device.set_hint(buffer.range(), RAM).err().map(|e| e.errno);
    ensure_eq!(error, Some(libc::ENOMEM));
    ensure_eq!(runs(&device, &buffer, 0..100)?, [(NONE, 100)]);
    device.set_hint(buffer.range(), RAM)?;
    // Where mappings end nobody can wait for memory: what is left is forgotten.
    fs::write(&file, "1")?;
    buffer.unmap(50..51)?;
    let left = fs::read_to_string(&file)?;
    ensure_eq!(left.trim(), "0");
    ensure_eq!(runs(&device, &buffer, 0..100)?, [(NONE, 100)]);
    device.set_hint(buffer.part(0..50), DEVICE)?;
    ensure_eq!(runs(&device, &buffer, 0..100)?, [(DEVICE, 50), (NONE, 50)]);
    Ok(())
}

fn the_device_goes(env: &Env) -> Outcome {
    let device = open(env)?;
    let buffer = Buffer::filled(300, 11)?;
    device.set_hint(buffer.range(), DEVICE)?;
    device.checksum(buffer.range())?;
    ensure_eq!(buffer.local(&device)?, 300);
    unload::away(env, || {
        let error = device.set_hint(buffer.range(), RAM).err().map(|e| e.errno);
        ensure_eq!(error, Some(libc::ENODEV));
        // Mappings end while there are hints about them, and a device no more.
        buffer.verify(11)?;
        buffer.unmap(100..200)?;
        drop(device);
        Ok(())
    })?;
    buffer.verify_pages(0..100, 11)
}
