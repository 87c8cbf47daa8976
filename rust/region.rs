// SPDX-License-Identifier: GPL-2.0
//! One region in the memory that C lends for it: where everything lies, and
//! the books (claimed, resident) beside the bitmap.
//!
//! The memory is, in this order: the [`Core`] header, one slot per CPU, the
//! table of fault streams, the records of frames that are out of use, six maps
//! of one bit per block, the bitmap. Each part starts on a cache line. The header
//! holds the places of the others, so the memory cannot be moved. From `init` on
//! everything but the header's constants is atomics, so any number of shared views
//! may exist.
//!
//! The books are kept apart from the bitmap on purpose: that free + claimed +
//! resident == total is then a statement about two things that were counted
//! separately, and a lost or doubled frame shows.

use core::ptr::NonNull;

use crate::atomic::{AtomicU64, Ordering::Relaxed};
use crate::evict;
use crate::frames::{CpuSlot, Frames, Released, Shape};
use crate::plan;
use crate::retired::{self, Retired};
use crate::types::{
    BLOCK_PAGES, CoreStats, Cpu, Errno, MAX_CPUS, MAX_PAGES, PageIndex, Plan, Segment, Window,
    to_u64, to_usize,
};
use crate::window;

/// What the first word of a living region holds.
const MAGIC: u64 = 0x686d_6d5f_636f_7265;

/// The alignment that C owes, and that each part has.
pub const ALIGN: usize = 64;

/// struct hmm_core - a region, in memory that C lends; what is in it is Rust's business.
#[repr(align(64))]
pub struct Core {
    magic: u64,
    /// The frames and the streams lie behind this header in the same memory;
    /// `'static` stands for "as long as the memory is lent".
    frames: Frames<'static>,
    streams: &'static [AtomicU64],
    clock: evict::Clock<'static>,
    /// Changes with every block that is opened or closed; on a line of its own.
    moves: OwnLine,
    /// Of `clock`.
    hand: OwnLine,
    /// Whether any frame is out of use: written once or never.
    any_retired: OwnLine,
}

#[repr(align(64))]
struct OwnLine(AtomicU64);

/// Byte offsets of the parts, from the start of the memory.
struct Layout {
    /// Moved up by one line where that makes it a multiple of 128.
    slots: usize,
    streams: usize,
    table: usize,
    some: usize,
    all: usize,
    whole: usize,
    avail: usize,
    held: usize,
    marks: usize,
    words: usize,
    size: usize,
}

const fn lines(bytes: usize) -> usize {
    bytes.div_ceil(ALIGN) * ALIGN
}

impl Layout {
    /// The layout for a valid number of pages and CPUs. Nothing here can
    /// overflow: 2^32 pages take 2^29 bytes of bitmap.
    const fn of(npages: u64, ncpus: u32) -> Layout {
        let word = size_of::<AtomicU64>();
        let shape = Shape::of(npages);
        let map = lines(shape.nmap * word);
        let slots = size_of::<Core>();
        let streams = slots + ALIGN + to_usize(ncpus as u64) * size_of::<CpuSlot>();
        let table = streams + lines(window::table_words(npages) * word);
        let some = table + lines(retired::table_words(npages) * word);
        let all = some + map;
        let whole = all + map;
        let avail = whole + map;
        let held = avail + map;
        let marks = held + map;
        let words = marks + map;
        Layout {
            slots,
            streams,
            table,
            some,
            all,
            whole,
            avail,
            held,
            marks,
            words,
            size: words + shape.nwords * word,
        }
    }
}

const fn valid(npages: u64, ncpus: u32) -> bool {
    npages >= 1 && npages <= MAX_PAGES && ncpus >= 1 && ncpus <= MAX_CPUS
}

/// Bytes to lend for a region; 0 when the arguments are out of range.
pub const fn size(npages: u64, ncpus: u32) -> usize {
    if valid(npages, ncpus) {
        Layout::of(npages, ncpus).size
    } else {
        0
    }
}

/// A view of a living region.
#[derive(Clone, Copy)]
pub struct Region<'a> {
    core: &'a Core,
}

/// The part of the lent memory at byte `offset`, `len` items of type `T`.
///
/// # Safety
/// The memory at `base + offset` holds `len` initialised items of `T`, which is
/// made of atomics or never written, for as long as `'a`.
#[inline(always)]
unsafe fn part<'a, T>(base: NonNull<u8>, offset: usize, len: usize) -> &'a [T] {
    // SAFETY: the caller vouches for the place, the number and the lifetime;
    // shared atomics may be written through other views at the same time.
    unsafe { core::slice::from_raw_parts(base.as_ptr().add(offset).cast::<T>(), len) }
}

