// SPDX-License-Identifier: GPL-2.0
/*
 * Hints: what a process says about ranges of its memory, for one device.
 *
 * They are a map of the core (virtual pages to HMM_HINT_*), one for each process that has a view
 * of a region, in memory that is made when the first hint is given and goes with the last view.
 * A hint is never needed: whoever finds none does what is done without.
 *
 * Lock order: mmap lock -> view lock; mmap lock -> hints_lock. The latter is taken where
 * mappings are taken down, so nothing is allocated under it.
 */
#include <linux/mmap_lock.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "internal.h"

/* Pages of memory that a map begins with, and the most it gets. */
#define HINT_PAGES	16
#define HINT_PAGES_MAX	16384
/* So many are left over after each change, for munmap(), which cannot wait for memory. */
#define HINT_SPARE	6

/* A larger map with the same in it; NULL if there is no memory for it. */
static unsigned long *larger_map(u32 npages, gfp_t gfp)
{
	if (npages > HINT_PAGES_MAX)
		return NULL;
	return gfp & __GFP_DIRECT_RECLAIM ? kvmalloc_array(npages, PAGE_SIZE, gfp) :
					    kmalloc_array(npages, PAGE_SIZE, gfp);
}

/* Put the map where more of it fits. The lock is held; returns what is to be freed. */
static unsigned long *change_map(struct hmm_region *region, struct hmm_account *account,
				 unsigned long *map, u32 npages)
{
	unsigned long *old = account->hints;

	if (old) {
		memcpy(map, old, account->hint_pages * PAGE_SIZE);
	} else {
		if (hmm_core_map_init(map, npages))
			WARN_ON_ONCE(1);
		atomic_inc(&region->hinted);
	}
	account->hint_pages = npages;
	WRITE_ONCE(account->hints, map);
	return old;
}

/* Make room for @more pages of the map. */
static int grow(struct hmm_region *region, struct hmm_account *account, u32 more)
{
	u32 had = READ_ONCE(account->hint_pages), npages;
	unsigned long *map;

	npages = max3(had + more, had + had / 2, (u32)HINT_PAGES);
	map = hmm_should_fail(HMM_FAIL_HINT) ? NULL : larger_map(npages, GFP_KERNEL_ACCOUNT);
	if (!map)
		return -ENOMEM;
	mutex_lock(&account->hints_lock);
	/* Somebody else may have been quicker. */
	if (account->hint_pages < npages)
		map = change_map(region, account, map, npages);
	mutex_unlock(&account->hints_lock);
	kvfree(map);
	return 0;
}

/* Set, and leave some memory over. The lock is held. */
static int set_locked(struct hmm_account *account, unsigned long start, unsigned long end,
		      unsigned int hint, u32 *more)
{
	*more = HINT_SPARE;
	if (!account->hints || hmm_core_map_spare(account->hints, account->hint_pages) < HINT_SPARE)
		return -ENOMEM;
	return hmm_core_map_set(account->hints, account->hint_pages, PHYS_PFN(start),
				PHYS_PFN(end - start), hint, more);
}

/* Is all of the range mapped? The mmap lock is held. */
static bool is_mapped(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	struct vm_area_struct *vma;

	for (; start < end; start = vma->vm_end) {
		vma = find_vma(mm, start);
		if (!vma || vma->vm_start > start)
			return false;
	}
	return true;
}

/* Nobody unmaps the range between the look at it and the hint. */
static int set_mapped(struct hmm_account *account, unsigned long start, unsigned long end,
		      unsigned int hint, u32 *more)
{
	struct mm_struct *mm = account->mm;
	int ret;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	mutex_lock(&account->hints_lock);
	if (hint && !is_mapped(mm, start, end))
		ret = -EFAULT;
	else if (!hint && !account->hints)
		ret = 0;
	else
		ret = set_locked(account, start, end, hint, more);
	mutex_unlock(&account->hints_lock);
	mmap_read_unlock(mm);
	return ret;
}

/**
 * hmm_hint_set() - say something about a range of a process
 * @view: the process, and the device that it is said to
 * @start: first byte, page aligned
 * @end: one past the last byte, page aligned
 * @hint: HMM_HINT_*, together; takes the place of what was said about the range before
 *
 * Nothing moves by this alone. See HMM_HINT_PREFER_DEVICE and its like for what it means. Hints
 * are of an address space and a region: all views of the process on that region share them, and
 * they are gone with the last of these. A child of fork() has none, nor has a new program after
 * exec(). Whatever ends a mapping (munmap(), mremap() for the old place, a mapping on top of it)
 * ends the hints for its addresses; what only takes away its pages (MADV_DONTNEED), or its
 * rights, does not. If there is no memory at that moment to keep the others, all hints of the
 * process on that region are gone.
 *
 * Context: process context, mmap lock not held; sleeps.
 * Return: 0; -EINVAL unaligned, empty or impossible range, unknown or contradicting hints;
 * -EOPNOTSUPP the view has no region; -ENODEV the device is gone; -ESRCH the address space is;
 * -EFAULT a part of the range is not mapped (and @hint is not HMM_HINT_NONE); -ENOMEM; -EINTR
 * deadly signal. Nothing was changed if it is not 0.
 */
