// SPDX-License-Identifier: GPL-2.0
//! What tests/counts.py counts: `counts NAME N` does NAME N times.

#[path = "lent.rs"]
mod lent;
#[path = "random.rs"]
mod random;

use std::hint::black_box;

use hmm_devmem::density::prefetch;
use hmm_devmem::map::Map;
use hmm_devmem::plan;
use hmm_devmem::types::{Cpu, PageIndex, Segment};
use lent::{COMPOUND, Lent, MIGRATE, VALID, WRITE, entry};
use random::Random;

const FRAMES: u64 = 1 << 16;
const CPU: Cpu = Cpu(0);

/// A frame at random comes back and one is claimed, 95 % full.
fn churn(n: u64) {
    let lent = Lent::new(FRAMES, 1);
    let frames = lent.region().frames();
    let mut mine: Vec<PageIndex> = (0..FRAMES / 20 * 19)
        .filter_map(|_| frames.claim_one(CPU))
        .collect();
    let mut random = Random(1);
    for _ in 0..n {
        let at = random.below(mine.len() as u64) as usize;
        frames.release_one(CPU, mine[at]);
        mine[at] = frames.claim_one(CPU).expect("a frame");
    }
}

/// A plan of 512 entries and its rollback.
fn batch(n: u64) {
    let lent = Lent::new(FRAMES, 1);
    let region = lent.region();
    let src: Vec<u64> = (0..512).map(|i| entry(i + 512, VALID | MIGRATE)).collect();
    let mut dst = vec![0; 512];
    let mut seg = vec![Segment::default(); 512];
    for _ in 0..n {
        let plan = region.plan_to_device(CPU, black_box(&src), &mut dst, &mut seg);
        for s in &seg[..plan.expect("a plan").ncopy as usize] {
            let done = region.rollback(CPU, s.dst, u64::from(s.npages));
            done.expect("claimed");
        }
    }
}

/// A plan back of 512 entries, whose pages lie `step` apart.
fn to_ram(n: u64, step: u64) {
    let src: Vec<u64> = (0..512)
        .map(|i| entry(1000 + i * step, VALID | MIGRATE | WRITE))
        .collect();
    let dst: Vec<u64> = (0..512)
        .map(|i| entry(5000 + i * step, VALID | WRITE))
        .collect();
    let mut seg = vec![Segment::default(); 512];
    for _ in 0..n {
        let plan = plan::to_ram(black_box(&src), black_box(&dst), 1000, &mut seg);
        black_box(plan).expect("a plan");
    }
}

/// A plan back of one folio of 2 MiB.
fn to_ram_whole(n: u64) {
    let (mut src, mut dst) = ([0; 512], [0; 512]);
    src[0] = entry(5120, VALID | MIGRATE | COMPOUND);
    dst[0] = entry(2048, VALID | COMPOUND);
    let mut seg = vec![Segment::default(); 512];
    for _ in 0..n {
        let plan = plan::to_ram(black_box(&src), black_box(&dst), 1000, &mut seg);
        black_box(plan).expect("a plan");
    }
}

/// Ranges of 64K side by side in random order, and a lookup in each.
fn map(n: u64, insert: u64, lookup: u64) {
    let mut words = vec![0; 4 << 20];
    let mut map = Map::format(&mut words).expect("memory");
    let mut random = Random(7);
    let mut order: Vec<u64> = (0..1 << 16).collect();
    for i in 0..order.len() {
        order.swap(i, random.below(1 << 16) as usize);
    }
    // What is not counted is done always.
    let often = |what: u64| if what != 0 { n as usize } else { order.len() };
    for i in 0..often(insert) {
        let place = order[i % order.len()];
        let first = (1 << 30) + place * 16;
        map.set(first, 16, 1 + i as u32).expect("memory");
    }
    for i in 0..often(lookup) * lookup as usize {
        let place = order[(i * 31) % order.len()];
        black_box(map.get((1 << 30) + place * 16 + 3));
    }
}

/// Faults each of which lies where the last window ended.
fn stream(n: u64) {
    let lent = Lent::new(FRAMES, 1);
    let mut page = 0;
    for _ in 0..n {
        let window = lent.region().window(1, black_box(page), 0, u64::MAX, 64);
        page = window.first + window.npages;
    }
}

/// Faults anywhere in as many pages as the region has.
fn scattered(n: u64) {
    let lent = Lent::new(FRAMES, 1);
    let mut random = Random(3);
    for _ in 0..n {
        black_box(
            lent.region()
                .window(1, random.below(FRAMES), 0, u64::MAX, 64),
        );
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let n = args.next().and_then(|n| n.parse().ok()).expect("how often");
    let lent = Lent::new(FRAMES, 1);
    let frames = lent.region().frames();
    match name.as_str() {
        "pair-4K" => (0..n).for_each(|_| {
            let page = frames.claim_one(CPU).expect("a frame");
            frames.release_one(CPU, black_box(page));
        }),
        "pair-64K" => (0..n).for_each(|_| {
            let run = frames.claim_run(CPU).expect("a run");
            frames.release_run(CPU, black_box(run));
        }),
        "pair-2M" => (0..n).for_each(|_| {
            let block = frames.claim_block(CPU).expect("a block");
            frames.release_block(black_box(block));
        }),
        "churn-95" => churn(n),
        "batch-512" => batch(n),
        "to-ram-contiguous" => to_ram(n, 1),
        "to-ram-scattered" => to_ram(n, 3),
        "to-ram-whole" => to_ram_whole(n),
        "map-insert" => map(n, 1, 0),
        "map-lookup" => map(n, 0, 1),
        "prefetch" => (0..n).for_each(|i| {
            let fault = [1 << (i % 64), 0, 0, 1 << 7, 0, 0, 0, 0];
            black_box(prefetch(black_box(&[0; 8]), black_box(&fault), 51));
        }),
        "window-stream" => stream(n),
        "window-scattered" => scattered(n),
        _ => panic!("counts: no such name: {name}"),
    }
}
