// SPDX-License-Identifier: GPL-2.0
//! `hmm-map`: where the memory of a process is, as a heat map.

use clap::Parser;
use hmm_eyes::counters::{self, Region};
use hmm_eyes::heat::Heat;
use serde_json::json;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Shows where the memory of a process is: in RAM, on a device, in huge pages or small ones.
///
/// Run it as root: the kernel tells nobody else on which device a page is.
#[derive(Parser)]
#[command(
    name = "hmm-map",
    version,
    after_help = "Letters: . never touched, r RAM, a to h a device, x RAM for a device alone, \
                  m on its way, s swapped out, o another device; capitals: huge pages (known since \
                  Linux 6.7).\n\n\
                  Example: hmm-map --watch 0.5 --svg frame.svg $(pidof sort)"
)]
struct Args {
    /// The process.
    process: u32,

    /// Mappings of files and of the kernel, too.
    #[arg(long)]
    all: bool,

    /// Write a picture to FILE.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Write a picture of points to FILE; wants the program rsvg-convert.
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,

    /// Print pages by place as one JSON object, and one for each mapping in it.
    #[arg(long)]
    json: bool,

    /// Again every so many seconds, until the process ends. Pictures get a number in their name.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    watch: Option<f64>,

    /// Letters in a row.
    #[arg(long, value_name = "N", default_value_t = 76,
          value_parser = clap::value_parser!(u16).range(8..=1000))]
    columns: u16,

    /// Rows to have at most, if there are not more mappings; a letter stands for as many pages as
    /// that takes.
    #[arg(long, value_name = "N", default_value_t = 40,
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    rows: u16,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.01..=3600.0).contains(&n) => Ok(n),
        _ => Err("a number of seconds from 0.01 to 3600".into()),
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hmm-map: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    let Some(pause) = args.watch else {
        return once(args, None);
    };
    for number in 1.. {
        match once(args, Some(number)) {
            Err(error) if number > 1 && error.kind() == io::ErrorKind::NotFound => break,
            other => other?,
        }
        std::thread::sleep(Duration::from_secs_f64(pause));
    }
    Ok(())
}

fn once(args: &Args, number: Option<u32>) -> io::Result<()> {
    // Without the module everything is in RAM or on a disk, and can be shown.
    let regions =
        counters::read(Path::new(counters::ROOT)).map_or_else(|_| Vec::new(), |all| all.regions);
    let name = counters::name_of(args.process.into());
    let title = format!("{name}, process {}", args.process);
    let size = (args.columns.into(), args.rows.into());
    let heat = Heat::of(args.process, args.all, &regions, &title, size)?;

    if let Some(file) = &args.svg {
        write(&numbered(file, number), &heat.svg(&regions))?;
    }
    if let Some(file) = &args.png {
        png(&numbered(file, number), &heat.svg(&regions))?;
    }
    let mut out = io::stdout().lock();
    if args.json {
        return writeln!(out, "{}", object(args, &heat, &regions));
    }
    if args.svg.is_none() && args.png.is_none() {
        let coloured = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        if number.is_some() && coloured {
            write!(out, "\x1b[H\x1b[2J")?;
        }
        write!(out, "{}", heat.text(&regions, coloured))?;
        if !heat.huge_known {
            writeln!(out, "  (this kernel does not tell huge pages)")?;
        }
    }
    Ok(())
}

fn object(args: &Args, heat: &Heat, regions: &[Region]) -> serde_json::Value {
    let places = |tally: &hmm_eyes::heat::Tally| -> serde_json::Value {
        let pairs = tally
            .iter()
            .map(|(place, &n)| (place.name(regions), n.into()));
        serde_json::Value::Object(pairs.collect())
    };
    let mappings: Vec<_> = heat
        .bands
        .iter()
        .map(|band| {
            json!({
                "start": format!("{:#x}", band.mapping.start),
                "end": format!("{:#x}", band.mapping.end),
                "name": band.mapping.name,
                "pages": places(&band.tally),
            })
        })
        .collect();
    json!({
        "process": args.process,
        "huge_pages_known": heat.huge_known,
        "pages": places(&heat.tally()),
        "mappings": mappings,
    })
}

/// `name.svg`, or the so-and-so-manieth of them.
fn numbered(file: &Path, number: Option<u32>) -> PathBuf {
    let Some(number) = number else {
        return file.to_owned();
    };
    let part =
        |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, end) = (part(file.file_stem()), part(file.extension()));
    file.with_file_name(format!("{stem}-{number:04}.{end}"))
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    std::fs::write(file, text).map_err(|why| io::Error::other(format!("{}: {why}", file.display())))
}

fn png(file: &Path, picture: &str) -> io::Result<()> {
    let draft = file.with_extension("svg.tmp");
    write(&draft, picture)?;
    let status = Command::new("rsvg-convert")
        .arg("-o")
        .arg(file)
        .arg(&draft)
        .status();
    let _ = std::fs::remove_file(&draft);
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(io::Error::other(format!("rsvg-convert: {status}"))),
        Err(why) => Err(io::Error::other(format!(
            "rsvg-convert: {why}\nnext: apt-get install librsvg2-bin, or use --svg"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_numbers() {
        assert_eq!(numbered(Path::new("/a/b.svg"), None), Path::new("/a/b.svg"));
        assert_eq!(
            numbered(Path::new("/a/b.svg"), Some(7)),
            Path::new("/a/b-0007.svg")
        );
    }
}
