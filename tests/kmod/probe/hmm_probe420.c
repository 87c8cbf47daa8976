// SPDX-License-Identifier: GPL-2.0
/*
 * A driver for Linux 4.20 to 5.1: as for 4.19, with a sync callback that may refuse to sleep,
 * and a fault callback that returns vm_fault_t. Its memory belongs to a platform device and
 * goes when that is unbound.
 */
#define HMM_API 501
#define PROBE_NAME "hmm_probe420"
#define PROBE_ON_BUS
#include "probe.c"

static const u64 my_flags[HMM_PFN_FLAG_MAX] = {
	[HMM_PFN_VALID] = 1ULL << 63,
	[HMM_PFN_WRITE] = 1ULL << 62,
	[HMM_PFN_DEVICE_PRIVATE] = 1ULL << 61,
};

static const u64 my_values[HMM_PFN_VALUE_MAX] = {
	[HMM_PFN_ERROR] = 1,
	[HMM_PFN_NONE] = 2,
	[HMM_PFN_SPECIAL] = 3,
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

static int probe_look(struct probe_file *f, struct vm_area_struct *vma, unsigned long start,
		      unsigned long end, unsigned int how)
{
	struct hmm_range *range = &f->range;
	unsigned long i, n = (end - start) >> PAGE_SHIFT;

	memset(range, 0, sizeof(*range));
	range->vma = vma;
	range->start = start;
	range->end = end;
	range->pfns = f->entries;
	range->flags = my_flags;
	range->values = my_values;
	for (i = 0; i < n; i++)
		range->pfns[i] = (how & LOOK_FAULT ? my_flags[HMM_PFN_VALID] : 0) |
				 (how & LOOK_WRITE ? my_flags[HMM_PFN_WRITE] : 0) |
				 (how & LOOK_HOME ? my_flags[HMM_PFN_DEVICE_PRIVATE] : 0);
	return how & LOOK_FAULT ? hmm_vma_fault(range, false) : hmm_vma_get_pfns(range);
}

static bool probe_still_true(struct probe_file *f)
{
	return hmm_vma_range_done(&f->range);
}

/* The frame number starts at bit 0, so the flags are in the way of the helpers. */
static u8 probe_entry(struct probe_file *f, unsigned long i, struct page **page)
{
	u64 entry = f->range.pfns[i], flags = entry & (7ULL << 61);

	*page = NULL;
	if (entry == my_values[HMM_PFN_ERROR])
		return PROBE_ERROR;
	if (entry == my_values[HMM_PFN_SPECIAL])
		return PROBE_SPECIAL;
	if (!(entry & my_flags[HMM_PFN_VALID]))
		return PROBE_NONE;
	*page = pfn_to_page(entry & ~flags);
	return (entry & my_flags[HMM_PFN_DEVICE_PRIVATE] || is_device_public_page(*page) ?
		PROBE_DEVICE : PROBE_RAM) |
	       (entry & my_flags[HMM_PFN_WRITE] ? PROBE_WRITABLE : 0);
}

static void probe_selftest_api(struct report *r, struct probe_file *f)
{
	struct page *page = virt_to_page(f);
	struct hmm_range range = {
		.flags = (const u64[]){ 1, 2, 4 },
		.values = (const u64[]){ 8, 0, 16 },
		.pfn_shift = 5,
	};

	check(r, hmm_pfn_to_page(&range, hmm_pfn_from_page(&range, page)) == page &&
	      hmm_pfn_to_pfn(&range, hmm_pfn_from_pfn(&range, 4711)) == 4711,
	      "a page survives its entry");
}
