// SPDX-License-Identifier: GPL-2.0
/*
 * Leg 7 and the last part of leg 8: pages come home without a VMA, found by where they are
 * on the device.
 */
#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/sched/signal.h>

#include "internal.h"
#include "trace.h"

/* Without a page moved for so long: a request fails, what is unreadable is lost. */
#define EVICT_PATIENCE	(2 * HZ)
/* Spans looked at to make room for one batch; the next batch looks at others. */
#define ROOM_SPANS	64
/* Of what prefers to stay, so much is passed over to find something else. */
#define ROOM_PASSED	1024UL

/* What a walk over the frames in use came to, in pages. */
struct evict_result {
	u64 moved;
	u64 unreadable;
};

/* Pages that are in use, but nobody's, are on their way out already. */
static void leave_strangers(struct hmm_batch *b, unsigned int n)
{
	struct page *page;
	unsigned int i;

	for (i = 0; i < n; i++) {
		page = migrate_pfn_to_page(b->src[i]);
		if (page && !hmm_page_is_owned(page))
			b->src[i] &= ~MIGRATE_PFN_MIGRATE;
	}
}

/* What is lost is neither read nor moved. Returns entries set aside, and which in @lost. */
static unsigned int set_aside_poisoned(struct hmm_region *region, struct hmm_batch *b,
				       unsigned int n, unsigned long *lost)
{
	unsigned int i, nr = 0;
	unsigned long before;

	if (likely(xa_empty(&region->poisoned)))
		return 0;
	for (i = 0; i < n; i++) {
		before = b->src[i];
		hmm_leave_poisoned(region, b, i, 1);
		if (b->src[i] != before) {
			__set_bit(i, lost);
			nr++;
		}
	}
	return nr;
}

/* The device goes, and with it what was set aside: zeroes take its place. */
static void replace_poisoned(struct hmm_batch *b, unsigned int n, const unsigned long *lost)
{
	struct page *page;
	unsigned int i;

	for_each_set_bit(i, lost, n) {
		page = alloc_page(GFP_HIGHUSER_MOVABLE | __GFP_NOWARN);
		if (!page)
			continue;
		clear_highpage(page);
		lock_page(page);
		b->src[i] |= MIGRATE_PFN_MIGRATE;
		b->dst[i] = migrate_pfn(page_to_pfn(page));
	}
}

/* What visits to mappings need, and come to. */
struct evict_visit {
	struct hmm_region *region;
	struct hmm_batch *b;
	bool give_up;
	struct evict_result *result;
};

/*
 * Where the kernel moves only what somebody maps, and where a folio is whole: the block, as far as
 * it is this mapping's. What shall be given up is split by that, and is small the next time.
 */
static void evict_mapped(struct page *page, struct vm_area_struct *vma, unsigned long addr,
			 bool write, void *arg)
{
	struct evict_visit *v = arg;
	const bool held = v->b->write;
	struct hmm_migrate m = {};

	v->b->write = write && !v->give_up;
	hmm_to_ram_move(v->region, v->b, vma, max(vma->vm_start, ALIGN_DOWN(addr, PMD_SIZE)),
			min(vma->vm_end, ALIGN(addr + 1, PMD_SIZE)), &m);
	v->b->write = held;
	v->result->moved += m.moved;
	v->result->unreadable += m.skipped[HMM_SKIP_COPY];
}

/* Bring home the pages of one span, at most one 2 MiB block. */
static void evict_span(struct hmm_region *region, struct hmm_batch *b, u64 first,
		       unsigned int n, bool give_up, struct evict_result *result)
{
	struct evict_visit visit = { .region = region, .b = b, .give_up = give_up,
				     .result = result };
	DECLARE_BITMAP(lost, HMM_BATCH) = {};
	unsigned long pfn = region->devmem.pfn_first + first;
	unsigned int i, nlost;
	unsigned long huge = 0;
	struct hmm_fill fill;
	u32 nseg = 0;

	if (!HMM_KERNEL_BY_PFN || !hmm_whole_seal(region, first, n)) {
		for (i = 0; i < n; i++)
			hmm_rmap_visit(pfn_to_page(pfn + i), b, evict_mapped, &visit);
		return;
	}
	memset(b->src, 0, n * sizeof(*b->src));
	memset(b->dst, 0, n * sizeof(*b->dst));
	migrate_device_range(b->src, pfn, n);
	hmm_whole_unseal(region, first);
	leave_strangers(b, n);
	nlost = set_aside_poisoned(region, b, n, lost);
	fill = hmm_to_ram_fill(region, b, n, NULL, 0, -1);
	if (hmm_core_plan_to_ram(b->src, b->dst, n, region->devmem.pfn_first, b->seg, &nseg))
		WARN_ON_ONCE(1);
	result->unreadable += hmm_copy_to_ram(region, b, nseg, fill.wanted - fill.missing,
					      give_up) + nlost;
	if (give_up && nlost)
		replace_poisoned(b, n, lost);
	migrate_device_pages(b->src, b->dst, n);
	result->moved += hmm_batch_moved(b, n, &huge);
	migrate_device_finalize(b->src, b->dst, n);
}

