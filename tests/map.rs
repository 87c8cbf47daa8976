// SPDX-License-Identifier: GPL-2.0
//! The range map against the plainest ones: a list of all that was ever set, and
//! a vector with a value for each page.

mod random;

use hmm_devmem::map::{MAX_PAGE, MAX_VALUE, Map, Refused, Run, WORST};
use hmm_devmem::port::warnings;
use proptest::prelude::*;
use random::Random;

/// Memory that is lent page by page, as the map asks for it.
struct Lent {
    words: Vec<u64>,
    /// How often it asked.
    asked: usize,
}

impl Lent {
    fn new() -> Lent {
        let mut words = vec![0xa5a5_a5a5_a5a5_a5a5; Map::LEAST_PAGES as usize * 512];
        assert!(Map::format(&mut words).is_some());
        Lent { words, asked: 0 }
    }

    fn map(&mut self) -> Map<'_> {
        Map::at(&mut self.words).expect("a map")
    }

    fn set(&mut self, first: u64, npages: u64, value: u32) {
        let mut before = None;
        loop {
            match self.map().set(first, npages, value) {
                Ok(()) => return,
                Err(Refused::Invalid) => panic!("{first} {npages} {value}: refused"),
                Err(Refused::Lend(lend)) => {
                    assert!(before.is_none(), "once is enough");
                    assert!(lend.0 >= 1 && lend.0 <= WORST + 2, "{lend:?}");
                    before = Some(());
                    // Moved to a larger place, with garbage behind.
                    let mut words = vec![!0; self.words.len() + lend.0 as usize * 512];
                    words[..self.words.len()].copy_from_slice(&self.words);
                    self.words = words;
                    self.asked += 1;
                }
            }
        }
    }
}

/// The last one that was set over a page says what it is.
#[derive(Default)]
struct Naive(Vec<(u64, u64, u32)>);

impl Naive {
    fn get(&self, page: u64) -> u32 {
        let over = |s: &&(u64, u64, u32)| s.0 <= page && page < s.1;
        self.0.iter().rev().find(over).map_or(0, |s| s.2)
    }

    /// The maximal runs with a value in `[first, end)`.
    fn runs(&self, first: u64, end: u64) -> Vec<Run> {
        let mut edges: Vec<u64> = self.0.iter().flat_map(|s| [s.0, s.1]).collect();
        edges.extend([first, end]);
        edges.retain(|e| *e >= first && *e <= end);
        edges.sort_unstable();
        edges.dedup();
        let mut runs: Vec<Run> = Vec::new();
        for pair in edges.windows(2) {
            let value = self.get(pair[0]);
            let npages = pair[1] - pair[0];
            match runs.last_mut() {
                Some(last) if last.first + last.npages == pair[0] && last.value == value => {
                    last.npages += npages;
                }
                _ => runs.push(Run {
                    first: pair[0],
                    npages,
                    value,
                }),
            }
        }
        runs.retain(|run| run.value != 0);
        runs
    }
}

/// Places at and around the edges of every level, and lengths that cross them.
fn range() -> impl Strategy<Value = (u64, u64)> {
    let base = prop_oneof![
        4 => 0..3000u64,
        2 => (0..40u64).prop_map(|x| (1 << 18) - 20 + x),
        2 => (0..40u64, 0..20u64).prop_map(|(x, y)| (y << 18) + x * 37),
        1 => (0..40u64).prop_map(|x| (1 << 27) - 20 + x),
        1 => (0..40u64).prop_map(|x| (1 << 36) - 20 + x),
        1 => (1..3000u64).prop_map(|x| MAX_PAGE - x),
        2 => (0..1000u64).prop_map(|x| 0x7_f123_4000 + x),
        1 => 0..MAX_PAGE,
    ];
    let len = prop_oneof![
        6 => 1..20u64,
        2 => 1..2000u64,
        1 => Just(512u64),
        1 => (9..46u32).prop_map(|s| 1 << s),
        1 => 1..(1u64 << 28),
    ];
    (base, len).prop_map(|(base, len)| (base, len.min(MAX_PAGE - base)))
}

