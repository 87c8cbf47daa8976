// SPDX-License-Identifier: GPL-2.0
/*
 * Looking at a mirrored address space as drivers of Linux 4.14 to 5.2 do: hmm_vma_get_pfns(),
 * hmm_vma_fault(), and hmm_range_register() with its family, all on top of today's
 * hmm_range_fault(). Entries come and go in the driver's own encoding.
 *
 * The mmap lock, which the driver holds for read, is kept, with one exception that was always
 * documented: faulting returns -EAGAIN with the lock dropped. That happens when the address
 * space has not held still for a second. No other error drops it.
 */
#include <linux/dma-mapping.h>
#include <linux/hugetlb.h>
#include <linux/mmap_lock.h>
#include <linux/slab.h>

#include "mirror.h"

/* Entries collected at once: a page of them. */
#define COLLECT_BATCH	(PAGE_SIZE / sizeof(unsigned long))
/* Give up when the address space does not hold still for so long. */
#define COLLECT_TIMEOUT	HZ

struct collect {
	struct hmm_client_range *range;
	struct space *space;
	bool fault;
	unsigned long *pfns;	/* a batch, as the kernel has it */
	unsigned long deadline;
};

/* The driver's entry for @addr; hugetlb ranges of 5.2 have one for each huge page. */
static u64 *client_entry(const struct hmm_client_range *range, unsigned long addr)
{
	return &range->pfns[(addr - range->start) >> range->page_shift];
}

static void fill_value(struct hmm_client_range *range, unsigned long start,
		       unsigned long end, unsigned int value)
{
	unsigned long addr;

	for (addr = start; addr < end; addr += 1UL << range->page_shift)
		*client_entry(range, addr) = range->values[value];
}

/* What the driver asks of the entry at @addr, by its own flags. */
static u64 client_request(const struct collect *c, unsigned long addr)
{
	const struct hmm_client_range *range = c->range;
	u64 entry;

	if (!c->fault)
		return 0;
	entry = (*client_entry(range, addr) & range->pfn_flags_mask) | range->default_flags;
	return entry & range->flags[HMM_CLIENT_VALID] ? entry : 0;
}

static unsigned long kernel_request(const struct collect *c, unsigned long addr)
{
	u64 entry = client_request(c, addr);

	if (!entry)
		return 0;
	return HMM_PFN_REQ_FAULT |
	       (entry & c->range->flags[HMM_CLIENT_WRITE] ? HMM_PFN_REQ_WRITE : 0);
}

/* Whether the driver wants @pfn, which is at @addr, to be faulted all the same. */
static bool must_fault(const struct collect *c, unsigned long addr, unsigned long pfn,
		       bool *write)
{
	u64 entry = client_request(c, addr);

	*write = entry & c->range->flags[HMM_CLIENT_WRITE];
	if (!entry || !(pfn & HMM_PFN_VALID) || !is_device_private_page(hmm_pfn_to_page(pfn)))
		return false;
	/* The kernel takes a device page as it is, even if it is shared after a fork. */
	return (entry & c->range->flags[HMM_CLIENT_DEVICE]) ||
	       (*write && !(pfn & HMM_PFN_WRITE));
}

/* Device pages that the driver wants at home. -EBUSY: there were some, look again. */
static int fault_device_pages(struct collect *c, unsigned long start, unsigned long end)
{
	struct mm_struct *mm = c->space->hmm.mm;
	unsigned long addr, *pfn = c->pfns;
	struct vm_area_struct *vma;
	bool again = false, write;
	int ret;

	for (addr = start; addr < end; addr += PAGE_SIZE, pfn++) {
		if (!must_fault(c, addr, *pfn, &write))
			continue;
		vma = find_vma(mm, addr);
		if (write && vma && !(vma->vm_flags & VM_WRITE))
			return -EPERM;
		ret = fixup_user_fault(mm, addr, write ? FAULT_FLAG_WRITE : 0, NULL);
		if (ret)
			return ret;
		again = true;
	}
	return again ? -EBUSY : 0;
}

