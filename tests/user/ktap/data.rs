// SPDX-License-Identifier: GPL-2.0
//! To the device and back: by request, by CPU fault, in every order, and the bytes stay the same.

use crate::buffer::{
    Buffer, HUGE, PAGE, all_counted, kernel_has_huge_pages, shuffled, skipped, word,
};
use crate::harness::{Env, Outcome, Test, conserved, ensure, ensure_eq, long, skip, test};
use crate::sys::sleep_ms;
use hmm_uapi::{Direction, PAGE_SIZE, sys};
use std::sync::atomic::{AtomicBool, Ordering};

pub const TESTS: &[Test] = &[
    test("data::there_and_back_by_request", by_request),
    test("data::back_by_fault_forward", by_fault_forward),
    test("data::back_by_fault_backward", by_fault_backward),
    test("data::back_by_fault_scattered", by_fault_scattered),
    test("data::back_by_write_fault", by_write_fault),
    test(
        "data::back_by_fault_of_another_thread",
        by_fault_of_a_thread,
    ),
    test("data::two_threads_fault_the_same_pages", by_two_threads),
    test("data::lengths_around_a_block", lengths),
    test("data::again_and_again", again_and_again),
    test("data::moves_while_threads_write", while_threads_write),
    test("data::already_there", already_there),
    test("data::holes_stay_holes", holes_stay),
    test("data::holes_on_request", holes_on_request),
    test("data::holes_between_pages", holes_between),
    test("data::zero_page", zero_page),
    test("data::range_with_gaps", range_with_gaps),
    test("data::huge_page_by_request", huge_by_request),
    test("data::huge_page_by_fault", huge_by_fault),
    test("data::part_of_a_huge_page", huge_part),
    test("data::huge_zero_page", huge_zero),
    test("data::huge_and_small_mixed", huge_mixed),
    test("data::legacy_calls", legacy),
    long("data::large_buffer", large),
    test("data::counters", counters),
];

fn by_request(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(256, 1)?;
    all_counted(&buffer.to_device(&device)?)?;
    let info = conserved(&device)?;
    ensure!(info.frames_resident >= 256, "{info:?}");
    let back = buffer.to_ram(&device)?;
    ensure_eq!(back.moved, 256, "pages moved back");
    conserved(&device)?;
    buffer.verify(1)
}

/// Touches pages in an order; each has to come back with its bytes.
fn by_fault(env: &Env, order: &[usize]) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(order.len(), 2)?;
    buffer.to_device(&device)?;
    let before = device.info()?;
    for &page in order {
        buffer.verify_pages(page..page + 1, 2)?;
    }
    let after = conserved(&device)?;
    if env.is_private() {
        let pages = order.len() as u64;
        let faults = after.cpu_faults - before.cpu_faults;
        ensure_eq!(
            buffer.local(&device)?,
            0,
            "pages on the device after all were touched"
        );
        ensure_eq!(
            after.to_ram_fault - before.to_ram_fault,
            pages,
            "to_ram_fault"
        );
        ensure!(
            faults > 0 && faults <= pages,
            "{faults} CPU faults for {pages} pages"
        );
        ensure_eq!(after.to_ram_request, before.to_ram_request);
    } else {
        ensure_eq!(
            buffer.local(&device)?,
            order.len(),
            "coherent memory is used in place"
        );
        ensure_eq!(after.cpu_faults, before.cpu_faults);
    }
    buffer.verify(2)
}

fn by_fault_forward(env: &Env) -> Outcome {
    by_fault(env, &(0..2048).collect::<Vec<_>>())
}

fn by_fault_backward(env: &Env) -> Outcome {
    by_fault(env, &(0..2048).rev().collect::<Vec<_>>())
}

fn by_fault_scattered(env: &Env) -> Outcome {
    by_fault(env, &shuffled(2048, 3))
}

fn by_write_fault(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(600, 4)?;
    buffer.to_device(&device)?;
    for page in shuffled(600, 4) {
        buffer.set(page * 512 + 17, page as u64);
    }
    let expected = |index: usize| {
        if index % 512 == 17 {
            index as u64 / 512
        } else {
            word(4, index)
        }
    };
    buffer.compare(0..600, expected)?;
    buffer.to_device(&device)?;
    buffer.to_ram(&device)?;
    buffer.compare(0..600, expected)
}

fn by_fault_of_a_thread(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(512, 5)?;
    buffer.to_device(&device)?;
    std::thread::scope(|scope| scope.spawn(|| buffer.verify(5)).join())
        .map_err(|_| "the thread panicked")??;
    buffer.verify(5)
}

