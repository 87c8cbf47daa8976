// SPDX-License-Identifier: GPL-2.0
//! The range map against the crates and kernel structures that one would take
//! instead, with a million ranges of 64 KiB: side by side (dense), and far apart
//! (sparse).
//!
//! `cargo bench -p hmm-bench --bench map`, or `make bench`. One pass over a million
//! ranges is a sample; the best of some counts. Memory is what the side took from the
//! allocator; ours is what of its lent memory it ever reached.

#[path = "rows.rs"]
mod rows;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hmm_devmem::map::Map;
use nodit::NoditMap;
use nodit::interval::{Interval, ie};
use rows::random::Random;
use rows::{Limit, cpu_time, note, record, row};

/// Counts what is allocated.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator; only sums are kept.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The kernel's structures are rows of the table also where they are absent.
const MAPLE: &str = "kernel maple tree";
const INTERVAL: &str = "kernel interval tree";

/// Ranges in a run.
const N: u64 = 1_000_000;
/// Pages in a range.
const LEN: u64 = 16;

/// What is measured: the same work on every side. Values are not 0.
trait Side {
    const NAME: &'static str;
    fn new() -> Self;
    /// A range where nothing is.
    fn insert(&mut self, first: u64, len: u64, value: u32);
    /// A range where something is.
    fn overwrite(&mut self, first: u64, len: u64, value: u32);
    fn get(&self, page: u64) -> u32;
    /// Bytes that it takes, if it knows better than the allocator.
    fn bytes(&self) -> Option<u64> {
        None
    }
}