static void store_entries(const struct collect *c, unsigned long start, unsigned long end)
{
	struct hmm_client_range *range = c->range;
	unsigned long addr, *pfn = c->pfns;

	for (addr = start; addr < end; addr += PAGE_SIZE, pfn++) {
		u64 entry;

		/* Of a huge page its first part counts. */
		if (!IS_ALIGNED(addr, 1UL << range->page_shift))
			continue;
		if (*pfn & HMM_PFN_ERROR) {
			entry = range->values[HMM_CLIENT_ERROR];
		} else if (!(*pfn & HMM_PFN_VALID)) {
			entry = range->values[HMM_CLIENT_NONE];
		} else {
			struct page *page = hmm_pfn_to_page(*pfn);

			entry = ((u64)page_to_pfn(page) << range->pfn_shift) |
				range->flags[HMM_CLIENT_VALID];
			if (*pfn & HMM_PFN_WRITE)
				entry |= range->flags[HMM_CLIENT_WRITE];
			if (is_device_private_page(page))
				entry |= range->flags[HMM_CLIENT_DEVICE];
		}
		*client_entry(range, addr) = entry;
	}
}

/* One batch. -EBUSY: it did not hold still. */
static int collect_batch(struct collect *c, unsigned long start, unsigned long end)
{
	struct hmm_range range = {
		.notifier = &c->space->notifier,
		.start = start,
		.end = end,
		.hmm_pfns = c->pfns,
		.pfn_flags_mask = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
		.dev_private_owner = hmm_devmem_pgmap_owner(NULL),
	};
	unsigned long addr;
	int ret;

	do {
		if (READ_ONCE(c->space->hmm.dead))
			return -EFAULT;
		for (addr = start; addr < end; addr += PAGE_SIZE)
			c->pfns[PHYS_PFN(addr - start)] = kernel_request(c, addr);
		range.notifier_seq = mmu_interval_read_begin(range.notifier);
		ret = hmm_range_fault(&range);
		if (!ret)
			ret = fault_device_pages(c, start, end);
	} while (ret == -EBUSY && time_before(jiffies, c->deadline) &&
		 !fatal_signal_pending(current));
	if (!ret)
		store_entries(c, start, end);
	return ret;
}

/* A batch failed: page by page, so that the driver sees which one it was. */
static int collect_singly(struct collect *c, unsigned long start, unsigned long end, int error)
{
	unsigned long addr;
	int ret;

	for (addr = start; addr < end; addr += PAGE_SIZE) {
		ret = collect_batch(c, addr, addr + PAGE_SIZE);
		if (ret == -EBUSY)
			return ret;
		if (ret) {
			fill_value(c->range, ALIGN_DOWN(addr, 1UL << c->range->page_shift),
				   addr + 1, HMM_CLIENT_ERROR);
			return ret;
		}
	}
	return error;
}

/* [start, end) of the range, within one mapping. */
static int collect_span(struct collect *c, unsigned long start, unsigned long end)
{
	unsigned long next;
	int ret;

	for (; start < end; start = next) {
		next = min(end, start + COLLECT_BATCH * PAGE_SIZE);
		ret = collect_batch(c, start, next);
		if (ret && ret != -EBUSY && c->fault)
			ret = collect_singly(c, start, next, ret);
		if (ret)
			return ret;
		cond_resched();
	}
	return 0;
}

/*
 * May [start, end) of @vma be mirrored? Otherwise the entries say why. @special: kinds of
 * mapping that this driver's API has no entries for.
 */
static int check_vma(struct collect *c, struct vm_area_struct *vma, unsigned long start,
		     unsigned long end, unsigned long special)
{
	if ((vma->vm_flags & special) || vma_is_dax(vma)) {
		fill_value(c->range, start, end, HMM_CLIENT_SPECIAL);
		return -EINVAL;
	}
	if (!(vma->vm_flags & VM_READ)) {
		fill_value(c->range, start, end, HMM_CLIENT_NONE);
		return -EPERM;
	}
	return 0;
}

static int collect_begin(struct collect *c, struct hmm_client_range *range,
			 struct space *space, bool fault)
{
	c->range = range;
	c->space = space;
	c->fault = fault;
	c->deadline = jiffies + COLLECT_TIMEOUT;
	c->pfns = (unsigned long *)__get_free_page(GFP_KERNEL);
	if (!c->pfns)
		return -ENOMEM;
	/* Whatever hits the range from here on makes it invalid. */
	range->valid = false;
	range->mm = space->hmm.mm;
	range->id = space->id;
	range->seq = hmm_space_now(space);
	return 0;
}

