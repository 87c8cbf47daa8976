// SPDX-License-Identifier: GPL-2.0
/*
 * Legs 4 to 6: pages come home, because the CPU touched one or because somebody asked.
 */
#include <linux/mempolicy.h>
#include <linux/mmap_lock.h>
#include <linux/moduleparam.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>

#include "internal.h"
#include "trace.h"

static unsigned int fault_window = HMM_BATCH;
module_param(fault_window, uint, 0644);
MODULE_PARM_DESC(fault_window,
		 "at most so many pages come home on a CPU fault (up to 512, rounded down to a power of two; 0 or 1: only the page that was touched; default 512)");

/* The page that a fault is about is worth waiting for, so is what was asked for. */
#define GFP_WANTED	(GFP_HIGHUSER_MOVABLE | __GFP_NOWARN)
/* Its neighbours come along if that is cheap. */
#define GFP_NEIGHBOUR	(GFP_HIGHUSER_MOVABLE | __GFP_NORETRY | __GFP_NOWARN)
/* A request or an eviction may fail; it shall not kill anybody. */
#define GFP_REQUEST	(GFP_HIGHUSER_MOVABLE | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/*
 * Pages come in runs of eight where they can: one call of the allocator, and the copy finds
 * them side by side. More would leave the allocator's per-CPU lists.
 */
#define RUN_ORDER	3
#define RUN_PAGES	(1U << RUN_ORDER)

static bool is_wanted(unsigned long entry)
{
	const unsigned long both = MIGRATE_PFN_VALID | MIGRATE_PFN_MIGRATE;

	return (entry & both) == both;
}

static unsigned long take_page(struct page *page)
{
	lock_page(page);
	return migrate_pfn(page_to_pfn(page));
}

/*
 * RAM for the first entry at @dst, of @run that want some; for the next seven of these as well, if it
 * can be had in one piece. Returns for how many it did what it could.
 */
static unsigned int fill_entries(unsigned long *dst, unsigned int run,
				 struct vm_area_struct *vma, unsigned long addr, gfp_t gfp)
{
	struct page *page;
	unsigned int k;

	if (hmm_should_fail(HMM_FAIL_RAM))
		return 1;
	/* A memory policy of the VMA speaks of single pages. */
	if (run >= RUN_PAGES && !(vma && vma_policy(vma))) {
		page = alloc_pages((gfp & ~__GFP_RETRY_MAYFAIL) | __GFP_NORETRY, RUN_ORDER);
		if (page) {
			split_page(page, RUN_ORDER);
			for (k = 0; k < RUN_PAGES; k++)
				dst[k] = take_page(page + k);
			return RUN_PAGES;
		}
	}
	page = vma ? alloc_page_vma(gfp, vma, addr) : alloc_page(gfp);
	if (page)
		dst[0] = take_page(page);
	return 1;
}

/* Of @n entries from @i on, those that lost their contents stay: whoever touches one is told. */
void hmm_leave_poisoned(struct hmm_region *region, struct hmm_batch *b, unsigned int i,
			unsigned int n)
{
	struct page *page;
	unsigned int k;

	if (likely(xa_empty(&region->poisoned)))
		return;
	for (n += i; i < n; i++) {
		page = migrate_pfn_to_page(b->src[i]);
		for (k = 0; page && k < 1U << hmm_entry_order(b->src[i]); k++)
			if (hmm_page_is_poisoned(region, page + k))
				b->src[i] &= ~MIGRATE_PFN_MIGRATE;
	}
}

/**
 * hmm_to_ram_fill() - find RAM for the pages of a batch
 * @region: where they come from
 * @b: src as the kernel set it up; dst, all 0, gets locked pages where there are some, and
 *	the only COMPOUND entry that there may be @b->huge
 * @n: entries
 * @vma: whose memory policy counts, or NULL for an eviction
 * @start: address of the first entry in @vma
 * @must: on a CPU fault, the entry that it is about; -1: all are wanted alike
 *
 * Return: how many pages want to come home, and for how many of them there is none.
 */
