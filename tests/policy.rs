// SPDX-License-Identifier: GPL-2.0
//! The density prefetch against the level-by-level walk, on more than a million
//! random blocks of every density and shape.

mod random;
mod walk;

use hmm_devmem::density::{Mask, prefetch};
use random::Random;
use walk::{level_by_level, page_by_page};

/// A mask of about `density` pages, scattered, in runs, or in one place.
fn some(random: &mut Random, density: u64) -> Mask {
    let mut mask = [0u64; 8];
    let mut set = |page: u64| mask[(page / 64 % 8) as usize] |= 1 << (page % 64);
    match random.below(3) {
        0 => (0..density).for_each(|_| set(random.below(512))),
        1 => {
            let mut left = density;
            while left > 0 {
                let n = 1 + random.below(left.min(64));
                let first = random.below(512);
                (first..first + n).for_each(&mut set);
                left -= n;
            }
        }
        _ => {
            let first = random.below(512);
            (first..first + density).for_each(set);
        }
    }
    mask
}

#[test]
fn same_masks_as_the_walk() {
    let halves = [1, 2].map(|seed| std::thread::spawn(move || cases(seed)));
    let grown: u64 = halves
        .map(|half| half.join().expect("same masks"))
        .iter()
        .sum();
    println!(
        "{} cases, {grown} of them brought more than was faulted on",
        2 * CASES
    );
    assert!(grown > CASES / 5 && grown < CASES * 9 / 5, "{grown}");
}

const CASES: u64 = 525_000;

/// How many of [`CASES`] brought more than was faulted on.
fn cases(seed: u64) -> u64 {
    let mut random = Random(seed);
    let mut grown = 0u64;
    let count = |mask: &Mask| mask.iter().map(|w| u64::from(w.count_ones())).sum::<u64>();
    for case in 0..CASES {
        let most = [2, 9, 33, 129, 513][case as usize % 5];
        let faults = random.below(most);
        let faults = some(&mut random, faults);
        let here = [1, 40, 300, 513][random.below(4) as usize];
        let here = random.below(here);
        let mut here = some(&mut random, here);
        if case % 4 != 0 {
            // What faults is not here; the other case must be safe, too.
            here.iter_mut().zip(&faults).for_each(|(h, f)| *h &= !f);
        }
        let percent = match case % 8 {
            0 => random.below(120) as u32,
            1 => 100,
            2 => 0,
            _ => 51,
        };
        let got = prefetch(&here, &faults, percent);
        let want = level_by_level(&here, &faults, percent);
        assert_eq!(got, want, "{here:x?} {faults:x?} {percent} %");
        if case % 16 == 0 {
            assert_eq!(page_by_page(&here, &faults, percent), want, "{percent} %");
        }
        grown += u64::from(count(&got) > count(&faults));
    }
    grown
}
