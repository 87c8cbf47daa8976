// SPDX-License-Identifier: GPL-2.0
//! The module's tracepoints (`c/trace.h`) through tracefs, in an instance of our own: nobody else's
//! tracing is disturbed, and nothing but the kernel is needed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where tracefs may be.
const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds on the clock of the recording.
    pub ns: u64,
    /// Such as `migrate_end`.
    pub name: String,
    fields: BTreeMap<String, String>,
}

impl Event {
    /// An event of our own making.
    #[must_use]
    pub fn new(ns: u64, name: &str, fields: &[(&str, u64)]) -> Self {
        let own = |&(key, value): &(&str, u64)| (key.to_owned(), value.to_string());
        Self {
            ns,
            name: name.to_owned(),
            fields: fields.iter().map(own).collect(),
        }
    }

    /// A field that is a word; empty if there is none.
    #[must_use]
    pub fn word(&self, key: &str) -> &str {
        self.fields.get(key).map_or("", String::as_str)
    }

    /// A field that is a number, with or without 0x; 0 if there is none.
    #[must_use]
    pub fn number(&self, key: &str) -> u64 {
        let word = self.word(key);
        match word.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).unwrap_or(0),
            None => word.parse().unwrap_or(0),
        }
    }

    /// Pages that moved, where the event is the end of a migration.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.number("small") + self.number("huge") * 512
    }

    fn fields_of(words: &str) -> BTreeMap<String, String> {
        words
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// A line of trace_pipe: task, CPU, flags, time, event.
    fn from_pipe(line: &str) -> Option<Self> {
        // A task may be called anything; what we print has no bracket.
        let (_, rest) = line.rsplit_once(" [")?;
        let (_cpu, rest) = rest.split_once("] ")?;
        let (before, rest) = rest.trim_start().split_once(": ")?;
        let time = before.split_ascii_whitespace().last()?;
        let (name, words) = rest.split_once(':')?;
        Some(Self {
            ns: nanoseconds(time)?,
            name: name.to_owned(),
            fields: Self::fields_of(words),
        })
    }

    /// What [`fmt::Display`] wrote.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (ns, rest) = line.split_once(' ')?;
        let (name, words) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(Self {
            ns: ns.parse().ok()?,
            name: name.to_owned(),
            fields: Self::fields_of(words),
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.ns, self.name)?;
        self.fields
            .iter()
            .try_for_each(|(key, value)| write!(f, " {key}={value}"))
    }
}

/// `seconds.fraction` as nanoseconds.
fn nanoseconds(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.')?;
    let digits = u32::try_from(fraction.len()).ok()?;
    let scale = 10_u64.pow(9_u32.checked_sub(digits)?);
    Some(seconds.parse::<u64>().ok()? * 1_000_000_000 + fraction.parse::<u64>().ok()? * scale)
}

/// Something that did not work, and on which file.
fn explain(path: &Path) -> impl Fn(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    // Not created: a file that is missing is a kernel that lacks it.
    let mut file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(explain(path))?;
    file.write_all(text.as_bytes()).map_err(explain(path))
}

/// A trace that is being taken.
pub struct Tracer {
    place: PathBuf,
    pipe: File,
    rest: String,
    /// Events that the kernel's buffer had no room for.
    pub lost: u64,
}

