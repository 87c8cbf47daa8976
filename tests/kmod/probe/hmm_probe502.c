// SPDX-License-Identifier: GPL-2.0
/*
 * A driver for Linux 5.2: ranges that are registered, may span mappings, and can be mapped
 * for DMA; memory that goes with its hmm_device.
 */
#define HMM_API 502
#define PROBE_PUT_ONLY
#include "probe.c"

static const u64 my_flags[HMM_PFN_FLAG_MAX] = {
	[HMM_PFN_VALID] = 1 << 0,
	[HMM_PFN_WRITE] = 1 << 1,
	[HMM_PFN_DEVICE_PRIVATE] = 1 << 3,
};

static const u64 my_values[HMM_PFN_VALUE_MAX] = {
	[HMM_PFN_ERROR] = 0xfffffffffffffffeULL,
	[HMM_PFN_NONE] = 0,
	[HMM_PFN_SPECIAL] = 0xfffffffffffffffcULL,
};

static int my_sync(struct hmm_mirror *mirror, const struct hmm_update *update)
{
	if (update->event != HMM_UPDATE_INVALIDATE)
		return -EINVAL;
	return probe_sync(mirror, update->start, update->end, update->blockable);
}

static const struct hmm_mirror_ops my_mirror_ops = {
	.release = probe_release,
	.sync_cpu_device_pagetables = my_sync,
};

static void my_range(struct probe_file *f, struct hmm_range *range)
{
	memset(range, 0, sizeof(*range));
	range->pfns = f->entries;
	range->flags = my_flags;
	range->values = my_values;
	range->pfn_shift = PAGE_SHIFT;
	range->pfn_flags_mask = 0;
}

static int probe_look(struct probe_file *f, struct vm_area_struct *vma, unsigned long start,
		      unsigned long end, unsigned int how)
{
	struct hmm_range *range = &f->range;
	long ret;

	if (!hmm_mirror_mm_is_alive(&f->mirror))
		return -ESRCH;
	hmm_range_unregister(range);
	my_range(f, range);
	range->default_flags = (how & LOOK_FAULT ? my_flags[HMM_PFN_VALID] : 0) |
			       (how & LOOK_WRITE ? my_flags[HMM_PFN_WRITE] : 0) |
			       (how & LOOK_HOME ? my_flags[HMM_PFN_DEVICE_PRIVATE] : 0);
	ret = hmm_range_register(range, vma->vm_mm, start, end, PAGE_SHIFT);
	if (ret)
		return ret;
	ret = how & LOOK_FAULT ? hmm_range_fault(range, true) : hmm_range_snapshot(range);
	return ret > 0 ? 0 : ret;
}

static bool probe_still_true(struct probe_file *f)
{
	return hmm_range_valid(&f->range);
}

static u8 probe_entry(struct probe_file *f, unsigned long i, struct page **page)
{
	u64 entry = f->range.pfns[i];

	*page = hmm_device_entry_to_page(&f->range, entry);
	if (entry == my_values[HMM_PFN_ERROR])
		return PROBE_ERROR;
	if (entry == my_values[HMM_PFN_SPECIAL])
		return PROBE_SPECIAL;
	if (!*page)
		return PROBE_NONE;
	return (entry & my_flags[HMM_PFN_DEVICE_PRIVATE] || is_device_public_page(*page) ?
		PROBE_DEVICE : PROBE_RAM) |
	       (entry & my_flags[HMM_PFN_WRITE] ? PROBE_WRITABLE : 0);
}

/* The rest of the family, on the page of user memory that the test program lends. */
static void probe_selftest_api(struct report *r, struct probe_file *f)
{
	struct page *page = virt_to_page(f);
	struct hmm_range range;
	struct vm_area_struct *vma;
	unsigned long addr = r->user;
	dma_addr_t daddrs[4];
	long ret;

	my_range(f, &range);
	check(r, hmm_device_entry_to_page(&range, hmm_device_entry_from_page(&range, page)) == page &&
	      hmm_device_entry_to_pfn(&range, hmm_device_entry_from_pfn(&range, 4711)) == 4711,
	      "a page survives its entry");
	check(r, hmm_pfn_to_page(&range, hmm_pfn_from_page(&range, page)) == page &&
	      hmm_pfn_to_pfn(&range, hmm_pfn_from_pfn(&range, 4711)) == 4711,
	      "and under the earlier names");
	check(r, hmm_range_register(&range, current->mm, addr + 1, addr + PAGE_SIZE,
				    PAGE_SHIFT) == -EINVAL &&
	      hmm_range_register(&range, current->mm, addr, addr, PAGE_SHIFT) == -EINVAL,
	      "an unaligned or empty range is -EINVAL");
	check(r, hmm_range_register(&range, NULL, addr, addr + PAGE_SIZE, PAGE_SHIFT) == -EFAULT,
	      "a range of nobody is -EFAULT");
	hmm_range_unregister(&range);

	ret = hmm_range_register(&range, current->mm, addr, addr + 4 * PAGE_SIZE, PAGE_SHIFT);
	check(r, !ret && range.hmm && hmm_range_page_shift(&range) == PAGE_SHIFT &&
	      hmm_range_page_size(&range) == PAGE_SIZE, "a range is registered");
	if (ret)
		return;
	check(r, hmm_range_wait_until_valid(&range, HMM_RANGE_DEFAULT_TIMEOUT) &&
	      hmm_range_valid(&range), "and valid");

	range.default_flags = my_flags[HMM_PFN_VALID] | my_flags[HMM_PFN_WRITE] |
			      my_flags[HMM_PFN_DEVICE_PRIVATE];
	mmap_read_lock(current->mm);
	ret = hmm_range_dma_map(&range, r->dma, daddrs, true);
	if (ret == -EBUSY)
		ret = hmm_range_dma_map(&range, r->dma, daddrs, true);
	if (ret != -EAGAIN)
		mmap_read_unlock(current->mm);
	check(r, ret == 4 && daddrs[0] && daddrs[3], "four pages are mapped for DMA: %ld", ret);
	if (ret == 4) {
		ret = hmm_range_dma_unmap(&range, NULL, r->dma, daddrs, true);
		check(r, ret == 4 && !daddrs[0], "and unmapped: %ld", ret);
	}

	/* Every page for itself. */
	range.default_flags = 0;
	range.pfn_flags_mask = -1ULL;
	memset(f->entries, 0, 4 * sizeof(*f->entries));
	f->entries[1] = my_flags[HMM_PFN_VALID];
	mmap_read_lock(current->mm);
	ret = hmm_range_fault(&range, true);
	if (ret != -EAGAIN)
		mmap_read_unlock(current->mm);
	check(r, ret == 4 && hmm_device_entry_to_page(&range, f->entries[1]),
	      "an entry asks for itself: %ld", ret);
	hmm_range_unregister(&range);
	check(r, !range.hmm && !hmm_range_valid(&range) &&
	      !hmm_range_wait_until_valid(&range, 1), "a range that is gone is not valid");

	/* The earlier calls on top of it. */
	mmap_read_lock(current->mm);
	vma = find_vma(current->mm, addr);
	my_range(f, &range);
	range.vma = vma;
	range.start = addr;
	range.end = addr + PAGE_SIZE;
	f->entries[0] = my_flags[HMM_PFN_VALID];
	ret = hmm_vma_fault(&range, true);
	check(r, !ret && hmm_vma_range_done(&range) && !range.hmm,
	      "the calls of 4.19 work as well: %ld", ret);
	if (ret != -EAGAIN)
		mmap_read_unlock(current->mm);
}