int hmm_hint_set(struct hmm_view *view, unsigned long start, unsigned long end,
		 unsigned int hint)
{
	struct hmm_region *region = hmm_view_region(view);
	struct hmm_account *account = hmm_view_account(view);
	struct mm_struct *mm = hmm_view_mm(view);
	u32 more = 0;
	int ret;

	if (!hmm_view_range_is_valid(view, start, end) || (hint & ~HMM_HINT_ALL) ||
	    (hint & HMM_HINT_PREFER_DEVICE && hint & HMM_HINT_PREFER_RAM))
		return -EINVAL;
	if (!region)
		return -EOPNOTSUPP;
	if (!percpu_ref_tryget_live(&region->devmem.ref))
		return -ENODEV;
	if (!mmget_not_zero(mm)) {
		ret = -ESRCH;
		goto out_ref;
	}
	do {
		ret = set_mapped(account, start, end, hint, &more);
	} while (ret == -ENOMEM && !grow(region, account, more));
	mmput_async(mm);
out_ref:
	percpu_ref_put(&region->devmem.ref);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_hint_set);

/**
 * hmm_hint_get() - what was said about an address
 * @view: the process, and the device that it was said to
 * @addr: page aligned
 * @end: how far to look, page aligned, after @addr
 * @until: (out) the same is true up to here, @end at most
 *
 * Context: process context; sleeps.
 * Return: HMM_HINT_*, HMM_HINT_NONE if nothing was said.
 */
unsigned int hmm_hint_get(const struct hmm_view *view, unsigned long addr, unsigned long end,
			  unsigned long *until)
{
	*until = end;
	return hmm_view_region(view) ? hmm_hint_find(hmm_view_account(view), addr, end, until) :
				       HMM_HINT_NONE;
}
EXPORT_SYMBOL_GPL(hmm_hint_get);

/* As hmm_hint_get(), of an account that cannot go away. */
unsigned int hmm_hint_find(struct hmm_account *account, unsigned long addr, unsigned long end,
			   unsigned long *until)
{
	struct hmm_map_run run;
	int ret;

	*until = end;
	if (!READ_ONCE(account->hints))
		return HMM_HINT_NONE;
	mutex_lock(&account->hints_lock);
	ret = hmm_core_map_next(account->hints, account->hint_pages, PHYS_PFN(addr),
				PHYS_PFN(end), &run);
	mutex_unlock(&account->hints_lock);
	if (ret)
		return HMM_HINT_NONE;
	if (run.first > PHYS_PFN(addr)) {
		*until = run.first << PAGE_SHIFT;
		return HMM_HINT_NONE;
	}
	*until = (run.first + run.npages) << PAGE_SHIFT;
	return run.value;
}

/**
 * hmm_hint_around() - what a process said about an address, and where else it said the same
 * @region: the device
 * @mm: the process, which may have said nothing
 * @addr: the address
 * @first: (in) where to begin; (out) the same is true from here on
 * @end: (in) where to stop; (out) and up to here
 *
 * Context: process context; sleeps.
 * Return: as hmm_hint_get().
 */
unsigned int hmm_hint_around(struct hmm_region *region, struct mm_struct *mm,
			     unsigned long addr, unsigned long *first, unsigned long *end)
{
	unsigned int hint = HMM_HINT_NONE;
	struct hmm_account *account;
	unsigned long until = *first;

	if (likely(!atomic_read(&region->hinted)))
		return HMM_HINT_NONE;
	account = hmm_account_find(region, mm);
	if (!account)
		return HMM_HINT_NONE;
	while (until <= addr) {
		*first = until;
		hint = hmm_hint_find(account, until, *end, &until);
	}
	*end = until;
	hmm_account_put(region, account);
	return hint;
}

/* Is this frame one that its owner wants to stay? Asks the first of those who map it. */
bool hmm_hint_spares(struct hmm_region *region, u64 index)
{
	unsigned long addr, first, end;
	struct mm_struct *mm;
	unsigned int hint;

	if (likely(!atomic_read(&region->hinted)))
		return false;
	mm = hmm_rmap_find(pfn_to_page(region->devmem.pfn_first + index), 0, &addr);
	if (!mm)
		return false;
	first = addr;
	end = addr + PAGE_SIZE;
	hint = hmm_hint_around(region, mm, addr, &first, &end);
	mmput_async(mm);
	return hint & HMM_HINT_PREFER_DEVICE;
}

/*
 * Mappings are taken down: what was said about them is void. Returns false if that would have
 * to wait and must not.
 */
bool hmm_hint_unmap(struct hmm_region *region, struct hmm_account *account,
		    const struct mmu_notifier_range *range)
{
	unsigned long first = PHYS_PFN(range->start), n = PHYS_PFN(range->end) - first;
	unsigned long *map, *old = NULL;
	u32 more = 0;
	int ret;

	if (!READ_ONCE(account->hints))
		return true;
	if (mmu_notifier_range_blockable(range))
		mutex_lock(&account->hints_lock);
	else if (!mutex_trylock(&account->hints_lock))
		return false;
	ret = hmm_should_fail(HMM_FAIL_HINT) ? -ENOENT :
	      hmm_core_map_set(account->hints, account->hint_pages, first, n, 0, &more);
	if (ret == -ENOMEM) {
		/* Seldom, after many of these without a hint: see HINT_SPARE. */
		more += account->hint_pages;
		map = larger_map(more, GFP_NOWAIT | __GFP_NOWARN);
		if (map) {
			old = change_map(region, account, map, more);
			ret = hmm_core_map_set(map, more, first, n, 0, &more);
		}
	}
	if (ret && hmm_core_map_init(account->hints, account->hint_pages))
		WARN_ON_ONCE(1);
	mutex_unlock(&account->hints_lock);
	kvfree(old);
	return true;
}

/* The account goes. */
void hmm_hint_free(struct hmm_region *region, struct hmm_account *account)
{
	if (!account->hints)
		return;
	atomic_dec(&region->hinted);
	kvfree(account->hints);
}
