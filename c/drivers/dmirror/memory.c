// SPDX-License-Identifier: GPL-2.0
/*
 * The memory of the device: how bytes get in and out of it. This is all that a driver has
 * to write to have its memory managed.
 */
#include <linux/highmem.h>
#include <linux/slab.h>

#include "dmirror.h"

/* The memory is made of blocks of 2 MiB, also where no process has pages of that size. */
#define BLOCK_ORDER	(PMD_SHIFT - PAGE_SHIFT)

/* Shall this segment fail? Counts it, if somebody asked for failures of this leg. */
static bool should_fail(struct dmirror_device *device, u32 leg)
{
	bool fail = false;

	if (READ_ONCE(device->fail_leg) != leg)
		return false;
	spin_lock(&device->fail_lock);
	if (device->fail_leg == leg) {
		if (device->fail_skip) {
			device->fail_skip--;
		} else if (device->fail_count) {
			device->fail_count--;
			fail = true;
		}
	}
	spin_unlock(&device->fail_lock);
	return fail;
}

/* What becomes of a segment that shall be copied: 0, or why not. */
static int copy_error(struct dmirror_device *device, u32 leg, const struct hmm_segment *seg)
{
	if (should_fail(device, leg))
		return -EIO;
	return seg->npages > 1 && should_fail(device, HMM_DMIRROR_FAIL_LONG) ? -EAGAIN : 0;
}

/* The RAM that stands for one page of device memory. */
static struct page *backing_page(struct dmirror_device *device, u64 index)
{
	return device->blocks[index / DMIRROR_BLOCK_PAGES] + index % DMIRROR_BLOCK_PAGES;
}

static int copy_to_device(struct hmm_region *region, struct hmm_copy *copy)
{
	struct dmirror_device *device = hmm_region_data(region);
	struct hmm_segment *seg;
	u32 i;

	for (seg = copy->seg; seg < copy->seg + copy->nr; seg++) {
		seg->status = copy_error(device, HMM_DMIRROR_FAIL_COPY_TO_DEVICE, seg);
		if (seg->status)
			continue;
		for (i = 0; i < seg->npages; i++)
			copy_highpage(backing_page(device, seg->dst + i),
				      pfn_to_page(seg->src + i));
	}
	return 0;
}

static int copy_to_ram(struct hmm_region *region, struct hmm_copy *copy)
{
	struct dmirror_device *device = hmm_region_data(region);
	struct hmm_segment *seg;
	u32 i;

	for (seg = copy->seg; seg < copy->seg + copy->nr; seg++) {
		seg->status = copy_error(device, HMM_DMIRROR_FAIL_COPY_TO_RAM, seg);
		if (seg->status)
			continue;
		for (i = 0; i < seg->npages; i++)
			copy_highpage(pfn_to_page(seg->dst + i),
				      backing_page(device, seg->src + i));
	}
	return 0;
}

static int zero(struct hmm_region *region, struct hmm_copy *copy)
{
	struct dmirror_device *device = hmm_region_data(region);
	struct hmm_segment *seg;
	u32 i;

	for (seg = copy->seg; seg < copy->seg + copy->nr; seg++) {
		if (should_fail(device, HMM_DMIRROR_FAIL_ZERO)) {
			seg->status = -EIO;
			continue;
		}
		for (i = 0; i < seg->npages; i++)
			clear_highpage(backing_page(device, seg->dst + i));
	}
	return 0;
}

/* From another device of this kind. Any other is not made of RAM. */
static int copy_from_peer(struct hmm_region *region, struct hmm_copy *copy)
{
	struct dmirror_device *device = hmm_region_data(region);
	struct dmirror_device *peer = hmm_region_data(copy->peer);
	struct hmm_segment *seg;
	u32 i;

	if (hmm_region_ops(copy->peer) != &dmirror_region_ops)
		return -EOPNOTSUPP;
	for (seg = copy->seg; seg < copy->seg + copy->nr; seg++) {
		seg->status = copy_error(device, HMM_DMIRROR_FAIL_COPY_TO_DEVICE, seg);
		if (seg->status)
			continue;
		for (i = 0; i < seg->npages; i++)
			copy_highpage(backing_page(device, seg->dst + i),
				      backing_page(peer, seg->src + i));
	}
	return 0;
}

/* The copies above are done when they return; a real device waits for its fence here. */
static int wait(struct hmm_region *region, struct hmm_copy *copy)
{
	return should_fail(hmm_region_data(region), HMM_DMIRROR_FAIL_WAIT) ? -EIO : 0;
}

const struct hmm_region_ops dmirror_region_ops = {
	.copy_to_device = copy_to_device,
	.copy_to_ram = copy_to_ram,
	.zero = zero,
	.wait = wait,
	.copy_from_peer = copy_from_peer,
};

static void free_blocks(void *data)
{
	struct dmirror_device *device = data;

	while (device->nr_blocks)
		__free_pages(device->blocks[--device->nr_blocks], BLOCK_ORDER);
	kvfree(device->blocks);
	device->blocks = NULL;
}

/* Give the device @size bytes of private memory, freed with @dev. */
int dmirror_memory_add(struct device *dev, struct dmirror_device *device, u64 size)
{
	unsigned int wanted = size / PMD_SIZE;
	int ret;

	device->blocks = kvcalloc(wanted, sizeof(*device->blocks), GFP_KERNEL);
	if (!device->blocks)
		return -ENOMEM;
	ret = devm_add_action_or_reset(dev, free_blocks, device);
	if (ret)
		return ret;
	while (device->nr_blocks < wanted) {
		struct page *block = alloc_pages(GFP_HIGHUSER | __GFP_ZERO | __GFP_NOWARN |
						 __GFP_RETRY_MAYFAIL, BLOCK_ORDER);

		if (!block)
			return -ENOMEM;
		device->blocks[device->nr_blocks++] = block;
	}
	return 0;
}

/* Where the device finds the bytes of @page, which is in its memory or in RAM. */
void *dmirror_memory_address(struct dmirror_device *device, struct page *page)
{
	if (device->blocks && hmm_region_of_page(page) == device->region)
		page = backing_page(device, hmm_region_page_index(device->region, page));
	return page_address(page);
}
