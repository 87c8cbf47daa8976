// SPDX-License-Identifier: GPL-2.0
//! What is in use, and what of it goes first: the spans that eviction and
//! teardown bring home.
//!
//! Age is a clock over the 2 MiB blocks: each block has a mark that every use
//! sets, and a hand goes round, clears the marks it passes, and stops at the
//! first block in use without one. Marks and hand are hints: losing one costs a
//! worse choice, never a frame.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicU64, Ordering::Relaxed, look};
use crate::frames::Frames;
use crate::types::{BLOCK_PAGES, Block, PageIndex, WORD_PAGES, low_bits, to_u64, to_usize};

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

/// Blocks in one word of a map.
const MAP_BLOCKS: u64 = 64;

/// How often a caller lets others move the hand before it stops asking.
const YIELDS: u32 = 64;

/// Which blocks were used lately: a view on lent memory.
pub struct Clock<'a> {
    /// One bit per block, as long as the maps of [`Frames`]: used since the hand
    /// passed.
    pub marks: &'a [AtomicU64],
    /// The block that the hand comes to next.
    pub hand: &'a AtomicU64,
}

impl Clock<'_> {
    /// Marks the blocks of `[first, first + npages)`; what is outside the region
    /// is left out.
    #[inline]
    pub fn touch(&self, first: PageIndex, npages: u64) {
        let Some(last) = npages.checked_sub(1).map(|n| first.0.saturating_add(n)) else {
            return;
        };
        let mut block = first.0 / BLOCK_PAGES;
        let last = last / BLOCK_PAGES;
        // Bounded: each word of the map once.
        while block <= last {
            let Some(word) = self.marks.get(to_usize(block / MAP_BLOCKS)) else {
                return;
            };
            let from = block % MAP_BLOCKS;
            let n = min(MAP_BLOCKS - from, last - block + 1);
            let mask = low_bits(n) << from;
            // Mostly they are set: no write, and no line taken from another CPU.
            if word.load(Relaxed) & mask != mask {
                word.fetch_or(mask, Relaxed);
            }
            block += n;
        }
    }

    /// The next span in use, at most `max` pages of one block, whose block was
    /// not used since the hand passed it last. The hand then stands behind that
    /// block, so that callers at the same time get different ones. `None`: no
    /// frame is in use.
    pub fn victim(&self, frames: &Frames<'_>, max: u64) -> Option<Span> {
        let nmap = to_u64(frames.whole.len());
        let end = nmap * MAP_BLOCKS;
        let mut yields = 0;
        let mut seen = 0;
        // Bounded: two turns of the hand, a word of the maps in each step (the
        // first word of a turn is cut by where the hand stood, so one more), and
        // YIELDS steps that went to others.
        while seen < 2 * nmap + 2 {
            let at = self.hand.load(Relaxed);
            let from = if at < end { at } else { 0 };
            let (block, found) = self.candidate(frames, from, max);
            let next = if block + 1 < end { block + 1 } else { 0 };
            let mine = self
                .hand
                .compare_exchange(at, next, Relaxed, Relaxed)
                .is_ok();
            if !mine && yields < YIELDS {
                yields += 1;
                continue;
            }
            // What the hand has passed counts as not used from now on.
            let passed = low_bits(block - from + u64::from(found.is_none())) << (from % MAP_BLOCKS);
            if let Some(word) = self.marks.get(to_usize(from / MAP_BLOCKS)) {
                if word.load(Relaxed) & passed != 0 {
                    word.fetch_and(!passed, Relaxed);
                }
            }
            if found.is_some() {
                return found;
            }
            seen += 1;
        }
        // Used faster than the hand goes round: then any of them.
        let hand = self.hand.load(Relaxed).saturating_mul(BLOCK_PAGES);
        next_span(frames, PageIndex(hand), max).or_else(|| next_span(frames, PageIndex(0), max))
    }

    /// In the map word of block `from`, from there on: the first block in use
    /// without a mark and its span, or the word's last block and nothing.
    fn candidate(&self, frames: &Frames<'_>, from: u64, max: u64) -> (u64, Option<Span>) {
        let i = to_usize(from / MAP_BLOCKS);
        let last = from | (MAP_BLOCKS - 1);
        let (Some(whole), Some(marks)) = (frames.whole.get(i), self.marks.get(i)) else {
            return (last, None);
        };
        let mut bits = !(look(whole) | marks.load(Relaxed)) & (u64::MAX << (from % MAP_BLOCKS));
        // Bounded: each block of the word once.
        while bits != 0 {
            let block = Block(i * 64 + to_usize(u64::from(bits.trailing_zeros())));
            bits &= bits - 1;
            if block.first().0 >= frames.npages {
                break;
            }
            if let Some(span) = span_in(frames, block, max) {
                return (to_u64(block.0), Some(span));
            }
        }
        (last, None)
    }
}

/// The first span of `block` that is in use, at most `max` pages.
fn span_in(frames: &Frames<'_>, block: Block, max: u64) -> Option<Span> {
    let end = block.first().0 + BLOCK_PAGES;
    let mut page = block.first().0;
    // Bounded: the block's eight words.
    while page < min(end, frames.npages) {
        let at = PageIndex(page);
        if !frames.free_mask(at.word()) != 0 {
            return next_span(frames, at, max).filter(|span| span.first.block() == block);
        }
        page += WORD_PAGES;
    }
    None
}