static int collect_finish(struct collect *c, int ret)
{
	free_page((unsigned long)c->pfns);
	c->range->valid = !ret;
	return ret;
}

/* ------------------------------------------------------------------------
 * 4.14 to 5.1: a range within one mapping
 */

static int vma_collect(struct hmm_client_range *range, bool fault)
{
	struct vm_area_struct *vma = range->vma;
	struct space *space;
	struct collect c;
	int ret;

	range->valid = false;
	range->page_shift = PAGE_SHIFT;
	range->default_flags = 0;
	range->pfn_flags_mask = -1ULL;
	if (!PAGE_ALIGNED(range->start) || !PAGE_ALIGNED(range->end) ||
	    range->start >= range->end || range->start < vma->vm_start ||
	    range->end > vma->vm_end)
		return -EINVAL;
	space = hmm_space_get(vma->vm_mm, 0);
	if (!space)
		return -EINVAL;
	ret = collect_begin(&c, range, space, fault);
	if (ret)
		goto out_space;
	ret = check_vma(&c, vma, range->start, range->end, VM_SPECIAL | VM_HUGETLB);
	if (!ret)
		ret = collect_span(&c, range->start, range->end);
	ret = collect_finish(&c, ret);
out_space:
	hmm_space_put(space);
	return ret;
}

/**
 * hmm_vma_get_pfns_range() - hmm_vma_get_pfns() of Linux 4.17 to 5.1: look, touch nothing
 * @range: vma, start, end, pfns, flags, values and pfn_shift set by the driver; start and end
 *	are whole pages. Read again only by hmm_vma_range_done().
 *
 * An entry becomes a page with flags, or one of the values: NONE not present, ERROR never can
 * be. Pages of any hmm_devmem are reported as they are, those of other devices as NONE.
 *
 * Context: process context, mmap lock held for read or write, and kept; sleeps.
 * Return: 0; -EINVAL the range is empty or not inside its mapping, or nobody mirrors the
 * address space, or the mapping is of a kind that is not mirrored (entries: SPECIAL);
 * -EPERM it may not be read (entries: NONE); -EBUSY it did not hold still for a second;
 * -EFAULT the address space ends; -ENOMEM.
 */
int hmm_vma_get_pfns_range(struct hmm_client_range *range)
{
	return vma_collect(range, false);
}
EXPORT_SYMBOL_GPL(hmm_vma_get_pfns_range);

/**
 * hmm_vma_fault_range() - hmm_vma_fault() of Linux 4.17 to 5.1: make pages present and look
 * @range: as for hmm_vma_get_pfns_range(); the entries say what is asked for: VALID to read,
 *	with WRITE to write, with DEVICE_PRIVATE to bring device memory home as well; without
 *	VALID the entry is only looked at
 * @block: has no effect, as it never had
 *
 * Asked to write, it gives no page that is shared after a fork, device memory included.
 *
 * Context: process context, mmap lock held for read; sleeps. The lock is kept, except with
 * -EAGAIN.
 * Return: 0; -EAGAIN the address space did not hold still for a second, or a deadly signal,
 * and **the mmap lock is dropped**; -EFAULT a page cannot be had (its entry: ERROR), or the
 * address space ends; -EINVAL and -EPERM as hmm_vma_get_pfns_range(), -EPERM also where it
 * may not be written; -ENOMEM.
 */
int hmm_vma_fault_range(struct hmm_client_range *range, bool block)
{
	struct mm_struct *mm = range->vma->vm_mm;
	int ret = vma_collect(range, true);

	if (ret == -EBUSY) {
		mmap_read_unlock(mm);
		ret = -EAGAIN;
	}
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_vma_fault_range);