struct hmm_fill hmm_to_ram_fill(struct hmm_region *region, struct hmm_batch *b,
				unsigned int n, struct vm_area_struct *vma,
				unsigned long start, long must)
{
	const unsigned long *src = b->src;
	unsigned long *dst = b->dst;
	struct hmm_fill fill = {};
	unsigned int i, end, done;

	/* A whole folio is all of its batch. RAM for it was there before it was locked. */
	if (hmm_entry_order(src[0]) && is_wanted(src[0])) {
		fill.wanted = HMM_BLOCK_PAGES;
		if (b->huge)
			dst[0] = take_page(b->huge) | MIGRATE_PFN_COMPOUND;
		else
			fill.missing = HMM_BLOCK_PAGES;
		b->huge = NULL;
		n = 0;
	}
	for (i = 0; i < n; i = end) {
		end = i + 1;
		if (!is_wanted(src[i])) {
			if (src[i] & MIGRATE_PFN_MIGRATE)
				fill.holes += 1U << hmm_entry_order(src[i]);
			continue;
		}
		while (end < n && is_wanted(src[end]))
			end++;
		fill.wanted += end - i;
		for (; i < end; i += done) {
			done = fill_entries(&dst[i], end - i, vma, start + i * PAGE_SIZE,
					    must < 0 ? GFP_REQUEST :
					    must == i ? GFP_WANTED : GFP_NEIGHBOUR);
			fill.missing += !dst[i];
		}
	}
	if (trace_alloc_fail_enabled() && fill.missing)
		trace_alloc_fail(region, HMM_TO_RAM, fill.missing);
	return fill;
}

/* An entry, or the 2 MiB one that it is part of. */
static unsigned long entry_at(const unsigned long *entry, long at)
{
	return entry[0] & MIGRATE_PFN_COMPOUND ? entry[0] : entry[at];
}

/* RAM for a whole folio that did not move after all. */
static void put_huge(struct hmm_batch *b)
{
	if (b->huge)
		put_page(b->huge);
	b->huge = NULL;
}

/*
 * Bring one batch home. @must is the entry a CPU fault is about, -1 if there is none; the
 * return value is the answer to that fault. With @split, fault_page is of a folio that is mapped
 * whole: the kernel shall split it, which it does not while somebody holds it. A mapping that
 * cannot go away keeps it meanwhile.
 */
static vm_fault_t to_ram_batch(struct hmm_region *region, struct hmm_batch *b,
			       struct migrate_vma *args, long must, struct hmm_migrate *m,
			       struct folio *split)
{
	unsigned int n = PHYS_PFN(args->end - args->start);
	unsigned int filled, failed, moved;
	struct hmm_fill fill;
	vm_fault_t ret = 0;
	u32 nseg = 0;
	int err;

	args->src = b->src;
	args->dst = b->dst;
	args->pgmap_owner = region->devmem.pagemap.owner;
	args->flags |= hmm_region_select(region);
	if (split)
		folio_put(split);
	err = migrate_vma_setup(args);
	if (split)
		folio_get(split);
	if (err || !args->cpages) {
		m->skipped[err ? HMM_SKIP_VMA : HMM_SKIP_BUSY] += n;
		put_huge(b);
		return err ? VM_FAULT_SIGBUS : 0;
	}
	hmm_leave_poisoned(region, b, 0, n);
	/* The page is locked or held by somebody for the moment: the CPU tries again. */
	if (must >= 0 && !(entry_at(b->src, must) & MIGRATE_PFN_MIGRATE))
		must = -1;

	fill = hmm_to_ram_fill(region, b, n, args->vma, args->start, must);
	filled = fill.wanted - fill.missing;
	put_huge(b);
	if (must >= 0 && !entry_at(b->dst, must)) {
		ret = VM_FAULT_OOM;
		must = -1;
	}
	if (hmm_core_plan_to_ram(b->src, b->dst, n, region->devmem.pfn_first, b->seg, &nseg))
		WARN_ON_ONCE(1);
	failed = hmm_copy_to_ram(region, b, nseg, filled, false);
	/* Nobody may see a page that was not read back; the data stays on the device. */
	if (must >= 0 && !entry_at(b->dst, must))
		ret = VM_FAULT_SIGBUS;

	migrate_vma_pages(args);
	moved = hmm_batch_moved(b, n, &m->huge);
	migrate_vma_finalize(args);

	m->moved += moved;
	m->skipped[HMM_SKIP_HOLE] += fill.holes;
	m->skipped[HMM_SKIP_BUSY] += n - fill.holes - fill.wanted;
	m->skipped[HMM_SKIP_NO_MEMORY] += fill.missing;
	m->skipped[HMM_SKIP_COPY] += failed;
	m->skipped[HMM_SKIP_REFUSED] += filled - failed - moved;
	return ret;
}