/* The same, for who looks on. */
static void evict_traced(struct hmm_region *region, struct hmm_batch *b, enum hmm_cause cause,
			 u64 first, u64 n, bool give_up, struct evict_result *result)
{
	struct hmm_migrate m = { .moved = result->moved };
	struct hmm_trace_move trace;

	hmm_trace_begin(region, &trace, HMM_TO_RAM, cause, 0, n, &m);
	evict_span(region, b, first, n, give_up, result);
	trace_evict(region, cause, first, n, result->moved - m.moved);
	m.moved = result->moved;
	m.skipped[HMM_SKIP_COPY] = result->unreadable;
	hmm_trace_end(region, &trace, b, &m);
}

/* One walk over all frames in use. */
static struct evict_result evict_pass(struct hmm_region *region, enum hmm_cause cause,
				      bool give_up)
{
	struct evict_result result = {};
	struct hmm_batch *b = hmm_batch_get();
	u64 from = 0, first, n;

	while (!hmm_core_next_span(region->core, from, HMM_BATCH, &first, &n)) {
		evict_traced(region, b, cause, first, n, give_up, &result);
		from = first + n;
		cond_resched();
	}
	hmm_batch_put(b);
	if (cause == HMM_CAUSE_TEARDOWN)
		hmm_count(region, NULL, to_ram_teardown, result.moved);
	else
		hmm_count(region, NULL, to_ram_evict, result.moved);
	return result;
}

/**
 * hmm_make_room() - bring home what the device has not used for longest
 * @region: the region, full or nearly so
 * @b: room to work in
 * @npages: frames that are needed
 *
 * Whoever is quicker may take what becomes free, so the caller tries again while this
 * returns true.
 *
 * Context: process context; sleeps.
 * Return: false if no page came home: all are pinned, there is no RAM, or the caller is killed.
 */
bool hmm_make_room(struct hmm_region *region, struct hmm_batch *b, unsigned long npages)
{
	unsigned long frames = region->devmem.pfn_last - region->devmem.pfn_first;
	unsigned long spare = min(ROOM_PASSED, frames / HMM_BATCH);
	struct evict_result result = {};
	unsigned int spans = 0;
	u64 first, n;

	while (spans < ROOM_SPANS && result.moved < npages) {
		if (fatal_signal_pending(current) ||
		    hmm_core_victim(region->core, HMM_BATCH, &first, &n))
			break;
		if (spare && hmm_hint_spares(region, first)) {
			spare--;
			continue;
		}
		evict_traced(region, b, HMM_CAUSE_EVICT, first, n, false, &result);
		spans++;
		cond_resched();
	}
	hmm_count(region, NULL, to_ram_evict, result.moved);
	return result.moved;
}

u64 hmm_frames_in_use(struct hmm_region *region)
{
	struct hmm_core_stats frames;

	hmm_core_stats(region->core, &frames);
	return frames.claimed + frames.resident;
}

/**
 * hmm_region_evict() - bring home everything that is on the device, of every process
 * @region: the region; it stays in use, and others may fill it again meanwhile
 *
 * Context: process context, mmap lock not held; sleeps.
 * Return: 0 nothing is left, or all that was there at the start has been home;
 * -ENODEV the device is gone; -EINTR deadly signal; -EBUSY pages that somebody pins or that
 * there is no RAM for stayed on the device, after two seconds without any progress.
 */
int hmm_region_evict(struct hmm_region *region)
{
	unsigned long patience = jiffies + EVICT_PATIENCE;
	u64 left, moved = 0;
	int ret = 0;

	if (!percpu_ref_tryget_live(&region->devmem.ref))
		return -ENODEV;
	for (left = hmm_frames_in_use(region); left && moved < left;) {
		u64 pass = evict_pass(region, HMM_CAUSE_EVICT, false).moved;

		if (!hmm_frames_in_use(region))
			break;
		moved += pass;
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		if (pass) {
			patience = jiffies + EVICT_PATIENCE;
		} else if (time_after(jiffies, patience)) {
			ret = -EBUSY;
			break;
		} else {
			msleep(1);
		}
	}
	percpu_ref_put(&region->devmem.ref);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_region_evict);

/*
 * The device goes; nothing new arrives. What is still there is brought home. Memory that the
 * device has failed to read for a while is lost with it; the processes find zeroes in its
 * place, which is said loudly, since nobody could tell otherwise.
 *
 * Returns how many pages somebody pins, or there is no RAM for, when patience, or the caller's
 * life, is at its end.
 */
unsigned long hmm_evict_for_teardown(struct hmm_region *region)
{
	unsigned long unread = jiffies + EVICT_PATIENCE;
	unsigned long patience = jiffies + hmm_remove_patience();
	struct device *dev = region->devmem.device;
	struct evict_result pass = {};
	bool give_up, told = false;
	unsigned long index;
	void *entry;
	u64 left;

	for (;;) {
		give_up = pass.unreadable && time_after(jiffies, unread);
		if (give_up && !told) {
			xa_for_each(&region->poisoned, index, entry)
				hmm_rmap_kill(pfn_to_page(region->devmem.pfn_first + index));
			told = true;
		}
		pass = evict_pass(region, HMM_CAUSE_TEARDOWN, give_up);
		if (give_up && pass.unreadable)
			dev_err(dev, "%llu pages of processes were lost: the device could not read them\n",
				pass.unreadable);
		left = hmm_frames_in_use(region);
		if (!left)
			return 0;
		if (pass.moved) {
			unread = jiffies + EVICT_PATIENCE;
			patience = jiffies + hmm_remove_patience();
		}
		if (time_after(jiffies, patience) || fatal_signal_pending(current))
			return left;
		msleep(1);
	}
}
