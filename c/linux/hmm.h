/* SPDX-License-Identifier: GPL-2.0 */
/*
 * <linux/hmm.h> for drivers that were written against HMM of Linux 4.14 to 5.2. Found
 * instead of the kernel's, whose guard it has; see PORTING.md for the two lines that a
 * driver's Kbuild needs.
 *
 * HMM_API says which kernel the driver was written for, as 100 * major + minor: 414 to 419,
 * 420, 500, 501 or 502. What depends on it:
 *
 *	414 to 416	hmm_pfn_t, hmm_vma_fault() with seven arguments, no release callback
 *	417 to 501	struct hmm_range with the driver's own encoding
 *	420 and later	struct hmm_update, and a sync callback that can fail
 *	501 and later	fault callbacks return vm_fault_t, before that int
 *	502		hmm_range_register() and its family
 */
#ifndef LINUX_HMM_H
#define LINUX_HMM_H

#ifndef HMM_API
#define HMM_API 419
#endif

#if HMM_API < 414 || (HMM_API > 420 && HMM_API < 500) || HMM_API > 502
#error "HMM_API is the kernel that a driver was written for: 414 to 420, or 500 to 502"
#endif

#include <linux/completion.h>
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/kconfig.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>

/* What drivers asked for before they used any of this. */
#ifndef CONFIG_HMM
#define CONFIG_HMM 1
#endif
#ifndef CONFIG_MIGRATE_VMA_HELPER
#define CONFIG_MIGRATE_VMA_HELPER 1
#endif
#ifndef CONFIG_DEVICE_PUBLIC
#define CONFIG_DEVICE_PUBLIC 1
#endif

#if HMM_API < 501
#define hmm_devmem_fault_t int
#endif
#include "../hmm_plain.h"

/**
 * is_device_public_page() - is this device memory that the CPU addresses
 * @page: any page that cannot go away during the call
 *
 * Context: any.
 * Return: whether it came from hmm_devmem_add_resource().
 */
static inline bool is_device_public_page(const struct page *page)
{
	return is_zone_device_page(page) && !is_device_private_page(page) &&
	       hmm_devmem_of_page(page);
}

/* ------------------------------------------------------------------------
 * Mirrors
 */

#define hmm_client_range hmm_range
#if HMM_API < 417
typedef unsigned long hmm_pfn_t;
#define hmm_client_entry_t hmm_pfn_t
#endif
#include "../hmm_mirror.h"

#if HMM_API < 420

enum hmm_update_type {
	HMM_UPDATE_TYPE_INVALIDATE = HMM_UPDATE_INVALIDATE,
};

/**
 * struct hmm_mirror_ops - callbacks of a mirror, up to 4.19
 * @release: the address space ends; the mirror has been taken off it. May sleep, and wait
 *	for work of the driver's. Optional.
 * @sync_cpu_device_pagetables: on return the device no longer uses what it knew of
 *	[start, end). May sleep; several may run side by side. Must not register, unregister
 *	or migrate.
 */
struct hmm_mirror_ops {
	void (*release)(struct hmm_mirror *mirror);
	void (*sync_cpu_device_pagetables)(struct hmm_mirror *mirror,
					   enum hmm_update_type update_type,
					   unsigned long start, unsigned long end);
};

static inline int hmm_mirror_register(struct hmm_mirror *mirror, struct mm_struct *mm)
{
	return hmm_mirror_register_range(mirror, mm);
}

#else

enum hmm_update_event {
	HMM_UPDATE_EVENT_INVALIDATE = HMM_UPDATE_INVALIDATE,
};

/**
 * struct hmm_update - what happened to the CPU's page table
 * @start: first byte
 * @end: one past the last byte
 * @event: HMM_UPDATE_INVALIDATE
 * @blockable: whether the callback may sleep
 */
struct hmm_update {
	unsigned long start;
	unsigned long end;
	enum hmm_update_event event;
	bool blockable;
};

/**
 * struct hmm_mirror_ops - callbacks of a mirror, from 4.20 on
 * @release: the address space ends; the mirror has been taken off it. May sleep, and wait
 *	for work of the driver's. Optional.
 * @sync_cpu_device_pagetables: on return of 0 the device no longer uses what it knew of the
 *	range. -EAGAIN if that would need sleep and @update says that it may not.
 */
struct hmm_mirror_ops {
	void (*release)(struct hmm_mirror *mirror);
	int (*sync_cpu_device_pagetables)(struct hmm_mirror *mirror,
					  const struct hmm_update *update);
};

static inline int hmm_mirror_register(struct hmm_mirror *mirror, struct mm_struct *mm)
{
	return hmm_mirror_register_update(mirror, mm);
}

#endif

#if HMM_API < 417

/* An entry: bits, and the page frame number. */
#define HMM_PFN_VALID			(1UL << 0)
#define HMM_PFN_READ			(1UL << 1)
#define HMM_PFN_WRITE			(1UL << 2)
#define HMM_PFN_ERROR			(1UL << 3)
#define HMM_PFN_EMPTY			(1UL << 4)
#define HMM_PFN_SPECIAL			(1UL << 5)
#define HMM_PFN_DEVICE_UNADDRESSABLE	(1UL << 6)
#define HMM_PFN_SHIFT			7

