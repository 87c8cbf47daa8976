// SPDX-License-Identifier: GPL-2.0
//! Reads `/sys/kernel/debug/hmm_devmem`; `c/show.c` says what is in it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Where the module shows its counters.
pub const ROOT: &str = "/sys/kernel/debug/hmm_devmem";

/// Counters by name. Those that a newer module has more of are kept, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(pub BTreeMap<String, u64>);

impl Counters {
    /// A counter; 0 if the module has none of that name.
    #[must_use]
    pub fn get(&self, key: &str) -> u64 {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// How much a counter grew since `before`.
    #[must_use]
    pub fn since(&self, before: &Self, key: &str) -> u64 {
        self.get(key).saturating_sub(before.get(key))
    }

    /// Pairs of words; a value that is no number is left out.
    fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        Self(
            words
                .chunks_exact(2)
                .filter_map(|pair| Some((pair[0].to_owned(), pair[1].parse().ok()?)))
                .collect(),
        )
    }
}

/// A process with the device open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub id: u64,
    /// Its counters: the same as a region's.
    pub stats: Counters,
}

/// One region of device memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its number, which no other region will have.
    pub number: u64,
    /// The device it belongs to.
    pub device: String,
    /// `private` or `coherent`.
    pub kind: String,
    /// Page frame number of its first page.
    pub first_pfn: u64,
    /// Frames by state.
    pub frames: Counters,
    /// What was moved.
    pub stats: Counters,
    /// Who has it open.
    pub processes: Vec<Process>,
}

impl Region {
    /// Bytes of frames in a state.
    #[must_use]
    pub fn bytes(&self, state: &str) -> u64 {
        self.frames.get(state) * crate::PAGE
    }

    /// Free pages that are part of a free 2 MiB block.
    #[must_use]
    pub fn free_in_blocks(&self) -> u64 {
        (self.frames.get("free_blocks") * self.frames.get("block_pages"))
            .min(self.frames.get("free"))
    }

    /// Pages in use: claimed or resident.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.frames.get("claimed") + self.frames.get("resident")
    }

    /// Pages in use that fill a 2 MiB block together.
    #[must_use]
    pub fn used_in_blocks(&self) -> u64 {
        let full = self.frames.get("full_blocks") * self.frames.get("block_pages");
        full.min(self.used())
    }

    /// How much of the free memory is in pieces smaller than 2 MiB, in percent.
    #[must_use]
    pub fn fragmentation(&self) -> f64 {
        let free = self.frames.get("free");
        if free == 0 {
            return 0.0;
        }
        (free - self.free_in_blocks()) as f64 * 100.0 / free as f64
    }
}

/// All regions at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken.
    pub at: Instant,
    /// By number.
    pub regions: Vec<Region>,
}

/// Why nothing can be shown, and what to do about it.
#[derive(Debug)]
pub struct Problem {
    root: PathBuf,
    error: io::Error,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next = match self.error.kind() {
            io::ErrorKind::PermissionDenied => "next: run it as root",
            io::ErrorKind::NotFound => {
                "next: modprobe hmm_devmem, or mount -t debugfs debugfs /sys/kernel/debug"
            }
            _ => "next: look at dmesg",
        };
        write!(f, "{}: {}\n{next}", self.root.display(), self.error)
    }
}

impl std::error::Error for Problem {}

/// Reads every region below `root`.
///
/// # Errors
/// The directory cannot be read. A region that goes meanwhile is left out.
pub fn read(root: &Path) -> Result<Snapshot, Problem> {
    let problem = |error| Problem {
        root: root.to_owned(),
        error,
    };
    let mut regions = Vec::new();
    for entry in fs::read_dir(root).map_err(problem)? {
        let place = entry.map_err(problem)?.path();
        match region(&place) {
            Ok(region) => regions.push(region),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(problem(error));
            }
            Err(_) => {}
        }
    }
    regions.sort_by_key(|region| region.number);
    Ok(Snapshot {
        at: Instant::now(),
        regions,
    })
}

fn region(place: &Path) -> io::Result<Region> {
    let about = fs::read_to_string(place.join("region"))?;
    let word = |key: &str| {
        about
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
            .unwrap_or("")
    };
    let file = |name| fs::read_to_string(place.join(name));
    Ok(Region {
        number: word("number").parse().unwrap_or(0),
        device: word("device").to_owned(),
        kind: word("kind").to_owned(),
        first_pfn: word("first_pfn").parse().unwrap_or(0),
        frames: Counters::parse(&file("frames")?),
        stats: Counters::parse(&file("stats")?),
        processes: file("processes")?
            .lines()
            .map(Counters::parse)
            .map(|stats| Process {
                id: stats.get("process"),
                stats,
            })
            .collect(),
    })
}

/// The name of a process; its number when it is gone.
#[must_use]
pub fn name_of(process: u64) -> String {
    fs::read_to_string(format!("/proc/{process}/comm")).map_or_else(
        |_| format!("({process})"),
        |name| name.trim_end().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_any_layout() {
        let counters = Counters::parse("total 5\nfree 3 x y\nodd");
        assert_eq!((counters.get("total"), counters.get("free")), (5, 3));
        assert_eq!(counters.get("x"), 0);
        assert_eq!(counters.0.len(), 2);
    }

    #[test]
    fn what_is_recorded_is_read() {
        let root = crate::recorded::place("counters");
        crate::recorded::write(&root, 1);
        let snapshot = read(&root).expect("the recorded counters");
        fs::remove_dir_all(&root).expect("removed");
        let [first, second] = &snapshot.regions[..] else {
            panic!("{:?}", snapshot.regions)
        };
        assert_eq!((first.number, first.device.as_str()), (1, "hmm_dmirror.0"));
        assert_eq!(first.kind, "private");
        let sum: u64 = ["free", "claimed", "resident", "retired"]
            .iter()
            .map(|state| first.frames.get(state))
            .sum();
        assert_eq!(sum, first.frames.get("total"));
        assert_eq!((first.used(), first.used_in_blocks()), (24_536, 40 * 512));
        assert!(first.fragmentation() > 0.0 && first.fragmentation() < 100.0);
        assert_eq!(second.fragmentation(), 0.0);
        assert_eq!(first.processes.len(), 2);
        assert_eq!(first.processes[0].id, 9_000_128);
    }

    #[test]
    fn what_is_wrong_says_what_to_do() {
        let why = read(Path::new("/nonexistent")).expect_err("nothing there");
        assert!(why.to_string().contains("modprobe"), "{why}");
    }
}
