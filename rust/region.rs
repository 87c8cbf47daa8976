// SPDX-License-Identifier: GPL-2.0
//! One region in the memory that C lends for it: where everything lies, and
//! the books (claimed, resident) beside the bitmap.
//!
//! The memory is, in this order: the [`Core`] header, one slot per CPU, the
//! table of fault streams, three maps of one bit per block, the bitmap. Each
//! part starts on a cache line. From `init` on everything but the header's
//! constants is atomics, so any number of shared views may exist.
//!
//! The books are kept apart from the bitmap on purpose: that free + claimed +
//! resident == total is then a statement about two things that were counted
//! separately, and a lost or doubled frame shows.

use core::mem::size_of;
use core::ptr::NonNull;

use crate::atomic::{AtomicU64, Ordering::Relaxed};
use crate::evict;
use crate::frames::{CpuSlot, Frames, Released, Shape};
use crate::plan;
use crate::types::{
    CoreStats, Cpu, Errno, MAX_CPUS, MAX_PAGES, PageIndex, Plan, Segment, Window, to_u64, to_usize,
};
use crate::window;

/// What the first word of a living region holds.
const MAGIC: u64 = 0x686d_6d5f_636f_7265;

/// The alignment that C owes, and that each part has.
pub const ALIGN: usize = 64;

/// struct hmm_core - a region, in memory that C lends; what is in it is Rust's business.
#[repr(align(128))]
pub struct Core {
    magic: u64,
    npages: u64,
    ncpus: u32,
    /// Changes with every block that is opened or closed; on a line of its own.
    moves: OwnLine,
}

#[repr(align(64))]
struct OwnLine(AtomicU64);

/// Byte offsets of the parts, from the start of the memory.
#[derive(Clone, Copy)]
struct Layout {
    slots: usize,
    streams: usize,
    whole: usize,
    avail: usize,
    held: usize,
    words: usize,
    size: usize,
}

const fn lines(bytes: usize) -> usize {
    bytes.div_ceil(ALIGN) * ALIGN
}

impl Layout {
    /// The layout for a valid number of pages and CPUs. Nothing here can
    /// overflow: 2^32 pages take 2^29 bytes of bitmap.
    #[inline(always)]
    const fn of(npages: u64, ncpus: u32) -> Layout {
        let word = size_of::<AtomicU64>();
        let shape = Shape::of(npages);
        let map = lines(shape.nmap * word);
        let slots = size_of::<Core>();
        let streams = slots + to_usize(ncpus as u64) * size_of::<CpuSlot>();
        let whole = streams + lines(window::table_words(npages) * word);
        let avail = whole + map;
        let held = avail + map;
        let words = held + map;
        Layout { slots, streams, whole, avail, held, words, size: words + shape.nwords * word }
    }
}

const fn valid(npages: u64, ncpus: u32) -> bool {
    npages >= 1 && npages <= MAX_PAGES && ncpus >= 1 && ncpus <= MAX_CPUS
}

/// Bytes to lend for a region; 0 when the arguments are out of range.
pub const fn size(npages: u64, ncpus: u32) -> usize {
    // Alignment is 64 for the caller and 128 inside: room to move up by one line.
    if valid(npages, ncpus) { Layout::of(npages, ncpus).size + ALIGN } else { 0 }
}

/// A view of a living region.
#[derive(Clone, Copy)]
pub struct Region<'a> {
    core: &'a Core,
    /// The region's frames.
    pub frames: Frames<'a>,
    streams: &'a [AtomicU64],
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

/// The header's place in memory that starts at `mem`.
fn head(mem: NonNull<u8>) -> NonNull<Core> {
    let up = mem.as_ptr().align_offset(core::mem::align_of::<Core>());
    // SAFETY: `mem` is 64-aligned, so `up` is 0 or 64, and size() added 64.
    unsafe { NonNull::new_unchecked(mem.as_ptr().add(up).cast::<Core>()) }
}

