// SPDX-License-Identifier: GPL-2.0
//! A region in memory that a test lends, as C would.
#![allow(dead_code)]

use core::ptr::NonNull;
use hmm_devmem::region::{self, Region};
use hmm_devmem::types::Segment;

#[repr(C, align(64))]
#[derive(Clone)]
struct Line([u8; 64]);

/// Owns the memory; the region in it lives as long.
pub struct Lent {
    lines: Vec<Line>,
}

impl Lent {
    /// Memory for a region, full of garbage: nothing may rely on zeroes.
    pub fn new(npages: u64, ncpus: u32) -> Lent {
        let size = region::size(npages, ncpus);
        assert_ne!(size, 0, "{npages} pages, {ncpus} CPUs");
        let mut lent = Lent {
            lines: vec![Line([0xa5; 64]); size.div_ceil(64)],
        };
        // SAFETY: `size` bytes of ours, used through regions only from here on.
        unsafe { Region::init(lent.mem(), size, npages, ncpus) }.expect("valid arguments");
        lent
    }

    fn mem(&mut self) -> NonNull<u8> {
        NonNull::from(self.lines.as_mut_slice()).cast()
    }

    /// What C holds.
    pub fn core(&self) -> *const region::Core {
        self.lines.as_ptr().cast()
    }

    pub fn region(&self) -> Region<'_> {
        // SAFETY: made by new(), and borrowed as long as the view.
        unsafe { Region::at(self.lines.as_ptr().cast()) }.expect("a living region")
    }
}

pub const VALID: u64 = 1;
pub const MIGRATE: u64 = 2;
pub const WRITE: u64 = 8;
pub const COMPOUND: u64 = 16;

/// A migrate entry.
pub fn entry(pfn: u64, flags: u64) -> u64 {
    pfn << 6 | flags
}

/// The segments that an array of (src, dst) pages makes, one page after the
/// other: `pages[i]` belongs to entry i.
pub fn coalesce(pages: &[Option<(u64, u64)>], step: u64) -> Vec<Segment> {
    let mut out: Vec<Segment> = Vec::new();
    for (i, page) in pages.iter().enumerate() {
        let Some((src, dst)) = *page else { continue };
        if let Some(last) = out.last_mut() {
            let n = u64::from(last.npages);
            if last.entry as u64 + n == i as u64
                && last.src + n * step == src
                && last.dst + n == dst
            {
                last.npages += 1;
                continue;
            }
        }
        out.push(Segment {
            src,
            dst,
            npages: 1,
            entry: i as u32,
            ..Segment::default()
        });
    }
    out
}
