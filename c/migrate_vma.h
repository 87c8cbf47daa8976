/* SPDX-License-Identifier: GPL-2.0 */
/*
 * migrate_vma() of Linux 4.14 to 5.3: one call, two callbacks.
 */
#ifndef HMM_MIGRATE_VMA_H
#define HMM_MIGRATE_VMA_H

#include <linux/bits.h>
#include <linux/types.h>

/*
 * Bits of an entry that today's kernels have given up, or another meaning: a driver that is
 * written against migrate_vma() sees them as they were, the kernel never sees them.
 */
#define HMM_PFN_CLIENT_LOCKED	(1UL << 2)
#define HMM_PFN_CLIENT_DEVICE	(1UL << 4)
#define HMM_PFN_CLIENT_ERROR	(1UL << 5)

struct vm_area_struct;

/**
 * struct migrate_vma_ops - what a driver does in the middle of migrate_vma()
 * @alloc_and_copy: the pages in @src that have MIGRATE are locked and mapped nowhere. For
 *	each that the driver wants to move it stores migrate_pfn(pfn) of a page, locked and
 *	with one reference, both of which belong to migrate_vma() from then on, and copies.
 *	0 leaves the page where it is; so does MIGRATE_PFN_ERROR, by which the driver
 *	remembers that a device page could not be read back. @src is read-only. May sleep.
 * @finalize_and_map: the pages that moved have MIGRATE in @src and a page in @dst; the
 *	kernel has cleared MIGRATE of the others. All are still locked. Both arrays are
 *	read-only. May sleep.
 *
 * Neither is called when there is nothing to move.
 */
struct migrate_vma_ops {
	void (*alloc_and_copy)(struct vm_area_struct *vma, const unsigned long *src,
			       unsigned long *dst, unsigned long start,
			       unsigned long end, void *private);
	void (*finalize_and_map)(struct vm_area_struct *vma, const unsigned long *src,
				 const unsigned long *dst, unsigned long start,
				 unsigned long end, void *private);
};

int migrate_vma(const struct migrate_vma_ops *ops, struct vm_area_struct *vma,
		unsigned long start, unsigned long end, unsigned long *src,
		unsigned long *dst, void *private);

#endif /* HMM_MIGRATE_VMA_H */
