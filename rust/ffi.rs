// SPDX-License-Identifier: GPL-2.0
//! The border: what C calls. cbindgen turns this file into `c/core.h`, comments
//! included, which is why they are written as kernel-doc.
//!
//! Every function takes plain numbers and arrays, answers with a negative errno
//! or 0, and writes results only on success.

use core::ffi::{c_int, c_ulong, c_void};
use core::ptr::NonNull;

use crate::map::{Lend, Map, Refused};
use crate::region::{self, Core, Region};
use crate::types::{
    CoreStats, Cpu, Errno, MAX_ENTRIES, MapRun, Plan, Segment, Window, to_u32, to_usize,
};

const _: () = assert!(
    size_of::<c_ulong>() == size_of::<u64>(),
    "entries are 64 bits"
);

/// Migrate entry: names a page.
pub const HMM_ENTRY_VALID: u64 = 1;
/// Migrate entry: the page can be migrated.
pub const HMM_ENTRY_MIGRATE: u64 = 2;
/// Migrate entry: mapped writable.
pub const HMM_ENTRY_WRITE: u64 = 8;
/// Migrate entry: stands for a whole 2 MiB folio; the next 511 entries are 0.
pub const HMM_ENTRY_COMPOUND: u64 = 16;
/// Migrate entry: where the page number starts.
pub const HMM_ENTRY_SHIFT: u32 = 6;
/// Pages in one 2 MiB block.
pub const HMM_BLOCK_PAGES: u32 = 512;
/// The most entries that one plan takes.
pub const HMM_PLAN_MAX: u32 = 65536;
/// The alignment of the memory that hmm_core_init() is given.
pub const HMM_CORE_ALIGN: u32 = 64;

const _: () = {
    use crate::types::{BLOCK_PAGES, Entry};
    assert!(HMM_ENTRY_VALID == Entry::VALID && HMM_ENTRY_MIGRATE == Entry::MIGRATE);
    assert!(HMM_ENTRY_WRITE == Entry::WRITE && HMM_ENTRY_COMPOUND == Entry::COMPOUND);
    assert!(HMM_ENTRY_SHIFT == Entry::SHIFT && HMM_BLOCK_PAGES as u64 == BLOCK_PAGES);
    assert!(HMM_PLAN_MAX == MAX_ENTRIES && HMM_CORE_ALIGN as usize == region::ALIGN);
};

#[inline(always)]
fn to_c(result: Result<(), Errno>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(errno) => errno.to_c(),
    }
}

/// The region behind a pointer from C.
///
/// # Safety
/// `core` is null, or C's living region as [`Region::at`] demands.
#[inline(always)]
unsafe fn region<'a>(core: *const Core) -> Option<Region<'a>> {
    // SAFETY: passed on to the caller.
    unsafe { Region::at(core) }
}

/// An array from C, for the length of the call.
///
/// # Safety
/// `array` is null, or points to `n` items that nobody writes during the call.
#[inline(always)]
unsafe fn array<'a, T>(array: *const T, n: u32) -> Option<&'a [T]> {
    let array = NonNull::new(array.cast_mut())?;
    if !array.is_aligned() {
        return None;
    }
    // SAFETY: not null, aligned, and the caller vouches for the rest.
    Some(unsafe { core::slice::from_raw_parts(array.as_ptr(), to_usize(u64::from(n))) })
}

/// An array from C that this call fills.
///
/// # Safety
/// `array` is null, or points to `n` items that nobody else uses during the call.
#[inline(always)]
unsafe fn array_mut<'a, T>(array: *mut T, n: u32) -> Option<&'a mut [T]> {
    let array = NonNull::new(array)?;
    if !array.is_aligned() {
        return None;
    }
    // SAFETY: not null, aligned, and the caller vouches for the rest.
    Some(unsafe { core::slice::from_raw_parts_mut(array.as_ptr(), to_usize(u64::from(n))) })
}

/// hmm_core_size() - bytes to lend for a region.
/// @npages: pages in the region, 1 to 2^32 (16 TiB)
/// @ncpus: CPUs that will call, 1 to 8192
///
/// Context: Any.
/// Return: The size of the memory that hmm_core_init() wants, about 1.1 bits per
/// page and 128 bytes per CPU; 0 if an argument is out of range.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn hmm_core_size(npages: u64, ncpus: u32) -> usize {
    region::size(npages, ncpus)
}

