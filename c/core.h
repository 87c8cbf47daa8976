/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The Rust core as C sees it. GENERATED from rust/ffi.rs and rust/types.rs by
 * `make gen`; not to be edited.
 */
#ifndef HMM_CORE_H
#define HMM_CORE_H

#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/compiler.h>
#include <linux/stddef.h>
#include <linux/types.h>
#else
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
typedef uint64_t u64;
typedef uint32_t u32;
typedef int32_t s32;
#ifndef __must_check
#define __must_check __attribute__((__warn_unused_result__))
#endif
#endif

/* The version of the project, from Cargo.toml. */
#define HMM_VERSION "0.1.0"

/* Migrate entry: names a page. */
#define HMM_ENTRY_VALID 1
/* Migrate entry: the page can be migrated. */
#define HMM_ENTRY_MIGRATE 2
/* Migrate entry: mapped writable. */
#define HMM_ENTRY_WRITE 8
/* Migrate entry: stands for a whole 2 MiB folio; the next 511 entries are 0. */
#define HMM_ENTRY_COMPOUND 16
/* Migrate entry: where the page number starts. */
#define HMM_ENTRY_SHIFT 6
/* Pages in one 2 MiB block. */
#define HMM_BLOCK_PAGES 512
/* The most entries that one plan takes. */
#define HMM_PLAN_MAX 65536
/* The alignment of the memory that hmm_core_init() is given. */
#define HMM_CORE_ALIGN 64
/* struct hmm_core - a region, in memory that C lends; what is in it is Rust's business. */
struct hmm_core;

/**
 * struct hmm_segment - one run of pages for one copy or zero command.
 * @src: first source page: a system pfn to device, a page index to RAM, 0 when zeroing
 * @dst: first destination page: a page index to device, a system pfn to RAM
 * @npages: length in pages
 * @entry: index of the first array entry that this segment serves
 * @status: 0 from the core; a driver sets a negative errno for a segment that failed
 * @reserved: 0
 */
struct hmm_segment {
	u64 src;
	u64 dst;
	u32 npages;
	u32 entry;
	s32 status;
	u32 reserved;
};

/**
 * struct hmm_plan - what hmm_core_plan_to_device() made of the entries.
 * @ncopy: copy segments, at the start of the segment array
 * @nzero: zero segments, at the end of the segment array
 * @claimed: pages that got a device frame
 * @wanted: pages that asked for one
 */
struct hmm_plan {
	u32 ncopy;
	u32 nzero;
	u32 claimed;
	u32 wanted;
};

/**
 * struct hmm_core_stats - the books of a region, in pages unless said otherwise.
 * @total: size of the region
 * @free: frames nobody has, counted in the bitmap
 * @claimed: frames handed out and not yet committed, counted apart from the bitmap
 * @resident: frames committed and not yet released, counted apart from the bitmap
 * @retired: frames taken out of use for good
 * @free_blocks: 2 MiB blocks (not pages) that are free as a whole
 *
 * When no call is under way, total == free + claimed + resident + retired.
 */
struct hmm_core_stats {
	u64 total;
	u64 free;
	u64 claimed;
	u64 resident;
	u64 retired;
	u64 free_blocks;
};

/**
 * struct hmm_window - what a CPU fault should bring back, in virtual page numbers.
 * @first: first virtual page
 * @npages: number of pages
 */
struct hmm_window {
	u64 first;
	u64 npages;
};

/**
 * struct hmm_map_run - pages of an address space that have one value.
 * @first: first virtual page
 * @npages: number of pages
 * @value: what they have
 * @reserved: 0
 */
struct hmm_map_run {
	u64 first;
	u64 npages;
	u32 value;
	u32 reserved;
};

/**
 * hmm_core_size() - bytes to lend for a region.
 * @npages: pages in the region, 1 to 2^32 (16 TiB)
 * @ncpus: CPUs that will call, 1 to 8192
 *
 * Context: Any.
 * Return: The size of the memory that hmm_core_init() wants, about 1.1 bits per
 * page and 128 bytes per CPU; 0 if an argument is out of range.
 */
__must_check size_t hmm_core_size(u64 npages, u32 ncpus);

/**
 * hmm_core_init() - make a region in lent memory; all frames free.
 * @mem: memory for it, aligned to HMM_CORE_ALIGN; a struct hmm_core from then on
 * @size: bytes at @mem, at least hmm_core_size()
 * @npages: pages in the region
 * @ncpus: CPUs that will call
 *
 * The caller keeps owning the memory, leaves it alone while the region is in
 * use, and frees it when the last call has returned. There is no counterpart to
 * this function: a region holds nothing but its memory.
 *
 * Context: Any. The caller alone may know the region yet.
 * Return: 0, or -EINVAL: an argument is out of range, the memory is NULL, not
 * aligned or too small; it was not touched then.
 */
