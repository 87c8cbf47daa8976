// SPDX-License-Identifier: GPL-2.0
//! A whole migration at once: from `src[]` entries to `dst[]` entries and
//! segments that a driver can copy in one command each.
//!
//! A segment is a run where source, destination and array position all go up
//! together, so that the status of a segment speaks for a run of entries.
#![forbid(unsafe_code)]

use crate::frames::Frames;
use crate::types::{
    BLOCK_PAGES, Cpu, Entry, Errno, MAX_ENTRIES, Plan, Segment, WORD_PAGES, low_bits, to_u32,
    to_u64, to_usize,
};

/// Entries that a compound entry stands for.
const BLOCK_ENTRIES: usize = to_usize(BLOCK_PAGES);

/// Flag bits that do not decide whether a source belongs to a run: all but
/// VALID, MIGRATE and COMPOUND.
const SRC_ANY: u64 = 63 & !(Entry::VALID | Entry::MIGRATE | Entry::COMPOUND);
/// Likewise for destinations.
const DST_ANY: u64 = 63 & !(Entry::VALID | Entry::COMPOUND);
/// Likewise for destinations that are single pages whatever they say.
const TO_ANY: u64 = 63 & !Entry::VALID;
/// What tells a single page that is to move from everything else.
const ALONE: u64 = Entry::VALID | Entry::MIGRATE | Entry::COMPOUND;
/// Entries compared in one go.
const STRIDE: usize = 8;

/// What is added from one entry of a run to the next: the page number, by one.
const fn steps(n: usize) -> u64 {
    to_u64(n) << Entry::SHIFT
}

/// How many entries from the first on name pages in a row, with the same flags
/// but those in `any`. 0 for an empty slice.
///
/// A few entries one by one, because most runs that end, end early; then eight
/// at a time without a branch between; the rest one by one again.
#[inline(always)]
fn run_len(entries: &[u64], any: u64) -> usize {
    let Some((&first, rest)) = entries.split_first() else {
        return 0;
    };
    let first = first | any;
    let same = |n: usize, e: u64| (e | any) == first.wrapping_add(steps(n));
    let mut n = 1;
    // Bounded: three entries.
    for &e in rest.iter().take(3) {
        if !same(n, e) {
            return n;
        }
        n += 1;
    }
    let Some(rest) = rest.get(3..) else {
        return n;
    };
    // Bounded: each entry once.
    for stride in rest.chunks_exact(STRIDE) {
        let mut differ = 0;
        for (k, &e) in stride.iter().enumerate() {
            differ |= (e | any) ^ first.wrapping_add(steps(n + k));
        }
        if differ != 0 {
            break;
        }
        n += STRIDE;
    }
    // Bounded: each entry once more at most.
    for &e in entries.get(n..).unwrap_or(&[]) {
        if !same(n, e) {
            break;
        }
        n += 1;
    }
    n
}

/// Whether the entries of both arrays go on from `s` and `d`, in whole strides:
/// how many do. Flag bits in `SRC_ANY` and `DST_ANY` do not matter.
#[inline(always)]
fn strides(s: Entry, d: Entry, src: &[u64], dst: &[u64]) -> usize {
    let s = s.0 | SRC_ANY;
    let d = d.0 | DST_ANY;
    let mut n = 0;
    // Bounded: each entry once.
    for (src, dst) in src.chunks_exact(STRIDE).zip(dst.chunks_exact(STRIDE)) {
        let mut differ = 0;
        for (k, (&se, &de)) in src.iter().zip(dst).enumerate() {
            differ |= (se | SRC_ANY) ^ s.wrapping_add(steps(n + k + 1));
            differ |= (de | DST_ANY) ^ d.wrapping_add(steps(n + k + 1));
        }
        if differ != 0 {
            break;
        }
        n += STRIDE;
    }
    n
}

/// A run of pages that one or more entries stand for.
#[derive(Clone, Copy)]
struct Run {
    src: u64,
    dst: u64,
    entry: u64,
    npages: u64,
}