/// hmm_core_init() - make a region in lent memory; all frames free.
/// @mem: memory for it, aligned to HMM_CORE_ALIGN; a struct hmm_core from then on
/// @size: bytes at @mem, at least hmm_core_size()
/// @npages: pages in the region
/// @ncpus: CPUs that will call
///
/// The caller keeps owning the memory, leaves it alone while the region is in
/// use, and frees it when the last call has returned. There is no counterpart to
/// this function: a region holds nothing but its memory.
///
/// Context: Any. The caller alone may know the region yet.
/// Return: 0, or -EINVAL: an argument is out of range, the memory is NULL, not
/// aligned or too small; it was not touched then.
///
/// # Safety
/// `mem` is null or points to `size` bytes that are the region's alone.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_init(
    mem: *mut c_void,
    size: usize,
    npages: u64,
    ncpus: u32,
) -> c_int {
    let Some(mem) = NonNull::new(mem) else {
        return Errno::INVAL.to_c();
    };
    // SAFETY: C lends the memory to the region alone (see above).
    to_c(unsafe { Region::init(mem.cast(), size, npages, ncpus) }.map(|_| ()))
}

/// hmm_core_plan_to_device() - claim frames for a migration and plan its copies.
/// @core: the region
/// @cpu: the calling CPU; a hint, any number is safe
/// @src: source entries, as migrate_vma_setup() filled them
/// @dst: destination entries, written for all of @n
/// @n: number of entries, 1 to HMM_PLAN_MAX
/// @seg: room for @n segments
/// @out: what was planned
///
/// Each @src entry with MIGRATE gets a frame: its @dst entry is the page index,
/// VALID, and the WRITE bit of the source. All other @dst entries become 0, and
/// so do those that no frame was left for. A COMPOUND source (it stands for 512
/// pages, the following 511 entries are 0) gets an aligned block and a COMPOUND
/// destination; when no block is free, it gets single frames in 512 entries, as
/// many as there are.
///
/// Sources with VALID become copy segments, seg[0] to seg[ncopy - 1], in order:
/// src = system page number, dst = page index. Sources without (holes, the zero
/// page) become zero segments, seg[n - nzero] to seg[n - 1], in reverse order: src = 0.
/// A segment is a run of entries whose source and destination both run on.
///
/// What was claimed is the caller's: hmm_core_commit() or hmm_core_rollback() it.
///
/// Context: Any. The caller may be moved to another CPU meanwhile.
/// Return: 0, also when fewer pages were claimed than wanted. -EINVAL: @core or
/// an array is NULL, @n is out of range, or a COMPOUND entry reaches beyond @n;
/// nothing was claimed or written then.
///
/// # Safety
/// Pointers are null or valid as described, and the arrays do not overlap.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_plan_to_device(
    core: *const Core,
    cpu: u32,
    src: *const c_ulong,
    dst: *mut c_ulong,
    n: u32,
    seg: *mut Segment,
    out: *mut Plan,
) -> c_int {
    if n > MAX_ENTRIES {
        return Errno::INVAL.to_c();
    }
    // SAFETY: C's own arrays of `n` items each, its own for the call, and its
    // living region.
    let parts = unsafe {
        (
            region(core),
            array(src, n),
            array_mut(dst, n),
            array_mut(seg, n),
            array_mut(out, 1),
        )
    };
    let (Some(region), Some(src), Some(dst), Some(seg), Some([out])) = parts else {
        return Errno::INVAL.to_c();
    };
    to_c(
        region
            .plan_to_device(Cpu(cpu), src, dst, seg)
            .map(|plan| *out = plan),
    )
}

/// hmm_core_plan_to_ram() - plan the copies of a migration to RAM.
/// @src: source entries, as migrate_vma_setup() filled them
/// @dst: destination entries, as the caller allocated pages for them
/// @n: number of entries, 1 to HMM_PLAN_MAX
/// @pfn_first: the pfn of the region's page 0
/// @seg: room for @n segments
/// @nseg: number of segments written
///
/// Entries whose source has VALID and MIGRATE and whose destination has VALID are
/// coalesced: src = page index, dst = system pfn. COMPOUND on both sides is 512
/// pages; a COMPOUND source with single destinations is page i of the folio for
/// the i-th entry from it.
///
/// Context: Any. Needs no region.
/// Return: 0, or -EINVAL: an array is NULL, @n is out of range, a source is below
/// @pfn_first, or a COMPOUND entry reaches beyond @n. Then @nseg is untouched and
/// @seg holds nothing of use.
///
/// # Safety
/// Pointers are null or valid as described, and the arrays do not overlap.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_plan_to_ram(
    src: *const c_ulong,
    dst: *const c_ulong,
    n: u32,
    pfn_first: u64,
    seg: *mut Segment,
    nseg: *mut u32,
) -> c_int {
    if n > MAX_ENTRIES {
        return Errno::INVAL.to_c();
    }
    // SAFETY: C's own arrays of `n` items each, its own for the call.
    let parts = unsafe {
        (
            array(src, n),
            array(dst, n),
            array_mut(seg, n),
            array_mut(nseg, 1),
        )
    };
    let (Some(src), Some(dst), Some(seg), Some([nseg])) = parts else {
        return Errno::INVAL.to_c();
    };
    to_c(crate::plan::to_ram(src, dst, pfn_first, seg).map(|n| *nseg = n))
}

