// SPDX-License-Identifier: GPL-2.0
//! Replays traces of faults against the core's policies and against what they have to
//! beat: a table, and JSON.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use hmm_simulate::home::{self, Rule};
use hmm_simulate::room::{self, Order};
use hmm_simulate::{generate, trace::Trace};
use serde_json::{Value, json};

/// Replay traces of faults (the format: rust/simulate/trace.rs) under several policies.
///
/// Home: of the pages that the CPU touched, how many were at home already, and of those
/// that were brought home, how many nobody wanted. Room: of the pages that the device used,
/// how many were there, in a quarter, half and three quarters of the memory that would hold
/// all, and of those that had to go, how many came back.
#[derive(Parser)]
struct Arguments {
    /// Trace files; all that can be generated if none is named
    traces: Vec<PathBuf>,
    /// Also write the figures as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the traces that can be generated into this directory, and end
    #[arg(long)]
    generate: Option<PathBuf>,
}

fn load(path: &Path) -> Result<(String, Trace), String> {
    let say = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| say(&e))?;
    let trace = Trace::parse(&text).map_err(|e| say(&e))?;
    if trace.window != 1 {
        eprintln!(
            "{}: recorded with windows of {} pages: touches of what came along are missing",
            path.display(),
            trace.window
        );
    }
    let name = path
        .file_stem()
        .map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    Ok((name, trace))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A line for each policy, and the same as JSON.
fn replay(name: &str, trace: &Trace, text: &mut String, rows: &mut Vec<Value>) {
    let mut line = |cells: [&str; 7]| {
        let [a, b, c, d, e, f, g] = cells;
        let _ = writeln!(text, "{a:<12} {b:<16} {c:>9} {d:>9} {e:>9} {f:>9} {g:>9}");
    };
    line([
        name, "home", "touches", "faults", "hits", "brought", "wasted",
    ]);
    for rule in Rule::ALL {
        let home = home::replay(trace, rule);
        let n = [home.touches, home.faults, home.brought].map(|n| n.to_string());
        let (hits, waste) = (percent(home.hits()), percent(home.waste()));
        line(["", rule.name(), &n[0], &n[1], &hits, &n[2], &waste]);
        rows.push(json!({
            "trace": name, "question": "home", "policy": rule.name(), "touches": home.touches,
            "faults": home.faults, "brought": home.brought, "wasted": home.wasted,
            "hit_rate": home.hits(), "waste": home.waste(),
        }));
    }
    line(["", "room", "uses", "misses", "hits", "evicted", "wasted"]);
    let all = room::footprint(trace);
    for quarters in 1..4 {
        for order in Order::ALL {
            let room = room::replay(trace, order, all * quarters / 4);
            let what = format!("{} in {quarters}/4", order.name());
            let n = [room.uses, room.misses, room.evicted].map(|n| n.to_string());
            let (hits, waste) = (percent(room.hits()), percent(room.waste()));
            line(["", &what, &n[0], &n[1], &hits, &n[2], &waste]);
            rows.push(json!({
                "trace": name, "question": "room", "policy": order.name(), "quarters": quarters,
                "uses": room.uses, "misses": room.misses, "evicted": room.evicted,
                "wasted": room.wasted, "hit_rate": room.hits(), "waste": room.waste(),
            }));
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let generated = || {
        generate::NAMES
            .iter()
            .filter_map(|n| Some((*n, generate::generate(n)?)))
    };
    if let Some(place) = &arguments.generate {
        for (name, trace) in generated() {
            let path = place.join(format!("{name}.trace"));
            let text =
                trace
                    .to_string()
                    .replacen('\n', "\n# SPDX-License-Identifier: GPL-2.0\n", 1);
            std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        return Ok(());
    }
    let traces: Vec<(String, Trace)> = if arguments.traces.is_empty() {
        generated()
            .map(|(name, trace)| (name.to_owned(), trace))
            .collect()
    } else {
        arguments
            .traces
            .iter()
            .map(|path| load(path))
            .collect::<Result<_, _>>()?
    };
    let (mut text, mut rows) = (String::new(), Vec::new());
    for (name, trace) in &traces {
        replay(name, trace, &mut text, &mut rows);
        text.push('\n');
    }
    print!("{text}");
    if let Some(path) = &arguments.json {
        let json = format!("{:#}\n", Value::Array(rows));
        std::fs::write(path, json).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("written: {}", path.display());
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("hmm-simulate: {why}");
            ExitCode::FAILURE
        }
    }
}
