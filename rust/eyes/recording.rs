// SPDX-License-Identifier: GPL-2.0
//! The file that `hmm-record` writes and `hmm-replay` reads.
//!
//! It is a trace that `hmm_simulate::trace` understands. What that format has no place for (causes,
//! times, sizes, results) stands beside it, in comments that begin with `#@`: time, event, fields,
//! as the kernel's tracepoints gave them.

use crate::trace::Event;
use hmm_simulate::trace::{Cause, Event as Move, MAGIC, MAX_PAGE, What};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

/// What marks a line with an event of the kernel.
const MARK: &str = "#@ ";

/// Our own event: frames in use, looked up from time to time.
pub const RESIDENT: &str = "resident";

/// A recording in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Events of the kernel and of the recorder, by time.
    pub events: Vec<Event>,
    /// What was recorded, as one line.
    pub title: String,
    /// Events that were lost.
    pub lost: u64,
}

/// What an event means to a simulation; nothing, or up to two things.
///
/// Which pages of a batch moved is not known where only some did: the whole range is taken to have
/// moved. An eviction knows frames, not addresses; a simulation evicts by itself.
fn moves(event: &Event) -> Vec<Move> {
    let process = event.number("process");
    let one = |what, address: u64, npages: u64| Move {
        ns: event.ns,
        what,
        space: process,
        page: address >> 12,
        npages: npages.clamp(1, MAX_PAGE - (address >> 12).min(MAX_PAGE - 1)),
    };
    if process == 0 {
        return Vec::new();
    }
    let (address, npages) = (event.number("address"), event.number("npages"));
    match event.name.as_str() {
        "migrate_end" if event.moved() != 0 => match (event.word("direction"), event.word("cause"))
        {
            ("to_device", _) => vec![one(What::In, address, npages)],
            ("to_ram", "request") => vec![one(What::Out(Some(Cause::Request)), address, npages)],
            _ => Vec::new(),
        },
        "cpu_fault" => {
            let touch = one(What::Cpu, address, 1);
            let first = event.number("first");
            match event.number("moved") {
                0 => vec![touch],
                _ => vec![touch, one(What::Out(Some(Cause::Fault)), first, npages)],
            }
        }
        "device_fault" => vec![one(What::Dev, address, npages)],
        "notifier" if event.number("unmap") == 1 => {
            let (start, end) = (event.number("start"), event.number("end"));
            vec![one(What::Gone, start, end.saturating_sub(start) >> 12)]
        }
        _ => Vec::new(),
    }
}

impl Recording {
    /// Writes it; `window` is the largest fault window of the system.
    ///
    /// # Errors
    /// What writing says.
    pub fn write(&self, out: &mut impl Write, window: u64) -> io::Result<()> {
        writeln!(out, "{MAGIC} window={}", window.max(1))?;
        writeln!(out, "#title {}", self.title.replace('\n', " "))?;
        writeln!(out, "#lost {}", self.lost)?;
        let start = self.events.first().map_or(0, |event| event.ns);
        for event in &self.events {
            let mut event = event.clone();
            event.ns -= start;
            writeln!(out, "{MARK}{event}")?;
            for one in moves(&event) {
                writeln!(out, "{one}")?;
            }
        }
        Ok(())
    }

    /// Reads one.
    ///
    /// # Errors
    /// What reading says; a line with the mark and no event.
    pub fn read(from: impl BufRead) -> io::Result<Self> {
        let mut recording = Self::default();
        for (number, line) in (1..).zip(from.lines()) {
            let line = line?;
            if number == 1 && !line.starts_with(MAGIC) {
                return Err(io::Error::other("not a recording of hmm-record"));
            }
            if let Some(words) = line.strip_prefix(MARK) {
                let event = Event::parse(words)
                    .ok_or_else(|| io::Error::other(format!("line {number}: no event: {line}")))?;
                recording.events.push(event);
            } else if let Some(title) = line.strip_prefix("#title ") {
                recording.title = title.to_owned();
            } else if let Some(lost) = line.strip_prefix("#lost ") {
                recording.lost = lost.parse().unwrap_or(0);
            }
        }
        recording.events.sort_by_key(|event| event.ns);
        Ok(recording)
    }