/// hmm_core_commit() - claimed pages are resident now.
/// @core: the region
/// @cpu: the calling CPU; a hint
/// @npages: how many
///
/// Context: Any.
///
/// # Safety
/// `core` is null or a living region.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_commit(core: *const Core, cpu: u32, npages: u64) {
    // SAFETY: C's living region.
    if let Some(region) = unsafe { region(core) } {
        region.commit(Cpu(cpu), npages);
    }
}

/// hmm_core_rollback() - claimed pages that did not become resident are free again.
/// @core: the region
/// @cpu: the calling CPU; a hint
/// @index: the first page
/// @npages: how many
///
/// Context: Any.
/// Return: 0. -EINVAL: not a range of the region, nothing was changed. -EALREADY: some
/// page was free already, which is a bug of the caller; the others are free now,
/// and no frame will be handed out twice.
///
/// # Safety
/// `core` is null or a living region.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_rollback(
    core: *const Core,
    cpu: u32,
    index: u64,
    npages: u64,
) -> c_int {
    // SAFETY: C's living region.
    match unsafe { region(core) } {
        Some(region) => to_c(region.rollback(Cpu(cpu), index, npages)),
        None => Errno::INVAL.to_c(),
    }
}

/// hmm_core_release() - resident pages are free again.
/// @core: the region
/// @cpu: the calling CPU; a hint
/// @index: the first page
/// @npages: how many
///
/// The pages may be claimed by others before this returns: whatever has to be
/// done to them (zeroing, say) is done before.
///
/// Context: Any; made for the page-free callback.
/// Return: As hmm_core_rollback().
///
/// # Safety
/// `core` is null or a living region.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_release(
    core: *const Core,
    cpu: u32,
    index: u64,
    npages: u64,
) -> c_int {
    // SAFETY: C's living region.
    match unsafe { region(core) } {
        Some(region) => to_c(region.release(Cpu(cpu), index, npages)),
        None => Errno::INVAL.to_c(),
    }
}

/// hmm_core_retire() - take frames out of use for good; their memory has gone bad.
/// @core: the region
/// @index: the first page
/// @npages: how many
///
/// Free frames are retired at once. Frames that are claimed or resident stay what
/// they are until they are given back, and are retired then; hmm_core_stats()
/// counts them as claimed or resident until then. From the return of this function
/// on, no claim hands one of them out. Retiring a frame again changes nothing.
///
/// A region remembers the frames of one 2 MiB block in each 45 MiB of it (at least two
/// blocks, at most 1024) one by one. Blocks that are retired as a whole do not count.
/// Beyond that, a block is retired as a whole when a frame of it is.
///
/// Context: Any.
/// Return: 0, or -EINVAL: not a range of the region, nothing was changed.
///
/// # Safety
/// `core` is null or a living region.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_retire(core: *const Core, index: u64, npages: u64) -> c_int {
    // SAFETY: C's living region.
    match unsafe { region(core) } {
        Some(region) => to_c(region.retire(index, npages)),
        None => Errno::INVAL.to_c(),
    }
}

/// hmm_core_stats() - the books of a region.
/// @core: the region
/// @out: the figures; exact when no other call is under way
///
/// Reads the whole bitmap: for people, not for hot paths.
///
/// Context: Any.
///
/// # Safety
/// Pointers are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_stats(core: *const Core, out: *mut CoreStats) {
    // SAFETY: C's living region, and its own structure.
    if let (Some(region), Some([out])) = unsafe { (region(core), array_mut(out, 1)) } {
        *out = region.stats();
    }
}