/// Segments being written to a caller's array, the last one still open.
/// Copies go up from the start (`COPY`), and their sources run on; zeroes go
/// down from the end, and have no source.
///
/// The array has room for one segment per entry, and every segment serves an
/// entry of its own, so there is always room; `get_mut` keeps that from being a
/// matter of trust.
struct Runs<const COPY: bool> {
    /// The open segment. `entry` is `NOTHING` when there is none.
    open: Run,
    /// Closed segments so far.
    closed: usize,
}

/// No entry has this number, nor comes after it.
const NOTHING: u64 = 1 << 63;

impl<const COPY: bool> Runs<COPY> {
    const fn new() -> Self {
        Runs {
            open: Run {
                src: 0,
                dst: 0,
                entry: NOTHING,
                npages: 0,
            },
            closed: 0,
        }
    }

    /// Adds a run, to the open segment if it continues that.
    #[inline(always)]
    fn add(&mut self, seg: &mut [Segment], run: Run) {
        let open = &mut self.open;
        let len = open.npages;
        let src = if COPY { open.src.wrapping_add(len) } else { 0 };
        let differ = (src ^ run.src)
            | (open.dst.wrapping_add(len) ^ run.dst)
            | (open.entry.wrapping_add(len) ^ run.entry);
        if differ == 0 {
            open.npages += run.npages;
            return;
        }
        self.start(seg, run);
    }

    /// Adds a run that does not continue the open segment.
    #[inline(always)]
    fn start(&mut self, seg: &mut [Segment], run: Run) {
        self.close(seg);
        self.open = run;
    }

    #[inline(always)]
    fn close(&mut self, seg: &mut [Segment]) {
        let Run {
            src,
            dst,
            entry,
            npages,
        } = self.open;
        if entry != NOTHING {
            let at = if COPY {
                self.closed
            } else {
                seg.len().wrapping_sub(1 + self.closed)
            };
            if let Some(slot) = seg.get_mut(at) {
                let (npages, entry) = (to_u32(npages), to_u32(entry));
                *slot = Segment {
                    src,
                    dst,
                    npages,
                    entry,
                    status: 0,
                    reserved: 0,
                };
            }
            self.closed += 1;
            self.open.entry = NOTHING;
        }
    }
}

/// Single frames for the entries to come, claimed many at a time but never
/// more than there are entries for: nothing is left over.
struct Supply<'a> {
    frames: &'a Frames<'a>,
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
    /// The next frames for up to `max` single pages, of which the first is to go
    /// with system page `partner`: the first and how many.
    #[inline(always)]
    fn run(&mut self, max: u64, partner: u64) -> Option<(u64, u64)> {
        if self.len == 0 && !self.refill(partner) {
            return None;
        }
        let n = if self.len < max { self.len } else { max };
        let page = self.next;
        self.next += n;
        self.len -= n;
        Some((page, n))
    }

    /// Makes `next` and `len` the next run in hand; false when there is none.
    #[inline(never)]
    fn refill(&mut self, partner: u64) -> bool {
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
            let want = if self.want < WORD_PAGES {
                self.want
            } else {
                WORD_PAGES
            };
            let Some(grant) = self.frames.claim_like(self.cpu, want, partner) else {
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

/// Counts the single pages, and all pages, that want a frame. An error if a
/// compound entry reaches beyond the end.
fn count_wanted(src: &[u64]) -> Result<(u64, u64), Errno> {
    const MIXED: u64 = Entry::MIGRATE | Entry::COMPOUND;
    let mut singles = 0;
    let mut compounds = 0;
    let mut rest = src;
    // Bounded: each entry at most once.
    loop {
        // Most arrays are singles that all want to move.
        if let Some((stride, tail)) = rest.split_first_chunk::<STRIDE>() {
            let all = stride
                .iter()
                .fold(u64::MAX, |all, e| all & (e ^ Entry::COMPOUND));
            if all & MIXED == MIXED {
                singles += to_u64(STRIDE);
                rest = tail;
                continue;
            }
        }
        let Some((&first, tail)) = rest.split_first() else {
            break;
        };
        let entry = Entry(first);
        rest = tail;
        if entry.migrate() && entry.compound() {
            rest = rest.get(BLOCK_ENTRIES - 1..).ok_or(Errno::INVAL)?;
            compounds += 1;
        } else {
            singles += u64::from(entry.migrate());
        }
    }
    Ok((singles, singles + compounds * BLOCK_PAGES))
}

/// Checks the arrays: as many destinations as sources, and room for as many
/// segments, which is returned.
fn check<'a>(src: &[u64], dst: usize, seg: &'a mut [Segment]) -> Result<&'a mut [Segment], Errno> {
    let n = src.len();
    if n == 0 || n > to_usize(u64::from(MAX_ENTRIES)) || dst != n {
        return Err(Errno::INVAL);
    }
    seg.get_mut(..n).ok_or(Errno::INVAL)
}

