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
//!  * `CpuSlot`: where a CPU claims next. Two callers may share a slot.
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

/// One CPU's place and books, on cache lines of its own.
#[repr(C, align(128))]
pub struct CpuSlot {
    /// The bitmap word to claim from next, or `NOWHERE`.
    cur: AtomicU64,
    /// The `whole` word to look at next.
    whole: AtomicU64,
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
            cur: AtomicU64::new(NOWHERE),
            whole: AtomicU64::new(start),
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

/// The lowest `want` bits of `free`, a contiguous run if there is one.
#[inline(always)]
fn pick(free: u64, want: u64) -> u64 {
    if want == 1 {
        return free & free.wrapping_neg();
    }
    if want >= WORD_PAGES {
        return free;
    }
    pick_some(free, want)
}

#[inline(never)]
fn pick_some(free: u64, want: u64) -> u64 {
    if u64::from(free.count_ones()) <= want {
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
    if runs != 0 {
        return low_bits(want) << runs.trailing_zeros();
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

/// The indices `0..n`, starting at `start` and going round once.
#[inline(always)]
fn around(start: usize, n: usize) -> impl Iterator<Item = usize> {
    let start = if start < n { start } else { 0 };
    (start..n).chain(0..start)
}

impl<'a> Frames<'a> {
    /// Puts the memory in its first state: everything free.
    ///
    /// Only the caller may see the memory yet.
    pub fn format(&self) {
        let full = to_usize(self.npages / BLOCK_PAGES);
        for word in self.words {
            word.store(0, Relaxed);
        }
        for map in [self.avail, self.held] {
            for word in map {
                word.store(0, Relaxed);
            }
        }
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
        self.retired.format();
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

    /// Claims up to `want` frames of one word; 0 if it has none.
    #[inline(always)]
    fn take_word(&self, at: Word, word: &AtomicU64, want: u64) -> u64 {
        // Bounded: each further turn means that others took what we saw, and a
        // word that is fought over this long is no place to stay.
        let mut turn = 0;
        while turn < 64 {
            let free = self.free_in(at, word);
            if free == 0 {
                return 0;
            }
            let pick = pick(free, want);
            let got = word.fetch_and(!pick, SeqCst) & pick;
            if got != 0 {
                let got = self.keep(at, word, got);
                if got != 0 {
                    return got;
                }
            }
            turn += 1;
        }
        0
    }

    /// Claims up to `want` frames of one word of an open block.
    fn take_open(&self, block: Block, want: u64) -> Option<(Word, u64)> {
        // A stray bit of a whole block (see the head of this file) is nobody's.
        if self.test(self.whole, block) {
            return None;
        }
        // Bounded: eight words.
        for (i, word) in self.block_words(block).iter().enumerate() {
            let at = Word(block.word().0 + i);
            let got = self.take_word(at, word, want);
            if got != 0 {
                return Some((at, got));
            }
        }
        None
    }

    /// Claims up to `want` (1..=64) frames, all in one word, contiguous where
    /// that word allows it. `None`: the region has none left.
    #[inline]
    pub fn claim(&self, cpu: Cpu, want: u64) -> Option<Grant> {
        let slot = self.slot(cpu)?;
        let cur = Word(to_usize(slot.cur.load(Relaxed)));
        if let Some(word) = self.words.get(cur.0) {
            let got = self.take_word(cur, word, want);
            if got != 0 {
                return Some(Grant {
                    base: cur.first(),
                    mask: got,
                });
            }
        }
        self.claim_elsewhere(slot, want)
    }

    /// Claims one frame.
    #[inline]
    pub fn claim_one(&self, cpu: Cpu) -> Option<PageIndex> {
        let slot = self.slot(cpu)?;
        let cur = Word(to_usize(slot.cur.load(Relaxed)));
        if let Some(word) = self.words.get(cur.0) {
            let free = look(word);
            if free != 0 {
                // One bit, and only that bit is asked for: a `lock btr`.
                let at = free.trailing_zeros();
                if word.fetch_and(!(1 << at), SeqCst) & (1 << at) != 0
                    && self.keep(cur, word, 1 << at) != 0
                {
                    return Some(PageIndex(cur.first().0 + u64::from(at)));
                }
            }
        }
        self.claim_one_elsewhere(slot)
    }

    #[inline(never)]
    fn claim_one_elsewhere(&self, slot: &CpuSlot) -> Option<PageIndex> {
        let grant = self.claim_elsewhere(slot, 1)?;
        Some(PageIndex(
            grant.base.0 + u64::from(grant.mask.trailing_zeros()),
        ))
    }

    #[inline(never)]
    fn claim_elsewhere(&self, slot: &CpuSlot, want: u64) -> Option<Grant> {
        let at = slot.cur.load(Relaxed);
        let cur = Word(to_usize(at));
        // The rest of the block this CPU already holds. (A slot that is
        // nowhere names a block beyond the end: no words, nothing found.)
        if at != NOWHERE {
            if let Some((word, got)) = self.take_open(cur.block(), want) {
                // Same block: only the place in it moves. If another caller
                // moved the slot meanwhile, its choice stands.
                let _ = slot
                    .cur
                    .compare_exchange(at, to_u64(word.0), Relaxed, Relaxed);
                return Some(Grant {
                    base: word.first(),
                    mask: got,
                });
            }
        }
        // Bounded: ROUNDS searches, each over the maps once.
        let mut round = 0;
        while round < ROUNDS {
            let before = look(self.moves);
            let found = self
                .claim_partly_used(slot, cur.block(), want)
                .or_else(|| self.claim_by_opening(slot, want))
                .or_else(|| self.claim_from_others(want));
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
    fn claim_partly_used(&self, slot: &CpuSlot, near: Block, want: u64) -> Option<Grant> {
        // Bounded: each bit of `avail` as it was read, once.
        for i in around(near.map_word(), self.avail.len()) {
            let mut bits = look(self.avail.get(i)?);
            while bits != 0 {
                let block = Block(i * 64 + to_usize(u64::from(bits.trailing_zeros())));
                bits &= bits - 1;
                if !self.set(self.held, block) {
                    continue;
                }
                self.clear(self.avail, block);
                if let Some((word, got)) = self.take_open(block, want) {
                    self.settle(slot, word);
                    return Some(Grant {
                        base: word.first(),
                        mask: got,
                    });
                }
                self.leave(block);
            }
        }
        None
    }

    /// Opens a whole block for small claims and takes the first frames of it.
    fn claim_by_opening(&self, slot: &CpuSlot, want: u64) -> Option<Grant> {
        // Nothing moves where there is nothing to open.
        if self.whole.iter().all(|word| look(word) == 0) {
            return None;
        }
        self.moving();
        let Some(block) = self.take_whole(slot) else {
            self.moved();
            return None;
        };
        let mask = low_bits(want);
        self.set(self.held, block);
        for (i, word) in self.block_words(block).iter().enumerate() {
            let free = if i == 0 { !mask } else { u64::MAX };
            if word.swap(free, SeqCst) != 0 {
                // A frame of a free block was given back once more, at the very
                // moment the block became free. It is free now, once.
                crate::warn_here!();
            }
        }
        self.moved();
        self.settle(slot, block.word());
        Some(Grant {
            base: block.first(),
            mask,
        })
    }

    /// The last frames may be in blocks that other CPUs hold.
    fn claim_from_others(&self, want: u64) -> Option<Grant> {
        // Bounded: each bit of `held` and `avail` as they were read, once.
        for (i, (held, avail)) in self.held.iter().zip(self.avail).enumerate() {
            // A block that is taken up or given up has one of the two bits at any
            // time, but moves from one to the other: hence the second look.
            let mut bits = look(held) | look(avail) | look(held);
            while bits != 0 {
                let block = Block(i * 64 + to_usize(u64::from(bits.trailing_zeros())));
                bits &= bits - 1;
                if let Some((word, got)) = self.take_open(block, want) {
                    return Some(Grant {
                        base: word.first(),
                        mask: got,
                    });
                }
            }
        }
        None
    }

    /// Makes `word` the slot's place; its block is held by the caller.
    fn settle(&self, slot: &CpuSlot, word: Word) {
        let old = slot.cur.swap(to_u64(word.0), SeqCst);
        let old_block = Word(to_usize(old)).block();
        if old != NOWHERE && old_block != word.block() {
            self.leave(old_block);
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
    fn has_bits(&self, block: Block) -> bool {
        self.block_words(block).iter().any(|word| look(word) != 0)
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
        let start = to_usize(slot.whole.load(Relaxed));
        if let Some(block) = self.take_whole_at(start) {
            return Some(block);
        }
        self.take_whole_from(slot, start)
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
                slot.whole.store(to_u64(i), Relaxed);
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

    /// Gives one frame back.
    #[inline]
    pub fn release_one(&self, page: PageIndex) -> Released {
        let block = page.block();
        let Some(word) = self.words.get(page.word().0) else {
            return Released::default();
        };
        let bit = 1 << page.bit();
        // Only the one bit of the old word is asked for: a `lock bts`. Whether
        // the word is full now is looked up afterwards; of several that fill
        // it, the last one sees it full.
        if self.test(self.whole, block) || word.fetch_or(bit, SeqCst) & bit != 0 {
            return Released {
                freed: 0,
                already: 1,
            };
        }
        if !self.test(self.held, block) {
            self.publish_unheld(block, look(word) == u64::MAX);
        }
        Released {
            freed: 1,
            already: 0,
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
                let got = pick(free, want);
                assert_eq!(got & !free, 0, "{free:#x}, {want}: not free");
                let all = u64::from(free.count_ones());
                assert_eq!(
                    u64::from(got.count_ones()),
                    want.min(all),
                    "{free:#x}, {want}"
                );
                let run = (0..=64 - want).find(|at| free >> at & low_bits(want) == low_bits(want));
                match run {
                    Some(at) => assert_eq!(got, low_bits(want) << at, "{free:#x}, {want}"),
                    None if got != 0 => assert_eq!(
                        got & (free & free.wrapping_neg()),
                        free & free.wrapping_neg()
                    ),
                    None => {}
                }
            }
        }
    }

    /// A bit set in a whole block's word, as only a race of a caller with itself
    /// can leave it, is not handed out and is reported by whoever opens the block.
    #[cfg(not(loom))]
    #[test]
    fn a_stray_bit_is_found_and_harmless() {
        let zero = |_| AtomicU64::new(0);
        let words: [AtomicU64; 24] = core::array::from_fn(zero);
        let maps: [AtomicU64; 7] = core::array::from_fn(zero);
        let table: [AtomicU64; 18] = core::array::from_fn(zero);
        let slots = [CpuSlot::new(0, 2, 3), CpuSlot::new(1, 2, 3)];
        let frames = Frames {
            npages: 512 * 2 + 2,
            words: &words,
            whole: &maps[0..1],
            avail: &maps[1..2],
            held: &maps[2..3],
            slots: &slots,
            moves: &maps[3],
            retired: Retired {
                any: &maps[4],
                some: &maps[5..6],
                all: &maps[6..7],
                table: &table,
            },
        };
        frames.format();
        words[8].fetch_or(1 << 5, SeqCst);
        frames.set(frames.avail, Block(1));
        let warned = crate::port::warnings();
        // The tail's two frames, then block 0; the stray one is in block 1.
        let mut seen = 0;
        while let Some(page) = frames.claim_one(Cpu(1)) {
            if seen < 2 {
                assert!(page.0 >= 1024, "{page:?} is of a whole block");
            }
            seen += 1;
        }
        assert_eq!(seen, frames.npages);
        assert_eq!(crate::port::warnings(), warned + 1);
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
