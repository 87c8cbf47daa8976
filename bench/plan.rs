// SPDX-License-Identifier: GPL-2.0
//! The planner against the plainest coalescing loop, one entry after the other,
//! on the shapes of memory that matter: one run, 64K runs, nothing adjacent,
//! half holes, one huge page.
//!
//! Part of `make bench`; figures are the best time per entry.

mod rows;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use hmm_devmem::plan;
use hmm_devmem::types::Segment;
use rows::{Limit, Row, cpu_time, record, row};

const N: usize = 512;
const ON: u64 = 3;

/// What a driver writes when it writes it once: compare, extend or start anew.
#[inline(never)]
fn naive(src: &[u64], dst: &[u64], first: u64, seg: &mut [Segment]) -> usize {
    let mut n = 0;
    for (i, (&s, &d)) in src.iter().zip(dst).enumerate() {
        if s & ON != ON || d & 1 == 0 {
            continue;
        }
        let (src, dst) = ((s >> 6) - first, d >> 6);
        if n > 0 {
            let last = &mut seg[n - 1];
            let len = u64::from(last.npages);
            if last.src + len == src
                && last.dst + len == dst
                && last.entry + last.npages == i as u32
            {
                last.npages += 1;
                continue;
            }
        }
        seg[n] = Segment {
            src,
            dst,
            npages: 1,
            entry: i as u32,
            status: 0,
            reserved: 0,
        };
        n += 1;
    }
    n
}

#[inline(never)]
fn ours(src: &[u64], dst: &[u64], first: u64, seg: &mut [Segment]) -> usize {
    plan::to_ram(src, dst, first, seg).expect("a plan") as usize
}

type Plan = fn(&[u64], &[u64], u64, &mut [Segment]) -> usize;

/// One shape of memory: its name, the entries, and our limit against naive.
struct Shape {
    name: &'static str,
    src: Vec<u64>,
    dst: Vec<u64>,
    limit: f64,
}

fn shape(name: &'static str, limit: f64, page: impl Fn(u64) -> Option<(u64, u64)>) -> Shape {
    let entries = |pick: fn((u64, u64)) -> u64| {
        (0..N as u64)
            .map(|i| page(i).map_or(0, |p| pick(p) << 6))
            .collect::<Vec<u64>>()
    };
    let flag = |e: &u64, flags| if *e == 0 { 0 } else { e | flags };
    Shape {
        name,
        limit,
        src: entries(|p| p.0).iter().map(|e| flag(e, ON | 8)).collect(),
        dst: entries(|p| p.1).iter().map(|e| flag(e, 1 | 8)).collect(),
    }
}

fn shapes() -> Vec<Shape> {
    let mix = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    vec![
        shape("plan, contiguous", 0.5, |i| Some((1000 + i, 5000 + i))),
        shape("plan, 64K runs", 0.8, move |i| {
            Some((1000 + i, (1 + mix(i / 16)) * 16 + i % 16))
        }),
        shape("plan, scattered", 1.0, move |i| {
            Some((1000 + mix(i) * 2, 1 + mix(i + N as u64) * 2))
        }),
        shape("plan, half holes", 1.0, move |i| {
            (mix(i / 3) % 2 == 0).then_some((1000 + i, 5000 + i))
        }),
        shape("plan, every other", 1.0, |i| {
            (i % 2 == 0).then_some((1000 + i, 5000 + i))
        }),
        shape("plan, nothing", 1.0, |_| None),
    ]
}

fn measure(c: &mut Criterion, shape: &Shape, side: &'static str, plan: Plan) {
    let mut seg = vec![Segment::default(); N];
    c.benchmark_group(shape.name)
        .bench_function(BenchmarkId::from_parameter(side), |b| {
            b.iter_custom(|n| {
                let start = cpu_time();
                for _ in 0..n {
                    black_box(plan(
                        black_box(&shape.src),
                        black_box(&shape.dst),
                        1000,
                        &mut seg,
                    ));
                }
                let time = cpu_time() - start;
                record(shape.name, side, n * N as u64, time)
            })
        });
}

/// A 2 MiB folio on both sides: one entry, and 511 that are skipped.
fn compound(c: &mut Criterion) {
    let (mut src, mut dst) = (vec![0; N], vec![0; N]);
    (src[0], dst[0]) = (5120 << 6 | ON | 16, 2048 << 6 | 1 | 16);
    let mut seg = vec![Segment::default(); N];
    c.benchmark_group(COMPOUND).bench_function("planner", |b| {
        b.iter_custom(|n| {
            let start = cpu_time();
            for _ in 0..n {
                black_box(ours(black_box(&src), black_box(&dst), 1000, &mut seg));
            }
            record(COMPOUND, "planner", n, cpu_time() - start)
        })
    });
    assert_eq!((seg[0].src, seg[0].dst, seg[0].npages), (4120, 2048, 512));
    rows::note(COMPOUND, "10 ns", 10.0);
}

const COMPOUND: &str = "plan, a 2M compound entry";

fn main() {
    let mut c = rows::criterion();
    let shapes = shapes();
    for shape in &shapes {
        let (mut a, mut b) = (vec![Segment::default(); N], vec![Segment::default(); N]);
        let (n, m) = (
            ours(&shape.src, &shape.dst, 1000, &mut a),
            naive(&shape.src, &shape.dst, 1000, &mut b),
        );
        assert_eq!(a[..n], b[..m], "{}: both sides say the same", shape.name);
        // In turns: what else the machine does meets both.
        for _ in 0..3 {
            measure(&mut c, shape, "planner", ours);
            measure(&mut c, shape, "naive", naive);
        }
    }
    c.final_summary();
    compound(&mut c);
    let mut rows: Vec<Row> = shapes
        .iter()
        .map(|shape| row(shape.name, "planner", "naive", Limit::Most(shape.limit)))
        .collect();
    rows.push(row(COMPOUND, "planner", "10 ns", Limit::Most(1.0)));
    rows::finish("plan", &rows);
}
