// SPDX-License-Identifier: GPL-2.0
/*
 * migrate_vma() as drivers of Linux 4.14 to 5.3 call it, on top of its parts of today.
 *
 * What is translated at the border:
 *
 *	the faulting page	Today the kernel has locked and counted the page of a CPU
 *				fault and must be told which one it is. hmm_plain_fault()
 *				leaves a note for the time of the driver's callback, by
 *				task, and migrate_vma() reads it.
 *	LOCKED, DEVICE, ERROR	Bits that only the driver sees. Bit 4, DEVICE, has become
 *				COMPOUND, which would be read as a huge page.
 *	owners			All devmems share one, so the pages of any are collected.
 *	locks, references	A destination that the driver did not lock, or took without
 *				the reference that the kernel will give back, gets it here.
 *
 * At removal the same call brings home a page that was isolated before: the note says so.
 */
#include <linux/hash.h>
#include <linux/mempolicy.h>
#include <linux/pagemap.h>

#include "internal.h"

/* ------------------------------------------------------------------------
 * Notes: what this task is in the middle of
 */

#define NOTE_BITS	6

static struct {
	spinlock_t lock;
	struct hlist_head notes;
} note_table[1 << NOTE_BITS];

void __init hmm_note_init(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(note_table); i++)
		spin_lock_init(&note_table[i].lock);
}

static unsigned int note_slot(void)
{
	return hash_ptr(current, NOTE_BITS);
}

/* The newest note of a task comes first. */
void hmm_note_push(struct hmm_note *note)
{
	unsigned int slot = note_slot();

	note->task = current;
	spin_lock(&note_table[slot].lock);
	hlist_add_head(&note->node, &note_table[slot].notes);
	spin_unlock(&note_table[slot].lock);
}

void hmm_note_pop(struct hmm_note *note)
{
	unsigned int slot = note_slot();

	spin_lock(&note_table[slot].lock);
	hlist_del(&note->node);
	spin_unlock(&note_table[slot].lock);
}

/*
 * The newest note of the caller, about a page or about a migration. It stays where it is as
 * long as the caller is here.
 */
static struct hmm_note *note_find(bool about_page)
{
	unsigned int slot = note_slot();
	struct hmm_note *note, *found = NULL;

	if (hlist_empty(&note_table[slot].notes))
		return NULL;
	spin_lock(&note_table[slot].lock);
	hlist_for_each_entry(note, &note_table[slot].notes, node) {
		if (note->task == current && !note->page == !about_page) {
			found = note;
			break;
		}
	}
	spin_unlock(&note_table[slot].lock);
	return found;
}

/* ------------------------------------------------------------------------
 * The two views of an entry
 */

/*
 * Show sources, and destinations when all is done, with the bits they used to have. Returns
 * how many are device memory.
 */
static unsigned long show_entries(unsigned long *entry, unsigned long n)
{
	unsigned long i, device = 0;

	for (i = 0; i < n; i++) {
		struct page *page = migrate_pfn_to_page(entry[i]);

		if (!page)
			continue;
		entry[i] |= HMM_PFN_CLIENT_LOCKED;
		if (is_zone_device_page(page)) {
			device++;
			if (is_device_private_page(page))
				entry[i] |= HMM_PFN_CLIENT_DEVICE;
		}
	}
	return device;
}

/* ERROR stays: it has no meaning to the kernel, and the driver looks for it afterwards. */
static void hide_entries(unsigned long *entry, unsigned long n)
{
	unsigned long i;

	for (i = 0; i < n; i++)
		entry[i] &= ~(HMM_PFN_CLIENT_LOCKED | HMM_PFN_CLIENT_DEVICE);
}

/* Destinations, as the driver left them, become what the kernel expects. */
static void accept_entries(unsigned long *dst, unsigned long n)
{
	unsigned long i;

	for (i = 0; i < n; i++) {
		struct page *page;

		dst[i] &= ~(HMM_PFN_CLIENT_LOCKED | HMM_PFN_CLIENT_DEVICE);
		page = migrate_pfn_to_page(dst[i]);
		if (!page)
			continue;
		if (unlikely(!PageLocked(page)))
			lock_page(page);
		if (is_zone_device_page(page) && unlikely(!hmm_plain_accept(page))) {
			unlock_page(page);
			put_page(page);
			dst[i] = 0;
		}
	}
}

/* ------------------------------------------------------------------------
 * A page that was isolated, at removal
 */

/* Move what the kernel keeps in struct page; whether it went well, note->src says. */
void hmm_note_migrate(struct hmm_note *note, unsigned long *dst)
{
	migrate_device_pages(&note->src, dst, 1);
}

void hmm_note_finish(struct hmm_note *note, unsigned long *dst)
{
	migrate_device_finalize(&note->src, dst, 1);
	note->isolated = false;
}

/* migrate_vma() in the driver's fault callback, when it is called to bring home one page. */
static int migrate_isolated(struct hmm_note *note, const struct migrate_vma_ops *ops,
			    unsigned long start, unsigned long end, unsigned long *src,
			    unsigned long *dst, void *private)
{
	unsigned long i, at = PHYS_PFN(note->addr - start), n = PHYS_PFN(end - start);

	if (note->addr < start || note->addr >= end)
		return -EINVAL;
	memset(src, 0, n * sizeof(*src));
	memset(dst, 0, n * sizeof(*dst));
	if (!note->isolated)
		return 0;

	src[at] = note->src;
	show_entries(src + at, 1);
	ops->alloc_and_copy(note->vma, src, dst, start, end, private);
	accept_entries(dst, n);
	hmm_note_migrate(note, &dst[at]);
	src[at] = note->src;
	show_entries(src + at, 1);
	show_entries(dst + at, 1);
	ops->finalize_and_map(note->vma, src, dst, start, end, private);
	hide_entries(dst + at, 1);
	hmm_note_finish(note, &dst[at]);

	/* Pages for entries that were never asked for. */
	for (i = 0; i < n; i++) {
		struct page *page = i == at ? NULL : migrate_pfn_to_page(dst[i]);

		if (page) {
			unlock_page(page);
			put_page(page);
		}
	}
	return 0;
}

