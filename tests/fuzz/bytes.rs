// SPDX-License-Identifier: GPL-2.0
//! Numbers from the fuzzer's bytes: mostly small ones, and edges.
#![allow(dead_code)]

use hmm_devmem::types::Segment;

/// No segment; a constant, as `default()` is not.
pub const NONE: Segment = Segment {
    src: 0,
    dst: 0,
    npages: 0,
    entry: 0,
    status: 0,
    reserved: 0,
};

/// What is left of an input.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    /// The next byte; `None` at the end.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn wide(&mut self, n: usize) -> Option<u64> {
        (0..n).try_fold(0, |all, _| Some(all << 8 | u64::from(self.byte()?)))
    }

    /// A number of a size that its first byte says.
    pub fn number(&mut self) -> Option<u64> {
        let kind = self.byte()?;
        Some(match kind % 8 {
            0..=2 => u64::from(kind / 8),
            3 | 4 => self.wide(2)?,
            5 => 1 << (kind / 8 * 2 + 1),
            6 => u64::MAX >> (kind / 8 * 2),
            _ => self.wide(8)?,
        })
    }

    /// Migrate entries, as many as fit `into`: runs of pages that go on, stay, or are
    /// not there. Returns how many.
    pub fn entries(&mut self, into: &mut [u64]) -> Option<usize> {
        let mut at = 0;
        let runs = self.byte()? % 8 + 1;
        for _ in 0..runs {
            let first = self.number()? << 6 | u64::from(self.byte()? & 63);
            let (n, step) = (self.byte()?, self.byte()?);
            let n = if step & 64 != 0 { 512 } else { usize::from(n) };
            let end = into.len().min(at + n);
            let step = u64::from(step & 3) << 6;
            for (i, entry) in into[at..end].iter_mut().enumerate() {
                // The pages behind a compound's first are empty, mostly.
                let under = first & 16 != 0 && i % 512 != 0;
                *entry = if under {
                    0
                } else {
                    first.wrapping_add(i as u64 * step)
                };
            }
            at = end;
        }
        Some(at)
    }
}
