// SPDX-License-Identifier: GPL-2.0
//! What happened between two readings of the same counters.

use crate::PAGE;
use crate::counters::{Counters, Region, Snapshot};

/// Pages that came to RAM, whatever the reason.
#[must_use]
pub fn to_ram(stats: &Counters) -> u64 {
    let all = stats.0.iter();
    all.filter(|(key, _)| key.starts_with("to_ram_"))
        .map(|(_, n)| n)
        .sum()
}

/// Per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Bytes moved to the device.
    pub to_device: f64,
    /// Bytes moved to RAM.
    pub to_ram: f64,
    /// CPU faults served.
    pub faults: f64,
    /// Of the pages that CPU faults brought home, how many came along before they were missed, in
    /// percent; nothing if there was no fault.
    pub spared: Option<f64>,
    /// Of the pages that moved to the device, how many CPU faults brought back meanwhile, in
    /// percent: near 100, the two sides fight for the same memory.
    pub returned: Option<f64>,
}

impl Rates {
    /// From `before` to `after`, `seconds` later.
    #[must_use]
    pub fn between(before: &Counters, after: &Counters, seconds: f64) -> Self {
        let grown = |key| after.since(before, key);
        let rate = |n: u64| n as f64 / seconds.max(1e-3);
        let (faults, by_fault) = (grown("cpu_faults"), grown("to_ram_fault"));
        let to_device = grown("to_device");
        let share = |part: u64, whole: u64| {
            (whole != 0).then(|| part.min(whole) as f64 * 100.0 / whole as f64)
        };
        Self {
            to_device: rate(to_device * PAGE),
            to_ram: rate(to_ram(after).saturating_sub(to_ram(before)) * PAGE),
            faults: rate(faults),
            spared: share(by_fault.saturating_sub(faults), by_fault),
            returned: share(by_fault, to_device),
        }
    }

    /// Of a region, since an earlier snapshot; of all its life if it was not there yet.
    #[must_use]
    pub fn of_region(before: Option<&Snapshot>, region: &Region, seconds: f64) -> Self {
        Self::between(&earlier(before, region).stats, &region.stats, seconds)
    }

    /// Of one of its processes.
    #[must_use]
    pub fn of_process(before: Option<&Snapshot>, region: &Region, id: u64, seconds: f64) -> Self {
        let find = |region: &Region| {
            let found = region.processes.iter().find(|process| process.id == id);
            found.map(|process| process.stats.clone())
        };
        let now = find(region).unwrap_or_default();
        Self::between(
            &find(&earlier(before, region)).unwrap_or_default(),
            &now,
            seconds,
        )
    }
}

/// The region as it was; without a snapshot as it is, so that nothing has happened since.
fn earlier(before: Option<&Snapshot>, region: &Region) -> Region {
    let Some(before) = before else {
        return region.clone();
    };
    let same = |other: &&Region| other.number == region.number;
    before
        .regions
        .iter()
        .find(same)
        .cloned()
        .unwrap_or_else(|| Region {
            stats: Counters::default(),
            processes: Vec::new(),
            ..region.clone()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(pairs: &[(&str, u64)]) -> Counters {
        Counters(pairs.iter().map(|&(key, n)| (key.to_owned(), n)).collect())
    }

    #[test]
    fn rates_are_per_second_and_in_bytes() {
        let before = counters(&[("to_device", 100), ("to_ram_fault", 10)]);
        let after = counters(&[
            ("to_device", 300),
            ("to_ram_fault", 110),
            ("to_ram_request", 20),
            ("cpu_faults", 25),
        ]);
        let rates = Rates::between(&before, &after, 2.0);
        assert_eq!(rates.to_device, 100.0 * 4096.0);
        assert_eq!(rates.to_ram, 60.0 * 4096.0);
        assert_eq!(rates.faults, 12.5);
        assert_eq!(rates.spared, Some(75.0));
        assert_eq!(rates.returned, Some(50.0));
        let idle = Rates::between(&after, &after, 1.0);
        assert_eq!(idle, Rates::default());
    }

    #[test]
    fn a_counter_that_went_back_is_no_rate() {
        let rates = Rates::between(&counters(&[("to_device", 9)]), &counters(&[]), 1.0);
        assert_eq!(rates.to_device, 0.0);
    }
}
