// SPDX-License-Identifier: GPL-2.0
/*
 * Device memory whose driver manages the pages by itself, as all drivers did in Linux 4.14
 * to 5.2. What the kernel has changed since is made up for here and in migrate_vma.c:
 *
 * An idle page has no reference now (one on 5.10), and a page in use owns one of the pagemap,
 * given back by the kernel when the page is freed. Drivers still call get_page() on an idle page. The
 * header sends that to hmm_devmem_page_take(). Whoever found another way to make a
 * reference is caught twice: by migrate_vma() when the page is handed to it, and when the
 * page is freed. region->taken says of every page whether it owns its reference.
 *
 * Removal brings home what is in use: see plain_remove().
 */
#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/mmap_lock.h>
#include <linux/mmzone.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "internal.h"

/*
 * All of these devmems share an owner: their drivers expect migration to collect the pages
 * of any of them, as it did. Managed regions are their own owners.
 */
static char hmm_plain_owner;

/* The plain region that @page is part of, or NULL. */
struct hmm_region *hmm_plain_of_page(const struct page *page)
{
	struct dev_pagemap *pgmap;

	if (!is_zone_device_page(page))
		return NULL;
	pgmap = page_pgmap(page);
	return pgmap->owner == &hmm_plain_owner ? hmm_region_of_pgmap(pgmap) : NULL;
}

static unsigned long plain_index(const struct hmm_region *region, const struct page *page)
{
	return page_to_pfn(page) - region->devmem.pfn_first;
}

/**
 * hmm_devmem_of_page() - whose page is this
 * @page: any page that cannot go away during the call
 *
 * Drivers used to compare page->pgmap->data with their devmem.
 *
 * Context: any.
 * Return: the devmem of hmm_devmem_add() or hmm_devmem_add_resource() that @page is part
 * of, or NULL.
 */
struct hmm_devmem *hmm_devmem_of_page(const struct page *page)
{
	struct hmm_region *region = hmm_plain_of_page(page);

	return region ? &region->devmem : NULL;
}
EXPORT_SYMBOL_GPL(hmm_devmem_of_page);

/**
 * hmm_devmem_pgmap_owner() - what a driver puts in migrate_vma.pgmap_owner
 * @devmem: the devmem, or NULL
 *
 * Context: any.
 * Return: the owner shared by all devmems, also right for hmm_range.dev_private_owner.
 */
void *hmm_devmem_pgmap_owner(const struct hmm_devmem *devmem)
{
	return &hmm_plain_owner;
}
EXPORT_SYMBOL_GPL(hmm_devmem_pgmap_owner);

/*
 * Make sure that a page in use owns a reference of the pagemap, however it got into use.
 * The driver alone hands out a page, so nobody else does this to it at the same time.
 */
static void plain_own(struct hmm_region *region, struct page *page)
{
	if (!test_and_set_bit(plain_index(region, page), region->taken))
		hmm_pagemap_get(&region->devmem.pagemap);
}

/**
 * hmm_devmem_page_take() - what get_page() does to an idle page
 * @page: any page
 *
 * Drivers call get_page(), which comes here.
 *
 * Context: any; the driver makes sure that nobody else hands out the same page.
 * Return: true @page was an idle page of a devmem and has one reference now; false it is
 * something else and was not touched.
 */
bool hmm_devmem_page_take(struct page *page)
{
	struct hmm_region *region = hmm_plain_of_page(page);

	if (!region || !hmm_page_is_idle(page))
		return false;
	plain_own(region, page);
	hmm_page_use(page);
	return true;
}
EXPORT_SYMBOL_GPL(hmm_devmem_page_take);

/**
 * hmm_devmem_page_get() - turn an idle page into one in use
 * @devmem: from hmm_devmem_add() or hmm_devmem_add_resource()
 * @pfn: an idle page of it, chosen by the driver
 *
 * The same as get_page() and lock_page(). The driver stores migrate_pfn(pfn) in its array of
 * destinations, or gives the page back with unlock_page() and put_page(), which ends in its
 * free callback.
 *
 * Context: process context; the driver makes sure that nobody else hands out the same page.
 * Return: the page, locked, with one reference, both of which pass to the caller.
 */
