// SPDX-License-Identifier: GPL-2.0
//! A whole migration at once: from `src[]` entries to `dst[]` entries and
//! segments that a driver can copy in one command each.
//!
//! A segment is a run where source, destination and array position all go up
//! together, so that the status of a segment speaks for a run of entries.
#![forbid(unsafe_code)]

use crate::frames::Frames;
use crate::types::{
    BLOCK_PAGES, Cpu, Entry, Errno, MAX_ENTRIES, PageIndex, Plan, Segment, WORD_PAGES, low_bits,
    to_u32, to_u64, to_usize,
};

/// Entries that a compound entry stands for.
const BLOCK_ENTRIES: usize = to_usize(BLOCK_PAGES);

/// Segments being written to a caller's array, the last one still open.
///
/// The array has room for one segment per entry, and every segment serves an
/// entry of its own, so there is always room; `get_mut` keeps that from
/// being a matter of trust.
struct Runs {
    /// The open segment; `npages` 0 means none.
    open: Segment,
    /// Closed segments so far.
    closed: usize,
}

impl Runs {
    const fn new() -> Runs {
        Runs {
            open: Segment { src: 0, dst: 0, npages: 0, entry: 0, status: 0, reserved: 0 },
            closed: 0,
        }
    }

    /// Adds one run of pages; `place` says where closed segment number i goes.
    /// `step` is 0 when all pages have the same source (zeroing).
    #[inline(always)]
    fn add(
        &mut self,
        seg: &mut [Segment],
        place: impl Fn(usize) -> usize,
        step: u64,
        src: u64,
        dst: u64,
        entry: usize,
        npages: u64,
    ) {
        let open = &mut self.open;
        let len = u64::from(open.npages);
        let entry = to_u32(to_u64(entry));
        if open.src.wrapping_add(len * step) == src
            && open.dst.wrapping_add(len) == dst
            && open.entry.wrapping_add(open.npages) == entry
            && len != 0
        {
            open.npages += to_u32(npages);
            return;
        }
        self.close(seg, place);
        self.open = Segment { src, dst, npages: to_u32(npages), entry, status: 0, reserved: 0 };
    }

    #[inline(always)]
    fn close(&mut self, seg: &mut [Segment], place: impl Fn(usize) -> usize) {
        if self.open.npages != 0 {
            if let Some(slot) = seg.get_mut(place(self.closed)) {
                *slot = self.open;
            }
            self.closed += 1;
            self.open.npages = 0;
        }
    }
}

/// Single frames for the entries to come, claimed many at a time but never
/// more than there are entries for: nothing is left over.
struct Supply<'a> {
    frames: Frames<'a>,
    cpu: Cpu,
    /// Single pages that are still to be served and have no frame yet.
    want: u64,
    /// Frames in hand: `len` from `next` on, then those of `mask` above `base`.
    next: u64,
    len: u64,
    base: u64,
    mask: u64,
    /// Frames claimed in all, blocks included.
    claimed: u64,
    /// The region is full: do not ask again for every entry.
    dry: bool,
}

impl Supply<'_> {
    /// The next frame for a single page.
    #[inline(always)]
    fn single(&mut self) -> Option<u64> {
        if self.len == 0 && !self.refill() {
            return None;
        }
        let page = self.next;
        self.next += 1;
        self.len -= 1;
        Some(page)
    }

    /// Makes `next` and `len` the next run in hand; false when there is none.
    #[inline(never)]
    fn refill(&mut self) -> bool {
        if self.mask == 0 {
            if self.dry || self.want == 0 {
                return false;
            }
            if self.want >= BLOCK_PAGES {
                // As many small pages as a block has fill one exactly: this
                // splits nothing, and the copy is one segment.
                if let Some(block) = self.frames.claim_block(self.cpu) {
                    self.next = block.first().0;
                    self.len = BLOCK_PAGES;
                    self.want -= BLOCK_PAGES;
                    self.claimed += BLOCK_PAGES;
                    return true;
                }
            }
            let want = if self.want < WORD_PAGES { self.want } else { WORD_PAGES };
            let Some(grant) = self.frames.claim(self.cpu, want) else {
                self.dry = true;
                return false;
            };
            let got = u64::from(grant.mask.count_ones());
            self.want -= got;
            self.claimed += got;
            self.base = grant.base.0;
            self.mask = grant.mask;
        }
        // The lowest run of the mask.
        let start = u64::from(self.mask.trailing_zeros());
        let len = u64::from((self.mask >> start).trailing_ones());
        self.next = self.base + start;
        self.len = len;
        self.mask &= !(low_bits(len) << start);
        true
    }
}

/// Counts the pages that want a frame, singles and all. An error if a compound
/// entry reaches beyond the end.
fn count_wanted(src: &[u64]) -> Result<(u64, u64), Errno> {
    let mut singles = 0;
    let mut wanted = 0;
    let mut rest = src;
    // Bounded: each entry at most once.
    while let Some((&first, tail)) = rest.split_first() {
        let entry = Entry(first);
        rest = tail;
        if !entry.migrate() {
            continue;
        }
        if entry.compound() {
            rest = rest.get(BLOCK_ENTRIES - 1..).ok_or(Errno::INVAL)?;
            wanted += BLOCK_PAGES;
        } else {
            singles += 1;
            wanted += 1;
        }
    }
    Ok((singles, wanted))
}

/// Entries and segments as C hands them over, all of one length.
fn check(src: &[u64], dst: usize, seg: usize) -> Result<(), Errno> {
    let n = src.len();
    if n == 0 || n > to_usize(u64::from(MAX_ENTRIES)) || dst != n || seg < n {
        return Err(Errno::INVAL);
    }
    Ok(())
}

