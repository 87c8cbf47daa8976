// SPDX-License-Identifier: GPL-2.0
//! What is where in an address space: virtual pages to residency and attributes.
//!
//! A map gives each virtual page a value of 28 bits, 0 for nothing; what the bits
//! mean is the caller's. It is a directory of five levels, as page tables are (512
//! ways each: 2 MiB blocks, 1 GiB, 512 GiB, 256 TiB, all), except that a part of
//! it takes a form that fits what is in it. What stands for a part is one word:
//!  * **uniform**: all of it has one value, which is in the word. No memory.
//!  * **sparse**: a sorted array of the places where the value changes. Parts up
//!    to 256 TiB can be that, so a small address space is one small array.
//!  * **dense**: a block with many changes is an array of cells of one size (1 to
//!    64 pages, as fine as its ranges are aligned). A range is written to it
//!    without a look at what is there.
//!  * **directory**: words for its 512 smaller parts.
//!
//! A lookup in a directory reads one word a level and then, in a sparse block,
//! the place where it would be if all ranges were of one length, and searches
//! only when it is not there.
//!
//! Memory is [`Nodes`]: lent by the caller, grown by the caller. A change asks
//! for what it may need before it begins, so it happens as a whole or not at all.
//! (If memory ran out all the same, that would be a bug of ours; it is reported, and
//! the part stays what it can be.)
//!
//! One caller at a time may change a map and nobody may read it meanwhile: the
//! caller has a lock (of its address space, say).
#![forbid(unsafe_code)]

use crate::nodes::{Nodes, OWN, PAGE, UNIT, WHOLE, order_for, words_of};
use crate::types::{to_u32, to_u64, to_usize};

/// The largest value.
pub const MAX_VALUE: u32 = (1 << VALUE_BITS) - 1;
/// Pages of an address space: 57-bit addresses.
pub const MAX_PAGE: u64 = span(TOP);
/// A change asks for at most so many pages of memory.
pub const WORST: u64 = 48;

const VALUE_BITS: u32 = 28;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;
/// The level of everything; level 0 is a block.
const TOP: u32 = 4;
/// Ways of a directory.
const WAYS: u64 = 512;
/// The most changes in a sparse part above the blocks.
const MOST: u64 = 512;
/// A dense block of order 0 has cells of 2^6 pages, each order halves them.
const COARSEST: u32 = 6;
/// The lower cell of a word.
const LOWER: u64 = 0xffff_ffff;
/// From so many pages on it is worth a look whether a dense block still is one.
const WIDE: u64 = 256;

const MAGIC: u64 = 0x686d_6d5f_6d61_7073;
const AT_MAGIC: usize = 0;
const AT_ROOT: usize = 1;
const AT_LEVEL: usize = 2;
const _: () = assert!(AT_LEVEL < OWN);

/// Pages of a part at `level`.
const fn span(level: u32) -> u64 {
    1 << (9 * (level + 1))
}

/// The memory is used up: nothing was changed. Lend so many pages of 4 KiB more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lend(pub u64);

/// Why a range was not set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Not a range of pages, or not a value.
    Invalid,
    /// Memory first.
    Lend(Lend),
}

/// Pages that have one value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first page.
    pub first: u64,
    /// How many.
    pub npages: u64,
    /// Their value.
    pub value: u32,
}

/// The form that a part takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Uniform,
    Sparse,
    Dense,
    Directory,
}

/// The word for a part: 4 bits of form, 12 of count (changes of a sparse part, parts
/// of a directory that are not empty), 4 of order, 32 of unit or value. A word of 0 is a part with nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Slot(u64);

impl Slot {
    const EMPTY: Slot = Slot(0);

    #[inline(always)]
    const fn uniform(value: u64) -> Slot {
        Slot(value << 32)
    }

    #[inline(always)]
    const fn at(form: Form, unit: u64, order: u32, count: u64) -> Slot {
        let form = match form {
            Form::Uniform => 0,
            Form::Sparse => 1,
            Form::Dense => 2,
            Form::Directory => 3,
        };
        Slot(unit << 32 | (order as u64) << 16 | count << 4 | form)
    }