struct page *hmm_devmem_page_get(struct hmm_devmem *devmem, unsigned long pfn)
{
	struct page *page = pfn_to_page(pfn);

	WARN_ON_ONCE(!hmm_devmem_page_take(page));
	lock_page(page);
	return page;
}
EXPORT_SYMBOL_GPL(hmm_devmem_page_get);

/*
 * A driver hands over @page as the destination of a migration; the caller is inside
 * hmm_devmem_enter(). Makes up for what the driver may have left out. False: the page's
 * memory is being removed, nothing may move there any more.
 */
bool hmm_plain_accept(struct page *page)
{
	struct hmm_region *region = hmm_plain_of_page(page);

	if (!region)
		return true;
	plain_own(region, page);
	if (hmm_page_is_idle(page))
		hmm_page_use(page);
	/* The driver's link of idle pages; in use the word is the kernel's. */
	set_page_private(page, 0);
	return !percpu_ref_is_dying(&region->devmem.ref);
}

/**
 * hmm_plain_free() - the last reference to a page is gone
 * @region: its region
 * @page: the page, which has no reference
 *
 * The kernel gives back a reference of the pagemap when this returns, so there has to be one.
 *
 * Context: any.
 */
void hmm_plain_free(struct hmm_region *region, struct page *page)
{
	if (!test_and_clear_bit(plain_index(region, page), region->taken))
		hmm_pagemap_get(&region->devmem.pagemap);
	rcu_read_lock();
	if (!READ_ONCE(region->abandoned))
		region->devmem.ops->free(&region->devmem, page);
	rcu_read_unlock();
}

/* ------------------------------------------------------------------------
 * CPU faults
 */

/* A fault that moved nothing is repeated by the CPU, but not for ever. */
#define STUCK_SECONDS	5
#define STUCK_TIMES	200
#define STUCK_SLOTS	64

static DEFINE_SPINLOCK(stuck_lock);
static struct {
	struct page *page;
	unsigned long since;
	unsigned long last;
	unsigned int times;
} stuck[STUCK_SLOTS];

/*
 * The driver's callback said that all is well, and yet @page is still mapped. Now and then
 * that happens: somebody else held the page for a moment. A small lossy table tells the
 * rest apart: two pages in one slot forget each other, which gives both more time.
 */
static vm_fault_t plain_not_moved(struct hmm_region *region, struct page *page)
{
	unsigned int slot = page_to_pfn(page) % STUCK_SLOTS, times;
	bool late;

	spin_lock(&stuck_lock);
	if (stuck[slot].page != page || time_after(jiffies, stuck[slot].last + HZ)) {
		stuck[slot].page = page;
		stuck[slot].since = jiffies;
		stuck[slot].times = 0;
	}
	stuck[slot].last = jiffies;
	times = ++stuck[slot].times;
	late = times > STUCK_TIMES &&
	       time_after(jiffies, stuck[slot].since + STUCK_SECONDS * HZ);
	if (late)
		stuck[slot].page = NULL;
	spin_unlock(&stuck_lock);

	if (late) {
		dev_warn_ratelimited(region->devmem.device,
				     "the driver does not bring home a page that the CPU needs\n");
		return VM_FAULT_SIGBUS;
	}
	if (times > 10)
		schedule_timeout_killable(1);
	return 0;
}

static void plain_moved(struct page *page)
{
	unsigned int slot = page_to_pfn(page) % STUCK_SLOTS;

	if (likely(READ_ONCE(stuck[slot].page) != page))
		return;
	spin_lock(&stuck_lock);
	if (stuck[slot].page == page)
		stuck[slot].page = NULL;
	spin_unlock(&stuck_lock);
}

/**
 * hmm_plain_fault() - the CPU touched private memory of a driver that manages its pages
 * @region: the region
 * @vmf: the fault; vmf->page is held
 *
 * Context: inside hmm_devmem_enter().
 * Return: what the driver says; VM_FAULT_SIGBUS it does not move it.
 */
