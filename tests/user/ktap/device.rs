// SPDX-License-Identifier: GPL-2.0
//! What the device itself sees and does: READ, WRITE, COMPUTE, SNAPSHOT, and two devices.

use crate::buffer::{Buffer, kernel_has_huge_pages, word};
use crate::harness::{Env, Outcome, Stop, Test, conserved, ensure, ensure_eq, skip, test};
use hmm_uapi::{Device, Direction, Kind, PAGE_SIZE, Place};
use std::os::fd::AsRawFd;

pub const TESTS: &[Test] = &[
    test("device::reads_ram_and_device_memory", reads),
    test("device::writes_ram_and_device_memory", writes),
    test("device::reads_holes_as_zeroes", reads_holes),
    test("device::writes_into_holes", writes_into_holes),
    test("device::checksum", checksum),
    test("device::add_in_place", add),
    test("device::sees_what_the_cpu_writes", sees_cpu_writes),
    test("device::respects_mprotect_and_munmap", respects_protection),
    test("device::reads_into_its_own_range", reads_into_itself),
    test("device::snapshot_names_every_place", snapshot),
    test("device::snapshot_of_huge_pages", snapshot_huge),
    test("device::exclusive_access", exclusive),
    test("device::huge_pages_in_small_frames", small_frames),
    test("device::mapping_of_the_node", mapping),
    test("device::two_devices_see_each_other", two_devices),
    test("device::two_devices_take_turns", two_devices_take_turns),
];

/// Pages in RAM and on the device in stripes of seven.
fn striped(device: &Device, pages: usize, seed: u64) -> Result<Buffer, Stop> {
    let buffer = Buffer::filled(pages, seed)?;
    for start in (0..pages).step_by(14) {
        device.mv(
            buffer.part(start..pages.min(start + 7)),
            Direction::ToDevice,
        )?;
    }
    ensure!(buffer.local(device)? >= pages / 2, "stripes on the device");
    Ok(buffer)
}

fn reads(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = striped(&device, 700, 1)?;
    let local = buffer.local(&device)?;
    let mut seen = vec![0; buffer.len()];
    let done = device.read(buffer.addr(), &mut seen)?;
    ensure_eq!(done.pages, 700);
    Buffer::same(&seen, 0, 1)?;
    ensure_eq!(buffer.local(&device)?, local, "reading moves nothing");
    // The second time the device has all in its page table.
    seen.fill(0);
    let done = device.read(buffer.at(1), &mut seen[..PAGE_SIZE * 10])?;
    ensure_eq!(done.pages, 10);
    ensure_eq!(done.faults, 0, "device faults when nothing changed");
    Buffer::same(&seen[..PAGE_SIZE * 10], 1, 1)?;
    buffer.verify(1)
}

fn writes(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = striped(&device, 700, 2)?;
    let local = buffer.local(&device)?;
    let other = Buffer::filled(700, 3)?;
    let mut bytes = vec![0; other.len()];
    device.read(other.addr(), &mut bytes)?;
    // SAFETY: the buffer is only accessed through volatile reads.
    let done = unsafe { device.write(buffer.at(50), &bytes[50 * PAGE_SIZE..650 * PAGE_SIZE])? };
    ensure_eq!(done.pages, 600);
    ensure_eq!(buffer.local(&device)?, local, "writing moves nothing");
    buffer.verify_pages(0..50, 2)?;
    buffer.verify_pages(50..650, 3)?;
    buffer.verify_pages(650..700, 2)
}

fn reads_holes(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::new(64)?;
    let mut seen = vec![1; buffer.len()];
    device.read(buffer.addr(), &mut seen)?;
    ensure!(seen.iter().all(|&byte| byte == 0), "holes are not zero");
    buffer.compare(0..64, |_| 0)
}

fn writes_into_holes(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::new(64)?;
    let pattern = Buffer::filled(64, 4)?;
    let mut bytes = vec![0; buffer.len()];
    device.read(pattern.addr(), &mut bytes)?;
    // SAFETY: the buffer is only accessed through volatile reads.
    unsafe { device.write(buffer.addr(), &bytes)? };
    buffer.verify(4)
}

