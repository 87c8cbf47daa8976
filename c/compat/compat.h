/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel that the rest of this directory is written for, on every kernel.
 *
 * Forced into every unit. The .c files call what Linux 7.3 offers; where a kernel
 * is older, it is made up for here. conf.h is written by probe.sh, which asks the
 * headers, never the version; the probes and the upstream changes behind them are
 * in probes/.
 */
#ifndef HMM_COMPAT_H
#define HMM_COMPAT_H

#undef pr_fmt
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "conf.h"

#include <linux/device.h>
#include <linux/gfp.h>
#include <linux/hmm.h>
#include <linux/jiffies.h>
#include <linux/memcontrol.h>
#include <linux/memory_hotplug.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>

/*
 * What the kernel offers, as constants: code behind a 0 is compiled and thrown away.
 * Asked of the headers and of Module.symvers before anything is called, because
 * memremap_pages() WARNs when it is asked for what it was built without.
 */
#define HMM_KERNEL_MIGRATE	HMM_HAVE_SYMBOL_MIGRATE_VMA_SETUP
#define HMM_KERNEL_PRIVATE \
	(IS_ENABLED(CONFIG_DEVICE_PRIVATE) && HMM_KERNEL_MIGRATE && \
	 HMM_HAVE_SYMBOL_DEVM_REQUEST_FREE_MEM_REGION)
#define HMM_KERNEL_COHERENT	(HMM_HAVE_DEVICE_COHERENT && HMM_KERNEL_MIGRATE)
/* Pages can be migrated by where they are; before 6.1 only by who maps them. */
#define HMM_KERNEL_BY_PFN	HMM_HAVE_SYMBOL_MIGRATE_DEVICE_RANGE

#if HMM_HAVE_DEVICE_COHERENT
#define HMM_MEMORY_COHERENT	MEMORY_DEVICE_COHERENT
#define HMM_SELECT_COHERENT	MIGRATE_VMA_SELECT_DEVICE_COHERENT
#else
#define HMM_MEMORY_COHERENT	MEMORY_DEVICE_PRIVATE
#define HMM_SELECT_COHERENT	MIGRATE_VMA_SELECT_DEVICE_PRIVATE
#endif

/*
 * Whole 2 MiB folios: a flag of the request and one of the entry, 0 where unknown; and the folio
 * of private memory behind the entry of a page table, if that is what it is. Kernels with
 * PREEMPT_RT know the flags and are built without huge pages.
 */
#if defined(MIGRATE_PFN_COMPOUND) && IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE)
#include <linux/leafops.h>
#define HMM_SELECT_COMPOUND	MIGRATE_VMA_SELECT_COMPOUND
#define hmm_vma_start_write(vma)	vma_start_write(vma)
#define hmm_set_fault_page(args, page)	((void)((args)->fault_page = (page)))

/* What mmap_write_lock() does, without waiting; the kernel itself has no use for it any more. */
static inline bool hmm_mmap_write_trylock(struct mm_struct *mm)
{
	if (!down_write_trylock(&mm->mmap_lock))
		return false;
	mm_lock_seqcount_begin(mm);
	return true;
}

static inline struct folio *hmm_pmd_device_folio(pmd_t pmd)
{
	return pmd_is_device_private_entry(pmd) ? softleaf_to_folio(softleaf_from_pmd(pmd)) :
						  NULL;
}
#else
#define hmm_vma_start_write(vma)	((void)(vma))
#define hmm_set_fault_page(args, page)	((void)(args), (void)(page))
#define hmm_mmap_write_trylock(mm)	((void)(mm), false)
#define hmm_pmd_device_folio(pmd)	((void)(pmd), (struct folio *)NULL)
#define HMM_SELECT_COMPOUND	0
#endif
#ifndef MIGRATE_PFN_COMPOUND
#define MIGRATE_PFN_COMPOUND	0
#endif

