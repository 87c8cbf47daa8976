// SPDX-License-Identifier: GPL-2.0
/*
 * A device's view of a process: the driver's page table, kept in step with the CPU's by
 * an interval notifier over the whole address space.
 *
 * The rule that makes it work (Documentation/mm/hmm.rst): read the notifier's sequence,
 * collect the pages, take the view's lock, and enter them only if the sequence did not
 * move; invalidation takes the same lock.
 *
 * Lock order: mmap lock -> view lock. The view lock is also taken from reclaim.
 */
#include <linux/mmap_lock.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "internal.h"
#include "trace.h"

/* Pages per call of hmm_range_fault(): what fits in a page. */
#define VIEW_BATCH	(PAGE_SIZE / sizeof(unsigned long))
/* Give up when the address space does not hold still for so long, or so many times. */
#define VIEW_TIMEOUT	msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT)
#define VIEW_TRIES	1000

struct hmm_view {
	struct mmu_interval_notifier notifier;
	struct mutex lock;		/* the driver's page table */
	const struct hmm_view_ops *ops;
	void *driver_data;
	struct hmm_region *region;	/* may be NULL: no memory of its own */
	struct hmm_account *account;
};

static bool view_invalidate(struct mmu_interval_notifier *notifier,
			    const struct mmu_notifier_range *range, unsigned long seq)
{
	struct hmm_view *view = container_of(notifier, struct hmm_view, notifier);

	/* Our own doing, see hmm_view_exclusive(): what the device has it may keep. */
	if (hmm_is_exclusive_event(range, view))
		return true;
	if (range->event == MMU_NOTIFY_UNMAP && view->region &&
	    !hmm_hint_unmap(view->region, view->account, range))
		return false;
	if (mmu_notifier_range_blockable(range))
		mutex_lock(&view->lock);
	else if (!mutex_trylock(&view->lock))
		return false;
	mmu_interval_set_seq(notifier, seq);
	trace_notifier(view->region, range);
	/* At exit the range is everything, with an end that is not even aligned. */
	view->ops->invalidate(view, range->start, min(range->end, ULONG_MAX & PAGE_MASK));
	mutex_unlock(&view->lock);
	return true;
}

static const struct mmu_interval_notifier_ops view_notifier_ops = {
	.invalidate = view_invalidate,
};

/**
 * hmm_view_attach() - let a device look at the caller's address space
 * @region: the device's memory, whose pages need no move when the device touches them;
 *	NULL if it has none
 * @ops: the driver's page table; both callbacks needed
 * @driver_data: for hmm_view_data()
 *
 * Context: process context of the process in question, mmap lock not held.
 * Return: the view, which keeps the struct of @region and the mm_struct (not the address
 * space) alive, to be given to hmm_view_detach(); or ERR_PTR: -EINVAL no address space or
 * @ops incomplete; -ENOMEM; -EINTR.
 */
struct hmm_view *hmm_view_attach(struct hmm_region *region,
				 const struct hmm_view_ops *ops, void *driver_data)
{
	struct hmm_view *view;
	int ret;

	if (!current->mm || !ops || !ops->map || !ops->invalidate)
		return ERR_PTR(-EINVAL);
	view = kzalloc(sizeof(*view), GFP_KERNEL);
	if (!view)
		return ERR_PTR(-ENOMEM);
	mutex_init(&view->lock);
	view->ops = ops;
	view->driver_data = driver_data;
	view->region = region;

	if (region) {
		view->account = hmm_account_get(region, current->mm);
		if (IS_ERR(view->account)) {
			ret = PTR_ERR(view->account);
			goto err_view;
		}
		hmm_region_get(region);
	}
	ret = hmm_should_fail(HMM_FAIL_NOTIFIER) ? -ENOMEM :
	      mmu_interval_notifier_insert(&view->notifier, current->mm, 0,
					   ULONG_MAX & PAGE_MASK, &view_notifier_ops);
	if (ret)
		goto err_region;
	return view;

err_region:
	if (region) {
		hmm_account_put(region, view->account);
		hmm_region_put(region);
	}
err_view:
	kfree(view);
	return ERR_PTR(ret);
}
EXPORT_SYMBOL_GPL(hmm_view_attach);

/**
 * hmm_view_detach() - end a view
 * @view: from hmm_view_attach(); gone afterwards. No callback runs any more when this
 *	returns; entries left in the driver's page table are the driver's to drop.
 *
 * Context: process context, any process, mmap lock not held; sleeps.
 */
void hmm_view_detach(struct hmm_view *view)
{
	mmu_interval_notifier_remove(&view->notifier);
	if (view->region) {
		hmm_account_put(view->region, view->account);
		hmm_region_put(view->region);
	}
	mutex_destroy(&view->lock);
	kfree(view);
}
EXPORT_SYMBOL_GPL(hmm_view_detach);