static inline struct page *hmm_pfn_t_to_page(hmm_pfn_t pfn)
{
	return pfn & HMM_PFN_VALID ? pfn_to_page(pfn >> HMM_PFN_SHIFT) : NULL;
}

static inline unsigned long hmm_pfn_t_to_pfn(hmm_pfn_t pfn)
{
	return pfn & HMM_PFN_VALID ? pfn >> HMM_PFN_SHIFT : -1UL;
}

static inline hmm_pfn_t hmm_pfn_t_from_page(struct page *page)
{
	return (page_to_pfn(page) << HMM_PFN_SHIFT) | HMM_PFN_VALID;
}

static inline hmm_pfn_t hmm_pfn_t_from_pfn(unsigned long pfn)
{
	return (pfn << HMM_PFN_SHIFT) | HMM_PFN_VALID;
}

/* The fixed encoding of that time is one that a later driver could have chosen. */
static inline void hmm_range_414(struct vm_area_struct *vma, struct hmm_range *range,
				 unsigned long start, unsigned long end,
				 hmm_pfn_t *pfns)
{
	static const u64 flags[] = {
		[HMM_CLIENT_VALID] = HMM_PFN_VALID | HMM_PFN_READ,
		[HMM_CLIENT_WRITE] = HMM_PFN_WRITE,
		[HMM_CLIENT_DEVICE] = HMM_PFN_DEVICE_UNADDRESSABLE,
	};
	static const u64 values[] = {
		[HMM_CLIENT_ERROR] = HMM_PFN_ERROR,
		[HMM_CLIENT_NONE] = HMM_PFN_EMPTY,
		[HMM_CLIENT_SPECIAL] = HMM_PFN_SPECIAL,
	};

	range->vma = vma;
	range->start = start;
	range->end = end;
	range->pfns = pfns;
	range->flags = flags;
	range->values = values;
	range->pfn_shift = HMM_PFN_SHIFT;
}

static inline int hmm_vma_get_pfns(struct vm_area_struct *vma, struct hmm_range *range,
				   unsigned long start, unsigned long end,
				   hmm_pfn_t *pfns)
{
	hmm_range_414(vma, range, start, end, pfns);
	return hmm_vma_get_pfns_range(range);
}

static inline int hmm_vma_fault(struct vm_area_struct *vma, struct hmm_range *range,
				unsigned long start, unsigned long end,
				hmm_pfn_t *pfns, bool write, bool block)
{
	unsigned long i;

	hmm_range_414(vma, range, start, end, pfns);
	for (i = 0; start < end && i < (end - start) >> PAGE_SHIFT; i++)
		pfns[i] = HMM_PFN_VALID | HMM_PFN_READ | (write ? HMM_PFN_WRITE : 0);
	return hmm_vma_fault_range(range, block);
}

static inline bool hmm_vma_range_done(struct vm_area_struct *vma, struct hmm_range *range)
{
	return hmm_vma_done_range(range);
}

#else /* HMM_API >= 417 */

enum hmm_pfn_flag_e {
	HMM_PFN_VALID = HMM_CLIENT_VALID,
	HMM_PFN_WRITE = HMM_CLIENT_WRITE,
	HMM_PFN_DEVICE_PRIVATE = HMM_CLIENT_DEVICE,
	HMM_PFN_FLAG_MAX
};

enum hmm_pfn_value_e {
	HMM_PFN_ERROR = HMM_CLIENT_ERROR,
	HMM_PFN_NONE = HMM_CLIENT_NONE,
	HMM_PFN_SPECIAL = HMM_CLIENT_SPECIAL,
	HMM_PFN_VALUE_MAX
};

/* Whether an entry stands for a page, whatever the driver's encoding is. */
static inline bool hmm_range_entry_is_page(const struct hmm_range *range, u64 entry)
{
	return entry != range->values[HMM_PFN_NONE] &&
	       entry != range->values[HMM_PFN_ERROR] &&
	       entry != range->values[HMM_PFN_SPECIAL] &&
	       (entry & range->flags[HMM_PFN_VALID]);
}

static inline unsigned long hmm_device_entry_to_pfn(const struct hmm_range *range, u64 entry)
{
	return hmm_range_entry_is_page(range, entry) ? entry >> range->pfn_shift : -1UL;
}

static inline struct page *hmm_device_entry_to_page(const struct hmm_range *range, u64 entry)
{
	return hmm_range_entry_is_page(range, entry) ?
	       pfn_to_page(entry >> range->pfn_shift) : NULL;
}

static inline u64 hmm_device_entry_from_pfn(const struct hmm_range *range, unsigned long pfn)
{
	return ((u64)pfn << range->pfn_shift) | range->flags[HMM_PFN_VALID];
}

static inline u64 hmm_device_entry_from_page(const struct hmm_range *range, struct page *page)
{
	return hmm_device_entry_from_pfn(range, page_to_pfn(page));
}

