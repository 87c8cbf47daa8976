/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of hmm_devmem.ko share. Drivers include hmm_devmem.h.
 */
#ifndef HMM_INTERNAL_H
#define HMM_INTERNAL_H

#include <linux/jump_label.h>
#include <linux/kref.h>
#include <linux/memcontrol.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "hmm_devmem.h"

/* Larger than any device's memory, small enough for sums of it not to overflow. */
#define HMM_MAX_SIZE	(1ULL << 46)

/* Entries handled at once: one page table's worth, and what a 2 MiB folio takes. */
#define HMM_BATCH	HMM_BLOCK_PAGES

/* The arrays of one migration; from a mempool, so that a fault always gets one. */
struct hmm_batch {
	unsigned long src[HMM_BATCH];
	unsigned long dst[HMM_BATCH];
	struct hmm_segment seg[HMM_BATCH];
	dma_addr_t dma[HMM_BATCH];
	struct mm_struct *mm;	/* whose mmap lock the mover holds, NULL: nobody's */
	bool write;		/* for write: whole folios may leave a device; see whole.c */
	struct page *huge;	/* RAM for one of these */
};

/* On whose account pages move. */
enum hmm_cause {
	HMM_CAUSE_REQUEST,	/* a driver asked */
	HMM_CAUSE_FAULT,	/* the CPU touched a page */
	HMM_CAUSE_EVICT,	/* to make room, or everybody was asked home */
	HMM_CAUSE_TEARDOWN,	/* the device goes */
	HMM_CAUSE_PREFETCH,	/* on a guess */
	HMM_CAUSE_NR
};

/* What a tracer wants to know about the move of a batch; see trace.h. */
struct hmm_trace_move {
	u64 begin;		/* ktime, ns; 0: nobody looked when it began */
	enum hmm_direction direction;
	enum hmm_cause cause;
	u32 process;
	unsigned long address;
	unsigned long npages;
	struct hmm_migrate before;
};

/* The counters behind struct hmm_region_stats, one for each of its fields. */
struct hmm_counters {
	atomic64_t of[sizeof(struct hmm_region_stats) / sizeof(u64)];
};

#define HMM_COUNTER(field) (offsetof(struct hmm_region_stats, field) / sizeof(u64))

/* What one process did on one region. Found by mm, alive while a view is attached. */
struct hmm_account {
	struct mm_struct *mm;	/* key only */
	pid_t process;		/* thread group that attached first, for who looks on */
	unsigned int users;	/* under region->accounts' lock */
	struct hmm_counters counters;
	struct mutex hints_lock;
	unsigned long *hints;	/* a map of the core; NULL until there is a hint */
	u32 hint_pages;		/* of memory that it has */
	struct rcu_head rcu;
};

/*
 * The memory is added and removed with the device. The struct itself lives on until
 * the last reference is gone, so that an open file finds a dead region, not a freed
 * one.
 */
struct hmm_region {
	struct hmm_devmem devmem;
	const struct hmm_region_ops *ops;	/* NULL: the driver manages its pages */
	void *driver_data;
	struct device *dma_device;		/* NULL: the driver needs no bus addresses */
	unsigned int fault_window;		/* 0: the module's */
	struct hmm_core *core;			/* frames; managed level only */
	struct list_head list;			/* of managed regions; RCU */
	struct rcu_head rcu;
	struct xarray poisoned;			/* page index -> frame that lost its contents */
	unsigned long *sealed;			/* 2 MiB blocks; NULL: no folio is whole; whole.c */
	struct device host;			/* what all of the above is tied to; never added */
	void *group;				/* of the driver's device: hmm_devmem_remove_action() */
	struct kref kref;
	u32 id;			/* from 1 on, never again */
	struct hmm_counters counters;
	struct xarray accounts;			/* mm -> struct hmm_account */
	atomic_t hinted;			/* of these, those with hints */

	/* Where the driver manages its pages: plain.c */
	unsigned long *taken;			/* pages that own a pagemap reference */

	bool abandoned;				/* the driver is gone, pages are left */
	struct delayed_work reaper;		/* waits for them */
};

static inline struct hmm_region *hmm_region_of_devmem(struct hmm_devmem *devmem)
{
	return container_of(devmem, struct hmm_region, devmem);
}

static inline struct hmm_region *hmm_region_of_pgmap(struct dev_pagemap *pgmap)
{
	return container_of(pgmap, struct hmm_region, devmem.pagemap);
}

static inline bool hmm_region_is_private(const struct hmm_region *region)
{
	return region->devmem.pagemap.type == MEMORY_DEVICE_PRIVATE;
}

static inline enum migrate_vma_direction
hmm_region_select(const struct hmm_region *region)
{
	return hmm_region_is_private(region) ? MIGRATE_VMA_SELECT_DEVICE_PRIVATE :
					       HMM_SELECT_COHERENT;
}