/**
 * hmm_view_data() - the driver_data the view was attached with
 * @view: the view
 *
 * Context: any.
 * Return: the driver's pointer.
 */
void *hmm_view_data(const struct hmm_view *view)
{
	return view->driver_data;
}
EXPORT_SYMBOL_GPL(hmm_view_data);

/**
 * hmm_view_mm() - whose address space this is
 * @view: the view
 *
 * Context: any.
 * Return: the mm_struct, alive as long as the view; what it describes may be gone.
 */
struct mm_struct *hmm_view_mm(const struct hmm_view *view)
{
	return view->notifier.mm;
}
EXPORT_SYMBOL_GPL(hmm_view_mm);

struct hmm_region *hmm_view_region(const struct hmm_view *view)
{
	return view->region;
}

/* With a region only. */
struct hmm_account *hmm_view_account(const struct hmm_view *view)
{
	return view->account;
}

/**
 * hmm_view_lock() - keep the driver's page table as it is
 * @view: the view
 *
 * While it is held, what the page table says is true: invalidations wait. Taken inside
 * reclaim: do not allocate, and do not touch user memory, under it.
 *
 * Context: process context.
 */
void hmm_view_lock(struct hmm_view *view)
{
	mutex_lock(&view->lock);
}
EXPORT_SYMBOL_GPL(hmm_view_lock);

/**
 * hmm_view_unlock() - let go of the page table
 * @view: the view
 *
 * Context: process context.
 */
void hmm_view_unlock(struct hmm_view *view)
{
	mutex_unlock(&view->lock);
}
EXPORT_SYMBOL_GPL(hmm_view_unlock);

/*
 * Let the CPU's fault handler make @addr writable, as if the process wrote to it: it breaks
 * sharing, brings a device page home, and ends another device's exclusive access.
 */
static int make_writable(struct mm_struct *mm, unsigned long addr)
{
	struct vm_area_struct *vma;
	bool unlocked = false;
	int ret;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	vma = find_vma(mm, addr);
	if (!vma || addr < vma->vm_start)
		ret = -EFAULT;
	else if (!(vma->vm_flags & VM_WRITE))
		ret = -EPERM;
	else
		ret = fixup_user_fault(mm, addr, FAULT_FLAG_WRITE, &unlocked);
	mmap_read_unlock(mm);
	return ret;
}

/*
 * Straighten what hmm_range_fault() has collected. Returns -EAGAIN if something had to be
 * faulted in, so that it has to be collected again.
 */
static int check_collected(struct hmm_range *range)
{
	bool write = range->default_flags & HMM_PFN_REQ_WRITE;
	unsigned long addr, *pfn = range->hmm_pfns;
	bool again = false;
	int ret;

	for (addr = range->start; addr < range->end; addr += PAGE_SIZE, pfn++) {
		if (!(*pfn & HMM_PFN_VALID))
			continue;
		/*
		 * Where a range begins inside a 2 MiB device folio, kernels up to 7.3 at least
		 * count from the start of the folio. The offset in it is that of the address.
		 */
		if (hmm_pfn_to_map_order(*pfn) == PMD_SHIFT - PAGE_SHIFT)
			*pfn = (*pfn & ~(HMM_BLOCK_PAGES - 1UL)) |
			       (PHYS_PFN(addr) & (HMM_BLOCK_PAGES - 1UL));
		/* A device page is taken as it is, even if it is shared since a fork. */
		if (write && !(*pfn & HMM_PFN_WRITE)) {
			ret = make_writable(range->notifier->mm, addr);
			if (ret)
				return ret;
			again = true;
		}
	}
	return again ? -EAGAIN : 0;
}

/*
 * Collect the pages of @range until they hold still; on success the view lock is held and
 * what was collected stays true until it is let go.
 */
static int collect_locked(struct hmm_view *view, struct hmm_range *range)
{
	unsigned int tries;
	int ret;

	for (tries = 0; tries < VIEW_TRIES; tries++) {
		/* Input and output share the array; nothing of an earlier try may stay. */
		memset(range->hmm_pfns, 0,
		       PHYS_PFN(range->end - range->start) * sizeof(*range->hmm_pfns));
		ret = hmm_range_fault_unlocked_timeout(range, VIEW_TIMEOUT);
		if (!ret)
			ret = check_collected(range);
		if (ret == -EAGAIN)
			continue;
		if (ret)
			return ret;
		mutex_lock(&view->lock);
		if (!mmu_interval_read_retry(range->notifier, range->notifier_seq))
			return 0;
		mutex_unlock(&view->lock);
		if (fatal_signal_pending(current))
			return -EINTR;
	}
	return -EBUSY;
}

