// SPDX-License-Identifier: GPL-2.0
/*
 * The memory of the device, as hmm_devmem wants it: four callbacks that submit, one that
 * waits. Allocation, migration, DMA mapping, CPU faults, eviction and teardown are done for us.
 *
 * A migration is one submission: all segments go into the queues, and the fence of the whole is
 * waited for once.
 */
#include <linux/dma-mapping.h>
#include <linux/pci-p2pdma.h>

#include "vram.h"

static struct vram_batch *new_batch(struct vram_device *vram, struct hmm_copy *copy,
				    enum vram_op op)
{
	/* Two pools: who holds a batch of one never waits for another of the same. */
	struct vram_batch *batch = mempool_alloc(op == VRAM_CLEAR ? &vram->clears : &vram->copies,
						 GFP_KERNEL);

	vram_batch_init(batch, vram, op, copy->seg, copy->nr);
	batch->dma = copy->dma;
	copy->fence = batch;
	return batch;
}

static int submit(struct hmm_region *region, struct hmm_copy *copy, enum vram_op op)
{
	struct vram_device *vram = hmm_region_data(region);

	if (op != VRAM_READ && READ_ONCE(vram->closed))
		return -EBUSY;
	vram_batch_submit(new_batch(vram, copy, op));
	return 0;
}

static int copy_to_device(struct hmm_region *region, struct hmm_copy *copy)
{
	return submit(region, copy, VRAM_WRITE);
}

static int copy_to_ram(struct hmm_region *region, struct hmm_copy *copy)
{
	return submit(region, copy, VRAM_READ);
}

static int zero(struct hmm_region *region, struct hmm_copy *copy)
{
	return submit(region, copy, VRAM_CLEAR);
}

/*
 * Show the engine the part of the peer's BAR that the segments are in. The bus decides whether
 * the two can talk at all; it is asked before, because mapping complains aloud where they cannot.
 */
static int map_peer(struct vram_batch *batch, struct vram_device *peer)
{
	struct device *dev = &batch->vram->pdev->dev;
	u64 pfn = PHYS_PFN(pci_resource_start(peer->pdev, peer->bar)), first = U64_MAX, end = 0;
	unsigned int i;

	if (pci_p2pdma_distance(peer->pdev, dev, false) < 0)
		return -EOPNOTSUPP;
	for (i = 0; i < batch->nr; i++) {
		first = min(first, batch->seg[i].src);
		end = max(end, batch->seg[i].src + batch->seg[i].npages);
	}
	if (end - first > UINT_MAX >> PAGE_SHIFT)
		return -EOPNOTSUPP;
	sg_init_table(&batch->peer, 1);
	sg_set_page(&batch->peer, pfn_to_page(pfn + first), (end - first) << PAGE_SHIFT, 0);
	if (!dma_map_sg(dev, &batch->peer, 1, DMA_TO_DEVICE))
		return -EOPNOTSUPP;
	batch->base = sg_dma_address(&batch->peer) - (first << PAGE_SHIFT);
	return 0;
}

/* The engine fetches from the peer's BAR. Only it can: the CPU takes what it copies for RAM. */
static int copy_from_peer(struct hmm_region *region, struct hmm_copy *copy)
{
	struct vram_device *peer = hmm_region_data(copy->peer), *vram = hmm_region_data(region);
	struct vram_batch *batch;
	int ret;

	if (hmm_region_ops(copy->peer) != &vram_region_ops || !peer->bar_pages ||
	    READ_ONCE(vram->engine) != VRAM_ENGINE_DMA)
		return -EOPNOTSUPP;
	if (READ_ONCE(vram->closed))
		return -EBUSY;
	if (READ_ONCE(peer->engine) == VRAM_ENGINE_LOST)
		return -ENODEV;
	batch = new_batch(vram, copy, VRAM_WRITE);
	batch->dma_only = true;
	ret = map_peer(batch, peer);
	if (ret)
		mempool_free(batch, &vram->copies);
	else
		vram_batch_submit(batch);
	return ret;
}

/* What failed stands in the segments; on return the device has let go of every page. */
static int wait(struct hmm_region *region, struct hmm_copy *copy)
{
	struct vram_batch *batch = copy->fence;
	struct vram_device *vram = batch->vram;
	unsigned int i;

	vram_batch_wait(batch);
	if (batch->dma_only)
		dma_unmap_sg(&vram->pdev->dev, &batch->peer, 1, DMA_TO_DEVICE);
	/* The engine says of a segment only that it is bad: which page of it, is found one by one. */
	for (i = 0; i < copy->nr; i++)
		if (copy->seg[i].status == -EIO && copy->seg[i].npages > 1)
			copy->seg[i].status = -EAGAIN;
	mempool_free(batch, batch->op == VRAM_CLEAR ? &vram->clears : &vram->copies);
	return 0;
}

const struct hmm_region_ops vram_region_ops = {
	.copy_to_device = copy_to_device,
	.copy_to_ram = copy_to_ram,
	.zero = zero,
	.wait = wait,
	.copy_from_peer = copy_from_peer,
};
