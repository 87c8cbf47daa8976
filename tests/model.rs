// SPDX-License-Identifier: GPL-2.0
//! The core against a plain vector: what it hands out, what it takes back, what
//! it says about itself, after every step of random histories.

mod lent;
mod random;

use hmm_devmem::region::{self, Region};
use hmm_devmem::retired;
use hmm_devmem::types::{Cpu, Errno, PageIndex, Plan, Segment};
use lent::{COMPOUND, Lent, MIGRATE, VALID, WRITE, coalesce, entry};
use proptest::prelude::*;
use random::Random;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

/// Who has a frame, as a plain vector knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Frame {
    Free,
    Claimed,
    Resident,
    Retired,
}

impl Frame {
    fn in_use(self) -> bool {
        matches!(self, Frame::Claimed | Frame::Resident)
    }
}

struct Model {
    frames: Vec<Frame>,
    /// Blocks used since the hand passed, and where the hand stands.
    marks: Vec<bool>,
    hand: usize,
    /// Out of use, as soon as it is given back.
    marked: Vec<bool>,
    /// Blocks of which single frames are marked.
    recorded: BTreeSet<u64>,
}

impl Model {
    fn new(npages: u64) -> Model {
        Model {
            frames: vec![Frame::Free; npages as usize],
            marks: vec![false; npages.div_ceil(512 * 64) as usize * 64],
            hand: 0,
            marked: vec![false; npages as usize],
            recorded: BTreeSet::new(),
        }
    }

    /// Frames come back: free, or out of use.
    fn give(&mut self, first: u64, n: u64) {
        let range = first as usize..(first + n) as usize;
        for (frame, marked) in self.frames[range.clone()]
            .iter_mut()
            .zip(&self.marked[range])
        {
            *frame = if *marked { Frame::Retired } else { Frame::Free };
        }
    }

    /// Frames go out of use; their whole block does when too many blocks had to be remembered.
    fn retire(&mut self, first: u64, n: u64) {
        let total = self.frames.len() as u64;
        for block in first / 512..=(first + n - 1) / 512 {
            let (start, end) = (block * 512, (block * 512 + 512).min(total));
            let mut range = first.max(start)..(first + n).min(end);
            if range.end - range.start < 512 {
                if self.recorded.len() < retired::records(total) {
                    self.recorded.insert(block);
                }
                if !self.recorded.contains(&block) {
                    range = start..end;
                }
            }
            for i in range {
                self.marked[i as usize] = true;
                if self.frames[i as usize] == Frame::Free {
                    self.frames[i as usize] = Frame::Retired;
                }
            }
        }
    }

    /// Everything that is out comes home.
    fn give_all(&mut self) {
        for i in 0..self.frames.len() as u64 {
            self.give(i, 1);
        }
    }

    fn touch(&mut self, first: u64, npages: u64) {
        let end = first.saturating_add(npages).min(self.frames.len() as u64);
        for page in first..end {
            self.marks[page as usize / 512] = true;
        }
    }

    /// The first run in use of the next block that the clock takes.
    fn victim(&mut self, max: u64) -> Option<(u64, u64)> {
        // The hand goes over whole words of the map; what is beyond the end is
        // never in use.
        let end = self.marks.len();
        for _ in 0..2 * end {
            let block = self.hand;
            self.hand = (block + 1) % end;
            if std::mem::take(&mut self.marks[block]) {
                continue;
            }
            let frames = self.frames.iter().enumerate().skip(block * 512).take(512);
            let mut used = frames
                .skip_while(|(_, f)| !f.in_use())
                .take_while(|(_, f)| f.in_use());
            if let Some((first, _)) = used.next() {
                return Some((first as u64, max.min(1 + used.count() as u64)));
            }
        }
        None
    }

    fn count(&self, what: Frame) -> u64 {
        self.frames.iter().filter(|f| **f == what).count() as u64
    }

    fn free_blocks(&self) -> u64 {
        let blocks = self.frames.chunks_exact(512);
        blocks
            .filter(|b| b.iter().all(|f| *f == Frame::Free))
            .count() as u64
    }

