// SPDX-License-Identifier: GPL-2.0
//! `hmm-replay`: shows a recording of `hmm-record` again.

use clap::Parser;
use hmm_eyes::recording::Recording;
use hmm_eyes::timeline;
use serde_json::json;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Shows a recording: how many pages moved, which way and why, over time.
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

    /// Print the sums as one JSON object.
    #[arg(long)]
    json: bool,
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
    let file = File::open(&args.recording).map_err(named(&args.recording))?;
    let recording = Recording::read(BufReader::new(file)).map_err(named(&args.recording))?;
    let pictures = [
        (&args.svg, timeline::draw as fn(&Recording) -> String),
        (&args.html, timeline::page),
    ];
    for (file, text) in pictures {
        if let Some(file) = file {
            std::fs::write(file, text(&recording)).map_err(named(file))?;
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
        return writeln!(
            out,
            "{}",
            json!({
                "title": recording.title,
                "events": recording.events.len(),
                "lost": recording.lost,
                "moved": moved,
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
    Ok(())
}
