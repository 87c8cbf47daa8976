// SPDX-License-Identifier: GPL-2.0
/*
 * Legs 1 to 3: pages of a process move to the device.
 *
 * One batch at a time, each within one VMA and one 2 MiB block. A batch fails page by
 * page, never as a whole: what could not be moved stays in RAM, intact.
 */
#include <linux/dax.h>
#include <linux/hugetlb.h>
#include <linux/mmap_lock.h>
#include <linux/moduleparam.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include "internal.h"
#include "trace.h"

/* How often room is made for the same 2 MiB. */
#define ROOM_TRIES	16

static bool huge = true;
module_param(huge, bool, 0644);
MODULE_PARM_DESC(huge,
		 "move 2 MiB folios to private memory whole, where the kernel can (default yes; with no they are split, and what is there whole comes back whole)");

/*
 * Turn page indices into pages of the kernel: each gets its first reference and its
 * lock. From here on a page goes back to the core only through the free callback. Returns how
 * many pages they are.
 */
static unsigned int init_pages(struct hmm_region *region, struct hmm_batch *b, unsigned int n)
{
	const unsigned long first = region->devmem.pfn_first;
	unsigned long *dst = b->dst, *end = dst + n;
	unsigned int huge, npages = 0;
	unsigned long index;

	for (; dst < end; dst += 1U << huge) {
		huge = hmm_entry_order(*dst);
		if (!(*dst & MIGRATE_PFN_VALID))
			continue;
		index = *dst >> MIGRATE_PFN_SHIFT;
		*dst += first << MIGRATE_PFN_SHIFT;
		zone_device_page_init(pfn_to_page(first + index), &region->devmem.pagemap, huge);
		if (huge)
			hmm_whole_wait(region, index);
		npages += 1U << huge;
	}
	hmm_core_commit(region->core, raw_smp_processor_id(), npages);
	return npages;
}

/* Entries that were never touched are left alone: nothing of them is set up. */
static unsigned int drop_holes(struct hmm_batch *b, unsigned int n)
{
	unsigned long *src = b->src, *end = src + n;
	unsigned int npages, dropped = 0;

	for (; src < end; src += npages) {
		npages = 1U << hmm_entry_order(*src);
		if ((*src & (MIGRATE_PFN_MIGRATE | MIGRATE_PFN_VALID)) != MIGRATE_PFN_MIGRATE)
			continue;
		dropped += npages;
		*src = 0;
	}
	return dropped;
}

/*
 * Pages that the kernel went along with; @huge grows by those of them in whole 2 MiB folios. Between
 * migrate_vma_pages() and the end.
 */
unsigned int hmm_batch_moved(const struct hmm_batch *b, unsigned int n, unsigned long *huge)
{
	const unsigned long *src = b->src, *dst = b->dst, *end = dst + n;
	unsigned int npages = 0;

	static_assert(MIGRATE_PFN_VALID == 1 && MIGRATE_PFN_MIGRATE == 2);
	/* A whole folio is all of its batch. */
	if (hmm_entry_order(*dst)) {
		npages = *src & MIGRATE_PFN_MIGRATE ? HMM_BLOCK_PAGES : 0;
		*huge += npages;
		return npages;
	}
	/* One expression without a branch for each entry: most of what there is. */
	while (dst < end)
		npages += *dst++ & *src++ >> 1 & 1;
	return npages;
}

/*
 * What should have moved whole, a folio or 2 MiB never touched, got frames here and there. Of the
 * latter the kernel (7.3.4) looks for a page behind each of the 512 entries, also where none is.
 */
static bool folio_in_pieces(const struct hmm_batch *b)
{
	return HMM_SELECT_COMPOUND && (b->src[0] & MIGRATE_PFN_COMPOUND) &&
	       (b->dst[0] & MIGRATE_PFN_VALID) && !(b->dst[0] & MIGRATE_PFN_COMPOUND);
}

/* No frame for anybody: what the plan would be. */
static void plan_nothing(struct hmm_batch *b, unsigned int n, struct hmm_plan *plan)
{
	unsigned int i;

	memset(plan, 0, sizeof(*plan));
	memset(b->dst, 0, n * sizeof(*b->dst));
	for (i = 0; i < n; i++)
		if (b->src[i] & MIGRATE_PFN_MIGRATE)
			plan->wanted += 1U << hmm_entry_order(b->src[i]);
}

/* What came of one try to move a batch. */
enum try {
	TRY_DONE,
	TRY_UNABLE,	/* the driver cannot copy from there */
	TRY_SMALL,	/* no whole frame for a whole folio, see whole.c; or it was hard to read */
};

/*
 * Move what is in RAM, or, with @peer, on that device. Unless it is TRY_DONE, nothing was moved,
 * nor counted. @whole: folios may move whole.
 */
