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

/*
 * Off unless asked for: when Linux 7.3 (up to 7.3.4 at least) takes down a mapping of a
 * 2 MiB device folio that is just on its way back to RAM, zap_huge_pmd_folio() takes the
 * migration entry for a mapped page, and drops a reference that is not its own. A process
 * that exits during an eviction is enough, and no lock of ours could keep it from that.
 */
static bool huge;
module_param(huge, bool, 0644);
MODULE_PARM_DESC(huge,
		 "move 2 MiB folios to private memory whole (default no: the kernel may corrupt memory when a mapping is removed while such a folio comes back; safe for programs that neither fork nor exit nor unmap meanwhile)");

/*
 * Turn page indices into pages of the kernel: each gets its first reference and its
 * lock. From here on a page goes back to the core only through the free callback.
 */
static void init_pages(struct hmm_region *region, struct hmm_batch *b, unsigned int n)
{
	unsigned int i, huge, npages = 0;

	for (i = 0; i < n; i++) {
		if (!(b->dst[i] & MIGRATE_PFN_VALID))
			continue;
		b->dst[i] += region->devmem.pfn_first << MIGRATE_PFN_SHIFT;
		huge = hmm_entry_order(b->dst[i]);
		zone_device_page_init(migrate_pfn_to_page(b->dst[i]),
				      &region->devmem.pagemap, huge);
		npages += 1U << huge;
	}
	hmm_core_commit(region->core, raw_smp_processor_id(), npages);
}

/* Entries that were never touched are left alone: nothing of them is set up. */
static unsigned int drop_holes(struct hmm_batch *b, unsigned int n)
{
	unsigned int i, dropped = 0;

	for (i = 0; i < n; i++) {
		if ((b->src[i] & (MIGRATE_PFN_MIGRATE | MIGRATE_PFN_VALID)) !=
		    MIGRATE_PFN_MIGRATE)
			continue;
		dropped += 1U << hmm_entry_order(b->src[i]);
		b->src[i] = 0;
	}
	return dropped;
}

/* Pages with a destination; with @moved, only those that the kernel went along with. */
unsigned int hmm_batch_count(const struct hmm_batch *b, unsigned int n, bool moved)
{
	unsigned int i, npages = 0;

	for (i = 0; i < n; i++)
		if ((b->dst[i] & MIGRATE_PFN_VALID) &&
		    (!moved || (b->src[i] & MIGRATE_PFN_MIGRATE)))
			npages += 1U << hmm_entry_order(b->dst[i]);
	return npages;
}

static void move_batch(struct hmm_region *region, struct hmm_batch *b,
		       struct vm_area_struct *vma, unsigned long start, unsigned long end,
		       struct hmm_migrate *m)
{
	struct migrate_vma args = {
		.vma = vma,
		.start = start,
		.end = end,
		.src = b->src,
		.dst = b->dst,
		.pgmap_owner = region->devmem.pagemap.owner,
		.flags = MIGRATE_VMA_SELECT_SYSTEM |
			 (READ_ONCE(huge) ? hmm_region_select_huge(region, m) : 0),
	};
	unsigned int n = PHYS_PFN(end - start), filled, moved, holes = 0;
	struct hmm_plan plan;

	if (migrate_vma_setup(&args)) {
		m->skipped[HMM_SKIP_VMA] += n;
		return;
	}
	if (!args.cpages) {
		m->skipped[HMM_SKIP_BUSY] += n;
		return;
	}

	if (!(m->flags & HMM_MIGRATE_HOLES))
		holes = drop_holes(b, n);
	if (hmm_core_plan_to_device(region->core, raw_smp_processor_id(), b->src, b->dst,
				    n, b->seg, &plan)) {
		/* Not an array of the kernel's making: give everything back untouched. */
		WARN_ON_ONCE(1);
		memset(b->dst, 0, n * sizeof(*b->dst));
		memset(&plan, 0, sizeof(plan));
	}
	if (trace_alloc_fail_enabled() && plan.wanted > plan.claimed)
		trace_alloc_fail(region, HMM_TO_DEVICE, plan.wanted - plan.claimed);
	hmm_copy_to_device(region, b, n, &plan);
	init_pages(region, b, n);
	filled = hmm_batch_count(b, n, false);
	migrate_vma_pages(&args);
	moved = hmm_batch_count(b, n, true);
	migrate_vma_finalize(&args);