/// Plans a move to the device: claims a frame for each entry that is to
/// migrate, fills `dst`, and writes copy segments from the start of `seg` and
/// zero segments from its end.
pub fn to_device(
    frames: Frames<'_>,
    cpu: Cpu,
    src: &[u64],
    dst: &mut [u64],
    seg: &mut [Segment],
) -> Result<Plan, Errno> {
    check(src, dst.len(), seg.len())?;
    let n = src.len();
    let (singles, wanted) = count_wanted(src)?;
    let mut supply = Supply {
        frames,
        cpu,
        want: singles,
        next: 0,
        len: 0,
        base: 0,
        mask: 0,
        claimed: 0,
        dry: false,
    };
    let mut copy = Runs::new();
    let mut zero = Runs::new();
    let low = |i: usize| i;
    let high = |i: usize| n - 1 - i;

    let mut out = dst.iter_mut();
    let mut entries = src.iter().enumerate();
    // Bounded: each entry once.
    while let (Some((i, &raw)), Some(slot)) = (entries.next(), out.next()) {
        let entry = Entry(raw);
        *slot = 0;
        if !entry.migrate() {
            continue;
        }
        if !entry.compound() {
            if let Some(page) = supply.single() {
                *slot = Entry::to(page, entry).0;
                if entry.valid() {
                    copy.add(seg, low, 1, entry.pfn(), page, i, 1);
                } else {
                    zero.add(seg, high, 0, 0, page, i, 1);
                }
            }
            continue;
        }
        if let Some(block) = frames.claim_block(cpu) {
            supply.claimed += BLOCK_PAGES;
            let page = block.first().0;
            *slot = Entry::to(page, entry).0 | Entry::COMPOUND;
            if entry.valid() {
                copy.add(seg, low, 1, entry.pfn(), page, i, BLOCK_PAGES);
            } else {
                zero.add(seg, high, 0, 0, page, i, BLOCK_PAGES);
            }
            // Bounded: 511 entries.
            for slot in out.by_ref().take(BLOCK_ENTRIES - 1) {
                *slot = 0;
            }
        } else {
            // No whole block: as many singles as there are.
            supply.want += BLOCK_PAGES;
            let mut slot = Some(slot);
            // Bounded: 512 entries.
            for k in 0..BLOCK_ENTRIES {
                if let Some(slot) = slot {
                    *slot = 0;
                    if let Some(page) = supply.single() {
                        *slot = Entry::to(page, entry).0;
                        if entry.valid() {
                            let pfn = entry.pfn() + to_u64(k);
                            copy.add(seg, low, 1, pfn, page, i + k, 1);
                        } else {
                            zero.add(seg, high, 0, 0, page, i + k, 1);
                        }
                    }
                }
                slot = if k + 1 < BLOCK_ENTRIES { out.next() } else { None };
            }
        }
        let _ = entries.nth(BLOCK_ENTRIES - 2);
    }
    copy.close(seg, low);
    zero.close(seg, high);
    Ok(Plan {
        ncopy: to_u32(to_u64(copy.closed)),
        nzero: to_u32(to_u64(zero.closed)),
        claimed: to_u32(supply.claimed),
        wanted: to_u32(wanted),
    })
}

/// Plans a move to RAM: coalesces entries whose source and destination are both
/// there. `first` is the region's first pfn. Returns the number of segments.
pub fn to_ram(src: &[u64], dst: &[u64], first: u64, seg: &mut [Segment]) -> Result<u32, Errno> {
    check(src, dst.len(), seg.len())?;
    let n = src.len();
    let mut runs = Runs::new();
    let low = |i: usize| i;
    // The compound source that single entries at `i < until` belong to.
    let mut compound = Entry(0);
    let mut from = 0;
    let mut until = 0;

    let mut entries = src.iter().zip(dst).enumerate();
    // Bounded: each entry once.
    while let Some((i, (&s, &d))) = entries.next() {
        let mut s = Entry(s);
        let d = Entry(d);
        let mut pfn = s.pfn();
        if i < until {
            s = compound;
            pfn = compound.pfn() + to_u64(i - from);
        } else if s.migrate() && s.compound() {
            if n - i < BLOCK_ENTRIES {
                return Err(Errno::INVAL);
            }
            compound = s;
            from = i;
            until = i + BLOCK_ENTRIES;
        }
        if !(d.valid() && s.valid() && s.migrate()) {
            continue;
        }
        let page = pfn.checked_sub(first).ok_or(Errno::INVAL)?;
        if d.compound() && s.compound() && i == from {
            runs.add(seg, low, 1, page, d.pfn(), i, BLOCK_PAGES);
            let _ = entries.nth(BLOCK_ENTRIES - 2);
        } else {
            runs.add(seg, low, 1, page, d.pfn(), i, 1);
        }
    }
    runs.close(seg, low);
    Ok(to_u32(to_u64(runs.closed)))
}

/// Gives back every frame that `dst` names: for callers whose whole plan came
/// to nothing. Returns the pages freed.
pub fn undo(frames: Frames<'_>, dst: &[u64]) -> u64 {
    let mut freed = 0;
    let mut run = (0, 0);
    // Bounded: each entry once, and one entry more to close the last run.
    for &raw in dst.iter().chain(core::iter::once(&0)) {
        let entry = Entry(raw);
        let len = match (entry.valid(), entry.compound()) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => BLOCK_PAGES,
        };
        let (first, npages) = run;
        if len != 0 && npages != 0 && first + npages == entry.pfn() {
            run = (first, npages + len);
            continue;
        }
        if npages != 0 && (len != 0 || raw == 0) {
            freed += frames.release(PageIndex(first), npages).freed;
            run = (0, 0);
        }
        if len != 0 {
            run = (entry.pfn(), len);
        }
    }
    freed
}