/**
 * hmm_vma_done_range() - hmm_vma_range_done() of Linux 4.14 to 5.1: is it still true
 * @range: what hmm_vma_get_pfns() or hmm_vma_fault() has filled
 *
 * Called under the lock that the driver's sync callback takes, so that what is true now stays
 * true until that lock is let go. Need not be called at all, or can be called twice. The
 * entries are not touched, so a driver that tries again asks for the same.
 *
 * Context: any.
 * Return: false something was invalidated since, or the last call had failed.
 */
bool hmm_vma_done_range(struct hmm_client_range *range)
{
	struct space *space;
	bool same;

	if (!range->valid)
		return false;
	space = hmm_space_get(range->mm, range->id);
	if (!space)
		return false;
	same = hmm_space_unchanged(space, range->seq, range->start, range->end);
	hmm_space_put(space);
	return same;
}
EXPORT_SYMBOL_GPL(hmm_vma_done_range);

/* ------------------------------------------------------------------------
 * 5.2: a range of an address space
 */

/**
 * hmm_client_register() - hmm_range_register() of Linux 5.2
 * @range: to be given to hmm_range_unregister()
 * @mm: an address space that somebody mirrors
 * @start: first byte
 * @end: one past the last byte
 * @page_shift: what an entry stands for: PAGE_SHIFT, or a huge page's of a hugetlb mapping
 *
 * Context: any that may take a spinlock.
 * Return: 0; -EINVAL @start or @end not aligned to @page_shift, or the range is empty; -EFAULT
 * nobody mirrors @mm, or it has ended.
 */
int hmm_client_register(struct hmm_client_range *range, struct mm_struct *mm,
			unsigned long start, unsigned long end, unsigned int page_shift)
{
	unsigned long mask = (1UL << page_shift) - 1;
	struct space *space;

	range->valid = false;
	range->hmm = NULL;
	if (page_shift < PAGE_SHIFT || page_shift >= BITS_PER_LONG)
		return -EINVAL;
	if ((start & mask) || (end & mask) || start >= end)
		return -EINVAL;
	space = mm ? hmm_space_get(mm, 0) : NULL;
	if (!space)
		return -EFAULT;
	if (READ_ONCE(space->hmm.dead)) {
		hmm_space_put(space);
		return -EFAULT;
	}
	range->hmm = &space->hmm;
	range->start = start;
	range->end = end;
	range->page_shift = page_shift;
	range->mm = mm;
	range->id = space->id;
	range->seq = hmm_space_now(space);
	range->valid = true;
	return 0;
}
EXPORT_SYMBOL_GPL(hmm_client_register);

/**
 * hmm_client_unregister() - hmm_range_unregister() of Linux 5.2
 * @range: does nothing if it is not registered
 *
 * Context: any; before or after the mirror is unregistered.
 */
void hmm_client_unregister(struct hmm_client_range *range)
{
	if (!range->hmm)
		return;
	hmm_space_put(hmm_space_of(range->hmm));
	range->hmm = NULL;
	range->valid = false;
}
EXPORT_SYMBOL_GPL(hmm_client_unregister);

/* Whether the mirror that this range was registered with is still there. */
static bool range_alive(struct hmm_client_range *range)
{
	struct space *space;

	if (!range->hmm || READ_ONCE(range->hmm->dead))
		return false;
	space = hmm_space_get(range->mm, range->id);
	if (!space)
		return false;
	hmm_space_put(space);
	return true;
}

/**
 * hmm_client_wait() - hmm_range_wait_until_valid() of Linux 5.2
 * @range: registered
 * @timeout: milliseconds; invalidations end by themselves, so it is not needed
 *
 * Waits until no invalidation is under way.
 *
 * Context: process context, sleeps; not from the sync callback.
 * Return: true the range can be looked at; false it is not registered, or the address space
 * or its last mirror is gone.
 */
bool hmm_client_wait(struct hmm_client_range *range, unsigned long timeout)
{
	if (!range_alive(range))
		return false;
	mmu_interval_read_begin(&hmm_space_of(range->hmm)->notifier);
	range->seq = hmm_space_now(hmm_space_of(range->hmm));
	range->valid = !READ_ONCE(range->hmm->dead);
	return range->valid;
}
EXPORT_SYMBOL_GPL(hmm_client_wait);