    #[inline(always)]
    const fn form(self) -> Form {
        match self.0 & 3 {
            0 => Form::Uniform,
            1 => Form::Sparse,
            2 => Form::Dense,
            _ => Form::Directory,
        }
    }

    #[inline(always)]
    const fn value(self) -> u64 {
        self.0 >> 32
    }

    #[inline(always)]
    const fn unit(self) -> u64 {
        self.0 >> 32
    }

    #[inline(always)]
    fn order(self) -> u32 {
        to_u32(self.0 >> 16 & 15)
    }

    #[inline(always)]
    const fn count(self) -> u64 {
        self.0 >> 4 & 0xfff
    }

    #[inline(always)]
    const fn with_count(self, count: u64) -> Slot {
        Slot(self.0 & !(0xfff << 4) | count << 4)
    }
}

/// Where a walk from the root ended.
#[derive(Clone, Copy)]
struct Part {
    slot: Slot,
    level: u32,
    /// The word of the memory that `slot` is in.
    place: u64,
    /// The one with the directory that this is in; 0 when it is the root.
    above: u64,
}

/// A change in a sparse part: from page `key` of the part on, the value.
#[inline(always)]
const fn change(key: u64, value: u64) -> u64 {
    key << VALUE_BITS | value
}

#[inline(always)]
const fn key(change: u64) -> u64 {
    change >> VALUE_BITS
}

/// The index of the change that page `at` of the part is under. `changes` is
/// sorted and starts with page 0.
#[inline(always)]
fn find(changes: &[u64], at: u64, level: u32) -> usize {
    let target = change(at, VALUE_MASK);
    let n = to_u64(changes.len());
    // Where it is if all runs are of one length.
    let guess = to_usize((at * n) >> (9 * (level + 1)));
    if let Some(here) = changes.get(guess) {
        let next = changes.get(guess + 1).copied().unwrap_or(u64::MAX);
        if *here <= target && target < next {
            return guess;
        }
    }
    let (mut low, mut len) = (0, changes.len());
    // Bounded: `len` halves.
    while len > 1 {
        let half = len / 2;
        if changes.get(low + half).is_some_and(|c| *c <= target) {
            low += half;
        }
        len -= half;
    }
    low
}

/// A map in lent memory.
pub struct Map<'a> {
    nodes: Nodes<'a>,
}

impl<'a> Map<'a> {
    /// Pages of memory that a map has to be lent at least.
    pub const LEAST_PAGES: u64 = 3;

