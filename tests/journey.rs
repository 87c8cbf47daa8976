// SPDX-License-Identifier: GPL-2.0
//! A page's whole journey on the host, legs 0 to 8 of the design, against a
//! small model of a kernel: one address space, its page table, RAM, a device
//! with memory of its own. The run is repeated with a failure injected at every
//! leg, at the first, second, fourth ... opportunity. Whatever fails: no byte is
//! lost, and in the end free + claimed + resident == total.

mod lent;

use hmm_devmem::region::{self, Region};
use hmm_devmem::types::{Cpu, Errno, Segment};
use lent::{COMPOUND, Lent, MIGRATE, VALID, WRITE, entry};
use std::cell::Cell;
use std::fmt;

/// Virtual pages of the process: 6 MiB and a bit.
const PAGES: usize = 3 * 512 + 77;
/// Device frames: less than that, so that eviction happens, and a partial block.
const FRAMES: u64 = 2 * 512 + 300;
/// Pages of RAM.
const RAM: usize = 4 * 512 + 512;
/// pfn of the region's page 0.
const PFN_FIRST: u64 = 0x80_0000;

/// Where something can go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leg {
    None,
    /// 1: a page is pinned, setup does not offer it.
    Setup,
    /// 2: the device is full.
    Plan,
    /// 3: the device's copy fails for a segment.
    Copy,
    /// 3: the kernel refuses a page after the copy.
    Pages,
    /// 4: the window reaches over what is mapped: no failure, but the edge.
    Window,
    /// 5: the page is locked by someone else.
    SetupBack,
    /// 5: no RAM.
    Ram,
    /// 5: the copy back fails for a segment.
    CopyBack,
    /// 6: a page is freed twice.
    Release,
    /// 7: a span to evict is gone when it is looked at.
    Evict,
    /// 8: a page stays for the first tries of the teardown.
    Teardown,
}

const LEGS: [Leg; 12] = [
    Leg::None,
    Leg::Setup,
    Leg::Plan,
    Leg::Copy,
    Leg::Pages,
    Leg::Window,
    Leg::SetupBack,
    Leg::Ram,
    Leg::CopyBack,
    Leg::Release,
    Leg::Evict,
    Leg::Teardown,
];

/// A failure at every `every`-th opportunity of `leg`.
struct Inject {
    leg: Leg,
    every: u32,
    seen: Cell<u32>,
    done: Cell<u32>,
    off: Cell<bool>,
}

impl Inject {
    fn hits(&self, leg: Leg) -> bool {
        if self.leg != leg || self.off.get() {
            return false;
        }
        self.seen.set(self.seen.get() + 1);
        let hit = self.seen.get() % self.every == 0;
        self.done.set(self.done.get() + u32::from(hit));
        hit
    }
}

impl fmt::Display for Inject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failure at leg {:?}, every {}", self.leg, self.every)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Never touched: reads as 0.
    Hole,
    Ram(usize),
    Device(u64),
}

/// How often each way was taken, so that a run that tested nothing shows.
#[derive(Default, Debug)]
struct Taken {
    compounds: u64,
    singles: u64,
    zeroed: u64,
    faults: u64,
    evicted: u64,
    short: u64,
}

struct Machine<'a> {
    region: Region<'a>,
    inject: &'a Inject,
    table: Vec<Place>,
    /// What each virtual page must read as.
    truth: Vec<u64>,
    ram: Vec<Option<u64>>,
    device: Vec<u64>,
    taken: Taken,
    cpu: u32,
}