/// A plan to the device in the making.
struct ToDevice<'a> {
    supply: Supply<'a>,
    seg: &'a mut [Segment],
    copy: Runs<true>,
    zero: Runs<false>,
}

impl ToDevice<'_> {
    /// Notes a run of entries that got frames: `source` is the first of them.
    #[inline(always)]
    fn note(&mut self, source: Entry, run: Run) {
        if source.valid() {
            self.copy.add(self.seg, run);
        } else {
            self.zero.add(self.seg, Run { src: 0, ..run });
        }
    }

    /// Single pages in a row, the first for entry number `at`: sources from
    /// `source` on, destinations to `dst`. Frames may come in several runs, or
    /// end. `flags` gives each entry's source for its WRITE bit.
    #[inline(always)]
    fn singles(
        &mut self,
        at: usize,
        source: Entry,
        dst: &mut [u64],
        flags: impl Fn(usize) -> Entry,
    ) {
        let mut done = 0;
        // Bounded: each entry once.
        while let Some(rest) = dst.get_mut(done..) {
            if rest.is_empty() {
                return;
            }
            let Some((page, n)) = self
                .supply
                .run(to_u64(rest.len()), source.pfn() + to_u64(done))
            else {
                rest.fill(0);
                return;
            };
            let n = to_usize(n);
            for (k, slot) in rest.iter_mut().take(n).enumerate() {
                *slot = Entry::to(page + to_u64(k), flags(done + k)).0;
            }
            let src = source.pfn() + to_u64(done);
            self.note(
                source,
                Run {
                    src,
                    dst: page,
                    entry: to_u64(at + done),
                    npages: to_u64(n),
                },
            );
            done += n;
        }
    }

    /// A compound entry with its 512 places in `dst`.
    #[inline(never)]
    fn compound(&mut self, at: usize, source: Entry, dst: &mut [u64]) {
        let Some(block) = self.supply.frames.claim_block(self.supply.cpu) else {
            // No whole block: as many singles as there are.
            self.supply.want += BLOCK_PAGES;
            self.singles(at, source, dst, |_| source);
            return;
        };
        self.supply.claimed += BLOCK_PAGES;
        let page = block.first().0;
        dst.fill(0);
        if let Some(first) = dst.first_mut() {
            *first = Entry::to(page, source).0 | Entry::COMPOUND;
        }
        let run = Run {
            src: source.pfn(),
            dst: page,
            entry: to_u64(at),
            npages: BLOCK_PAGES,
        };
        self.note(source, run);
    }
}

