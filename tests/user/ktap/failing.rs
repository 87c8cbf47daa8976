// SPDX-License-Identifier: GPL-2.0
//! A device that fails: at every leg, at every step, and no byte and no frame is lost.

use crate::buffer::{Buffer, HUGE, all_counted, skipped, word};
use crate::harness::{Env, Outcome, Stop, Test, conserved, ensure, ensure_eq, long, skip, test};
use crate::sys::{drain, pipe, write_from};
use hmm_uapi::{Device, Direction, PAGE_SIZE, sys};
use std::os::fd::AsRawFd;

pub const TESTS: &[Test] = &[
    long("failing::copy_to_device", copy_to_device),
    long("failing::copy_to_ram_by_request", copy_to_ram),
    long("failing::copy_to_ram_by_fault", copy_to_ram_by_fault),
    long("failing::zeroing", zeroing),
    long("failing::waiting", waiting),
    long("failing::huge_pages", huge_pages),
    test("failing::everything_fails", everything_fails),
    test("failing::release", failing_release),
    test("failing::legacy_calls", legacy),
];

const PAGES: usize = 96;

/// No test has more segments than this.
const ENOUGH: u64 = 400;

/// A buffer whose filled pages are not neighbours, so that it has many segments.
fn scattered(seed: u64) -> Result<Buffer, Stop> {
    let buffer = Buffer::new(PAGES)?;
    for page in 0..PAGES {
        if page % 3 != 2 {
            buffer.fill_pages(page..page + 1, seed);
        }
    }
    Ok(buffer)
}

fn verify(buffer: &Buffer, seed: u64) -> Outcome {
    buffer.compare(0..PAGES, |index| {
        if index / 512 % 3 == 2 {
            0
        } else {
            word(seed, index)
        }
    })
}

fn off(device: &Device) -> Outcome {
    Ok(device.fail(sys::HMM_DMIRROR_FAIL_NONE, 0, 0)?)
}

/// Makes a leg fail, where there is one: coherent memory is copied by the CPU.
fn arm(device: &Device, leg: u32, skip: u64, count: u64) -> Outcome {
    match device.fail(leg, skip, count) {
        Err(error) if error.errno == libc::EOPNOTSUPP => {
            skip!("no leg of this device can fail: the CPU copies")
        }
        other => Ok(other?),
    }
}

/// Fails step 0, then step 1, … until a whole journey has no such step any more. `journey` says
/// whether it noticed a failure.
fn walk(
    device: &Device,
    leg: u32,
    journey: impl Fn(u64) -> Result<bool, Stop>,
) -> Result<u64, Stop> {
    for skip in 0..ENOUGH {
        arm(device, leg, skip, 1)?;
        let noticed = journey(skip).map_err(|stop| match stop {
            Stop::Fail(text) => Stop::Fail(format!("leg {leg}, step {skip}: {text}")),
            other => other,
        })?;
        off(device)?;
        let info = conserved(device)?;
        ensure_eq!(
            info.frames_claimed,
            0,
            "claimed after leg {leg}, step {skip}"
        );
        if !noticed {
            return Ok(skip);
        }
    }
    Err(Stop::Fail(format!(
        "leg {leg} still fails at step {ENOUGH}"
    )))
}

fn copy_to_device(env: &Env) -> Outcome {
    let device = env.open()?;
    let steps = walk(&device, sys::HMM_DMIRROR_FAIL_COPY_TO_DEVICE, |seed| {
        let buffer = scattered(seed)?;
        let moved = device.mv(buffer.range(), Direction::ToDevice)?;
        all_counted(&moved)?;
        let failed = skipped(&moved, sys::HMM_DMIRROR_SKIP_COPY);
        ensure_eq!(buffer.local(&device)? as u64, moved.moved, "{moved:?}");
        verify(&buffer, seed)?;
        // The second try takes what the first one left.
        off(&device)?;
        device.mv(buffer.range(), Direction::ToDevice)?;
        ensure_eq!(
            buffer.local(&device)?,
            PAGES / 3 * 2,
            "after the second try"
        );
        verify(&buffer, seed)?;
        Ok(failed != 0)
    })?;
    ensure!(steps >= 1, "it never failed");
    Ok(())
}

