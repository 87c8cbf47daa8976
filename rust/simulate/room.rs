// SPDX-License-Identifier: GPL-2.0
//! Who goes when the device is full: the device's uses of a trace in less memory than
//! they want, under the core's clock and under exact orders.

use std::collections::{BTreeMap, HashMap, HashSet};

use hmm_devmem::types::{Cpu, Segment};

use crate::lent::Lent;
use crate::trace::{Trace, What};

/// Frames that one eviction frees, at most.
const BATCH: u64 = 64;

/// A page of an address space.
type Page = (u64, u64);

/// Who goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// The core's clock over 2 MiB blocks of real frames.
    Clock,
    /// The page that was not used for longest, exactly.
    Lru,
    /// The page that came first.
    Fifo,
}

impl Order {
    /// All of them.
    pub const ALL: [Order; 3] = [Order::Lru, Order::Fifo, Order::Clock];

    /// What it is called in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Order::Clock => "hmm clock",
            Order::Lru => "LRU",
            Order::Fifo => "FIFO",
        }
    }
}

/// How it went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Room {
    /// Pages that the device used.
    pub uses: u64,
    /// Uses that did not find the page on the device.
    pub misses: u64,
    /// Pages that had to go.
    pub evicted: u64,
    /// Of these: the device wanted them again.
    pub wasted: u64,
}

impl Room {
    /// The share of uses that found their page.
    pub fn hits(&self) -> f64 {
        1.0 - self.misses as f64 / (self.uses.max(1)) as f64
    }

    /// The share of evicted pages that came back.
    pub fn waste(&self) -> f64 {
        self.wasted as f64 / (self.evicted.max(1)) as f64
    }
}

/// What all orders do with a page.
trait Memory {
    /// Marks a page as used; false if it is not there.
    fn touch(&mut self, page: Page) -> bool;
    /// Brings a page; the pages that had to go for it.
    fn bring(&mut self, page: Page) -> Vec<Page>;
    /// The page leaves by itself.
    fn leave(&mut self, page: Page);
}

/// Exact orders: by the time of the last use, or of coming.
struct Exact {
    capacity: usize,
    refresh: bool,
    now: u64,
    by_page: HashMap<Page, u64>,
    by_time: BTreeMap<u64, Page>,
}

impl Exact {
    fn new(capacity: u64, refresh: bool) -> Exact {
        Exact {
            capacity: capacity as usize,
            refresh,
            now: 0,
            by_page: HashMap::new(),
            by_time: BTreeMap::new(),
        }
    }

    fn put(&mut self, page: Page) {
        self.now += 1;
        if let Some(old) = self.by_page.insert(page, self.now) {
            self.by_time.remove(&old);
        }
        self.by_time.insert(self.now, page);
    }
}

impl Memory for Exact {
    fn touch(&mut self, page: Page) -> bool {
        let here = self.by_page.contains_key(&page);
        if here && self.refresh {
            self.put(page);
        }
        here
    }

    fn bring(&mut self, page: Page) -> Vec<Page> {
        let mut gone = Vec::new();
        if self.by_page.len() >= self.capacity {
            while (gone.len() as u64) < BATCH {
                let Some((_, page)) = self.by_time.pop_first() else {
                    break;
                };
                self.by_page.remove(&page);
                gone.push(page);
            }
        }
        self.put(page);
        gone
    }

    fn leave(&mut self, page: Page) {
        if let Some(time) = self.by_page.remove(&page) {
            self.by_time.remove(&time);
        }
    }
}

/// The core's frames, and which page is in which.
struct Frames {
    lent: Lent,
    by_page: HashMap<Page, u64>,
    by_frame: Vec<Option<Page>>,
}

impl Frames {
    fn new(capacity: u64) -> Frames {
        Frames {
            lent: Lent::new(capacity),
            by_page: HashMap::new(),
            by_frame: vec![None; capacity as usize],
        }
    }

    fn claim(&self) -> Option<u64> {
        let (mut dst, mut seg) = ([0], [Segment::default()]);
        let region = self.lent.region();
        // A hole that is to be filled: no source page.
        let plan = region.plan_to_device(Cpu(0), &[2], &mut dst, &mut seg);
        if plan.is_ok_and(|plan| plan.claimed == 1) {
            region.commit(Cpu(0), 1);
            return Some(dst[0] >> 6);
        }
        None
    }

    fn release(&mut self, frame: u64) -> Option<Page> {
        let page = self.by_frame.get_mut(frame as usize)?.take()?;
        self.by_page.remove(&page);
        let free = self.lent.region().release(Cpu(0), frame, 1);
        free.is_ok().then_some(page)
    }
}

impl Memory for Frames {
    fn touch(&mut self, page: Page) -> bool {
        let frame = self.by_page.get(&page).copied();
        if let Some(frame) = frame {
            self.lent.region().touch(frame, 1);
        }
        frame.is_some()
    }

    fn bring(&mut self, page: Page) -> Vec<Page> {
        let mut gone = Vec::new();
        let frame = loop {
            if let Some(frame) = self.claim() {
                break frame;
            }
            let Ok(span) = self.lent.region().victim(BATCH) else {
                return gone;
            };
            let frames = span.first.0..span.first.0 + span.npages;
            gone.extend(frames.filter_map(|frame| self.release(frame)));
        };
        self.by_page.insert(page, frame);
        self.by_frame[frame as usize] = Some(page);
        gone
    }

    fn leave(&mut self, page: Page) {
        if let Some(frame) = self.by_page.get(&page).copied() {
            self.release(frame);
        }
    }
}

/// The most pages that are on the device at once when there is room for all.
pub fn footprint(trace: &Trace) -> u64 {
    let mut here: HashSet<Page> = HashSet::new();
    let mut most = 0;
    for event in &trace.events {
        let pages = (event.page..event.page + event.npages).map(|page| (event.space, page));
        match event.what {
            What::In | What::Dev => here.extend(pages),
            _ => pages.for_each(|page| {
                here.remove(&page);
            }),
        }
        most = most.max(here.len() as u64);
    }
    most
}

/// Replays the device's uses of a trace in `capacity` pages of memory.
pub fn replay(trace: &Trace, order: Order, capacity: u64) -> Room {
    let capacity = capacity.max(BATCH);
    let mut memory: Box<dyn Memory> = match order {
        Order::Clock => Box::new(Frames::new(capacity)),
        Order::Lru => Box::new(Exact::new(capacity, true)),
        Order::Fifo => Box::new(Exact::new(capacity, false)),
    };
    let mut room = Room::default();
    let mut evicted: HashSet<Page> = HashSet::new();
    for event in &trace.events {
        for page in event.page..event.page + event.npages {
            let page = (event.space, page);
            match event.what {
                What::In | What::Dev => {
                    room.uses += 1;
                    if memory.touch(page) {
                        continue;
                    }
                    room.misses += 1;
                    room.wasted += u64::from(evicted.remove(&page));
                    let gone = memory.bring(page);
                    room.evicted += gone.len() as u64;
                    evicted.extend(gone);
                }
                // The page is at home, or nowhere.
                _ => {
                    memory.leave(page);
                    evicted.remove(&page);
                }
            }
        }
    }
    room
}
