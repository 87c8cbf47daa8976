// SPDX-License-Identifier: GPL-2.0
//! What the core would have made of a recording: its fault windows, run again on the host.

use hmm_devmem::window;
use hmm_simulate::trace::{Cause, Trace, What};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;

/// Pages in a 2 MiB block, which a window does not leave.
const BLOCK: u64 = 512;
/// A window table for a device of so many pages.
const DEVICE: u64 = 65_536;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// CPU faults.
    pub faults: u64,
    /// Pages that came to RAM by them.
    pub pages: u64,
    /// Of these, those that were not touched before they went to the device again.
    pub wasted: u64,
}

/// One address space.
#[derive(Default)]
struct Space {
    resident: BTreeSet<u64>,
    /// In RAM thanks to a window, and not touched yet.
    early: BTreeSet<u64>,
}

fn take(set: &mut BTreeSet<u64>, first: u64, end: u64) -> Vec<u64> {
    let found: Vec<u64> = set.range(first..end).copied().collect();
    found.iter().for_each(|page| {
        set.remove(page);
    });
    found
}

/// Follows what the program and the device did; what CPU faults bring back is decided by the core,
/// with windows of at most `max` pages, a power of two up to 512.
#[must_use]
pub fn run(trace: &Trace, max: u32) -> Outcome {
    let table: Vec<AtomicU64> = (0..window::table_words(DEVICE))
        .map(|_| AtomicU64::new(0))
        .collect();
    window::format(&table);
    let mut spaces = BTreeMap::<u64, Space>::new();
    let mut outcome = Outcome::default();
    for event in &trace.events {
        let space = spaces.entry(event.space).or_default();
        let (first, end) = (event.page, event.page + event.npages);
        match event.what {
            What::In => {
                outcome.wasted += take(&mut space.early, first, end).len() as u64;
                space.resident.extend(first..end);
            }
            What::Cpu => {
                for page in first..end {
                    space.early.remove(&page);
                    if !space.resident.contains(&page) {
                        continue;
                    }
                    let low = page / BLOCK * BLOCK;
                    let window = window::fault(&table, event.space, page, low, low + BLOCK, max);
                    let came = take(
                        &mut space.resident,
                        window.first,
                        window.first + window.npages,
                    );
                    outcome.faults += 1;
                    outcome.pages += came.len() as u64;
                    space
                        .early
                        .extend(came.into_iter().filter(|&other| other != page));
                }
            }
            What::Out(Some(Cause::Request)) | What::Gone => {
                take(&mut space.resident, first, end);
                take(&mut space.early, first, end);
            }
            // Those are for the core to decide; what the device uses moves nothing.
            What::Out(_) | What::Dev => {}
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(events: &str) -> Trace {
        Trace::parse(&format!("hmm-trace 1 window=1\n{events}")).expect("a trace")
    }

    /// All of a block goes; then the CPU goes through it.
    fn in_order(rounds: u64) -> Trace {
        let mut events = String::new();
        for round in 0..rounds {
            events += &format!("{} in 7 1000 512\n", round * 10_000);
            for page in 0x1000..0x1200 {
                events += &format!("{} cpu 7 {page:x} 1\n", round * 10_000 + page - 0xfff);
            }
        }
        trace(&events)
    }

    #[test]
    fn windows_spare_faults_of_who_goes_in_order() {
        let none = run(&in_order(3), 1);
        assert_eq!((none.faults, none.pages, none.wasted), (1536, 1536, 0));
        let some = run(&in_order(3), 512);
        assert!(some.faults < none.faults / 10, "{some:?}");
        assert_eq!((some.pages, some.wasted), (1536, 0));
    }

    #[test]
    fn what_nobody_wanted_is_waste() {
        let wasteful = "0 in 7 1000 512\n1 cpu 7 1000 1\n2 in 7 1000 512\n";
        let outcome = run(&trace(wasteful), 512);
        assert_eq!(outcome.faults, 1);
        assert!(
            outcome.wasted > 0 && outcome.wasted + 1 == outcome.pages,
            "{outcome:?}"
        );
    }

    #[test]
    fn what_is_gone_or_asked_home_does_not_fault() {
        for away in ["1 gone 7 0 8192", "1 out 7 1000 512 request"] {
            let events = format!("0 in 7 1000 512\n{away}\n2 cpu 7 1000 1\n");
            assert_eq!(run(&trace(&events), 64), Outcome::default(), "{away}");
        }
        let other = "0 in 7 1000 512\n1 out 7 1000 512 fault\n2 cpu 7 1000 1\n3 cpu 8 1000 1\n";
        assert_eq!(run(&trace(other), 1).faults, 1);
    }
}
