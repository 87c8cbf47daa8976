// SPDX-License-Identifier: GPL-2.0
//! Windows of CPU faults: the same as a plain list of streams says, inside their bounds
//! whatever is asked, and of use to programs that walk, jump, or go back and forth.

mod lent;
mod random;

use std::ops::Range;

use lent::Lent;
use proptest::prelude::*;
use random::Random;

/// Where a stream may go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Either,
    Up,
    Down,
}

struct Stream {
    low: u64,
    high: u64,
    order: u32,
    way: Way,
}

impl Stream {
    fn goes_on(&self, page: u64) -> Option<Way> {
        let near = (1 << self.order) / 2;
        if self.way != Way::Down && (self.high..self.high + near).contains(&page) {
            Some(Way::Up)
        } else if self.way != Way::Up && (self.low - near..self.low).contains(&page) {
            Some(Way::Down)
        } else {
            None
        }
    }
}

/// What one address space has in a table of one bucket.
#[derive(Default)]
struct Model {
    streams: Vec<Stream>,
    home: Home,
}

/// Which blocks are known, and how many pages of each scattered faults have brought home.
#[derive(Default)]
struct Home([(Option<u64>, u64); 4]);

impl Home {
    fn known(&mut self, block: u64) -> Option<&mut u64> {
        let mut all = self.0.iter_mut();
        all.find_map(|(b, count)| (*b == Some(block)).then_some(count))
    }

    /// A block that is new takes the place of the smallest count, and all lose a page.
    fn of(&mut self, block: u64) -> &mut u64 {
        if self.known(block).is_none() {
            let mut least = 0;
            for i in 0..4 {
                if self.0[i].1 < self.0[least].1 {
                    least = i;
                }
                self.0[i].1 = self.0[i].1.saturating_sub(1);
            }
            self.0[least] = (Some(block), 0);
        }
        self.known(block).expect("it is known now")
    }
}

impl Model {
    /// Which of eight streams gives way to a new one: any will do, this one it is.
    fn victim(page: u64) -> usize {
        ((page ^ page >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % 8
    }

    /// What a new stream begins with.
    fn begin(&mut self, page: u64) -> (usize, u32) {
        let (i, order) = if self.streams.len() < 8 {
            self.streams.push(Stream {
                low: 0,
                high: 0,
                order: 0,
                way: Way::Either,
            });
            (self.streams.len() - 1, 4)
        } else {
            let i = Model::victim(page);
            (i, self.streams[i].order.clamp(3, 5) - 1)
        };
        let home = self.home.of(page / 512);
        let order = match *home {
            192.. => 9,
            128.. => 4,
            _ => order,
        };
        *home = if order == 9 { 0 } else { *home + (1 << order) };
        (i, order)
    }

    fn fault(&mut self, page: u64, allowed: Range<u64>, most: u32) -> Range<u64> {
        if !allowed.contains(&page) || most == 0 {
            return page..page + 1;
        }
        let mut streams = self.streams.iter().enumerate();
        let found = streams.find_map(|(i, s)| Some((i, s.order + 1, s.goes_on(page)?)));
        let (i, order, way) = found.unwrap_or_else(|| {
            let (i, order) = self.begin(page);
            (i, order, Way::Either)
        });
        let order = order.min(most);
        let base = page >> order << order;
        let window = match way {
            Way::Either => base..base + (1 << order),
            Way::Up => page..base + (1 << order),
            Way::Down => base..page + 1,
        };
        let clipped = window.start.max(allowed.start)..window.end.min(allowed.end);
        let seen = if way == Way::Either {
            &window
        } else {
            &clipped
        };
        self.streams[i] = Stream {
            low: seen.start,
            high: seen.end,
            order,
            way,
        };
        clipped
    }
}

const BASE: u64 = 0x7_f000_0000;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// Faults from a page on, each so many pages after the one before.
    Walk(u64, i64, u64),
    /// The block of this page went to the device.
    Went(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4096u64, -20..20i64, 1..12u64).prop_map(|(from, by, n)| Step::Walk(from, by, n)),
        1 => (0..4096u64).prop_map(Step::Went),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The same windows as the plain list.
    #[test]
    fn windows_of_the_model(
        steps in prop::collection::vec(step(), 1..150),
        key in any::<u64>(),
        most in 0..=9u32,
        lo in 0..100u64,
        hi in 1000..=4096u64,
    ) {
        let lent = Lent::new(512, 1);
        let region = lent.region();
        let mut model = Model::default();
        let allowed = BASE + lo..BASE + hi;
        for step in steps {
            match step {
                Step::Went(page) => {
                    region.went(key, BASE + page);
                    if let Some(count) = model.home.known((BASE + page) / 512) {
                        *count = 0;
                    }
                }
                Step::Walk(from, by, n) => {
                    for i in 0..n as i64 {
                        let page = BASE + (from as i64 + i * by).rem_euclid(4096) as u64;
                        let w = region.window(key, page, allowed.start, allowed.end, 1 << most);
                        let want = model.fault(page, allowed.clone(), most);
                        prop_assert_eq!(w.first..w.first + w.npages, want, "{:x}", page);
                    }
                }
            }
        }
    }

    /// A window holds the page, stays inside, and is never larger than allowed,
    /// whatever it is asked.
    #[test]
    fn window_bounds(
        faults in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), 0..64u32), 1..50),
        npages in 1..100_000u64,
        key in any::<u64>(),
    ) {
        let lent = Lent::new(npages, 1);
        let region = lent.region();
        for (page, lo, hi, shift) in faults {
            // Page numbers as far as 57-bit addresses reach, and beyond.
            let page = if shift % 2 == 0 { page % 1000 } else { page >> (shift % 30) };
            let lo = lo.checked_rem(page).unwrap_or(0);
            let hi = page.saturating_add(hi % 5000);
            let max = 1 << (shift % 10);
            let w = region.window(key, page, lo, hi, max);
            prop_assert!(w.npages >= 1 && w.first <= page && page - w.first < w.npages, "{:?}", w);
            prop_assert!(w.npages <= u64::from(max), "{:?} of {}", w, max);
            if page < hi {
                prop_assert!(w.first >= lo && w.first + w.npages <= hi, "{:?} in {}..{}", w, lo, hi);
            } else {
                prop_assert_eq!(w.npages, 1);
            }
        }
    }
}

