// SPDX-License-Identifier: GPL-2.0
/*
 * Batches and their fences, whoever moves the bytes; and what happens when nobody does.
 *
 * A batch that has not come to an end in time is looked after by whoever waits for it: first
 * for completions whose interrupt was lost, then the engine is reset, which ends everything
 * under way, and what was ended so is submitted again. An engine that does not come back is
 * replaced by the CPU, so that every page comes home. A device whose registers read all ones is
 * gone, and its memory with it.
 */
#include <linux/highmem.h>
#include <linux/moduleparam.h>
#include <linux/sched/signal.h>
#include <linux/srcu.h>

#include "vram.h"

static unsigned int timeout_ms = 5000;
module_param(timeout_ms, uint, 0644);
MODULE_PARM_DESC(timeout_ms, "the engine is reset if a batch takes longer (default 5000)");

/* A batch is submitted so often before what failed has failed. */
#define MAX_TRIES	4
/* Batches that can be had when there is no memory. */
#define RESERVED	4
/* Waiting to be submitted. */
#define PENDING		(-EINPROGRESS)

/* Pages of video memory that a segment is about. */
static u64 video_index(const struct vram_batch *batch, const struct hmm_segment *seg)
{
	return batch->op == VRAM_READ ? seg->src : seg->dst;
}

/* Held by the CPU while it touches the aperture. */
DEFINE_STATIC_SRCU(aperture_srcu);

/**
 * vram_aperture_enter() - the CPU is going to touch the video memory
 * @vram: the device; while the bus resets it there is nothing in its BAR, and this waits
 *
 * Context: process context, sleeps.
 * Return: for vram_aperture_leave().
 */
int vram_aperture_enter(struct vram_device *vram)
{
	int idx;

	while (idx = srcu_read_lock(&aperture_srcu), READ_ONCE(vram->paused)) {
		srcu_read_unlock(&aperture_srcu, idx);
		wait_event(vram->wait, !READ_ONCE(vram->paused));
	}
	return idx;
}

void vram_aperture_leave(int idx)
{
	srcu_read_unlock(&aperture_srcu, idx);
}

static int cpu_segment(struct vram_batch *batch, struct hmm_segment *seg)
{
	struct vram_device *vram = batch->vram;
	void *video = vram->aperture + video_index(batch, seg) * PAGE_SIZE;
	int idx, ret = 0;
	u32 i;

	for (i = 0; !ret && i < seg->npages; i++, video += PAGE_SIZE) {
		idx = vram_aperture_enter(vram);
		switch (batch->op) {
		case VRAM_WRITE:
			memcpy(video, pfn_to_kaddr(seg->src + i), PAGE_SIZE);
			break;
		case VRAM_READ:
			memcpy(pfn_to_kaddr(seg->dst + i), video, PAGE_SIZE);
			break;
		case VRAM_CLEAR:
			memset(video, 0, PAGE_SIZE);
			break;
		}
		/* Then that was nobody's memory. */
		if (READ_ONCE(vram->engine) == VRAM_ENGINE_LOST)
			ret = -ENODEV;
		vram_aperture_leave(idx);
	}
	return ret;
}

static void cpu_work(struct work_struct *work)
{
	struct vram_batch *batch = container_of(work, struct vram_batch, work);
	unsigned int i;

	for (i = 0; i < batch->nr; i++) {
		if (batch->seg[i].status == PENDING)
			batch->seg[i].status = cpu_segment(batch, &batch->seg[i]);
		cond_resched();
	}
	vram_batch_end(batch);
}

/**
 * vram_batch_init() - prepare a batch
 * @batch: memory of the caller's, until vram_batch_wait() has returned
 * @vram: the device
 * @op: what to do; READ: seg->src is in video memory, else seg->dst
 * @seg: the segments; each gets its status
 * @nr: how many
 *
 * Unless @op is VRAM_CLEAR, the caller sets @batch->dma or @batch->base before it submits, for a
 * device with an engine.
 *
 * Context: any.
 */
void vram_batch_init(struct vram_batch *batch, struct vram_device *vram, enum vram_op op,
		     struct hmm_segment *seg, unsigned int nr)
{
	unsigned int i;

	batch->vram = vram;
	batch->op = op;
	batch->seg = seg;
	batch->nr = nr;
	batch->alone = false;
	batch->dma_only = false;
	batch->dma = NULL;
	for (i = 0; i < nr; i++)
		seg[i].status = PENDING;
}

/* One of the things that a batch waits for has happened. */
void vram_batch_end(struct vram_batch *batch)
{
	if (atomic_dec_and_test(&batch->pending))
		complete(&batch->done);
}

/* Nobody can do it. */
static void fail_batch(struct vram_batch *batch, int err)
{
	unsigned int i;

	for (i = 0; i < batch->nr; i++)
		if (batch->seg[i].status == PENDING)
			batch->seg[i].status = err;
	vram_batch_end(batch);
}

/**
 * vram_batch_submit() - start a batch
 * @batch: from vram_batch_init()
 *
 * Context: process context, may sleep until there is room in the rings.
 */
