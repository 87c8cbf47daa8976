// SPDX-License-Identifier: GPL-2.0
//! The figures at the end: a table for people, an object for programs.

use crate::state::{REASONS, State};
use crate::{Args, milliseconds, picture};
use hmm_uapi::{Kind, sys};
use serde_json::{Value, json};
use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const COLUMNS: usize = 60;

/// Why pages stayed; in the order of the ABI.
const REASON_NAMES: [(&str, u32); 7] = [
    ("unmapped", sys::HMM_DMIRROR_SKIP_UNMAPPED),
    ("foreign mapping", sys::HMM_DMIRROR_SKIP_VMA),
    ("busy", sys::HMM_DMIRROR_SKIP_BUSY),
    ("no device memory", sys::HMM_DMIRROR_SKIP_NO_MEMORY),
    ("copy failed", sys::HMM_DMIRROR_SKIP_COPY),
    ("refused", sys::HMM_DMIRROR_SKIP_REFUSED),
    ("never touched", sys::HMM_DMIRROR_SKIP_HOLE),
];

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Exited(i32),
    Killed(i32),
}

impl Outcome {
    /// What a shell would report.
    pub fn status(self) -> u8 {
        let status = match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 + signal,
        };
        u8::try_from(status & 0xff).unwrap_or(u8::MAX)
    }
}

/// Everything worth saying about one run.
pub struct Report {
    program: Vec<String>,
    device: String,
    kind: Kind,
    outcome: Outcome,
    wall: Duration,
    processes: u64,
    not_started: u64,
    rounds: u64,
    to_device: u64,
    to_ram_request: u64,
    to_ram_fault: u64,
    cpu_faults: u64,
    ns_to_device: u64,
    ns_to_ram: u64,
    collapsed: u64,
    peak_resident: u64,
    errors: u64,
    last_errno: u32,
    skipped: [u64; REASONS],
    residency: Vec<u8>,
}

impl Report {
    pub fn new(args: &Args, kind: Kind, outcome: Outcome, wall: Duration, state: &State) -> Self {
        let totals = &state.totals;
        let slots: Vec<_> = state
            .slots
            .iter()
            .map(|slot| (slot.resident.load(Relaxed), slot.present.load(Relaxed)))
            .collect();
        Self {
            program: args
                .program
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            device: args.device.display().to_string(),
            kind,
            outcome,
            wall,
            processes: totals.processes.load(Relaxed),
            not_started: totals.not_started.load(Relaxed),
            rounds: totals.rounds.load(Relaxed),
            to_device: totals.to_device.load(Relaxed),
            to_ram_request: totals.to_ram_request.load(Relaxed),
            to_ram_fault: totals.to_ram_fault.load(Relaxed),
            cpu_faults: totals.cpu_faults.load(Relaxed),
            ns_to_device: totals.ns_to_device.load(Relaxed),
            ns_to_ram: totals.ns_to_ram.load(Relaxed),
            collapsed: totals.collapsed.load(Relaxed),
            peak_resident: totals.peak_resident.load(Relaxed),
            errors: totals.errors.load(Relaxed),
            last_errno: totals.last_errno.load(Relaxed),
            skipped: std::array::from_fn(|i| totals.skipped[i].load(Relaxed)),
            residency: picture::percentages(&slots, COLUMNS),
        }
    }

    fn reasons(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        REASON_NAMES.iter().map(|&(name, index)| {
            let pages = usize::try_from(index)
                .ok()
                .and_then(|index| self.skipped.get(index));
            (name, pages.copied().unwrap_or(0))
        })
    }

    fn json(&self) -> Value {
        let skipped: serde_json::Map<_, _> = self
            .reasons()
            .map(|(name, pages)| (name.replace(' ', "_"), Value::from(pages)))
            .collect();
        let (code, signal) = match self.outcome {
            Outcome::Exited(code) => (Some(code), None),
            Outcome::Killed(signal) => (None, Some(signal)),
        };
        json!({
            "program": self.program,
            "device": self.device,
            "kind": self.kind.name(),
            "exit_code": code,
            "signal": signal,
            "wall_ms": (milliseconds(self.wall) * 10.0).round() / 10.0,
            "processes": self.processes,
            "processes_not_started": self.not_started,
            "rounds": self.rounds,
            "pages_to_device": self.to_device,
            "pages_to_ram": self.to_ram_request + self.to_ram_fault,
            "pages_to_ram_by_request": self.to_ram_request,
            "pages_to_ram_by_fault": self.to_ram_fault,
            "bytes_to_device": self.to_device * hmm_uapi::PAGE_SIZE as u64,
            "bytes_to_ram":
                (self.to_ram_request + self.to_ram_fault) * hmm_uapi::PAGE_SIZE as u64,
            "cpu_faults": self.cpu_faults,
            "ns_to_device": self.ns_to_device,
            "ns_to_ram": self.ns_to_ram,
            "blocks_collapsed": self.collapsed,
            "peak_resident": self.peak_resident,
            "skipped": skipped,
            "errors": self.errors,
            "last_errno": self.last_errno,
            "residency": self.residency,
            "picture": picture::line(&self.residency),
        })
    }

    pub fn write_json(&self, file: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *file, &self.json())?;
        file.write_all(b"\n")
    }

    /// Time per page of one direction, or nothing if there was none.
    fn direction(f: &mut fmt::Formatter<'_>, name: &str, pages: u64, ns: u64) -> fmt::Result {
        write!(
            f,
            "  {name:<12} {pages:>10} pages {:>10} {:>9.1} ms",
            size(pages),
            ns as f64 / 1e6
        )?;
        if pages != 0 {
            write!(f, " {:>7.2} µs/page", ns as f64 / 1e3 / pages as f64)?;
        }
        writeln!(f)
    }
}