impl Machine<'_> {
    fn new<'a>(region: Region<'a>, inject: &'a Inject) -> Machine<'a> {
        let mut m = Machine {
            region,
            inject,
            table: vec![Place::Hole; PAGES],
            truth: vec![0; PAGES],
            ram: vec![None; RAM],
            device: vec![0; FRAMES as usize],
            taken: Taken::default(),
            cpu: 0,
        };
        // Block 1 is one huge page, aligned in RAM; of the rest every tenth
        // page is a hole.
        for va in 0..PAGES {
            let huge = va / 512 == 1;
            if !huge && va % 10 == 3 {
                continue;
            }
            let pfn = if huge {
                512 + va % 512
            } else {
                m.ram_page(va).expect("RAM")
            };
            m.table[va] = Place::Ram(pfn);
            m.truth[va] = 0xbeef_0000 + va as u64;
            m.ram[pfn] = Some(m.truth[va]);
        }
        m
    }

    /// A free page of RAM outside the huge one, here and there contiguous.
    fn ram_page(&self, near: usize) -> Option<usize> {
        let start = if near % 64 == 0 {
            near * 31 % RAM
        } else {
            near
        };
        (start..RAM)
            .chain(0..start)
            .find(|p| self.ram[*p].is_none() && p / 512 != 1)
    }

    fn cpu(&mut self) -> Cpu {
        self.cpu += 1;
        Cpu(self.cpu * 7 % 5)
    }

    /// The block `va` starts is still one huge page.
    fn huge(&self, va: usize) -> bool {
        va % 512 == 0
            && va + 512 <= PAGES
            && match self.table[va] {
                Place::Ram(p) => {
                    p % 512 == 0 && (0..512).all(|i| self.table[va + i] == Place::Ram(p + i))
                }
                _ => false,
            }
    }

    fn check(&self, claimed: u64) {
        for va in 0..PAGES {
            let is = match self.table[va] {
                Place::Hole => 0,
                Place::Ram(p) => self.ram[p].unwrap_or(u64::MAX),
                Place::Device(i) => self.device[i as usize],
            };
            assert_eq!(
                is, self.truth[va],
                "virtual page {va}, {:?}",
                self.table[va]
            );
        }
        let resident = self
            .table
            .iter()
            .filter(|p| matches!(p, Place::Device(_)))
            .count() as u64;
        let stats = self.region.stats();
        assert_eq!(
            (stats.claimed, stats.resident),
            (claimed, resident),
            "{stats:?}"
        );
        assert_eq!(stats.free + claimed + resident, stats.total, "{stats:?}");
    }

    /// Legs 1 to 3.
    fn to_device(&mut self, first: usize, end: usize) {
        // Leg 1: what the kernel's setup collects.
        let n = end - first;
        let mut src = vec![0; n];
        let mut i = 0;
        while i < n {
            let va = first + i;
            if self.huge(va) && i + 512 <= n {
                let Place::Ram(p) = self.table[va] else {
                    unreachable!()
                };
                if !self.inject.hits(Leg::Setup) {
                    src[i] = entry(p as u64, VALID | MIGRATE | WRITE | COMPOUND);
                }
                i += 512;
                continue;
            }
            src[i] = match self.table[va] {
                _ if self.inject.hits(Leg::Setup) => 0,
                Place::Hole => MIGRATE | WRITE,
                Place::Ram(p) => entry(p as u64, VALID | MIGRATE | WRITE),
                Place::Device(_) => 0,
            };
            i += 1;
        }

        // Leg 2: frames and segments.
        if self.inject.hits(Leg::Plan) {
            // Somebody else has all the rest for a moment.
            let mut hog = vec![0; FRAMES as usize];
            let ask = vec![MIGRATE; FRAMES as usize];
            let mut seg = vec![Segment::default(); FRAMES as usize];
            let cpu = self.cpu();
            let got = self
                .region
                .plan_to_device(cpu, &ask, &mut hog, &mut seg)
                .expect("a plan");
            self.move_planned(first, &src);
            for d in hog.iter().filter(|d| **d != 0) {
                self.region.rollback(cpu, d >> 6, 1).expect("hogged");
            }
            assert_eq!(
                hog.iter().filter(|d| **d != 0).count(),
                got.claimed as usize
            );
        } else {
            self.move_planned(first, &src);
        }
        self.check(0);
    }

    fn move_planned(&mut self, first: usize, src: &[u64]) {
        let n = src.len();
        let mut dst = vec![0; n];
        let mut seg = vec![Segment::default(); n];
        let cpu = self.cpu();
        let plan = self
            .region
            .plan_to_device(cpu, src, &mut dst, &mut seg)
            .expect("a plan");
        self.taken.short += u64::from(plan.wanted - plan.claimed);

        // Leg 3: one zero and one copy call; the driver says which segment failed.
        let nzero = plan.nzero as usize;
        for s in &seg[n - nzero..] {
            for k in 0..s.npages {
                let frame = &mut self.device[s.dst as usize + k as usize];
                assert_eq!(*frame, 0, "frame {} was handed out with old data", s.dst);
                *frame = 0;
            }
        }
        self.taken.zeroed += seg[n - nzero..]
            .iter()
            .map(|s| u64::from(s.npages))
            .sum::<u64>();
        let mut ok = vec![true; n];
        for s in &mut seg[..plan.ncopy as usize] {
            if self.inject.hits(Leg::Copy) {
                s.status = -5;
            }
            for k in 0..s.npages as usize {
                let frame = &mut self.device[s.dst as usize + k];
                assert_eq!(*frame, 0, "frame {} was handed out with old data", s.dst);
                if s.status == 0 {
                    *frame = self.ram[s.src as usize + k].expect("a used page");
                }
                ok[s.entry as usize + k] = s.status == 0;
            }
        }

        // The kernel takes or refuses each page; what is refused goes back.
        let cpu = self.cpu();
        let mut i = 0;
        let mut committed = 0;
        while i < n {
            if dst[i] == 0 {
                i += 1;
                continue;
            }
            let compound = dst[i] & COMPOUND != 0;
            let pages = if compound { 512 } else { 1 };
            let index = dst[i] >> 6;
            if !ok[i] || self.inject.hits(Leg::Pages) {
                for k in 0..pages {
                    self.device[index as usize + k] = 0;
                }
                self.region
                    .rollback(cpu, index, pages as u64)
                    .expect("claimed");
            } else {
                for k in 0..pages {
                    if let Place::Ram(p) = self.table[first + i + k] {
                        self.ram[p] = None;
                    }
                    self.table[first + i + k] = Place::Device(index + k as u64);
                }
                committed += pages as u64;
                if compound {
                    self.taken.compounds += 1;
                } else {
                    self.taken.singles += 1;
                }
            }
            i += pages;
        }
        self.region.commit(cpu, committed);
    }

    /// Leg 4: a CPU touches a page.
    fn touch(&mut self, va: usize) {
        if !matches!(self.table[va], Place::Device(_)) {
            return;
        }
        self.taken.faults += 1;
        let hi = if self.inject.hits(Leg::Window) {
            va + 1
        } else {
            PAGES
        };
        let w = self.region.window(1, va as u64, 0, hi as u64, 512);
        assert!(w.first as usize <= va && w.first + w.npages <= hi as u64);
        let range: Vec<usize> = (w.first as usize..(w.first + w.npages) as usize).collect();
        self.to_ram(&range);
        if let Place::Device(_) = self.table[va] {
            // The process would get SIGBUS or fault again; here it tries again
            // with the trouble over.
            self.inject.off.set(true);
            self.to_ram(&[va]);
            self.inject.off.set(false);
            assert!(matches!(self.table[va], Place::Ram(_)));
        }
        self.check(0);
    }

    /// Legs 5 and 6 for these virtual pages.
    fn to_ram(&mut self, range: &[usize]) {
        let n = range.len();
        let mut src = vec![0; n];
        let mut dst = vec![0; n];
        for (i, &va) in range.iter().enumerate() {
            let Place::Device(index) = self.table[va] else {
                continue;
            };
            if self.inject.hits(Leg::SetupBack) {
                continue;
            }
            src[i] = entry(PFN_FIRST + index, VALID | MIGRATE | WRITE);
            if self.inject.hits(Leg::Ram) {
                continue;
            }
            if let Some(p) = self.ram_page(va) {
                self.ram[p] = Some(0);
                dst[i] = entry(p as u64, VALID | WRITE);
            }
        }
        let mut seg = vec![Segment::default(); n];
        let nseg = hmm_devmem::plan::to_ram(&src, &dst, PFN_FIRST, &mut seg).expect("a plan");
        let mut ok = vec![false; n];
        for s in &seg[..nseg as usize] {
            let fails = self.inject.hits(Leg::CopyBack);
            for k in 0..s.npages as usize {
                if !fails {
                    self.ram[s.dst as usize + k] = Some(self.device[s.src as usize + k]);
                    ok[s.entry as usize + k] = true;
                }
            }
        }
        let cpu = self.cpu();
        for (i, &va) in range.iter().enumerate() {
            if dst[i] == 0 {
                continue;
            }
            let p = (dst[i] >> 6) as usize;
            let Place::Device(index) = self.table[va] else {
                unreachable!()
            };
            if !ok[i] {
                self.ram[p] = None;
                continue;
            }
            self.table[va] = Place::Ram(p);
            // Leg 6: zero before anyone else can see it, then free again.
            self.device[index as usize] = 0;
            self.region.release(cpu, index, 1).expect("resident");
            if self.inject.hits(Leg::Release) {
                assert_eq!(self.region.release(cpu, index, 1), Err(Errno::ALREADY));
            }
        }
    }

    /// Leg 7: the next span goes home, whoever owns it. False: nothing is left.
    fn evict(&mut self, from: &mut u64, max: u64) -> bool {
        let Ok(span) = self.region.next_span(*from, max) else {
            return false;
        };
        *from = span.first.0 + span.npages;
        let wanted = span.first.0..*from;
        if self.inject.hits(Leg::Evict) {
            // A CPU fault was faster: the pages are home when eviction comes.
            let owner = (0..PAGES).find(|va| self.table[*va] == Place::Device(span.first.0));
            self.to_ram(&[owner.expect("a resident page has an owner")]);
        }
        let range: Vec<usize> = (0..PAGES)
            .filter(|va| matches!(self.table[*va], Place::Device(i) if wanted.contains(&i)))
            .collect();
        self.taken.evicted += range.len() as u64;
        self.to_ram(&range);
        self.check(0);
        true
    }

    /// Leg 8: no new pages, then everything home, as often as it takes.
    fn teardown(&mut self) {
        let mut rounds = 0;
        while self.region.stats().resident != 0 {
            rounds += 1;
            assert!(
                rounds < 50,
                "teardown does not end: {:?}",
                self.region.stats()
            );
            self.inject.off.set(rounds > 10);
            let mut from = 0;
            while {
                if self.inject.hits(Leg::Teardown) {
                    from += 1;
                }
                self.evict(&mut from, 512)
            } {}
        }
    }
}