void vram_batch_submit(struct vram_batch *batch)
{
	init_completion(&batch->done);
	atomic_set(&batch->pending, 1);
	switch (READ_ONCE(batch->vram->engine)) {
	case VRAM_ENGINE_DMA:
		vram_nvme_submit(batch);
		break;
	case VRAM_ENGINE_CPU:
		if (batch->dma_only) {
			fail_batch(batch, -ENXIO);
			break;
		}
		INIT_WORK(&batch->work, cpu_work);
		queue_work(vram_helpers, &batch->work);
		break;
	case VRAM_ENGINE_LOST:
		fail_batch(batch, -ENODEV);
		break;
	}
}

/* Is there something to be submitted once more? */
static bool try_again(struct vram_batch *batch, unsigned int tries)
{
	bool alone = READ_ONCE(batch->alone), again = false;
	struct hmm_segment *seg;
	s32 status;

	for (seg = batch->seg; seg < batch->seg + batch->nr; seg++) {
		status = READ_ONCE(seg->status);
		/* Ended by a reset, or by another segment of the same command. */
		if (status == -EAGAIN || (status == -EIO && !alone) || status == PENDING) {
			seg->status = tries < MAX_TRIES ? PENDING : -ETIMEDOUT;
			again = true;
		}
	}
	batch->alone = true;
	return again && tries < MAX_TRIES;
}

/* How long anything of the engine may take. */
unsigned long vram_patience(void)
{
	return msecs_to_jiffies(READ_ONCE(timeout_ms)) + 1;
}

/* Nothing has happened for too long, since the engine was of @generation. */
void vram_engine_rescue(struct vram_device *vram, unsigned int generation)
{
	if (READ_ONCE(vram->engine) != VRAM_ENGINE_DMA)
		return;
	if (vram_nvme_poll(vram)) {
		atomic64_inc(&vram->lost_interrupts);
		return;
	}
	vram_engine_reset(vram, generation);
}

/**
 * vram_batch_wait() - wait for the fence of a batch
 * @batch: submitted
 *
 * Every segment has its status afterwards, and the device has let go of the RAM.
 *
 * Context: process context, sleeps; bounded by the watchdog.
 */
void vram_batch_wait(struct vram_batch *batch)
{
	struct vram_device *vram = batch->vram;
	unsigned int generation, tries = 0;

	do {
		generation = READ_ONCE(vram->generation);
		while (!wait_for_completion_timeout(&batch->done, vram_patience())) {
			vram_engine_rescue(vram, generation);
			generation = READ_ONCE(vram->generation);
		}
		if (!try_again(batch, ++tries))
			return;
		vram_batch_submit(batch);
	} while (true);
}

/* The device is gone; reset_lock is held, and nothing is under way any more. */
static void lose(struct vram_device *vram, const char *why)
{
	if (vram->engine == VRAM_ENGINE_LOST)
		return;
	WRITE_ONCE(vram->engine, VRAM_ENGINE_LOST);
	dev_err(&vram->pdev->dev, "lost: %s\n", why);
}

/* Bring the engine up, or do without; reset_lock is held and the queues are empty. */
static int start(struct vram_device *vram)
{
	int ret = vram_nvme_start(vram);

	if (ret == -ENODEV) {
		lose(vram, "the registers read all ones");
	} else if (ret) {
		/* Whatever it is doing, it shall not do it to our memory. */
		pci_clear_master(vram->pdev);
		WRITE_ONCE(vram->engine, VRAM_ENGINE_CPU);
		dev_err(&vram->pdev->dev,
			"the engine does not come back (%d): the CPU copies from now on\n", ret);
	}
	wake_up_all(&vram->wait);
	return ret;
}

/**
 * vram_engine_reset() - end all that is under way and start again
 * @vram: the device
 * @generation: when it was found to hang; nothing happens if it was reset since
 *
 * Context: process context, sleeps.
 */
void vram_engine_reset(struct vram_device *vram, unsigned int generation)
{
	int ret;

	mutex_lock(&vram->reset_lock);
	if (vram->engine != VRAM_ENGINE_DMA || vram->generation != generation || vram->paused)
		goto out;
	WRITE_ONCE(vram->generation, generation + 1);
	ret = vram_nvme_stop(vram);
	if (ret)
		pci_clear_master(vram->pdev);
	else
		dev_warn(&vram->pdev->dev, "the engine does not do what it should: reset\n");
	if (ret == -ENODEV)
		lose(vram, "the registers read all ones");
	/* Only now the device has let go of the pages. */
	vram_nvme_abort(vram, ret == -ENODEV ? -ENODEV : -EAGAIN);
	if (ret != -ENODEV)
		start(vram);
	wake_up_all(&vram->wait);
out:
	mutex_unlock(&vram->reset_lock);
}

static void reset_work(struct work_struct *work)
{
	struct vram_device *vram = container_of(work, struct vram_device, reset_work);

	vram_engine_reset(vram, READ_ONCE(vram->generation));
}

/* The same with something under way, perhaps; reset_lock is held. */
static void lose_all(struct vram_device *vram, const char *why)
{
	if (vram->engine == VRAM_ENGINE_DMA) {
		vram_nvme_stop(vram);
		vram_nvme_abort(vram, -ENODEV);
	}
	lose(vram, why);
	WRITE_ONCE(vram->paused, false);
	wake_up_all(&vram->wait);
}