/// Plans a move to the device: claims a frame for each entry that is to
/// migrate, fills `dst`, and writes copy segments from the start of `seg` and
/// zero segments from its end.
pub fn to_device(
    frames: &Frames<'_>,
    cpu: Cpu,
    src: &[u64],
    dst: &mut [u64],
    seg: &mut [Segment],
) -> Result<Plan, Errno> {
    let seg = check(src, dst.len(), seg)?;
    let (singles, wanted) = count_wanted(src)?;
    let mut plan = ToDevice {
        supply: Supply {
            frames,
            cpu,
            want: singles,
            next: 0,
            len: 0,
            base: 0,
            mask: 0,
            claimed: 0,
            dry: false,
        },
        seg,
        copy: Runs::new(),
        zero: Runs::new(),
    };
    let mut i = 0;
    // Bounded: each entry once; every turn takes at least one.
    while let (Some(rest), Some(out)) = (src.get(i..), dst.get_mut(i..)) {
        let Some(&first) = rest.first() else {
            break;
        };
        let entry = Entry(first);
        // A page that stands alone, and a frame in hand: RAM is mostly scattered.
        if first & ALONE == Entry::VALID | Entry::MIGRATE
            && plan.supply.len != 0
            && rest
                .get(1)
                .is_none_or(|next| next >> Entry::SHIFT != entry.pfn() + 1)
        {
            let page = plan.supply.next;
            plan.supply.next += 1;
            plan.supply.len -= 1;
            if let Some(out) = out.first_mut() {
                *out = Entry::to(page, entry).0;
            }
            let run = Run {
                src: entry.pfn(),
                dst: page,
                entry: to_u64(i),
                npages: 1,
            };
            plan.copy.add(plan.seg, run);
            i += 1;
            continue;
        }
        let n = if !entry.migrate() {
            1
        } else if entry.compound() {
            BLOCK_ENTRIES
        } else if entry.valid() {
            run_len(rest, SRC_ANY)
        } else {
            // Holes in a row; what their page number says means nothing.
            let hole = |e: &u64| Entry(*e).migrate() && !Entry(*e).valid() && !Entry(*e).compound();
            rest.iter().position(|e| !hole(e)).unwrap_or(rest.len())
        };
        let Some(out) = out.get_mut(..n) else {
            break;
        };
        if !entry.migrate() {
            out.fill(0);
        } else if entry.compound() {
            plan.compound(i, entry, out);
        } else {
            plan.singles(i, entry, out, |k| Entry(rest.get(k).copied().unwrap_or(0)));
        }
        i += n;
    }
    plan.copy.close(plan.seg);
    plan.zero.close(plan.seg);
    Ok(Plan {
        ncopy: to_u32(to_u64(plan.copy.closed)),
        nzero: to_u32(to_u64(plan.zero.closed)),
        claimed: to_u32(plan.supply.claimed),
        wanted: to_u32(wanted),
    })
}

/// Plans a move to RAM: coalesces entries whose source and destination are both
/// there. `first` is the region's first pfn. Returns the number of segments.
///
/// Adaptive: entry by entry, and as soon as four in a row belong together, in
/// strides of eight as long as that goes well. Nothing is looked at more than
/// twice.
pub fn to_ram(src: &[u64], dst: &[u64], first: u64, seg: &mut [Segment]) -> Result<u32, Errno> {
    const BOTH: u64 = Entry::VALID | Entry::MIGRATE;
    const WHOLE: u64 = Entry::VALID | Entry::COMPOUND;
    let seg = check(src, dst.len(), seg)?;
    let n = src.len();
    let mut out = Out { seg, n: 0 };
    // What the next entries are if the last segment goes on; 0 if it cannot.
    let mut next = (0, 0);
    let mut len = 0;
    let mut i = 0;
    // Bounded: each entry once; every turn takes at least one.
    while let (Some(&s), Some(&d)) = (src.get(i), dst.get(i)) {
        // Holes come first: there is nothing to do but to go on.
        if s & Entry::MIGRATE == 0 {
            next.0 = 0;
            i += 1;
            continue;
        }
        if s & (BOTH | Entry::COMPOUND) != BOTH || d & Entry::VALID == 0 {
            let goes_on = s | SRC_ANY == next.0 | Entry::COMPOUND && d | TO_ANY == next.1;
            next.0 = 0;
            if s & (BOTH | Entry::COMPOUND) == BOTH | Entry::COMPOUND {
                let to = dst.get(i..i + BLOCK_ENTRIES).ok_or(Errno::INVAL)?;
                let page = Entry(s).pfn().checked_sub(first).ok_or(Errno::INVAL)?;
                if d & WHOLE == WHOLE {
                    // To one folio: the entries behind say nothing.
                    if goes_on {
                        len += BLOCK_PAGES;
                        out.extend(len);
                    } else {
                        len = BLOCK_PAGES;
                        out.start(page, Entry(d).pfn(), to_u64(i), len);
                    }
                    next.0 = (s | SRC_ANY) & !Entry::COMPOUND;
                    next.0 = next.0.wrapping_add(steps(BLOCK_ENTRIES));
                    next.1 = (d | TO_ANY).wrapping_add(steps(BLOCK_ENTRIES));
                    i += BLOCK_ENTRIES;
                    continue;
                }
                out.n = compound_to_ram(out.seg, out.n, i, page, to);
                i += BLOCK_ENTRIES - 1;
                // What follows may go on where this ended.
                if let Some(last) = out.last(to_u64(i + 1)) {
                    len = u64::from(last.npages);
                    let (src, dst) = (last.src + len + first, last.dst + len);
                    next.0 = src << Entry::SHIFT | BOTH | SRC_ANY;
                    next.1 = dst << Entry::SHIFT | Entry::VALID | TO_ANY;
                }
            }
            i += 1;
            continue;
        }
        let (s, d) = (s | SRC_ANY, d | TO_ANY);
        i += 1;
        if s == next.0 && d == next.1 {
            len += 1;
            let mut more = 0;
            if len % to_u64(STRIDE) == 4 {
                if let (Some(src), Some(dst)) = (src.get(i..n), dst.get(i..n)) {
                    more = strides(Entry(s), Entry(d & !Entry::COMPOUND), src, dst);
                }
            }
            len += to_u64(more);
            i += more;
            out.extend(len);
            next = (
                s.wrapping_add(steps(more + 1)),
                d.wrapping_add(steps(more + 1)),
            );
            continue;
        }
        let src = Entry(s).pfn().checked_sub(first).ok_or(Errno::INVAL)?;
        out.start(src, Entry(d).pfn(), to_u64(i - 1), 1);
        next = (s.wrapping_add(steps(1)), d.wrapping_add(steps(1)));
        len = 1;
    }
    Ok(to_u32(to_u64(out.n)))
}