fn by_two_threads(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(512, 6)?;
    for round in 0..8 {
        buffer.to_device(&device)?;
        let order = shuffled(512, round);
        std::thread::scope(|scope| {
            let walk = || {
                order
                    .iter()
                    .try_for_each(|&page| buffer.verify_pages(page..page + 1, 6))
            };
            let threads = [scope.spawn(walk), scope.spawn(walk), scope.spawn(walk)];
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| "panicked")?)
        })?;
        if env.is_private() {
            ensure_eq!(buffer.local(&device)?, 0, "round {round}");
        }
        conserved(&device)?;
    }
    Ok(())
}

fn lengths(env: &Env) -> Outcome {
    let device = env.open()?;
    for (offset, pages) in [
        (0, 1),
        (1, 1),
        (0, 2),
        (3, 15),
        (0, 511),
        (1, 512),
        (0, 513),
        (7, 1025),
        (511, 2),
        (0, 1536),
    ] {
        let buffer = Buffer::filled(offset + pages + 1, 7)?;
        let range = buffer.part(offset..offset + pages);
        let moved = device.mv(range, Direction::ToDevice)?;
        ensure_eq!(
            moved.moved,
            pages as u64,
            "{pages} pages from page {offset}"
        );
        let places = buffer.places(&device)?;
        for (page, place) in places.iter().enumerate() {
            let inside = (offset..offset + pages).contains(&page);
            ensure_eq!(
                place.is_local(),
                inside,
                "page {page} of {pages} from {offset}"
            );
        }
        let moved = device.mv(range, Direction::ToRam)?;
        ensure_eq!(
            moved.moved,
            pages as u64,
            "{pages} pages from page {offset} back"
        );
        buffer.verify(7)?;
    }
    conserved(&device).map(drop)
}

fn again_and_again(env: &Env) -> Outcome {
    let device = env.open()?;
    let pages = 300;
    let buffer = Buffer::filled(pages, 8)?;
    let mut model: Vec<u64> = (0..pages * 512).map(|index| word(8, index)).collect();
    for round in 0..150_u64 {
        let pick = |what: u64, below: usize| (word(round, what as usize) % below as u64) as usize;
        let start = pick(0, pages);
        let end = start + 1 + pick(1, pages - start);
        match pick(2, 4) {
            0 | 1 => {
                all_counted(&device.mv(buffer.part(start..end), Direction::ToDevice)?)?;
            }
            2 => {
                device.mv(buffer.part(start..end), Direction::ToRam)?;
            }
            _ => {
                for page in start..end {
                    let index = page * 512 + pick(3, 512);
                    buffer.set(index, round);
                    model[index] = round;
                }
            }
        }
    }
    buffer.compare(0..pages, |index| model[index])?;
    conserved(&device).map(drop)
}

fn while_threads_write(env: &Env) -> Outcome {
    const ROUNDS: u64 = 12;
    let device = env.open()?;
    let buffer = Buffer::new(128)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for lane in 0..2_usize {
            let (buffer, done) = (&buffer, &done);
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    for page in shuffled(128, round) {
                        let index = page * 512 + lane * 100;
                        buffer.set(index, buffer.get(index) + 1);
                    }
                    sleep_ms(1);
                }
                done.store(true, Ordering::Release);
            });
        }
        while !done.load(Ordering::Acquire) {
            device.mv(buffer.range(), Direction::ToDevice)?;
            device.mv(buffer.part(32..64), Direction::ToRam)?;
        }
        Outcome::Ok(())
    })?;
    buffer.compare(0..128, |index| {
        if matches!(index % 512, 0 | 100) {
            ROUNDS
        } else {
            0
        }
    })?;
    conserved(&device).map(drop)
}

fn already_there(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(64, 9)?;
    buffer.to_device(&device)?;
    let again = device.mv(buffer.range(), Direction::ToDevice)?;
    ensure_eq!(again.moved, 0, "moved the second time");
    all_counted(&again)?;
    buffer.to_ram(&device)?;
    let again = device.mv(buffer.range(), Direction::ToRam)?;
    ensure_eq!(again.moved, 0, "moved back the second time");
    buffer.verify(9)
}

fn holes_stay(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::new(600)?;
    let moved = device.mv(buffer.range(), Direction::ToDevice)?;
    ensure_eq!(moved.moved, 0);
    ensure_eq!(
        skipped(&moved, sys::HMM_DMIRROR_SKIP_HOLE),
        600,
        "{moved:?}"
    );
    let places = buffer.places(&device)?;
    ensure!(places.iter().all(|place| place.is_hole()), "{places:?}");
    buffer.compare(0..600, |_| 0)
}

fn holes_on_request(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::new(600)?;
    let moved = device.mv(buffer.range(), Direction::ToDeviceWithHoles)?;
    ensure_eq!(moved.moved, 600, "{moved:?}");
    ensure_eq!(buffer.local(&device)?, 600, "pages on the device");
    conserved(&device)?;
    buffer.compare(0..300, |_| 0)?;
    device.mv(buffer.range(), Direction::ToRam)?;
    buffer.compare(0..600, |_| 0)?;
    buffer.fill(10);
    buffer.verify(10)
}