    /// The runs of frames in state `what`, each inside one block.
    fn runs(&self, what: Frame) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (i, f) in self.frames.iter().enumerate() {
            let i = i as u64;
            if *f != what {
                continue;
            }
            match runs.last_mut() {
                Some((first, n)) if *first + *n == i && i % 512 != 0 => *n += 1,
                _ => runs.push((i, 1)),
            }
        }
        runs
    }

    /// free + claimed + resident == total, each as the model has it.
    fn check(&self, region: &Region<'_>) {
        let stats = region.stats();
        assert_eq!(stats.total, self.frames.len() as u64, "total");
        assert_eq!(stats.free, self.count(Frame::Free), "free");
        assert_eq!(stats.claimed, self.count(Frame::Claimed), "claimed");
        assert_eq!(stats.resident, self.count(Frame::Resident), "resident");
        assert_eq!(stats.retired, self.count(Frame::Retired), "retired");
        assert_eq!(stats.free_blocks, self.free_blocks(), "free blocks");
        assert_eq!(
            stats.free + stats.claimed + stats.resident + stats.retired,
            stats.total
        );
    }

    /// Plans `src`, checks everything that was promised about the answer, and
    /// takes the claimed frames into the model. Returns their indices.
    fn plan(&mut self, region: &Region<'_>, cpu: u32, src: &[u64]) -> Vec<u64> {
        let n = src.len();
        let blocks = self.free_blocks();
        let free = self.count(Frame::Free);
        let mut dst = vec![u64::MAX; n];
        let mut seg = vec![
            Segment {
                status: -1,
                ..Segment::default()
            };
            n
        ];
        let plan = region
            .plan_to_device(Cpu(cpu), src, &mut dst, &mut seg)
            .expect("a valid plan");

        let mut claimed = Vec::new();
        let mut copies = vec![None; n];
        let mut zeroes = vec![None; n];
        let mut wanted = 0;
        let mut compounds = (0, 0);
        let mut i = 0;
        while i < n {
            let s = src[i];
            let pages = if s & COMPOUND != 0 { 512 } else { 1 };
            if s & MIGRATE == 0 {
                assert_eq!(dst[i], 0, "entry {i} was not to move");
                i += 1;
                continue;
            }
            wanted += pages as u32;
            compounds.0 += u64::from(pages == 512);
            let whole = dst[i] & COMPOUND != 0;
            if whole {
                assert_eq!(pages, 512, "entry {i} is no compound");
                assert_eq!((dst[i] >> 6) % 512, 0, "entry {i}: not aligned");
                compounds.1 += 1;
            }
            for k in 0..pages {
                let d = dst[i + k];
                let index = match (whole, k) {
                    (true, 0) => d >> 6,
                    (true, _) => {
                        assert_eq!(d, 0, "entry {i}+{k} under a compound");
                        (dst[i] >> 6) + k as u64
                    }
                    (false, _) if d == 0 => continue,
                    (false, _) => d >> 6,
                };
                if !whole || k == 0 {
                    let flags = if whole { COMPOUND } else { 0 } | VALID | (s & WRITE);
                    assert_eq!(d & 63, flags, "entry {i}+{k}: flags");
                }
                claimed.push(index);
                if s & VALID != 0 {
                    copies[i + k] = Some(((s >> 6) + k as u64, index));
                } else {
                    zeroes[i + k] = Some((0, index));
                }
            }
            i += pages;
        }
        for &index in &claimed {
            let frame = self
                .frames
                .get_mut(index as usize)
                .expect("inside the region");
            assert_eq!(*frame, Frame::Free, "page {index} handed out twice");
            *frame = Frame::Claimed;
            self.marks[index as usize / 512] = true;
        }
        assert_eq!(plan.wanted, wanted, "wanted");
        assert_eq!(u64::from(plan.claimed), claimed.len() as u64, "claimed");
        assert_eq!(
            u64::from(plan.claimed),
            free.min(u64::from(wanted)),
            "all that were to be had"
        );
        if u64::from(wanted) == compounds.0 * 512 {
            assert_eq!(compounds.1, blocks.min(compounds.0), "blocks for compounds");
        }
        let copy = coalesce(&copies, 1);
        assert_eq!(&seg[..plan.ncopy as usize], &copy[..], "copy segments");
        let mut zero = coalesce(&zeroes, 0);
        zero.reverse();
        assert_eq!(&seg[n - plan.nzero as usize..], &zero[..], "zero segments");
        claimed
    }
}

/// What a random history is made of. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Plan {
        cpu: u32,
        kinds: Vec<(u8, u8)>,
    },
    Commit {
        cpu: u32,
        every: usize,
    },
    Rollback {
        cpu: u32,
        run: usize,
    },
    Release {
        cpu: u32,
        run: usize,
        part: (u8, u8),
    },
    ReleaseAll {
        cpu: u32,
        every: usize,
    },
    Twice {
        cpu: u32,
        run: usize,
    },
    Retire {
        first: u64,
        npages: u64,
    },
    Outside {
        first: u64,
        npages: u64,
    },
    Span {
        from: u64,
        max: u64,
    },
    Touch {
        first: u64,
        npages: u64,
    },
    Victim {
        max: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let cpu = 0..9u32;
    prop_oneof![
        4 => (cpu.clone(), prop::collection::vec((0..12u8, 1..200u8), 1..12))
            .prop_map(|(cpu, kinds)| Step::Plan { cpu, kinds }),
        3 => (cpu.clone(), 1..4usize).prop_map(|(cpu, every)| Step::Commit { cpu, every }),
        2 => (cpu.clone(), any::<usize>()).prop_map(|(cpu, run)| Step::Rollback { cpu, run }),
        3 => (cpu.clone(), any::<usize>(), any::<(u8, u8)>())
            .prop_map(|(cpu, run, part)| Step::Release { cpu, run, part }),
        1 => (cpu.clone(), 1..4usize).prop_map(|(cpu, every)| Step::ReleaseAll { cpu, every }),
        1 => (cpu, any::<usize>()).prop_map(|(cpu, run)| Step::Twice { cpu, run }),
        1 => (any::<u64>(), prop_oneof![3 => Just(1), 1 => 1..1200u64])
            .prop_map(|(first, npages)| Step::Retire { first, npages }),
        1 => (any::<u64>(), any::<u64>())
            .prop_map(|(first, npages)| Step::Outside { first, npages }),
        1 => (any::<u64>(), 1..700u64).prop_map(|(from, max)| Step::Span { from, max }),
        1 => (any::<u64>(), 0..2000u64).prop_map(|(first, npages)| Step::Touch { first, npages }),
        3 => (1..700u64).prop_map(|max| Step::Victim { max }),
    ]
}