	m->moved += moved;
	m->skipped[HMM_SKIP_HOLE] += holes;
	m->skipped[HMM_SKIP_BUSY] += n - holes - plan.wanted;
	m->skipped[HMM_SKIP_NO_MEMORY] += plan.wanted - plan.claimed;
	m->skipped[HMM_SKIP_COPY] += plan.claimed - filled;
	m->skipped[HMM_SKIP_REFUSED] += filled - moved;
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
	int ret = 0;

	b = hmm_batch_get();
	if (mmap_read_lock_killable(mm)) {
		ret = -EINTR;
		goto out_batch;
	}
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
		hmm_trace_begin(region, &trace, direction, HMM_CAUSE_REQUEST, addr,
				PHYS_PFN(next - addr), m);
		move(region, b, vma, addr, next, m);
		hmm_trace_end(region, &trace, b, m);

		if (fatal_signal_pending(current)) {
			ret = -EINTR;
		} else if (need_resched() || mmap_lock_is_contended(mm)) {
			mmap_read_unlock(mm);
			cond_resched();
			if (mmap_read_lock_killable(mm)) {
				ret = -EINTR;
				goto out_batch;
			}
		}
	}
	mmap_read_unlock(mm);
out_batch:
	hmm_batch_put(b);
	return ret;
}

/**
 * hmm_migrate_range() - what moving there and moving back have in common
 * @region: passed to @move
 * @m: the request; its results are set
 * @move: moves one batch
 * @direction: where to, for who looks on
 * @moved: counter that gets the pages moved
 * @ns: counter that gets the time
 *
 * Context and return value: as hmm_migrate_to_device().
 */
int hmm_migrate_range(struct hmm_region *region, struct hmm_migrate *m, hmm_move_fn *move,
		      enum hmm_direction direction, size_t moved, size_t ns)
{
	u64 begin = ktime_get_ns();
	int ret;

	m->moved = 0;
	memset(m->skipped, 0, sizeof(m->skipped));
	if (!PAGE_ALIGNED(m->start) || !PAGE_ALIGNED(m->end) || m->start >= m->end ||
	    m->end > m->mm->task_size ||
	    (m->flags & ~(HMM_MIGRATE_STRICT | HMM_MIGRATE_HOLES | HMM_MIGRATE_SMALL)))
		return -EINVAL;
	if (!percpu_ref_tryget_live(&region->devmem.ref))
		return -ENODEV;
	if (!mmget_not_zero(m->mm)) {
		ret = -ESRCH;
		goto out_ref;
	}
	ret = walk(region, m, move, direction);
	hmm_region_count(region, m->mm, moved, m->moved);
	hmm_region_count(region, m->mm, ns, ktime_get_ns() - begin);
	mmput(m->mm);
out_ref:
	percpu_ref_put(&region->devmem.ref);
	return ret;
}

/**
 * hmm_migrate_to_device() - move a range of a process to the device
 * @region: where to
 * @m: what to move; says afterwards what was moved, and why the rest was not
 *
 * Moves anonymous pages (and, with HMM_MIGRATE_HOLES, addresses never touched). Whatever
 * cannot be moved stays in RAM; that is no error.
 *
 * Context: process context, mmap lock not held; sleeps. Any number of calls may run side
 * by side.
 * Return: 0; -EINVAL unaligned, empty or impossible range, unknown flags, or, with
 * HMM_MIGRATE_STRICT, a page that is not mapped or not readable (nothing was moved);
 * -ENODEV the device is gone; -ESRCH the address space is; -EINTR deadly signal.
 */
int hmm_migrate_to_device(struct hmm_region *region, struct hmm_migrate *m)
{
	return hmm_migrate_range(region, m, move_batch, HMM_TO_DEVICE,
				 offsetof(struct hmm_counters, to_device),
				 offsetof(struct hmm_counters, ns_to_device));
}
EXPORT_SYMBOL_GPL(hmm_migrate_to_device);