    /// Pages moved, by direction and cause.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<(String, String), u64> {
        let mut totals = BTreeMap::new();
        for event in self
            .events
            .iter()
            .filter(|event| event.name == "migrate_end")
        {
            let key = (event.word("direction").into(), event.word("cause").into());
            *totals.entry(key).or_default() += event.moved();
        }
        totals
    }
}

/// A recording for tests: a second of work.
#[must_use]
#[doc(hidden)]
pub fn example() -> Recording {
    let mut events = Vec::new();
    for i in 0..50_u64 {
        let ns = i * 20_000_000;
        let address = 0x7f00_0000_0000 + i * 0x20_0000;
        let line = |at, name: &str, rest: &str| {
            Event::parse(&format!("{} {name} region=1 process=42 {rest}", ns + at))
                .expect("an event")
        };
        events.push(Event::new(
            ns,
            RESIDENT,
            &[("region", 1), ("npages", (i % 20) * 500)],
        ));
        events.push(line(
            1_000,
            "migrate_end",
            &format!("direction=to_device cause=request address={address:#x} npages=512 small=500 huge=0 ns=5000000 result=0"),
        ));
        events.push(line(
            2_000,
            "migrate_end",
            &format!("direction=to_ram cause=fault address={address:#x} npages=64 small=64 huge=0 ns=100000 result=0"),
        ));
        events.push(line(
            2_100,
            "cpu_fault",
            &format!(
                "address={:#x} first={address:#x} npages=64 moved=64 result=0",
                address + 0x5000
            ),
        ));
        events.push(line(
            3_000,
            "migrate_end",
            "direction=to_ram cause=evict address=0x0 npages=512 small=0 huge=1 ns=100000 result=0",
        ));
        events.push(line(
            4_000,
            "device_fault",
            &format!("address={address:#x} npages=8 write=0"),
        ));
        events.push(line(
            5_000,
            "notifier",
            &format!(
                "event=0 unmap=1 start={address:#x} end={:#x}",
                address + 0x3000
            ),
        ));
    }
    Recording {
        events,
        title: "sort <big>".into(),
        lost: 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hmm_simulate::trace::Trace;

    #[test]
    fn a_recording_is_a_trace() {
        let recording = example();
        let mut file = Vec::new();
        recording.write(&mut file, 64).expect("written");
        let text = String::from_utf8(file.clone()).expect("text");
        let trace = Trace::parse(&text).unwrap_or_else(|bad| panic!("{bad}"));
        assert_eq!(trace.window, 64);
        // In, cpu, out by fault, dev, gone; what was evicted has no address.
        assert_eq!(trace.events.len(), 50 * 5);
        assert_eq!(trace.events[0].what, What::In);
        assert_eq!(trace.events[1].what, What::Cpu);
        assert_eq!(trace.events[1].page, 0x7_f000_0005);
        assert_eq!(trace.events[4].npages, 3);
        assert_eq!(Recording::read(&file[..]).expect("read"), recording);
    }

    #[test]
    fn totals_are_by_cause() {
        let totals = example().totals();
        let of = |direction: &str, cause: &str| totals[&(direction.to_owned(), cause.to_owned())];
        assert_eq!(of("to_device", "request"), 25_000);
        assert_eq!(of("to_ram", "fault"), 3_200);
        assert_eq!(of("to_ram", "evict"), 25_600);
    }

    #[test]
    fn the_end_of_a_process_is_the_end_of_all() {
        let line = "9 notifier region=1 process=42 unmap=1 start=0x0 end=0xffffffffffffffff";
        let all = moves(&Event::parse(line).expect("an event"));
        assert_eq!((all[0].page, all[0].npages), (0, MAX_PAGE));
    }

    #[test]
    fn other_files_are_refused() {
        for (text, want) in [
            ("x\n", "not a recording"),
            ("hmm-trace 1 window=1\n#@ nonsense\n", "line 2"),
        ] {
            let error = Recording::read(text.as_bytes()).expect_err(text);
            assert!(error.to_string().contains(want), "{error}");
        }
    }
}