fn reference_sum(words: usize, value: impl Fn(usize) -> u64) -> u64 {
    (0..words).fold(0, |sum: u64, i| {
        sum.wrapping_add(value(i).wrapping_mul((2 * i as u64).wrapping_add(1)))
    })
}

fn checksum(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(700, 5)?;
    let want = reference_sum(700 * 512, |i| word(5, i));
    let result = device.checksum(buffer.range())?;
    ensure_eq!(result.result, want, "in RAM");
    ensure_eq!(result.device_pages, 0);
    device.mv(buffer.part(100..400), Direction::ToDevice)?;
    let result = device.checksum(buffer.range())?;
    ensure_eq!(result.result, want, "in both");
    ensure_eq!(result.device_pages, 300);
    buffer.to_device(&device)?;
    let result = device.checksum(buffer.range())?;
    ensure_eq!(result.result, want, "on the device");
    ensure_eq!(result.device_pages, 700);
    ensure_eq!(buffer.local(&device)?, 700, "computing moves nothing");
    // A part counts its words from its own start.
    let part = device.checksum(buffer.part(3..5))?;
    ensure_eq!(
        part.result,
        reference_sum(1024, |i| word(5, 3 * 512 + i)),
        "a part"
    );
    Ok(())
}

fn add(env: &Env) -> Outcome {
    const N: u64 = 0x0123_4567_89ab_cdef;
    let device = env.open()?;
    let buffer = striped(&device, 600, 6)?;
    // SAFETY: the buffer is only accessed through volatile reads.
    unsafe { device.add(buffer.range(), N)? };
    let local = buffer.local(&device)?;
    ensure!(local >= 300, "{local} pages on the device after computing");
    let result = device.checksum(buffer.range())?;
    ensure_eq!(
        result.result,
        reference_sum(600 * 512, |i| word(6, i).wrapping_add(N))
    );
    buffer.compare(0..600, |i| word(6, i).wrapping_add(N))
}

fn sees_cpu_writes(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(32, 7)?;
    let mut seen = vec![0; buffer.len()];
    for seed in 7..20 {
        buffer.fill(seed);
        if seed % 3 == 0 {
            buffer.to_device(&device)?;
        }
        device.read(buffer.addr(), &mut seen)?;
        Buffer::same(&seen, 0, seed)?;
    }
    // MADV_DONTNEED takes the pages away from under the device's page table.
    buffer.advise(0..32, libc::MADV_DONTNEED)?;
    device.read(buffer.addr(), &mut seen)?;
    ensure!(
        seen.iter().all(|&byte| byte == 0),
        "old bytes after MADV_DONTNEED"
    );
    Ok(())
}

fn respects_protection(env: &Env) -> Outcome {
    let device = env.open()?;
    for on_device in [false, true] {
        let buffer = Buffer::filled(16, 8)?;
        if on_device {
            buffer.to_device(&device)?;
        }
        let mut bytes = vec![0; PAGE_SIZE * 4];
        device.read(buffer.addr(), &mut bytes)?;
        // SAFETY: the bytes stay the same.
        unsafe { device.write(buffer.addr(), &bytes)? };
        buffer.protect(0..8, libc::PROT_READ)?;
        device.read(buffer.addr(), &mut bytes)?;
        Buffer::same(&bytes, 0, 8)?;
        // SAFETY: refused.
        let error = unsafe { device.write(buffer.addr(), &[0; PAGE_SIZE * 4]) }.unwrap_err();
        ensure_eq!(error.errno, libc::EPERM, "WRITE to read-only memory");
        // SAFETY: refused.
        let error = unsafe { device.add(buffer.part(0..4), 1) }.unwrap_err();
        ensure_eq!(error.errno, libc::EPERM, "ADD to read-only memory");
        buffer.verify(8)?;
        buffer.protect(0..8, libc::PROT_NONE)?;
        let error = device.read(buffer.addr(), &mut bytes).unwrap_err();
        ensure_eq!(error.errno, libc::EFAULT, "READ of forbidden memory");
        buffer.protect(0..8, libc::PROT_READ | libc::PROT_WRITE)?;
        buffer.verify(8)?;
        buffer.unmap(8..16)?;
        let error = device.read(buffer.at(8), &mut bytes).unwrap_err();
        ensure_eq!(error.errno, libc::EFAULT, "READ of no memory");
        let error = device.checksum(buffer.part(6..10)).unwrap_err();
        ensure_eq!(error.errno, libc::EFAULT, "CHECKSUM over the end");
    }
    Ok(())
}