/**
 * hmm_client_valid() - hmm_range_valid() of Linux 5.2
 * @range: registered
 *
 * As hmm_vma_range_done(): called under the lock that the driver's sync callback takes.
 *
 * Context: any.
 * Return: whether nothing was invalidated since hmm_range_register(),
 * hmm_range_wait_until_valid(), hmm_range_snapshot() or hmm_range_fault(), whichever was last.
 */
bool hmm_client_valid(struct hmm_client_range *range)
{
	return range->hmm && range->valid &&
	       hmm_space_unchanged(hmm_space_of(range->hmm), range->seq, range->start,
				   range->end);
}
EXPORT_SYMBOL_GPL(hmm_client_valid);

/* Whether huge pages of a hugetlb mapping fit the range's entries. */
static bool fits_entries(const struct hmm_client_range *range, struct vm_area_struct *vma)
{
	if (range->page_shift == PAGE_SHIFT)
		return true;
	return is_vm_hugetlb_page(vma) &&
	       huge_page_shift(hstate_vma(vma)) == range->page_shift;
}

static long range_collect(struct hmm_client_range *range, bool fault)
{
	unsigned long start = range->start, end;
	struct vm_area_struct *vma;
	struct collect c;
	int ret;

	if (!range_alive(range))
		return -EFAULT;
	ret = collect_begin(&c, range, hmm_space_of(range->hmm), fault);
	if (ret)
		return ret;
	for (; start < range->end; start = end) {
		vma = find_vma(range->hmm->mm, start);
		if (!vma || start < vma->vm_start) {
			fill_value(range, start, min(range->end, vma ? vma->vm_start : -1UL),
				   HMM_CLIENT_ERROR);
			ret = -EFAULT;
			break;
		}
		end = min(range->end, vma->vm_end);
		if (vma->vm_flags & (VM_IO | VM_PFNMAP | VM_MIXEDMAP)) {
			fill_value(range, start, end, HMM_CLIENT_SPECIAL);
			ret = -EFAULT;
			break;
		}
		if (!fits_entries(range, vma)) {
			ret = -EINVAL;
			break;
		}
		ret = check_vma(&c, vma, start, end, 0);
		if (!ret)
			ret = collect_span(&c, start, end);
		if (ret)
			break;
	}
	ret = collect_finish(&c, ret);
	return ret ? ret : PHYS_PFN(range->end - range->start);
}

/**
 * hmm_client_snapshot() - hmm_range_snapshot() of Linux 5.2: look, touch nothing
 * @range: registered, with pfns, flags, values and pfn_shift set by the driver
 *
 * Context: process context, mmap lock held for read, and kept; sleeps.
 * Return: the number of pages in the range; -EAGAIN it did not hold still for a second;
 * -EFAULT nothing is mapped (entries: ERROR), or something that is not memory (SPECIAL), or
 * the range is not registered or its mirror gone; -EINVAL a DAX mapping (SPECIAL), or
 * page_shift does not fit; -EPERM it may not be read (NONE); -ENOMEM.
 */
long hmm_client_snapshot(struct hmm_client_range *range)
{
	long ret = range_collect(range, false);

	return ret == -EBUSY ? -EAGAIN : ret;
}
EXPORT_SYMBOL_GPL(hmm_client_snapshot);

/**
 * hmm_client_fault() - hmm_range_fault() of Linux 5.2: make pages present and look
 * @range: as for hmm_range_snapshot(); what an entry asks for is
 *	(entry & pfn_flags_mask) | default_flags, as in hmm_vma_fault()
 * @block: has no effect
 *
 * Context: process context, mmap lock held for read; sleeps. The lock is kept, except with
 * -EAGAIN.
 * Return: the number of pages in the range; -EAGAIN it did not hold still for a second, or
 * a deadly signal, and **the mmap lock is dropped**; -EPERM also where it may not be written;
 * -EFAULT also for a page that cannot be had (its entry: ERROR); others as
 * hmm_range_snapshot(). Never -EBUSY.
 */
long hmm_client_fault(struct hmm_client_range *range, bool block)
{
	long ret = range_collect(range, true);

	if (ret == -EBUSY) {
		mmap_read_unlock(range->hmm->mm);
		ret = -EAGAIN;
	}
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_client_fault);

