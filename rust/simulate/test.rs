// SPDX-License-Identifier: GPL-2.0
//! The policies do on traces what they are for, and the checked-in traces are what the
//! generator writes.

use std::path::{Path, PathBuf};

use hmm_simulate::generate::{NAMES, generate};
use hmm_simulate::home::{self, Rule};
use hmm_simulate::room::{self, Order};
use hmm_simulate::trace::Trace;

/// Traces of real programs; their heads say how they were recorded.
const RECORDED: [&str; 2] = ["sort", "sqlite3"];

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/traces")
}

fn read(name: &str) -> Option<Trace> {
    let text = std::fs::read_to_string(place().join(format!("{name}.trace"))).expect(name);
    Trace::parse(&text).ok()
}

fn home(name: &str, rule: Rule) -> home::Home {
    home::replay(&generate(name).expect(name), rule)
}

#[test]
fn checked_in_traces_are_the_generated_ones() {
    for name in NAMES {
        assert_eq!(read(name), generate(name), "{name}: make traces");
    }
    assert!(generate("nothing").is_none());
    for entry in std::fs::read_dir(place()).expect("tests/traces") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(Trace::parse(&text).is_ok(), "{}", path.display());
    }
}

#[test]
fn one_page_never_wastes_and_always_faults() {
    for name in NAMES {
        let home = home(name, Rule::One);
        assert_eq!((home.brought, home.wasted), (home.faults, 0), "{name}");
    }
}

#[test]
fn windows_follow_and_hold_back() {
    for name in ["scan", "down", "strided"] {
        let (one, window) = (home(name, Rule::One), home(name, Rule::Window));
        assert!(window.faults * 20 < one.faults, "{name}: {window:?}");
        assert!(
            name == "strided" || window.waste() < 0.01,
            "{name}: {window:?}"
        );
    }
    for name in ["scattered", "pingpong"] {
        let (window, block) = (home(name, Rule::Window), home(name, Rule::Block));
        assert!(
            window.brought * 2 < block.brought,
            "{name}: {window:?} {block:?}"
        );
    }
    // What the device takes back counts no more: nothing here is worth a larger window.
    for name in ["scattered", "hot", "pingpong"] {
        let (window, fixed) = (home(name, Rule::Window), home(name, Rule::Fixed));
        assert!(
            window.brought * 3 < fixed.brought * 2 && window.waste() < fixed.waste(),
            "{name}: {window:?} {fixed:?}"
        );
    }
    let (density, one) = (home("scan", Rule::Density), home("scan", Rule::One));
    assert!(density.faults * 10 < one.faults && density.waste() < 0.01);
}

/// Programs that nobody wrote for this: a window saves more than half of the faults, and brings
/// less in vain than whole blocks.
#[test]
fn windows_serve_recorded_programs() {
    for name in RECORDED {
        let trace = read(name).expect(name);
        assert_eq!(trace.window, 1, "{name}: recorded with larger windows");
        let [one, block, window, density] = [Rule::One, Rule::Block, Rule::Window, Rule::Density]
            .map(|rule| home::replay(&trace, rule));
        for ours in [window, density] {
            assert!(ours.faults * 2 < one.faults, "{name}: {ours:?} {one:?}");
            assert!(ours.waste() < block.waste(), "{name}: {ours:?} {block:?}");
        }
    }
}

#[test]
fn the_clock_is_near_lru() {
    for name in NAMES.into_iter().chain(RECORDED) {
        let trace = read(name).expect(name);
        let all = room::footprint(&trace);
        for quarters in 1..=4 {
            let [lru, fifo, clock] =
                Order::ALL.map(|order| room::replay(&trace, order, all * quarters / 4));
            assert_eq!((lru.uses, fifo.uses), (clock.uses, clock.uses));
            if quarters == 4 {
                assert_eq!((lru.evicted, clock.evicted), (0, 0), "{name}");
            }
            assert!(
                clock.hits() > lru.hits() - 0.2,
                "{name} {quarters}/4: {clock:?} {lru:?}"
            );
        }
    }
}
