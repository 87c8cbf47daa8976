// SPDX-License-Identifier: GPL-2.0
//! Device page frames: who has which, without a lock.
//!
//! A frame is free in one of two ways, and the two exclude each other:
//!  * **whole**: its 2 MiB block's bit is set in `whole`. The block's eight
//!    bitmap words are then all zero, so that no small claim can succeed there.
//!  * **open**: its own bit is set in `words`, eight words (one cache line) to
//!    a block.
//!
//! Both are changed by one read-modify-write whose returned word decides who
//! won: a claim is `fetch_and` (the bits that were still set are ours), a
//! release is `fetch_or` (a bit that was already set is a double free).
//!
//! Everything else is a hint, and a wrong hint costs time, never a frame:
//!  * `avail`: the block is open and probably has free frames.
//!  * `held`: some CPU claims its small frames from this block.
//!  * `CpuSlot`: where a CPU claims next, and what it believes is free there: a
//!    claim that believes right reads no word that it has just written, which is
//!    half of what it would cost. Two callers may share a slot.
//!
//! What a hint promises: an open block with a free frame has `avail` or `held`
//! set, or a call that will set it is under way. It holds because the side
//! that gives a frame back writes the word and then reads the hints, while the
//! side that drops a hint writes the hint and then reads the words; all four
//! are sequentially consistent, so at least one of them sees the other.
//!
//! A frame given back twice is seen in the word that the second release gets,
//! or in its block's bit. What only a caller that does it twice *at the same
//! time* as the block around it is given back or closed can achieve is a stray
//! bit in a whole block: it is not handed out by a search, and whoever opens the
//! block next finds it and warns.
//!
//! A frame can be taken out of use for good, see [`crate::retired`]: it is marked
//! there, and is not handed out again. A block with marks is never whole.
//!
//! Nothing here blocks: every loop is bounded, and the bound is stated.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst, look, pause};
use crate::retired::Retired;
use crate::types::{
    BLOCK_PAGES, BLOCK_WORDS, Block, Cpu, PageIndex, WORD_PAGES, Word, low_bits, to_u64, to_usize,
};

/// No word chosen yet.
const NOWHERE: u64 = u64::MAX;

/// How often a full search is repeated when a block was being opened or closed
/// meanwhile: its frames are out of sight for that moment. After that many, the
/// caller is told that there is none; a caller who was interrupted in the midst
/// of it may have some in hand.
const ROUNDS: u32 = 64;

/// In `moves`: one block is being opened or closed.
const MOVING: u64 = 1;
/// In `moves`: one block was.
const MOVED: u64 = 1 << 32;

/// How many open blocks one claim of a whole block may look at when no block
/// is free as a whole. The position is kept, so that later claims see the rest.
const MERGE_SCAN: usize = 4096;

/// Frames in a run that a device maps with one entry of 64 KiB.
pub const RUN_PAGES: u64 = 16;
/// The first frame of each such run in a word.
const LANES: u64 = 0x0001_0001_0001_0001;
/// What is wanted: one whole, aligned run.
const RUN: u64 = 1 << 32;
/// Words of a map with one bit per block that stand for 1 GiB.
const GIANT_WORDS: usize = 8;
/// Frames in 1 GiB.
pub const GIANT_PAGES: u64 = 64 * to_u64(GIANT_WORDS) * BLOCK_PAGES;
/// How many blocks are looked into for a run before a whole block is opened.
const RUN_SCAN: usize = 64;

/// Where claims of one kind go on.
#[repr(C)]
struct Place {
    /// The bitmap word to claim from next, or `NOWHERE`.
    word: AtomicU64,
    /// Frames of that word that are believed to be free. For runs: the whole word.
    left: AtomicU64,
    /// The block that is held for this place, or `NOWHERE`.
    block: AtomicU64,
}

impl Place {
    fn new() -> Place {
        Place {
            word: AtomicU64::new(NOWHERE),
            left: AtomicU64::new(0),
            block: AtomicU64::new(NOWHERE),
        }
    }

    #[inline(always)]
    fn word(&self) -> Word {
        Word(to_usize(self.word.load(Relaxed)))
    }
}

/// One CPU's places and books, on cache lines of its own.
#[repr(C, align(128))]
pub struct CpuSlot {
    /// Where single frames come from.
    small: Place,
    /// Where runs come from.
    runs: Place,
    /// The frame that was given back last to a block that nobody held, or `NOWHERE`.
    recent: AtomicU64,
    /// The `whole` word to look at next.
    whole: AtomicU64,
    /// Blocks of that word that are believed to be whole.
    whole_left: AtomicU64,
    /// Where the next search for blocks to merge starts.
    scan: AtomicU64,
    /// Claimed frames booked on this CPU: wrapping, only the sum over all CPUs
    /// means something.
    pub(crate) claimed: AtomicU64,
    /// Resident frames booked on this CPU, likewise.
    pub(crate) resident: AtomicU64,
}

impl CpuSlot {
    /// The slot of CPU number `cpu` of `ncpus`, for a region of `nblocks`.
    /// CPUs start far apart, so that they do not meet on one cache line.
    pub fn new(cpu: u32, ncpus: u32, nblocks: usize) -> CpuSlot {
        let nmap = to_u64(nblocks.div_ceil(64));
        let start = match u64::from(cpu).checked_mul(nmap) {
            Some(x) => x.checked_div(u64::from(ncpus)).unwrap_or(0),
            None => 0,
        };
        CpuSlot {
            small: Place::new(),
            runs: Place::new(),
            recent: AtomicU64::new(NOWHERE),
            whole: AtomicU64::new(start),
            whole_left: AtomicU64::new(0),
            scan: AtomicU64::new(start.wrapping_mul(64)),
            claimed: AtomicU64::new(0),
            resident: AtomicU64::new(0),
        }
    }
}