/// READ stores into memory that is on the device itself: copying there brings it home.
fn reads_into_itself(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(64, 9)?;
    buffer.to_device(&device)?;
    // SAFETY: the slice is written by the kernel only, with the bytes that are there.
    let own = unsafe { std::slice::from_raw_parts_mut(buffer.addr() as *mut u8, buffer.len()) };
    device.read(buffer.addr(), own)?;
    buffer.verify(9)?;
    buffer.to_device(&device)?;
    // SAFETY: as above.
    let own = unsafe { std::slice::from_raw_parts_mut(buffer.at(8) as *mut u8, PAGE_SIZE * 8) };
    device.migrate_to_dev(buffer.at(8), own)?;
    buffer.verify(9)
}

fn snapshot(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::new(10)?;
    buffer.compare(1..2, |_| 0)?;
    buffer.fill_pages(2..9, 10);
    device.mv(buffer.part(4..6), Direction::ToDevice)?;
    buffer.protect(3..5, libc::PROT_READ)?;
    buffer.protect(6..7, libc::PROT_NONE)?;
    buffer.unmap(7..8)?;
    let local = if env.kind == Kind::Coherent {
        0x40
    } else {
        0x20
    };
    let want = [
        0x00,         // never touched
        0x11,         // the page of zeroes, read-only
        0x02,         // RAM
        0x01,         // RAM, read-only
        local | 0x01, // device, read-only
        local | 0x02, // device
        0xff,         // PROT_NONE
        0xff,         // no mapping
        0x02,
        0x00,
    ];
    let places = buffer.places(&device)?;
    ensure_eq!(places, want.map(Place), "bytes of SNAPSHOT");
    let mut one = [Place(0x7f); 3];
    let done = device.snapshot(buffer.at(5), &mut one[..1])?;
    ensure_eq!(done.pages, 1);
    ensure_eq!(
        one,
        [Place(local | 0x02), Place(0x7f), Place(0x7f)],
        "one byte for one page"
    );
    Ok(())
}

fn snapshot_huge(env: &Env) -> Outcome {
    if !kernel_has_huge_pages() {
        skip!("this kernel is built without CONFIG_TRANSPARENT_HUGEPAGE");
    }
    let device = env.open()?;
    let buffer = Buffer::huge(2)?;
    buffer.fill(11);
    let places = buffer.places(&device)?;
    ensure!(
        places.iter().all(|&place| place == Place(0x06)),
        "{:?}",
        &places[..2]
    );
    // From the middle of one huge page to the middle of the next.
    let places = buffer.places_of(&device, 100..700)?;
    ensure!(
        places.iter().all(|&place| place == Place(0x06)),
        "{:?}",
        &places[..2]
    );
    buffer.to_device(&device)?;
    buffer.verify(11)
}