/// Entries as `migrate_vma_setup()` makes them: runs of one kind.
fn entries(kinds: &[(u8, u8)]) -> Vec<u64> {
    let mut src = Vec::new();
    let mut pfn = 0x1000;
    for &(kind, len) in kinds {
        match kind {
            0 => src.extend((0..len).map(|_| 0)),
            1 => src.extend((0..len).map(|_| MIGRATE)),
            2 => src.extend((0..len).map(|_| MIGRATE | WRITE)),
            3 => src.extend((0..len).map(|i| entry(pfn + 7 * u64::from(i), VALID | MIGRATE))),
            4 => src.extend((0..len).map(|i| entry(pfn + u64::from(i), VALID))),
            5 | 6 => {
                let valid = if kind == 5 { VALID } else { 0 };
                for i in 0..len / 100 + 1 {
                    let first = (pfn / 512 + 1 + u64::from(i)) * 512;
                    let pfn = if valid != 0 { first } else { 0 };
                    src.push(entry(pfn, MIGRATE | COMPOUND | valid | WRITE));
                    src.extend([0; 511]);
                }
            }
            _ => {
                let write = if kind % 2 == 0 { WRITE } else { 0 };
                src.extend((0..len).map(|i| entry(pfn + u64::from(i), VALID | MIGRATE | write)));
            }
        }
        pfn += 0x2000;
    }
    src
}

fn pick<T: Copy>(from: &[T], at: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[at % from.len()])
}

fn run(model: &mut Model, region: &Region<'_>, step: &Step) {
    let total = model.frames.len() as u64;
    match step {
        Step::Plan { cpu, kinds } => {
            model.plan(region, *cpu, &entries(kinds));
        }
        Step::Commit { cpu, every } => {
            let mut n = 0;
            for f in model
                .frames
                .iter_mut()
                .filter(|f| **f == Frame::Claimed)
                .step_by(*every)
            {
                *f = Frame::Resident;
                n += 1;
            }
            region.commit(Cpu(*cpu), n);
        }
        Step::Rollback { cpu, run } => {
            if let Some((first, n)) = pick(&model.runs(Frame::Claimed), *run) {
                region.rollback(Cpu(*cpu), first, n).expect("claimed pages");
                model.give(first, n);
            }
        }
        Step::Release { cpu, run, part } => {
            if let Some((first, n)) = pick(&model.runs(Frame::Resident), *run) {
                let skip = u64::from(part.0) % n;
                let len = if part.1 < 100 {
                    n - skip
                } else {
                    u64::from(part.1) % (n - skip) + 1
                };
                region
                    .release(Cpu(*cpu), first + skip, len)
                    .expect("resident pages");
                model.give(first + skip, len);
            }
        }
        Step::ReleaseAll { cpu, every } => {
            for i in 0..model.frames.len() {
                if model.frames[i] == Frame::Resident && i % every == 0 {
                    region
                        .release(Cpu(*cpu), i as u64, 1)
                        .expect("a resident page");
                    model.give(i as u64, 1);
                }
            }
        }
        Step::Twice { cpu, run } => {
            let mut runs = model.runs(Frame::Free);
            runs.extend(model.runs(Frame::Retired));
            if let Some((first, n)) = pick(&runs, *run) {
                let n = if run % 3 == 0 { n } else { 1 };
                assert_eq!(region.release(Cpu(*cpu), first, n), Err(Errno::ALREADY));
                assert_eq!(region.rollback(Cpu(*cpu), first, n), Err(Errno::ALREADY));
                // One free page in a run of resident ones: the others come home.
                let end = first + n;
                if end < total && model.frames[end as usize] == Frame::Resident {
                    assert_eq!(region.release(Cpu(*cpu), end - 1, 2), Err(Errno::ALREADY));
                    model.give(end, 1);
                }
            }
        }
        Step::Retire { first, npages } => {
            let first = first % total;
            let n = (*npages).min(total - first);
            region.retire(first, n).expect("inside the region");
            model.retire(first, n);
        }
        Step::Outside { first, npages } => {
            for (first, npages) in [
                (*first | 1 << 33, *npages),
                (total, 1),
                (total - 1, 2),
                (0, total + 1),
                (0, 0),
                (*first, u64::MAX - 1),
                (u64::MAX, 1),
            ] {
                assert_eq!(region.release(Cpu(0), first, npages), Err(Errno::INVAL));
                assert_eq!(region.rollback(Cpu(0), first, npages), Err(Errno::INVAL));
                assert_eq!(region.retire(first, npages), Err(Errno::INVAL));
            }
        }
        Step::Span { from, max } => {
            let from = from % (total + 2);
            let used = |i: &u64| model.frames[*i as usize].in_use();
            let want = (from..total).find(used);
            match region.next_span(from, *max) {
                Err(e) => {
                    assert_eq!((e, want), (Errno::NOENT, None));
                }
                Ok(span) => {
                    let first = want.expect("something in use");
                    let end = (first / 512 * 512 + 512).min(first + max).min(total);
                    let n = (first..end).take_while(used).count() as u64;
                    assert_eq!((span.first.0, span.npages), (first, n));
                }
            }
        }
        Step::Touch { first, npages } => {
            let first = if npages % 8 == 0 {
                *first
            } else {
                first % total
            };
            touch(model, region, first, *npages);
        }
        Step::Victim { max } => victim(model, region, *max),
    }
    model.check(region);
}

fn touch(model: &mut Model, region: &Region<'_>, first: u64, npages: u64) {
    region.touch(first, npages);
    model.touch(first, npages);
}