/**
 * vram_engine_lose() - the device does not answer any more
 * @vram: the device
 * @why: for the log
 *
 * Context: process context, sleeps.
 */
void vram_engine_lose(struct vram_device *vram, const char *why)
{
	mutex_lock(&vram->reset_lock);
	lose_all(vram, why);
	mutex_unlock(&vram->reset_lock);
}

/**
 * vram_engine_look() - is the device still there
 * @vram: the device
 *
 * If its registers read all ones, and nobody resets it just now, it is lost.
 *
 * Context: process context, sleeps.
 */
void vram_engine_look(struct vram_device *vram)
{
	if (vram->layout != VRAM_LAYOUT_NVME || READ_ONCE(vram->engine) == VRAM_ENGINE_LOST ||
	    vram_read32(vram, NVME_REG_CSTS) != ~0U)
		return;
	mutex_lock(&vram->reset_lock);
	if (!vram->paused && vram_read32(vram, NVME_REG_CSTS) == ~0U)
		lose_all(vram, "the registers read all ones");
	mutex_unlock(&vram->reset_lock);
}

/**
 * vram_engine_pause() - stop the engine, to be resumed
 * @vram: the device
 *
 * What is under way waits for vram_engine_resume(); the device touches no memory until then, the
 * CPU does not touch the device's, and nobody asks its registers how it is.
 *
 * Context: process context, sleeps.
 * Return: 0, or -EIO if the device does not stop; it is to be resumed all the same.
 */
int vram_engine_pause(struct vram_device *vram)
{
	int ret = 0;

	mutex_lock(&vram->reset_lock);
	WRITE_ONCE(vram->paused, true);
	synchronize_srcu(&aperture_srcu);
	if (vram->engine == VRAM_ENGINE_DMA) {
		WRITE_ONCE(vram->generation, vram->generation + 1);
		ret = vram_nvme_stop(vram);
		if (ret)
			pci_clear_master(vram->pdev);
		else
			vram_nvme_abort(vram, -EAGAIN);
	}
	mutex_unlock(&vram->reset_lock);
	return ret ? -EIO : 0;
}

/**
 * vram_engine_resume() - start a paused engine again
 * @vram: the device; if it did not stop, it was reset since, or has no way to memory
 *
 * Without the engine the CPU copies from now on.
 *
 * Context: process context, sleeps.
 */
void vram_engine_resume(struct vram_device *vram)
{
	mutex_lock(&vram->reset_lock);
	if (vram->paused && vram->engine == VRAM_ENGINE_DMA) {
		vram_nvme_abort(vram, -EAGAIN);
		start(vram);
	}
	WRITE_ONCE(vram->paused, false);
	wake_up_all(&vram->wait);
	mutex_unlock(&vram->reset_lock);
}

/**
 * vram_engine_clear_all() - nothing of anybody stays in the video memory
 * @vram: the device, whose memory is not in use
 *
 * Context: process context, sleeps.
 * Return: 0 or a negative errno.
 */
int vram_engine_clear_all(struct vram_device *vram)
{
	struct hmm_segment seg = { .npages = vram->size >> PAGE_SHIFT };
	struct vram_batch *batch = mempool_alloc(&vram->clears, GFP_KERNEL);

	vram_batch_init(batch, vram, VRAM_CLEAR, &seg, 1);
	vram_batch_submit(batch);
	vram_batch_wait(batch);
	mempool_free(batch, &vram->clears);
	return seg.status;
}

/**
 * vram_engine_init() - set up what moves the bytes
 * @vram: the device, with its BARs mapped
 *
 * Context: process context, sleeps.
 * Return: 0, to be undone by vram_engine_exit(); or a negative errno.
 */
int vram_engine_init(struct vram_device *vram)
{
	int ret;

	mutex_init(&vram->reset_lock);
	init_waitqueue_head(&vram->wait);
	INIT_WORK(&vram->reset_work, reset_work);
	ret = mempool_init_kmalloc_pool(&vram->copies, RESERVED, sizeof(struct vram_batch));
	if (ret)
		return ret;
	ret = mempool_init_kmalloc_pool(&vram->clears, RESERVED, sizeof(struct vram_batch));
	if (ret)
		goto err_copies;
	vram->engine = VRAM_ENGINE_CPU;
	if (vram->layout == VRAM_LAYOUT_NVME) {
		vram->engine = VRAM_ENGINE_DMA;
		ret = vram_nvme_init(vram);
		if (ret)
			goto err_clears;
	}
	return 0;

err_clears:
	mempool_exit(&vram->clears);
err_copies:
	mempool_exit(&vram->copies);
	return ret;
}

/* Nothing is under way any more. */
void vram_engine_exit(struct vram_device *vram)
{
	cancel_work_sync(&vram->reset_work);
	if (vram->layout == VRAM_LAYOUT_NVME)
		vram_nvme_exit(vram);
	mempool_exit(&vram->clears);
	mempool_exit(&vram->copies);
}