/*
 * The window of a CPU fault: how much around it comes home with it.
 *
 * Whether the neighbours were of use is not known afterwards. Only the accessed bit of their
 * entries tells; migrate_vma_setup() has replaced the entries when it returns, and nothing that
 * a module may call reads the bit before.
 */
static void fault_range(struct hmm_region *region, struct vm_fault *vmf,
			struct migrate_vma *args)
{
	unsigned long block = ALIGN_DOWN(vmf->address, PMD_SIZE);
	unsigned long lo = max(block, args->vma->vm_start);
	unsigned long hi = min(block + PMD_SIZE, args->vma->vm_end);
	unsigned int max_pages = region->fault_window ?: READ_ONCE(fault_window);
	struct hmm_window window;
	unsigned int hint;

	args->start = lo;
	args->end = hi;
	hint = hmm_hint_around(region, args->vma->vm_mm, vmf->address & PAGE_MASK, &args->start,
			       &args->end);
	if (hint & HMM_HINT_PREFER_RAM)
		return;
	if (hint & HMM_HINT_PREFER_DEVICE)
		max_pages = 1;
	hmm_core_window(region->core, (unsigned long)args->vma->vm_mm,
			PHYS_PFN(vmf->address), PHYS_PFN(lo), PHYS_PFN(hi),
			rounddown_pow_of_two(clamp(max_pages, 1U, (unsigned int)HMM_BATCH)),
			&window);
	args->start = window.first << PAGE_SHIFT;
	args->end = args->start + (window.npages << PAGE_SHIFT);
}

/* Bring home what a fault is about, for who counts and who looks on. */
static vm_fault_t fault_batch(struct hmm_region *region, struct vm_fault *vmf,
			      struct hmm_batch *b, struct migrate_vma *args, struct folio *split)
{
	struct mm_struct *mm = args->vma->vm_mm;
	struct hmm_migrate m = { .mm = mm };
	u64 begin = ktime_get_ns();
	struct hmm_trace_move trace;
	vm_fault_t ret;

	hmm_trace_begin(region, &trace, HMM_TO_RAM, HMM_CAUSE_FAULT, args->start,
			PHYS_PFN(args->end - args->start), &m);
	ret = to_ram_batch(region, b, args, PHYS_PFN(vmf->address) - PHYS_PFN(args->start), &m,
			   split);
	hmm_trace_end(region, &trace, b, &m);
	trace_cpu_fault(region, vmf->address, args->start, PHYS_PFN(args->end - args->start),
			m.moved, (__force unsigned int)ret);

	hmm_count(region, mm, cpu_faults, 1);
	hmm_count(region, mm, to_ram_fault, m.moved);
	hmm_count(region, mm, ns_to_ram, ktime_get_ns() - begin);
	hmm_region_count_skipped(region, HMM_TO_RAM, &m);
	return ret;
}

/*
 * A fault on a whole folio, for the first time: give back all locks of the fault, and move it with
 * those that whole.c wants. The CPU tries again in any case, and comes here no more if the folio is
 * still there.
 */
static vm_fault_t fault_whole(struct hmm_region *region, struct vm_fault *vmf,
			      struct folio *folio, struct hmm_batch *b)
{
	struct migrate_vma args = { HMM_FAULT_PAGE(&folio->page) };
	unsigned long block = ALIGN_DOWN(vmf->address, PMD_SIZE);
	struct mm_struct *mm = vmf->vma->vm_mm;
	bool locked = false;

	/* The caller's reference stays ours; nobody may wait for the lock with it. */
	folio_unlock(folio);
	mmap_read_unlock(mm);
	if (!mmap_write_lock_killable(mm)) {
		args.vma = find_vma(mm, block);
		locked = args.vma && args.vma->vm_start <= block && folio_trylock(folio);
		if (locked) {
			hmm_vma_start_write(args.vma);
			if (hmm_whole_maps(args.vma, block, folio)) {
				if (folio_mapcount(folio) == 1)
					b->huge = hmm_alloc_huge(args.vma, block);
				if (b->huge) {
					args.start = block;
					args.end = block + PMD_SIZE;
					args.flags = HMM_SELECT_COMPOUND;
				} else {
					fault_range(region, vmf, &args);
				}
				fault_batch(region, vmf, b, &args, b->huge ? NULL : folio);
			}
		}
		mmap_write_unlock(mm);
	}
	if (!locked)
		folio_lock(folio);
	return VM_FAULT_RETRY;
}

