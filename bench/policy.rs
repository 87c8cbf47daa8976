// SPDX-License-Identifier: GPL-2.0
//! The density prefetch against the walk over a tree of counts, at 1 to 512 faults
//! in a block, and against the walk that counts bits from each page up (shown, not
//! judged: it skips what came along, so it is fast where much does).
//!
//! `cargo bench -p hmm-bench --bench policy`, or `make bench`.

#[path = "rows.rs"]
mod rows;
#[path = "../tests/walk.rs"]
mod walk;

use std::hint::black_box;

use criterion::BenchmarkId;
use hmm_devmem::density::{Mask, prefetch};
use rows::random::Random;
use rows::{Limit, Row, cpu_time, record, row};

/// Blocks that are measured in turn, so that no branch is learned by heart.
const BLOCKS: usize = 256;

/// Faults, the name of the row, and its limit.
const SHAPES: [(u64, &str, f64); 6] = [
    (1, "prefetch mask, 1 fault", 1.0 / 8.0),
    (8, "prefetch mask, 8 faults", 1.0 / 8.0),
    (32, "prefetch mask, 32 faults", 1.0 / 3.0),
    (128, "prefetch mask, 128 faults", 1.0 / 3.0),
    (256, "prefetch mask, 256 faults", 1.0 / 3.0),
    (512, "prefetch mask, 512 faults", 1.0 / 3.0),
];

/// Blocks with `n` faults at random, and a hundred other pages here already.
fn blocks(n: u64) -> Vec<(Mask, Mask)> {
    let mut random = Random(n);
    let mut mask = |n: u64| {
        let mut mask = [0u64; 8];
        let mut left = n;
        while left > 0 {
            let page = random.below(512);
            let bit = 1 << (page % 64);
            left -= u64::from(mask[(page / 64) as usize] & bit == 0);
            mask[(page / 64) as usize] |= bit;
        }
        mask
    };
    (0..BLOCKS)
        .map(|_| {
            let faults = mask(n);
            let mut here = mask(100);
            here.iter_mut().zip(&faults).for_each(|(h, f)| *h &= !f);
            (here, faults)
        })
        .collect()
}

fn main() {
    let mut c = rows::criterion();
    type Side = (&'static str, fn(&Mask, &Mask, u32) -> Mask);
    let sides: [Side; 3] = [
        ("word-parallel", prefetch),
        ("level by level", walk::level_by_level),
        ("page by page", walk::page_by_page),
    ];
    let mut rows: Vec<Row> = Vec::new();
    for (n, what, limit) in SHAPES {
        let blocks = blocks(n);
        for (here, faults) in &blocks {
            let masks = sides.map(|(_, side)| side(here, faults, 51));
            assert!(masks[0] == masks[1] && masks[0] == masks[2], "same masks");
        }
        let mut group = c.benchmark_group(what);
        for (name, side) in sides {
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter_custom(|n| {
                    let start = cpu_time();
                    for i in 0..n {
                        let (here, faults) = &blocks[i as usize % BLOCKS];
                        black_box(side(black_box(here), black_box(faults), 51));
                    }
                    record(what, name, n, cpu_time() - start)
                })
            });
        }
        group.finish();
        rows.push(row(
            what,
            "word-parallel",
            "level by level",
            Limit::Most(limit),
        ));
        rows.push(row(what, "word-parallel", "page by page", Limit::None));
    }
    c.final_summary();
    rows::finish("policy", &rows);
}
