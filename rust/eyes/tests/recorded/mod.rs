// SPDX-License-Identifier: GPL-2.0
//! Counters as the module showed them in a test machine, to be read again.

use std::fs;
use std::path::{Path, PathBuf};

const FIRST: &str =
    "number 1\ndevice hmm_dmirror.0\nkind private\npage_size 4096\nfirst_pfn 17179344896\n";
const SECOND: &str =
    "number 2\ndevice hmm_dmirror.1\nkind private\npage_size 4096\nfirst_pfn 17179279360\n";

/// An empty place of its own for a test.
pub fn place(name: &str) -> PathBuf {
    let place = std::env::temp_dir().join(format!("hmm-eyes-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).expect("a place for the test");
    place
}

/// Writes the counters below `root`, after `rounds` of the same work.
pub fn write(root: &Path, rounds: u64) {
    let stats = |share: u64, end: char| {
        [
            ("to_device", 30_000),
            ("to_ram_request", 500),
            ("to_ram_fault", 20_000),
            ("cpu_faults", 1_000),
            ("ns_to_device", 400_000_000),
            ("ns_to_ram", 500_000_000),
        ]
        .map(|(key, n)| format!("{key} {}{end}", n * share * rounds))
        .concat()
    };
    let region = |name: &str, files: [&str; 4]| {
        let place = root.join(name);
        fs::create_dir_all(&place).expect("a directory");
        for (file, text) in ["region", "frames", "stats", "processes"].iter().zip(files) {
            fs::write(place.join(file), text).expect("a file");
        }
    };
    let frames = "total 65536\nfree 41000\nclaimed 24\nresident 24512\nretired 0\nfree_blocks 70\nblock_pages 512\nfull_blocks 40\n";
    let processes = format!(
        "process 9000128 {}\nprocess 9000131 {}\n",
        stats(2, ' '),
        stats(1, ' ')
    );
    region(
        "1-hmm_dmirror.0",
        [FIRST, frames, &stats(3, '\n'), &processes],
    );
    let frames = "total 65536\nfree 65536\nclaimed 0\nresident 0\nretired 0\nfree_blocks 128\nblock_pages 512\nfull_blocks 0\n";
    region("2-hmm_dmirror.1", [SECOND, frames, &stats(0, '\n'), ""]);
}