fn size(pages: u64) -> String {
    let kib = pages * (hmm_uapi::PAGE_SIZE as u64 / 1024);
    match kib {
        0..=9_999 => format!("{kib} KiB"),
        10_000..=9_999_999 => format!("{:.1} MiB", kib as f64 / 1024.0),
        _ => format!("{:.1} GiB", kib as f64 / 1024.0 / 1024.0),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.program.first().map_or("", String::as_str);
        let end = match self.outcome {
            Outcome::Exited(code) => format!("exit {code}"),
            Outcome::Killed(signal) => format!("killed by signal {signal}"),
        };
        writeln!(
            f,
            "hmm-run: {name} on {} ({}), {:.2} s, {end}",
            self.device,
            self.kind.name(),
            self.wall.as_secs_f64()
        )?;
        let to_ram = self.to_ram_request + self.to_ram_fault;
        Self::direction(f, "to device", self.to_device, self.ns_to_device)?;
        Self::direction(f, "back to RAM", to_ram, self.ns_to_ram)?;
        let per_fault = match self.cpu_faults {
            0 => String::new(),
            faults => format!(
                " ({:.1} pages each)",
                self.to_ram_fault as f64 / faults as f64
            ),
        };
        writeln!(
            f,
            "  {:<12} {:>10}{per_fault}",
            "CPU faults", self.cpu_faults
        )?;
        writeln!(
            f,
            "  {:<12} {:>10} in {} process{}, at most {} on the device at once",
            "rounds",
            self.rounds,
            self.processes,
            if self.processes == 1 { "" } else { "es" },
            size(self.peak_resident)
        )?;
        if self.collapsed != 0 {
            writeln!(
                f,
                "  {:<12} {:>10} blocks of 2 MiB",
                "made huge", self.collapsed
            )?;
        }
        let stayed: Vec<_> = self
            .reasons()
            .filter(|&(_, pages)| pages != 0)
            .map(|(name, pages)| format!("{pages} {name}"))
            .collect();
        if !stayed.is_empty() {
            writeln!(f, "  {:<12} {}", "stayed", stayed.join(", "))?;
        }
        if !self.residency.is_empty() {
            writeln!(
                f,
                "  {:<12} {}",
                "on device",
                picture::line(&self.residency)
            )?;
        }
        if self.processes == 0 {
            writeln!(
                f,
                "hmm-run: the program ended before anything could be moved, or would not load \
                 the library (set-user-ID?)"
            )?;
        }
        if self.not_started != 0 {
            writeln!(
                f,
                "hmm-run: {} process{} ran without migration ({})",
                self.not_started,
                if self.not_started == 1 { "" } else { "es" },
                errno_text(self.last_errno)
            )?;
        } else if self.errors != 0 {
            writeln!(
                f,
                "hmm-run: {} call{} failed, the last one with: {}",
                self.errors,
                if self.errors == 1 { "" } else { "s" },
                errno_text(self.last_errno)
            )?;
        }
        Ok(())
    }
}

fn errno_text(errno: u32) -> String {
    match i32::try_from(errno) {
        Ok(0) | Err(_) => "no reason known".into(),
        Ok(errno) => io::Error::from_raw_os_error(errno).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            program: vec!["sort".into(), "x".into()],
            device: "/dev/hmm_dmirror0".into(),
            kind: Kind::Private,
            outcome: Outcome::Exited(0),
            wall: Duration::from_millis(1234),
            processes: 1,
            not_started: 0,
            rounds: 12,
            to_device: 16384,
            to_ram_request: 0,
            to_ram_fault: 1600,
            cpu_faults: 100,
            ns_to_device: 163_840_000,
            ns_to_ram: 16_000_000,
            collapsed: 0,
            peak_resident: 16384,
            errors: 0,
            last_errno: 0,
            skipped: [0, 0, 3, 0, 0, 0, 0, 0],
            residency: vec![0, 50, 100],
        }
    }

    #[test]
    fn the_table_reads_well() {
        let text = report().to_string();
        assert_eq!(
            text,
            "hmm-run: sort on /dev/hmm_dmirror0 (private), 1.23 s, exit 0\n\
             \x20 to device         16384 pages   64.0 MiB     163.8 ms   10.00 µs/page\n\
             \x20 back to RAM        1600 pages   6400 KiB      16.0 ms   10.00 µs/page\n\
             \x20 CPU faults          100 (16.0 pages each)\n\
             \x20 rounds               12 in 1 process, at most 64.0 MiB on the device at once\n\
             \x20 stayed       3 busy\n\
             \x20 on device    ▁▄█\n"
        );
    }

    #[test]
    fn a_program_without_a_thread_is_told() {
        let text = Report {
            processes: 0,
            ..report()
        }
        .to_string();
        assert!(text.contains("would not load"), "{text}");
        let text = Report {
            not_started: 2,
            last_errno: 11,
            ..report()
        }
        .to_string();
        assert!(text.contains("2 processes ran without migration"), "{text}");
    }

    #[test]
    fn the_object_has_the_same_figures() {
        let json = report().json();
        assert_eq!(json["pages_to_ram"], 1600);
        assert_eq!(json["bytes_to_device"], 64 << 20);
        assert_eq!(json["skipped"]["busy"], 3);
        assert_eq!(json["skipped"]["no_device_memory"], 0);
        assert_eq!(json["exit_code"], 0);
        assert!(json["signal"].is_null());
        assert_eq!(json["picture"], "▁▄█");
    }

    #[test]
    fn a_signal_is_128_and_its_number() {
        assert_eq!(Outcome::Killed(9).status(), 137);
        assert_eq!(Outcome::Exited(3).status(), 3);
    }
}