fn journey(inject: &Inject) -> Taken {
    // Leg 0: a driver adds memory; bad arguments touch nothing.
    assert_eq!(region::size(0, 1), 0);
    let lent = Lent::new(FRAMES, 3);
    let mut m = Machine::new(lent.region(), inject);
    m.check(0);

    // All of it, as much as fits; touched again here and there; once more.
    m.to_device(0, PAGES);
    for va in (40..900).chain((600..1000).rev()) {
        m.touch(va);
    }
    m.to_device(512, 1024);
    m.to_device(0, 600);
    // Full: spans go, others come.
    let mut from = 0;
    for _ in 0..3 {
        m.evict(&mut from, 100);
        m.to_device(PAGES - 300, PAGES);
    }
    // New data while they are away: the CPU writes, the device sees it.
    for va in (0..PAGES).step_by(3) {
        m.touch(va);
        let p = match m.table[va] {
            Place::Ram(p) => p,
            _ => match m.ram_page(va) {
                Some(p) => p,
                None => continue,
            },
        };
        m.table[va] = Place::Ram(p);
        m.truth[va] = 0xcafe_0000 + va as u64;
        m.ram[p] = Some(m.truth[va]);
    }
    m.to_device(0, PAGES);
    m.teardown();
    m.check(0);
    let stats = m.region.stats();
    assert_eq!(stats.free, FRAMES, "{stats:?}");
    assert_eq!(stats.free_blocks, FRAMES / 512, "{stats:?}");
    assert!(
        m.device.iter().all(|d| *d == 0),
        "device memory holds old data"
    );
    assert_eq!(hmm_devmem::port::warnings(), 0);
    m.taken
}

#[test]
fn a_failure_at_every_leg() {
    for leg in LEGS {
        for every in [1, 2, 4, 9, 50] {
            let inject = Inject {
                leg,
                every,
                seen: Cell::new(0),
                done: Cell::new(0),
                off: Cell::new(false),
            };
            // A name for the run, should it fail.
            println!("{inject}");
            let taken = journey(&inject);
            println!("    {} failures injected; {taken:?}", inject.done.get());
            if leg != Leg::None && every <= 2 {
                assert!(inject.done.get() > 0, "{inject}: nothing was injected");
            }
            if leg == Leg::None {
                assert!(
                    taken.compounds > 0 && taken.singles > 0 && taken.zeroed > 0,
                    "{taken:?}"
                );
                assert!(
                    taken.faults > 0 && taken.evicted > 0 && taken.short > 0,
                    "{taken:?}"
                );
            }
        }
    }
}
