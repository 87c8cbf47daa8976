// SPDX-License-Identifier: GPL-2.0
/*
 * Which processes map a page of device memory? The kernel knows, and does not export how to
 * ask. An anonymous page leads to its anon_vma, and that to every mapping that may have it.
 */
#include <linux/mmap_lock.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include "internal.h"

/* Where @vma would have a page with this index. */
static bool address_in(struct vm_area_struct *vma, pgoff_t index, unsigned long *addr)
{
	if (index < vma->vm_pgoff || index - vma->vm_pgoff >= vma_pages(vma))
		return false;
	*addr = vma->vm_start + ((index - vma->vm_pgoff) << PAGE_SHIFT);
	return true;
}

/**
 * hmm_rmap_find() - the address space of one of those who may map a page
 * @page: a page of device memory, small or huge
 * @nth: which of them, from 0 on
 * @addr: (out) where, page aligned
 *
 * A candidate need not map the page: it may have replaced it by a copy of its own.
 *
 * Context: process context; the caller does not hold a lock of the page's anon_vma.
 * Return: the mm, with a reference for mmput_async(); NULL if there are not so many.
 */
struct mm_struct *hmm_rmap_find(struct page *page, unsigned int nth, unsigned long *addr)
{
	struct folio *folio = page_folio(page);
	struct mm_struct *mm = NULL;
	struct anon_vma_chain *chain;
	struct anon_vma *anon;
	struct rb_node *node;
	struct rw_semaphore *lock;
	unsigned long mapping;
	pgoff_t index;

	/* An anon_vma is freed by RCU in a way that keeps the type, and is kept by its lock. */
	rcu_read_lock();
	mapping = (unsigned long)READ_ONCE(folio->mapping);
	if (!folio_test_anon(folio) || !folio_mapped(folio))
		goto out;
	anon = (struct anon_vma *)(mapping & ~3UL);
	lock = &READ_ONCE(anon->root)->rwsem;
	if (!down_read_trylock(lock))
		goto out;
	/* While the page is mapped its anon_vma is the same. */
	if (!folio_mapped(folio) || (unsigned long)READ_ONCE(folio->mapping) != mapping)
		goto out_lock;
	index = folio->index + (page - &folio->page);
	for (node = rb_first_cached(&anon->rb_root); node; node = rb_next(node)) {
		chain = rb_entry(node, struct anon_vma_chain, rb);
		if (!address_in(chain->vma, index, addr))
			continue;
		if (nth) {
			nth--;
			continue;
		}
		if (mmget_not_zero(chain->vma->vm_mm)) {
			mm = chain->vma->vm_mm;
			break;
		}
	}
out_lock:
	up_read(lock);
out:
	rcu_read_unlock();
	return mm;
}

/*
 * Lock an address space to visit it. Who makes room holds a mmap lock already, perhaps this one:
 * it cannot wait for one. Returns false if it cannot be had; @write says how it is held.
 */
static bool lock_visited(struct mm_struct *mm, struct page *page, const struct hmm_batch *b,
			 bool *write)
{
	if (b && b->mm == mm) {
		*write = b->write;
		return true;
	}
	*write = PageCompound(page) && hmm_mmap_write_trylock(mm);
	return *write || mmap_read_trylock(mm);
}

static void unlock_visited(struct mm_struct *mm, const struct hmm_batch *b, bool write)
{
	if (b && b->mm == mm)
		return;
	if (write)
		mmap_write_unlock(mm);
	else
		mmap_read_unlock(mm);
}

/**
 * hmm_rmap_visit() - go to those who may map a page, until nobody uses it
 * @page: a page of device memory, in use or not
 * @b: says whose mmap lock is held; NULL: nobody's
 * @visit: called with each mapping that may have it, and its address there
 * @arg: passed to @visit
 *
 * A mapping that is locked for a change is left out: the caller comes again.
 *
 * Context: process context; the caller may hold the mmap lock that @b tells of. @visit runs with
 * the mmap lock of the mapping held: for write if it is told so, which is tried for a page of a
 * large folio.
 */
void hmm_rmap_visit(struct page *page, const struct hmm_batch *b, hmm_rmap_fn *visit, void *arg)
{
	struct vm_area_struct *vma;
	struct mm_struct *mm;
	unsigned long addr;
	unsigned int nth;
	bool write;

	for (nth = 0; !hmm_page_is_idle(page); nth++) {
		mm = hmm_rmap_find(page, nth, &addr);
		if (!mm)
			break;
		if (lock_visited(mm, page, b, &write)) {
			vma = find_vma(mm, addr);
			if (vma && vma->vm_start <= addr)
				visit(page, vma, addr, write, arg);
			unlock_visited(mm, b, write);
		}
		mmput_async(mm);
	}
}

/**
 * hmm_rmap_kill() - tell those who map a page that its contents are lost
 * @page: a page of device memory
 *
 * SIGBUS with BUS_MCEERR_AO and the address, as for RAM that has gone bad.
 *
 * Context: process context.
 */
void hmm_rmap_kill(struct page *page)
{
	struct kernel_siginfo info;
	struct task_struct *task;
	struct mm_struct *mm;
	unsigned long addr;
	unsigned int nth;

	for (nth = 0; (mm = hmm_rmap_find(page, nth, &addr)); nth++) {
		clear_siginfo(&info);
		info.si_signo = SIGBUS;
		info.si_code = BUS_MCEERR_AO;
		info.si_addr = (void __user *)addr;
		info.si_addr_lsb = PAGE_SHIFT;
		rcu_read_lock();
		for_each_process(task)
			if (READ_ONCE(task->mm) == mm)
				send_sig_info(SIGBUS, &info, task);
		rcu_read_unlock();
		mmput_async(mm);
	}
}