/// Pages brought back and faults taken by a walk, with windows up to 512.
fn walk(pages: impl Iterator<Item = u64>, lo: u64, hi: u64) -> (u64, u64) {
    let lent = Lent::new(1 << 20, 2);
    let region = lent.region();
    let mut home = std::collections::HashSet::new();
    let mut faults = 0;
    for page in pages {
        if home.contains(&page) {
            continue;
        }
        faults += 1;
        let w = region.window(77, page, lo, hi, 512);
        home.extend(w.first..w.first + w.npages);
    }
    (home.len() as u64, faults)
}

#[test]
fn window_follows_a_walk() {
    for (name, (home, faults)) in [
        ("up", walk(BASE + 5..BASE + 16384, BASE, BASE + 16384)),
        ("down", walk((BASE..BASE + 16384).rev(), BASE, BASE + 16384)),
        (
            "strided",
            walk((BASE..BASE + 16384).step_by(3), BASE, BASE + 16384),
        ),
    ] {
        assert!(home >= 16384 - 64, "{name}: nearly all of it: {home}");
        assert!(faults <= 45, "{name}: {faults} faults");
    }
    // Two walks at once, in opposite directions.
    let both = (0..8192).flat_map(|i| [BASE + i, BASE + 16383 - i]);
    let (home, faults) = walk(both, BASE, BASE + 16384);
    assert!(
        home == 16384 && faults <= 80,
        "two walks: {home} pages, {faults} faults"
    );
}

#[test]
fn window_shrinks_when_faults_are_scattered() {
    let mut random = Random(1);
    let far = (0..2000).map(|_| random.below(1 << 30));
    let (home, faults) = walk(far, 0, 1 << 30);
    let each = home as f64 / faults as f64;
    assert!(each < 6.0, "{each} pages a fault");
}

#[test]
fn window_off_is_one_page() {
    let lent = Lent::new(512, 1);
    for page in 0..100 {
        let w = lent.region().window(1, page, 0, 100, 1);
        assert_eq!((w.first, w.npages), (page, 1));
    }
}

/// Scattered faults that come to everything get blocks as a whole in the end; those that come
/// to little get little.
#[test]
fn windows_grow_where_neighbours_are_wanted() {
    let all = |n| (0..n).map(move |i| BASE + i * 7919 % 16384);
    let (home, faults) = walk(all(16384), 0, 1 << 40);
    assert_eq!(home, 16384);
    assert!(faults < 2300, "{faults} faults");
    let (home, faults) = walk(all(1000), 0, 1 << 40);
    assert!(home < 4500 && faults > 800, "{home} pages, {faults} faults");
    // A block that came home as a whole begins anew when it is on the device again.
    let lent = Lent::new(1 << 20, 1);
    let region = lent.region();
    for turn in 0..4 {
        let mut windows = (0..).map(|i| region.window(1, BASE + i * 239 % 512, 0, 1 << 40, 512));
        let small = windows.position(|w| w.npages == 512);
        assert!(
            small.is_some_and(|n| (4..100).contains(&n)),
            "turn {turn}: {small:?}"
        );
    }
}

/// Faults in a block that goes to the device between them stay scattered for ever.
#[test]
fn what_went_to_the_device_does_not_count() {
    let lent = Lent::new(1 << 20, 1);
    let region = lent.region();
    let mut random = Random(3);
    for i in 0..2000 {
        let block = BASE + i % 8 * 512;
        let w = region.window(1, block + random.below(512), block, block + 512, 512);
        assert!(i < 64 || w.npages <= 32, "fault {i}: {w:?}");
        region.went(1, block + random.below(512));
    }
}