/* The free callback: a folio since 7.0, a page before. DEFINE it, then name it. */
#if HMM_HAVE_FOLIO_FREE
#define HMM_DEFINE_FREE_OP(fn) \
	static void fn##_op(struct folio *folio) \
	{ \
		fn(&folio->page, folio_order(folio)); \
	}
#define HMM_FREE_OP(fn)		.folio_free = fn##_op
#else
#define HMM_DEFINE_FREE_OP(fn) \
	static void fn##_op(struct page *page) \
	{ \
		fn(page, 0); \
	}
#define HMM_FREE_OP(fn)		.page_free = fn##_op
#endif

/* Every page has an address on the machines that this is for. */
#if !HMM_HAVE_KMAP_LOCAL
#define kmap_local_page(page)	page_address(page)
#define kunmap_local(addr)	((void)(addr))
#endif

/* An eventfd counted by what it was told, now it counts by one. */
#if HMM_HAVE_EVENTFD_ONE
#define hmm_eventfd_signal(ctx)	eventfd_signal(ctx)
#else
#define hmm_eventfd_signal(ctx)	eventfd_signal(ctx, 1)
#endif

/* Memory that went bad is reported to whoever it belongs to: since 6.0. */
#if HMM_HAVE_MEMORY_FAILURE
#define HMM_FAILURE_OP(fn)	.memory_failure = fn,
#else
#define HMM_FAILURE_OP(fn)
#endif

#if !HMM_HAVE_PAGE_PGMAP
static inline struct dev_pagemap *page_pgmap(const struct page *page)
{
	return page->pgmap;
}
#endif

/*
 * An idle page has no reference, and takes one of the pagemap when it is handed out. Before
 * 5.18 it had one reference for as long as it existed, and the pagemap's all the time.
 */
#if HMM_HAVE_PAGE_INIT
static inline bool hmm_page_is_idle(struct page *page)
{
	return !page_count(page);
}

static inline void hmm_page_use(struct page *page)
{
	set_page_count(page, 1);
}

static inline void hmm_pagemap_get(struct dev_pagemap *pgmap)
{
	percpu_ref_get(&pgmap->ref);
}

#if !HMM_HAVE_PAGE_INIT_ORDER
#define zone_device_page_init(page, pgmap, order) zone_device_page_init(page)
#endif
#else
static inline bool hmm_page_is_idle(struct page *page)
{
	return page_count(page) == 1;
}

static inline void hmm_page_use(struct page *page)
{
	get_page(page);
}

static inline void hmm_pagemap_get(struct dev_pagemap *pgmap)
{
}

static inline void zone_device_page_init(struct page *page, struct dev_pagemap *pgmap,
					 unsigned int order)
{
	get_page(page);
	lock_page(page);
}
#endif

/*
 * migrate_vma_setup() is told which page a CPU fault holds: an initializer of struct
 * migrate_vma. Before 6.1 nobody held it.
 */
#if HMM_HAVE_FAULT_PAGE
#define HMM_FAULT_PAGE(page)	.fault_page = (page)
#else
#define HMM_FAULT_PAGE(page)	.cpages = 0
#endif

/* A folio was a page. */
#if !HMM_HAVE_FOLIO
struct folio {
	union {
		struct page page;
		struct {
			unsigned long flags;
			struct list_head lru;
			struct address_space *mapping;
			pgoff_t index;
		};
	};
};
static_assert(offsetof(struct folio, index) == offsetof(struct page, index));

static inline struct folio *page_folio(struct page *page)
{
	return (struct folio *)compound_head(page);
}

static inline bool folio_test_anon(struct folio *folio)
{
	return PageAnon(&folio->page);
}

static inline bool folio_mapped(struct folio *folio)
{
	return page_mapped(&folio->page);
}

static inline int folio_mapcount(struct folio *folio)
{
	return total_mapcount(&folio->page);
}