/* Whole 2 MiB folios move where the kernel can and the memory is not CPU-mapped. */
static inline unsigned int hmm_region_select_huge(const struct hmm_region *region,
						  const struct hmm_migrate *m)
{
	return hmm_region_is_private(region) && !(m->flags & HMM_MIGRATE_SMALL) ?
	       HMM_SELECT_COMPOUND : 0;
}

/* Order of what a migrate entry stands for. */
static inline unsigned int hmm_entry_order(unsigned long entry)
{
	return entry & MIGRATE_PFN_COMPOUND ? HPAGE_PMD_ORDER : 0;
}

/*
 * Does this page of device memory, locked and held, belong to a process? One that was refused
 * on its way to the device, or has just left it, is in use for another moment, but charged to
 * nobody. It goes by itself; migrated, it would put a page of RAM on the LRU that no memory
 * cgroup knows, and the kernel would look for the lock of that list for ever.
 */
static inline bool hmm_page_is_owned(struct page *page)
{
	struct folio *folio = page_folio(page);

	return folio_test_anon(folio) && (mem_cgroup_disabled() || folio_memcg(folio));
}

/* main.c */
struct hmm_batch *hmm_batch_get(void);
void hmm_batch_put(struct hmm_batch *batch);

extern struct workqueue_struct *hmm_workqueue;

/* fail.c */
enum hmm_fail {
	HMM_FAIL_FRAME,		/* no device frame for a batch */
	HMM_FAIL_RAM,		/* no RAM for a page, or a run of eight */
	HMM_FAIL_DMA,		/* a segment has no bus address */
	HMM_FAIL_COPY,		/* the driver refuses a batch */
	HMM_FAIL_WAIT,		/* the driver's fence reports an error */
	HMM_FAIL_NOTIFIER,	/* a process cannot be watched */
	HMM_FAIL_HINT,		/* no memory for a hint */
	HMM_FAIL_NR
};

DECLARE_STATIC_KEY_FALSE(hmm_fail_key);
bool hmm_fail_count(enum hmm_fail leg);
void hmm_fail_init(struct dentry *root);

/* Shall this leg fail now, because somebody asked for it? Costs nothing until then. */
static inline bool hmm_should_fail(enum hmm_fail leg)
{
	return static_branch_unlikely(&hmm_fail_key) && hmm_fail_count(leg);
}

/* sleep.c */
int hmm_sleep_enter(void);
void hmm_sleep_leave(int idx);
bool hmm_sleep_is_near(void);
int hmm_sleep_init(void);
void hmm_sleep_exit(void);

/* devmem.c */
int hmm_devmem_enter(void);
void hmm_devmem_leave(int idx);
unsigned long hmm_remove_patience(void);
int hmm_devmem_open(struct hmm_region *region);
int hmm_devmem_map(struct hmm_region *region, struct resource *res,
		   enum memory_type type, void *owner);
struct resource *hmm_devmem_find_hole(struct device *device, u64 size);
int hmm_devmem_check_coherent(const struct resource *res);

/* region.c */
struct hmm_region *hmm_region_alloc(struct device *device);
void hmm_region_count(struct hmm_region *region, struct mm_struct *mm,
		      unsigned int counter, u64 n);
void hmm_region_count_skipped(struct hmm_region *region, enum hmm_direction direction,
			      const struct hmm_migrate *m);
struct hmm_account *hmm_account_get(struct hmm_region *region, struct mm_struct *mm);
struct hmm_account *hmm_account_find(struct hmm_region *region, struct mm_struct *mm);
void hmm_account_put(struct hmm_region *region, struct hmm_account *account);
u32 hmm_account_process(struct hmm_region *region, struct mm_struct *mm);

/* Add to a counter of the region and of the process, if it has a view attached. */
#define hmm_count(region, mm, counter, n) \
	hmm_region_count(region, mm, HMM_COUNTER(counter), n)

struct hmm_region *hmm_region_next(struct hmm_region *region);
int hmm_region_poison(struct hmm_region *region, struct page *page, u64 npages);
bool hmm_page_is_poisoned(struct hmm_region *region, struct page *page);

/* copy.c */
void hmm_drop_frames(struct hmm_region *region, struct hmm_batch *b, unsigned int i,
		     unsigned int n);
void hmm_copy_to_device(struct hmm_region *region, struct hmm_batch *b, unsigned int n,
			const struct hmm_plan *plan);
bool hmm_copy_from_peer(struct hmm_region *region, struct hmm_region *peer,
			struct hmm_batch *b, unsigned int n, const struct hmm_plan *plan);
unsigned int hmm_copy_to_ram(struct hmm_region *region, struct hmm_batch *b,
			     unsigned int nr, unsigned int npages, bool give_up);

/* to_device.c */
typedef void hmm_move_fn(struct hmm_region *region, struct hmm_batch *b,
			 struct vm_area_struct *vma, unsigned long start,
			 unsigned long end, struct hmm_migrate *m);
int hmm_migrate_range(struct hmm_region *region, struct hmm_migrate *m, hmm_move_fn *move,
		      enum hmm_direction direction);
unsigned int hmm_batch_moved(const struct hmm_batch *b, unsigned int n, unsigned long *huge);