fn value() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(0), 4 => 1..4u32, 1 => Just(MAX_VALUE), 1 => 0..MAX_VALUE]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Any ranges anywhere: every lookup and every run is what the list says.
    #[test]
    fn ranges(sets in prop::collection::vec((range(), value()), 1..80)) {
        let warned = warnings();
        let mut lent = Lent::new();
        let mut naive = Naive::default();
        for &((first, npages), value) in &sets {
            lent.set(first, npages, value);
            naive.0.push((first, first + npages, value));
        }
        let map = lent.map();
        for &((first, npages), _) in &sets {
            for page in [first, first.saturating_sub(1), first + npages - 1, first + npages, first + npages / 2] {
                prop_assert_eq!(map.get(page), naive.get(page), "page {:#x}", page);
            }
        }
        prop_assert_eq!(map.get(MAX_PAGE), 0);
        prop_assert_eq!(map.get(u64::MAX), 0);
        let all: Vec<Run> = map.runs(0, u64::MAX).collect();
        prop_assert_eq!(&all, &naive.runs(0, MAX_PAGE));
        for &((first, npages), value) in sets.iter().take(9) {
            let part: Vec<Run> = map.runs(first, first + npages).collect();
            prop_assert_eq!(&part, &naive.runs(first, first + npages));
            let mask = value | 1;
            let next = naive.runs(first, MAX_PAGE).into_iter().find(|r| r.value & mask != 0);
            prop_assert_eq!(map.next(first, MAX_PAGE, mask), next);
            let run = map.run(first, MAX_PAGE).expect("inside");
            prop_assert_eq!(run.value, naive.get(first));
            prop_assert!(run.first == first && run.npages >= 1);
            let after = first + run.npages;
            prop_assert!(after == MAX_PAGE || naive.get(after) != run.value);
        }
        prop_assert_eq!(map.run(9, 9), None);
        // Nothing is left, and all memory can be had again.
        lent.set(0, MAX_PAGE, 0);
        prop_assert_eq!(lent.map().memory().0, 0);
        prop_assert_eq!(lent.map().runs(0, MAX_PAGE).count(), 0);
        prop_assert_eq!(warnings(), warned, "memory ran out within a change");
    }
}

/// Parts that become dense, directories, and back, many times: a vector with a
/// value for each page says what is where, in a window that crosses 1 GiB.
#[test]
fn every_form_and_back() {
    let base = (1u64 << 27) + (1 << 18) - 4096;
    let n = 8192usize;
    let warned = warnings();
    for (seed, longest) in [(1, 3), (2, 40), (3, 700), (4, 5000)] {
        let mut random = Random(seed);
        let mut lent = Lent::new();
        let mut pages = vec![0u32; n];
        for turn in 0..30_000u32 {
            let first = random.below(n as u64);
            // Now and then a large one: what was split joins again.
            let most = if random.below(300) == 0 {
                4000
            } else {
                longest
            };
            let npages = (1 + random.below(most)).min(n as u64 - first);
            // In turns, mostly something or mostly nothing.
            let some = random.below(8) < if turn / 5000 % 2 == 0 { 7 } else { 1 };
            let value = if some { 1 + random.below(5) as u32 } else { 0 };
            lent.set(base + first, npages, value);
            pages[first as usize..][..npages as usize].fill(value);
            let at = random.below(n as u64);
            assert_eq!(lent.map().get(base + at), pages[at as usize]);
            if turn % 3000 == 2999 {
                let map = lent.map();
                for (i, want) in pages.iter().enumerate() {
                    assert_eq!(map.get(base + i as u64), *want, "page {i} in turn {turn}");
                }
                let runs: Vec<Run> = map.runs(0, MAX_PAGE).collect();
                assert!(runs.iter().all(|r| r.value != 0));
                let total: u64 = runs.iter().map(|r| r.npages).sum();
                assert_eq!(total, pages.iter().filter(|v| **v != 0).count() as u64);
                assert!(runs.windows(2).all(|r| {
                    let end = r[0].first + r[0].npages;
                    end < r[1].first || end == r[1].first && r[0].value != r[1].value
                }));
            }
        }
        lent.set(base, n as u64, 0);
        assert_eq!(lent.map().memory().0, 0, "all given back");
    }
    assert_eq!(warnings(), warned);
}