__must_check int hmm_core_init(void *mem, size_t size, u64 npages, u32 ncpus);

/**
 * hmm_core_plan_to_device() - claim frames for a migration and plan its copies.
 * @core: the region
 * @cpu: the calling CPU; a hint, any number is safe
 * @src: source entries, as migrate_vma_setup() filled them
 * @dst: destination entries, written for all of @n
 * @n: number of entries, 1 to HMM_PLAN_MAX
 * @seg: room for @n segments
 * @out: what was planned
 *
 * Each @src entry with MIGRATE gets a frame: its @dst entry is the page index,
 * VALID, and the WRITE bit of the source. All other @dst entries become 0, and
 * so do those that no frame was left for. A COMPOUND source (it stands for 512
 * pages, the following 511 entries are 0) gets an aligned block and a COMPOUND
 * destination; when no block is free, it gets single frames in 512 entries, as
 * many as there are.
 *
 * Sources with VALID become copy segments, seg[0] to seg[ncopy - 1], in order:
 * src = system page number, dst = page index. Sources without (holes, the zero
 * page) become zero segments, seg[n - nzero] to seg[n - 1], in reverse order: src = 0.
 * A segment is a run of entries whose source and destination both run on.
 *
 * What was claimed is the caller's: hmm_core_commit() or hmm_core_rollback() it.
 *
 * Context: Any. The caller may be moved to another CPU meanwhile.
 * Return: 0, also when fewer pages were claimed than wanted. -EINVAL: @core or
 * an array is NULL, @n is out of range, or a COMPOUND entry reaches beyond @n;
 * nothing was claimed or written then.
 */
__must_check
int hmm_core_plan_to_device(const struct hmm_core *core,
			    u32 cpu,
			    const unsigned long *src,
			    unsigned long *dst,
			    u32 n,
			    struct hmm_segment *seg,
			    struct hmm_plan *out);

/**
 * hmm_core_plan_to_ram() - plan the copies of a migration to RAM.
 * @src: source entries, as migrate_vma_setup() filled them
 * @dst: destination entries, as the caller allocated pages for them
 * @n: number of entries, 1 to HMM_PLAN_MAX
 * @pfn_first: the pfn of the region's page 0
 * @seg: room for @n segments
 * @nseg: number of segments written
 *
 * Entries whose source has VALID and MIGRATE and whose destination has VALID are
 * coalesced: src = page index, dst = system pfn. COMPOUND on both sides is 512
 * pages; a COMPOUND source with single destinations is page i of the folio for
 * the i-th entry from it.
 *
 * Context: Any. Needs no region.
 * Return: 0, or -EINVAL: an array is NULL, @n is out of range, a source is below
 * @pfn_first, or a COMPOUND entry reaches beyond @n. Then @nseg is untouched and
 * @seg holds nothing of use.
 */
__must_check
int hmm_core_plan_to_ram(const unsigned long *src,
			 const unsigned long *dst,
			 u32 n,
			 u64 pfn_first,
			 struct hmm_segment *seg,
			 u32 *nseg);

/**
 * hmm_core_commit() - claimed pages are resident now.
 * @core: the region
 * @cpu: the calling CPU; a hint
 * @npages: how many
 *
 * Context: Any.
 */
void hmm_core_commit(const struct hmm_core *core, u32 cpu, u64 npages);

/**
 * hmm_core_rollback() - claimed pages that did not become resident are free again.
 * @core: the region
 * @cpu: the calling CPU; a hint
 * @index: the first page
 * @npages: how many
 *
 * Context: Any.
 * Return: 0. -EINVAL: not a range of the region, nothing was changed. -EALREADY: some
 * page was free already, which is a bug of the caller; the others are free now,
 * and no frame will be handed out twice.
 */
__must_check
int hmm_core_rollback(const struct hmm_core *core,
		      u32 cpu,
		      u64 index,
		      u64 npages);

/**
 * hmm_core_release() - resident pages are free again.
 * @core: the region
 * @cpu: the calling CPU; a hint
 * @index: the first page
 * @npages: how many
 *
 * The pages may be claimed by others before this returns: whatever has to be
 * done to them (zeroing, say) is done before.
 *
 * Context: Any; made for the page-free callback.
 * Return: As hmm_core_rollback().
 */
__must_check
int hmm_core_release(const struct hmm_core *core,
		     u32 cpu,
		     u64 index,
		     u64 npages);