vm_fault_t hmm_plain_fault(struct hmm_region *region, struct vm_fault *vmf)
{
	struct hmm_devmem *devmem = &region->devmem;
	struct hmm_note note = { .page = vmf->page };
	vm_fault_t ret;

	hmm_note_push(&note);
	ret = devmem->ops->fault(devmem, vmf->vma, vmf->address, vmf->page, vmf->flags,
				 vmf->pmd);
	hmm_note_pop(&note);
	if (!(ret & VM_FAULT_ERROR)) {
		if (folio_mapped(page_folio(vmf->page)))
			ret |= plain_not_moved(region, vmf->page);
		else
			plain_moved(vmf->page);
	}
	return ret;
}

/* ------------------------------------------------------------------------
 * Removal
 */

/*
 * Stands for the address space of a page that is brought home without one. A driver may
 * look at it, lock it, and look it up among its own; it has no pages.
 */
struct plain_nobody {
	struct vm_area_struct vma;
	struct mm_struct mm;
};

/* Have the driver bring home one private page, isolated, by its fault callback. */
static void plain_evict_private(struct hmm_region *region, struct plain_nobody *nobody,
				struct hmm_note *note)
{
	struct hmm_devmem *devmem = &region->devmem;
	pmd_t pmd = {};

	/* As long as nobody moved the mapping, this is the address it was made for. */
	note->addr = page_folio(note->page)->index << PAGE_SHIFT;
	if (note->addr >= TASK_SIZE_MAX)
		note->addr = 0;
	nobody->vma.vm_start = note->addr;
	nobody->vma.vm_end = note->addr + PAGE_SIZE;
	note->vma = &nobody->vma;

	mmap_read_lock(&nobody->mm);
	hmm_note_push(note);
	devmem->ops->fault(devmem, &nobody->vma, note->addr, note->page, 0, &pmd);
	hmm_note_pop(note);
	mmap_read_unlock(&nobody->mm);
}