fn holes_between(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::new(512)?;
    for page in (0..512).step_by(2) {
        buffer.fill_pages(page..page + 1, 11);
    }
    let moved = device.mv(buffer.range(), Direction::ToDevice)?;
    ensure_eq!(moved.moved, 256, "{moved:?}");
    ensure_eq!(
        skipped(&moved, sys::HMM_DMIRROR_SKIP_HOLE),
        256,
        "{moved:?}"
    );
    let expected = |index: usize| {
        if (index / 512).is_multiple_of(2) {
            word(11, index)
        } else {
            0
        }
    };
    if env.is_private() {
        buffer.compare(100..200, expected)?;
    }
    device.mv(buffer.range(), Direction::ToRam)?;
    buffer.compare(0..512, expected)?;
    conserved(&device).map(drop)
}

fn zero_page(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::new(64)?;
    buffer.compare(0..64, |_| 0)?;
    let places = buffer.places(&device)?;
    ensure!(
        places.iter().all(|place| place.is_zero_page()),
        "{places:?}"
    );
    for direction in [Direction::ToDevice, Direction::ToDeviceWithHoles] {
        all_counted(&device.mv(buffer.range(), direction)?)?;
        buffer.compare(0..64, |_| 0)?;
    }
    buffer.fill(12);
    buffer.to_device(&device)?;
    buffer.verify(12)
}

/// MOVE goes over unmapped parts, forbidden parts and files without an error.
fn range_with_gaps(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(64, 13)?;
    buffer.unmap(16..24)?;
    let moved = device.mv(buffer.range(), Direction::ToDevice)?;
    ensure_eq!(moved.moved, 56, "{moved:?}");
    ensure_eq!(
        skipped(&moved, sys::HMM_DMIRROR_SKIP_UNMAPPED),
        8,
        "{moved:?}"
    );
    all_counted(&moved)?;
    let moved = device.mv(buffer.range(), Direction::ToRam)?;
    ensure_eq!(moved.moved, 56, "{moved:?}");
    ensure_eq!(
        skipped(&moved, sys::HMM_DMIRROR_SKIP_UNMAPPED),
        8,
        "{moved:?}"
    );
    buffer.verify_pages(0..16, 13)?;
    buffer.verify_pages(24..64, 13)
}

const BLOCKS: usize = 4;
const HUGE_PAGES: usize = HUGE / PAGE_SIZE;

fn huge_filled(seed: u64) -> Result<Buffer, crate::harness::Stop> {
    if !kernel_has_huge_pages() {
        skip!("this kernel is built without CONFIG_TRANSPARENT_HUGEPAGE");
    }
    let buffer = Buffer::huge(BLOCKS)?;
    buffer.fill(seed);
    Ok(buffer)
}

fn huge_by_request(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = huge_filled(14)?;
    let places = buffer.places(&device)?;
    ensure!(
        places.iter().all(|place| place.is_pmd()),
        "no huge pages: {:?}",
        &places[..4]
    );
    all_counted(&buffer.to_device(&device)?)?;
    conserved(&device)?;
    let back = buffer.to_ram(&device)?;
    ensure_eq!(back.moved, buffer.pages() as u64);
    conserved(&device)?;
    buffer.verify(14)
}

fn huge_by_fault(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = huge_filled(15)?;
    for seed in 0..3 {
        buffer.to_device(&device)?;
        for page in shuffled(buffer.pages(), seed) {
            buffer.verify_pages(page..page + 1, 15)?;
        }
        conserved(&device)?;
    }
    Ok(())
}

fn huge_part(env: &Env) -> Outcome {
    let device = env.open()?;
    for part in [
        0..1,
        1..2,
        100..300,
        511..513,
        HUGE_PAGES - 1..2 * HUGE_PAGES + 1,
        37..1999,
    ] {
        let buffer = huge_filled(16)?;
        let moved = device.mv(buffer.part(part.clone()), Direction::ToDevice)?;
        all_counted(&moved)?;
        ensure_eq!(moved.moved, part.len() as u64, "pages {part:?}: {moved:?}");
        let places = buffer.places(&device)?;
        ensure!(
            places[part.clone()].iter().all(|place| place.is_local()),
            "pages {part:?}"
        );
        if env.is_private() {
            buffer.verify_pages(0..HUGE_PAGES, 16)?;
        }
        device.mv(buffer.range(), Direction::ToRam)?;
        buffer.verify(16)?;
        // The whole on the device, a part of it back.
        device.mv(buffer.range(), Direction::ToDevice)?;
        device.mv(buffer.part(part.clone()), Direction::ToRam)?;
        let places = buffer.places(&device)?;
        ensure!(
            !places[part].iter().any(|place| place.is_local()),
            "back in part"
        );
        buffer.verify(16)?;
        conserved(&device)?;
    }
    Ok(())
}

