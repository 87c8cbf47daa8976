// SPDX-License-Identifier: GPL-2.0
/*
 * Copies: what the driver is asked to do, and what a failure means.
 */
#include <linux/dma-mapping.h>
#include <linux/highmem.h>

#include "internal.h"
#include "trace.h"

static struct page *device_page(struct hmm_region *region, u64 index)
{
	return pfn_to_page(region->devmem.pfn_first + index);
}

/* Coherent memory whose driver gave no callbacks: the CPU copies. */
static int cpu_copy_to_device(struct hmm_region *region, struct hmm_copy *copy)
{
	struct hmm_segment *seg;
	u32 i;

	for (seg = copy->seg; seg < copy->seg + copy->nr; seg++)
		for (i = 0; i < seg->npages; i++)
			copy_highpage(device_page(region, seg->dst + i),
				      pfn_to_page(seg->src + i));
	return 0;
}

static int cpu_copy_to_ram(struct hmm_region *region, struct hmm_copy *copy)
{
	struct hmm_segment *seg;
	u32 i;

	for (seg = copy->seg; seg < copy->seg + copy->nr; seg++)
		for (i = 0; i < seg->npages; i++)
			copy_highpage(pfn_to_page(seg->dst + i),
				      device_page(region, seg->src + i));
	return 0;
}

static int cpu_zero(struct hmm_region *region, struct hmm_copy *copy)
{
	struct hmm_segment *seg;
	u32 i;

	for (seg = copy->seg; seg < copy->seg + copy->nr; seg++)
		for (i = 0; i < seg->npages; i++)
			clear_highpage(device_page(region, seg->dst + i));
	return 0;
}

static const struct hmm_region_ops cpu_ops = {
	.copy_to_device = cpu_copy_to_device,
	.copy_to_ram = cpu_copy_to_ram,
	.zero = cpu_zero,
};

static const struct hmm_region_ops *region_ops(const struct hmm_region *region)
{
	return region->ops ? region->ops : &cpu_ops;
}

static void fail_all(struct hmm_copy *copy, int err)
{
	unsigned int i;

	for (i = 0; i < copy->nr; i++)
		copy->seg[i].status = err;
}

/*
 * Bus addresses for the RAM side of all segments. What cannot be mapped fails, and the segments
 * behind it with it, so that the driver sees only what it can do.
 */
static void map_dma(struct hmm_region *region, struct hmm_copy *copy, dma_addr_t *dma,
		    enum dma_data_direction direction)
{
	struct device *device = region->dma_device;
	struct hmm_segment *seg;
	unsigned int i;

	for (i = 0; i < copy->nr; i++) {
		seg = &copy->seg[i];
		dma[i] = dma_map_page(device, pfn_to_page(direction == DMA_TO_DEVICE ?
							  seg->src : seg->dst),
				      0, (size_t)seg->npages << PAGE_SHIFT, direction);
		if (dma_mapping_error(device, dma[i]))
			break;
		if (hmm_should_fail(HMM_FAIL_DMA)) {
			dma_unmap_page(device, dma[i], (size_t)seg->npages << PAGE_SHIFT,
				       direction);
			break;
		}
	}
	copy->dma = dma;
	while (copy->nr > i) {
		copy->seg[--copy->nr].status = -ENOMEM;
		copy->npages -= copy->seg[copy->nr].npages;
	}
}

static void unmap_dma(struct hmm_region *region, struct hmm_copy *copy,
		      enum dma_data_direction direction)
{
	unsigned int i;

	for (i = 0; i < copy->nr; i++)
		dma_unmap_page(region->dma_device, copy->dma[i],
			       (size_t)copy->seg[i].npages << PAGE_SHIFT, direction);
}

/* Hand a batch to the driver. Returns what it says. */
static int submit(struct hmm_region *region, struct hmm_copy *copy,
		  int (*fn)(struct hmm_region *region, struct hmm_copy *copy))
{
	int err = -EOPNOTSUPP;

	if (!copy->nr)
		return 0;
	if (hmm_should_fail(HMM_FAIL_COPY))
		err = -EIO;
	else if (fn)
		err = fn(region, copy);
	if (err)
		fail_all(copy, err);
	copy->submitted = !err;
	return err;
}