static inline void folio_get(struct folio *folio)
{
	get_page(&folio->page);
}

static inline bool folio_trylock(struct folio *folio)
{
	return trylock_page(&folio->page);
}

static inline void folio_lock(struct folio *folio)
{
	lock_page(&folio->page);
}

static inline void folio_unlock(struct folio *folio)
{
	unlock_page(&folio->page);
}

static inline void folio_put(struct folio *folio)
{
	put_page(&folio->page);
}

static inline struct mem_cgroup *folio_memcg(struct folio *folio)
{
#ifdef CONFIG_MEMCG
	return folio->page.mem_cgroup;
#else
	return NULL;
#endif
}
#endif

/*
 * What the image does not export cannot be linked. Nobody gets there: HMM_KERNEL_MIGRATE and
 * the like are asked before.
 */
#if !HMM_HAVE_SYMBOL_MIGRATE_VMA_SETUP
#define migrate_vma_setup(args)				((void)(args), -EOPNOTSUPP)
#define migrate_vma_pages(args)				((void)(args))
#define migrate_vma_finalize(args)			((void)(args))
#endif
#if !HMM_HAVE_SYMBOL_MIGRATE_DEVICE_RANGE
#define migrate_device_range(src, pfn, npages)		do { (void)(src); } while (0)
#define migrate_device_pages(src, dst, npages)		do { (void)(src); (void)(dst); } while (0)
#define migrate_device_finalize(src, dst, npages)	do { (void)(src); (void)(dst); } while (0)
#endif
#if !HMM_HAVE_SYMBOL_REQUEST_FREE_MEM_REGION
#define request_free_mem_region(base, size, name)	((struct resource *)ERR_PTR(-EOPNOTSUPP))
#endif
#if !HMM_HAVE_SYMBOL_DEVM_REQUEST_FREE_MEM_REGION
#define devm_request_free_mem_region(dev, base, size)	((struct resource *)ERR_PTR(-EOPNOTSUPP))
#endif
/* Make user memory writable without writing to it: how many bytes could not be. */
#if !HMM_HAVE_FAULT_IN
static inline size_t fault_in_safe_writeable(const char __user *uaddr, size_t size)
{
	unsigned long end = (unsigned long)uaddr + size;
	unsigned long at = (unsigned long)uaddr;
	struct mm_struct *mm = current->mm;
	int ret = 0;

	if (end < at)
		return size;
	mmap_read_lock(mm);
	for (; at < end; at = PAGE_ALIGN(at + 1)) {
		ret = fixup_user_fault(mm, at, FAULT_FLAG_WRITE, NULL);
		if (ret)
			break;
	}
	mmap_read_unlock(mm);
	return ret ? end - at : 0;
}
#endif

#ifndef PAGE_ALIGN_DOWN	/* 6.3 */
#define PAGE_ALIGN_DOWN(addr)	ALIGN_DOWN(addr, PAGE_SIZE)
#endif

#if !HMM_HAVE_PLUGGABLE_RANGE
static inline struct range mhp_get_pluggable_range(bool need_mapping)
{
	return (struct range){ .start = 0, .end = -1ULL };
}
#endif

/*
 * hmm_range_fault() that takes the mmap lock by itself, and lets go of it while a fault is
 * handled in user space (userfaultfd). Since 7.3; before that faults are only handled with
 * the lock held, so those fail with -EFAULT.
 */
#if !HMM_HAVE_SYMBOL_HMM_RANGE_FAULT_UNLOCKED_TIMEOUT
/*
 * Before 5.19 it fails with -EFAULT at private memory of another device, which it should bring
 * home; no probe can see which kernel does. Who touches the pages brings them home.
 */
