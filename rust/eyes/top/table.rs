// SPDX-License-Identifier: GPL-2.0
//! The same figures for pipes: a table, and JSON.

use crate::state::{Row, State};
use hmm_eyes::counters::{Counters, Region};
use hmm_eyes::places::Share;
use hmm_eyes::{PAGE, size};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// A share, or a dash where there is nothing to share.
pub fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{share:.0}%"))
}

/// What a process has on a device; a question mark where that cannot be seen.
pub fn on_device(row: &Row) -> String {
    let bytes = |share: Share| size(((share.small + share.huge) * PAGE) as f64);
    row.share.map_or_else(|| "?".to_owned(), bytes)
}

/// How full a region is, in percent.
pub fn used(region: &Region) -> f64 {
    let total = region.frames.get("total").max(1);
    (total - region.frames.get("free").min(total)) as f64 * 100.0 / total as f64
}

pub fn text(state: &State) -> String {
    let mut out = format!(
        "{:<3} {:<16} {:<8} {:>6} {:>6} {:>6} {:>6} {:>5} {:>5} {:>7} {:>7} {:>8} {:>6} {:>8} {:>7}\n",
        "NR",
        "DEVICE",
        "KIND",
        "SIZE",
        "USED",
        "FREE",
        "IN 2M",
        "FRAG",
        "CLAIM",
        "TODEV/s",
        "TORAM/s",
        "FAULTS/s",
        "SPARED",
        "RETURNED",
        "EVICTED"
    );
    for region in state.regions() {
        let rates = state.rates(region);
        let _ = writeln!(
            out,
            "{:<3} {:<16} {:<8} {:>6} {:>5.0}% {:>6} {:>6} {:>4.0}% {:>5} {:>7} {:>7} {:>8.0} {:>6} {:>8} {:>7}",
            region.number,
            region.device,
            region.kind,
            size(region.bytes("total") as f64),
            used(region),
            size(region.bytes("free") as f64),
            size((region.free_in_blocks() * PAGE) as f64),
            region.fragmentation(),
            region.frames.get("claimed"),
            size(rates.to_device),
            size(rates.to_ram),
            rates.faults,
            percent(rates.spared),
            percent(rates.returned),
            size((region.stats.get("to_ram_evict") * PAGE) as f64),
        );
    }
    let rows = state.rows();
    if !rows.is_empty() {
        let _ = writeln!(
            out,
            "\n{:<3} {:>8} {:<16} {:>7} {:>7} {:>7} {:>8} {:>7} {:>7}",
            "NR", "PROCESS", "NAME", "ON DEV", "TODEV/s", "TORAM/s", "FAULTS/s", "TO DEV", "TO RAM"
        );
    }
    for row in rows {
        let _ = writeln!(
            out,
            "{:<3} {:>8} {:<16} {:>7} {:>7} {:>7} {:>8.0} {:>7} {:>7}",
            row.device,
            row.process,
            row.name,
            on_device(&row),
            size(row.rates.to_device),
            size(row.rates.to_ram),
            row.rates.faults,
            size((row.to_device * PAGE) as f64),
            size((row.to_ram * PAGE) as f64),
        );
    }
    out
}

fn object(counters: &Counters) -> Value {
    let pairs = counters.0.iter().map(|(key, &n)| (key.clone(), n.into()));
    Value::Object(pairs.collect::<Map<_, _>>())
}

pub fn json(state: &State) -> Value {
    let regions: Vec<Value> = state
        .regions()
        .iter()
        .map(|region| {
            let rates = state.rates(region);
            json!({
                "number": region.number,
                "device": region.device,
                "kind": region.kind,
                "frames": object(&region.frames),
                "stats": object(&region.stats),
                "fragmentation_percent": region.fragmentation(),
                "bytes_to_device_per_second": rates.to_device,
                "bytes_to_ram_per_second": rates.to_ram,
                "faults_per_second": rates.faults,
                "spared_percent": rates.spared,
                "returned_percent": rates.returned,
                "pages_in_huge": state.huge(region),
            })
        })
        .collect();
    let processes: Vec<Value> = state
        .rows()
        .iter()
        .map(|row| {
            json!({
                "region": row.device.parse::<u64>().ok(),
                "process": row.process,
                "name": row.name,
                "bytes_to_device_per_second": row.rates.to_device,
                "bytes_to_ram_per_second": row.rates.to_ram,
                "faults_per_second": row.rates.faults,
                "pages_on_device": row.share.map(|share| share.small + share.huge),
                "pages_to_device": row.to_device,
                "pages_to_ram": row.to_ram,
            })
        })
        .collect();
    json!({ "regions": regions, "processes": processes })
}