/* The page of an entry, or NULL. */
static struct page *entry_page(const struct hmm_client_range *range, u64 entry)
{
	if (entry == range->values[HMM_CLIENT_NONE] ||
	    entry == range->values[HMM_CLIENT_ERROR] ||
	    entry == range->values[HMM_CLIENT_SPECIAL] ||
	    !(entry & range->flags[HMM_CLIENT_VALID]))
		return NULL;
	return pfn_to_page(entry >> range->pfn_shift);
}

static enum dma_data_direction entry_direction(const struct hmm_client_range *range, u64 entry)
{
	return entry & range->flags[HMM_CLIENT_WRITE] ? DMA_BIDIRECTIONAL : DMA_TO_DEVICE;
}

/**
 * hmm_client_dma_map() - hmm_range_dma_map() of Linux 5.2: fault, and map for DMA
 * @range: as for hmm_range_fault()
 * @device: whose DMA
 * @daddrs: (out) an address for each entry; 0 for those that are no page or are device
 *	memory, which has no address
 * @block: has no effect
 *
 * Context: as hmm_range_fault().
 * Return: the number of pages mapped; -EFAULT also where the DMA mapping failed, with
 * nothing mapped; -EBUSY the range was invalidated meanwhile, with nothing mapped and the mmap
 * lock kept; others as hmm_range_fault(), -EAGAIN with the mmap lock dropped.
 */
long hmm_client_dma_map(struct hmm_client_range *range, struct device *device,
			dma_addr_t *daddrs, bool block)
{
	unsigned long i, n = (range->end - range->start) >> range->page_shift;
	long ret, mapped = 0;

	ret = hmm_client_fault(range, block);
	if (ret < 0)
		return ret;
	memset(daddrs, 0, n * sizeof(*daddrs));
	for (i = 0; i < n; i++) {
		struct page *page = entry_page(range, range->pfns[i]);

		if (!page || is_device_private_page(page))
			continue;
		if (!hmm_client_valid(range)) {
			ret = -EBUSY;
			goto err_unmap;
		}
		daddrs[i] = dma_map_page(device, page, 0, 1UL << range->page_shift,
					 entry_direction(range, range->pfns[i]));
		if (dma_mapping_error(device, daddrs[i])) {
			daddrs[i] = 0;
			ret = -EFAULT;
			goto err_unmap;
		}
		mapped++;
	}
	return mapped;

err_unmap:
	hmm_client_dma_unmap(range, NULL, device, daddrs, false);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_client_dma_map);

/**
 * hmm_client_dma_unmap() - hmm_range_dma_unmap() of Linux 5.2
 * @range: as it was for hmm_range_dma_map()
 * @vma: not used
 * @device: as for hmm_range_dma_map()
 * @daddrs: from hmm_range_dma_map(); set to 0
 * @dirty: the device has written to what is writable. Only while the pages cannot have gone:
 *	under the driver's lock with a valid range, or from the sync callback.
 *
 * Entries of pages that were unmapped become NONE.
 *
 * Context: process context.
 * Return: the number of pages unmapped; -EINVAL an empty range.
 */
long hmm_client_dma_unmap(struct hmm_client_range *range, struct vm_area_struct *vma,
			  struct device *device, dma_addr_t *daddrs, bool dirty)
{
	unsigned long i, n;
	long unmapped = 0;

	if (range->end <= range->start || !range->pfns || !daddrs)
		return -EINVAL;
	n = (range->end - range->start) >> range->page_shift;
	for (i = 0; i < n; i++) {
		struct page *page = entry_page(range, range->pfns[i]);
		enum dma_data_direction dir;

		if (!page || !daddrs[i])
			continue;
		dir = entry_direction(range, range->pfns[i]);
		dma_unmap_page(device, daddrs[i], 1UL << range->page_shift, dir);
		if (dirty && dir == DMA_BIDIRECTIONAL)
			set_page_dirty(page);
		daddrs[i] = 0;
		range->pfns[i] = range->values[HMM_CLIENT_NONE];
		unmapped++;
	}
	return unmapped;
}
EXPORT_SYMBOL_GPL(hmm_client_dma_unmap);
