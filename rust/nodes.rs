// SPDX-License-Identifier: GPL-2.0
//! The memory of a range map: pieces of 32 bytes to 4 KiB out of 4 KiB pages that
//! the caller lends in bulk.
//!
//! A buddy system without a pointer in it: a piece is named by its number (its
//! offset in units of 32 bytes), so the caller may move all of the memory to a
//! larger place, byte by byte, and lend that instead. Free pieces are linked
//! through their own first words; which units are free is also a bit each, so
//! that a piece finds its buddy.
//!
//! Pages come in groups of 256. The first two of a group are not handed out: page
//! 0 is the head of the whole (in the first group), page 1 the bits of its group.
#![forbid(unsafe_code)]

use crate::types::{low_bits, to_u64, to_usize};

/// Words in a page.
pub const PAGE: u64 = 512;
/// Words in the smallest piece.
pub const UNIT: u64 = 4;
/// The order of a whole page: 2^7 units.
pub const WHOLE: u32 = 7;

const PAGE_UNITS: u64 = PAGE / UNIT;
const GROUP: u64 = 256;
/// Pages of a group that are not handed out.
const RESERVED: u64 = 2;

/// Where the head keeps what, in words.
const LENT: usize = 3;
const FRESH: usize = 4;
const FREE_PAGES: usize = 5;
const USED: usize = 6;
const LISTS: usize = 8;
/// The first words are the map's own.
pub const OWN: usize = 3;

/// A view of lent memory.
pub struct Nodes<'a> {
    words: &'a mut [u64],
}

/// The words of a piece of order `order`.
pub const fn words_of(order: u32) -> u64 {
    UNIT << order
}

/// The smallest order that holds `n` words; more than [`WHOLE`] if none does.
pub const fn order_for(n: u64) -> u32 {
    let units = n.div_ceil(UNIT);
    if units <= 1 {
        0
    } else {
        64 - (units - 1).leading_zeros()
    }
}