/// hmm_core_next_span() - the next frames that are in use.
/// @core: the region
/// @from: page index to look from
/// @max: longest span wanted, at least 1
/// @first: first page of the span
/// @npages: its length; it never crosses a 2 MiB block
///
/// A snapshot: any page of the span may be released meanwhile, so the caller
/// takes a reference through the kernel before it touches one.
///
/// Context: Any.
/// Return: 0. -ENOENT: no frame at or after @from is in use. -EINVAL: a pointer is
/// NULL or @max is 0.
///
/// # Safety
/// Pointers are null or valid.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_next_span(
    core: *const Core,
    from: u64,
    max: u64,
    first: *mut u64,
    npages: *mut u64,
) -> c_int {
    // SAFETY: C's living region, and its own variables.
    let parts = unsafe { (region(core), array_mut(first, 1), array_mut(npages, 1)) };
    let (Some(region), Some([first]), Some([npages])) = parts else {
        return Errno::INVAL.to_c();
    };
    to_c(region.next_span(from, max).map(|span| {
        *first = span.first.0;
        *npages = span.npages;
    }))
}

/// hmm_core_touch() - the device used these frames.
/// @core: the region
/// @index: the first page; what lies outside the region is left out
/// @npages: how many
///
/// Sets the mark that keeps the 2 MiB blocks of these frames from being
/// hmm_core_victim() until its hand has passed them once. Frames that
/// hmm_core_plan_to_device() hands out are marked by it. Costs a load when the mark is set.
///
/// Context: Any.
///
/// # Safety
/// `core` is null or a living region.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_touch(core: *const Core, index: u64, npages: u64) {
    // SAFETY: C's living region.
    if let Some(region) = unsafe { region(core) } {
        region.touch(index, npages);
    }
}

/// hmm_core_victim() - the frames that should make room.
/// @core: the region
/// @max: longest span wanted, at least 1
/// @first: first page of the span
/// @npages: its length; it never crosses a 2 MiB block
///
/// A clock: the hand goes over the blocks, clears the marks of hmm_core_touch() and
/// stops at the first block in use without one, whose first span in use this is.
/// The hand then stands behind that block, so callers at the same time get
/// different blocks where there are some; who wants more of the same block goes on
/// in it with hmm_core_next_span(). When all blocks are touched faster than the hand
/// turns, it is any of them. At most two turns, 64 blocks in a step.
///
/// A snapshot, as for hmm_core_next_span().
///
/// Context: Any.
/// Return: 0. -ENOENT: no frame is in use. -EINVAL: a pointer is NULL or @max is 0.
///
/// # Safety
/// Pointers are null or valid.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_victim(
    core: *const Core,
    max: u64,
    first: *mut u64,
    npages: *mut u64,
) -> c_int {
    // SAFETY: C's living region, and its own variables.
    let parts = unsafe { (region(core), array_mut(first, 1), array_mut(npages, 1)) };
    let (Some(region), Some([first]), Some([npages])) = parts else {
        return Errno::INVAL.to_c();
    };
    to_c(region.victim(max).map(|span| {
        *first = span.first.0;
        *npages = span.npages;
    }))
}

/// hmm_core_window() - how much a CPU fault should bring back.
/// @core: the region
/// @key: names the address space; 0 is as good as any
/// @page: virtual page number of the fault
/// @lo: first virtual page number that may come along
/// @hi: the one after the last
/// @max: most pages to bring back, a power of two up to 512; 1 = only the page
/// @out: the window; it contains @page
///
/// Starts small, doubles while faults continue a window in either direction,
/// halves when they are scattered. When scattered faults have brought three eighths of a
/// 2 MiB block home, the rest of it comes along with the next, unless the block went to the
/// device meanwhile: hmm_core_went().
///
/// Context: Any.
///
/// # Safety
/// Pointers are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_window(
    core: *const Core,
    key: u64,
    page: u64,
    lo: u64,
    hi: u64,
    max: u32,
    out: *mut Window,
) {
    // SAFETY: C's living region, and its own structure.
    let (region, out) = unsafe { (region(core), array_mut(out, 1)) };
    let Some([out]) = out else {
        return;
    };
    *out = match region {
        Some(region) => region.window(key, page, lo, hi, max),
        None => Window {
            first: page,
            npages: 1,
        },
    };
}

/// hmm_core_went() - pages went to the device.
/// @core: the region
/// @key: names the address space, as with hmm_core_window()
/// @page: virtual page number of one of them; the others are in the same 2 MiB
///
/// Context: Any.
///
/// # Safety
/// `core` is null or a living region.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_went(core: *const Core, key: u64, page: u64) {
    // SAFETY: C's living region.
    if let Some(region) = unsafe { region(core) } {
        region.went(key, page);
    }
}