/**
 * hmm_core_retire() - take frames out of use for good; their memory has gone bad.
 * @core: the region
 * @index: the first page
 * @npages: how many
 *
 * Free frames are retired at once. Frames that are claimed or resident stay what
 * they are until they are given back, and are retired then; hmm_core_stats()
 * counts them as claimed or resident until then. From the return of this function
 * on, no claim hands one of them out. Retiring a frame again changes nothing.
 *
 * A region remembers the frames of one 2 MiB block in each 45 MiB of it (at least two
 * blocks, at most 1024) one by one. Blocks that are retired as a whole do not count.
 * Beyond that, a block is retired as a whole when a frame of it is.
 *
 * Context: Any.
 * Return: 0, or -EINVAL: not a range of the region, nothing was changed.
 */
__must_check
int hmm_core_retire(const struct hmm_core *core,
		    u64 index,
		    u64 npages);

/**
 * hmm_core_stats() - the books of a region.
 * @core: the region
 * @out: the figures; exact when no other call is under way
 *
 * Reads the whole bitmap: for people, not for hot paths.
 *
 * Context: Any.
 */
void hmm_core_stats(const struct hmm_core *core, struct hmm_core_stats *out);

/**
 * hmm_core_next_span() - the next frames that are in use.
 * @core: the region
 * @from: page index to look from
 * @max: longest span wanted, at least 1
 * @first: first page of the span
 * @npages: its length; it never crosses a 2 MiB block
 *
 * A snapshot: any page of the span may be released meanwhile, so the caller
 * takes a reference through the kernel before it touches one.
 *
 * Context: Any.
 * Return: 0. -ENOENT: no frame at or after @from is in use. -EINVAL: a pointer is
 * NULL or @max is 0.
 */
__must_check
int hmm_core_next_span(const struct hmm_core *core,
		       u64 from,
		       u64 max,
		       u64 *first,
		       u64 *npages);

/**
 * hmm_core_touch() - the device used these frames.
 * @core: the region
 * @index: the first page; what lies outside the region is left out
 * @npages: how many
 *
 * Sets the mark that keeps the 2 MiB blocks of these frames from being
 * hmm_core_victim() until its hand has passed them once. Frames that
 * hmm_core_plan_to_device() hands out are marked by it. Costs a load when the mark is set.
 *
 * Context: Any.
 */
void hmm_core_touch(const struct hmm_core *core,
		    u64 index,
		    u64 npages);

/**
 * hmm_core_victim() - the frames that should make room.
 * @core: the region
 * @max: longest span wanted, at least 1
 * @first: first page of the span
 * @npages: its length; it never crosses a 2 MiB block
 *
 * A clock: the hand goes over the blocks, clears the marks of hmm_core_touch() and
 * stops at the first block in use without one, whose first span in use this is.
 * The hand then stands behind that block, so callers at the same time get
 * different blocks where there are some; who wants more of the same block goes on
 * in it with hmm_core_next_span(). When all blocks are touched faster than the hand
 * turns, it is any of them. At most two turns, 64 blocks in a step.
 *
 * A snapshot, as for hmm_core_next_span().
 *
 * Context: Any.
 * Return: 0. -ENOENT: no frame is in use. -EINVAL: a pointer is NULL or @max is 0.
 */
__must_check
int hmm_core_victim(const struct hmm_core *core,
		    u64 max,
		    u64 *first,
		    u64 *npages);

/**
 * hmm_core_window() - how much a CPU fault should bring back.
 * @core: the region
 * @key: names the address space; 0 is as good as any
 * @page: virtual page number of the fault
 * @lo: first virtual page number that may come along
 * @hi: the one after the last
 * @max: most pages to bring back, a power of two up to 512; 1 = only the page
 * @out: the window; it contains @page
 *
 * Starts small, doubles while faults continue a window in either direction,
 * halves when they are scattered. When scattered faults have brought three eighths of a
 * 2 MiB block home, the rest of it comes along with the next, unless the block went to the
 * device meanwhile: hmm_core_went().
 *
 * Context: Any.
 */
void hmm_core_window(const struct hmm_core *core,
		     u64 key,
		     u64 page,
		     u64 lo,
		     u64 hi,
		     u32 max,
		     struct hmm_window *out);

/**
 * hmm_core_went() - pages went to the device.
 * @core: the region
 * @key: names the address space, as with hmm_core_window()
 * @page: virtual page number of one of them; the others are in the same 2 MiB
 *
 * Context: Any.
 */
void hmm_core_went(const struct hmm_core *core, u64 key, u64 page);

/**
 * hmm_core_map_init() - make an empty map of an address space in lent memory.
 * @mem: @npages pages of 4 KiB, whatever is in them
 * @npages: 3 to 2^20 - 1
 *
 * A map gives virtual pages a value of 28 bits, 0 for none. The caller keeps owning the
 * memory, and sees to it that one call at a time uses it; a map holds nothing else. To lend
 * more, it copies the map's memory to a larger place and goes on there; what is behind it
 * need not be cleared.
 *
 * Context: Any.
 * Return: 0, or -EINVAL: not so many pages, or @mem is NULL or not aligned to 8.
 */
