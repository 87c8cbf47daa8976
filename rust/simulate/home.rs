// SPDX-License-Identifier: GPL-2.0
//! What comes home: CPU faults of a trace under several rules of how much comes along.

use std::collections::HashMap;

use hmm_devmem::density::{Mask, prefetch};
use hmm_devmem::region::Region;

use crate::lent::Lent;
use crate::trace::{Cause, Trace, What};

const BLOCK: u64 = 512;
/// The largest window that the core may choose here.
const MOST: u32 = 512;
/// More than this share of a subtree brings the rest of it along.
const PERCENT: u32 = 51;

/// A rule of how much comes along with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// The page alone.
    One,
    /// The 64 KiB around it, always.
    Fixed,
    /// The 2 MiB around it, always.
    Block,
    /// The core's window.
    Window,
    /// The core's density prefetch.
    Density,
}

impl Rule {
    /// All of them, the plainest first.
    pub const ALL: [Rule; 5] = [
        Rule::One,
        Rule::Fixed,
        Rule::Block,
        Rule::Window,
        Rule::Density,
    ];

    /// What it is called in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Rule::One => "one page",
            Rule::Fixed => "64 KiB",
            Rule::Block => "2 MiB",
            Rule::Window => "hmm window",
            Rule::Density => "hmm density",
        }
    }
}

/// How it went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Home {
    /// Pages that the CPU touched.
    pub touches: u64,
    /// Touches that found the page on the device.
    pub faults: u64,
    /// Pages that were brought home.
    pub brought: u64,
    /// Of these: came along, and the device, an unmapping or the end came before the CPU.
    pub wasted: u64,
}

impl Home {
    /// The share of touches that found their page at home.
    pub fn hits(&self) -> f64 {
        1.0 - self.faults as f64 / (self.touches.max(1)) as f64
    }

    /// The share of what was brought that nobody wanted.
    pub fn waste(&self) -> f64 {
        self.wasted as f64 / (self.brought.max(1)) as f64
    }
}

/// Where a page is; those that no event named are nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Device,
    /// At home, and whether the CPU wanted it.
    Ram(bool),
}

struct World<'a> {
    rule: Rule,
    region: Region<'a>,
    pages: HashMap<(u64, u64), Place>,
    home: Home,
}

impl World<'_> {
    fn at(&self, space: u64, page: u64) -> Option<Place> {
        self.pages.get(&(space, page)).copied()
    }

    /// Pages leave RAM: what came along in vain is waste.
    fn leave(&mut self, space: u64, page: u64, npages: u64, to: Option<Place>) {
        let mut wasted = 0;
        for page in page..page + npages {
            let was = match to {
                Some(place) => self.pages.insert((space, page), place),
                None => self.pages.remove(&(space, page)),
            };
            wasted += u64::from(was == Some(Place::Ram(false)));
        }
        self.home.wasted += wasted;
    }

    /// What comes along with a fault at `page`.
    fn along(&self, space: u64, page: u64) -> Vec<u64> {
        let block = page / BLOCK * BLOCK;
        match self.rule {
            Rule::One => vec![page],
            Rule::Fixed => (page / 16 * 16..page / 16 * 16 + 16).collect(),
            Rule::Block => (block..block + BLOCK).collect(),
            Rule::Window => {
                let w = self.region.window(space, page, block, block + BLOCK, MOST);
                (w.first..w.first + w.npages).collect()
            }
            Rule::Density => {
                let (mut here, mut fault): (Mask, Mask) = ([0; 8], [0; 8]);
                let set = |mask: &mut Mask, page: u64| {
                    mask[(page % BLOCK / 64) as usize] |= 1 << (page % 64);
                };
                set(&mut fault, page);
                (block..block + BLOCK)
                    .filter(|page| matches!(self.at(space, *page), Some(Place::Ram(_))))
                    .for_each(|page| set(&mut here, page));
                let mask = prefetch(&here, &fault, PERCENT);
                let bit = |page: &u64| mask[(page % BLOCK / 64) as usize] >> (page % 64) & 1 != 0;
                (block..block + BLOCK).filter(bit).collect()
            }
        }
    }

    fn touch(&mut self, space: u64, page: u64) {
        self.home.touches += 1;
        if self.at(space, page) == Some(Place::Device) {
            self.home.faults += 1;
            for along in self.along(space, page) {
                if self.at(space, along) == Some(Place::Device) {
                    self.home.brought += 1;
                    self.pages.insert((space, along), Place::Ram(false));
                }
            }
        }
        self.pages.insert((space, page), Place::Ram(true));
    }
}

/// Replays the CPU's touches of a trace under a rule.
pub fn replay(trace: &Trace, rule: Rule) -> Home {
    let lent = Lent::new(1 << 18);
    let mut world = World {
        rule,
        region: lent.region(),
        pages: HashMap::new(),
        home: Home::default(),
    };
    for event in &trace.events {
        let (space, page, npages) = (event.space, event.page, event.npages);
        match event.what {
            What::In | What::Dev => {
                world.leave(space, page, npages, Some(Place::Device));
                for block in page / BLOCK..=(page + npages - 1) / BLOCK {
                    world.region.went(space, block * BLOCK);
                }
            }
            What::Cpu => (page..page + npages).for_each(|page| world.touch(space, page)),
            // The program's wish; what the recorded system did by itself is not ours.
            What::Out(Some(Cause::Request)) => {
                world.leave(space, page, npages, Some(Place::Ram(true)));
            }
            What::Out(_) => {}
            What::Gone => world.leave(space, page, npages, None),
        }
    }
    let rest = world.pages.values().filter(|p| **p == Place::Ram(false));
    world.home.wasted += rest.count() as u64;
    world.home
}