/* to_ram.c */
vm_fault_t hmm_to_ram_fault(struct vm_fault *vmf);
void hmm_to_ram_move(struct hmm_region *region, struct hmm_batch *b,
		     struct vm_area_struct *vma, unsigned long start, unsigned long end,
		     struct hmm_migrate *m);
void hmm_leave_poisoned(struct hmm_region *region, struct hmm_batch *b, unsigned int i,
			unsigned int n);

/* What hmm_to_ram_fill() found, in pages. */
struct hmm_fill {
	unsigned int wanted;	/* that are to come home */
	unsigned int missing;	/* of these, no RAM for them */
	unsigned int holes;	/* the kernel offers to fill them, whichever way pages move */
};

struct hmm_fill hmm_to_ram_fill(struct hmm_region *region, struct hmm_batch *b,
				unsigned int n, struct vm_area_struct *vma,
				unsigned long start, long must);

/* evict.c */
bool hmm_make_room(struct hmm_region *region, struct hmm_batch *b, unsigned long npages);
u64 hmm_frames_in_use(struct hmm_region *region);
unsigned long hmm_evict_for_teardown(struct hmm_region *region);

/* show.c */
void hmm_show_init(void);
void hmm_show_exit(void);
int hmm_show_add(struct hmm_region *region);

/* hint.c */
unsigned int hmm_hint_find(struct hmm_account *account, unsigned long addr, unsigned long end,
			   unsigned long *until);
unsigned int hmm_hint_around(struct hmm_region *region, struct mm_struct *mm,
			     unsigned long addr, unsigned long *first, unsigned long *end);
bool hmm_hint_spares(struct hmm_region *region, u64 index);
bool hmm_hint_unmap(struct hmm_region *region, struct hmm_account *account,
		    const struct mmu_notifier_range *range);
void hmm_hint_free(struct hmm_region *region, struct hmm_account *account);

/* view.c */
struct hmm_region *hmm_view_region(const struct hmm_view *view);
struct hmm_account *hmm_view_account(const struct hmm_view *view);
bool hmm_view_range_is_valid(const struct hmm_view *view, unsigned long start,
			     unsigned long end);

/* rmap.c */
struct mm_struct *hmm_rmap_find(struct page *page, unsigned int nth, unsigned long *addr);
typedef void hmm_rmap_fn(struct page *page, struct vm_area_struct *vma, unsigned long addr,
			 bool write, void *arg);
void hmm_rmap_visit(struct page *page, const struct hmm_batch *b, hmm_rmap_fn *visit, void *arg);
void hmm_rmap_kill(struct page *page);

/* whole.c */
bool hmm_whole_is_at(struct hmm_region *region, bool other, struct vm_area_struct *vma,
		     unsigned long addr);
bool hmm_whole_maps(struct vm_area_struct *vma, unsigned long addr, struct folio *folio);
struct folio *hmm_whole_take(struct hmm_region *region, struct vm_area_struct *vma,
			     unsigned long addr);
void hmm_whole_split(struct vm_area_struct *vma, unsigned long addr, struct folio *folio,
		     struct hmm_batch *b);
bool hmm_whole_seal(struct hmm_region *region, u64 first, unsigned int npages);
void hmm_whole_unseal(struct hmm_region *region, u64 first);
void hmm_whole_wait(struct hmm_region *region, u64 first);

/* plain.c */
unsigned long hmm_plain_evict(struct hmm_region *region);
unsigned long hmm_plain_in_use(const struct hmm_region *region);
struct hmm_region *hmm_plain_of_page(const struct page *page);
bool hmm_plain_accept(struct page *page);
void hmm_plain_free(struct hmm_region *region, struct page *page);
vm_fault_t hmm_plain_fault(struct hmm_region *region, struct vm_fault *vmf);

/* migrate_vma.c */

/*
 * What the running task is in the middle of: a CPU fault on @page, or (with @vma) a page that
 * was isolated at removal, to be brought home; or (without @page) a migration in @vma, with a
 * stock of pages for hmm_vma_alloc_locked_page().
 */
#define HMM_STOCK_ORDER	3

struct hmm_note {
	struct hlist_node node;
	struct task_struct *task;
	struct page *page;
	struct vm_area_struct *vma;	/* stands for the page's real one; NULL: a fault */
	unsigned long addr;
	unsigned long src;		/* the isolated page's entry */
	bool isolated;			/* not given back to the kernel yet */
	struct page *stock;		/* the next one */
	unsigned int in_stock;
	unsigned long wanted;		/* pages that may still be asked for */
};

void hmm_note_init(void);
void hmm_note_push(struct hmm_note *note);
void hmm_note_pop(struct hmm_note *note);
void hmm_note_migrate(struct hmm_note *note, unsigned long *dst);
void hmm_note_finish(struct hmm_note *note, unsigned long *dst);

/* mirror.c */
void hmm_mirror_exit(void);

/* hmm_device.c */
int hmm_device_init(void);
void hmm_device_exit(void);

#endif /* HMM_INTERNAL_H */