/// Frames that a claim got, all in one bitmap word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The page that bit 0 of `mask` stands for.
    pub base: PageIndex,
    /// The frames that are now the caller's.
    pub mask: u64,
}

/// Frames that were just taken out of a word, and what is left there.
struct Taken {
    at: Word,
    got: u64,
    left: u64,
}

impl Taken {
    #[inline(always)]
    fn grant(&self) -> Grant {
        Grant {
            base: self.at.first(),
            mask: self.got,
        }
    }
}

/// What a release found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Released {
    /// Frames that are free now because of this call.
    pub freed: u64,
    /// Frames of the range that were free before: the caller's mistake.
    pub already: u64,
}

/// How a bitmap of `npages` frames is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Frames in the region.
    pub npages: u64,
    /// Blocks, the last one possibly partial.
    pub nblocks: usize,
    /// Bitmap words, always whole blocks of them.
    pub nwords: usize,
    /// Words of each one-bit-per-block map.
    pub nmap: usize,
}

impl Shape {
    /// The shape of a region of `npages` frames.
    pub const fn of(npages: u64) -> Shape {
        let nblocks = to_usize(npages.div_ceil(BLOCK_PAGES));
        Shape {
            npages,
            nblocks,
            nwords: nblocks * BLOCK_WORDS,
            nmap: nblocks.div_ceil(64),
        }
    }
}

/// The frames of one region: a view on lent memory.
pub struct Frames<'a> {
    /// Frames in the region.
    pub npages: u64,
    /// One bit per frame: free and open. `Shape::nwords` long.
    pub words: &'a [AtomicU64],
    /// One bit per block: free as a whole. `Shape::nmap` long, like the next two.
    pub whole: &'a [AtomicU64],
    /// Hint, one bit per block: open with free frames.
    pub avail: &'a [AtomicU64],
    /// Hint, one bit per block: some CPU claims here.
    pub held: &'a [AtomicU64],
    /// One slot per CPU, at least one.
    pub slots: &'a [CpuSlot],
    /// Low half: blocks that are being opened or closed. High half: how many were.
    pub moves: &'a AtomicU64,
    /// The frames that are out of use for good.
    pub retired: Retired<'a>,
}

/// What [`Frames::count`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// Frames that can be claimed.
    pub free: u64,
    /// Frames that are out of use.
    pub retired: u64,
    /// Blocks all of whose frames can be claimed.
    pub blocks: u64,
}

/// The lowest `want` bits of `free`, a contiguous run if there is one; of several
/// runs, one that lies in its 64K as `partner` does, if that can be. For `RUN`: the
/// lowest aligned run, or nothing.
#[inline(always)]
fn pick(free: u64, want: u64, partner: u64) -> u64 {
    if want == 1 {
        return free & free.wrapping_neg();
    }
    if want == WORD_PAGES {
        return free;
    }
    pick_some(free, want, partner)
}

#[inline(never)]
fn pick_some(free: u64, want: u64, partner: u64) -> u64 {
    let (all_or_none, want, partner) = match want {
        RUN => (true, RUN_PAGES, 0),
        want => (false, want, partner),
    };
    if !all_or_none && u64::from(free.count_ones()) <= want {
        return free;
    }
    // After each step a bit of `runs` says that `len` bits from it on are set.
    // Bounded: `len` at least doubles until it is `want` (at most 63).
    let mut runs = free;
    let mut len = 1;
    while len < want {
        let step = if len < want - len { len } else { want - len };
        runs &= runs >> step;
        len += step;
    }
    let like = runs & (LANES << (partner % RUN_PAGES));
    if all_or_none || (want >= RUN_PAGES && like != 0) {
        runs = like;
    }
    if runs != 0 {
        return low_bits(want) << runs.trailing_zeros();
    }
    if all_or_none {
        return 0;
    }
    // No run is long enough: drop the highest bits. Bounded: at most 63 bits.
    let mut rest = free;
    let mut n = 0;
    while n < want {
        rest &= rest.wrapping_sub(1);
        n += 1;
    }
    free & !rest
}

/// The lowest whole, aligned run of a word; 0 if there is none.
#[inline(always)]
fn lane(free: u64) -> u64 {
    let mut runs = free & (free >> 8);
    runs &= runs >> 4;
    runs &= runs >> 2;
    runs &= (runs >> 1) & LANES;
    (runs & runs.wrapping_neg()).wrapping_mul(low_bits(RUN_PAGES))
}

/// The indices `0..n`, starting at `start` and going round once.
#[inline(always)]
fn around(start: usize, n: usize) -> impl Iterator<Item = usize> {
    let start = if start < n { start } else { 0 };
    (start..n).chain(0..start)
}

impl<'a> Frames<'a> {
    /// Puts memory that is all zeroes in its first state: everything free. What
    /// takes time is one bit per block.
    ///
    /// Only the caller may see the memory yet.
    pub fn format(&self) {
        let full = to_usize(self.npages / BLOCK_PAGES);
        for (i, word) in self.whole.iter().enumerate() {
            let before = i * 64;
            let n = full.saturating_sub(before);
            word.store(low_bits(to_u64(n)), Relaxed);
        }
        // A partial last block can never be whole: it is open from the start.
        let tail = Block(full);
        let mut left = self.npages % BLOCK_PAGES;
        if left != 0 {
            for word in self.block_words(tail) {
                let n = if left < WORD_PAGES { left } else { WORD_PAGES };
                word.store(low_bits(n), Relaxed);
                left -= n;
            }
            self.set(self.avail, tail);
        }
    }

