// SPDX-License-Identifier: GPL-2.0
/*
 * Whole 2 MiB folios of private memory on their way off the device.
 *
 * Linux 7.2 and 7.3 (7.3.4 at least) take down a mapping wrongly at that moment. The folio has
 * no mapping then but a migration entry; zap_huge_pmd_folio() asks what the folio is, not what
 * the entry is, takes it for a mapped one, and drops a reference and a mapping that are not
 * there. munmap(), MADV_DONTNEED, an exit or the OOM killer in that moment corrupt memory. Small
 * pages, whole folios of RAM on their way here, and folios at rest are all handled right.
 *
 * So a folio leaves whole only while nobody can take its mapping down:
 *
 * - we hold the mmap lock of its process for write, and the VMA, which keeps out everybody who
 *   removes mappings, and we hold the mm itself, so that it does not exit;
 * - the folio is locked and mapped once, so that no other process has such an entry of it.
 *
 * And it leaves for a whole folio only: one that is unmapped already cannot be split safely
 * where it is shared, whichever way it moves. Everything else is split first, which the kernel
 * does right: migrate_vma_setup() without HMM_SELECT_COMPOUND splits what it finds.
 */
#include <linux/mmap_lock.h>
#include <linux/wait_bit.h>

#include "internal.h"

/* Where @mm would map 2 MiB at @addr; stays there while the mmap lock is held. */
static pmd_t *pmd_at(struct mm_struct *mm, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud;

	if (!pgd_present(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	if (!p4d_present(*p4d))
		return NULL;
	pud = pud_offset(p4d, addr);
	if (!pud_present(*pud) || pud_leaf(*pud))
		return NULL;
	return pmd_offset(pud, addr);
}

/* The device folio that is mapped whole at @addr, with a reference; or NULL. */
static struct folio *folio_at(struct vm_area_struct *vma, unsigned long addr)
{
	struct folio *folio;
	spinlock_t *lock;
	pmd_t *pmd;

	if (!HMM_SELECT_COMPOUND || !IS_ALIGNED(addr, PMD_SIZE) || addr < vma->vm_start ||
	    vma->vm_end - addr < PMD_SIZE)
		return NULL;
	pmd = pmd_at(vma->vm_mm, addr);
	/* Mostly there is none, which takes no lock to see. */
	if (!pmd || !hmm_pmd_device_folio(READ_ONCE(*pmd)))
		return NULL;
	lock = pmd_lock(vma->vm_mm, pmd);
	folio = hmm_pmd_device_folio(*pmd);
	if (folio)
		folio_get(folio);
	spin_unlock(lock);
	return folio;
}

/**
 * hmm_whole_is_at() - would a batch move a whole folio off a device?
 * @region: the region that it is to leave, or with @other, the one it is not on
 * @other: any other managed region will do
 * @vma: a mapping; its mmap lock is held
 * @addr: start of the batch
 *
 * Return: true if there is one at @addr that no other mapping has. Then the mmap lock should be
 * held for write. It may change before that is so.
 */
bool hmm_whole_is_at(struct hmm_region *region, bool other, struct vm_area_struct *vma,
		     unsigned long addr)
{
	struct folio *folio = folio_at(vma, addr);
	struct hmm_region *at;
	bool found;

	if (!folio)
		return false;
	at = hmm_region_of_page(&folio->page);
	found = at && (at == region) != other && folio_mapcount(folio) == 1;
	folio_put(folio);
	return found;
}

/**
 * hmm_whole_maps() - does a mapping have this folio, in one piece?
 * @vma: a mapping; its mmap lock is held
 * @addr: where, aligned to 2 MiB
 * @folio: held by the caller
 */
bool hmm_whole_maps(struct vm_area_struct *vma, unsigned long addr, struct folio *folio)
{
	struct folio *found = folio_at(vma, addr);

	if (found)
		folio_put(found);
	return found == folio;
}

/**
 * hmm_whole_take() - take hold of a folio that shall leave the device whole
 * @region: the region that it is on
 * @vma: a mapping; its mmap lock is held for write
 * @addr: where, aligned to 2 MiB
 *
 * Return: the folio, locked, with a reference, for the migration to be told as its fault_page;
 * the caller ends with folio_unlock() and folio_put(). NULL: there is none that may leave whole.
 */
struct folio *hmm_whole_take(struct hmm_region *region, struct vm_area_struct *vma,
			     unsigned long addr)
{
	struct folio *folio = folio_at(vma, addr);

	if (!folio)
		return NULL;
	/* What has lost some of its contents leaves page by page. */
	if (hmm_region_of_page(&folio->page) != region || !xa_empty(&region->poisoned) ||
	    !folio_trylock(folio))
		goto out_put;
	/* Only a fork could add a mapping now, which waits for the mmap lock. */
	hmm_vma_start_write(vma);
	if (folio_mapcount(folio) == 1 && hmm_whole_maps(vma, addr, folio))
		return folio;
	folio_unlock(folio);
out_put:
	folio_put(folio);
	return NULL;
}

/**
 * hmm_whole_split() - map a folio page by page, where only the mmap lock for read is held
 * @vma: its mapping
 * @addr: where, aligned to 2 MiB
 * @folio: the folio, locked and held by the caller, as a CPU fault does
 * @b: room to work in
 *
 * migrate_vma_setup() cannot split what its caller holds, and to let go of it is not safe with
 * the lock for read. But migrate_vma_pages(), for a whole folio that is to go to a small page,
 * splits the mapping under the lock of the page table, and only then finds the folio in use, and
 * leaves it at that: there never is a migration entry of 2 MiB. Every reference it takes is given
 * back by migrate_vma_finalize(), also where the mapping went away before.
 */
void hmm_whole_split(struct vm_area_struct *vma, unsigned long addr, struct folio *folio,
		     struct hmm_batch *b)
{
	struct migrate_vma args = {
		.vma = vma,
		.start = addr,
		.end = addr + PMD_SIZE,
		.src = b->src,
		.dst = b->dst,
		.npages = 1,
		HMM_FAULT_PAGE(&folio->page),
	};

	b->src[0] = migrate_pfn(page_to_pfn(&folio->page)) | MIGRATE_PFN_MIGRATE |
		    MIGRATE_PFN_COMPOUND;
	b->dst[0] = migrate_pfn(page_to_pfn(&folio->page));
	migrate_vma_pages(&args);
	b->dst[0] = 0;
	migrate_vma_finalize(&args);
}

/*
 * Eviction finds small pages by where they are on the device, and must not meet a whole folio
 * there. It seals the block, looks, and goes on if there is none; whoever makes a whole folio
 * sets it up, locked, and then waits until the block is not sealed. One of the two sees the
 * other, and a locked folio is left alone.
 */

/**
 * hmm_whole_seal() - keep folios in a block from becoming whole
 * @region: the region
 * @first: page index in the block
 * @npages: pages of it that matter, one at least
 *
 * Return: true; hmm_whole_unseal() ends it. false: there is a whole folio among them, or somebody
 * else has sealed the block.
 */
bool hmm_whole_seal(struct hmm_region *region, u64 first, unsigned int npages)
{
	unsigned long pfn = region->devmem.pfn_first + first;

	if (!region->sealed)
		return true;
	if (test_and_set_bit(first / HMM_BLOCK_PAGES, region->sealed))
		return false;
	if (!PageCompound(pfn_to_page(pfn)) && !PageCompound(pfn_to_page(pfn + npages - 1)))
		return true;
	hmm_whole_unseal(region, first);
	return false;
}

/**
 * hmm_whole_unseal() - the end of hmm_whole_seal()
 * @region: the region
 * @first: page index in the block
 */
void hmm_whole_unseal(struct hmm_region *region, u64 first)
{
	if (region->sealed)
		clear_and_wake_up_bit(first / HMM_BLOCK_PAGES, region->sealed);
}

/**
 * hmm_whole_wait() - let those finish who have sealed a block
 * @region: the region
 * @first: where a whole folio was set up and locked
 *
 * Context: process context; sleeps.
 */
void hmm_whole_wait(struct hmm_region *region, u64 first)
{
	/* The folio is seen as whole, or the seal is seen here. */
	smp_mb();
	if (region->sealed)
		wait_on_bit(region->sealed, first / HMM_BLOCK_PAGES, TASK_UNINTERRUPTIBLE);
}