    /// Makes an empty map in lent memory, whole pages of 512 words. `None`: it
    /// is less than [`Map::LEAST_PAGES`].
    pub fn format(words: &'a mut [u64]) -> Option<Map<'a>> {
        if to_u64(words.len()) < Map::LEAST_PAGES * PAGE {
            return None;
        }
        let mut nodes = Nodes::new(words);
        nodes.format();
        nodes.put_own(AT_MAGIC, MAGIC);
        nodes.put_own(AT_LEVEL, u64::from(TOP - 1));
        Some(Map { nodes })
    }

    /// The map that is in this memory: where it was, or moved to a larger place
    /// byte by byte. `None`: there is none, or the memory has become smaller.
    pub fn at(words: &'a mut [u64]) -> Option<Map<'a>> {
        let mut nodes = Nodes::new(words);
        let here = nodes.own(AT_MAGIC) == MAGIC && nodes.extend();
        here.then_some(Map { nodes })
    }

    /// Bytes of memory: what the map's parts take, and what it has ever reached.
    pub fn memory(&self) -> (u64, u64) {
        (self.nodes.used(), self.nodes.reached())
    }

    /// Whole pages of 4 KiB that are not in use. A change takes four of them, or now and then,
    /// where a part of the map takes another form, up to [`WORST`].
    pub fn spare(&self) -> u64 {
        self.nodes.pages()
    }

    #[inline(always)]
    fn root(&self) -> (Slot, u32) {
        (
            Slot(self.nodes.own(AT_ROOT)),
            to_u32(self.nodes.own(AT_LEVEL)),
        )
    }

    /// The smallest part that page `page` is in, which is no directory; `None`: beyond
    /// the root, where nothing is.
    #[inline(always)]
    fn part(&self, page: u64) -> Option<Part> {
        let (mut slot, mut level) = self.root();
        if page >= span(level) {
            return None;
        }
        let (mut place, mut above) = (to_u64(AT_ROOT), 0);
        // Bounded: five levels.
        while slot.form() == Form::Directory && level > 0 {
            let at = page & (span(level) - 1);
            level -= 1;
            above = place;
            place = slot.unit() * UNIT + (at >> (9 * (level + 1)));
            slot = Slot(self.nodes.word(place));
        }
        Some(Part {
            slot,
            level,
            place,
            above,
        })
    }

    /// The value of page `page`.
    #[inline]
    pub fn get(&self, page: u64) -> u32 {
        let Some(Part { slot, level, .. }) = self.part(page) else {
            return 0;
        };
        let at = page & (span(level) - 1);
        to_u32(match slot.form() {
            Form::Uniform => slot.value(),
            Form::Sparse => {
                let changes = self.nodes.piece(slot.unit(), slot.count());
                let i = find(changes, at, level);
                changes.get(i).copied().unwrap_or(0) & VALUE_MASK
            }
            _ => self.dense(slot, at),
        })
    }

    #[inline(always)]
    fn child(&self, slot: Slot, i: u64) -> Slot {
        Slot(self.nodes.word(slot.unit() * UNIT + i))
    }

    fn put_child(&mut self, slot: Slot, i: u64, child: Slot) {
        let at = to_usize(i);
        if let Some(word) = self.nodes.piece_mut(slot.unit(), WAYS).get_mut(at) {
            *word = child.0;
        }
    }

    /// The value of page `at` of a dense block: two cells to a word.
    #[inline(always)]
    fn dense(&self, slot: Slot, at: u64) -> u64 {
        self.cell(slot, at >> fineness(slot.order()))
    }

    #[inline(always)]
    fn cell(&self, slot: Slot, i: u64) -> u64 {
        let pair = self.nodes.word(slot.unit() * UNIT + i / 2);
        pair >> (32 * (i % 2)) & VALUE_MASK
    }

    /// The value of `page`, and the page after the last one known to have it too.
    fn known(&self, page: u64) -> (u64, u64) {
        let Some(Part { slot, level, .. }) = self.part(page) else {
            return (0, MAX_PAGE);
        };
        let at = page & (span(level) - 1);
        let base = page - at;
        match slot.form() {
            Form::Uniform => (slot.value(), base + span(level)),
            Form::Sparse => {
                let changes = self.nodes.piece(slot.unit(), slot.count());
                let i = find(changes, at, level);
                let end = changes.get(i + 1).map_or(span(level), |c| key(*c));
                let value = changes.get(i).copied().unwrap_or(0) & VALUE_MASK;
                (value, base + end)
            }
            _ => {
                let shift = fineness(slot.order());
                let value = self.cell(slot, at >> shift);
                let mut i = (at >> shift) + 1;
                // Bounded: 512 cells.
                while i < span(0) >> shift && self.cell(slot, i) == value {
                    i += 1;
                }
                (value, base + (i << shift))
            }
        }
    }

    /// The run from `page` on, up to `end` at most: as many pages as have its value.
    pub fn run(&self, page: u64, end: u64) -> Option<Run> {
        let end = min(end, MAX_PAGE);
        if page >= end {
            return None;
        }
        let (value, mut next) = self.known(page);
        // Bounded: each part of the map from here on once.
        while next < end {
            let (other, further) = self.known(next);
            if other != value {
                break;
            }
            next = further;
        }
        Some(Run {
            first: page,
            npages: min(next, end) - page,
            value: to_u32(value),
        })
    }

    /// The next run in `[page, end)` that has a bit of `mask`: with the bits for
    /// "on a device", the next that is resident. It begins at `page` or later
    /// and is as long as one value goes.
    pub fn next(&self, page: u64, end: u64, mask: u32) -> Option<Run> {
        let end = min(end, MAX_PAGE);
        let mut page = page;
        // Bounded: each part of the map once.
        while page < end {
            let (value, next) = self.known(page);
            if to_u32(value) & mask != 0 {
                return self.run(page, end);
            }
            page = next;
        }
        None
    }

    /// The runs in `[first, end)` that have a value, in order.
    pub fn runs(&self, first: u64, end: u64) -> impl Iterator<Item = Run> {
        let mut at = first;
        core::iter::from_fn(move || {
            let run = self.next(at, end, u32::MAX)?;
            at = run.first + run.npages;
            Some(run)
        })
    }

    /// What setting an edge at `page` may cost, in pages of memory.
    fn cost(&self, page: u64) -> u64 {
        match self.part(page) {
            // It may have to become a directory, and what is in it too.
            Some(part) if part.slot.form() != Form::Sparse || part.slot.count() + 2 <= MOST => 1,
            // Likewise, or the old root goes under a new one.
            _ => WORST / 2,
        }
    }

    /// Gives the pages `[first, first + npages)` the value `value`, 0 for none.
    /// What they had is replaced; neighbours of the same value become one run
    /// with them.
    ///
    /// # Errors
    /// Nothing was changed then.
    pub fn set(&mut self, first: u64, npages: u64, value: u32) -> Result<(), Refused> {
        let end = match first.checked_add(npages) {
            Some(end) if npages != 0 && end <= MAX_PAGE && value <= MAX_VALUE => end,
            _ => return Err(Refused::Invalid),
        };
        if self.set_in_part(first, end, u64::from(value)) {
            return Ok(());
        }
        self.set_anew(first, end, value)
    }

    /// The most common changes: all of the range is in one part, and no directory comes
    /// or goes. False: nothing was done.
    #[inline]
    fn set_in_part(&mut self, first: u64, end: u64, value: u64) -> bool {
        let Some(part) = self.part(first) else {
            return false;
        };
        let Part { slot, level, .. } = part;
        if (first ^ (end - 1)) >> (9 * (level + 1)) != 0 {
            return false;
        }
        let lo = first & (span(level) - 1);
        let hi = lo + (end - first);
        if slot.form() == Form::Dense {
            let fits = alignment(lo, hi) >= fineness(slot.order())
                && hi - lo < WIDE
                && (value != 0 || !self.alone(slot, lo, hi));
            if fits {
                self.fill(slot, lo, hi, value);
                return true;
            }
        }
        if slot.form() == Form::Sparse {
            let changes = self.nodes.piece(slot.unit(), slot.count());
            let edit = Edit::of(changes, level, lo, hi, value);
            let room = words_of(slot.order());
            if edit.new >= 2 && edit.new <= room && edit.new * 4 > room {
                let piece = self.nodes.piece_mut(slot.unit(), room);
                edit.apply(piece);
                self.nodes.put(part.place, slot.with_count(edit.new).0);
                return true;
            }
        }
        value != 0 && self.set_form(part, lo, hi, value)
    }

    /// As [`Map::set_in_part`], for a part that takes another form or place. The value
    /// is not 0.
    #[inline(never)]
    fn set_form(&mut self, part: Part, lo: u64, hi: u64, value: u64) -> bool {
        if self.nodes.pages() < WORST || part.level == TOP {
            return false;
        }
        let new = self.set_in(part.slot, part.level, lo, hi, value);
        self.nodes.put(part.place, new.0);
        if part.slot == Slot::EMPTY && part.above != 0 {
            let above = Slot(self.nodes.word(part.above));
            let count = above.count() + 1;
            self.nodes.put(part.above, above.with_count(count).0);
        }
        true
    }

    #[inline(never)]
    fn set_anew(&mut self, first: u64, end: u64, value: u32) -> Result<(), Refused> {
        let have = self.nodes.pages();
        if have < WORST {
            // Two more for the root.
            let need = self.cost(first) + self.cost(end - 1) + 2;
            if have < need {
                return Err(Refused::Lend(Lend(need - have)));
            }
        }
        let (mut root, mut level) = self.root();
        // Nothing is beyond the root: nothing to take away there.
        let end = if value == 0 {
            min(end, span(level))
        } else {
            end
        };
        if first >= end {
            return Ok(());
        }
        if end > span(level) {
            if root != Slot::EMPTY {
                root = self.directory(Slot::EMPTY, Some(root));
            }
            level = TOP;
        }
        let root = self.set_in(root, level, first, end, u64::from(value));
        self.nodes.put_own(AT_ROOT, root.0);
        self.nodes.put_own(AT_LEVEL, u64::from(level));
        Ok(())
    }

    /// A directory whose parts are all `fill`, but the first is `zeroth`.
    fn directory(&mut self, fill: Slot, zeroth: Option<Slot>) -> Slot {
        let Some(unit) = self.nodes.take(WHOLE) else {
            crate::warn_here!();
            return fill;
        };
        let parts = self.nodes.piece_mut(unit, WAYS);
        parts.fill(fill.0);
        let mut full = if fill == Slot::EMPTY { 0 } else { WAYS };
        if let (Some(zeroth), Some(word)) = (zeroth, parts.first_mut()) {
            *word = zeroth.0;
            full = 1;
        }
        Slot::at(Form::Directory, unit, WHOLE, full)
    }

    /// Gives back the memory of a part and of what is under it. Not deep: five
    /// levels.
    fn free(&mut self, slot: Slot) {
        match slot.form() {
            Form::Uniform => return,
            Form::Directory => {
                // Bounded: 512 parts.
                for i in 0..WAYS {
                    let child = self.child(slot, i);
                    if child.form() != Form::Uniform {
                        self.free(child);
                    }
                }
            }
            _ => {}
        }
        self.nodes.give(slot.unit(), slot.order());
    }

    /// The part `slot` of level `level` with its pages `[lo, hi)` set. Not deep:
    /// five levels.
    fn set_in(&mut self, slot: Slot, level: u32, lo: u64, hi: u64, value: u64) -> Slot {
        if lo == 0 && hi == span(level) {
            self.free(slot);
            return Slot::uniform(value);
        }
        match slot.form() {
            Form::Uniform if slot.value() == value => slot,
            Form::Uniform if level == TOP => {
                let all = self.directory(slot, None);
                self.set_under(all, level, lo, hi, value)
            }
            Form::Uniform => self.sparse_of(slot.value(), level, lo, hi, value),
            Form::Sparse => self.set_sparse(slot, level, lo, hi, value),
            Form::Dense => self.set_dense(slot, lo, hi, value),
            Form::Directory => self.set_under(slot, level, lo, hi, value),
        }
    }

    fn set_under(&mut self, slot: Slot, level: u32, lo: u64, hi: u64, value: u64) -> Slot {
        let Some(below) = level.checked_sub(1) else {
            return slot;
        };
        let each = span(below);
        let mut slot = slot;
        let mut at = lo;
        // Bounded: each of 512 parts once.
        while at < hi {
            let i = at / each;
            let base = i * each;
            let end = min(base + each, hi);
            let old = self.child(slot, i);
            let new = self.set_in(old, below, at - base, end - base, value);
            if new != old {
                self.put_child(slot, i, new);
                let count =
                    slot.count() + u64::from(new != Slot::EMPTY) - u64::from(old != Slot::EMPTY);
                slot = slot.with_count(count);
            }
            at = end;
        }
        if slot.count() == 0 {
            self.nodes.give(slot.unit(), WHOLE);
            return Slot::EMPTY;
        }
        slot
    }

    /// A uniform part becomes sparse.
    fn sparse_of(&mut self, had: u64, level: u32, lo: u64, hi: u64, value: u64) -> Slot {
        let Some(unit) = self.nodes.take(0) else {
            crate::warn_here!();
            return Slot::uniform(had);
        };
        let mut n = 0;
        let starts = [(0, had), (lo, value), (hi, had)];
        let piece = self.nodes.piece_mut(unit, words_of(0));
        for (key, value) in starts {
            if key == span(level) || key == 0 && value == had && lo == 0 {
                continue;
            }
            if let Some(word) = piece.get_mut(n) {
                *word = change(key, value);
                n += 1;
            }
        }
        Slot::at(Form::Sparse, unit, 0, to_u64(n))
    }

    fn set_sparse(&mut self, slot: Slot, level: u32, lo: u64, hi: u64, value: u64) -> Slot {
        let n = slot.count();
        let changes = self.nodes.piece(slot.unit(), n);
        let edit = Edit::of(changes, level, lo, hi, value);
        let new = edit.new;
        if new == 1 {
            // All of it has the new value, or what was before it.
            let first = changes.first().copied().unwrap_or(0) & VALUE_MASK;
            self.nodes.give(slot.unit(), slot.order());
            return Slot::uniform(if edit.p == 1 { first } else { value });
        }
        let mut slot = slot;
        if new > words_of(slot.order()) {
            let order = order_for(new);
            if level == 0 {
                let all = changes.iter().fold(lo | hi, |all, c| all | key(*c));
                let dense = order_dense(all);
                // Twice the memory now saves a move when more ranges come.
                if dense <= order + 1 {
                    slot = self.to_dense(slot, dense);
                    self.fill(slot, lo, hi, value);
                    return slot;
                }
            } else if new > MOST {
                let wider = self.to_directory(slot, level);
                return self.set_in(wider, level, lo, hi, value);
            }
            slot = self.resize(slot, n, order);
        }
        let piece = self.nodes.piece_mut(slot.unit(), words_of(slot.order()));
        edit.apply(piece);
        // Half of half: a part that goes to and fro does not move each time.
        if new * 4 <= words_of(slot.order()) {
            slot = self.resize(slot, new, order_for(new));
        }
        slot.with_count(new)
    }

    /// The same changes in a piece of another size; unchanged if there is none.
    fn resize(&mut self, slot: Slot, n: u64, order: u32) -> Slot {
        let Some(unit) = self.nodes.take(order) else {
            crate::warn_here!();
            return slot;
        };
        self.nodes.copy(slot.unit(), unit, n);
        self.nodes.give(slot.unit(), slot.order());
        Slot::at(Form::Sparse, unit, order, n)
    }

    /// Too many changes for a sparse part: a directory.
    #[inline(never)]
    fn to_directory(&mut self, slot: Slot, level: u32) -> Slot {
        let n = slot.count();
        let mut wider = self.directory(Slot::EMPTY, None);
        // Bounded: the changes of a sparse part.
        for i in 0..n {
            let (lo, hi, value) = self.nth(slot, i, level);
            if value != 0 {
                wider = self.set_under(wider, level, lo, hi, value);
            }
        }
        self.nodes.give(slot.unit(), slot.order());
        wider
    }

    /// The `i`th run of a sparse part.
    fn nth(&self, slot: Slot, i: u64, level: u32) -> (u64, u64, u64) {
        let at = slot.unit() * UNIT + i;
        let here = self.nodes.word(at);
        let last = i + 1 >= slot.count();
        let end = if last {
            span(level)
        } else {
            key(self.nodes.word(at + 1))
        };
        (key(here), end, here & VALUE_MASK)
    }

    /// A sparse block becomes a dense one of order `order`.
    #[inline(never)]
    fn to_dense(&mut self, slot: Slot, order: u32) -> Slot {
        let Some(unit) = self.nodes.take(order) else {
            crate::warn_here!();
            return slot;
        };
        let dense = Slot::at(Form::Dense, unit, order, 0);
        // Bounded: the changes of a sparse part.
        for i in 0..slot.count() {
            let (lo, hi, value) = self.nth(slot, i, 0);
            self.fill(dense, lo, hi, value);
        }
        self.nodes.give(slot.unit(), slot.order());
        dense
    }

    /// Writes cells of a dense block; the pages are aligned to them.
    #[inline(always)]
    fn fill(&mut self, slot: Slot, lo: u64, hi: u64, value: u64) {
        let shift = fineness(slot.order());
        let (first, end) = (lo >> shift, hi >> shift);
        let piece = self.nodes.piece_mut(slot.unit(), words_of(slot.order()));
        let both = value | value << 32;
        // The first cell may be the upper half of its word, the last a lower one.
        let (mut i, last) = (first / 2, end / 2);
        if first % 2 != 0 {
            if let Some(pair) = piece.get_mut(to_usize(i)) {
                *pair = *pair & LOWER | value << 32;
            }
            i += 1;
        }
        if let Some(words) = piece.get_mut(to_usize(i)..to_usize(last)) {
            // Bounded: 256 words.
            for pair in words {
                *pair = both;
            }
        }
        if end % 2 != 0 && last >= i {
            if let Some(pair) = piece.get_mut(to_usize(last)) {
                *pair = *pair & !LOWER | value;
            }
        }
    }

    /// Nothing is next to these pages of a dense block.
    #[inline(always)]
    fn alone(&self, slot: Slot, lo: u64, hi: u64) -> bool {
        (lo == 0 || self.dense(slot, lo - 1) == 0) && (hi >= span(0) || self.dense(slot, hi) == 0)
    }

    /// The runs of a dense block, or a number larger than `most`.
    fn count_runs(&self, slot: Slot, most: u64) -> u64 {
        let piece = self.nodes.piece(slot.unit(), words_of(slot.order()));
        let mut n = 1;
        let mut before = piece.first().copied().unwrap_or(0) & LOWER;
        // Bounded: 256 words.
        for pair in piece {
            let (lower, upper) = (pair & LOWER, pair >> 32);
            n += u64::from(lower != before) + u64::from(upper != lower);
            before = upper;
            if n > most {
                break;
            }
        }
        n
    }

    /// A dense block becomes a sparse one of order `order`, or a uniform one.
    fn to_sparse(&mut self, slot: Slot, order: u32) -> Slot {
        let shift = fineness(slot.order());
        let Some(unit) = self.nodes.take(order) else {
            crate::warn_here!();
            return slot;
        };
        let mut n = 0;
        let mut before = u64::MAX;
        // Bounded: 512 cells.
        for i in 0..span(0) >> shift {
            let here = self.cell(slot, i);
            if here != before {
                let piece = self.nodes.piece_mut(unit, words_of(order));
                if let Some(word) = piece.get_mut(n) {
                    *word = change(i << shift, here);
                    n += 1;
                }
                before = here;
            }
        }
        self.nodes.give(slot.unit(), slot.order());
        Slot::at(Form::Sparse, unit, order, to_u64(n))
    }

    fn set_dense(&mut self, slot: Slot, lo: u64, hi: u64, value: u64) -> Slot {
        let order = slot.order();
        if alignment(lo, hi) >= fineness(order) {
            self.fill(slot, lo, hi, value);
            if hi - lo < WIDE && (value != 0 || !self.alone(slot, lo, hi)) {
                return slot;
            }
            // A piece of a quarter of the size and half of that empty, or nothing at all.
            let few = ((1 << order) / 2).max(1);
            let n = self.count_runs(slot, few);
            return if n == 1 {
                let value = self.cell(slot, 0);
                self.nodes.give(slot.unit(), order);
                Slot::uniform(value)
            } else if n <= few {
                self.to_sparse(slot, order_for(n))
            } else {
                slot
            };
        }
        // Finer cells, or the changes alone where that takes less.
        let n = self.count_runs(slot, WAYS / 2);
        let (dense, sparse) = (order_dense(lo | hi), order_for(n + 2));
        if dense > sparse {
            let slot = self.to_sparse(slot, sparse);
            return self.set_sparse(slot, 0, lo, hi, value);
        }
        let Some(unit) = self.nodes.take(dense) else {
            crate::warn_here!();
            return slot;
        };
        let finer = Slot::at(Form::Dense, unit, dense, 0);
        // Each cell becomes two or more: whole words.
        let each = 1 << (dense - order - 1);
        let mut at = 0;
        // Bounded: 512 cells.
        for i in 0..span(0) >> fineness(order) {
            let value = self.cell(slot, i);
            let piece = self.nodes.piece_mut(unit, words_of(dense));
            let end = at + each;
            for pair in piece.get_mut(at..end).unwrap_or(&mut []) {
                *pair = value | value << 32;
            }
            at = end;
        }
        self.nodes.give(slot.unit(), order);
        self.fill(finer, lo, hi, value);
        finer
    }
}

/// A cell of a dense block of order `order` has two to the power of this pages.
#[inline(always)]
const fn fineness(order: u32) -> u32 {
    COARSEST.saturating_sub(order)
}

/// The order of a dense block whose changes are at places of which `all` is the
/// union.
#[inline(always)]
const fn order_dense(all: u64) -> u32 {
    COARSEST.saturating_sub(all.trailing_zeros())
}

/// Two to the power of this pages divide both.
#[inline(always)]
const fn alignment(lo: u64, hi: u64) -> u32 {
    (lo | hi).trailing_zeros()
}

const fn min(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}

/// What setting a range does to the changes of a sparse part: those from `p` to
/// `q` go, `nput` of `put` come.
struct Edit {
    p: u64,
    q: u64,
    n: u64,
    put: [u64; 2],
    nput: u64,
    /// Changes afterwards.
    new: u64,
}

impl Edit {
    #[inline(always)]
    fn of(changes: &[u64], level: u32, lo: u64, hi: u64, value: u64) -> Edit {
        let n = to_u64(changes.len());
        let get = |i: u64| changes.get(to_usize(i)).copied().unwrap_or(u64::MAX);
        let i = to_u64(find(changes, lo, level));
        // Most ranges end in the run they begin in, or in the next.
        let mut j = i;
        if j + 1 < n && key(get(j + 1)) < hi {
            j += 1;
            if j + 1 < n && key(get(j + 1)) < hi {
                j = to_u64(find(changes, hi - 1, level));
            }
        }
        let p = if key(get(i)) < lo { i + 1 } else { i };
        let mut q = j + 1;
        let end = if q < n { key(get(q)) } else { span(level) };
        let rest = get(j) & VALUE_MASK;
        let left = p > 0 && get(p - 1) & VALUE_MASK == value;
        let (first, second) = (change(lo, value), change(hi, rest));
        // What is after the range begins anew, if it is not the same.
        let after = end > hi && rest != value;
        if end == hi && q < n && get(q) & VALUE_MASK == value {
            q += 1;
        }
        let nput = u64::from(!left) + u64::from(after);
        Edit {
            p,
            q,
            n,
            put: if left { [second, 0] } else { [first, second] },
            nput,
            new: p + nput + (n - q),
        }
    }

    /// `piece` has room for all that is there afterwards. One place, so that the compiler has
    /// copy_within() in view there, and sees that it cannot panic.
    #[inline(never)]
    fn apply(&self, piece: &mut [u64]) {
        let (from, into) = (to_usize(self.q), to_usize(self.p + self.nput));
        let len = to_usize(self.n - self.q);
        if into >= from {
            let up = into - from;
            if let Some(part) = piece.get_mut(from..)
                && len <= part.len()
                && up <= part.len() - len
            {
                part.copy_within(..len, up);
            }
        } else if let Some(part) = piece.get_mut(into..from + len)
            && from - into <= part.len()
        {
            part.copy_within(from - into.., 0);
        }
        let puts = piece.iter_mut().skip(to_usize(self.p)).zip(self.put);
        for (word, new) in puts.take(to_usize(self.nput)) {
            *word = new;
        }
    }
}