static enum try try_from(struct hmm_region *region, struct hmm_region *peer,
			 struct hmm_batch *b, struct vm_area_struct *vma, unsigned long start,
			 unsigned long end, struct hmm_migrate *m, bool whole,
			 struct page *taken)
{
	struct migrate_vma args = {
		.vma = vma,
		.start = start,
		.end = end,
		.src = b->src,
		.dst = b->dst,
		.pgmap_owner = peer ? peer->devmem.pagemap.owner : region->devmem.pagemap.owner,
		.flags = (peer ? hmm_region_select(peer) : MIGRATE_VMA_SELECT_SYSTEM) |
			 (whole ? HMM_SELECT_COMPOUND : 0),
		HMM_FAULT_PAGE(taken),
	};
	unsigned int n = PHYS_PFN(end - start), filled, moved, holes = 0;
	enum try ret = TRY_DONE;
	struct hmm_plan plan;
	bool taken_whole;

	if (migrate_vma_setup(&args)) {
		m->skipped[HMM_SKIP_VMA] += n;
		return TRY_DONE;
	}
	if (!args.cpages) {
		m->skipped[HMM_SKIP_BUSY] += n;
		return TRY_DONE;
	}

	if (peer)
		hmm_leave_poisoned(peer, b, 0, n);
	if (peer || !(m->flags & HMM_MIGRATE_HOLES))
		holes = drop_holes(b, n);
	if (hmm_should_fail(HMM_FAIL_FRAME)) {
		plan_nothing(b, n, &plan);
	} else if (hmm_core_plan_to_device(region->core, raw_smp_processor_id(), b->src,
					   b->dst, n, b->seg, &plan)) {
		/* Not an array of the kernel's making: give everything back untouched. */
		WARN_ON_ONCE(1);
		plan_nothing(b, n, &plan);
	}
	if (trace_alloc_fail_enabled() && plan.wanted > plan.claimed)
		trace_alloc_fail(region, HMM_TO_DEVICE, plan.wanted - plan.claimed);
	taken_whole = b->src[0] & MIGRATE_PFN_COMPOUND;
	if (folio_in_pieces(b)) {
		hmm_drop_frames(region, b, 0, n);
		ret = TRY_SMALL;
	} else if (!peer) {
		hmm_copy_to_device(region, b, n, &plan);
	} else if (!hmm_copy_from_peer(region, peer, b, n, &plan)) {
		ret = TRY_UNABLE;
	}
	/* The driver has trouble with some page of it: with which, the pages will tell. */
	if (taken_whole && plan.ncopy && b->seg[0].status == -EAGAIN)
		ret = TRY_SMALL;
	filled = init_pages(region, b, n);
	migrate_vma_pages(&args);
	moved = hmm_batch_moved(b, n, &m->huge);
	migrate_vma_finalize(&args);
	if (ret)
		return ret;

	if (moved)
		hmm_core_went(region->core, (unsigned long)vma->vm_mm, PHYS_PFN(start));
	m->moved += moved;
	m->skipped[HMM_SKIP_HOLE] += holes;
	m->skipped[HMM_SKIP_BUSY] += n - holes - plan.wanted;
	m->skipped[HMM_SKIP_NO_MEMORY] += plan.wanted - plan.claimed;
	m->skipped[HMM_SKIP_COPY] += plan.claimed - filled;
	m->skipped[HMM_SKIP_REFUSED] += filled - moved;
	return TRY_DONE;
}

/* As above, whole if that can be. Returns false if the driver cannot copy from @peer. */
static bool move_from(struct hmm_region *region, struct hmm_region *peer,
		      struct hmm_batch *b, struct vm_area_struct *vma, unsigned long start,
		      unsigned long end, struct hmm_migrate *m)
{
	bool whole = READ_ONCE(huge) && hmm_region_select_huge(region, m);
	struct folio *folio = NULL;
	enum try ret;

	if (whole && peer) {
		if (b->write && end - start == PMD_SIZE)
			folio = hmm_whole_take(peer, vma, start);
		whole = folio;
	}
	ret = try_from(region, peer, b, vma, start, end, m, whole, folio ? &folio->page : NULL);
	if (folio) {
		folio_unlock(folio);
		folio_put(folio);
	}
	if (ret == TRY_SMALL)
		ret = try_from(region, peer, b, vma, start, end, m, false, NULL);
	return ret == TRY_DONE;
}

/*
 * Pages on other devices come here directly where the driver can fetch them, else by way of
 * RAM, where move_batch() finds them. Only direct moves are counted.
 */