impl<'a> Region<'a> {
    /// Makes a region of `npages` in the lent memory.
    ///
    /// # Safety
    /// `mem` points to `bytes` writable bytes that nobody else uses, and that
    /// stay where they are, until the region is given up, for at least `'a`.
    pub unsafe fn init(
        mem: NonNull<u8>,
        bytes: usize,
        npages: u64,
        ncpus: u32,
    ) -> Result<Region<'a>, Errno> {
        let need = size(npages, ncpus);
        let core = mem.cast::<Core>();
        if need == 0 || bytes < need || !core.is_aligned() {
            return Err(Errno::INVAL);
        }
        let layout = Layout::of(npages, ncpus);
        let shape = Shape::of(npages);
        let ncpu = to_usize(u64::from(ncpus));
        let odd = (mem.as_ptr().addr() + layout.slots) % align_of::<CpuSlot>();
        let slots_at = layout.slots + if odd == 0 { 0 } else { ALIGN };
        // SAFETY: the caller lends `need` bytes to us alone, the layout keeps
        // every part inside them and aligned, and all zeroes is a valid
        // AtomicU64. The slots are written whole.
        unsafe {
            mem.as_ptr()
                .add(layout.streams)
                .write_bytes(0, layout.size - layout.streams);
            let slots = mem.as_ptr().add(slots_at).cast::<CpuSlot>();
            for (i, cpu) in (0..ncpus).enumerate() {
                slots.add(i).write(CpuSlot::new(cpu, ncpus, shape.nblocks));
            }
        }
        // SAFETY: these are the parts as they were laid out and written, all of
        // atomics. The header is written whole before it is shared; `moves`, `hand`
        // and `any_retired` are in it, at addresses that are known before.
        unsafe {
            let moves = &raw const (*core.as_ptr()).moves.0;
            let hand = &raw const (*core.as_ptr()).hand.0;
            let any = &raw const (*core.as_ptr()).any_retired.0;
            core.as_ptr().write(Core {
                magic: MAGIC,
                frames: Frames {
                    npages,
                    words: part(mem, layout.words, shape.nwords),
                    whole: part(mem, layout.whole, shape.nmap),
                    avail: part(mem, layout.avail, shape.nmap),
                    held: part(mem, layout.held, shape.nmap),
                    slots: part(mem, slots_at, ncpu),
                    moves: &*moves,
                    retired: Retired {
                        any: &*any,
                        some: part(mem, layout.some, shape.nmap),
                        all: part(mem, layout.all, shape.nmap),
                        table: part(mem, layout.table, retired::table_words(npages)),
                    },
                },
                streams: part(mem, layout.streams, window::table_words(npages)),
                clock: evict::Clock {
                    marks: part(mem, layout.marks, shape.nmap),
                    hand: &*hand,
                },
                moves: OwnLine(AtomicU64::new(0)),
                hand: OwnLine(AtomicU64::new(0)),
                any_retired: OwnLine(AtomicU64::new(0)),
            });
        }
        // SAFETY: written just now, and never again but through atomics.
        let region = Region {
            core: unsafe { core.as_ref() },
        };
        region.frames().format();
        Ok(region)
    }

    /// The view of the region in the memory at `mem`; `None` when there is no
    /// living region.
    ///
    /// # Safety
    /// `mem` is null, or was given to [`Region::init`] and is still lent.
    #[inline(always)]
    pub unsafe fn at(mem: *const Core) -> Option<Region<'a>> {
        let core = NonNull::new(mem.cast_mut())?;
        if !core.is_aligned() {
            return None;
        }
        // SAFETY: the place of `magic` is readable, and only init() makes it
        // MAGIC; then all of the header is as init() wrote it.
        unsafe {
            if (&raw const (*core.as_ptr()).magic).read() != MAGIC {
                return None;
            }
            Some(Region {
                core: core.as_ref(),
            })
        }
    }

    /// The region's frames.
    #[inline(always)]
    pub fn frames(&self) -> &'a Frames<'a> {
        &self.core.frames
    }

    /// Whether `[first, first + npages)` is a range inside the region.
    #[inline(always)]
    fn check(&self, first: u64, npages: u64) -> Result<(), Errno> {
        match first.checked_add(npages) {
            Some(end) if npages != 0 && end <= self.frames().npages => Ok(()),
            _ => Err(Errno::INVAL),
        }
    }

    /// Books: `claimed` and `resident` change by these (wrapping) amounts.
    #[inline(always)]
    fn book(&self, cpu: Cpu, claimed: u64, resident: u64) {
        let Some(slot) = self.frames().books(cpu) else {
            return;
        };
        if claimed != 0 {
            slot.claimed.fetch_add(claimed, Relaxed);
        }
        if resident != 0 {
            slot.resident.fetch_add(resident, Relaxed);
        }
    }

    /// [`plan::to_device`], booked.
    pub fn plan_to_device(
        &self,
        cpu: Cpu,
        src: &[u64],
        dst: &mut [u64],
        seg: &mut [Segment],
    ) -> Result<Plan, Errno> {
        let plan = plan::to_device(self.frames(), cpu, src, dst, seg)?;
        self.book(cpu, u64::from(plan.claimed), 0);
        // What comes is in use: commit() knows the number only, so it is here.
        let ncopy = to_usize(u64::from(plan.ncopy));
        let nzero = to_usize(u64::from(plan.nzero));
        let seg = seg.get(..src.len()).unwrap_or(&[]);
        let copies = seg.iter().take(ncopy);
        let mut marked = u64::MAX;
        // Bounded: each segment once.
        for segment in copies.chain(seg.iter().rev().take(nzero)) {
            let last = segment.dst + u64::from(segment.npages) - 1;
            // Mostly they are of one block, which one look is enough for.
            if segment.dst / BLOCK_PAGES != marked || last / BLOCK_PAGES != marked {
                self.touch(segment.dst, u64::from(segment.npages));
                marked = last / BLOCK_PAGES;
            }
        }
        Ok(plan)
    }

    /// Claimed pages are resident now.
    pub fn commit(&self, cpu: Cpu, npages: u64) {
        self.book(cpu, npages.wrapping_neg(), npages);
    }

    fn outcome(released: Released) -> Result<(), Errno> {
        if released.already == 0 {
            Ok(())
        } else {
            Err(Errno::ALREADY)
        }
    }

    /// Claimed pages are free again.
    #[inline(always)]
    pub fn rollback(self, cpu: Cpu, first: u64, npages: u64) -> Result<(), Errno> {
        self.check(first, npages)?;
        let released = self.frames().release(PageIndex(first), npages);
        self.book(cpu, released.freed.wrapping_neg(), 0);
        Region::outcome(released)
    }

    /// Resident pages are free again.
    #[inline(always)]
    pub fn release(self, cpu: Cpu, first: u64, npages: u64) -> Result<(), Errno> {
        self.check(first, npages)?;
        // Mostly they come back one by one.
        let released = match npages {
            1 => self.frames().release_one(cpu, PageIndex(first)),
            _ => self.frames().release(PageIndex(first), npages),
        };
        self.book(cpu, 0, released.freed.wrapping_neg());
        Region::outcome(released)
    }

    /// Takes pages out of use.
    pub fn retire(self, first: u64, npages: u64) -> Result<(), Errno> {
        self.check(first, npages)?;
        self.frames().retire(PageIndex(first), npages);
        Ok(())
    }

    /// The books.
    pub fn stats(&self) -> CoreStats {
        let count = self.frames().count();
        let mut stats = CoreStats {
            total: self.frames().npages,
            free: count.free,
            retired: count.retired,
            free_blocks: count.blocks,
            ..CoreStats::default()
        };
        for slot in self.frames().slots {
            stats.claimed = stats.claimed.wrapping_add(slot.claimed.load(Relaxed));
            stats.resident = stats.resident.wrapping_add(slot.resident.load(Relaxed));
        }
        stats
    }

    /// [`evict::next_span`], checked.
    pub fn next_span(&self, from: u64, max: u64) -> Result<evict::Span, Errno> {
        if max == 0 {
            return Err(Errno::INVAL);
        }
        evict::next_span(self.frames(), PageIndex(from), max).ok_or(Errno::NOENT)
    }

    /// [`evict::Clock::touch`].
    #[inline]
    pub fn touch(&self, first: u64, npages: u64) {
        self.core.clock.touch(PageIndex(first), npages);
    }

    /// [`evict::Clock::victim`], checked.
    pub fn victim(&self, max: u64) -> Result<evict::Span, Errno> {
        if max == 0 {
            return Err(Errno::INVAL);
        }
        let span = self.core.clock.victim(self.frames(), max);
        span.ok_or(Errno::NOENT)
    }

    /// [`window::fault`].
    pub fn window(&self, key: u64, page: u64, lo: u64, hi: u64, max: u32) -> Window {
        window::fault(self.core.streams, key, page, lo, hi, max)
    }

    /// [`window::went`].
    pub fn went(&self, key: u64, page: u64) {
        window::went(self.core.streams, key, page);
    }

    /// Bytes of the memory that grow with the region, without the slots.
    pub fn metadata(npages: u64) -> usize {
        let layout = Layout::of(npages, 1);
        to_usize(to_u64(layout.size - layout.streams))
    }
}
