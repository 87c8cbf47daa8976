// SPDX-License-Identifier: GPL-2.0
//! Whole 2 MiB folios: that they move as such, and that a mapping may go at any moment of their way
//! home. Linux 7.2 and 7.3 take down a mapping wrongly while its folio is on that way; these tests
//! end in a bad page, a wrong counter or a hang if such a moment is ever left open.

use crate::buffer::{Buffer, HUGE, word};
use crate::harness::{Child, Env, Outcome, Stop, Test, conserved, ensure, ensure_eq, skip, test};
use crate::pattern::Dice;
use crate::sys::{Gate, errno};
use hmm_uapi::{Device, sys};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    test("whole::both_ways", both_ways),
    test("whole::copied_in_pieces", copied_in_pieces),
    test("whole::dontneed_while_requested", |env| {
        race(env, request, dontneed)
    }),
    test("whole::dontneed_while_touched", |env| {
        race(env, touch, dontneed)
    }),
    test("whole::dontneed_while_evicted", |env| {
        race(env, evict, dontneed)
    }),
    test("whole::munmap_while_requested", |env| {
        race(env, request, map_anew)
    }),
    test("whole::munmap_while_touched", |env| {
        race(env, touch, map_anew)
    }),
    test("whole::munmap_while_evicted", |env| {
        race(env, evict, map_anew)
    }),
    test("whole::fork_while_touched", |env| race(env, touch, fork)),
    test("whole::fork_while_evicted", |env| race(env, evict, fork)),
    test("whole::exit_while_evicted", exit_while_evicted),
    test("whole::shared_by_fork", shared_by_fork),
    test("whole::read_by_another_process", read_by_another),
];

const TIME: Duration = Duration::from_secs(3);
const PAGES: usize = HUGE / 4096;

/// A filled block on the device, in one piece where the kernel has such; otherwise there is nothing
/// to test.
pub fn block(device: &Device, seed: u64) -> Result<Buffer, Stop> {
    let buffer = Buffer::huge(1)?;
    buffer.fill(seed);
    if !buffer.places(device)?.iter().all(|place| place.is_pmd()) {
        skip!("no huge page to be had");
    }
    buffer.to_device(device)?;
    Ok(buffer)
}

/// Are the pages on the device, and mapped as one?
pub fn is_whole(device: &Device, buffer: &Buffer) -> Result<bool, Stop> {
    let places = buffer.places(device)?;
    Ok(places.iter().all(|place| place.is_pmd()) && buffer.local(device)? == buffer.pages())
}

pub fn need_whole(env: &Env, device: &Device) -> Outcome {
    env.need_private()?;
    if !is_whole(device, &block(device, 1)?)? {
        skip!("this kernel has no 2 MiB pages of device memory");
    }
    Ok(())
}

fn both_ways(env: &Env) -> Outcome {
    let device = env.open()?;
    need_whole(env, &device)?;
    for home in [request, touch, evict] {
        let buffer = block(&device, 2)?;
        ensure!(is_whole(&device, &buffer)?, "to the device in pieces");
        home(&device, &buffer)?;
        let places = buffer.places(&device)?;
        ensure_eq!(buffer.local(&device)?, 0, "still on the device");
        ensure!(
            places.iter().all(|place| place.is_pmd()),
            "came home in pieces"
        );
        buffer.verify(2)?;
    }
    conserved(&device).map(drop)
}

/// A device that cannot copy a folio in one go asks for its pages: they move, one by one, and none is
/// lost or counted twice.
fn copied_in_pieces(env: &Env) -> Outcome {
    let device = env.open()?;
    need_whole(env, &device)?;
    // The folio alone is refused, or each of its parts as well, down to single pages.
    for count in [1, u64::MAX] {
        let buffer = Buffer::huge(1)?;
        buffer.fill(3);
        device.fail(sys::HMM_DMIRROR_FAIL_LONG, 0, count)?;
        let there = buffer.to_device(&device);
        device.fail(sys::HMM_DMIRROR_FAIL_NONE, 0, 0)?;
        there?;
        ensure_eq!(buffer.local(&device)?, buffer.pages(), "on the device");
        ensure!(!is_whole(&device, &buffer)?, "moved as a whole");
        buffer.verify(3)?;
        for home in [request, touch, evict] {
            let buffer = block(&device, 4)?;
            ensure!(is_whole(&device, &buffer)?, "to the device in pieces");
            device.fail(sys::HMM_DMIRROR_FAIL_LONG, 0, count)?;
            let back = home(&device, &buffer);
            device.fail(sys::HMM_DMIRROR_FAIL_NONE, 0, 0)?;
            back?;
            let places = buffer.places(&device)?;
            ensure!(
                places.iter().all(|place| !place.is_pmd()),
                "came as a whole"
            );
            buffer.verify(4)?;
            ensure_eq!(buffer.local(&device)?, 0, "still on the device");
        }
    }
    conserved(&device).map(drop)
}

fn request(device: &Device, buffer: &Buffer) -> Outcome {
    device.mv(buffer.range(), hmm_uapi::Direction::ToRam)?;
    Ok(())
}

fn touch(_device: &Device, buffer: &Buffer) -> Outcome {
    std::hint::black_box(buffer.get(77));
    Ok(())
}

fn evict(device: &Device, _buffer: &Buffer) -> Outcome {
    device.release()?;
    Ok(())
}

fn dontneed(buffer: &Buffer) -> Outcome {
    Ok(buffer.advise(0..PAGES, libc::MADV_DONTNEED)?)
}

