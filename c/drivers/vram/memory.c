// SPDX-License-Identifier: GPL-2.0
/*
 * The memory of the device, as hmm_devmem wants it: three callbacks that submit, one that
 * waits. Allocation, migration, CPU faults, eviction and teardown are done for us.
 *
 * A migration is one submission: every segment is mapped for DMA, all of them go into the
 * queues, and the fence of the whole is waited for once.
 */
#include <linux/dma-mapping.h>

#include "vram.h"

/* How the RAM of a batch is used by the device. */
static enum dma_data_direction direction(const struct vram_batch *batch)
{
	return batch->op == VRAM_READ ? DMA_FROM_DEVICE : DMA_TO_DEVICE;
}

static unsigned long ram_pfn(const struct vram_batch *batch, const struct hmm_segment *seg)
{
	return batch->op == VRAM_READ ? seg->dst : seg->src;
}

static void unmap(struct vram_batch *batch)
{
	struct device *dev = &batch->vram->pdev->dev;
	unsigned int i;

	for (i = 0; i < batch->nr; i++)
		if (batch->dma[i] != DMA_MAPPING_ERROR)
			dma_unmap_page(dev, batch->dma[i], batch->seg[i].npages * PAGE_SIZE,
				       direction(batch));
}

/* A segment that the device cannot be shown fails alone. */
static void map(struct vram_batch *batch)
{
	struct device *dev = &batch->vram->pdev->dev;
	struct hmm_segment *seg = batch->seg;
	unsigned int i;

	for (i = 0; i < batch->nr; i++, seg++) {
		batch->dma[i] = dma_map_page(dev, pfn_to_page(ram_pfn(batch, seg)), 0,
					     seg->npages * PAGE_SIZE, direction(batch));
		if (dma_mapping_error(dev, batch->dma[i])) {
			batch->dma[i] = DMA_MAPPING_ERROR;
			seg->status = -ENOMEM;
		}
	}
}

static int submit(struct hmm_region *region, struct hmm_copy *copy, enum vram_op op)
{
	struct vram_device *vram = hmm_region_data(region);
	struct vram_batch *batch;

	if (op != VRAM_READ && READ_ONCE(vram->closed))
		return -EBUSY;
	/* Two pools: who holds a batch of one never waits for another of the same. */
	batch = mempool_alloc(op == VRAM_CLEAR ? &vram->clears : &vram->copies, GFP_KERNEL);
	vram_batch_init(batch, vram, op, copy->seg, copy->nr);
	if (op != VRAM_CLEAR)
		map(batch);
	vram_batch_submit(batch);
	copy->fence = batch;
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

/* What failed stands in the segments; on return the device has let go of every page. */
static int wait(struct hmm_region *region, struct hmm_copy *copy)
{
	struct vram_batch *batch = copy->fence;
	struct vram_device *vram = batch->vram;

	vram_batch_wait(batch);
	if (batch->op != VRAM_CLEAR)
		unmap(batch);
	mempool_free(batch, batch->op == VRAM_CLEAR ? &vram->clears : &vram->copies);
	return 0;
}

const struct hmm_region_ops vram_region_ops = {
	.copy_to_device = copy_to_device,
	.copy_to_ram = copy_to_ram,
	.zero = zero,
	.wait = wait,
};
