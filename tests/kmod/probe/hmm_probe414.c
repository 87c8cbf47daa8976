// SPDX-License-Identifier: GPL-2.0
/*
 * A driver for Linux 4.14 to 4.16: hmm_pfn_t, calls with many arguments, no release callback;
 * and hmm_devmem_fault_range(), which was in drafts of it.
 */
#define HMM_API 414
#define HMM_DRAFT_FAULT_RANGE
#define PROBE_NO_RELEASE
#include "probe.c"

static void my_sync(struct hmm_mirror *mirror, enum hmm_update_type update,
		    unsigned long start, unsigned long end)
{
	if (update == HMM_UPDATE_INVALIDATE)
		probe_sync(mirror, start, end, true);
}

static const struct hmm_mirror_ops my_mirror_ops = {
	.sync_cpu_device_pagetables = my_sync,
};

static int probe_look(struct probe_file *f, struct vm_area_struct *vma, unsigned long start,
		      unsigned long end, unsigned int how)
{
	hmm_pfn_t *pfns = (hmm_pfn_t *)f->entries;
	unsigned long i, n = (end - start) >> PAGE_SHIFT;

	f->looked_at = vma;
	/* In this version device memory stays where it is: touch it as the CPU would. */
	for (i = 0; how & LOOK_HOME && i < n; i++)
		fixup_user_fault(vma->vm_mm, start + i * PAGE_SIZE,
				 how & LOOK_WRITE ? FAULT_FLAG_WRITE : 0, NULL);
	if (how & LOOK_FAULT)
		return hmm_vma_fault(vma, &f->range, start, end, pfns, how & LOOK_WRITE, true);
	return hmm_vma_get_pfns(vma, &f->range, start, end, pfns);
}

static bool probe_still_true(struct probe_file *f)
{
	return hmm_vma_range_done(f->looked_at, &f->range);
}

static u8 probe_entry(struct probe_file *f, unsigned long i, struct page **page)
{
	hmm_pfn_t entry = f->range.pfns[i];

	*page = hmm_pfn_t_to_page(entry);
	if (entry & HMM_PFN_ERROR)
		return PROBE_ERROR;
	if (entry & HMM_PFN_SPECIAL)
		return PROBE_SPECIAL;
	if (entry & HMM_PFN_EMPTY || !(entry & HMM_PFN_VALID) || !(entry & HMM_PFN_READ))
		return PROBE_NONE;
	return (entry & HMM_PFN_DEVICE_UNADDRESSABLE || is_device_public_page(*page) ?
		PROBE_DEVICE : PROBE_RAM) | (entry & HMM_PFN_WRITE ? PROBE_WRITABLE : 0);
}

static void probe_selftest_api(struct report *r, struct probe_file *f)
{
	struct page *page = virt_to_page(f);

	check(r, hmm_pfn_t_to_page(hmm_pfn_t_from_page(page)) == page &&
	      hmm_pfn_t_to_pfn(hmm_pfn_t_from_pfn(4711)) == 4711,
	      "a page survives its entry");
	check(r, !hmm_pfn_t_to_page(HMM_PFN_EMPTY) && hmm_pfn_t_to_pfn(HMM_PFN_ERROR) == -1UL,
	      "a value is no page");
	check(r, hmm_pfn_t_from_pfn(1) >> HMM_PFN_SHIFT == 1, "the shift is HMM_PFN_SHIFT");
}

static vm_fault_t_or_int probe_migrate_home(struct hmm_devmem *devmem,
					    struct vm_area_struct *vma, unsigned long start,
					    unsigned long addr, unsigned long end,
					    struct probe_move *move)
{
	return hmm_devmem_fault_range(devmem, vma, &probe_to_ram_ops, move->src, move->dst,
				      start, addr, end, move);
}