static inline int hmm_range_fault_foreign(struct hmm_range *range)
{
	unsigned int write = range->default_flags & HMM_PFN_REQ_WRITE ? FAULT_FLAG_WRITE : 0;
	int ret = hmm_range_fault(range);
	struct vm_area_struct *vma;
	unsigned long addr;

	if (HMM_KERNEL_BY_PFN || ret != -EFAULT || !(range->default_flags & HMM_PFN_REQ_FAULT))
		return ret;
	/* Nothing comes home for a call that must fail all the same. */
	for (addr = range->start; addr < range->end; addr = vma->vm_end) {
		vma = find_vma(range->notifier->mm, addr);
		if (!vma || addr < vma->vm_start ||
		    !(vma->vm_flags & (write ? VM_WRITE : VM_READ)))
			return ret;
	}
	for (addr = range->start; addr < range->end; addr += PAGE_SIZE)
		if (fixup_user_fault(range->notifier->mm, addr, write, NULL))
			return ret;
	return hmm_range_fault(range);
}

static inline int hmm_range_fault_unlocked_timeout(struct hmm_range *range,
						   unsigned long timeout)
{
	struct mm_struct *mm = range->notifier->mm;
	unsigned long deadline = jiffies + timeout;
	int ret;

	do {
		if (fatal_signal_pending(current))
			return -EINTR;
		range->notifier_seq = mmu_interval_read_begin(range->notifier);
		if (mmap_read_lock_killable(mm))
			return -EINTR;
		ret = hmm_range_fault_foreign(range);
		mmap_read_unlock(mm);
	} while (ret == -EBUSY && time_before(jiffies, deadline));
	return ret;
}
#endif

/* One page for the device alone: since 6.14 a call per page, before that not exported. */
#define HMM_KERNEL_EXCLUSIVE	HMM_HAVE_SYMBOL_MAKE_DEVICE_EXCLUSIVE
#if HMM_KERNEL_EXCLUSIVE
#define hmm_make_exclusive	make_device_exclusive
#define hmm_is_exclusive_event(range, by) \
	((range)->event == MMU_NOTIFY_EXCLUSIVE && (range)->owner == (by))
#else
#define hmm_make_exclusive(mm, addr, by, foliop) \
	({ *(foliop) = NULL; (struct page *)ERR_PTR(-EOPNOTSUPP); })
#define hmm_is_exclusive_event(range, by)	false
#endif

/*
 * A 2 MiB folio of RAM for the process that maps it at @addr, or for nobody in
 * particular (@vma NULL); NULL if there is none without much ado.
 */
static inline struct page *hmm_alloc_huge(struct vm_area_struct *vma, unsigned long addr)
{
#if HMM_HAVE_FOLIO_FREE
	gfp_t gfp = GFP_TRANSHUGE_LIGHT | __GFP_DIRECT_RECLAIM | __GFP_NORETRY;
	struct folio *folio;

	folio = vma ? vma_alloc_folio(gfp, HPAGE_PMD_ORDER, vma, addr) :
		      folio_alloc(gfp & ~__GFP_NORETRY, HPAGE_PMD_ORDER);
	return folio ? &folio->page : NULL;
#else
	return NULL;
#endif
}

/* Before 6.3 vm_flags were set without a helper. */
static inline void hmm_vma_flags_init(struct vm_area_struct *vma, unsigned long flags)
{
#if HMM_HAVE_VM_FLAGS_INIT
	vm_flags_init(vma, flags);
#else
	vma->vm_flags = flags;
#endif
}

/* A platform driver's remove callback returned int, always 0. DEFINE it, then name it. */
#if HMM_HAVE_PLATFORM_REMOVE_VOID
#define HMM_DEFINE_REMOVE_OP(fn)
#define HMM_REMOVE_OP(fn)	fn
#else
#define HMM_DEFINE_REMOVE_OP(fn) \
	static int fn##_op(struct platform_device *pdev) \
	{ \
		fn(pdev); \
		return 0; \
	}
#define HMM_REMOVE_OP(fn)	fn##_op
#endif

#endif /* HMM_COMPAT_H */
