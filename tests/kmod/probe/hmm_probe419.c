// SPDX-License-Identifier: GPL-2.0
/*
 * A driver for Linux 4.17 to 4.19: entries in its own encoding, a sync callback that is told
 * a range, memory removed with hmm_devmem_remove(). It has two ranges of memory, and two mirrors
 * of each process that uses it.
 */
#define HMM_API 419
#define PROBE_REGIONS 2
#include "probe.c"

static const u64 my_flags[HMM_PFN_FLAG_MAX] = {
	[HMM_PFN_VALID] = 1 << 2,
	[HMM_PFN_WRITE] = 1 << 5,
	[HMM_PFN_DEVICE_PRIVATE] = 1 << 9,
};

static const u64 my_values[HMM_PFN_VALUE_MAX] = {
	[HMM_PFN_ERROR] = 0x100000001ULL << 31,
	[HMM_PFN_NONE] = 0,
	[HMM_PFN_SPECIAL] = 1 << 7,
};

static void my_sync(struct hmm_mirror *mirror, enum hmm_update_type update,
		    unsigned long start, unsigned long end)
{
	if (update == HMM_UPDATE_INVALIDATE)
		probe_sync(mirror, start, end, true);
}

static void my_release(struct hmm_mirror *mirror)
{
	probe_release(mirror);
}

static const struct hmm_mirror_ops my_mirror_ops = {
	.release = my_release,
	.sync_cpu_device_pagetables = my_sync,
};

static void second_sync(struct hmm_mirror *mirror, enum hmm_update_type update,
			unsigned long start, unsigned long end)
{
	struct probe_file *f = container_of(mirror, struct probe_file, second);

	mutex_lock(&f->lock);
	f->second_syncs++;
	mutex_unlock(&f->lock);
}

static const struct hmm_mirror_ops * const second_mirror_ops = &(const struct hmm_mirror_ops) {
	.sync_cpu_device_pagetables = second_sync,
};

static int probe_look(struct probe_file *f, struct vm_area_struct *vma, unsigned long start,
		      unsigned long end, unsigned int how)
{
	struct hmm_range *range = &f->range;
	unsigned long i, n = (end - start) >> PAGE_SHIFT;

	range->vma = vma;
	range->start = start;
	range->end = end;
	range->pfns = f->entries;
	range->flags = my_flags;
	range->values = my_values;
	range->pfn_shift = 12;
	for (i = 0; i < n; i++)
		range->pfns[i] = (how & LOOK_FAULT ? range->flags[HMM_PFN_VALID] : 0) |
				 (how & LOOK_WRITE ? range->flags[HMM_PFN_WRITE] : 0) |
				 (how & LOOK_HOME ? range->flags[HMM_PFN_DEVICE_PRIVATE] : 0);
	return how & LOOK_FAULT ? hmm_vma_fault(range, true) : hmm_vma_get_pfns(range);
}

static bool probe_still_true(struct probe_file *f)
{
	return hmm_vma_range_done(&f->range);
}

static u8 probe_entry(struct probe_file *f, unsigned long i, struct page **page)
{
	u64 entry = f->range.pfns[i];

	*page = hmm_pfn_to_page(&f->range, entry);
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

static void probe_selftest_api(struct report *r, struct probe_file *f)
{
	struct page *page = virt_to_page(f);
	struct hmm_range range = {
		.flags = my_flags,
		.values = my_values,
		.pfn_shift = 12,
	};

	check(r, hmm_pfn_to_page(&range, hmm_pfn_from_page(&range, page)) == page,
	      "a page survives its entry");
	check(r, hmm_pfn_to_pfn(&range, hmm_pfn_from_pfn(&range, 4711)) == 4711,
	      "a frame number survives its entry");
	check(r, !hmm_pfn_to_page(&range, my_values[HMM_PFN_ERROR]) &&
	      !hmm_pfn_to_page(&range, my_values[HMM_PFN_NONE]) &&
	      !hmm_pfn_to_page(&range, my_values[HMM_PFN_SPECIAL]) &&
	      hmm_pfn_to_pfn(&range, my_values[HMM_PFN_NONE]) == -1UL,
	      "a value is no page");
}