fn copy_to_ram(env: &Env) -> Outcome {
    let device = env.open()?;
    let steps = walk(&device, sys::HMM_DMIRROR_FAIL_COPY_TO_RAM, |seed| {
        let buffer = scattered(seed)?;
        device.mv(buffer.range(), Direction::ToDevice)?;
        let moved = device.mv(buffer.range(), Direction::ToRam)?;
        let failed = skipped(&moved, sys::HMM_DMIRROR_SKIP_COPY);
        ensure_eq!(
            buffer.local(&device)? as u64,
            failed,
            "what failed stays: {moved:?}"
        );
        off(&device)?;
        device.mv(buffer.range(), Direction::ToRam)?;
        ensure_eq!(buffer.local(&device)?, 0, "after the second try");
        verify(&buffer, seed)?;
        Ok(failed != 0)
    })?;
    ensure!(steps >= 1, "it never failed");
    Ok(())
}

/// Touches pages through the kernel, which says EFAULT where the CPU would get SIGBUS.
fn touch(buffer: &Buffer, page: usize) -> Result<bool, Stop> {
    let (out, into) = pipe()?;
    let put = write_from(into.as_raw_fd(), buffer.at(page), PAGE_SIZE);
    drop(into);
    match put {
        Ok(PAGE_SIZE) => {
            ensure_eq!(drain(&out).len(), PAGE_SIZE);
            Ok(true)
        }
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(false),
        other => Err(Stop::Fail(format!("write: {other:?}"))),
    }
}

fn copy_to_ram_by_fault(env: &Env) -> Outcome {
    env.need_private()?;
    let device = env.open()?;
    let steps = walk(&device, sys::HMM_DMIRROR_FAIL_COPY_TO_RAM, |seed| {
        let buffer = scattered(seed)?;
        device.mv(buffer.range(), Direction::ToDevice)?;
        // Pages around the faulting one may fail unseen; those touched themselves say so.
        let mut failed = false;
        for page in (0..PAGES).filter(|page| page % 3 != 2) {
            if !touch(&buffer, page)? {
                failed = true;
                ensure!(
                    buffer.places_of(&device, page..page + 1)?[0].is_local(),
                    "page {page}"
                );
                ensure!(touch(&buffer, page)?, "page {page} the second time");
            }
        }
        let armed = device.info()?;
        ensure_eq!(armed.frames_claimed, 0);
        off(&device)?;
        verify(&buffer, seed)?;
        // A failure that hit a neighbour only was not seen: go on until the last page is behind us.
        Ok(failed || seed < PAGES as u64)
    })?;
    ensure!(steps >= 1, "it never failed");
    Ok(())
}

fn zeroing(env: &Env) -> Outcome {
    let device = env.open()?;
    walk(&device, sys::HMM_DMIRROR_FAIL_ZERO, |seed| {
        let buffer = scattered(seed)?;
        let moved = device.mv(buffer.range(), Direction::ToDeviceWithHoles)?;
        all_counted(&moved)?;
        verify(&buffer, seed)?;
        let failed = moved.moved != PAGES as u64;
        off(&device)?;
        device.mv(buffer.range(), Direction::ToDeviceWithHoles)?;
        verify(&buffer, seed)?;
        buffer.advise(0..PAGES, libc::MADV_DONTNEED)?;
        buffer.compare(0..PAGES, |_| 0)?;
        Ok(failed || seed < 4)
    })
    .map(drop)
}

fn waiting(env: &Env) -> Outcome {
    let device = env.open()?;
    let steps = walk(&device, sys::HMM_DMIRROR_FAIL_WAIT, |seed| {
        let buffer = scattered(seed)?;
        let there = device.mv(buffer.range(), Direction::ToDeviceWithHoles)?;
        all_counted(&there)?;
        let back = device.mv(buffer.range(), Direction::ToRam)?;
        let failed = skipped(&there, sys::HMM_DMIRROR_SKIP_COPY) != 0
            || skipped(&back, sys::HMM_DMIRROR_SKIP_COPY) != 0;
        off(&device)?;
        verify(&buffer, seed)?;
        Ok(failed)
    })?;
    ensure!(steps >= 1, "it never failed");
    Ok(())
}