/// The memory of a map, for the length of the call.
///
/// # Safety
/// `mem` is null, or points to `npages` pages of 4 KiB that nobody else uses during the call.
#[inline(always)]
unsafe fn words<'a>(mem: *mut c_ulong, npages: u32) -> Option<&'a mut [u64]> {
    // SAFETY: passed on to the caller. 2^20 pages of 512 words are less than 2^32 words.
    if npages < 1 << 20 {
        unsafe { array_mut(mem, npages * 512) }
    } else {
        None
    }
}

/// hmm_core_map_init() - make an empty map of an address space in lent memory.
/// @mem: @npages pages of 4 KiB, whatever is in them
/// @npages: 3 to 2^20 - 1
///
/// A map gives virtual pages a value of 28 bits, 0 for none. The caller keeps owning the
/// memory, and sees to it that one call at a time uses it; a map holds nothing else. To lend
/// more, it copies the map's memory to a larger place and goes on there; what is behind it
/// need not be cleared.
///
/// Context: Any.
/// Return: 0, or -EINVAL: not so many pages, or @mem is NULL or not aligned to 8.
///
/// # Safety
/// `mem` is null or points to `npages` pages that are the map's alone.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_map_init(mem: *mut c_ulong, npages: u32) -> c_int {
    // SAFETY: C lends the memory to the map alone.
    match unsafe { words(mem, npages) }.and_then(Map::format) {
        Some(_) => 0,
        None => Errno::INVAL.to_c(),
    }
}

/// hmm_core_map_set() - give virtual pages a value.
/// @mem: the map
/// @npages: pages of memory that it has now, at least as many as before
/// @first: first virtual page
/// @n: how many, at least 1; pages of 57-bit addresses
/// @value: less than 2^28; 0 takes away what they had
/// @more: (out) with -ENOMEM, how many pages of memory are lacking
///
/// Context: Any.
/// Return: 0; -ENOMEM: more memory has to be lent first; -EINVAL: no such range or value, or no
/// map at @mem. Nothing was changed if it is not 0.
///
/// # Safety
/// Pointers are null or valid, and the map is nobody else's during the call.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_map_set(
    mem: *mut c_ulong,
    npages: u32,
    first: u64,
    n: u64,
    value: u32,
    more: *mut u32,
) -> c_int {
    // SAFETY: C's map, and its own variable.
    let (words, more) = unsafe { (words(mem, npages), array_mut(more, 1)) };
    let (Some(mut map), Some([more])) = (words.and_then(Map::at), more) else {
        return Errno::INVAL.to_c();
    };
    match map.set(first, n, value) {
        Ok(()) => 0,
        Err(Refused::Lend(Lend(pages))) => {
            *more = to_u32(pages);
            Errno::NOMEM.to_c()
        }
        Err(Refused::Invalid) => Errno::INVAL.to_c(),
    }
}

/// hmm_core_map_next() - the next virtual pages that have a value.
/// @mem: the map
/// @npages: pages of memory that it has
/// @page: where to look from
/// @end: where to stop, exclusive
/// @run: (out) pages of one value, all in [@page, @end)
///
/// Context: Any.
/// Return: 0; -ENOENT: there are none; -EINVAL: no map at @mem, or @run is NULL.
///
/// # Safety
/// Pointers are null or valid, and the map is nobody else's during the call.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_map_next(
    mem: *mut c_ulong,
    npages: u32,
    page: u64,
    end: u64,
    run: *mut MapRun,
) -> c_int {
    // SAFETY: C's map, and its own structure.
    let (words, run) = unsafe { (words(mem, npages), array_mut(run, 1)) };
    let (Some(map), Some([run])) = (words.and_then(Map::at), run) else {
        return Errno::INVAL.to_c();
    };
    match map.next(page, end, u32::MAX) {
        Some(found) => {
            *run = MapRun {
                first: found.first,
                npages: found.npages,
                value: found.value,
                reserved: 0,
            };
            0
        }
        None => Errno::NOENT.to_c(),
    }
}

/// hmm_core_map_spare() - pages of a map's memory that are not in use.
/// @mem: the map
/// @npages: pages of memory that it has
///
/// Context: Any.
/// Return: How many; with four, most changes can be made, with 50 any. 0 if there is no map.
///
/// # Safety
/// `mem` is null or valid, and the map is nobody else's during the call.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hmm_core_map_spare(mem: *mut c_ulong, npages: u32) -> u32 {
    // SAFETY: C's map.
    match unsafe { words(mem, npages) }.and_then(Map::at) {
        Some(map) => to_u32(map.spare()),
        None => 0,
    }
}