fn victim(model: &mut Model, region: &Region<'_>, max: u64) {
    if !model.frames.iter().any(|f| f.in_use()) {
        assert_eq!(region.victim(max), Err(Errno::NOENT));
        // All marks are gone. It went round twice, word by word, and two more.
        let nmap = model.marks.len() / 64;
        model.marks.fill(false);
        model.hand = (model.hand / 64 + 2) % nmap * 64;
        return;
    }
    let span = region.victim(max).expect("something is in use");
    assert_eq!(Some((span.first.0, span.npages)), model.victim(max));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    /// Random histories on regions of every awkward size.
    #[test]
    fn histories(
        npages in prop_oneof![
            Just(1), Just(63), Just(64), Just(65), Just(511), Just(512), Just(513), Just(1024),
            2..6000u64, Just(512 * 70 + 3)
        ],
        ncpus in 1..5u32,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let lent = Lent::new(npages, ncpus);
        let region = lent.region();
        let mut model = Model::new(npages);
        model.check(&region);
        for step in &steps {
            run(&mut model, &region, step);
        }
        // Bring everything home, by spans as eviction would: nothing is left.
        let claimed = model.count(Frame::Claimed);
        region.commit(Cpu(0), claimed);
        let mut from = 0;
        while let Ok(span) = region.next_span(from, 512) {
            region.release(Cpu(1), span.first.0, span.npages).expect("in use");
            from = span.first.0 + span.npages;
        }
        model.give_all();
        model.check(&region);
        // And all of it can be had again, blocks first, but for what is out of use.
        let all = vec![entry(9, VALID | MIGRATE); npages as usize];
        let got: usize = all.chunks(65536).map(|src| model.plan(&region, 3, src).len()).sum();
        prop_assert_eq!(got as u64 + model.count(Frame::Retired), npages);
    }

    /// To RAM against the plainest way to say it.
    #[test]
    fn to_ram(kinds in prop::collection::vec((0..7u8, 1..40u8), 1..10), first in 1..1000u64) {
        let mut src = Vec::new();
        let mut dst = Vec::new();
        let mut pages = Vec::new();
        let mut pfn = first + 512;
        for (k, &(kind, len)) in kinds.iter().enumerate() {
            let ram = 0x10_0000 + k as u64 * 0x1000;
            let on = VALID | MIGRATE;
            for i in 0..u64::from(len) {
                let (s, d) = match kind {
                    0 => (0, 0),
                    1 => (entry(pfn + i, on), 0),
                    2 => (entry(pfn + i, VALID), entry(ram + i, VALID)),
                    3 => (entry(pfn + 3 * i, on), entry(ram + i, VALID)),
                    _ => (entry(pfn + i, on), entry(ram + i, VALID)),
                };
                if kind >= 5 {
                    // Compound: to a whole folio, or to pages with some missing.
                    let whole = kind == 5;
                    let base = (pfn / 512 + 1 + i) * 512;
                    for j in 0..512 {
                        let hole = !whole && (j + i) % 9 == 0;
                        src.push(if j == 0 { entry(base, on | COMPOUND) } else { 0 });
                        let to = ram + i * 512 + j;
                        dst.push(match (whole, j) {
                            (true, 0) => entry(to, VALID | COMPOUND),
                            (true, _) => 0,
                            (false, _) if hole => 0,
                            (false, _) => entry(to, VALID),
                        });
                        pages.push((!hole).then_some((base + j - first, to)));
                    }
                    if i >= 1 {
                        break;
                    }
                    continue;
                }
                src.push(s);
                dst.push(d);
                pages.push((s & 3 == 3 && d != 0).then_some(((s >> 6).wrapping_sub(first), d >> 6)));
            }
            pfn += 0x1000;
        }
        let mut seg = vec![Segment::default(); src.len()];
        let n = hmm_devmem::plan::to_ram(&src, &dst, first, &mut seg).expect("a valid plan");
        prop_assert_eq!(&seg[..n as usize], &coalesce(&pages, 1)[..]);
    }
}

/// Blocks that the device keeps using stay; the others go, each once in a turn.
#[test]
fn the_clock_spares_what_is_used() {
    let nblocks = 200;
    let lent = Lent::new(512 * nblocks, 1);
    let region = lent.region();
    let mut model = Model::new(512 * nblocks);
    model.plan(&region, 0, &vec![entry(3, VALID | MIGRATE); 65536]);
    model.plan(
        &region,
        0,
        &vec![entry(3, VALID | MIGRATE); 512 * 200 - 65536],
    );
    let mut gone = vec![0; nblocks as usize];
    for turn in 0..10 {
        let hot = |block: u64| block % 7 == 3 || block == 64;
        for block in (0..nblocks).filter(|b| hot(*b)) {
            region.touch(block * 512 + 511, 1);
        }
        // All were marked when they came, so the first turn takes any of them.
        let calls = (0..nblocks).filter(|b| turn == 0 || !hot(*b)).count();
        for _ in 0..calls {
            let span = region.victim(64).expect("all are in use");
            assert_eq!((span.first.0 % 512, span.npages), (0, 64));
            let block = span.first.block().0;
            assert!(turn == 0 || !hot(block as u64), "block {block} was in use");
            gone[block] += 1;
        }
    }
    assert!(gone.iter().all(|n| *n == 1 || *n == 10), "{gone:?}");
    // Nothing but hot blocks: then one of them.
    region.touch(0, u64::MAX);
    assert!(region.victim(1).is_ok());
    assert_eq!(region.victim(0), Err(Errno::INVAL));
}