bool hmm_view_range_is_valid(const struct hmm_view *view, unsigned long start,
			     unsigned long end)
{
	return PAGE_ALIGNED(start) && PAGE_ALIGNED(end) && start < end &&
	       end <= view->notifier.mm->task_size;
}

/*
 * Collect a range, batch by batch, and show each to @visit while it is true, without the bits in
 * @hide.
 */
static int view_walk(struct hmm_view *view, unsigned long start, unsigned long end,
		     unsigned long default_flags, unsigned long hide,
		     int (*visit)(struct hmm_view *view, unsigned long addr,
				  const unsigned long *pfns, unsigned long npages,
				  void *arg),
		     void *arg)
{
	struct hmm_range range = {
		.notifier = &view->notifier,
		.default_flags = default_flags,
		.dev_private_owner = view->region,
	};
	unsigned long i;
	int ret;

	if (!hmm_view_range_is_valid(view, start, end))
		return -EINVAL;
	if (!mmget_not_zero(view->notifier.mm))
		return -ESRCH;
	range.hmm_pfns = (unsigned long *)__get_free_page(GFP_KERNEL);
	if (!range.hmm_pfns) {
		ret = -ENOMEM;
		goto out_mm;
	}
	for (range.start = start; range.start < end; range.start = range.end) {
		range.end = min(end, range.start + VIEW_BATCH * PAGE_SIZE);
		ret = collect_locked(view, &range);
		if (ret)
			break;
		for (i = 0; hide && i < PHYS_PFN(range.end - range.start); i++)
			range.hmm_pfns[i] &= ~hide;
		ret = visit(view, range.start, range.hmm_pfns,
			    PHYS_PFN(range.end - range.start), arg);
		mutex_unlock(&view->lock);
		if (ret)
			break;
	}
	free_page((unsigned long)range.hmm_pfns);
out_mm:
	mmput(view->notifier.mm);
	return ret;
}

/* The device is about to use pages of its own memory: they are not the next to make room. */
static void touch(struct hmm_region *region, const unsigned long *pfns, unsigned long npages)
{
	const unsigned long first = region->devmem.pfn_first, last = region->devmem.pfn_last;
	unsigned long i, pfn, block, marked = -1UL;

	if (!percpu_ref_tryget_live(&region->devmem.ref))
		return;
	for (i = 0; i < npages; i++) {
		pfn = page_to_pfn(hmm_pfn_to_page(pfns[i]));
		if (pfn < first || pfn >= last)
			continue;
		block = (pfn - first) / HMM_BLOCK_PAGES;
		if (block != marked)
			hmm_core_touch(region->core, pfn - first, 1);
		marked = block;
	}
	percpu_ref_put(&region->devmem.ref);
}

static int view_map(struct hmm_view *view, unsigned long addr, const unsigned long *pfns,
		    unsigned long npages, void *arg)
{
	if (view->region)
		touch(view->region, pfns, npages);
	return view->ops->map(view, addr, pfns, npages);
}

/* The device needs a range about which the process said one thing. */
static int fault_hinted(struct hmm_view *view, unsigned long start, unsigned long end,
			bool write, unsigned int hint)
{
	struct hmm_migrate m = {
		.mm = view->notifier.mm, .start = start, .end = end, .flags = HMM_MIGRATE_HOLES,
	};
	bool read_only = hint & HMM_HINT_READ_MOSTLY && !write;

	/* What does not move is of use where it is. */
	if (hint & HMM_HINT_PREFER_DEVICE && !read_only &&
	    hmm_migrate_to_device(view->region, &m) == -EINTR)
		return -EINTR;
	return view_walk(view, start, end, HMM_PFN_REQ_FAULT | (write ? HMM_PFN_REQ_WRITE : 0),
			 read_only ? HMM_PFN_WRITE : 0, view_map, NULL);
}

/**
 * hmm_view_fault() - the device needs a range: make it present and enter it
 * @view: the view
 * @start: first byte, page aligned
 * @end: one past the last byte, page aligned
 * @flags: HMM_VIEW_WRITE if the device is going to write
 *
 * Faults pages in as the CPU would, brings pages home that are on other devices, and calls
 * the driver's map() for all of them. Nothing moves to the device, unless the process has said
 * so: see HMM_HINT_PREFER_DEVICE. They may be invalidated again before this returns, so
 * a driver looks at its page table under hmm_view_lock() and comes back here if an entry
 * is missing.
 *
 * Context: process context, mmap lock not held; sleeps.
 * Return: 0; -EINVAL unaligned, empty or impossible range, or unknown flags; -EFAULT no
 * mapping; -EPERM the mapping forbids it; -ESRCH the address space is gone; -EBUSY it did
 * not hold still; -EINTR deadly signal; -ENOMEM; other errors of
 * hmm_range_fault(); or what map() returned.
 */
