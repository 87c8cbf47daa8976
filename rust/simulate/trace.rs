// SPDX-License-Identifier: GPL-2.0
//! The trace format. It is text, one event a line, in order of time, so that a
//! shell, a recorder in a small machine and a person can read and write it:
//!
//! ```text
//! hmm-trace 1 window=1
//! # anything
//! 0 in 812 7f31c0400 512
//! 104220 dev 812 7f31c0400 64
//! 250113 cpu 812 7f31c0407 1
//! 250390 out 812 7f31c0407 1 fault
//! 900000 gone 812 7f31c0400 512
//! ```
//!
//! The first line names the format, its version, and the largest fault window (in
//! pages) of the system that was recorded. Then in each line:
//!
//! | word | what |
//! | --- | --- |
//! | time | nanoseconds since the start of the trace, decimal, never decreasing |
//! | event | `in` pages moved to the device; `dev` the device used pages; `cpu` the CPU touched pages that were on the device; `out` pages came to RAM; `gone` pages were unmapped |
//! | space | a number for the address space (a process id will do), decimal |
//! | page | the first virtual page number (address / 4096), hexadecimal without 0x |
//! | pages | how many, decimal, at least 1 |
//! | cause | with `out` only, may be missing: `fault`, `request` or `evict` |
//!
//! `cpu` is what a replay asks its policies about. A recorder sees it as a CPU
//! fault, so it misses touches of pages that came along in a window: record with
//! `fault_window=1`, and every first touch is there. `out` is what the recorded
//! system did; a replay follows `request` (the program's wish) and decides the
//! others itself.
//!
//! Empty lines and lines that start with `#` mean nothing.

use std::fmt;

/// The first words of the first line.
pub const MAGIC: &str = "hmm-trace 1";
/// The largest page number: what 57-bit addresses reach.
pub const MAX_PAGE: u64 = 1 << 45;

/// Why pages came to RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// A CPU fault, or the window around one.
    Fault,
    /// The program or the driver asked for it.
    Request,
    /// To make room on the device.
    Evict,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Pages moved to the device.
    In,
    /// The device used pages.
    Dev,
    /// The CPU touched pages that were on the device.
    Cpu,
    /// Pages came to RAM.
    Out(Option<Cause>),
    /// Pages were unmapped.
    Gone,
}

/// One line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Nanoseconds since the start.
    pub ns: u64,
    /// What happened.
    pub what: What,
    /// The address space.
    pub space: u64,
    /// The first virtual page.
    pub page: u64,
    /// How many pages.
    pub npages: u64,
}

/// A whole trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// The largest fault window of the recorded system, in pages.
    pub window: u64,
    /// What happened, in order.
    pub events: Vec<Event>,
}

/// What is wrong with a trace, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bad {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for Bad {}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, cause) = match self.what {
            What::In => ("in", ""),
            What::Dev => ("dev", ""),
            What::Cpu => ("cpu", ""),
            What::Gone => ("gone", ""),
            What::Out(None) => ("out", ""),
            What::Out(Some(Cause::Fault)) => ("out", " fault"),
            What::Out(Some(Cause::Request)) => ("out", " request"),
            What::Out(Some(Cause::Evict)) => ("out", " evict"),
        };
        let Event {
            ns,
            space,
            page,
            npages,
            ..
        } = self;
        write!(f, "{ns} {what} {space} {page:x} {npages}{cause}")
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{MAGIC} window={}", self.window)?;
        self.events
            .iter()
            .try_for_each(|event| writeln!(f, "{event}"))
    }
}