    #[inline(always)]
    fn slot(&self, cpu: Cpu) -> Option<&'a CpuSlot> {
        let cpu = to_usize(u64::from(cpu.0));
        if let Some(slot) = self.slots.get(cpu) {
            return Some(slot);
        }
        self.slots.get(cpu.checked_rem(self.slots.len())?)
    }

    /// The slot that books for `cpu`.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) fn books(&self, cpu: Cpu) -> Option<&'a CpuSlot> {
        self.slot(cpu)
    }

    /// The eight words of a block; empty when there is no such block.
    #[inline(always)]
    fn block_words(&self, block: Block) -> &'a [AtomicU64] {
        let first = block.word().0;
        self.words.get(first..first + BLOCK_WORDS).unwrap_or(&[])
    }

    #[inline(always)]
    fn test(&self, map: &[AtomicU64], block: Block) -> bool {
        match map.get(block.map_word()) {
            Some(word) => look(word) & block.map_bit() != 0,
            None => false,
        }
    }

    /// Sets the block's bit; true if this call set it.
    #[inline(always)]
    fn set(&self, map: &[AtomicU64], block: Block) -> bool {
        match map.get(block.map_word()) {
            Some(word) => word.fetch_or(block.map_bit(), SeqCst) & block.map_bit() == 0,
            None => false,
        }
    }

    /// Clears the block's bit; true if this call cleared it.
    #[inline(always)]
    fn clear(&self, map: &[AtomicU64], block: Block) -> bool {
        match map.get(block.map_word()) {
            Some(word) => word.fetch_and(!block.map_bit(), SeqCst) & block.map_bit() != 0,
            None => false,
        }
    }

    /// The frames of a word that can be claimed.
    #[inline(always)]
    fn free_in(&self, at: Word, word: &AtomicU64) -> u64 {
        let free = look(word);
        if self.retired.any() {
            return free & !self.retired.mask(at);
        }
        free
    }

    /// Of the frames of a word that were just claimed, those that can be kept:
    /// what is out of use goes back to where it was.
    #[inline(always)]
    fn keep(&self, at: Word, word: &AtomicU64, got: u64) -> u64 {
        if self.retired.any() {
            return self.keep_unmarked(at, word, got);
        }
        got
    }

    #[inline(never)]
    fn keep_unmarked(&self, at: Word, word: &AtomicU64, got: u64) -> u64 {
        let marked = got & self.retired.mask(at);
        if marked != 0 {
            word.fetch_or(marked, SeqCst);
        }
        got & !marked
    }

    /// Claims up to `want` frames of one word; 0 if it has none. With it: what
    /// seems to be free there afterwards.
    #[inline(always)]
    fn take_word(&self, at: Word, word: &AtomicU64, want: u64, partner: u64) -> (u64, u64) {
        // Bounded: each further turn means that others took what we saw, and a
        // word that is fought over this long is no place to stay.
        let mut turn = 0;
        while turn < 64 {
            let free = self.free_in(at, word);
            if free == 0 {
                return (0, 0);
            }
            let pick = pick(free, want, partner);
            let mut got = word.fetch_and(!pick, SeqCst) & pick;
            if got != 0 {
                got = self.keep(at, word, got);
            }
            if want == RUN && got != pick {
                // A part of a run is of no use.
                if got != 0 {
                    word.fetch_or(got, SeqCst);
                }
                got = 0;
            }
            if got != 0 || pick == 0 {
                return (got, free & !pick);
            }
            turn += 1;
        }
        (0, 0)
    }

    /// Claims up to `want` frames of one word of an open block, looking from word
    /// `from` of it on.
    fn take_open(&self, block: Block, from: usize, want: u64, partner: u64) -> Option<Taken> {
        // A stray bit of a whole block (see the head of this file) is nobody's.
        if self.test(self.whole, block) {
            return None;
        }
        let words = self.block_words(block);
        // Bounded: eight words.
        for i in around(from, words.len()) {
            let at = Word(block.word().0 + i);
            let (got, left) = self.take_word(at, words.get(i)?, want, partner);
            if got != 0 {
                return Some(Taken { at, got, left });
            }
        }
        None
    }

    /// Claims up to `want` (1..=64) frames, all in one word, contiguous where
    /// that word allows it. `None`: the region has none left.
    #[inline]
    pub fn claim(&self, cpu: Cpu, want: u64) -> Option<Grant> {
        self.claim_like(cpu, want, 0)
    }

    /// As [`Frames::claim`]; 16 frames and more lie in their 64K as page number
    /// `partner` does in its own, where that can be, so that a device can map
    /// both sides with large entries.
    #[inline]
    pub fn claim_like(&self, cpu: Cpu, want: u64, partner: u64) -> Option<Grant> {
        let place = &self.slot(cpu)?.small;
        let at = place.word();
        if let Some(word) = self.words.get(at.0) {
            let (got, left) = self.take_word(at, word, want, partner);
            if got != 0 {
                place.left.store(left, Relaxed);
                return Some(Grant {
                    base: at.first(),
                    mask: got,
                });
            }
        }
        self.claim_elsewhere(cpu, place, want, partner)
    }

    /// Claims one frame.
    #[inline]
    pub fn claim_one(&self, cpu: Cpu) -> Option<PageIndex> {
        let place = &self.slot(cpu)?.small;
        let cur = place.word();
        let left = place.left.load(Relaxed);
        if left != 0 {
            if let Some(word) = self.words.get(cur.0) {
                // One bit, and only that bit is asked for: a `lock btr`.
                let at = left.trailing_zeros();
                let got = word.fetch_and(!(1 << at), SeqCst) & (1 << at) != 0;
                place.left.store(left & left.wrapping_sub(1), Relaxed);
                if got && self.keep(cur, word, 1 << at) != 0 {
                    return Some(PageIndex(cur.first().0 + u64::from(at)));
                }
            }
        }
        self.claim_one_elsewhere(cpu)
    }

    #[inline(never)]
    fn claim_one_elsewhere(&self, cpu: Cpu) -> Option<PageIndex> {
        // First, and not after a look at the word that seems to be used up.
        let recent = self.claim_recent(self.slot(cpu)?);
        let grant = match recent {
            Some(grant) => grant,
            None => self.claim_like(cpu, 1, 0)?,
        };
        Some(PageIndex(
            grant.base.0 + u64::from(grant.mask.trailing_zeros()),
        ))
    }

    /// Claims what this CPU gave back last: on a full device that saves a search for one
    /// frame among many blocks, and the block is a partly used one.
    #[inline(always)]
    fn claim_recent(&self, slot: &CpuSlot) -> Option<Grant> {
        let page = PageIndex(slot.recent.load(Relaxed));
        let at = page.word();
        let word = self.words.get(at.0)?;
        slot.recent.store(NOWHERE, Relaxed);
        // A stray bit of a whole block is nobody's, and a block that is whole stays so.
        if self.test(self.whole, page.block()) {
            return None;
        }
        let bit = 1 << page.bit();
        let got = word.fetch_and(!bit, SeqCst) & bit;
        let mask = if got != 0 {
            self.keep(at, word, got)
        } else {
            0
        };
        (mask != 0).then_some(Grant {
            base: at.first(),
            mask,
        })
    }

    /// Claims a run: 16 frames, aligned. `None`: none are free together (or only
    /// beyond the bound of this search).
    #[inline]
    pub fn claim_run(&self, cpu: Cpu) -> Option<PageIndex> {
        let place = &self.slot(cpu)?.runs;
        let at = place.word();
        let seen = place.left.load(Relaxed);
        let run = lane(seen);
        if run != 0 {
            if let Some(word) = self.words.get(at.0) {
                if word
                    .compare_exchange(seen, seen & !run, SeqCst, Relaxed)
                    .is_ok()
                {
                    place.left.store(seen & !run, Relaxed);
                    if self.keep_run(at, word, run) {
                        return Some(PageIndex(at.first().0 + u64::from(run.trailing_zeros())));
                    }
                }
            }
        }
        self.claim_run_elsewhere(cpu)
    }

    /// Whether a run that was just claimed can be kept; otherwise it is back.
    #[inline(always)]
    fn keep_run(&self, at: Word, word: &AtomicU64, run: u64) -> bool {
        let kept = self.keep(at, word, run);
        if kept != run {
            word.fetch_or(kept, SeqCst);
        }
        kept == run
    }

    #[inline(never)]
    fn claim_run_elsewhere(&self, cpu: Cpu) -> Option<PageIndex> {
        let place = &self.slot(cpu)?.runs;
        let at = place.word();
        let grant = match self.words.get(at.0) {
            Some(word) => match self.take_word(at, word, RUN, 0) {
                (0, _) => self.claim_elsewhere(cpu, place, RUN, 0)?,
                (mask, left) => {
                    place.left.store(left, Relaxed);
                    Grant {
                        base: at.first(),
                        mask,
                    }
                }
            },
            None => self.claim_elsewhere(cpu, place, RUN, 0)?,
        };
        Some(PageIndex(
            grant.base.0 + u64::from(grant.mask.trailing_zeros()),
        ))
    }

    /// Gives a run back: 16 aligned frames.
    #[inline]
    pub fn release_run(&self, cpu: Cpu, first: PageIndex) -> Released {
        let at = first.word();
        let (Some(slot), Some(word)) = (self.slot(cpu), self.words.get(at.0)) else {
            return Released::default();
        };
        let run = low_bits(RUN_PAGES) << (first.bit() & !(RUN_PAGES - 1));
        // Mostly the CPU that claimed it: then it knows what the word holds.
        if slot.runs.word() == at && !self.test(self.whole, first.block()) {
            let seen = slot.runs.left.load(Relaxed);
            if seen & run == 0
                && word
                    .compare_exchange(seen, seen | run, SeqCst, Relaxed)
                    .is_ok()
            {
                slot.runs.left.store(seen | run, Relaxed);
                self.publish(first.block(), seen | run == u64::MAX);
                return Released {
                    freed: RUN_PAGES,
                    already: 0,
                };
            }
        }
        self.release_part(first.block(), first, RUN_PAGES)
    }

    #[inline(never)]
    fn claim_elsewhere(&self, cpu: Cpu, place: &Place, want: u64, partner: u64) -> Option<Grant> {
        let slot = self.slot(cpu)?;
        if want == 1 {
            let recent = self.claim_recent(slot);
            if recent.is_some() {
                return recent;
            }
        }
        let held = place.block.load(Relaxed);
        // The rest of the block this place already holds.
        if held != NOWHERE {
            let block = Block(to_usize(held));
            let from = (place.word().0 + 1) % BLOCK_WORDS;
            if let Some(taken) = self.take_open(block, from, want, partner) {
                // Only the place in the block moves. Another caller that shares the
                // slot may have moved it too: then one of the two stands.
                place.word.store(to_u64(taken.at.0), Relaxed);
                place.left.store(taken.left, Relaxed);
                return Some(taken.grant());
            }
        }
        let near = Block(to_usize(held)).map_word();
        // Bounded: ROUNDS searches, each over the maps once.
        let mut round = 0;
        while round < ROUNDS {
            let before = look(self.moves);
            let found = self
                .claim_partly_used(place, near, want, partner)
                .or_else(|| self.claim_by_opening(slot, place, want))
                .or_else(|| self.claim_from_others(slot, want, partner));
            if found.is_some() {
                return found;
            }
            if self.quiet(before) {
                return None;
            }
            round += 1;
        }
        None
    }

    /// No block was opened or closed since `moves` was `before`, nor then.
    fn quiet(&self, before: u64) -> bool {
        let quiet = before % MOVED == 0 && look(self.moves) == before;
        if !quiet {
            pause();
        }
        quiet
    }

    /// A block starts to change its form ...
    fn moving(&self) {
        self.moves.fetch_add(MOVING, SeqCst);
    }

    /// ... and has done so.
    fn moved(&self) {
        self.moves.fetch_add(MOVED - MOVING, SeqCst);
    }

    /// Partly used blocks first: whole ones are worth more to 2 MiB claims.
    fn claim_partly_used(
        &self,
        place: &Place,
        near: usize,
        want: u64,
        partner: u64,
    ) -> Option<Grant> {
        let mut seen = 0;
        // Bounded: each bit of `avail` as it was read, once; for a run, RUN_SCAN
        // blocks looked into.
        for i in around(near, self.avail.len()) {
            let mut bits = look(self.avail.get(i)?);
            while bits != 0 {
                let block = Block(i * 64 + to_usize(u64::from(bits.trailing_zeros())));
                bits &= bits - 1;
                if want == RUN {
                    seen += 1;
                    if seen > RUN_SCAN {
                        return None;
                    }
                    if !self.has_run(block) {
                        continue;
                    }
                }
                if !self.set(self.held, block) {
                    continue;
                }
                self.clear(self.avail, block);
                if let Some(taken) = self.take_open(block, 0, want, partner) {
                    self.settle(place, &taken);
                    return Some(taken.grant());
                }
                self.leave(block);
            }
        }
        None
    }

    /// Opens a whole block for small claims and takes the first frames of it.
    fn claim_by_opening(&self, slot: &CpuSlot, place: &Place, want: u64) -> Option<Grant> {
        // Nothing moves where there is nothing to open.
        if self.whole.iter().all(|word| look(word) == 0) {
            return None;
        }
        self.moving();
        let Some(block) = self.take_whole(slot) else {
            self.moved();
            return None;
        };
        let got = low_bits(if want == RUN { RUN_PAGES } else { want });
        self.set(self.held, block);
        for (i, word) in self.block_words(block).iter().enumerate() {
            let free = if i == 0 { !got } else { u64::MAX };
            if word.swap(free, SeqCst) != 0 {
                // A frame of a free block was given back once more, at the very
                // moment the block became free. It is free now, once.
                crate::warn_here!();
            }
        }
        self.moved();
        let taken = Taken {
            at: block.word(),
            got,
            left: !got,
        };
        self.settle(place, &taken);
        Some(taken.grant())
    }

    /// The last frames may be in blocks that other CPUs hold.
    fn claim_from_others(&self, slot: &CpuSlot, want: u64, partner: u64) -> Option<Grant> {
        let run = want == RUN;
        let start = if run {
            to_usize(slot.scan.load(Relaxed)) / 64
        } else {
            0
        };
        let mut seen = 0;
        // Bounded: each bit of `held` and `avail` as they were read, once; for a
        // run, MERGE_SCAN blocks looked into.
        for i in around(start, self.held.len()) {
            let (held, avail) = (self.held.get(i)?, self.avail.get(i)?);
            // A block that is taken up or given up has one of the two bits at any
            // time, but moves from one to the other: hence the second look.
            let mut bits = look(held) | look(avail) | look(held);
            // Bounded: 64 bits.
            while bits != 0 {
                let block = Block(i * 64 + to_usize(u64::from(bits.trailing_zeros())));
                bits &= bits - 1;
                if let Some(taken) = self.take_open(block, 0, want, partner) {
                    return Some(taken.grant());
                }
                seen += 1;
                if run && seen >= MERGE_SCAN {
                    slot.scan.store(to_u64(block.0), Relaxed);
                    return None;
                }
            }
        }
        None
    }

    /// Some aligned run of the block seems to be free.
    fn has_run(&self, block: Block) -> bool {
        self.block_words(block)
            .iter()
            .any(|word| lane(look(word)) != 0)
    }

    /// Makes the place go on where something was just taken, in a block that the
    /// caller holds.
    fn settle(&self, place: &Place, taken: &Taken) {
        let block = taken.at.block();
        place.left.store(0, Relaxed);
        place.word.store(to_u64(taken.at.0), Relaxed);
        place.left.store(taken.left, Relaxed);
        let old = place.block.swap(to_u64(block.0), SeqCst);
        if old != NOWHERE && old != to_u64(block.0) {
            self.leave(Block(to_usize(old)));
        }
    }

    /// Gives up a held block. Frames that come back later must be found again,
    /// so `avail` is set before `held` goes, and looked after once more.
    fn leave(&self, block: Block) {
        if self.has_free(block) {
            self.set(self.avail, block);
        }
        self.clear(self.held, block);
        if self.has_free(block) && !self.test(self.avail, block) {
            self.set(self.avail, block);
        }
    }

    /// Some frame can be claimed.
    fn has_free(&self, block: Block) -> bool {
        let first = block.word().0;
        let mut words = self.block_words(block).iter().enumerate();
        words.any(|(i, word)| self.free_in(Word(first + i), word) != 0)
    }

    /// Some frame's bit is set, retired or not.
    #[inline(always)]
    fn has_bits(&self, block: Block) -> bool {
        let words = self.block_words(block).first_chunk::<BLOCK_WORDS>();
        // Mostly none is: without a branch for each.
        words.is_some_and(|words| words.iter().fold(0, |all, word| all | look(word)) != 0)
    }

    /// All 512 frames free and open.
    fn all_free(&self, block: Block) -> bool {
        let words = self.block_words(block);
        !words.is_empty()
            && words.iter().all(|word| look(word) == u64::MAX)
            && !self.retired.has(block)
    }

    /// Takes one whole block out of `whole`.
    #[inline(always)]
    fn take_whole(&self, slot: &CpuSlot) -> Option<Block> {
        let left = slot.whole_left.load(Relaxed);
        let i = to_usize(slot.whole.load(Relaxed));
        if left != 0 {
            if let Some(word) = self.whole.get(i) {
                slot.whole_left.store(left & left.wrapping_sub(1), Relaxed);
                let at = left.trailing_zeros();
                let block = Block(i * 64 + to_usize(u64::from(at)));
                if word.fetch_and(!(1 << at), SeqCst) & (1 << at) != 0 {
                    if !self.retired.has(block) {
                        return Some(block);
                    }
                    self.break_up(block);
                }
            }
        }
        self.take_whole_from(slot, i)
    }

    #[inline(always)]
    fn take_whole_at(&self, i: usize) -> Option<Block> {
        let word = self.whole.get(i)?;
        // Bounded: as in take_word().
        let mut turn = 0;
        while turn < 64 {
            let bits = look(word);
            if bits == 0 {
                return None;
            }
            let at = bits.trailing_zeros();
            if word.fetch_and(!(1 << at), SeqCst) & (1 << at) != 0 {
                let block = Block(i * 64 + to_usize(u64::from(at)));
                if !self.retired.has(block) {
                    return Some(block);
                }
                self.break_up(block);
            }
            turn += 1;
        }
        None
    }

    #[inline(never)]
    fn take_whole_from(&self, slot: &CpuSlot, start: usize) -> Option<Block> {
        // Bounded: each word of `whole` once.
        for i in around(start, self.whole.len()) {
            if let Some(block) = self.take_whole_at(i) {
                slot.whole_left.store(0, Relaxed);
                slot.whole.store(to_u64(i), Relaxed);
                slot.whole_left.store(look(self.whole.get(i)?), Relaxed);
                return Some(block);
            }
        }
        None
    }

    /// Claims one whole block. `None`: no 512 aligned frames are free together
    /// (or only beyond the bound of this search).
    #[inline]
    pub fn claim_block(&self, cpu: Cpu) -> Option<Block> {
        let slot = self.slot(cpu)?;
        match self.take_whole(slot) {
            Some(block) => Some(block),
            None => self.claim_block_elsewhere(slot),
        }
    }

    #[inline(never)]
    fn claim_block_elsewhere(&self, slot: &CpuSlot) -> Option<Block> {
        // Bounded: ROUNDS searches.
        let mut round = 0;
        while round < ROUNDS {
            let before = look(self.moves);
            let found = self.claim_merged(slot).or_else(|| self.take_whole(slot));
            if found.is_some() || self.quiet(before) {
                return found;
            }
            round += 1;
        }
        None
    }

    /// Claims 1 GiB, aligned: 512 whole blocks in a row. `None`: none are whole
    /// together. Open blocks whose frames have all come back do not count: what
    /// comes back last makes a block whole.
    pub fn claim_giant(&self) -> Option<PageIndex> {
        let mut chunks = self.whole.chunks_exact(GIANT_WORDS).enumerate();
        // Bounded: each word of `whole` once, and once back.
        let (at, _) = chunks.find(|(at, words)| self.take_giant(*at, words))?;
        Some(Block(at * GIANT_WORDS * 64).first())
    }

    /// Takes 512 whole blocks, whose words of `whole` these are. False, and nothing
    /// changed, when one of them is not whole or has a frame that is out of use.
    fn take_giant(&self, at: usize, words: &[AtomicU64]) -> bool {
        if words.iter().any(|word| look(word) != u64::MAX) {
            return false;
        }
        self.moving();
        let taken = words
            .iter()
            .take_while(|word| word.compare_exchange(u64::MAX, 0, SeqCst, SeqCst).is_ok())
            .count();
        let first = at * GIANT_WORDS * 64;
        let marked = |block: &usize| self.retired.has(Block(*block));
        let ours = taken == words.len()
            && !(self.retired.any() && (first..first + GIANT_WORDS * 64).any(|b| marked(&b)));
        if !ours {
            for (i, word) in words.iter().enumerate().take(taken) {
                word.fetch_or(u64::MAX, SeqCst);
                if self.retired.any() {
                    // Bounded: 64 blocks.
                    for k in 0..64 {
                        self.stay_open(Block(first + i * 64 + k));
                    }
                }
            }
        }
        self.moved();
        ours
    }

    /// Looks for open blocks whose frames have all come back.
    #[inline(never)]
    fn claim_merged(&self, slot: &CpuSlot) -> Option<Block> {
        let start = to_usize(slot.scan.load(Relaxed)) / 64;
        let mut seen = 0;
        // Bounded: each map word once, and MERGE_SCAN blocks looked into.
        for i in around(start, self.held.len()) {
            let mut bits = look(self.held.get(i)?) | look(self.avail.get(i)?);
            while bits != 0 {
                let block = Block(i * 64 + to_usize(u64::from(bits.trailing_zeros())));
                bits &= bits - 1;
                if self.all_free(block) {
                    self.moving();
                    let merged = self.merge(block);
                    self.moved();
                    if merged {
                        slot.scan.store(to_u64(block.0), Relaxed);
                        return Some(block);
                    }
                }
                seen += 1;
                if seen >= MERGE_SCAN {
                    slot.scan.store(to_u64(block.0), Relaxed);
                    return None;
                }
            }
        }
        None
    }

    /// Takes all 512 frames out of an open block: they are the caller's then.
    /// False, and nothing changed, when someone claimed one meanwhile.
    fn merge(&self, block: Block) -> bool {
        let words = self.block_words(block);
        // Bounded: eight words, and back over those already taken.
        for (i, word) in words.iter().enumerate() {
            if word.compare_exchange(u64::MAX, 0, SeqCst, SeqCst).is_err() {
                for taken in words.iter().take(i) {
                    taken.fetch_or(u64::MAX, SeqCst);
                }
                return false;
            }
        }
        if self.retired.has(block) {
            // Not a block any more.
            for word in words {
                word.fetch_or(u64::MAX, SeqCst);
            }
            return false;
        }
        // The hint goes before the frames are seen again in any other form.
        if self.test(self.avail, block) {
            self.clear(self.avail, block);
        }
        true
    }

    /// Hands a block that the caller owns back as a whole. False: it was whole.
    fn close(&self, block: Block) -> bool {
        let closed = self.set(self.whole, block);
        self.stay_open(block);
        closed
    }

    /// A block with marks is not to be whole. Whoever marks looks at `whole`
    /// afterwards, whoever sets that looks for marks: one of them sees both.
    fn stay_open(&self, block: Block) {
        if self.retired.has(block) && self.test(self.whole, block) {
            self.moving();
            if self.clear(self.whole, block) {
                self.break_up(block);
            }
            self.moved();
        }
    }

    /// Makes a block that the caller owns an open one, all its bits set.
    #[cold]
    fn break_up(&self, block: Block) {
        for word in self.block_words(block) {
            word.fetch_or(u64::MAX, SeqCst);
        }
        self.set(self.avail, block);
    }

    /// Takes `[first, first + npages)`, which lies inside the region, out of use:
    /// what is free at once, the rest when it is given back. Where a block has to
    /// be remembered and no record is left, all of the block goes.
    pub fn retire(&self, first: PageIndex, npages: u64) {
        let mut page = first;
        let mut left = npages;
        // Bounded: each block of the range once.
        while left != 0 {
            let block = page.block();
            let at = page.0 % BLOCK_PAGES;
            let room = BLOCK_PAGES - at;
            let n = if left < room { left } else { room };
            let mut masks = [0; BLOCK_WORDS];
            // Bounded: eight words.
            for (i, mask) in masks.iter_mut().enumerate() {
                let start = to_u64(i) * WORD_PAGES;
                let below = |end: u64| low_bits(end.saturating_sub(start));
                *mask = below(at + n) & !below(at);
            }
            self.retired.mark(block, &masks);
            self.stay_open(block);
            page = PageIndex(page.0 + n);
            left -= n;
        }
    }

    /// After frames of `block` came back: others must be able to find them,
    /// and a block that is complete goes back to the whole ones. `full`: the
    /// word that was written has all bits set.
    #[inline(always)]
    fn publish(&self, block: Block, full: bool) {
        if self.test(self.held, block) {
            // Its CPU will claim them, or look after them when it leaves; and
            // it must not lose its block to every release.
            return;
        }
        self.publish_unheld(block, full);
    }

    #[inline(never)]
    fn publish_unheld(&self, block: Block, full: bool) {
        // Bounded: twice. A claim that came between makes the block partly used
        // again; if it is gone once more, a later claim_block() will merge it.
        let mut turn = 0;
        while full && turn < 2 && self.all_free(block) {
            self.moving();
            let merged = self.merge(block);
            if merged {
                self.close(block);
            }
            self.moved();
            if merged {
                return;
            }
            turn += 1;
        }
        if !self.test(self.avail, block) {
            self.set(self.avail, block);
        }
    }

    /// Gives one frame back, on `cpu`.
    #[inline(always)]
    pub fn release_one(&self, cpu: Cpu, page: PageIndex) -> Released {
        let block = page.block();
        let Some(word) = self.words.get(page.word().0) else {
            return Released::default();
        };
        let bit = 1 << page.bit();
        let before = if self.test(self.held, block) {
            // Mostly this CPU's own, and just written: not looked at again.
            u64::MAX
        } else {
            word.load(Relaxed) | bit
        };
        // Only the one bit of the old word is asked for: a `lock bts`.
        if self.test(self.whole, block) || word.fetch_or(bit, SeqCst) & bit != 0 {
            return Released {
                freed: 0,
                already: 1,
            };
        }
        if !self.test(self.held, block) {
            self.publish_one(block, word, before);
            if let Some(slot) = self.slot(cpu) {
                slot.recent.store(page.0, Relaxed);
            }
        }
        Released {
            freed: 1,
            already: 0,
        }
    }

    /// After one frame of a block that nobody holds came back. `before`: what its
    /// word held just before, or all ones. That says whether it may be full now; then it
    /// is looked at once more. Should three fill it at the same time, nobody may
    /// find out: a later claim_block() does.
    #[inline(always)]
    fn publish_one(&self, block: Block, word: &AtomicU64, before: u64) {
        let free = !before;
        let nearly = free & free.wrapping_sub(1) == 0;
        if nearly || !self.test(self.avail, block) {
            self.publish_unheld(block, look(word) == u64::MAX);
        }
    }

    /// Gives `[first, first + npages)` back, which lies inside the region.
    /// Frames that were free already stay free, once, and are counted.
    pub fn release(&self, first: PageIndex, npages: u64) -> Released {
        let mut sum = Released::default();
        let mut page = first;
        let mut left = npages;
        // Bounded: each block of the range once.
        while left != 0 {
            let block = page.block();
            let room = BLOCK_PAGES - page.0 % BLOCK_PAGES;
            let n = if left < room { left } else { room };
            let got = if n == BLOCK_PAGES {
                self.release_block(block)
            } else {
                self.release_part(block, page, n)
            };
            sum.freed += got.freed;
            sum.already += got.already;
            page = PageIndex(page.0 + n);
            left -= n;
        }
        sum
    }

    /// Gives a whole block back.
    #[inline(always)]
    pub fn release_block(&self, block: Block) -> Released {
        // The caller has all 512 frames, so the words are zero and stay so.
        if self.has_bits(block) || self.retired.has(block) {
            return self.release_part(block, block.first(), BLOCK_PAGES);
        }
        if self.close(block) {
            Released {
                freed: BLOCK_PAGES,
                already: 0,
            }
        } else {
            Released {
                freed: 0,
                already: BLOCK_PAGES,
            }
        }
    }

    #[inline(never)]
    fn release_part(&self, block: Block, first: PageIndex, npages: u64) -> Released {
        if self.test(self.whole, block) {
            return Released {
                freed: 0,
                already: npages,
            };
        }
        let mut already = 0;
        let mut full = false;
        let mut page = first;
        let mut left = npages;
        // Bounded: at most eight words.
        while left != 0 {
            let room = WORD_PAGES - page.bit();
            let n = if left < room { left } else { room };
            let mask = low_bits(n) << page.bit();
            if let Some(word) = self.words.get(page.word().0) {
                let old = word.fetch_or(mask, SeqCst);
                already += u64::from((old & mask).count_ones());
                full |= old | mask == u64::MAX;
            }
            page = PageIndex(page.0 + n);
            left -= n;
        }
        self.publish(block, full);
        Released {
            freed: npages - already,
            already,
        }
    }

    /// Which frames of `word` are free, however they are free. Frames beyond
    /// the end of the region never are.
    #[inline]
    pub fn free_mask(&self, word: Word) -> u64 {
        if self.test(self.whole, word.block()) {
            return u64::MAX;
        }
        match self.words.get(word.0) {
            Some(bits) => look(bits),
            None => 0,
        }
    }

    /// What is in the bitmap, counted. Exact when no call is under way.
    pub fn count(&self) -> Count {
        let mut sum = Count::default();
        // Bounded: each map word, and each block that is not whole, once.
        for (i, word) in self.whole.iter().enumerate() {
            let whole = look(word);
            sum.blocks += u64::from(whole.count_ones());
            sum.free += u64::from(whole.count_ones()) * BLOCK_PAGES;
            let mut bits = !whole;
            // Bounded: 64 bits.
            while bits != 0 {
                let block = Block(i * 64 + to_usize(u64::from(bits.trailing_zeros())));
                bits &= bits - 1;
                let mut free = 0;
                for (k, word) in self.block_words(block).iter().enumerate() {
                    let open = look(word);
                    let marked = if self.retired.any() {
                        self.retired.mask(Word(block.word().0 + k))
                    } else {
                        0
                    };
                    free += u64::from((open & !marked).count_ones());
                    sum.retired += u64::from((open & marked).count_ones());
                }
                sum.free += free;
                sum.blocks += u64::from(free == BLOCK_PAGES);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pick` against the plainest way to say it, on words of every density.
    #[test]
    fn picks_a_run_or_the_lowest() {
        let mut x = 1u64;
        for turn in 0..20_000u32 {
            x = x
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let y = x.rotate_left(29);
            let free = match turn % 5 {
                0 => x,
                1 => x & y,
                2 => x | y,
                3 => x | y | (y >> 3),
                _ => x & y & (y >> 7),
            };
            for want in 1..=64u64 {
                let partner = x % 16;
                let got = pick(free, want, partner);
                assert_eq!(got & !free, 0, "{free:#x}, {want}: not free");
                let all = u64::from(free.count_ones());
                assert_eq!(
                    u64::from(got.count_ones()),
                    want.min(all),
                    "{free:#x}, {want}"
                );
                let fits = |at: &u64| free >> at & low_bits(want) == low_bits(want);
                let like = (0..=64 - want).find(|at| at % 16 == partner && fits(at));
                let run = match like {
                    Some(at) if want >= 16 => Some(at),
                    _ => (0..=64 - want).find(fits),
                };
                match run {
                    Some(at) => assert_eq!(got, low_bits(want) << at, "{free:#x}, {want}"),
                    None if got != 0 => assert_eq!(
                        got & (free & free.wrapping_neg()),
                        free & free.wrapping_neg()
                    ),
                    None => {}
                }
            }
            let run = (0..4)
                .map(|i| 0xffff << (16 * i))
                .find(|run| free & run == *run);
            assert_eq!(lane(free), run.unwrap_or(0), "{free:#x}");
            assert_eq!(pick(free, RUN, 5), run.unwrap_or(0), "{free:#x}");
        }
    }

    #[test]
    fn goes_round_once() {
        for n in 0..5 {
            for start in 0..7 {
                let mut seen = [0; 5];
                around(start, n).for_each(|i| seen[i] += 1);
                assert!(seen[..n].iter().all(|s| *s == 1) && seen[n..].iter().all(|s| *s == 0));
            }
        }
    }
}