/**
 * hmm_to_ram_fault() - the CPU touched a page of private memory
 * @vmf: the fault; vmf->page is the device page, or the first one of a folio that is mapped
 *	whole, and held
 *
 * No reference to the region is taken: the page's own keeps everything alive.
 *
 * Context: mmap lock held for read, may sleep.
 * Return: 0, the CPU tries again, and finds RAM if the page was moved; VM_FAULT_RETRY the same,
 * with the mmap lock given back; VM_FAULT_OOM no RAM; VM_FAULT_SIGBUS the driver could not read
 * the page back; VM_FAULT_HWPOISON its contents are lost.
 */
vm_fault_t hmm_to_ram_fault(struct vm_fault *vmf)
{
	struct hmm_region *region = hmm_region_of_page(vmf->page);
	struct migrate_vma args = { .vma = vmf->vma, HMM_FAULT_PAGE(vmf->page) };
	unsigned long block = ALIGN_DOWN(vmf->address, PMD_SIZE);
	struct folio *folio = page_folio(vmf->page);
	struct page *page = vmf->page;
	struct hmm_batch *b;
	bool whole;
	vm_fault_t ret;

	whole = HMM_SELECT_COMPOUND && PageCompound(page) &&
		hmm_whole_maps(vmf->vma, block, folio);
	if (whole)
		page = &folio->page + (PHYS_PFN(vmf->address) - PHYS_PFN(block));
	if (unlikely(hmm_page_is_poisoned(region, page)))
		return VM_FAULT_HWPOISON;
	b = hmm_batch_get();
	if (whole && fault_flag_allow_retry_first(vmf->flags) &&
	    !(vmf->flags & FAULT_FLAG_RETRY_NOWAIT) && xa_empty(&region->poisoned)) {
		ret = fault_whole(region, vmf, folio, b);
	} else {
		if (whole)
			hmm_whole_split(vmf->vma, block, folio, b);
		fault_range(region, vmf, &args);
		ret = fault_batch(region, vmf, b, &args, NULL);
	}
	hmm_batch_put(b);
	return ret;
}

/* Bring one batch of a mapping home; the mmap lock is held, for write if @b says so. */
void hmm_to_ram_move(struct hmm_region *region, struct hmm_batch *b,
		     struct vm_area_struct *vma, unsigned long start, unsigned long end,
		     struct hmm_migrate *m)
{
	struct migrate_vma args = { .vma = vma, .start = start, .end = end };
	const struct hmm_migrate before = *m;
	struct folio *folio = NULL;

	if (b->write && end - start == PMD_SIZE && hmm_region_select_huge(region, m) &&
	    hmm_whole_is_at(region, false, vma, start)) {
		b->huge = hmm_alloc_huge(vma, start);
		if (b->huge)
			folio = hmm_whole_take(region, vma, start);
	}
	if (folio) {
		args.flags = HMM_SELECT_COMPOUND;
		hmm_set_fault_page(&args, &folio->page);
		b->seg[0].status = 0;
		to_ram_batch(region, b, &args, -1, m, NULL);
		folio_unlock(folio);
		folio_put(folio);
		if (b->seg[0].status != -EAGAIN)
			return;
		/* The driver has trouble with some page of it: with which, the pages will tell. */
		*m = before;
		args.flags = 0;
		hmm_set_fault_page(&args, NULL);
	}
	put_huge(b);
	to_ram_batch(region, b, &args, -1, m, NULL);
}

/**
 * hmm_migrate_to_ram() - bring a range of a process back from a device
 * @region: where from; pages on other devices stay there
 * @m: what to bring back; says afterwards what was moved, and why the rest was not
 *
 * Context: process context, mmap lock not held; sleeps.
 * Return: as hmm_migrate_to_device().
 */
int hmm_migrate_to_ram(struct hmm_region *region, struct hmm_migrate *m)
{
	return hmm_migrate_range(region, m, hmm_to_ram_move, HMM_TO_RAM);
}
EXPORT_SYMBOL_GPL(hmm_migrate_to_ram);