#[test]
fn sizes() {
    for (npages, ncpus) in [(0, 1), (1, 0), (1 << 32 | 1, 1), (1, 8193), (u64::MAX, 1)] {
        assert_eq!(
            region::size(npages, ncpus),
            0,
            "{npages} pages, {ncpus} CPUs"
        );
    }
    assert!(region::size(1 << 32, 8192) > 1 << 29);
    // The budget: 2 bits a frame, aim 1.2, per-CPU slots apart.
    for shift in 13..=32 {
        let bits = region::Region::metadata(1 << shift) as f64 * 8.0 / (1u64 << shift) as f64;
        assert!(
            bits <= if shift < 16 { 2.0 } else { 1.2 },
            "2^{shift} pages: {bits} bits each"
        );
    }
}

#[test]
fn plans_that_are_refused_change_nothing() {
    let lent = Lent::new(2048, 1);
    let region = lent.region();
    let mut src = vec![entry(1, VALID | MIGRATE); 600];
    src[100] = entry(512, VALID | MIGRATE | COMPOUND);
    let mut dst = vec![7; 600];
    let mut seg = vec![Segment::default(); 600];
    assert_eq!(
        region.plan_to_device(Cpu(0), &src, &mut dst, &mut seg),
        Err(Errno::INVAL)
    );
    assert_eq!(
        region.plan_to_device(Cpu(0), &[], &mut [], &mut []),
        Err(Errno::INVAL)
    );
    let n = hmm_devmem::plan::to_ram(&src, &dst, 0, &mut seg);
    assert_eq!(n, Err(Errno::INVAL));
    assert_eq!(
        hmm_devmem::plan::to_ram(&[entry(5, 3)], &[entry(1, 1)], 6, &mut seg),
        Err(Errno::INVAL)
    );
    assert!(dst.iter().all(|d| *d == 7));
    assert_eq!(region.stats().free, 2048);
}

/// A compound's 512 pages may be given back one by one: the kernel splits folios.
#[test]
fn split_compound_comes_back_whole() {
    let lent = Lent::new(1024, 2);
    let region = lent.region();
    let mut model = Model::new(1024);
    let mut src = vec![entry(512, VALID | MIGRATE | COMPOUND)];
    src.resize(512, 0);
    for order in 0..3 {
        let got = model.plan(&region, 0, &src);
        region.commit(Cpu(0), 512);
        for i in 0..512 {
            let i = [i, 511 - i, i * 37 % 512][order];
            region
                .release(Cpu(1), got[0] + i as u64, 1)
                .expect("resident");
        }
        model.frames.fill(Frame::Free);
        model.check(&region);
        assert_eq!(region.stats().free_blocks, 2);
    }
}

/// Small pages do not spread over blocks that nobody uses yet.
#[test]
fn small_claims_leave_blocks_whole() {
    let nblocks = 64;
    let lent = Lent::new(512 * nblocks, 2);
    let region = lent.region();
    let mut model = Model::new(512 * nblocks);
    let one = [entry(3, VALID | MIGRATE)];
    let mut mine = Vec::new();
    while mine.len() as u64 <= 512 * nblocks / 2 {
        mine.extend(model.plan(&region, 0, &one));
    }
    let mut random = Random(7);
    for _ in 0..30_000 {
        let gone = mine.swap_remove(random.below(mine.len() as u64) as usize);
        region.rollback(Cpu(0), gone, 1).expect("claimed");
        model.frames[gone as usize] = Frame::Free;
        let mut dst = [0];
        let mut seg = [Segment::default()];
        let plan: Plan = region
            .plan_to_device(Cpu(0), &one, &mut dst, &mut seg)
            .expect("room");
        assert_eq!(plan.claimed, 1);
        let got = dst[0] >> 6;
        assert_eq!(model.frames[got as usize], Frame::Free);
        model.frames[got as usize] = Frame::Claimed;
        mine.push(got);
    }
    model.check(&region);
    assert!(
        region.stats().free_blocks >= nblocks / 2 - 3,
        "{:?}",
        region.stats()
    );
}

/// Runs of 64K: aligned, in partly used blocks first, all of them obtainable from
/// any CPU, none that is not whole, and a double release is told.
#[test]
fn runs_of_sixteen() {
    let npages = 512 * 4 + 40;
    let lent = Lent::new(npages, 3);
    let region = lent.region();
    let frames = region.frames();
    // The tail has two whole runs, and they go first.
    let first: Vec<u64> = (0..2)
        .map(|_| frames.claim_run(Cpu(0)).expect("a run").0)
        .collect();
    assert_eq!(first, [2048, 2064]);
    let one = frames.claim_one(Cpu(0)).expect("a frame");
    let mut runs = first;
    while let Some(run) = frames.claim_run(Cpu(runs.len() as u32 % 4)) {
        assert!(run.0 % 16 == 0 && !runs.contains(&run.0), "{run:?}");
        runs.push(run.0);
    }
    // All that are whole: the single frame spoils at most one.
    assert!(runs.len() as u64 >= npages / 16 - 1, "{} runs", runs.len());
    let left = region.stats().free;
    assert_eq!(left, npages - 1 - 16 * runs.len() as u64);
    // One frame short is no run.
    assert_eq!(frames.release(PageIndex(runs[5] + 1), 15).freed, 15);
    assert_eq!(frames.claim_run(Cpu(1)), None);
    assert_eq!(frames.release_one(Cpu(0), PageIndex(runs[5])).freed, 1);
    assert_eq!(frames.claim_run(Cpu(2)), Some(PageIndex(runs[5])));
    for (i, run) in runs.iter().enumerate() {
        let got = frames.release_run(Cpu(i as u32 % 3), PageIndex(*run));
        assert_eq!((got.freed, got.already), (16, 0));
        let got = frames.release_run(Cpu(i as u32 % 3), PageIndex(*run));
        assert_eq!((got.freed, got.already), (0, 16));
    }
    assert_eq!(frames.release_one(Cpu(0), one).freed, 1);
    assert_eq!(region.stats().free, npages);
    for _ in 0..4 {
        assert!(frames.claim_block(Cpu(1)).is_some(), "not whole again");
    }
}