/// The device has pages for itself until the CPU touches them.
fn exclusive(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(64, 14)?;
    let mut seen = vec![0; buffer.len()];
    match device.exclusive(buffer.addr(), &mut seen) {
        Err(error) if error.errno == libc::EOPNOTSUPP => skip!("this kernel does not offer it"),
        other => ensure_eq!(other?.pages, 64),
    }
    Buffer::same(&seen, 0, 14)?;
    let taken = |pages: std::ops::Range<usize>| {
        device
            .check_exclusive(buffer.at(pages.start), pages.len() as u64)
            .err()
            .map(|e| e.errno)
    };
    ensure_eq!(
        taken(0..64),
        Some(libc::EPERM),
        "CHECK_EXCLUSIVE of taken pages"
    );
    buffer.verify_pages(0..32, 14)?;
    ensure_eq!(
        taken(0..32),
        None,
        "CHECK_EXCLUSIVE after the CPU read them"
    );
    ensure_eq!(
        taken(32..64),
        Some(libc::EPERM),
        "CHECK_EXCLUSIVE of the others"
    );
    buffer.fill(15);
    ensure_eq!(
        taken(0..64),
        None,
        "CHECK_EXCLUSIVE after the CPU wrote them"
    );
    buffer.verify(15)?;
    // Taken pages move like others.
    device.exclusive(buffer.addr(), &mut seen)?;
    device.mv(buffer.range(), Direction::ToDevice)?;
    buffer.verify(15)?;
    conserved(&device).map(drop)
}

/// Without a 2 MiB frame a huge page goes page by page.
fn small_frames(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::huge(1)?;
    buffer.fill(16);
    let mut seen = vec![0; buffer.len()];
    device.flags(1)?;
    let done = device.migrate_to_dev(buffer.addr(), &mut seen)?;
    ensure_eq!(done.pages, 512);
    Buffer::same(&seen, 0, 16)?;
    ensure_eq!(buffer.local(&device)?, 512);
    buffer.verify(16)?;
    device.migrate_to_dev(buffer.addr(), &mut seen)?;
    device.flags(1)?;
    device.migrate_to_sys(buffer.addr(), 512)?;
    ensure_eq!(buffer.local(&device)?, 0);
    buffer.verify(16)?;
    conserved(&device).map(drop)
}

/// Pages of the driver's own: the CPU and the device see them, and they never move.
fn mapping(env: &Env) -> Outcome {
    let device = env.open()?;
    let flags = libc::MAP_SHARED;
    let buffer = Buffer::map(
        8,
        libc::PROT_READ | libc::PROT_WRITE,
        flags,
        device.as_raw_fd(),
    )?;
    buffer.compare(0..8, |_| 0)?;
    buffer.fill(17);
    let moved = device.mv(buffer.range(), Direction::ToDevice)?;
    ensure_eq!(moved.moved, 0, "{moved:?}");
    buffer.verify(17)?;
    let mut seen = vec![0; buffer.len()];
    if device.read(buffer.addr(), &mut seen).is_ok() {
        Buffer::same(&seen, 0, 17)?;
    }
    Ok(())
}

fn two_devices(env: &Env) -> Outcome {
    let (one, two) = (env.open()?, env.open_second()?);
    let buffer = Buffer::filled(128, 12)?;
    buffer.to_device(&one)?;
    let places = buffer.places(&two)?;
    // hmm_range_fault keeps quiet about private memory of others.
    let quiet = env.is_private();
    let right = |place: &Place| {
        if quiet {
            place.is_hole()
        } else {
            place.is_remote()
        }
    };
    ensure!(places.iter().all(right), "{:?}", &places[..4]);
    // The second device cannot reach the first one's memory; it reads all the same.
    let mut seen = vec![0; buffer.len()];
    two.read(buffer.addr(), &mut seen)?;
    Buffer::same(&seen, 0, 12)?;
    conserved(&one)?;
    conserved(&two)?;
    buffer.verify(12)
}

fn two_devices_take_turns(env: &Env) -> Outcome {
    let (one, two) = (env.open()?, env.open_second()?);
    let buffer = Buffer::filled(128, 13)?;
    for round in 0..6 {
        let (here, there) = if round % 2 == 0 {
            (&one, &two)
        } else {
            (&two, &one)
        };
        here.mv(buffer.range(), Direction::ToDevice)?;
        // SAFETY: the buffer is only accessed through volatile reads.
        unsafe { here.add(buffer.range(), 1)? };
        here.mv(buffer.range(), Direction::ToRam)?;
        ensure_eq!(buffer.local(here)?, 0);
        buffer.to_device(there)?;
        buffer.compare(0..128, |i| word(13, i).wrapping_add(round + 1))?;
        there.mv(buffer.range(), Direction::ToRam)?;
    }
    Ok(())
}