fn huge_zero(env: &Env) -> Outcome {
    let device = env.open()?;
    for direction in [Direction::ToDevice, Direction::ToDeviceWithHoles] {
        for touch in [false, true] {
            let buffer = Buffer::huge(2)?;
            if touch {
                buffer.compare(0..1, |_| 0)?;
            }
            all_counted(&device.mv(buffer.range(), direction)?)?;
            buffer.compare(0..buffer.pages(), |_| 0)?;
            buffer.fill(17);
            device.mv(buffer.range(), direction)?;
            buffer.verify(17)?;
            conserved(&device)?;
        }
    }
    Ok(())
}

fn huge_mixed(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::huge(BLOCKS)?;
    // Block 1 has small pages, block 2 a few, block 3 none.
    buffer.advise(HUGE_PAGES..4 * HUGE_PAGES, libc::MADV_NOHUGEPAGE)?;
    buffer.fill_pages(0..2 * HUGE_PAGES, 18);
    buffer.fill_pages(2 * HUGE_PAGES..2 * HUGE_PAGES + 9, 18);
    let filled = 2 * HUGE_PAGES + 9;
    for _ in 0..3 {
        let moved = device.mv(buffer.range(), Direction::ToDevice)?;
        all_counted(&moved)?;
        ensure_eq!(buffer.local(&device)?, filled, "{moved:?}");
        buffer.compare(0..buffer.pages(), |index| {
            if index < filled * 512 {
                word(18, index)
            } else {
                0
            }
        })?;
        device.mv(buffer.range(), Direction::ToRam)?;
    }
    Ok(())
}

fn legacy(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(100, 19)?;
    let mut seen = vec![0; buffer.len()];
    let done = device.migrate_to_dev(buffer.addr(), &mut seen)?;
    ensure_eq!(done.pages, 100, "cpages of MIGRATE_TO_DEV");
    Buffer::same(&seen, 0, 19)?;
    ensure_eq!(buffer.local(&device)?, 100);
    let done = device.migrate_to_sys(buffer.at(10), 20)?;
    ensure_eq!(done.pages, 20, "cpages of MIGRATE_TO_SYS");
    ensure_eq!(buffer.local(&device)?, 80);
    let done = device.migrate_to_sys(buffer.addr(), 100)?;
    ensure_eq!(done.pages, 80, "cpages of MIGRATE_TO_SYS with some at home");
    ensure_eq!(buffer.local(&device)?, 0);
    let done = device.migrate_to_sys(buffer.addr(), 100)?;
    ensure_eq!(done.pages, 0, "cpages of MIGRATE_TO_SYS with all at home");
    buffer.verify(19)
}

fn large(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled((64 << 20) / PAGE_SIZE, 20)?;
    buffer.to_device(&device)?;
    conserved(&device)?;
    buffer.verify(20)?;
    buffer.to_ram(&device)?;
    buffer.verify(20)?;
    conserved(&device).map(drop)
}

fn counters(env: &Env) -> Outcome {
    let device = env.open()?;
    let start = device.info()?;
    ensure_eq!(start.page_size, 4096);
    ensure!(start.frames_total > 0, "{start:?}");
    ensure_eq!(
        [
            start.to_device,
            start.to_ram_request,
            start.to_ram_fault,
            start.cpu_faults
        ],
        [0; 4]
    );
    let buffer = Buffer::filled(100, 21)?;
    let moved = buffer.to_device(&device)?;
    ensure_eq!(moved.ns > 0, true, "ns of {moved:?}");
    let there = device.info()?;
    ensure_eq!(there.to_device, 100);
    ensure_eq!(there.frames_resident, start.frames_resident + 100);
    ensure_eq!(there.frames_free, start.frames_free - 100);
    ensure!(there.ns_to_device > 0, "{there:?}");
    device.mv(buffer.part(0..40), Direction::ToRam)?;
    let back = device.info()?;
    ensure_eq!(back.to_ram_request, 40);
    ensure_eq!(back.frames_free, start.frames_free - 60);
    ensure!(back.ns_to_ram > 0, "{back:?}");
    // A second descriptor of the same process sees the same process.
    let second = device.reopen()?.info()?;
    ensure_eq!(
        [second.to_device, second.to_ram_request],
        [100, 40],
        "second descriptor"
    );
    drop(buffer);
    let end = device.info()?;
    ensure_eq!(end.frames_free, start.frames_free, "after munmap");
    ensure_eq!(PAGE, u64::from(end.page_size));
    Ok(())
}
