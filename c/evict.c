// SPDX-License-Identifier: GPL-2.0
/*
 * Leg 7 and the last part of leg 8: pages come home without a VMA, found by where they are
 * on the device.
 */
#include <linux/delay.h>
#include <linux/sched/signal.h>

#include "internal.h"
#include "trace.h"

/* Without a page moved for so long: a request fails, what is unreadable is lost. */
#define EVICT_PATIENCE	(2 * HZ)
/* At teardown there is no giving up, but a word every so often. */
#define EVICT_COMPLAIN	(10 * HZ)

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

/* Bring home the pages of one span, at most one 2 MiB block. */
static void evict_span(struct hmm_region *region, struct hmm_batch *b, u64 first,
		       unsigned int n, bool give_up, struct evict_result *result)
{
	u32 nseg = 0;

	memset(b->src, 0, n * sizeof(*b->src));
	memset(b->dst, 0, n * sizeof(*b->dst));
	migrate_device_range(b->src, region->devmem.pfn_first + first, n);
	leave_strangers(b, n);
	hmm_to_ram_fill(region, b, n, NULL, 0, -1);
	if (hmm_core_plan_to_ram(b->src, b->dst, n, region->devmem.pfn_first, b->seg, &nseg))
		WARN_ON_ONCE(1);
	result->unreadable += hmm_copy_to_ram(region, b, nseg, give_up);
	migrate_device_pages(b->src, b->dst, n);
	result->moved += hmm_batch_count(b, n, true);
	migrate_device_finalize(b->src, b->dst, n);
}

/* One walk over all frames in use. */
static struct evict_result evict_pass(struct hmm_region *region, enum hmm_cause cause,
				      bool give_up)
{
	struct evict_result result = {};
	struct hmm_batch *b = hmm_batch_get();
	struct hmm_migrate m = {};
	struct hmm_trace_move trace;
	u64 from = 0, first, n;

	while (!hmm_core_next_span(region->core, from, HMM_BATCH, &first, &n)) {
		hmm_trace_begin(region, &trace, HMM_TO_RAM, cause, 0, n, &m);
		evict_span(region, b, first, n, give_up, &result);
		trace_evict(region, cause, first, n, result.moved - m.moved);
		m.moved = result.moved;
		m.skipped[HMM_SKIP_COPY] = result.unreadable;
		hmm_trace_end(region, &trace, b, &m);
		from = first + n;
		cond_resched();
	}
	hmm_batch_put(b);
	hmm_count(region, NULL, to_ram_request, result.moved);
	return result;
}

static u64 frames_in_use(struct hmm_region *region)
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
	for (left = frames_in_use(region); left && moved < left;) {
		u64 pass = evict_pass(region, HMM_CAUSE_EVICT, false).moved;

		if (!frames_in_use(region))
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
 * The device goes; nothing new arrives. What is still there is brought home, however long it
 * takes: a page that somebody pins can only be waited for, so this says what it waits for.
 * Memory that the device has failed to read for a while is lost with it; the processes
 * find zeroes in its place, which is said loudly, since nobody could tell otherwise.
 */
void hmm_evict_for_teardown(struct hmm_region *region)
{
	unsigned long patience = jiffies + EVICT_PATIENCE;
	unsigned long complain = jiffies + EVICT_COMPLAIN;
	struct device *dev = region->devmem.device;
	struct evict_result pass = {};
	bool give_up;
	u64 left;

	for (;;) {
		give_up = pass.unreadable && time_after(jiffies, patience);
		pass = evict_pass(region, HMM_CAUSE_TEARDOWN, give_up);
		if (give_up)
			dev_err(dev, "%llu pages of processes were lost: the device could not read them\n",
				pass.unreadable);
		left = frames_in_use(region);
		if (!left)
			return;
		if (pass.moved)
			patience = jiffies + EVICT_PATIENCE;
		if (time_after(jiffies, complain)) {
			dev_warn(dev, "removal waits for %llu pages of device memory in use\n",
				 left);
			complain = jiffies + EVICT_COMPLAIN;
		}
		msleep(1);
	}
}
