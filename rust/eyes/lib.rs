// SPDX-License-Identifier: GPL-2.0
//! What `hmmtop`, `hmm-map`, `hmm-record` and `hmm-replay` have in common: reading what the module
//! shows, and drawing it.

#![warn(missing_docs)]

pub mod counters;
pub mod heat;
pub mod places;
pub mod policy;
pub mod rates;
pub mod recording;
pub mod residency;
pub mod svg;
pub mod timeline;
pub mod trace;

#[cfg(test)]
#[path = "tests/recorded/mod.rs"]
mod recorded;

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// A size for people: at most five characters and a unit.
#[must_use]
pub fn size(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "K", "M", "G"] {
        if value < 999.5 {
            return match unit {
                "B" => format!("{value:.0}{unit}"),
                _ if value < 99.95 => format!("{value:.1}{unit}"),
                _ => format!("{value:.0}{unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1}T")
}

/// A size for pictures, with its unit in full.
#[must_use]
pub fn bytes(pages: u64) -> String {
    let short = size((pages * PAGE) as f64);
    match short.strip_suffix('B') {
        Some(bytes) => format!("{bytes} B"),
        None => {
            let (number, unit) = short.split_at(short.len() - 1);
            format!("{number} {unit}iB")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, size};

    #[test]
    fn pictures_have_units() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1), "4.0 KiB");
        assert_eq!(bytes(25_600), "100 MiB");
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0.0, "0B"),
            (999.0, "999B"),
            (1000.0, "1.0K"),
            (4096.0, "4.0K"),
            (268_435_456.0, "256M"),
            (1_073_741_824.0, "1.0G"),
            (2e15, "1819.0T"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