impl<'a> Region<'a> {
    /// Makes a region of `npages` in the lent memory.
    ///
    /// # Safety
    /// `mem` points to `bytes` writable bytes that nobody else uses until the
    /// region is given up, for at least `'a`.
    pub unsafe fn init(
        mem: NonNull<u8>,
        bytes: usize,
        npages: u64,
        ncpus: u32,
    ) -> Result<Region<'a>, Errno> {
        let need = size(npages, ncpus);
        if need == 0 || bytes < need || mem.as_ptr().align_offset(ALIGN) != 0 {
            return Err(Errno::INVAL);
        }
        let layout = Layout::of(npages, ncpus);
        let shape = Shape::of(npages);
        let core = head(mem);
        let base = core.cast::<u8>();
        // SAFETY: the caller lends `need` bytes to us alone, the layout keeps
        // every part inside them and aligned, and all zeroes is a valid
        // AtomicU64. The header and the slots are written whole.
        unsafe {
            base.as_ptr().add(layout.streams).write_bytes(0, layout.size - layout.streams);
            core.as_ptr().write(Core {
                magic: MAGIC,
                npages,
                ncpus,
                moves: OwnLine(AtomicU64::new(0)),
            });
            let slots = base.as_ptr().add(layout.slots).cast::<CpuSlot>();
            for cpu in 0..ncpus {
                slots
                    .add(to_usize(u64::from(cpu)))
                    .write(CpuSlot::new(cpu, ncpus, shape.nblocks));
            }
        }
        // SAFETY: everything is initialised as from_raw() demands.
        let region = unsafe { Region::from_raw(core) };
        region.frames.format();
        Ok(region)
    }

    /// The view of a living region.
    ///
    /// # Safety
    /// `core` was made by [`Region::init`] and its memory is still lent.
    #[inline(always)]
    unsafe fn from_raw(core: NonNull<Core>) -> Region<'a> {
        let base = core.cast::<u8>();
        // SAFETY: initialised by init(), and since then shared: the constants
        // are never written, `moves` is atomic.
        let core: &'a Core = unsafe { core.as_ref() };
        let layout = Layout::of(core.npages, core.ncpus);
        let shape = Shape::of(core.npages);
        // SAFETY: these are the parts as init() laid them out and wrote them,
        // all of atomics.
        unsafe {
            Region {
                core,
                streams: part(base, layout.streams, window::table_words(core.npages)),
                frames: Frames {
                    npages: core.npages,
                    words: part(base, layout.words, shape.nwords),
                    whole: part(base, layout.whole, shape.nmap),
                    avail: part(base, layout.avail, shape.nmap),
                    held: part(base, layout.held, shape.nmap),
                    slots: part(base, layout.slots, to_usize(core.ncpus as u64)),
                    moves: &core.moves.0,
                },
            }
        }
    }

    /// The view of the region in the memory at `mem`; `None` when there is no
    /// living region.
    ///
    /// # Safety
    /// `mem` is null, or was given to [`Region::init`] and is still lent.
    #[inline(always)]
    pub unsafe fn at(mem: *const Core) -> Option<Region<'a>> {
        let mem = NonNull::new(mem.cast_mut())?;
        let core = head(mem.cast());
        // SAFETY: the memory is readable, and `magic` is only ever written by init().
        if unsafe { core.as_ref() }.magic != MAGIC {
            return None;
        }
        // SAFETY: init() has been here.
        Some(unsafe { Region::from_raw(core) })
    }

    /// Whether `[first, first + npages)` is a range inside the region.
    #[inline(always)]
    fn check(&self, first: u64, npages: u64) -> Result<(), Errno> {
        match first.checked_add(npages) {
            Some(end) if npages != 0 && end <= self.core.npages => Ok(()),
            _ => Err(Errno::INVAL),
        }
    }

    /// Books: `claimed` and `resident` change by these (wrapping) amounts.
    #[inline(always)]
    fn book(&self, cpu: Cpu, claimed: u64, resident: u64) {
        let Some(slot) = self.frames.books(cpu) else {
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
        let plan = plan::to_device(self.frames, cpu, src, dst, seg)?;
        self.book(cpu, u64::from(plan.claimed), 0);
        Ok(plan)
    }

    /// Claimed pages are resident now.
    pub fn commit(&self, cpu: Cpu, npages: u64) {
        self.book(cpu, npages.wrapping_neg(), npages);
    }

    fn outcome(released: Released) -> Result<(), Errno> {
        if released.already == 0 { Ok(()) } else { Err(Errno::ALREADY) }
    }

    #[inline(always)]
    fn give_back(&self, first: u64, npages: u64) -> Result<Released, Errno> {
        self.check(first, npages)?;
        Ok(match npages {
            1 => self.frames.release_one(PageIndex(first)),
            _ => self.frames.release(PageIndex(first), npages),
        })
    }

    /// Claimed pages are free again.
    pub fn rollback(&self, cpu: Cpu, first: u64, npages: u64) -> Result<(), Errno> {
        let released = self.give_back(first, npages)?;
        self.book(cpu, released.freed.wrapping_neg(), 0);
        Region::outcome(released)
    }

    /// Resident pages are free again.
    pub fn release(&self, cpu: Cpu, first: u64, npages: u64) -> Result<(), Errno> {
        let released = self.give_back(first, npages)?;
        self.book(cpu, 0, released.freed.wrapping_neg());
        Region::outcome(released)
    }

    /// The books.
    pub fn stats(&self) -> CoreStats {
        let (free, free_blocks) = self.frames.count();
        let mut stats =
            CoreStats { total: self.core.npages, free, free_blocks, ..CoreStats::default() };
        for slot in self.frames.slots {
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
        evict::next_span(self.frames, PageIndex(from), max).ok_or(Errno::NOENT)
    }

    /// [`window::fault`].
    pub fn window(&self, key: u64, page: u64, lo: u64, hi: u64, max: u32) -> Window {
        window::fault(self.streams, key, page, lo, hi, max)
    }

    /// Bytes of the memory that grow with the region, without the slots.
    pub fn metadata(npages: u64) -> usize {
        let layout = Layout::of(npages, 1);
        to_usize(to_u64(layout.size - layout.streams))
    }
}
