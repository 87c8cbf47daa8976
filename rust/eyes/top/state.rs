// SPDX-License-Identifier: GPL-2.0
//! What is on the screen, apart from how it looks.

use clap::ValueEnum;
use hmm_eyes::counters::{Region, Snapshot, name_of};
use hmm_eyes::places::{Share, shares};
use hmm_eyes::rates::{Rates, to_ram};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Readings kept for the curves.
const HISTORY: usize = 512;

/// By which column processes are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Bytes per second to the device.
    ToDevice,
    /// Bytes per second to RAM.
    ToRam,
    /// CPU faults per second.
    Faults,
    /// Memory on the device.
    Resident,
    /// Pages moved since it opened the device.
    Total,
    /// Number.
    Process,
}

impl Sort {
    pub fn next(self) -> Self {
        match self {
            Self::ToDevice => Self::ToRam,
            Self::ToRam => Self::Faults,
            Self::Faults => Self::Resident,
            Self::Resident => Self::Total,
            Self::Total => Self::Process,
            Self::Process => Self::ToDevice,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::ToDevice => "to device",
            Self::ToRam => "to RAM",
            Self::Faults => "faults",
            Self::Resident => "on device",
            Self::Total => "total",
            Self::Process => "process",
        }
    }
}

/// One line of the list of processes.
pub struct Row {
    pub process: u64,
    pub name: String,
    /// Numbers of the regions it has open.
    pub device: String,
    pub rates: Rates,
    /// What it has there; nothing if its page tables cannot be read.
    pub share: Option<Share>,
    /// Pages moved since it opened the device.
    pub to_device: u64,
    pub to_ram: u64,
}

/// Bytes per second to the device and to RAM, oldest first.
#[derive(Default)]
pub struct History {
    pub to_device: Vec<u64>,
    pub to_ram: Vec<u64>,
}

pub struct State {
    pub interval: Duration,
    pub paused: bool,
    pub help: bool,
    pub sort: Sort,
    pub reverse: bool,
    pub problem: Option<String>,
    now: Snapshot,
    before: Option<Snapshot>,
    /// By process, in the order of the regions.
    shares: BTreeMap<u64, Vec<Share>>,
    chosen: u64,
    history: BTreeMap<u64, History>,
}

impl State {
    pub fn new(now: Snapshot, interval: Duration, sort: Sort) -> Self {
        Self {
            interval,
            paused: false,
            help: false,
            sort,
            reverse: false,
            problem: None,
            chosen: now.regions.first().map_or(0, |region| region.number),
            shares: look(&now),
            now,
            before: None,
            history: BTreeMap::new(),
        }
    }

    /// The next reading.
    pub fn take(&mut self, now: Snapshot) {
        self.shares = look(&now);
        self.before = Some(std::mem::replace(&mut self.now, now));
        self.problem = None;
        for region in &self.now.regions {
            let rates = self.rates(region);
            let history = self.history.entry(region.number).or_default();
            for (curve, rate) in [
                (&mut history.to_device, rates.to_device),
                (&mut history.to_ram, rates.to_ram),
            ] {
                if curve.len() == HISTORY {
                    curve.remove(0);
                }
                curve.push(rate as u64);
            }
        }
        let there = |number| {
            self.now
                .regions
                .iter()
                .any(|region| region.number == number)
        };
        self.history.retain(|&number, _| there(number));
        if !there(self.chosen) {
            self.chosen = self.now.regions.first().map_or(0, |region| region.number);
        }
    }

    pub fn change_interval(&mut self, factor: f64) {
        let seconds = (self.interval.as_secs_f64() * factor).clamp(0.125, 64.0);
        self.interval = Duration::from_secs_f64(seconds);
    }

    /// Go up or down the list of regions.
    pub fn choose(&mut self, step: isize) {
        let all = &self.now.regions;
        let at = all.iter().position(|region| region.number == self.chosen);
        let to = at.unwrap_or(0).saturating_add_signed(step);
        if let Some(region) = all.get(to.min(all.len().saturating_sub(1))) {
            self.chosen = region.number;
        }
    }

    pub fn regions(&self) -> &[Region] {
        &self.now.regions
    }

    pub fn chosen(&self) -> Option<&Region> {
        let is = |region: &&Region| region.number == self.chosen;
        self.now.regions.iter().find(is)
    }

    pub fn history(&self, region: &Region) -> Option<&History> {
        self.history.get(&region.number)
    }

    /// Of what is in a region, what its processes have there in huge pages, in pages of 4 KiB;
    /// nothing if one of them cannot be looked at.
    pub fn huge(&self, region: &Region) -> Option<u64> {
        let is = |other: &Region| other.number == region.number;
        let index = self.now.regions.iter().position(is)?;
        let mut ids = region.processes.iter().map(|process| process.id);
        ids.try_fold(0, |sum, id| Some(sum + self.shares.get(&id)?[index].huge))
    }

    fn seconds(&self) -> f64 {
        let before = self.before.as_ref().map(|before| before.at);
        before.map_or(1.0, |before| (self.now.at - before).as_secs_f64())
    }

    pub fn rates(&self, region: &Region) -> Rates {
        Rates::of_region(self.before.as_ref(), region, self.seconds())
    }

    /// The processes of all regions, sorted; one that has two devices open is there twice.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (index, region) in self.now.regions.iter().enumerate() {
            for process in &region.processes {
                let before = self.before.as_ref();
                rows.push(Row {
                    process: process.id,
                    name: name_of(process.id),
                    device: region.number.to_string(),
                    rates: Rates::of_process(before, region, process.id, self.seconds()),
                    share: self.shares.get(&process.id).map(|all| all[index]),
                    to_device: process.stats.get("to_device"),
                    to_ram: to_ram(&process.stats),
                });
            }
        }
        let by = |a: f64, b: f64| b.total_cmp(&a);
        let there = |row: &Row| row.share.map(|share| share.small + share.huge);
        rows.sort_by(|a, b| match self.sort {
            Sort::ToDevice => by(a.rates.to_device, b.rates.to_device),
            Sort::ToRam => by(a.rates.to_ram, b.rates.to_ram),
            Sort::Faults => by(a.rates.faults, b.rates.faults),
            Sort::Resident => there(b).cmp(&there(a)),
            Sort::Total => (b.to_device + b.to_ram).cmp(&(a.to_device + a.to_ram)),
            Sort::Process => a.process.cmp(&b.process),
        });
        if self.reverse {
            rows.reverse();
        }
        rows
    }
}

/// What every process has on the devices; those that cannot be looked at are left out.
fn look(now: &Snapshot) -> BTreeMap<u64, Vec<Share>> {
    let processes = now.regions.iter().flat_map(|region| &region.processes);
    let ids: BTreeSet<u64> = processes.map(|process| process.id).collect();
    ids.into_iter()
        .filter_map(|id| Some((id, shares(u32::try_from(id).ok()?, &now.regions).ok()?)))
        .collect()
}
