// SPDX-License-Identifier: GPL-2.0
//! What all benches share: the clock, the best figures, and rows that set ours
//! beside a peer's.
//!
//! A bench calls [`record`] for times and [`note`] for other figures, each under
//! the name of what is measured and the name of the side, and at its end
//! [`finish`] with its rows. That writes `bench-rows/PART.json` below the output
//! directory; `bench/report.py` joins the parts, prints the table, draws the
//! chart and fails when a row is not ok. `make bench` does all of it.
#![allow(dead_code)]

#[path = "../tests/random.rs"]
pub mod random;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use criterion::Criterion;

/// CPU time of the calling thread: a busy machine shows less in it.
pub fn cpu_time() -> Duration {
    let mut ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid clock and a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut ts) };
    Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32)
}

thread_local! {
    /// The best figure of each (what, side).
    static BEST: RefCell<BTreeMap<(String, String), f64>> = RefCell::default();
}

/// Notes how long `units` took; the best of all calls counts, in nanoseconds per
/// unit. Samples with few units say nothing and are left out. Returns `time`, as
/// criterion wants it back.
pub fn record(what: &str, side: &str, units: u64, time: Duration) -> Duration {
    if units >= 1000 {
        let each = time.as_nanos() as f64 / units as f64;
        BEST.with_borrow_mut(|best| {
            let slot = best
                .entry((what.to_owned(), side.to_owned()))
                .or_insert(f64::MAX);
            *slot = slot.min(each);
        });
    }
    time
}

/// Notes a figure that is not a time, or a limit to compare with.
pub fn note(what: &str, side: &str, value: f64) {
    BEST.with_borrow_mut(|best| best.insert((what.to_owned(), side.to_owned()), value));
}

/// The figure of one side.
pub fn figure(what: &str, side: &str) -> Option<f64> {
    BEST.with_borrow(|best| best.get(&(what.to_owned(), side.to_owned())).copied())
}

/// When a row is ok: how ours / peer has to be.
#[derive(Clone, Copy)]
pub enum Limit {
    /// At most this.
    Most(f64),
    /// At least this.
    Least(f64),
    /// Shown, not judged.
    None,
}

/// A row of the table.
pub struct Row {
    /// What was measured.
    pub what: &'static str,
    /// Our side.
    pub ours: &'static str,
    /// The side it is compared with.
    pub peer: &'static str,
    /// For a peer that is a multiple of something else that was measured: what,
    /// which side, and how many times that.
    pub known: Option<(&'static str, &'static str, f64)>,
    /// What the ratio has to be.
    pub limit: Limit,
    /// The unit of both figures.
    pub unit: &'static str,
}

/// A row of times in nanoseconds.
pub const fn row(what: &'static str, ours: &'static str, peer: &'static str, limit: Limit) -> Row {
    Row {
        what,
        ours,
        peer,
        known: None,
        limit,
        unit: "ns",
    }
}

/// Where results go: `BENCH_OUT`, or `target/`.
pub fn out() -> String {
    std::env::var("BENCH_OUT")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../target").into())
}

/// Criterion as all benches use it: short, and quiet about its own history.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(600))
        .without_plots()
        .configure_from_args()
}

/// Writes this bench's rows. A row whose peer or whose own side was not measured
/// is written without figures, and is not ok if our own side is missing.
pub fn finish(part: &str, rows: &[Row]) {
    let mut json = String::from("[");
    for row in rows {
        let comma = if json.len() > 1 { "," } else { "" };
        let (limit, least) = match row.limit {
            Limit::Most(x) => (x.to_string(), "false"),
            Limit::Least(x) => (x.to_string(), "true"),
            Limit::None => ("null".into(), "false"),
        };
        let ours = figure(row.what, row.ours);
        let (what, side, scale) = row.known.unwrap_or((row.what, row.peer, 1.0));
        let peer = figure(what, side).map(|x| x * scale);
        let text = |x: Option<f64>| x.map_or("null".into(), |x| format!("{x:.4}"));
        let ratio = ours.zip(peer).map(|(ours, peer)| ours / peer);
        let ok = match (ratio, row.limit) {
            (Some(ratio), Limit::Most(limit)) => (ratio <= limit).to_string(),
            (Some(ratio), Limit::Least(limit)) => (ratio >= limit).to_string(),
            (None, Limit::Most(_) | Limit::Least(_)) if ours.is_none() => "false".into(),
            _ => "null".into(),
        };
        let _ = write!(
            json,
            "{comma}\n  {{\"name\": \"{}\", \"ours\": {}, \"side\": \"{}\", \"peer\": \"{}\", \
             \"peer_figure\": {}, \"unit\": \"{}\", \"ratio\": {}, \"limit\": {limit}, \
             \"least\": {least}, \"ok\": {ok}}}",
            row.what,
            text(ours),
            row.ours,
            row.peer,
            text(peer),
            row.unit,
            text(ratio),
        );
    }
    json.push_str("\n]\n");
    let dir = format!("{}/bench-rows", out());
    std::fs::create_dir_all(&dir).expect("a place for the rows");
    std::fs::write(format!("{dir}/{part}.json"), json).expect("room for the rows");
    println!("written: bench-rows/{part}.json");
}