/// 1 GiB at a time: aligned, only where all of it is free and in use nowhere, and
/// back again, as a whole or by the frame.
#[test]
fn giants() {
    const GIANT: u64 = hmm_devmem::frames::GIANT_PAGES;
    assert_eq!(GIANT << 12, 1 << 30);
    let npages = 3 * GIANT + 512 * 9 + 1;
    let lent = Lent::new(npages, 2);
    let frames = lent.region().frames();
    let mut mine: Vec<u64> = std::iter::from_fn(|| frames.claim_giant().map(|p| p.0)).collect();
    assert_eq!(mine, [0, GIANT, 2 * GIANT]);
    assert_eq!(lent.region().stats().free, 512 * 9 + 1);
    for first in &mine {
        assert_eq!(frames.release(PageIndex(*first), GIANT).freed, GIANT);
        assert_eq!(frames.release(PageIndex(*first), GIANT).already, GIANT);
    }
    // A frame in use, a block in use and a frame out of use: one left, then none.
    let block = frames.claim_block(Cpu(0)).expect("a block");
    assert!(block.first().0 < GIANT);
    mine = std::iter::from_fn(|| frames.claim_giant().map(|p| p.0)).collect();
    assert_eq!(mine, [GIANT, 2 * GIANT]);
    lent.region().retire(GIANT + 77, 1).expect("inside");
    for first in &mine {
        assert_eq!(frames.release(PageIndex(*first), GIANT).freed, GIANT);
    }
    assert_eq!(frames.claim_giant(), Some(PageIndex(2 * GIANT)));
    assert_eq!(frames.claim_giant(), None);
    assert_eq!(lent.region().stats().retired, 1);
    for page in 2 * GIANT..3 * GIANT {
        assert_eq!(frames.release_one(Cpu(0), PageIndex(page)).freed, 1);
    }
    assert_eq!(
        frames.claim_giant(),
        Some(PageIndex(2 * GIANT)),
        "whole again"
    );
}

/// Many frames for a partner: where the partner lies in its 64K, there they lie.
#[test]
fn frames_lie_as_their_partner() {
    let lent = Lent::new(512 * 2, 1);
    let frames = lent.region().frames();
    for partner in 0..16 {
        let grant = frames.claim_like(Cpu(0), 20, partner).expect("frames");
        let first = grant.base.0 + u64::from(grant.mask.trailing_zeros());
        assert_eq!(grant.mask.count_ones(), 20);
        assert_eq!(first % 16, partner, "{first}");
        assert_eq!(frames.release(PageIndex(first), 20).freed, 20);
    }
}

/// Whichever CPU holds the block: the last frame can be had from any other.
#[test]
fn last_frame_from_any_cpu() {
    let lent = Lent::new(512 * 3 + 5, 4);
    let region = lent.region();
    let mut model = Model::new(512 * 3 + 5);
    let one = [entry(3, VALID | MIGRATE)];
    for cpu in (0..4).cycle() {
        if model.plan(&region, cpu, &one).is_empty() {
            break;
        }
    }
    assert_eq!(model.count(Frame::Free), 0);
    for cpu in 0..4 {
        for last in [0, 511, 512, 1535, 1540] {
            region
                .rollback(Cpu((cpu + 1) % 4), last, 1)
                .expect("claimed");
            model.frames[last as usize] = Frame::Free;
            assert_eq!(model.plan(&region, cpu, &one), [last]);
            assert!(model.plan(&region, (cpu + 2) % 4, &one).is_empty());
        }
    }
    // A whole block, also when other CPUs hold it.
    for i in 512..1024 {
        region.rollback(Cpu(2), i, 1).expect("claimed");
        model.frames[i as usize] = Frame::Free;
    }
    let mut src = vec![entry(512, VALID | MIGRATE | COMPOUND)];
    src.resize(512, 0);
    assert_eq!(model.plan(&region, 3, &src).len(), 512);
}

/// Blocks of which single frames go out of use are remembered as long as there
/// is room; then a block goes as a whole, and nothing else does.
/// On a full device a frame that came back goes out again to whoever gave it back,
/// without a search; not when it is out of use, nor when its block is whole.
#[test]
fn what_came_back_last_goes_out_first() {
    let lent = Lent::new(512 * 4, 2);
    let frames = lent.region().frames();
    let all = std::iter::from_fn(|| frames.claim_one(Cpu(0))).count();
    assert_eq!(all, 2048);
    for page in [3, 700, 1999, 701] {
        let page = PageIndex(page);
        assert_eq!(frames.release_one(Cpu(1), page).freed, 1);
        assert_eq!(frames.claim_one(Cpu(1)), Some(page));
    }
    // Two came back: the last one first, and the other by a search.
    frames.release_one(Cpu(1), PageIndex(5));
    frames.release_one(Cpu(1), PageIndex(900));
    assert_eq!(frames.claim_one(Cpu(1)), Some(PageIndex(900)));
    assert_eq!(frames.claim_one(Cpu(1)), Some(PageIndex(5)));
    assert_eq!(frames.claim_one(Cpu(1)), None);
    // Somebody else was faster.
    frames.release_one(Cpu(1), PageIndex(5));
    assert_eq!(frames.claim_one(Cpu(0)), Some(PageIndex(5)));
    assert_eq!(frames.claim_one(Cpu(1)), None);
    frames.release_one(Cpu(1), PageIndex(700));
    lent.region().retire(700, 1).expect("a page of the region");
    assert_eq!(frames.claim_one(Cpu(1)), None);
    // The last frame of a block makes it whole: it is opened for the next claim.
    (0..512).for_each(|page| _ = frames.release_one(Cpu(1), PageIndex(page)));
    assert_eq!(frames.count().blocks, 1);
    assert_eq!(frames.claim_one(Cpu(1)), Some(PageIndex(0)));
}