/* Wait for what was submitted. */
static void finish(struct hmm_region *region, struct hmm_copy *copy)
{
	int err = 0;

	if (!copy->submitted)
		return;
	if (region_ops(region)->wait)
		err = region_ops(region)->wait(region, copy);
	if (hmm_should_fail(HMM_FAIL_WAIT))
		err = -EIO;
	if (err)
		fail_all(copy, err);
}

/* What becomes of a segment that could not be copied. */
typedef void failed_fn(struct hmm_region *region, struct hmm_batch *b,
		       const struct hmm_segment *seg);

/*
 * Sort out what the driver could not do. Where it asks for the pages of a segment one by one, a
 * bad page does not fail its neighbours; a 2 MiB folio moves as a whole or not at all. Returns how
 * many pages have failed.
 */
static unsigned int sort_out(struct hmm_region *region, struct hmm_batch *b,
			     const struct hmm_copy *all, unsigned int nr,
			     int (*fn)(struct hmm_region *region, struct hmm_copy *copy),
			     failed_fn *failed)
{
	const struct hmm_segment *last = b->seg + nr, *at;
	unsigned int npages = 0;
	struct hmm_segment seg;
	dma_addr_t dma;
	u32 page;

	for (at = b->seg; at < last; at++) {
		if (likely(!at->status))
			continue;
		seg = *at;
		if (seg.status != -EAGAIN || hmm_entry_order(b->dst[seg.entry])) {
			failed(region, b, &seg);
			npages += seg.npages;
			continue;
		}
		for (page = 0; page < at->npages; page++) {
			struct hmm_copy copy = { .seg = &seg, .nr = 1, .npages = 1, .peer = all->peer };

			seg.src = at->src + page;
			seg.dst = at->dst + page;
			seg.entry = at->entry + page;
			seg.npages = 1;
			seg.status = 0;
			if (all->dma) {
				dma = all->dma[at - b->seg] + ((dma_addr_t)page << PAGE_SHIFT);
				copy.dma = &dma;
			}
			submit(region, &copy, fn);
			finish(region, &copy);
			if (!seg.status)
				continue;
			failed(region, b, &seg);
			npages++;
		}
	}
	return npages;
}

/* Entries @i to @n of a batch to the device: their frames go back, their pages stay. */
void hmm_drop_frames(struct hmm_region *region, struct hmm_batch *b, unsigned int i,
		     unsigned int n)
{
	for (; i < n; i++) {
		if (!(b->dst[i] & MIGRATE_PFN_VALID))
			continue;
		if (hmm_core_rollback(region->core, raw_smp_processor_id(),
				      b->dst[i] >> MIGRATE_PFN_SHIFT,
				      1U << hmm_entry_order(b->dst[i])))
			WARN(1, "frame %#lx was not claimed\n",
			     b->dst[i] >> MIGRATE_PFN_SHIFT);
		b->dst[i] = 0;
	}
}

/* A failed segment to the device. */
static void drop_segment(struct hmm_region *region, struct hmm_batch *b,
			 const struct hmm_segment *seg)
{
	trace_copy_error(region, HMM_TO_DEVICE, seg);
	hmm_drop_frames(region, b, seg->entry, seg->entry + seg->npages);
}

/**
 * hmm_copy_from_peer() - fill the frames that the core has planned from another device
 * @region: the region
 * @peer: where the pages are
 * @b: dst holds page indices; those of failed segments are 0 afterwards
 * @n: entries in @b, without holes
 * @plan: what hmm_core_plan_to_device() said of it
 *
 * Return: false if the driver cannot do that.
 */
bool hmm_copy_from_peer(struct hmm_region *region, struct hmm_region *peer,
			struct hmm_batch *b, unsigned int n, const struct hmm_plan *plan)
{
	struct hmm_copy copy = { .seg = b->seg, .nr = plan->ncopy, .peer = peer,
				 .npages = plan->claimed };
	unsigned int i;
	int err;

