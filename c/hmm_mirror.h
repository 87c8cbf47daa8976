/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Mirrors of an address space as Linux 4.14 to 5.2 had them: what the view of a driver
 * (linux/hmm.h) and this module have in common. The name struct hmm_range means something
 * else to today's kernel, so it is given by whoever includes this.
 */
#ifndef HMM_MIRROR_H
#define HMM_MIRROR_H

#include <linux/list.h>
#include <linux/types.h>

struct device;
struct hmm_mirror;
struct hmm_mirror_ops;
struct mm_struct;
struct vm_area_struct;

/* The driver's view defines hmm_client_range as hmm_range, and the type of its entries. */
#ifndef hmm_client_entry_t
#define hmm_client_entry_t u64
#endif

/**
 * struct hmm - an address space that is mirrored
 * @mm: the address space
 * @dead: it has come to its end
 */
struct hmm {
	struct mm_struct *mm;
	bool dead;
};

/**
 * struct hmm_mirror - a device's interest in an address space; part of a driver's struct
 * @hmm: the address space, NULL while not registered
 * @ops: set by the driver before it registers
 * @list: not the driver's
 */
struct hmm_mirror {
	struct hmm *hmm;
	const struct hmm_mirror_ops *ops;
	struct list_head list;
	/* private: */
	bool update;		/* ops are those of 4.20 and later */
};

/* What happened to the CPU's page table: anything. */
#define HMM_UPDATE_INVALIDATE	0

/* Index of range->flags. */
#define HMM_CLIENT_VALID	0
#define HMM_CLIENT_WRITE	1
#define HMM_CLIENT_DEVICE	2

/* Index of range->values. */
#define HMM_CLIENT_ERROR	0
#define HMM_CLIENT_NONE		1
#define HMM_CLIENT_SPECIAL	2

/**
 * struct hmm_range - a range to be looked at, and what was found
 * @hmm: 5.2: set by hmm_range_register()
 * @vma: up to 5.1: the mapping that the range lies in
 * @list: not used any more
 * @start: first byte
 * @end: one past the last byte
 * @pfns: one entry for each page, in the driver's own encoding
 * @flags: that encoding: bits for valid, writable, device memory
 * @values: entries for an error, for nothing there, for a mapping that cannot be mirrored
 * @default_flags: 5.2: added to what every entry asks for
 * @pfn_flags_mask: 5.2: what entries can ask for themselves
 * @page_shift: 5.2: size of what one entry stands for
 * @pfn_shift: where the page frame number is in an entry
 * @valid: what was found last; hmm_vma_range_done() and hmm_range_valid() say whether it is
 *	still true
 */
struct hmm_client_range {
	struct hmm *hmm;
	struct vm_area_struct *vma;
	struct list_head list;
	unsigned long start;
	unsigned long end;
	hmm_client_entry_t *pfns;
	const u64 *flags;
	const u64 *values;
	u64 default_flags;
	u64 pfn_flags_mask;
	u8 page_shift;
	u8 pfn_shift;
	bool valid;
	/* private: */
	struct mm_struct *mm;
	u64 id;
	unsigned long seq;
};

int hmm_mirror_register_range(struct hmm_mirror *mirror, struct mm_struct *mm);
int hmm_mirror_register_update(struct hmm_mirror *mirror, struct mm_struct *mm);
void hmm_mirror_unregister(struct hmm_mirror *mirror);

int hmm_vma_get_pfns_range(struct hmm_client_range *range);
int hmm_vma_fault_range(struct hmm_client_range *range, bool block);
bool hmm_vma_done_range(struct hmm_client_range *range);

int hmm_client_register(struct hmm_client_range *range, struct mm_struct *mm,
			unsigned long start, unsigned long end,
			unsigned int page_shift);
void hmm_client_unregister(struct hmm_client_range *range);
bool hmm_client_wait(struct hmm_client_range *range, unsigned long timeout);
bool hmm_client_valid(struct hmm_client_range *range);
long hmm_client_snapshot(struct hmm_client_range *range);
long hmm_client_fault(struct hmm_client_range *range, bool block);
long hmm_client_dma_map(struct hmm_client_range *range, struct device *device,
			dma_addr_t *daddrs, bool block);
long hmm_client_dma_unmap(struct hmm_client_range *range, struct vm_area_struct *vma,
			  struct device *device, dma_addr_t *daddrs, bool dirty);

#endif /* HMM_MIRROR_H */