int hmm_view_fault(struct hmm_view *view, unsigned long start, unsigned long end,
		   unsigned int flags)
{
	unsigned long until;
	unsigned int hint;
	int ret;

	if (flags & ~HMM_VIEW_WRITE)
		return -EINVAL;
	trace_device_fault(view->region, hmm_view_mm(view), start, PHYS_PFN(end - start),
			   flags & HMM_VIEW_WRITE);
	if (!hmm_view_range_is_valid(view, start, end))
		return -EINVAL;
	do {
		hint = hmm_hint_get(view, start, end, &until);
		ret = fault_hinted(view, start, until, flags & HMM_VIEW_WRITE, hint);
		start = until;
	} while (!ret && start < end);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_view_fault);

/* Take one page from the CPU and enter it; the mmap lock is held for read. */
static int map_exclusive(struct hmm_view *view, unsigned long addr, unsigned long seq)
{
	struct folio *folio;
	struct page *page;
	int ret;

	page = hmm_make_exclusive(view->notifier.mm, addr, view, &folio);
	if (IS_ERR(page))
		return PTR_ERR(page);
	mutex_lock(&view->lock);
	/* The folio's lock keeps the CPU off the page; other ways to lose it show here. */
	if (mmu_interval_read_retry(&view->notifier, seq))
		ret = -EBUSY;
	else
		ret = view->ops->map_exclusive(view, addr, page);
	mutex_unlock(&view->lock);
	folio_unlock(folio);
	folio_put(folio);
	return ret;
}

/**
 * hmm_view_exclusive() - keep the CPU off a range, for atomic operations of the device
 * @view: the view
 * @start: first byte, page aligned
 * @end: one past the last byte, page aligned
 *
 * Brings the pages into RAM, makes them the process's own, and calls the driver's
 * map_exclusive() for each. The next touch by the CPU ends it, page by page, after an
 * invalidation. On error the pages before the failing one stay exclusive.
 *
 * Context: process context, mmap lock not held; sleeps.
 * Return: 0; -EOPNOTSUPP this kernel, the driver, or a page that is not anonymous cannot;
 * -EINVAL unaligned, empty or impossible range; -EFAULT no mapping, or not writable; -ESRCH
 * the address space is gone; -EBUSY it did not hold still; -EINTR deadly
 * signal; -ENOMEM; or what map_exclusive() returned.
 */
int hmm_view_exclusive(struct hmm_view *view, unsigned long start, unsigned long end)
{
	struct mm_struct *mm = view->notifier.mm;
	unsigned long addr, seq;
	unsigned int tries = 0;
	int ret = 0;

	if (!HMM_KERNEL_EXCLUSIVE || !view->ops->map_exclusive)
		return -EOPNOTSUPP;
	if (!hmm_view_range_is_valid(view, start, end))
		return -EINVAL;
	if (!mmget_not_zero(mm))
		return -ESRCH;
	for (addr = start; addr < end; ) {
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		/*
		 * What is needed before the page can be taken (a fault, the split of a huge
		 * page, the end of an earlier exclusive access) invalidates, too. So when the
		 * sequence has moved, all that is done before it is read again.
		 */
		ret = tries ? make_writable(mm, addr) : 0;
		if (ret)
			break;
		seq = mmu_interval_read_begin(&view->notifier);
		if (mmap_read_lock_killable(mm)) {
			ret = -EINTR;
			break;
		}
		ret = map_exclusive(view, addr, seq);
		mmap_read_unlock(mm);
		if (!ret) {
			addr += PAGE_SIZE;
			tries = 0;
		} else if (ret != -EBUSY || ++tries == VIEW_TRIES) {
			break;
		}
	}
	mmput(mm);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_view_exclusive);

/**
 * hmm_view_snapshot() - where the pages of a range are, without touching them
 * @view: the view
 * @start: first byte, page aligned
 * @end: one past the last byte, page aligned
 * @visit: called with stretches of the range in order, with one HMM_PFN_* entry per page:
 *	not valid means not present, HMM_PFN_ERROR not mapped. What it is shown is true while
 *	it runs: it is called with the view's lock held, like the callbacks in struct
 *	hmm_view_ops. Anything but 0 ends the walk.
 * @arg: passed to @visit
 *
 * Context: process context, mmap lock not held; sleeps.
 * Return: as hmm_view_fault(), or what @visit returned.
 */
int hmm_view_snapshot(struct hmm_view *view, unsigned long start, unsigned long end,
		      int (*visit)(struct hmm_view *view, unsigned long addr,
				   const unsigned long *pfns, unsigned long npages,
				   void *arg),
		      void *arg)
{
	return view_walk(view, start, end, 0, 0, visit, arg);
}
EXPORT_SYMBOL_GPL(hmm_view_snapshot);