/* ------------------------------------------------------------------------
 * The call
 */

/**
 * migrate_vma() - move what is mapped in a range to other pages
 * @ops: the driver's callbacks, both needed
 * @vma: the mapping that the range lies in
 * @start: first byte; rounded down to a page
 * @end: one past the last byte; rounded down to a page
 * @src: room for one entry for each page; what was there
 * @dst: room for as many; what the driver gave, 0 where it gave nothing
 * @private: for the callbacks
 *
 * Best effort: a page that cannot be moved has 0 in @src and stays where it is, and so does
 * one for which the driver gives no destination. Collected are present pages, never touched
 * addresses of anonymous mappings (MIGRATE without VALID), and device pages of every
 * hmm_devmem. Whoever calls this from a fault callback for a range with the faulting page
 * in it needs to do nothing about that page.
 *
 * Afterwards every page that was given as a destination is the kernel's: mapped, or freed,
 * which for a device page ends in the free callback. MIGRATE_PFN_ERROR stays in @dst, and the
 * fault callback that finds it there returns VM_FAULT_SIGBUS.
 *
 * Context: process context, mmap lock of @vma held for read or write; sleeps.
 * Return: 0, even if nothing was moved; -EINVAL no @ops, @vma, @src or @dst, a mapping whose
 * pages never move (hugetlb, VM_SPECIAL, DAX), or a range that is empty or not inside @vma;
 * -EOPNOTSUPP this kernel was built without migration to devices (nothing was tried).
 */
int migrate_vma(const struct migrate_vma_ops *ops, struct vm_area_struct *vma,
		unsigned long start, unsigned long end, unsigned long *src,
		unsigned long *dst, void *private)
{
	struct hmm_note *note = note_find(true);
	struct hmm_note own = { .vma = vma };
	struct migrate_vma args = {
		.vma = vma,
		.start = start & PAGE_MASK,
		.end = end & PAGE_MASK,
		.src = src,
		.dst = dst,
		.pgmap_owner = hmm_devmem_pgmap_owner(NULL),
		.flags = MIGRATE_VMA_SELECT_SYSTEM | MIGRATE_VMA_SELECT_DEVICE_PRIVATE |
			 HMM_SELECT_COHERENT,
		HMM_FAULT_PAGE(note && !note->vma ? note->page : NULL),
	};
	unsigned long n;
	int idx, ret;

	if (!HMM_KERNEL_MIGRATE)
		return -EOPNOTSUPP;
	if (!ops || !vma || !src || !dst || args.start >= args.end)
		return -EINVAL;
	if (note && note->vma == vma)
		return migrate_isolated(note, ops, args.start, args.end, src, dst, private);

	ret = migrate_vma_setup(&args);
	if (ret)
		return ret;
	n = PHYS_PFN(args.end - args.start);
	memset(dst, 0, n * sizeof(*dst));
	if (!args.cpages)
		return 0;

	idx = hmm_devmem_enter();
	own.wanted = show_entries(src, n);
	hmm_note_push(&own);
	ops->alloc_and_copy(vma, src, dst, args.start, args.end, private);
	hmm_note_pop(&own);
	while (own.in_stock--)
		__free_page(own.stock++);
	hide_entries(src, n);
	accept_entries(dst, n);
	migrate_vma_pages(&args);

	show_entries(src, n);
	show_entries(dst, n);
	ops->finalize_and_map(vma, src, dst, args.start, args.end, private);
	hide_entries(src, n);
	hide_entries(dst, n);
	migrate_vma_finalize(&args);
	hmm_devmem_leave(idx);
	return 0;
}
EXPORT_SYMBOL_GPL(migrate_vma);

/*
 * Inside migrate_vma() pages are asked for one by one and needed by the hundred: they come from
 * small blocks, as long as as many are still needed.
 */
static struct page *take_from_stock(struct vm_area_struct *vma)
{
	struct hmm_note *note = note_find(false);

	/* A memory policy of the VMA speaks of single pages. */
	if (!note || note->vma != vma || vma_policy(vma))
		return NULL;
	if (!note->in_stock) {
		if (note->wanted < 1UL << HMM_STOCK_ORDER)
			return NULL;
		note->stock = alloc_pages(GFP_HIGHUSER_MOVABLE | __GFP_NORETRY | __GFP_NOWARN,
					  HMM_STOCK_ORDER);
		if (!note->stock)
			return NULL;
		split_page(note->stock, HMM_STOCK_ORDER);
		note->in_stock = 1U << HMM_STOCK_ORDER;
		note->wanted -= note->in_stock;
	}
	note->in_stock--;
	return note->stock++;
}

/**
 * hmm_vma_alloc_locked_page() - a page of RAM to move something to
 * @vma: the mapping it is for
 * @addr: the address it is for
 *
 * Context: process context, mmap lock of @vma held; sleeps.
 * Return: the page, locked, with one reference, both of which pass to the caller; or NULL.
 */
struct page *hmm_vma_alloc_locked_page(struct vm_area_struct *vma, unsigned long addr)
{
	struct page *page = take_from_stock(vma);

	if (!page)
		page = alloc_page_vma(GFP_HIGHUSER_MOVABLE, vma, addr);
	if (!page)
		return NULL;
	lock_page(page);
	return page;
}
EXPORT_SYMBOL_GPL(hmm_vma_alloc_locked_page);