#[test]
fn out_of_use_when_records_run_out() {
    let npages = 512 * 5 + 9;
    assert_eq!(retired::records(npages), 2);
    let lent = Lent::new(npages, 2);
    let region = lent.region();
    let mut model = Model::new(npages);
    for (first, n, out) in [
        (512 * 4, 512, 512),
        (3, 1, 513),
        (3, 2, 514),
        (512, 1, 515),
        (512 * 3 + 7, 1, 515 + 512),
        (700, 9, 524 + 512),
        (512 * 5 + 8, 1, 533 + 512),
        (0, npages, npages),
    ] {
        for _ in 0..2 {
            region.retire(first, n).expect("inside");
            model.retire(first, n);
            model.check(&region);
            assert_eq!(region.stats().retired, out, "{n} from {first} on");
        }
    }
    assert!(model.plan(&region, 1, &[entry(1, 3)]).is_empty());
    assert_eq!(region.next_span(0, 9), Err(Errno::NOENT));
}

/// Frames go out of use while threads claim and give back: none that is out of
/// use when a claim begins is ever its answer.
#[test]
fn threads_never_get_what_is_out_of_use() {
    let npages = 512 * 64;
    let lent = Lent::new(npages, 3);
    let out: Vec<AtomicU32> = (0..npages).map(|_| AtomicU32::new(0)).collect();
    let held: Vec<u64> = std::thread::scope(|scope| {
        let workers = [0, 1].map(|cpu| {
            let (lent, out) = (&lent, &out);
            scope.spawn(move || {
                let region = lent.region();
                let mut mine = Vec::new();
                for turn in 0..60_000usize {
                    let before = mine.len();
                    if turn % 3 == 0 && mine.len() > 900 {
                        let page: u64 = mine.swap_remove(turn * 7919 % before);
                        assert_eq!(
                            region.frames().release_one(Cpu(cpu), PageIndex(page)).freed,
                            1
                        );
                    } else if turn % 50 == 0 {
                        if let Some(block) = region.frames().claim_block(Cpu(cpu)) {
                            mine.extend((0..512).map(|i| block.first().0 + i));
                        }
                    } else if let Some(page) = region.frames().claim_one(Cpu(cpu)) {
                        mine.push(page.0);
                    }
                    for page in &mine[before.min(mine.len())..] {
                        // 1: out of use, and it was free then.
                        assert_ne!(
                            out[*page as usize].load(Ordering::SeqCst),
                            1,
                            "{page} was out of use"
                        );
                    }
                }
                mine
            })
        });
        let region = lent.region();
        for i in 0..40 {
            let page = i * 823 % npages;
            region.retire(page, 1).expect("inside");
            if region.frames().free_mask(PageIndex(page).word()) >> (page % 64) & 1 != 0 {
                out[page as usize].store(1, Ordering::SeqCst);
            }
        }
        workers
            .map(|worker| worker.join().expect("a thread"))
            .concat()
    });
    let region = lent.region();
    let count = region.frames().count();
    assert_eq!(count.free + count.retired + held.len() as u64, npages);
    // Whatever was in hand when it was retired is out of use once it is back.
    for page in held {
        assert_eq!(
            region.frames().release_one(Cpu(0), PageIndex(page)).freed,
            1
        );
    }
    let count = region.frames().count();
    assert_eq!(count.free + count.retired, npages);
    assert!(count.retired >= 40, "{count:?}");
}

/// Threads claim and release as wildly as they can, with CPU numbers that are
/// mostly wrong; an owner per frame says whether two ever have the same one.
#[test]
fn threads_never_share_a_frame() {
    for (npages, threads) in [(1541u64, 2), (512 * 6, 3), (70, 2), (512 * 40 + 1, 4)] {
        let lent = Lent::new(npages, 3);
        let owners: Vec<AtomicU32> = (0..npages).map(|_| AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            for me in 1..=threads {
                let (lent, owners) = (&lent, &owners);
                scope.spawn(move || wild(&lent.region(), owners, me));
            }
        });
        let region = lent.region();
        let stats = region.stats();
        assert_eq!(
            (stats.free, stats.claimed, stats.resident),
            (npages, 0, 0),
            "{npages} pages"
        );
        assert_eq!(hmm_devmem::port::warnings(), 0);
        // Nothing is hidden from a later claim, in whatever form it is asked for.
        let mut model = Model::new(npages);
        let mut src = vec![entry(512, VALID | MIGRATE | COMPOUND)];
        src.resize(512, 0);
        for _ in 0..npages / 512 {
            assert_eq!(model.plan(&region, 0, &src).len(), 512);
        }
        model.plan(&region, 0, &vec![entry(1, 3); npages as usize]);
        model.check(&region);
        assert_eq!(region.stats().claimed, npages);
    }
}

