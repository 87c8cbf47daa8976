// SPDX-License-Identifier: GPL-2.0
//! The planner against the plainest coalescing loop, one entry after the other,
//! on the shapes of memory that matter: one run, 64K runs, nothing adjacent,
//! half holes, one huge page.
//!
//! `cargo bench -p hmm-bench --bench plan`, or `make bench`. The table at the end shows the
//! best time per entry; `target/bench-plan.json` has the same.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use hmm_devmem::plan;
use hmm_devmem::types::Segment;

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
        shape("contiguous", 0.5, |i| Some((1000 + i, 5000 + i))),
        shape("64K runs", 0.8, move |i| {
            Some((1000 + i, (1 + mix(i / 16)) * 16 + i % 16))
        }),
        shape("scattered", 1.0, move |i| {
            Some((1000 + mix(i) * 2, 1 + mix(i + N as u64) * 2))
        }),
        shape("half holes", 1.0, move |i| {
            (mix(i / 3) % 2 == 0).then_some((1000 + i, 5000 + i))
        }),
        shape("every other", 1.0, |i| {
            (i % 2 == 0).then_some((1000 + i, 5000 + i))
        }),
        shape("nothing", 1.0, |_| None),
    ]
}

thread_local! {
    static BEST: RefCell<BTreeMap<(String, &'static str), f64>> = RefCell::default();
}

fn measure(c: &mut Criterion, shape: &Shape, side: &'static str, plan: Plan) {
    let mut seg = vec![Segment::default(); N];
    c.benchmark_group(shape.name)
        .bench_function(BenchmarkId::from_parameter(side), |b| {
            b.iter_custom(|n| {
                let start = Instant::now();
                for _ in 0..n {
                    black_box(plan(
                        black_box(&shape.src),
                        black_box(&shape.dst),
                        1000,
                        &mut seg,
                    ));
                }
                let time = start.elapsed();
                if n >= 100 {
                    let each = time.as_nanos() as f64 / n as f64 / N as f64;
                    BEST.with_borrow_mut(|best| {
                        let slot = best.entry((shape.name.into(), side)).or_insert(f64::MAX);
                        *slot = slot.min(each);
                    });
                }
                time
            })
        });
}

fn main() {
    let mut c = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .without_plots()
        .configure_from_args();
    let shapes = shapes();
    for shape in &shapes {
        let (mut a, mut b) = (vec![Segment::default(); N], vec![Segment::default(); N]);
        let (n, m) = (
            ours(&shape.src, &shape.dst, 1000, &mut a),
            naive(&shape.src, &shape.dst, 1000, &mut b),
        );
        assert_eq!(a[..n], b[..m], "{}: both sides say the same", shape.name);
        measure(&mut c, shape, "planner", ours);
        measure(&mut c, shape, "naive", naive);
    }
    c.final_summary();
    println!(
        "\n{:<14} {:>9} {:>9} {:>7} {:>6}",
        "ns per entry", "planner", "naive", "ratio", "limit"
    );
    let mut json = String::from("[");
    BEST.with_borrow(|best| {
        for shape in &shapes {
            let get = |side| best.get(&(shape.name.to_owned(), side)).copied();
            let (Some(ours), Some(naive)) = (get("planner"), get("naive")) else {
                continue;
            };
            let (ratio, ok) = (ours / naive, ours / naive <= shape.limit);
            println!(
                "{:<14} {ours:>9.3} {naive:>9.3} {ratio:>7.3} {:>6.2}  {}",
                shape.name,
                shape.limit,
                if ok { "ok" } else { "MISSED" }
            );
            let comma = if json.len() > 1 { "," } else { "" };
            let _ = write!(
                json,
                "{comma}\n  {{\"name\": \"{}\", \"ours_ns\": {ours:.4}, \"peer\": \"naive\", \
                 \"peer_ns\": {naive:.4}, \"ratio\": {ratio:.4}, \"limit\": {}, \"ok\": {ok}}}",
                shape.name, shape.limit
            );
        }
    });
    json.push_str("\n]\n");
    let target = std::env::var("BENCH_OUT")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../target").into());
    match std::fs::write(format!("{target}/bench-plan.json"), json) {
        Ok(()) => println!("\nwritten: {target}/bench-plan.json"),
        Err(e) => println!("\n{target}/bench-plan.json: {e}"),
    }
}