/* The CPU can do it itself. */
static void plain_evict_coherent(struct hmm_note *note)
{
	struct page *page = alloc_page(GFP_HIGHUSER_MOVABLE | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	unsigned long dst = 0;

	if (page) {
		lock_page(page);
		copy_highpage(page, note->page);
		dst = migrate_pfn(page_to_pfn(page));
	}
	hmm_note_migrate(note, &dst);
	hmm_note_finish(note, &dst);
}

/* Where the kernel moves only what somebody maps, the driver is told who does. */
static void plain_evict_mapped(struct page *page, struct vm_area_struct *vma,
			       unsigned long addr, bool write, void *arg)
{
	struct hmm_devmem *devmem = arg;
	pmd_t pmd = {};

	devmem->ops->fault(devmem, vma, addr, page, 0, &pmd);
}

static bool plain_evict_page(struct hmm_region *region, struct plain_nobody *nobody,
			     unsigned long pfn)
{
	struct hmm_note note = { .page = pfn_to_page(pfn), .isolated = true };
	unsigned long none = 0;

	if (!HMM_KERNEL_BY_PFN) {
		hmm_rmap_visit(note.page, NULL, plain_evict_mapped, &region->devmem);
		return hmm_page_is_idle(note.page);
	}
	migrate_device_range(&note.src, pfn, 1);
	if (!(note.src & MIGRATE_PFN_MIGRATE))
		return false;
	if (hmm_page_is_owned(note.page)) {
		if (hmm_region_is_private(region))
			plain_evict_private(region, nobody, &note);
		else
			plain_evict_coherent(&note);
	}
	/* The driver did not take it: back to where it was. */
	if (note.isolated) {
		hmm_note_migrate(&note, &none);
		hmm_note_finish(&note, &none);
	}
	return note.src & MIGRATE_PFN_MIGRATE;
}

/* One walk over all pages. Returns those still in use; adds to @moved. */
static unsigned long plain_evict_pass(struct hmm_region *region, struct plain_nobody *nobody,
				      unsigned long *moved)
{
	unsigned long pfn, left = 0;

	for (pfn = region->devmem.pfn_first; pfn < region->devmem.pfn_last; pfn++) {
		struct page *page = pfn_to_page(pfn);

		if (!(pfn & 1023))
			cond_resched();
		if (hmm_page_is_idle(page))
			continue;
		/* A page that is in use and not mapped is the driver's own, or on its way. */
		if (folio_mapped(page_folio(page)) &&
		    plain_evict_page(region, nobody, pfn))
			++*moved;
		left += !hmm_page_is_idle(page);
	}
	return left;
}

/*
 * Removal: every page in use comes home by the driver's own fault callback, which knows how to
 * read it, or by the CPU where it can. Returns how many could not be brought home.
 */
unsigned long hmm_plain_evict(struct hmm_region *region)
{
	unsigned long patience, left, moved;
	struct plain_nobody *nobody;

	/* The only thing that is needed to bring pages home, so it is worth waiting for. */
	nobody = kzalloc(sizeof(*nobody), GFP_KERNEL | __GFP_NOFAIL);
	init_rwsem(&nobody->mm.mmap_lock);
	atomic_set(&nobody->mm.mm_users, 1);
	atomic_set(&nobody->mm.mm_count, 1);
	nobody->vma.vm_mm = &nobody->mm;
	hmm_vma_flags_init(&nobody->vma, VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE);

	patience = jiffies + hmm_remove_patience();
	for (;;) {
		moved = 0;
		left = plain_evict_pass(region, nobody, &moved);
		if (!left)
			break;
		if (moved)
			patience = jiffies + hmm_remove_patience();
		else if (time_after(jiffies, patience))
			break;
		if (fatal_signal_pending(current))
			break;
		if (!moved)
			msleep(1);
	}
	kfree(nobody);
	return left;
}

unsigned long hmm_plain_in_use(const struct hmm_region *region)
{
	unsigned long pfn, n = 0;

	for (pfn = region->devmem.pfn_first; pfn < region->devmem.pfn_last; pfn++)
		n += !hmm_page_is_idle(pfn_to_page(pfn));
	return n;
}

/* ------------------------------------------------------------------------
 * Adding
 */

static void plain_free_taken(void *taken)
{
	kvfree(taken);
}

/* @res NULL: find a hole of @size for it. */
static struct hmm_devmem *plain_add(const struct hmm_devmem_ops *ops, struct device *device,
				    unsigned long size, struct resource *res)
{
	enum memory_type type = res ? HMM_MEMORY_COHERENT : MEMORY_DEVICE_PRIVATE;
	struct hmm_region *region;
	int ret;

	region = hmm_region_alloc(device);
	if (IS_ERR(region))
		return ERR_CAST(region);
	region->devmem.ops = ops;
	if (!res) {
		res = hmm_devmem_find_hole(&region->host, size);
		if (IS_ERR(res)) {
			ret = PTR_ERR(res);
			goto err;
		}
	}
	region->taken = kvcalloc(BITS_TO_LONGS(PHYS_PFN(resource_size(res))),
				 sizeof(unsigned long), GFP_KERNEL);
	if (!region->taken) {
		ret = -ENOMEM;
		goto err;
	}
	ret = devm_add_action_or_reset(&region->host, plain_free_taken, region->taken);
	if (ret)
		goto err;
	ret = hmm_devmem_map(region, res, type, &hmm_plain_owner);
	if (ret)
		goto err;
	ret = hmm_devmem_open(region);
	if (ret)
		return ERR_PTR(ret);
	devres_close_group(device, region->group);
	return &region->devmem;

err:
	put_device(&region->host);
	return ERR_PTR(ret);
}

/**
 * hmm_devmem_add() - add memory that only the device can address
 * @ops: the driver's callbacks, both needed
 * @device: the device; the memory is removed when its driver is unbound, or at the last
 *	put_device() of a device that was never added
 * @size: bytes; rounded up to a memory section (128 MiB on x86-64)
 *
 * Finds a hole in the physical address space and creates struct pages for it. The
 * driver allocates from [pfn_first, pfn_last) as it likes: get_page() and lock_page() on an
 * idle page, in any order, make it one in use, unlock_page() and put_page() give it back.
 *
 * Context: process context, may sleep.
 * Return: the devmem, owned by @device; or ERR_PTR: -EOPNOTSUPP this kernel has no
 * device-private memory (nothing was tried); -EINVAL no @device, @ops incomplete, or @size 0
 * or absurd; -ERANGE no hole of that size; -ENOMEM.
 */
struct hmm_devmem *hmm_devmem_add(const struct hmm_devmem_ops *ops,
				  struct device *device, unsigned long size)
{
	if (!HMM_KERNEL_PRIVATE)
		return ERR_PTR(-EOPNOTSUPP);
	if (!device || !ops || !ops->free || !ops->fault || !size || size > HMM_MAX_SIZE)
		return ERR_PTR(-EINVAL);
	return plain_add(ops, device, ALIGN(size, 1UL << PA_SECTION_SHIFT), NULL);
}
EXPORT_SYMBOL_GPL(hmm_devmem_add);

/**
 * hmm_devmem_add_resource() - add memory that the CPU addresses coherently
 * @ops: the driver's callbacks; @ops->fault is never called and may be missing
 * @device: as for hmm_devmem_add()
 * @res: the range, owned by the caller and never released here; its desc must be
 *	IORES_DESC_DEVICE_PUBLIC_MEMORY, and there must be memory behind every byte of it.
 *	The kernel maps it in pieces of 2 MiB: what shares one with the range must not be
 *	system RAM.
 *
 * Context: process context, may sleep.
 * Return: the devmem, owned by @device; or ERR_PTR: -EOPNOTSUPP this kernel has no coherent
 * device memory (nothing was tried); -EINVAL no @device, @ops, desc, or no whole pages;
 * -ENXIO @res overlaps system RAM; -EBUSY pages of an earlier removal are still in use there;
 * -ERANGE beyond what this kernel can map; -ENOMEM.
 */
struct hmm_devmem *hmm_devmem_add_resource(const struct hmm_devmem_ops *ops,
					   struct device *device,
					   struct resource *res)
{
	struct resource aligned;
	int ret;

	if (!HMM_KERNEL_COHERENT)
		return ERR_PTR(-EOPNOTSUPP);
	if (!device || !ops || !ops->free || !res ||
	    res->desc != IORES_DESC_DEVICE_PUBLIC_MEMORY || res->end < res->start ||
	    !PAGE_ALIGNED(res->start) || !PAGE_ALIGNED(res->end + 1))
		return ERR_PTR(-EINVAL);
	aligned = *res;
	aligned.start = ALIGN_DOWN(res->start, SUBSECTION_SIZE);
	aligned.end = ALIGN(res->end + 1, SUBSECTION_SIZE) - 1;
	ret = hmm_devmem_check_coherent(&aligned);
	if (ret)
		return ERR_PTR(ret);
	return plain_add(ops, device, 0, res);
}
EXPORT_SYMBOL_GPL(hmm_devmem_add_resource);

/**
 * hmm_devmem_remove() - remove device memory before its device goes
 * @devmem: from hmm_devmem_add() or hmm_devmem_add_resource(), gone afterwards; NULL and
 *	errors that these returned do nothing
 *
 * Every page in use is brought home first: a private one by one call of the driver's fault
 * callback, a coherent one by the CPU. The driver's locks that the callbacks take must not
 * be held. A page that does not come home for ten seconds (the module's remove_patience),
 * or until the caller is killed, is given up: who touches it gets SIGBUS. No callback runs
 * after this has returned.
 *
 * Context: process context; sleeps.
 */
void hmm_devmem_remove(struct hmm_devmem *devmem)
{
	if (IS_ERR_OR_NULL(devmem))
		return;
	devres_release_group(devmem->device, hmm_region_of_devmem(devmem)->group);
}
EXPORT_SYMBOL_GPL(hmm_devmem_remove);