fn event(line: &str) -> Result<Event, String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (&[ns, what, space, page, npages], cause) = words
        .split_first_chunk::<5>()
        .ok_or("wants: time event space page pages")?;
    let what = match (what, cause) {
        ("in", []) => What::In,
        ("dev", []) => What::Dev,
        ("cpu", []) => What::Cpu,
        ("gone", []) => What::Gone,
        ("out", []) => What::Out(None),
        ("out", ["fault"]) => What::Out(Some(Cause::Fault)),
        ("out", ["request"]) => What::Out(Some(Cause::Request)),
        ("out", ["evict"]) => What::Out(Some(Cause::Evict)),
        (what, []) => return Err(format!("no such event: {what}")),
        (what, more) => return Err(format!("{what}: not understood: {}", more.join(" "))),
    };
    let number = |name, text: &str| {
        let value = text.parse::<u64>();
        value.map_err(|_| format!("{name}: not a decimal number: {text}"))
    };
    let first = u64::from_str_radix(page, 16);
    let event = Event {
        ns: number("time", ns)?,
        what,
        space: number("space", space)?,
        page: first.map_err(|_| format!("page: not a hexadecimal number: {page}"))?,
        npages: number("pages", npages)?,
    };
    if event.npages == 0 || event.page.saturating_add(event.npages) > MAX_PAGE {
        return Err(format!("not a range of pages: {page} {npages}"));
    }
    Ok(event)
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    /// The first line that is not one of a trace.
    pub fn parse(text: &str) -> Result<Trace, Bad> {
        let bad = |line: usize, why: String| Bad { line, why };
        let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
        let head = lines.next().map_or("", |(_, line)| line);
        let window = head
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.trim().strip_prefix("window="))
            .and_then(|n| n.parse().ok())
            .filter(|n| *n >= 1)
            .ok_or_else(|| bad(1, format!("not a trace: wants \"{MAGIC} window=N\"")))?;
        let mut trace = Trace {
            window,
            events: Vec::new(),
        };
        for (n, line) in lines {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let event = event(line).map_err(|why| bad(n, why))?;
            if trace.events.last().is_some_and(|last| last.ns > event.ns) {
                return Err(bad(n, "time goes back".into()));
            }
            trace.events.push(event);
        }
        Ok(trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "hmm-trace 1 window=1\n0 in 812 7f31c0400 512\n104220 dev 812 7f31c0400 64\n\
                        250113 cpu 812 7f31c0407 1\n250390 out 812 7f31c0407 1 fault\n\
                        250391 out 812 1 1 request\n250391 out 812 1 1 evict\n250391 out 1 1 1\n\
                        900000 gone 812 7f31c0400 512\n";

    #[test]
    fn what_is_written_can_be_read() {
        let trace = Trace::parse(GOOD).expect("a good trace");
        assert_eq!(trace.events.len(), 8);
        assert_eq!(trace.to_string(), GOOD);
        let spaced = GOOD.replace("\n1", "\n\n# a comment\n1");
        assert_eq!(Trace::parse(&spaced), Ok(trace));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (line, want) in [
            ("5 in 1 0", "wants"),
            ("5 in 1 zz 1", "hexadecimal"),
            ("5 in x 0 1", "space: not a decimal"),
            ("x in 1 0 1", "time: not a decimal"),
            ("5 in 1 0 -1", "pages: not a decimal"),
            ("5 in 1 0 0", "not a range"),
            ("5 in 1 1fffffffffff 2", "not a range"),
            ("5 fly 1 0 1", "no such event"),
            ("5 in 1 0 1 fault", "not understood"),
            ("5 out 1 0 1 luck", "not understood"),
            ("1 in 1 0 1", "time goes back"),
        ] {
            let text = format!("hmm-trace 1 window=64\n2 in 1 0 1\n{line}\n");
            let bad = Trace::parse(&text).expect_err(line);
            assert_eq!(bad.line, 3, "{line}");
            assert!(bad.to_string().contains(want), "{line}: {bad}");
        }
        for head in [
            "",
            "hmm-trace 2 window=1",
            "hmm-trace 1",
            "hmm-trace 1 window=0",
        ] {
            assert_eq!(Trace::parse(head).expect_err(head).line, 1);
        }
    }
}
