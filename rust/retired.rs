// SPDX-License-Identifier: GPL-2.0
//! Frames that are out of use for good: memory that has gone bad.
//!
//! A frame is **marked** here, and never unmarked. What the mark means depends
//! on the frame's bit in the bitmap (see [`crate::frames`]): clear, somebody
//! has the frame still; set, it has come back, or never was out, and is
//! **retired**. So giving a frame back takes no look at the marks, and a retired
//! frame that is given back once more is told like any other.
//!
//! Whoever claims looks at `any` after the claim, and puts back what is marked.
//! A mark is there before `any` says so, and both sides are sequentially
//! consistent: a claim that does not see it was there first.
//!
//! Few blocks ever have a mark. Each of them has a record of its own, found by
//! its number; when the records are used up, a block that gets a mark is given
//! up as a whole. No bit per frame is spent on all the others.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicU64, Ordering::SeqCst, look};
use crate::types::{BLOCK_WORDS, Block, Word, to_u64, to_usize};

/// Words of a record: the block's number plus one (0: no block yet), and a bit
/// per frame.
const RECORD: usize = 1 + BLOCK_WORDS;

/// The marks of one region: a view on lent memory.
pub struct Retired<'a> {
    /// Not 0 when any frame may be marked.
    pub any: &'a AtomicU64,
    /// One bit per block: some frame of it is marked.
    pub some: &'a [AtomicU64],
    /// One bit per block: every frame of it is.
    pub all: &'a [AtomicU64],
    /// The records, `table_words()` words of them.
    pub table: &'a [AtomicU64],
}

/// How many records a region of `npages` gets: a twentieth of a bit per frame,
/// at least two, at most 1024.
pub const fn records(npages: u64) -> usize {
    let fair = npages / 11520;
    if fair <= 2 {
        2
    } else if fair >= 1024 {
        1024
    } else {
        to_usize(fair)
    }
}

/// Words that the records of a region of `npages` take.
pub const fn table_words(npages: u64) -> usize {
    records(npages) * RECORD
}

impl<'a> Retired<'a> {
    /// Whether any frame of the region may be marked.
    #[inline(always)]
    pub fn any(&self) -> bool {
        look(self.any) != 0
    }

    /// Whether any frame of `block` is marked.
    #[inline(always)]
    pub fn has(&self, block: Block) -> bool {
        self.any() && test(self.some, block)
    }

    /// The marked frames of a bitmap word.
    #[inline(never)]
    pub fn mask(&self, word: Word) -> u64 {
        let block = word.block();
        if !self.has(block) {
            return 0;
        }
        if test(self.all, block) {
            return u64::MAX;
        }
        match self.find(block) {
            Some(record) => record.get(1 + word.0 % BLOCK_WORDS).map_or(0, look),
            None => 0,
        }
    }

    /// Marks the frames of `block` that `masks` names, one word each.
    pub fn mark(&self, block: Block, masks: &[u64; BLOCK_WORDS]) {
        let every = masks.iter().all(|mask| *mask == u64::MAX);
        let record = if every {
            None
        } else {
            self.find_or_make(block)
        };
        match record {
            Some(record) => {
                for (word, mask) in record.iter().skip(1).zip(masks) {
                    word.fetch_or(*mask, SeqCst);
                }
            }
            None => set(self.all, block),
        }
        set(self.some, block);
        self.any.store(1, SeqCst);
    }

    /// The records in the order in which `block` goes through them.
    fn way(&self, block: Block) -> impl Iterator<Item = &'a [AtomicU64]> + use<'a> {
        let table = self.table;
        let n = table.len() / RECORD;
        let start = block.0.checked_rem(n).unwrap_or(0);
        // Bounded: each record once.
        let order = (start..n).chain(0..start);
        order.filter_map(move |i| table.get(i * RECORD..(i + 1) * RECORD))
    }

    fn find(&self, block: Block) -> Option<&'a [AtomicU64]> {
        let name = to_u64(block.0) + 1;
        for record in self.way(block) {
            match look(record.first()?) {
                0 => return None,
                key if key == name => return Some(record),
                _ => {}
            }
        }
        None
    }

    /// The record of `block`, a new one if need be; `None` when there is none left.
    /// Records are never given up, so whoever comes later on the same way finds
    /// the same one.
    fn find_or_make(&self, block: Block) -> Option<&'a [AtomicU64]> {
        let name = to_u64(block.0) + 1;
        for record in self.way(block) {
            let key = record.first()?;
            match key.compare_exchange(0, name, SeqCst, SeqCst) {
                Ok(_) => return Some(record),
                Err(other) if other == name => return Some(record),
                Err(_) => {}
            }
        }
        None
    }
}

#[inline(always)]
fn test(map: &[AtomicU64], block: Block) -> bool {
    match map.get(block.map_word()) {
        Some(word) => look(word) & block.map_bit() != 0,
        None => false,
    }
}

fn set(map: &[AtomicU64], block: Block) {
    if let Some(word) = map.get(block.map_word()) {
        word.fetch_or(block.map_bit(), SeqCst);
    }
}