/// Ours, in 128 MiB of lent memory, which the first pass has already touched.
struct Ours(Map<'static>);

static mut LENT: [u64; 16 << 20] = [0; 16 << 20];

impl Side for Ours {
    const NAME: &'static str = "range map";

    fn new() -> Ours {
        // SAFETY: one pass at a time, and the one before is over.
        let words = unsafe { &mut *(&raw mut LENT) };
        Ours(Map::format(words).expect("enough memory"))
    }

    #[inline]
    fn insert(&mut self, first: u64, len: u64, value: u32) {
        self.0.set(first, len, value).expect("enough memory");
    }

    #[inline]
    fn overwrite(&mut self, first: u64, len: u64, value: u32) {
        self.insert(first, len, value);
    }

    #[inline]
    fn get(&self, page: u64) -> u32 {
        self.0.get(page)
    }

    fn bytes(&self) -> Option<u64> {
        Some(self.0.memory().1)
    }
}

/// The plainest range map on an ordered tree: first page to (page after the last,
/// value).
#[derive(Default)]
struct Tree(BTreeMap<u64, (u64, u32)>);

impl Side for Tree {
    const NAME: &'static str = "BTreeMap";

    fn new() -> Tree {
        Tree::default()
    }

    fn insert(&mut self, first: u64, len: u64, value: u32) {
        self.0.insert(first, (first + len, value));
    }

    fn overwrite(&mut self, first: u64, len: u64, value: u32) {
        let end = first + len;
        if let Some((_, (had_end, had))) = self.0.range_mut(..first).next_back() {
            let (old_end, old) = (*had_end, *had);
            if old_end > first {
                *had_end = first;
                if old_end > end {
                    self.0.insert(end, (old_end, old));
                }
            }
        }
        while let Some((&start, &(old_end, old))) = self.0.range(first..end).next() {
            self.0.remove(&start);
            if old_end > end {
                self.0.insert(end, (old_end, old));
            }
        }
        self.0.insert(first, (end, value));
    }

    fn get(&self, page: u64) -> u32 {
        match self.0.range(..=page).next_back() {
            Some((_, (end, value))) if *end > page => *value,
            _ => 0,
        }
    }
}

impl Side for rangemap::RangeMap<u64, u32> {
    const NAME: &'static str = "crate rangemap";

    fn new() -> Self {
        rangemap::RangeMap::new()
    }

    fn insert(&mut self, first: u64, len: u64, value: u32) {
        rangemap::RangeMap::insert(self, first..first + len, value);
    }

    fn overwrite(&mut self, first: u64, len: u64, value: u32) {
        rangemap::RangeMap::insert(self, first..first + len, value);
    }

    fn get(&self, page: u64) -> u32 {
        rangemap::RangeMap::get(self, &page).copied().unwrap_or(0)
    }
}

struct Nodit(NoditMap<u64, Interval<u64>, u32>);

impl Side for Nodit {
    const NAME: &'static str = "crate nodit";

    fn new() -> Nodit {
        Nodit(NoditMap::new())
    }

    fn insert(&mut self, first: u64, len: u64, value: u32) {
        let free = self.0.insert_strict(ie(first, first + len), value);
        assert!(free.is_ok());
    }

    fn overwrite(&mut self, first: u64, len: u64, value: u32) {
        let gone = self.0.insert_overwrite(ie(first, first + len), value);
        gone.for_each(drop);
    }

    fn get(&self, page: u64) -> u32 {
        self.0.get_at_point(&page).copied().unwrap_or(0)
    }
}

struct Iset(iset::IntervalMap<u64, u32>);

impl Side for Iset {
    const NAME: &'static str = "crate iset";

    fn new() -> Iset {
        Iset(iset::IntervalMap::new())
    }

    fn insert(&mut self, first: u64, len: u64, value: u32) {
        self.0.insert(first..first + len, value);
    }

    fn overwrite(&mut self, first: u64, len: u64, value: u32) {
        let end = first + len;
        let had: Vec<_> = self.0.iter(first..end).map(|(r, v)| (r, *v)).collect();
        for (range, value) in had {
            self.0.remove(range.clone());
            if range.start < first {
                self.0.insert(range.start..first, value);
            }
            if range.end > end {
                self.0.insert(end..range.end, value);
            }
        }
        self.0.insert(first..end, value);
    }

    fn get(&self, page: u64) -> u32 {
        self.0.values_overlap(page).next().copied().unwrap_or(0)
    }
}

/// The kernel's own structures, where its source is there.
#[cfg(linux_source)]
mod kernel {
    use super::Side;

    unsafe extern "C" {
        safe fn peer_bytes() -> u64;
        safe fn maple_new();
        safe fn maple_free();
        safe fn maple_set(first: u64, last: u64, value: u64);
        safe fn maple_get(page: u64) -> u64;
        safe fn interval_new();
        safe fn interval_free();
        safe fn interval_add(first: u64, last: u64, value: u64);
        safe fn interval_set(first: u64, last: u64, value: u64);
        safe fn interval_get(page: u64) -> u64;
    }

    /// There is one at a time: bench/kernel keeps it.
    pub struct Maple;

    impl Side for Maple {
        const NAME: &'static str = super::MAPLE;

        fn new() -> Maple {
            maple_new();
            Maple
        }

        #[inline]
        fn insert(&mut self, first: u64, len: u64, value: u32) {
            maple_set(first, first + len - 1, u64::from(value));
        }

        #[inline]
        fn overwrite(&mut self, first: u64, len: u64, value: u32) {
            self.insert(first, len, value);
        }

        #[inline]
        fn get(&self, page: u64) -> u32 {
            maple_get(page) as u32
        }

        fn bytes(&self) -> Option<u64> {
            Some(peer_bytes())
        }
    }

    impl Drop for Maple {
        fn drop(&mut self) {
            maple_free();
        }
    }

    /// Likewise.
    pub struct Interval;

    impl Side for Interval {
        const NAME: &'static str = super::INTERVAL;

        fn new() -> Interval {
            interval_new();
            Interval
        }

        #[inline]
        fn insert(&mut self, first: u64, len: u64, value: u32) {
            interval_add(first, first + len - 1, u64::from(value));
        }

        #[inline]
        fn overwrite(&mut self, first: u64, len: u64, value: u32) {
            interval_set(first, first + len - 1, u64::from(value));
        }

        #[inline]
        fn get(&self, page: u64) -> u32 {
            interval_get(page) as u32
        }

        fn bytes(&self) -> Option<u64> {
            Some(peer_bytes())
        }
    }

    impl Drop for Interval {
        fn drop(&mut self) {
            interval_free();
        }
    }
}

/// Where the ranges are, and in which order they come.
struct Work {
    /// First pages and values, in the order in which they come.
    order: Vec<(u64, u32)>,
    look: Vec<u64>,
    /// First pages, pages and values: what is overwritten leaves a piece on both
    /// sides.
    split: Vec<(u64, u64, u32)>,
    names: [&'static str; 4],
}

impl Work {
    fn new(dense: bool) -> Work {
        let mut random = Random(7);
        let mut place: Vec<u64> = if dense {
            (0..N).map(|i| (0x7f00_0000_0000 >> 12) + i * LEN).collect()
        } else {
            // Anywhere in 128 TiB, never overlapping.
            (0..N).map(|_| random.below(1 << 31) * LEN).collect()
        };
        place.sort_unstable();
        place.dedup();
        let n = place.len() as u64;
        let mut order: Vec<(u64, u32)> = place.iter().copied().zip(1..).collect();
        for i in 0..n {
            order.swap(i as usize, random.below(n) as usize);
        }
        let look = (0..N).map(|_| place[random.below(n) as usize] + random.below(LEN));
        let look = look.collect();
        let split = order.iter().take(n as usize / 4).map(|(place, value)| {
            let first = 1 + random.below(LEN - 2);
            let len = 1 + random.below(LEN - 1 - first);
            (place + first, len, value + N as u32)
        });
        let split = split.collect();
        let names = if dense {
            [
                "insert, dense",
                "lookup, dense",
                "split, dense",
                "bytes, dense",
            ]
        } else {
            [
                "insert, sparse",
                "lookup, sparse",
                "split, sparse",
                "bytes, sparse",
            ]
        };
        Work {
            order,
            look,
            split,
            names,
        }
    }

    /// One pass. The sum of what was looked up, before and after the splits.
    fn pass<S: Side>(&self) -> (u64, u64) {
        let [insert, lookup, split, bytes] = self.names;
        let before = ALLOCATED.load(Relaxed);
        let mut side = S::new();
        let start = cpu_time();
        for &(first, value) in &self.order {
            side.insert(first, LEN, value);
        }
        record(insert, S::NAME, self.order.len() as u64, cpu_time() - start);
        let grown = (ALLOCATED.load(Relaxed) - before) as u64;
        let size = side.bytes().unwrap_or(grown) as f64 / self.order.len() as f64;
        note(bytes, S::NAME, size);
        note(bytes, "12 bytes", 12.0);
        let sum = |side: &S| -> u64 {
            self.look
                .iter()
                .map(|page| u64::from(black_box(side.get(*page))))
                .sum()
        };
        let mut first = 0;
        for _ in 0..2 {
            let start = cpu_time();
            first = sum(&side);
            record(lookup, S::NAME, N, cpu_time() - start);
        }
        let start = cpu_time();
        for &(first, len, value) in &self.split {
            side.overwrite(first, len, value);
        }
        record(split, S::NAME, self.split.len() as u64, cpu_time() - start);
        (first, sum(&side))
    }

    /// Some passes; all sides must find the same.
    fn measure<S: Side>(&self, want: &mut Option<(u64, u64)>) {
        // The first pass of a process pays for its memory; the others do not.
        for _ in 0..2 {
            let sums = self.pass::<S>();
            assert_eq!(
                *want.get_or_insert(sums),
                sums,
                "{} finds something else",
                S::NAME
            );
        }
        let figure = |i: usize| rows::figure(self.names[i], S::NAME).unwrap_or(f64::NAN);
        println!(
            "{:<20} {}: insert {:.0} ns, lookup {:.0} ns, split {:.0} ns, {:.1} bytes",
            S::NAME,
            self.names[0].trim_start_matches("insert, "),
            figure(0),
            figure(1),
            figure(2),
            figure(3)
        );
    }
}

fn main() {
    let mut rows = Vec::new();
    for dense in [true, false] {
        let work = Work::new(dense);
        let mut want = None;
        work.measure::<Ours>(&mut want);
        #[cfg(linux_source)]
        {
            work.measure::<kernel::Maple>(&mut want);
            work.measure::<kernel::Interval>(&mut want);
        }
        #[cfg(not(linux_source))]
        println!("no kernel structures as peers: HMM_LINUX_SOURCE is not set");
        work.measure::<Tree>(&mut want);
        work.measure::<rangemap::RangeMap<u64, u32>>(&mut want);
        work.measure::<Nodit>(&mut want);
        work.measure::<Iset>(&mut want);
        let [insert, lookup, split, bytes] = work.names;
        // The goals; sparse, it is enough not to be worse.
        let goals = if dense {
            [1.0 / 10.0, 1.0 / 8.0, 1.0 / 3.0]
        } else {
            [1.0; 3]
        };
        for (what, most) in [insert, lookup, split].into_iter().zip(goals) {
            rows.push(row(what, Ours::NAME, MAPLE, Limit::Most(most)));
        }
        for peer in [
            INTERVAL,
            Tree::NAME,
            "crate rangemap",
            Nodit::NAME,
            Iset::NAME,
        ] {
            for what in [insert, lookup, split] {
                rows.push(row(what, Ours::NAME, peer, Limit::Most(1.0)));
            }
        }
        let mut size = row(bytes, Ours::NAME, MAPLE, Limit::Most(1.0));
        if dense {
            size.peer = "12 bytes";
        }
        size.unit = "bytes";
        rows.push(size);
    }
    rows::finish("map", &rows);
}