impl<'a> Nodes<'a> {
    /// The memory as it is; [`Nodes::format`] or an earlier user gave it its form.
    pub fn new(words: &'a mut [u64]) -> Nodes<'a> {
        Nodes { words }
    }

    /// Makes all of the memory free. Nothing is read of what was in it.
    pub fn format(&mut self) {
        for i in 0..PAGE {
            self.put(i, 0);
        }
        self.put_own(FRESH, RESERVED);
        self.extend();
        self.clear_bits(0);
    }

    /// The memory has become larger; everything in it is where it was. True
    /// when it has a head and is not smaller than before.
    pub fn extend(&mut self) -> bool {
        let pages = to_u64(self.words.len()) / PAGE;
        if pages < self.own(LENT) || pages < RESERVED {
            return false;
        }
        self.put_own(LENT, pages);
        true
    }

    /// Word `i` of the memory; 0 outside of it.
    #[inline(always)]
    pub fn word(&self, i: u64) -> u64 {
        match self.words.get(to_usize(i)) {
            Some(word) => *word,
            None => 0,
        }
    }

    /// Writes word `i` of the memory; nothing outside of it.
    #[inline(always)]
    pub fn put(&mut self, i: u64, value: u64) {
        if let Some(word) = self.words.get_mut(to_usize(i)) {
            *word = value;
        }
    }

    /// Word `i` of the head.
    #[inline(always)]
    pub fn own(&self, i: usize) -> u64 {
        self.word(to_u64(i))
    }

    /// Writes word `i` of the head.
    #[inline(always)]
    pub fn put_own(&mut self, i: usize, value: u64) {
        self.put(to_u64(i), value);
    }

    /// The first `n` words of piece `unit`; none of them if it is not in the memory.
    #[inline(always)]
    pub fn piece(&self, unit: u64, n: u64) -> &[u64] {
        let at = to_usize(unit * UNIT);
        self.words.get(at..at + to_usize(n)).unwrap_or(&[])
    }

    /// The same to write to.
    #[inline(always)]
    pub fn piece_mut(&mut self, unit: u64, n: u64) -> &mut [u64] {
        let at = to_usize(unit * UNIT);
        self.words.get_mut(at..at + to_usize(n)).unwrap_or(&mut [])
    }

    /// Copies the first `n` words of one piece to another.
    #[inline]
    pub fn copy(&mut self, from: u64, to: u64, n: u64) {
        let (from, to, n) = (to_usize(from * UNIT), to_usize(to * UNIT), to_usize(n));
        // Pieces do not overlap: the lower one ends where the other begins, or before.
        let upper = if from < to { to } else { from };
        let Some((low, high)) = self.words.split_at_mut_checked(upper) else {
            return;
        };
        let (source, target) = if from < to {
            (low.get(from..), high.get_mut(..n))
        } else {
            (high.get(..n), low.get_mut(to..))
        };
        let (Some(source), Some(target)) = (source, target) else {
            return;
        };
        // Bounded: `n` words, a page at most.
        for (target, source) in target.iter_mut().zip(source).take(n) {
            *target = *source;
        }
    }

    /// Whole pages that can still be taken.
    #[inline]
    pub fn pages(&self) -> u64 {
        let (lent, fresh) = (self.own(LENT), self.own(FRESH));
        // The groups that begin among those never used want pages of their own.
        let groups = lent.div_ceil(GROUP).saturating_sub(fresh.div_ceil(GROUP));
        let left = lent.saturating_sub(fresh);
        self.own(FREE_PAGES) + left.saturating_sub(groups * RESERVED)
    }

    /// Bytes of the pieces that are in use.
    pub fn used(&self) -> u64 {
        self.own(USED) * UNIT * 8
    }

    /// Bytes of the pages that were ever used, the reserved ones included.
    pub fn reached(&self) -> u64 {
        self.own(FRESH) * PAGE * 8
    }

    /// Where the bits of the units of `unit`'s page are.
    #[inline(always)]
    fn bits(unit: u64) -> u64 {
        let page = unit / PAGE_UNITS;
        ((page & !(GROUP - 1)) + 1) * PAGE + page % GROUP * 2
    }

    /// The word with the bits of a piece smaller than a page, and its bits in it.
    #[inline(always)]
    fn mask(unit: u64, order: u32) -> (u64, u64) {
        let at = unit % PAGE_UNITS;
        (
            Nodes::bits(unit) + at / 64,
            low_bits(1 << order) << (at % 64),
        )
    }

    #[inline(always)]
    fn mark(&mut self, unit: u64, order: u32, free: bool) {
        let whole = order == WHOLE;
        let (word, mask) = Nodes::mask(unit, order);
        let old = self.word(word);
        self.put(word, if free { old | mask } else { old & !mask });
        if whole {
            self.put(word + 1, if free { u64::MAX } else { 0 });
        }
    }

    /// A page's bits, when its group is new.
    fn clear_bits(&mut self, group: u64) {
        let first = (group * GROUP + 1) * PAGE;
        for i in first..first + PAGE {
            self.put(i, 0);
        }
    }

    fn push(&mut self, unit: u64, order: u32) {
        let list = to_u64(LISTS) + u64::from(order);
        let head = self.word(list);
        self.put(unit * UNIT, head);
        self.put(unit * UNIT + 1, 0);
        if head != 0 {
            self.put(head * UNIT + 1, unit);
        }
        self.put(list, unit);
        if order == WHOLE {
            self.put_own(FREE_PAGES, self.own(FREE_PAGES) + 1);
        }
    }

    fn unlink(&mut self, unit: u64, order: u32) {
        let (next, prev) = (self.word(unit * UNIT), self.word(unit * UNIT + 1));
        if next != 0 {
            self.put(next * UNIT + 1, prev);
        }
        let place = if prev != 0 {
            prev * UNIT
        } else {
            to_u64(LISTS) + u64::from(order)
        };
        self.put(place, next);
        if order == WHOLE {
            self.put_own(FREE_PAGES, self.own(FREE_PAGES) - 1);
        }
    }

    /// A page that was never used.
    fn fresh(&mut self) -> Option<u64> {
        let mut page = self.own(FRESH);
        if page % GROUP == 0 {
            page += RESERVED;
            if page >= self.own(LENT) {
                return None;
            }
            self.clear_bits(page / GROUP);
        }
        if page >= self.own(LENT) {
            return None;
        }
        self.put_own(FRESH, page + 1);
        Some(page * PAGE_UNITS)
    }

    /// A piece of order `order`, with anything in it. `None`: the memory is used
    /// up, which a caller who looked at [`Nodes::pages`] before does not see.
    pub fn take(&mut self, order: u32) -> Option<u64> {
        let mut at = order;
        // Bounded: eight lists.
        while at <= WHOLE && self.own(LISTS + to_usize(u64::from(at))) == 0 {
            at += 1;
        }
        let unit = if at <= WHOLE {
            let unit = self.own(LISTS + to_usize(u64::from(at)));
            self.unlink(unit, at);
            self.mark(unit, order, false);
            unit
        } else {
            at = WHOLE;
            self.fresh()?
        };
        // Bounded: seven halvings. The upper half stays free.
        while at > order {
            at -= 1;
            let half = unit + (1 << at);
            self.mark(half, at, true);
            self.push(half, at);
        }
        self.put_own(USED, self.own(USED) + (1 << order));
        Some(unit)
    }

    /// Gives a piece back.
    pub fn give(&mut self, unit: u64, order: u32) {
        self.put_own(USED, self.own(USED).wrapping_sub(1 << order));
        self.mark(unit, order, true);
        let (mut unit, mut order) = (unit, order);
        // Bounded: seven joins.
        while order < WHOLE {
            let buddy = unit ^ (1 << order);
            let (word, mask) = Nodes::mask(buddy, order);
            if self.word(word) & mask != mask {
                break;
            }
            self.unlink(buddy, order);
            unit &= !(1 << order);
            order += 1;
        }
        self.push(unit, order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn orders() {
        for (n, order) in [
            (0, 0),
            (1, 0),
            (4, 0),
            (5, 1),
            (8, 1),
            (9, 2),
            (32, 3),
            (512, 7),
        ] {
            assert_eq!(order_for(n), order, "{n} words");
        }
        assert!(order_for(513) > WHOLE);
    }

    /// Random takes and gives: pieces never overlap, stay inside, and when all
    /// are given back whole pages can be had, as many as at first.
    #[test]
    fn pieces_never_overlap_and_join_again() {
        for pages in [3u64, 4, 9, 256, 257, 258, 259, 600] {
            let mut words = vec![0x5a5a_5a5a_5a5a_5a5au64; (pages * PAGE) as usize];
            let mut nodes = Nodes::new(&mut words);
            nodes.format();
            let all = nodes.pages();
            let mut x = pages;
            let mut mine: Vec<(u64, u32)> = Vec::new();
            let mut taken = vec![false; (pages * PAGE_UNITS) as usize];
            for turn in 0..20_000u64 {
                x = x
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                let r = x >> 33;
                if (r % 16 < 9) ^ (turn / 3000 % 2 == 1) {
                    let order = (r >> 8) as u32 % 8;
                    let pages_left = nodes.pages();
                    let Some(unit) = nodes.take(order) else {
                        assert_eq!(pages_left, 0, "there were {pages_left} pages left");
                        continue;
                    };
                    assert_eq!(unit % (1 << order), 0);
                    assert!(unit / PAGE_UNITS % GROUP >= RESERVED);
                    for u in unit..unit + (1 << order) {
                        assert!(!core::mem::replace(&mut taken[u as usize], true));
                    }
                    nodes.piece_mut(unit, words_of(order)).fill(u64::MAX);
                    mine.push((unit, order));
                } else if !mine.is_empty() {
                    let (unit, order) = mine.swap_remove((r >> 8) as usize % mine.len());
                    for u in unit..unit + (1 << order) {
                        taken[u as usize] = false;
                    }
                    nodes.give(unit, order);
                }
            }
            let used: u64 = mine.iter().map(|(_, order)| 32 << order).sum();
            assert_eq!(nodes.used(), used);
            for (unit, order) in mine {
                nodes.give(unit, order);
            }
            assert_eq!(nodes.used(), 0);
            let mut whole = 0;
            while nodes.take(WHOLE).is_some() {
                whole += 1;
            }
            assert!(whole >= all, "{pages} pages: {whole} of {all}");
            assert!(!nodes.extend() || pages >= 2);
        }
    }
}