/// Takes the mapping away and puts a new one in its place, in one step: another thread looks on.
fn map_anew(buffer: &Buffer) -> Outcome {
    // SAFETY: replaces our own mapping.
    let map = unsafe {
        libc::mmap(
            buffer.addr() as *mut _,
            HUGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    ensure!(map != libc::MAP_FAILED, "mmap: errno {}", errno());
    Ok(buffer.advise(0..PAGES, libc::MADV_HUGEPAGE)?)
}

fn fork(buffer: &Buffer) -> Outcome {
    Child::spawn(|| {
        buffer.set(3, 4);
        Ok(())
    })?
    .join()
}

/// Does nothing for some part of the time that a block is on its way.
fn wait_a_little(dice: &mut Dice) {
    let end = Instant::now() + Duration::from_micros(dice.below(4000) as u64);
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

/// A word of a page is what it was, or was never written.
fn old_or_new(buffer: &Buffer, seed: u64) -> Outcome {
    for index in 0..HUGE / 8 {
        let got = buffer.get(index);
        ensure!(
            got == 0 || got == word(seed, index),
            "word {index}: {got:#x}"
        );
    }
    Ok(())
}

/// A block comes home, again and again, and somewhere on its way the mapping changes.
fn race(
    env: &Env,
    home: fn(&Device, &Buffer) -> Outcome,
    change: fn(&Buffer) -> Outcome,
) -> Outcome {
    let device = env.open()?;
    need_whole(env, &device)?;
    let buffer = Buffer::huge(1)?;
    let end = Instant::now() + TIME;
    // Both threads wait here before a race, and when it is over.
    let line = Barrier::new(2);
    let over = AtomicBool::new(false);
    let mut rounds = 0;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut dice = Dice::new(5);
            let mut outcome = Outcome::Ok(());
            loop {
                line.wait();
                if over.load(Ordering::Acquire) {
                    return outcome;
                }
                wait_a_little(&mut dice);
                outcome = outcome.and_then(|()| change(&buffer));
                line.wait();
            }
        });
        let mut outcome = Outcome::Ok(());
        while outcome.is_ok() && Instant::now() < end {
            rounds += 1;
            buffer.fill(rounds);
            outcome = buffer.to_device(&device).map(drop);
            line.wait();
            outcome = outcome.and_then(|()| home(&device, &buffer));
            line.wait();
            outcome = outcome.and_then(|()| old_or_new(&buffer, rounds));
        }
        over.store(true, Ordering::Release);
        line.wait();
        other.join().map_err(|_| "a thread panicked")??;
        outcome
    })?;
    ensure!(rounds > 5, "only {rounds} rounds");
    conserved(&device).map(drop)
}

fn exit_while_evicted(env: &Env) -> Outcome {
    let device = env.open()?;
    need_whole(env, &device)?;
    let mut dice = Dice::new(6);
    let end = Instant::now() + TIME;
    while Instant::now() < end {
        let there = Gate::new()?;
        let wait = dice.below(4000);
        let child = Child::spawn(|| {
            let device = env.open()?;
            let buffer = block(&device, 7)?;
            there.open();
            wait_a_little(&mut Dice::new(wait as u64));
            std::mem::forget(buffer);
            Ok(())
        })?;
        ensure!(there.wait(), "the child never got ready");
        device.release()?;
        child.join()?;
    }
    conserved(&device).map(drop)
}

/// After a fork both have the block: neither may take it home whole, both must get at it.
fn shared_by_fork(env: &Env) -> Outcome {
    let device = env.open()?;
    need_whole(env, &device)?;
    for home in [request, touch, evict] {
        let buffer = block(&device, 8)?;
        let (first, second) = (Gate::new()?, Gate::new()?);
        let child = Child::spawn(|| {
            ensure!(first.wait(), "the parent never got ready");
            let outcome = buffer.verify(8);
            second.open();
            outcome
        })?;
        home(&device, &buffer)?;
        first.open();
        ensure!(second.wait(), "the child never got through");
        child.join()?;
        buffer.verify(8)?;
        // The child first, and alone at the end.
        let buffer = block(&device, 9)?;
        let child = Child::spawn(|| {
            buffer.fill(10);
            buffer.verify(10)
        })?;
        child.join()?;
        home(&device, &buffer)?;
        buffer.verify(9)?;
    }
    conserved(&device).map(drop)
}

/// The kernel reads the memory of another process without letting go of its locks.
fn read_by_another(env: &Env) -> Outcome {
    let device = env.open()?;
    need_whole(env, &device)?;
    let read = |pid: i32, buffer: &Buffer, at: usize| {
        let file = std::fs::File::open(format!("/proc/{pid}/mem"))?;
        let mut seen = [0; 4096];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut seen, buffer.at(at))?;
        Outcome::Ok(()).and_then(|()| Buffer::same(&seen, at, 11))
    };
    let buffer = block(&device, 11)?;
    // SAFETY: no arguments, cannot fail.
    read(unsafe { libc::getpid() }, &buffer, 300)?;
    buffer.verify(11)?;
    // What a child has of it, which itself never touches it.
    buffer.to_device(&device)?;
    let gate = Gate::new()?;
    let child = Child::spawn(|| {
        ensure!(gate.wait(), "the parent never came");
        buffer.verify(11)
    })?;
    read(child.pid, &buffer, 5)?;
    gate.open();
    child.join()?;
    buffer.verify(11)?;
    conserved(&device).map(drop)
}