static void fetch_from_peers(struct hmm_region *region, struct hmm_batch *b,
			     struct vm_area_struct *vma, unsigned long start,
			     unsigned long end, struct hmm_migrate *m)
{
	struct hmm_migrate part = { .mm = m->mm, .flags = m->flags };
	struct hmm_region *peer = NULL;

	while ((peer = hmm_region_next(peer))) {
		if (peer == region || !percpu_ref_tryget_live(&peer->devmem.ref))
			continue;
		/* Memory that nothing ever moved to has no pages of this process. */
		if (atomic64_read(&peer->counters.of[HMM_COUNTER(to_device)])) {
			part.moved = 0;
			if (!region->ops || !region->ops->copy_from_peer ||
			    !move_from(region, peer, b, vma, start, end, &part))
				hmm_to_ram_move(peer, b, vma, start, end, &part);
			else
				m->moved += part.moved;
		}
		percpu_ref_put(&peer->devmem.ref);
	}
	m->huge += part.huge;
}

/* What an earlier try has moved is there already, and no reason to complain. */
static void move_batch(struct hmm_region *region, struct hmm_batch *b,
		       struct vm_area_struct *vma, unsigned long start, unsigned long end,
		       struct hmm_migrate *m)
{
	const struct hmm_migrate before = *m;
	unsigned long direct, busy, missing;
	unsigned int tries;

	if (!(m->flags & HMM_MIGRATE_FROM_RAM))
		fetch_from_peers(region, b, vma, start, end, m);
	for (tries = 0; ; tries++) {
		direct = m->moved - before.moved;
		memcpy(m->skipped, before.skipped, sizeof(m->skipped));
		move_from(region, NULL, b, vma, start, end, m);
		busy = m->skipped[HMM_SKIP_BUSY] - before.skipped[HMM_SKIP_BUSY];
		m->skipped[HMM_SKIP_BUSY] -= min(direct, busy);
		/* The CPU had taken it back meanwhile, and it moved again: still one page. */
		m->again += direct - min(direct, busy);
		m->moved -= direct - min(direct, busy);

		missing = m->skipped[HMM_SKIP_NO_MEMORY] - before.skipped[HMM_SKIP_NO_MEMORY];
		/* Others may be quicker to take what becomes free, but not for ever. */
		if (!missing || !(m->flags & HMM_MIGRATE_MAKE_ROOM) || tries == ROOM_TRIES ||
		    !hmm_make_room(region, b, missing))
			return;
	}
}

/* With HMM_MIGRATE_STRICT: is every page mapped, readable, and of a kind that moves. */
static int check_strict(const struct hmm_migrate *m)
{
	unsigned long addr = m->start;
	struct vm_area_struct *vma;

	while (addr < m->end) {
		vma = find_vma(m->mm, addr);
		if (!vma || vma->vm_start > addr || !(vma->vm_flags & VM_READ) ||
		    (vma->vm_flags & VM_SPECIAL) || is_vm_hugetlb_page(vma) ||
		    vma_is_dax(vma))
			return -EINVAL;
		addr = vma->vm_end;
	}
	return 0;
}

/* Whole folios leave a device with the mmap lock held for write, everything else for read. */
static bool wants_write(struct hmm_region *region, const struct hmm_migrate *m,
			struct vm_area_struct *vma, unsigned long addr, unsigned long next,
			enum hmm_direction direction)
{
	const bool there = direction == HMM_TO_DEVICE;

	return HMM_SELECT_COMPOUND && next - addr == PMD_SIZE &&
	       !(m->flags & HMM_MIGRATE_SMALL) && !(there && (m->flags & HMM_MIGRATE_FROM_RAM)) &&
	       hmm_whole_is_at(region, there, vma, addr);
}

static void unlock(struct hmm_batch *b)
{
	if (b->write)
		mmap_write_unlock(b->mm);
	else
		mmap_read_unlock(b->mm);
	b->write = false;
}

/*
 * Cut a request into batches: each is part of one VMA, at most HMM_BATCH pages, inside one
 * 2 MiB block. The mmap lock is let go of between batches when somebody waits for it.
 */
static int walk(struct hmm_region *region, struct hmm_migrate *m, hmm_move_fn *move,
		enum hmm_direction direction)
{
	struct mm_struct *mm = m->mm;
	struct hmm_trace_move trace;
	struct vm_area_struct *vma;
	unsigned long addr, next;
	struct hmm_batch *b;
	bool write;
	int ret = 0;

	b = hmm_batch_get();
	if (mmap_read_lock_killable(mm)) {
		ret = -EINTR;
		goto out_batch;
	}
	b->mm = mm;
	if (m->flags & HMM_MIGRATE_STRICT)
		ret = check_strict(m);