__must_check
int hmm_core_map_init(unsigned long *mem,
		      u32 npages);

/**
 * hmm_core_map_set() - give virtual pages a value.
 * @mem: the map
 * @npages: pages of memory that it has now, at least as many as before
 * @first: first virtual page
 * @n: how many, at least 1; pages of 57-bit addresses
 * @value: less than 2^28; 0 takes away what they had
 * @more: (out) with -ENOMEM, how many pages of memory are lacking
 *
 * Context: Any.
 * Return: 0; -ENOMEM: more memory has to be lent first; -EINVAL: no such range or value, or no
 * map at @mem. Nothing was changed if it is not 0.
 */
__must_check
int hmm_core_map_set(unsigned long *mem,
		     u32 npages,
		     u64 first,
		     u64 n,
		     u32 value,
		     u32 *more);

/**
 * hmm_core_map_next() - the next virtual pages that have a value.
 * @mem: the map
 * @npages: pages of memory that it has
 * @page: where to look from
 * @end: where to stop, exclusive
 * @run: (out) pages of one value, all in [@page, @end)
 *
 * Context: Any.
 * Return: 0; -ENOENT: there are none; -EINVAL: no map at @mem, or @run is NULL.
 */
__must_check
int hmm_core_map_next(unsigned long *mem,
		      u32 npages,
		      u64 page,
		      u64 end,
		      struct hmm_map_run *run);

/**
 * hmm_core_map_spare() - pages of a map's memory that are not in use.
 * @mem: the map
 * @npages: pages of memory that it has
 *
 * Context: Any.
 * Return: How many; with four, most changes can be made, with 50 any. 0 if there is no map.
 */
__must_check
u32 hmm_core_map_spare(unsigned long *mem,
			    u32 npages);

/* What both sides rely on, as the core was compiled. */
static_assert(sizeof(struct hmm_segment) == 32, "hmm_segment: size");
static_assert(offsetof(struct hmm_segment, src) == 0, "hmm_segment: src");
static_assert(offsetof(struct hmm_segment, dst) == 8, "hmm_segment: dst");
static_assert(offsetof(struct hmm_segment, npages) == 16, "hmm_segment: npages");
static_assert(offsetof(struct hmm_segment, entry) == 20, "hmm_segment: entry");
static_assert(offsetof(struct hmm_segment, status) == 24, "hmm_segment: status");
static_assert(offsetof(struct hmm_segment, reserved) == 28, "hmm_segment: reserved");
static_assert(sizeof(struct hmm_plan) == 16, "hmm_plan: size");
static_assert(offsetof(struct hmm_plan, ncopy) == 0, "hmm_plan: ncopy");
static_assert(offsetof(struct hmm_plan, nzero) == 4, "hmm_plan: nzero");
static_assert(offsetof(struct hmm_plan, claimed) == 8, "hmm_plan: claimed");
static_assert(offsetof(struct hmm_plan, wanted) == 12, "hmm_plan: wanted");
static_assert(sizeof(struct hmm_core_stats) == 48, "hmm_core_stats: size");
static_assert(offsetof(struct hmm_core_stats, total) == 0, "hmm_core_stats: total");
static_assert(offsetof(struct hmm_core_stats, free) == 8, "hmm_core_stats: free");
static_assert(offsetof(struct hmm_core_stats, claimed) == 16, "hmm_core_stats: claimed");
static_assert(offsetof(struct hmm_core_stats, resident) == 24, "hmm_core_stats: resident");
static_assert(offsetof(struct hmm_core_stats, retired) == 32, "hmm_core_stats: retired");
static_assert(offsetof(struct hmm_core_stats, free_blocks) == 40, "hmm_core_stats: free_blocks");
static_assert(sizeof(struct hmm_window) == 16, "hmm_window: size");
static_assert(offsetof(struct hmm_window, first) == 0, "hmm_window: first");
static_assert(offsetof(struct hmm_window, npages) == 8, "hmm_window: npages");
static_assert(sizeof(struct hmm_map_run) == 24, "hmm_map_run: size");
static_assert(offsetof(struct hmm_map_run, first) == 0, "hmm_map_run: first");
static_assert(offsetof(struct hmm_map_run, npages) == 8, "hmm_map_run: npages");
static_assert(offsetof(struct hmm_map_run, value) == 16, "hmm_map_run: value");
static_assert(offsetof(struct hmm_map_run, reserved) == 20, "hmm_map_run: reserved");
static_assert(sizeof(unsigned long) == 8, "entries are 64 bits");

#endif