/// Single frames and whole blocks by themselves, without the planner between.
#[test]
fn threads_pass_frames_and_blocks() {
    let npages = 512 * 3 + 9;
    let lent = Lent::new(npages, 2);
    let owners: Vec<AtomicU32> = (0..npages).map(|_| AtomicU32::new(0)).collect();
    let take = |page: u64, me| {
        assert_eq!(
            owners[page as usize].swap(me, Ordering::SeqCst),
            0,
            "page {page}: two owners"
        );
    };
    let give = |page: u64, me| {
        assert_eq!(
            owners[page as usize].swap(0, Ordering::SeqCst),
            me,
            "page {page} changed hands"
        );
    };
    std::thread::scope(|scope| {
        for me in 1..=3 {
            let (lent, take, give) = (&lent, &take, &give);
            scope.spawn(move || {
                let region = lent.region();
                let frames = region.frames();
                let mut mine = Vec::new();
                for turn in 0..20_000u64 {
                    if turn % 16 == 0 {
                        if let Some(run) = frames.claim_run(Cpu(me)) {
                            assert_eq!(run.0 % 16, 0);
                            (run.0..run.0 + 16).for_each(|page| take(page, me));
                            (run.0..run.0 + 16).for_each(|page| give(page, me));
                            let got = frames.release_run(Cpu(me + turn as u32 / 16 % 2), run);
                            assert_eq!((got.freed, got.already), (16, 0));
                        }
                    }
                    if turn % 64 == 0 {
                        if let Some(block) = frames.claim_block(Cpu(me)) {
                            let first = block.first();
                            (first.0..first.0 + 512).for_each(|page| take(page, me));
                            (first.0..first.0 + 512).for_each(|page| give(page, me));
                            let got = frames.release_block(block);
                            assert_eq!((got.freed, got.already), (512, 0));
                        }
                    }
                    if turn / 700 % 2 == 0 || mine.is_empty() {
                        if let Some(page) = frames.claim_one(Cpu(me)) {
                            take(page.0, me);
                            mine.push(page);
                        }
                    } else {
                        let at = (turn * 7919) as usize % mine.len();
                        let page: PageIndex = mine.swap_remove(at);
                        give(page.0, me);
                        assert_eq!(frames.release_one(Cpu(me), page).freed, 1);
                    }
                }
                mine.into_iter().for_each(|page| {
                    give(page.0, me);
                    frames.release_one(Cpu(me), page);
                });
            });
        }
    });
    assert_eq!(lent.region().stats().free, npages);
}

fn wild(region: &Region<'_>, owners: &[AtomicU32], me: u32) {
    let mut numbers = Random(u64::from(me) * 0x9e37_79b9);
    let mut random = move |n: u64| numbers.below(n);
    let mut mine: Vec<u64> = Vec::new();
    let mut dst = vec![0; 1100];
    let mut seg = vec![Segment::default(); 1100];
    for _ in 0..6_000 {
        let cpu = Cpu(random(5) as u32);
        match random(10) {
            0..=4 => {
                let mut src = vec![entry(1 + random(9), VALID | MIGRATE); 1 + random(90) as usize];
                if random(12) == 0 {
                    src[0] |= COMPOUND;
                    src.resize(512, 0);
                    src[1..].fill(0);
                } else if random(20) == 0 {
                    src.resize(1 + random(1100) as usize, entry(4, MIGRATE));
                }
                let n = src.len();
                let plan = region
                    .plan_to_device(cpu, &src, &mut dst[..n], &mut seg)
                    .expect("a valid plan");
                let before = mine.len();
                for d in dst[..n].iter().filter(|d| **d != 0) {
                    let pages = if d & COMPOUND != 0 { 512 } else { 1 };
                    mine.extend((d >> 6)..(d >> 6) + pages);
                }
                assert_eq!(mine.len() - before, plan.claimed as usize);
                for page in &mine[before..] {
                    let other = owners[*page as usize].swap(me, Ordering::SeqCst);
                    assert_eq!(other, 0, "page {page} has two owners");
                }
                region.commit(Cpu(random(5) as u32), u64::from(plan.claimed));
            }
            5 => {
                let _ = region.next_span(random(2000), 1 + random(600));
            }
            _ => {
                // Some single pages, or one run as long as it is contiguous.
                let single = random(2) == 0;
                for _ in 0..random(80) {
                    if mine.is_empty() {
                        break;
                    }
                    let at = random(mine.len() as u64) as usize;
                    let mut first = mine.swap_remove(at);
                    let mut n = 1;
                    if !single {
                        mine.sort_unstable();
                        let at = mine.partition_point(|p| *p < first);
                        let up = mine[at..]
                            .iter()
                            .zip(first + 1..)
                            .take_while(|(a, b)| *a == b);
                        let up = up.count();
                        mine.drain(at..at + up);
                        n += up as u64;
                        let head = mine[..at].iter().rev();
                        let down = head
                            .zip((0..first).rev())
                            .take_while(|(a, b)| *a == b)
                            .count();
                        mine.drain(at - down..at);
                        first -= down as u64;
                        n += down as u64;
                    }
                    for page in first..first + n {
                        let was = owners[page as usize].swap(0, Ordering::SeqCst);
                        assert_eq!(was, me, "page {page} changed hands");
                    }
                    region.release(cpu, first, n).expect("mine");
                    if !single {
                        break;
                    }
                }
            }
        }
    }
    for page in mine {
        owners[page as usize].swap(0, Ordering::SeqCst);
        region.release(Cpu(me), page, 1).expect("mine");
    }
}
