// SPDX-License-Identifier: GPL-2.0
//! `hmm-replay`: shows a recording of `hmm-record` again, and what other fault windows would have done.

use clap::Parser;
use hmm_eyes::recording::Recording;
use hmm_eyes::{policy, timeline};
use hmm_simulate::trace::Trace;
use serde_json::json;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Shows a recording: how many pages moved, which way and why, over time.
///
/// Then the core runs again, on this machine, with fault windows of several sizes. A recording has
/// every first touch of a page only if it was made with fault_window=1; with larger windows, what
/// came along before it was missed counts as not touched.
#[derive(Parser)]
#[command(name = "hmm-replay", version)]
struct Args {
    /// What hmm-record wrote.
    recording: PathBuf,

    /// A timeline of it, as a picture.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// The same as a page, with the sums.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Largest fault windows to try, in pages.
    #[arg(long, value_name = "PAGES,…", value_delimiter = ',', default_value = "1,16,64,512",
          value_parser = window)]
    windows: Vec<u32>,

    /// Print the sums as one JSON object.
    #[arg(long)]
    json: bool,
}

fn window(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if n.is_power_of_two() && n <= 512 => Ok(n),
        _ => Err("a power of two from 1 to 512".into()),
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hmm-replay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    let named = |file: &PathBuf| {
        let file = file.display().to_string();
        move |why: io::Error| io::Error::new(why.kind(), format!("{file}: {why}"))
    };
    let text = fs::read_to_string(&args.recording).map_err(named(&args.recording))?;
    let recording = Recording::read(text.as_bytes()).map_err(named(&args.recording))?;
    let trace = Trace::parse(&text)
        .map_err(io::Error::other)
        .map_err(named(&args.recording))?;
    let outcomes: Vec<_> = args
        .windows
        .iter()
        .map(|&max| (max, policy::run(&trace, max)))
        .collect();
    let pictures = [
        (&args.svg, timeline::draw as fn(&Recording) -> String),
        (&args.html, timeline::page),
    ];
    for (file, text) in pictures {
        if let Some(file) = file {
            fs::write(file, text(&recording)).map_err(named(file))?;
        }
    }
    let mut out = io::stdout().lock();
    let totals = recording.totals();
    if args.json {
        let moved: Vec<_> = totals
            .iter()
            .map(|((direction, cause), pages)| {
                json!({ "direction": direction, "cause": cause, "pages": pages })
            })
            .collect();
        let replayed: Vec<_> = outcomes
            .iter()
            .map(|(max, o)| {
                json!({ "window": max, "faults": o.faults, "pages": o.pages, "wasted": o.wasted })
            })
            .collect();
        return writeln!(
            out,
            "{}",
            json!({
                "title": recording.title,
                "events": recording.events.len(),
                "lost": recording.lost,
                "moved": moved,
                "recorded_window": trace.window,
                "replayed": replayed,
            })
        );
    }
    writeln!(
        out,
        "{}: {} events",
        recording.title,
        recording.events.len()
    )?;
    for ((direction, cause), pages) in totals {
        writeln!(
            out,
            "  {:<10} {cause:<9} {pages:>9} pages",
            direction.replace('_', " ")
        )?;
    }
    writeln!(
        out,
        "\nreplayed; recorded with windows of at most {}\n  window    faults     pages    wasted",
        trace.window
    )?;
    for (max, o) in outcomes {
        writeln!(
            out,
            "  {max:>6} {:>9} {:>9} {:>9}",
            o.faults, o.pages, o.wasted
        )?;
    }
    Ok(())
}