/// A thousand ranges far apart, with room for none: what they cost.
#[test]
fn sparse_and_dense_cost_little() {
    let mut lent = Lent::new();
    let mut random = Random(5);
    for i in 0..20_000 {
        let first = random.below(1 << 31) * 16;
        lent.set(first, 16, 1 + i % 1000);
    }
    let runs = lent.map().runs(0, MAX_PAGE).count() as u64;
    assert!(runs > 19_000);
    let used = lent.map().memory().0;
    assert!(used / runs <= 40, "{used} bytes for {runs} sparse ranges");

    let mut lent = Lent::new();
    let mut order: Vec<u64> = (0..65536).collect();
    for i in 0..order.len() {
        order.swap(i, random.below(65536) as usize);
    }
    for i in order {
        lent.set((1 << 30) + i * 16, 16, 1 + i as u32 % 1000);
    }
    assert_eq!(lent.map().runs(0, MAX_PAGE).count(), 65536);
    let (used, reached) = lent.map().memory();
    assert!(used / 65536 <= 9, "{used} bytes for 65536 ranges");
    assert!(reached / 65536 <= 12, "{reached} bytes for 65536 ranges");
    assert!(
        lent.words.len() as u64 / 8192 <= 14,
        "{} words lent",
        lent.words.len()
    );
}

/// The coarsest dense block, eight cells, keeps what is in it when a cell is cleared.
#[test]
fn eight_cells_keep_the_rest() {
    let mut lent = Lent::new();
    let base = 1 << 30;
    // So many ranges that there are directories.
    for i in 0..2000 {
        lent.set(base + i * 512, 1, 9);
    }
    let at = base + 7 * 512;
    lent.set(at, 1, 0);
    let ranges = [(0, 128, 1), (192, 64, 2), (320, 64, 3), (448, 64, 4)];
    for (first, npages, value) in ranges {
        lent.set(at + first, npages, value);
    }
    lent.set(at + 320, 64, 0);
    for page in 0..512 {
        let over = |r: &&(u64, u64, u32)| r.2 != 3 && r.0 <= page && page < r.0 + r.1;
        let value = ranges.iter().find(over).map_or(0, |r| r.2);
        assert_eq!(lent.map().get(at + page), value, "page {page}");
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut lent = Lent::new();
    lent.set(10, 10, 7);
    for (first, npages, value) in [
        (0, 0, 1),
        (MAX_PAGE, 1, 1),
        (MAX_PAGE - 1, 2, 1),
        (u64::MAX, 1, 1),
        (1, u64::MAX, 1),
        (0, 1, MAX_VALUE + 1),
    ] {
        assert_eq!(lent.map().set(first, npages, value), Err(Refused::Invalid));
    }
    assert_eq!(lent.map().runs(0, MAX_PAGE).count(), 1);
    // Memory that is too small, that holds no map, or that has shrunk.
    let mut words = vec![0; 3 * 512];
    assert!(Map::at(&mut words).is_none());
    assert!(Map::format(&mut words[..3 * 512 - 1]).is_none());
    assert!(Map::format(&mut words).is_some());
    assert!(Map::at(&mut words[..2 * 512]).is_none());
    assert!(Map::at(&mut []).is_none());
}

/// When it says "lend me more", nothing was changed, wherever that happens.
#[test]
fn asking_changes_nothing() {
    let mut random = Random(11);
    let mut lent = Lent::new();
    let mut asked = 0;
    let mut i = 0;
    while asked < 40 {
        i += 1;
        let first = random.below(1 << 22);
        let value = 1 + random.below(3) as u32;
        let before: Vec<u64> = lent.words.clone();
        if let Err(refused) = lent.map().set(first, 1 + random.below(9), value) {
            assert_ne!(refused, Refused::Invalid);
            asked += 1;
            assert!(before == lent.words, "set {i} changed something");
            lent.set(first, 1, value);
        }
    }
    assert_eq!(warnings(), 0);
}