impl Tracer {
    /// Starts one, with a buffer of so many KiB for each CPU.
    ///
    /// # Errors
    /// No tracefs, no right to use it, or no module with tracepoints.
    pub fn start(name: &str, buffer_kib: u64) -> io::Result<Self> {
        let mount = MOUNTS
            .iter()
            .map(Path::new)
            .find(|mount| mount.join("instances").is_dir())
            .ok_or_else(|| {
                io::Error::other(
                    "no tracefs to be seen\nnext: run it as root; mount -t tracefs tracefs \
                     /sys/kernel/tracing",
                )
            })?;
        if !mount.join("events/hmm_devmem").is_dir() {
            return Err(io::Error::other(
                "the kernel has no events hmm_devmem:*\nnext: modprobe hmm_devmem",
            ));
        }
        let place = mount.join("instances").join(name);
        fs::create_dir(&place).map_err(explain(&place))?;
        let start = || -> io::Result<File> {
            write(&place.join("buffer_size_kb"), &buffer_kib.to_string())?;
            write(&place.join("trace_clock"), "mono")?;
            // Of what the kernel changes, only what is gone for good.
            write(
                &place.join("events/hmm_devmem/notifier/filter"),
                "unmap == 1",
            )?;
            write(&place.join("events/hmm_devmem/enable"), "1")?;
            let pipe = place.join("trace_pipe");
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(libc::O_NONBLOCK);
            options.open(&pipe).map_err(explain(&pipe))
        };
        match start() {
            Ok(pipe) => Ok(Self {
                place,
                pipe,
                rest: String::new(),
                lost: 0,
            }),
            Err(error) => {
                let _ = fs::remove_dir(&place);
                Err(error)
            }
        }
    }

    /// No more events from here on; those that are there can still be taken.
    ///
    /// # Errors
    /// What tracefs says.
    pub fn stop(&self) -> io::Result<()> {
        write(&self.place.join("events/hmm_devmem/enable"), "0")
    }

    /// The events since the last call.
    ///
    /// # Errors
    /// What tracefs says.
    pub fn take(&mut self) -> io::Result<Vec<Event>> {
        let mut piece = [0; 1 << 16];
        loop {
            match self.pipe.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => self.rest += &String::from_utf8_lossy(&piece[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let whole = self.rest.rfind('\n').map_or(0, |end| end + 1);
        let rest = self.rest.split_off(whole);
        let lines = std::mem::replace(&mut self.rest, rest);
        let mut events = Vec::new();
        for line in lines.lines() {
            if let Some(event) = Event::from_pipe(line) {
                events.push(event);
            } else if let Some(lost) = lost(line) {
                self.lost += lost;
            }
        }
        Ok(events)
    }
}

/// `CPU:0 [LOST 12 EVENTS]`
fn lost(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("[LOST ")?;
    rest.split(' ').next()?.parse().ok()
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.stop();
        // The pipe holds the instance until it is closed.
        if let Ok(nothing) = File::open("/dev/null") {
            self.pipe = nothing;
        }
        let _ = fs::remove_dir(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "  a [b] x: y-126     [001] .....    13.456285: migrate_end: region=1 \
                        direction=to_device cause=request process=126 address=0x7fb1b47ef000 \
                        npages=600 small=88 huge=1 bytes=4 ns=13698989 result=-12";

    #[test]
    fn a_line_of_the_kernel() {
        let event = Event::from_pipe(LINE).expect("an event");
        assert_eq!(event.ns, 13_456_285_000);
        assert_eq!(event.name, "migrate_end");
        assert_eq!(event.word("cause"), "request");
        assert_eq!(event.number("address"), 0x7fb1_b47e_f000);
        assert_eq!(event.moved(), 600);
        assert_eq!(event.word("result"), "-12");
        assert_eq!(event.number("nothing"), 0);
        assert_eq!(Event::parse(&event.to_string()), Some(event));
    }

    #[test]
    fn a_line_of_an_old_kernel() {
        let line = "  <idle>-0   [000] d.h1 5.000001: notifier: region=0";
        let event = Event::from_pipe(line).expect("an event");
        assert_eq!((event.ns, event.name.as_str()), (5_000_001_000, "notifier"));
    }

    #[test]
    fn other_lines_are_none() {
        for line in [
            "",
            "#",
            "CPU:1 [LOST 12 EVENTS]",
            "x [0] y",
            "# tracer: nop",
        ] {
            assert_eq!(Event::from_pipe(line), None, "{line}");
        }
        assert_eq!(lost("CPU:1 [LOST 12 EVENTS]"), Some(12));
        assert_eq!(lost("CPU:1 [LOST]"), None);
        assert_eq!(Event::parse("x y"), None);
    }
}
