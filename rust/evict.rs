// SPDX-License-Identifier: GPL-2.0
//! What is in use: the spans that eviction and teardown bring home.
#![forbid(unsafe_code)]

use crate::atomic::look;
use crate::frames::Frames;
use crate::types::{BLOCK_PAGES, PageIndex, WORD_PAGES};

/// Contiguous page indices, all in one block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first page.
    pub first: PageIndex,
    /// How many; never 0.
    pub npages: u64,
}

/// The next run of frames that are not free, at or after `from`, no longer
/// than `max` and inside one block. `None`: everything from there on is free.
pub fn next_span(frames: &Frames<'_>, from: PageIndex, max: u64) -> Option<Span> {
    let page = next_used(frames, from)?;
    let end = (page.0 / BLOCK_PAGES + 1) * BLOCK_PAGES;
    let room = min(min(end, frames.npages) - page.0, max);
    let mut npages = 0;
    // Bounded: at most eight words.
    while npages < room {
        let at = PageIndex(page.0 + npages);
        let used = !frames.free_mask(at.word()) >> at.bit();
        let ones = u64::from(used.trailing_ones());
        let whole = ones == WORD_PAGES - at.bit();
        npages += ones;
        if !whole {
            break;
        }
    }
    let npages = min(npages, room);
    if npages == 0 {
        // Given back between the two looks. It was in use when we found it.
        return Some(Span {
            first: page,
            npages: 1,
        });
    }
    Some(Span {
        first: page,
        npages,
    })
}

fn min(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}

/// The first frame at or after `from` that is not free.
fn next_used(frames: &Frames<'_>, from: PageIndex) -> Option<PageIndex> {
    let mut page = from;
    // Bounded: each word of the region once, 64 whole blocks in one step.
    while page.0 < frames.npages {
        let block = page.block();
        if let Some(map) = frames.whole.get(block.map_word()) {
            let whole = look(map);
            let skip = u64::from((whole >> (block.0 % 64)).trailing_ones());
            if skip != 0 {
                page = PageIndex(block.first().0 + skip * BLOCK_PAGES);
                continue;
            }
        }
        let used = !frames.free_mask(page.word()) >> page.bit();
        if used != 0 {
            let found = PageIndex(page.0 + u64::from(used.trailing_zeros()));
            return (found.0 < frames.npages).then_some(found);
        }
        page = PageIndex((page.0 / WORD_PAGES + 1) * WORD_PAGES);
    }
    None
}
