// SPDX-License-Identifier: GPL-2.0
//! `hmm-demo`: real, unmodified programs, plain and under `hmm-run`, their outputs compared byte
//! for byte. Prints lines `HMM-DEMO {json}`; see ../README.md for their fields.

use hmm_eyes::counters;
use hmm_eyes::heat::Heat;
use hmm_eyes::places::Place;
use hmm_eyes::residency::{self, Curve};
use hmm_uapi::Device;
use serde_json::{Value, json};
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const HELP: &str = "\
usage: hmm-demo [--device NODE] [--interval MS] [--dir DIR] programs FILE...
       hmm-demo frames

  programs   sort, xz and sqlite3 on the lines of the files, plain and under hmm-run
  frames     what is in device memory when nobody uses it any more
";

/// Lines given to sort, and bytes given to xz; rows of the table.
const LINES: usize = 150_000;
const XZ_BYTES: usize = 3 << 20;
const ROWS: usize = 100_000;
/// Points of a picture.
const COLUMNS: usize = 60;

struct Demo {
    device: PathBuf,
    interval: String,
    dir: PathBuf,
}

/// One program: what it reads and writes are files, as its output may be large.
struct Act<'a> {
    name: &'a str,
    program: &'a [&'a str],
    input: &'a Path,
}

fn main() -> ExitCode {
    let mut demo = Demo {
        device: "/dev/hmm_dmirror0".into(),
        interval: "50".into(),
        dir: std::env::temp_dir().join("hmm-demo"),
    };
    let mut words = std::env::args().skip(1);
    let mut what = String::new();
    let mut files = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--device" => demo.device = words.next().unwrap_or_default().into(),
            "--interval" => demo.interval = words.next().unwrap_or_default(),
            "--dir" => demo.dir = words.next().unwrap_or_default().into(),
            _ if what.is_empty() => what = word,
            _ => files.push(PathBuf::from(word)),
        }
    }
    let result = match what.as_str() {
        "programs" if !files.is_empty() => demo.programs(&files),
        "frames" => frames(),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hmm-demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tell(event: &Value) {
    println!("HMM-DEMO {event}");
}

/// A number for each line, the same every time, to bring lines into disorder.
fn scramble(index: usize) -> u64 {
    let mut z = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 20
}

impl Demo {
    fn programs(&self, files: &[PathBuf]) -> Result<bool> {
        fs::create_dir_all(&self.dir)?;
        let mut text = String::new();
        for file in files {
            text += &String::from_utf8_lossy(&fs::read(file)?);
        }
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            return Err("the files have no lines".into());
        }
        let words = self.write("lines", |out| {
            (0..LINES)
                .try_for_each(|i| writeln!(out, "{:011} {}", scramble(i), lines[i % lines.len()]))
        })?;
        let plain = self.write("text", |out| {
            let bytes = text.as_bytes().iter().cycle().take(XZ_BYTES);
            out.write_all(&bytes.copied().collect::<Vec<_>>())
        })?;
        let rows = self.write("rows", |out| rows(out, &lines))?;
        let sql = self.write("sql", |out| sql(out, &rows))?;

        let mut fine = true;
        let mut curves = Vec::new();
        let mut perform = |name: &str, program: &[&str], input: &Path| -> Result<()> {
            let (same, curve) = self.perform(&Act {
                name,
                program,
                input,
            })?;
            fine &= same;
            curves.push(curve);
            Ok(())
        };
        let packed = self.dir.join("xz.out");
        perform("sort", &["sort"], &words)?;
        perform("xz", &["xz", "-2", "-c"], &plain)?;
        perform("xz -d", &["xz", "-d", "-c"], &packed)?;
        perform("sqlite3", &["sqlite3", "-batch", ":memory:"], &sql)?;
        if fs::read(self.dir.join("xz -d.out"))? != fs::read(&plain)? {
            eprintln!("hmm-demo: what xz unpacked is not what it packed");
            fine = false;
        }
        if !fs::read_to_string(self.dir.join("sqlite3.out"))?.ends_with("ok\n") {
            eprintln!("hmm-demo: the integrity check of sqlite3 is not ok");
            fine = false;
        }
        let picture = residency::draw("Unmodified programs under hmm-run", &curves);
        tell(&json!({"kind": "file", "name": "residency.svg", "text": picture}));
        self.pictures(&sql)?;
        fs::remove_dir_all(&self.dir)?;
        Ok(fine)
    }

    /// sqlite3 under hmm-run again, looked at with hmm-record, hmmtop and what hmm-map is made of.
    fn pictures(&self, sql: &Path) -> Result<()> {
        let path = |name: &str| self.dir.join(name);
        let mut top = Command::new("hmmtop")
            .args(["--interval", "0.2", "--frames", "15", "--svg"])
            .arg(path("hmmtop.svg"))
            .spawn()?;
        let mut recorder = Command::new("hmm-record")
            .args(["--title", "sqlite3 under hmm-run", "--svg"])
            .arg(path("timeline.svg"))
            .arg("--html")
            .arg(path("timeline.html"))
            .arg("--out")
            .arg(path("recording"))
            .args([
                "--",
                "hmm-run",
                "--quiet",
                "--interval",
                &self.interval,
                "--device",
            ])
            .arg(&self.device)
            .args(["--", "sqlite3", "-batch", ":memory:"])
            .stdin(Stdio::from(File::open(sql)?))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut best = (0, String::new());
        while recorder.try_wait()?.is_none() {
            // The program may end at any moment: then there is one picture less.
            if let Ok(Some(seen)) = map(best.0) {
                best = seen;
            }
            std::thread::sleep(Duration::from_millis(150));
        }
        let status = recorder.wait()?;
        if !status.success() || !top.wait()?.success() {
            return Err(format!("hmm-record or hmmtop failed; hmm-record: {status}").into());
        }
        fs::write(path("map.svg"), best.1)?;
        for name in ["timeline.svg", "timeline.html", "hmmtop.svg", "map.svg"] {
            let text = fs::read_to_string(path(name))?;
            // Nothing was seen on the device: there is no map.
            if text.is_empty() {
                continue;
            }
            tell(&json!({"kind": "file", "name": name, "text": text}));
        }
        Ok(())
    }

    fn write(
        &self,
        name: &str,
        fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> Result<PathBuf> {
        let path = self.dir.join(name);
        let mut out = BufWriter::new(File::create(&path)?);
        fill(&mut out)?;
        out.flush()?;
        Ok(path)
    }

    /// Runs a program plain and under hmm-run and tells of both.
    fn perform(&self, act: &Act) -> Result<(bool, Curve)> {
        let path = |end: &str| self.dir.join(format!("{}.{end}", act.name));
        let (plain, moved, figures, places) =
            (path("plain"), path("out"), path("json"), path("places"));
        let plain_time = run(
            Command::new(act.program[0]).args(&act.program[1..]),
            act,
            &plain,
        )?;
        let mut command = Command::new("hmm-run");
        command.arg("--quiet").arg("--device").arg(&self.device);
        command.arg("--interval").arg(&self.interval);
        command
            .arg("--json")
            .arg(&figures)
            .arg("--residency")
            .arg(&places);
        command.arg("--").args(act.program);
        let moved_time = run(&mut command, act, &moved)?;

        let identical = fs::read(&plain)? == fs::read(&moved)?;
        let figures: Value = serde_json::from_slice(&fs::read(&figures)?)?;
        tell(&json!({
            "kind": "run",
            "name": act.name,
            "plain_ms": plain_time.as_millis(),
            "device_ms": moved_time.as_millis(),
            "to_device": figures["pages_to_device"],
            "to_ram": figures["pages_to_ram"],
            "faults": figures["cpu_faults"],
            "peak_resident": figures["peak_resident"],
            "rounds": figures["rounds"],
            "blocks_collapsed": figures["blocks_collapsed"],
            "ns_to_device": figures["ns_to_device"],
            "ns_to_ram": figures["ns_to_ram"],
            "residency": figures["residency"],
            "output_bytes": fs::metadata(&moved)?.len(),
            "identical": identical,
        }));
        let points = points(&fs::read_to_string(&places)?);
        tell(&picture(act.name, &points));
        fs::remove_file(&plain)?;
        if !identical {
            eprintln!("hmm-demo: the output of {} differs under hmm-run", act.name);
        }
        let curve = Curve {
            name: act.name.into(),
            points,
        };
        Ok((identical, curve))
    }
}

/// A picture of the process that has most on the devices, if it is more than `least` pages.
fn map(least: u64) -> Result<Option<(u64, String)>> {
    let regions = counters::read(Path::new(counters::ROOT))?.regions;
    let processes = regions.iter().flat_map(|region| &region.processes);
    let busy = processes
        .max_by_key(|process| process.stats.get("to_device"))
        .ok_or("no process")?;
    let id = u32::try_from(busy.id)?;
    let title = format!("{} under hmm-run", counters::name_of(busy.id));
    let heat = Heat::of(id, false, &regions, &title, (96, 40))?;
    let is_there = |place: &Place| matches!(place, Place::Device(..));
    let tally = heat.tally();
    let pages = tally.iter().filter(|(place, _)| is_there(place));
    let pages = pages.map(|(_, pages)| pages).sum();
    Ok((pages > least).then(|| (pages, heat.svg(&regions))))
}

fn run(command: &mut Command, act: &Act, output: &Path) -> Result<Duration> {
    let begin = Instant::now();
    let status = command
        .env("LC_ALL", "C")
        .stdin(Stdio::from(File::open(act.input)?))
        .stdout(Stdio::from(File::create(output)?))
        .status()
        .map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    if !status.success() {
        return Err(format!("{}: {status}", act.name).into());
    }
    Ok(begin.elapsed())
}

/// What is inserted: a number, a part and a text, separated by tabs.
fn rows(out: &mut impl Write, lines: &[&str]) -> std::io::Result<()> {
    for row in 0..ROWS {
        let line = lines[row % lines.len()];
        let text: String = line
            .chars()
            .map(|c| if c == '\t' { ' ' } else { c })
            .take(40)
            .collect();
        writeln!(out, "{row}\t{}\t{text}", scramble(row) % 1000)?;
    }
    Ok(())
}

/// A table of the rows, a smaller one, a join of both, and a check of everything.
fn sql(out: &mut impl Write, rows: &Path) -> std::io::Result<()> {
    write!(
        out,
        "create table word(id integer primary key, part integer, text);\n\
         create table part(part integer primary key, name);\n\
         .mode ascii\n\
         .separator \"\\t\" \"\\n\"\n\
         .import {} word\n\
         .mode list\n\
         .separator |\n\
         insert into part select distinct part, 'part ' || part * 7919 % 1009 from word;\n\
         create index by_part on word(part);\n\
         select count(*) from word;\n\
         select name, count(*), sum(length(text)), min(text), max(word.id)\n\
         from word join part using(part) group by name order by name;\n\
         pragma integrity_check;\n",
        rows.display()
    )
}

/// The lines that hmm-run writes about residency: milliseconds, and pages on the device from then on.
fn points(lines: &str) -> Vec<(u64, u64)> {
    let mut points: Vec<(u64, u64)> = Vec::new();
    for line in lines.lines() {
        if let Ok(line) = serde_json::from_str::<Value>(line) {
            let number = |key: &str| line[key].as_u64().unwrap_or(0);
            points.push((number("ms"), number("on_device")));
            points.push((number("end_ms"), number("on_device_after")));
        }
    }
    points
}

/// Points at equal distances.
fn picture(name: &str, points: &[(u64, u64)]) -> Value {
    let last = points.last().map_or(0, |point| point.0);
    let columns = COLUMNS.min(points.len() * 4);
    let ms: Vec<u64> = (1..=columns as u64)
        .map(|c| last * c / columns as u64)
        .collect();
    let resident: Vec<u64> = ms
        .iter()
        .map(|&ms| {
            points
                .iter()
                .rev()
                .find(|point| point.0 <= ms)
                .map_or(0, |point| point.1)
        })
        .collect();
    json!({"kind": "picture", "name": name, "resident": resident, "ms": ms})
}

/// Nobody is there any more: every frame has to be free.
fn frames() -> Result<bool> {
    let mut sums = [0_u64; 4];
    for path in Device::list()
        .into_iter()
        .chain(Device::list_of("hmm_vram"))
    {
        let end = Instant::now() + Duration::from_secs(10);
        let device = Device::open(&path)?;
        // Pages of the last process go when the kernel gets to it.
        let info = loop {
            let info = device.info()?;
            if info.frames_free == info.frames_total || Instant::now() > end {
                break info;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let here = [
            info.frames_total,
            info.frames_free,
            info.frames_claimed,
            info.frames_resident,
        ];
        sums.iter_mut()
            .zip(here)
            .for_each(|(sum, frames)| *sum += frames);
    }
    let [total, free, claimed, resident] = sums;
    let leaked = claimed + resident;
    let lost = total.saturating_sub(free + leaked);
    tell(&json!({
        "kind": "device", "total": total, "free": free, "claimed": claimed,
        "resident": resident, "lost": lost, "leaked": leaked,
    }));
    Ok(total != 0 && lost == 0 && leaked == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_holds_what_was_there() {
        let lines = "{\"ms\":0,\"end_ms\":50,\"on_device\":0,\"on_device_after\":8}\n\
                     {\"ms\":100,\"end_ms\":120,\"on_device\":4,\"on_device_after\":6}\n";
        let picture = picture("x", &points(lines));
        let ms: Vec<_> = picture["ms"]
            .as_array()
            .unwrap()
            .iter()
            .map(Value::as_u64)
            .collect();
        assert_eq!(ms.len(), 16);
        assert_eq!(ms[15], Some(120));
        let resident = picture["resident"].as_array().unwrap();
        assert_eq!(resident[0], 0);
        assert_eq!(resident[7], 8);
        assert_eq!(resident[15], 6);
    }

    #[test]
    fn nothing_seen_is_an_empty_picture() {
        assert_eq!(picture("x", &points(""))["resident"], json!([]));
    }

    #[test]
    fn rows_have_three_fields() {
        let mut all = Vec::new();
        rows(&mut all, &["it's", "a\ttab"]).unwrap();
        let all = String::from_utf8(all).unwrap();
        assert_eq!(all.lines().count(), ROWS);
        assert!(all.lines().all(|line| line.split('\t').count() == 3));
    }
}