	for (addr = m->start; !ret && addr < m->end; addr = next) {
		vma = find_vma(mm, addr);
		if (!vma || vma->vm_start > addr) {
			next = vma ? min(m->end, vma->vm_start) : m->end;
			m->skipped[HMM_SKIP_UNMAPPED] += PHYS_PFN(next - addr);
			continue;
		}
		next = min3(m->end, vma->vm_end, ALIGN(addr + 1, PMD_SIZE));
		write = wants_write(region, m, vma, addr, next, direction);
		if (write && !b->write) {
			mmap_read_unlock(mm);
			if (mmap_write_lock_killable(mm)) {
				ret = -EINTR;
				goto out_batch;
			}
			b->write = true;
			next = addr;
			continue;
		}
		if (b->write && !write) {
			mmap_write_downgrade(mm);
			b->write = false;
		}
		if (write)
			hmm_vma_start_write(vma);
		hmm_trace_begin(region, &trace, direction, HMM_CAUSE_REQUEST, addr,
				PHYS_PFN(next - addr), m);
		move(region, b, vma, addr, next, m);
		hmm_trace_end(region, &trace, b, m);

		if (fatal_signal_pending(current)) {
			ret = -EINTR;
		} else if (READ_ONCE(m->cancel)) {
			ret = -ECANCELED;
		} else if (percpu_ref_is_dying(&region->devmem.ref)) {
			ret = -ENODEV;
		} else if (direction == HMM_TO_DEVICE && hmm_sleep_is_near()) {
			ret = -EAGAIN;
		} else if (need_resched() || mmap_lock_is_contended(mm)) {
			unlock(b);
			cond_resched();
			if (mmap_read_lock_killable(mm)) {
				ret = -EINTR;
				goto out_batch;
			}
		}
	}
	unlock(b);
out_batch:
	hmm_batch_put(b);
	return ret;
}

/**
 * hmm_migrate_range() - what moving there and moving back have in common
 * @region: passed to @move
 * @m: the request; its results are set
 * @move: moves one batch
 * @direction: where to
 *
 * Context and return value: as hmm_migrate_to_device().
 */
int hmm_migrate_range(struct hmm_region *region, struct hmm_migrate *m, hmm_move_fn *move,
		      enum hmm_direction direction)
{
	const bool there = direction == HMM_TO_DEVICE;
	u64 begin = ktime_get_ns();
	int ret, idx;

	m->moved = 0;
	m->huge = 0;
	m->again = 0;
	memset(m->skipped, 0, sizeof(m->skipped));
	if (!PAGE_ALIGNED(m->start) || !PAGE_ALIGNED(m->end) || m->start >= m->end ||
	    m->end > m->mm->task_size || (m->flags & ~HMM_MIGRATE_ALL))
		return -EINVAL;
	if (!percpu_ref_tryget_live(&region->devmem.ref))
		return -ENODEV;
	if (!mmget_not_zero(m->mm)) {
		ret = -ESRCH;
		goto out_ref;
	}
	idx = hmm_sleep_enter();
	if (there && hmm_sleep_is_near()) {
		ret = -EAGAIN;
		goto out_sleep;
	}
	ret = walk(region, m, move, direction);
	hmm_region_count(region, m->mm, there ? HMM_COUNTER(to_device) :
						HMM_COUNTER(to_ram_request),
			 m->moved + m->again);
	hmm_region_count(region, m->mm, there ? HMM_COUNTER(ns_to_device) :
						HMM_COUNTER(ns_to_ram), ktime_get_ns() - begin);
	hmm_region_count_skipped(region, direction, m);
out_sleep:
	hmm_sleep_leave(idx);
	/* Not in the context of a worker, where the end of a process could wait for itself. */
	mmput_async(m->mm);
out_ref:
	percpu_ref_put(&region->devmem.ref);
	return ret;
}

/**
 * hmm_migrate_to_device() - move a range of a process to the device
 * @region: where to
 * @m: what to move; says afterwards what was moved, and why the rest was not
 *
 * Moves anonymous pages (and, with HMM_MIGRATE_HOLES, addresses never touched), also those
 * that are on another managed device (not with HMM_MIGRATE_FROM_RAM): directly if this driver
 * has copy_from_peer(), else by way of RAM. Whatever cannot be moved stays where it is; that is no error.
 *
 * Context: process context, mmap lock not held; sleeps. Any number of calls may run side
 * by side.
 * Return: 0; -EINVAL unaligned, empty or impossible range, unknown flags, or, with
 * HMM_MIGRATE_STRICT, a page that is not mapped or not readable (nothing was moved);
 * -ENODEV the device is gone, or goes; -ESRCH the address space is; -EINTR deadly signal;
 * -ECANCELED by hmm_migrate_cancel(); -EAGAIN the system is about to sleep (nothing was
 * moved).
 */
int hmm_migrate_to_device(struct hmm_region *region, struct hmm_migrate *m)
{
	return hmm_migrate_range(region, m, move_batch, HMM_TO_DEVICE);
}
EXPORT_SYMBOL_GPL(hmm_migrate_to_device);