static inline unsigned long hmm_pfn_to_pfn(const struct hmm_range *range, u64 entry)
{
	return hmm_device_entry_to_pfn(range, entry);
}

static inline struct page *hmm_pfn_to_page(const struct hmm_range *range, u64 entry)
{
	return hmm_device_entry_to_page(range, entry);
}

static inline u64 hmm_pfn_from_pfn(const struct hmm_range *range, unsigned long pfn)
{
	return hmm_device_entry_from_pfn(range, pfn);
}

static inline u64 hmm_pfn_from_page(const struct hmm_range *range, struct page *page)
{
	return hmm_device_entry_from_page(range, page);
}

#if HMM_API < 502

static inline int hmm_vma_get_pfns(struct hmm_range *range)
{
	return hmm_vma_get_pfns_range(range);
}

static inline int hmm_vma_fault(struct hmm_range *range, bool block)
{
	return hmm_vma_fault_range(range, block);
}

static inline bool hmm_vma_range_done(struct hmm_range *range)
{
	return hmm_vma_done_range(range);
}

#else

/* Milliseconds; for hmm_range_wait_until_valid(). */
#define HMM_RANGE_DEFAULT_TIMEOUT 1000

static inline unsigned int hmm_range_page_shift(const struct hmm_range *range)
{
	return range->page_shift;
}

static inline unsigned long hmm_range_page_size(const struct hmm_range *range)
{
	return 1UL << range->page_shift;
}

static inline int hmm_range_register(struct hmm_range *range, struct mm_struct *mm,
				     unsigned long start, unsigned long end,
				     unsigned int page_shift)
{
	return hmm_client_register(range, mm, start, end, page_shift);
}

static inline void hmm_range_unregister(struct hmm_range *range)
{
	hmm_client_unregister(range);
}

static inline bool hmm_range_wait_until_valid(struct hmm_range *range, unsigned long timeout)
{
	return hmm_client_wait(range, timeout);
}

static inline bool hmm_range_valid(struct hmm_range *range)
{
	return hmm_client_valid(range);
}

static inline long hmm_range_snapshot(struct hmm_range *range)
{
	return hmm_client_snapshot(range);
}

static inline long hmm_range_fault(struct hmm_range *range, bool block)
{
	return hmm_client_fault(range, block);
}

static inline long hmm_range_dma_map(struct hmm_range *range, struct device *device,
				     dma_addr_t *daddrs, bool block)
{
	return hmm_client_dma_map(range, device, daddrs, block);
}

static inline long hmm_range_dma_unmap(struct hmm_range *range, struct vm_area_struct *vma,
				       struct device *device, dma_addr_t *daddrs,
				       bool dirty)
{
	return hmm_client_dma_unmap(range, vma, device, daddrs, dirty);
}

static inline bool hmm_mirror_mm_is_alive(struct hmm_mirror *mirror)
{
	return mirror && mirror->hmm && mirror->hmm->mm && !READ_ONCE(mirror->hmm->dead);
}

/* The earlier calls, which 5.2 made of the later ones. */
static inline int hmm_vma_fault(struct hmm_range *range, bool block)
{
	long ret;

	range->default_flags = 0;
	range->pfn_flags_mask = -1UL;
	ret = hmm_range_register(range, range->vma->vm_mm, range->start, range->end,
				 PAGE_SHIFT);
	if (ret)
		return ret;
	ret = hmm_range_fault(range, block);
	if (ret > 0)
		return 0;
	hmm_range_unregister(range);
	return ret;
}

static inline bool hmm_vma_range_done(struct hmm_range *range)
{
	bool valid = hmm_range_valid(range);

	hmm_range_unregister(range);
	return valid;
}

#endif /* HMM_API */
#endif /* HMM_API */

/*
 * hmm_devmem_fault_range() was in drafts of HMM only, and some drivers carry a copy of their
 * own under that name; so it is here for those that ask for it.
 */
#ifdef HMM_DRAFT_FAULT_RANGE
/**
 * hmm_devmem_fault_range() - serve a CPU fault with one migrate_vma()
 * @devmem: the memory that the faulting page is in
 * @vma: as for the fault callback
 * @ops: as for migrate_vma()
 * @src: as for migrate_vma()
 * @dst: as for migrate_vma()
 * @start: first byte of what is to come home
 * @addr: the faulting address
 * @end: one past the last byte
 * @private: as for migrate_vma()
 *
 * Context: inside the fault callback.
 * Return: 0, or VM_FAULT_SIGBUS if the driver could not read back the page at @addr.
 */
static inline int hmm_devmem_fault_range(struct hmm_devmem *devmem,
					 struct vm_area_struct *vma,
					 const struct migrate_vma_ops *ops,
					 unsigned long *src, unsigned long *dst,
					 unsigned long start, unsigned long addr,
					 unsigned long end, void *private)
{
	if (migrate_vma(ops, vma, start, end, src, dst, private))
		return VM_FAULT_SIGBUS;
	return dst[(addr - start) >> PAGE_SHIFT] & MIGRATE_PFN_ERROR ? VM_FAULT_SIGBUS : 0;
}
#endif

#endif /* LINUX_HMM_H */