/// Segments being written to a caller's array, each when it begins: most are short.
struct Out<'a> {
    seg: &'a mut [Segment],
    n: usize,
}

impl Out<'_> {
    /// Begins a segment. There is room: one for each entry.
    #[inline(always)]
    fn start(&mut self, src: u64, dst: u64, entry: u64, npages: u64) {
        if let Some(slot) = self.seg.get_mut(self.n) {
            *slot = Segment {
                src,
                dst,
                npages: to_u32(npages),
                entry: to_u32(entry),
                status: 0,
                reserved: 0,
            };
        }
        self.n += 1;
    }

    /// Makes the last segment `npages` long.
    #[inline(always)]
    fn extend(&mut self, npages: u64) {
        if let Some(last) = self.seg.get_mut(self.n.wrapping_sub(1)) {
            last.npages = to_u32(npages);
        }
    }

    /// The last segment, if it ends right before entry `at`.
    fn last(&self, at: u64) -> Option<Segment> {
        let last = *self.seg.get(self.n.wrapping_sub(1))?;
        (u64::from(last.entry) + u64::from(last.npages) == at).then_some(last)
    }

    /// Adds a run, to the last segment if it continues that.
    #[inline(never)]
    fn add(&mut self, run: Run) {
        if let Some(last) = self.last(run.entry) {
            let len = u64::from(last.npages);
            if last.src + len == run.src && last.dst + len == run.dst {
                self.extend(len + run.npages);
                return;
            }
        }
        self.start(run.src, run.dst, run.entry, run.npages);
    }
}

/// A compound source from page `page` on, for entries `at..at + 512`: to those
/// single pages that there are. After `n` segments; returns
/// how many there are then.
#[inline(never)]
fn compound_to_ram(seg: &mut [Segment], n: usize, at: usize, page: u64, to: &[u64]) -> usize {
    let mut out = Out { seg, n };
    let mut k = 0;
    // Bounded: each entry once.
    while let Some(rest) = to.get(k..) {
        let Some(&d) = rest.first() else {
            break;
        };
        let d = Entry(d);
        if !d.valid() {
            k += 1;
            continue;
        }
        let n = run_len(rest, DST_ANY);
        out.add(Run {
            src: page + to_u64(k),
            dst: d.pfn(),
            entry: to_u64(at + k),
            npages: to_u64(n),
        });
        k += n;
    }
    out.n
}