	for (i = 0; i < copy.nr; i++)
		b->seg[i].src -= peer->devmem.pfn_first;
	err = submit(region, &copy, region->ops->copy_from_peer);
	finish(region, &copy);
	sort_out(region, b, &copy, plan->ncopy, region->ops->copy_from_peer, drop_segment);
	return err != -EOPNOTSUPP;
}

/**
 * hmm_copy_to_device() - fill the frames that the core has planned
 * @region: the region
 * @b: dst holds page indices; those of failed segments are 0 afterwards
 * @n: entries in @b
 * @plan: what hmm_core_plan_to_device() said of it
 *
 * Zeroing and copying are both under way before either is waited for.
 */
void hmm_copy_to_device(struct hmm_region *region, struct hmm_batch *b, unsigned int n,
			const struct hmm_plan *plan)
{
	struct hmm_copy copy = { .seg = b->seg, .nr = plan->ncopy };
	struct hmm_copy zero = { .seg = b->seg + n - plan->nzero, .nr = plan->nzero };
	unsigned int i;

	for (i = 0; i < zero.nr; i++)
		zero.npages += zero.seg[i].npages;
	copy.npages = plan->claimed - zero.npages;

	if (region->dma_device)
		map_dma(region, &copy, b->dma, DMA_TO_DEVICE);
	submit(region, &zero, region_ops(region)->zero);
	submit(region, &copy, region_ops(region)->copy_to_device);
	finish(region, &zero);
	finish(region, &copy);
	sort_out(region, b, &copy, plan->ncopy, region_ops(region)->copy_to_device, drop_segment);
	if (region->dma_device)
		unmap_dma(region, &copy, DMA_TO_DEVICE);

	/*
	 * The kernel wants every page of a huge hole or none, so one failure fails all
	 * holes of the batch.
	 */
	for (i = n - plan->nzero; i < n; i++)
		if (b->seg[i].status)
			break;
	if (i < n)
		for (i = n - plan->nzero; i < n; i++)
			drop_segment(region, b, &b->seg[i]);
}

/* A failed segment to RAM: its pages are freed, the data stays on the device. */
static void drop_pages(struct hmm_region *region, struct hmm_batch *b,
		       const struct hmm_segment *seg)
{
	struct page *page;
	u32 i;

	trace_copy_error(region, HMM_TO_RAM, seg);
	for (i = seg->entry; i < seg->entry + seg->npages; i++) {
		page = migrate_pfn_to_page(b->dst[i]);
		if (!page)
			continue;
		unlock_page(page);
		put_page(page);
		b->dst[i] = 0;
	}
}

/* The same when the data is given up: its pages are cleared. */
static void lose_pages(struct hmm_region *region, struct hmm_batch *b,
			const struct hmm_segment *seg)
{
	u32 i;

	trace_copy_error(region, HMM_TO_RAM, seg);
	for (i = 0; i < seg->npages; i++)
		clear_highpage(pfn_to_page(seg->dst + i));
}

/**
 * hmm_copy_to_ram() - fill RAM pages from the device
 * @region: the region
 * @b: dst holds locked RAM pages; those of failed segments are freed, and 0 afterwards
 * @nr: segments in @b
 * @npages: pages of all of them
 * @give_up: what cannot be read is lost, and cleared, instead
 *
 * Return: pages that could not be read.
 */
unsigned int hmm_copy_to_ram(struct hmm_region *region, struct hmm_batch *b,
			     unsigned int nr, unsigned int npages, bool give_up)
{
	struct hmm_copy copy = { .seg = b->seg, .nr = nr, .npages = npages };
	unsigned int failed;

	if (region->dma_device)
		map_dma(region, &copy, b->dma, DMA_FROM_DEVICE);
	submit(region, &copy, region_ops(region)->copy_to_ram);
	finish(region, &copy);
	failed = sort_out(region, b, &copy, nr, region_ops(region)->copy_to_ram,
			  give_up ? lose_pages : drop_pages);
	if (region->dma_device)
		unmap_dma(region, &copy, DMA_FROM_DEVICE);
	return failed;
}