fn huge_pages(env: &Env) -> Outcome {
    let device = env.open()?;
    let pages = 2 * HUGE / PAGE_SIZE;
    for leg in [
        sys::HMM_DMIRROR_FAIL_COPY_TO_DEVICE,
        sys::HMM_DMIRROR_FAIL_COPY_TO_RAM,
        sys::HMM_DMIRROR_FAIL_WAIT,
    ] {
        walk(&device, leg, |seed| {
            let buffer = Buffer::huge(2)?;
            buffer.fill(seed);
            let there = device.mv(buffer.range(), Direction::ToDevice)?;
            all_counted(&there)?;
            let back = device.mv(buffer.range(), Direction::ToRam)?;
            let stayed = buffer.local(&device)?;
            off(&device)?;
            buffer.verify(seed)?;
            Ok(there.moved != pages as u64 || stayed != 0 || back.moved != there.moved)
        })?;
    }
    Ok(())
}

fn everything_fails(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = scattered(1)?;
    let filled = (PAGES / 3 * 2) as u64;
    for leg in [
        sys::HMM_DMIRROR_FAIL_COPY_TO_DEVICE,
        sys::HMM_DMIRROR_FAIL_WAIT,
    ] {
        arm(&device, leg, 0, u64::MAX)?;
        let moved = device.mv(buffer.range(), Direction::ToDevice)?;
        ensure_eq!(moved.moved, 0, "leg {leg}: {moved:?}");
        ensure_eq!(
            skipped(&moved, sys::HMM_DMIRROR_SKIP_COPY),
            filled,
            "leg {leg}: {moved:?}"
        );
        verify(&buffer, 1)?;
        off(&device)?;
    }
    let moved = device.mv(buffer.range(), Direction::ToDevice)?;
    ensure_eq!(moved.moved, filled, "{moved:?}");
    for leg in [
        sys::HMM_DMIRROR_FAIL_COPY_TO_RAM,
        sys::HMM_DMIRROR_FAIL_WAIT,
    ] {
        arm(&device, leg, 0, u64::MAX)?;
        let moved = device.mv(buffer.range(), Direction::ToRam)?;
        ensure_eq!(moved.moved, 0, "leg {leg}: {moved:?}");
        ensure_eq!(buffer.local(&device)? as u64, filled, "leg {leg}");
        if env.is_private() {
            ensure!(
                !touch(&buffer, 0)?,
                "leg {leg}: a page came out of a device that fails"
            );
        }
        off(&device)?;
        conserved(&device)?;
    }
    verify(&buffer, 1)
}

/// RELEASE from a device that fails once: nothing is lost, and the next one brings all home.
fn failing_release(env: &Env) -> Outcome {
    let device = env.open()?;
    for skip in 0..8 {
        let buffer = scattered(skip)?;
        device.mv(buffer.range(), Direction::ToDevice)?;
        arm(&device, sys::HMM_DMIRROR_FAIL_COPY_TO_RAM, skip, 1)?;
        // Whether it says so is its own matter, as it may well try again.
        let _ = device.release();
        off(&device)?;
        conserved(&device)?;
        device.release()?;
        ensure_eq!(
            conserved(&device)?.frames_resident,
            0,
            "resident after the second RELEASE"
        );
        verify(&buffer, skip)?;
    }
    Ok(())
}

fn legacy(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(64, 2)?;
    let mut seen = vec![0; buffer.len()];
    arm(&device, sys::HMM_DMIRROR_FAIL_COPY_TO_DEVICE, 0, 1)?;
    let error = device.migrate_to_dev(buffer.addr(), &mut seen).unwrap_err();
    ensure_eq!(
        error.errno,
        libc::ENOENT,
        "MIGRATE_TO_DEV when the copy fails"
    );
    off(&device)?;
    buffer.verify(2)?;
    let done = device.migrate_to_dev(buffer.addr(), &mut seen)?;
    ensure_eq!(done.pages, 64);
    Buffer::same(&seen, 0, 2)?;
    arm(&device, sys::HMM_DMIRROR_FAIL_COPY_TO_RAM, 0, 1)?;
    let done = device.migrate_to_sys(buffer.addr(), 64)?;
    ensure!(done.pages < 64, "{done:?}");
    off(&device)?;
    ensure_eq!(
        buffer.local(&device)? as u64,
        64 - done.pages,
        "pages that stayed"
    );
    device.migrate_to_sys(buffer.addr(), 64)?;
    buffer.verify(2)
}
