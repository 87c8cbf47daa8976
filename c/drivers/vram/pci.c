// SPDX-License-Identifier: GPL-2.0
/*
 * The PCI function: what belongs to it, and in which order it comes and goes.
 *
 * The driver claims no device by itself. What it drives looks like a disk, and somebody's disk
 * it may be: so there is no table of ids, and a device is given to it by name,
 *
 *	echo hmm_vram > /sys/bus/pci/devices/0000:00:04.0/driver_override
 *	echo 0000:00:04.0 > /sys/bus/pci/drivers_probe
 *
 * or by new_id. Even then nothing is written to blocks before they were seen to be the memory
 * region.
 */
#include <linux/debugfs.h>
#include <linux/dma-mapping.h>
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/pci-p2pdma.h>
#include <linux/random.h>
#include <linux/slab.h>

#include "vram.h"

#define CLASS_NVME		0x010802
#define VENDOR_IVSHMEM		0x1af4
#define DEVICE_IVSHMEM		0x1110
#define BAR_IVSHMEM		2

static bool coherent;
module_param(coherent, bool, 0644);
MODULE_PARM_DESC(coherent,
		 "devices bound from now on: the CPU uses the memory in its BAR (default no, if the kernel offers private memory)");

/* A device that lies: pairs of a register's offset and what it reads as, of all devices. */
static unsigned int pretend[8];
static unsigned int nr_pretend;
module_param_array(pretend, uint, &nr_pretend, 0600);
MODULE_PARM_DESC(pretend, "for tests: OFFSET,VALUE,... of registers that read as VALUE");

struct workqueue_struct *vram_workqueue, *vram_helpers;
static struct dentry *vram_debugfs;
static DEFINE_IDA(vram_ids);

u32 vram_read32(struct vram_device *vram, unsigned int reg)
{
	unsigned int i;

	if (READ_ONCE(vram->tricks.gone))
		return ~0U;
	for (i = 0; i + 1 < READ_ONCE(nr_pretend) && i + 1 < ARRAY_SIZE(pretend); i += 2)
		if (pretend[i] == reg)
			return pretend[i + 1];
	return readl(vram->regs + reg);
}

u64 vram_read64(struct vram_device *vram, unsigned int reg)
{
	u64 low = vram_read32(vram, reg);

	return low | (u64)vram_read32(vram, reg + 4) << 32;
}

static void device_free(struct kref *kref)
{
	struct vram_device *vram = container_of(kref, struct vram_device, kref);

	if (vram->region)
		hmm_region_put(vram->region);
	kfree(vram);
}

void vram_device_put(struct vram_device *vram)
{
	kref_put(&vram->kref, device_free);
}

/* ------------------------------------------------------------------------
 * What is undone when the driver is unbound, in reverse order
 */

static void undo_device(void *data)
{
	struct vram_device *vram = data;

	/* Open files keep the rest, but the name is free. */
	ida_free(&vram_ids, vram->id);
	vram_device_put(vram);
}

static void undo_enable(void *data)
{
	struct vram_device *vram = data;

	pci_clear_master(vram->pdev);
	pci_disable_device(vram->pdev);
}

static void undo_regs(void *data)
{
	struct vram_device *vram = data;

	iounmap(vram->regs);
	pci_release_region(vram->pdev, 0);
}

static void undo_bar(void *data)
{
	struct vram_device *vram = data;

	pci_release_region(vram->pdev, vram->bar);
}

static void undo_aperture(void *data)
{
	struct vram_device *vram = data;

	memunmap(vram->aperture);
	vram->aperture = NULL;
}

static void undo_engine(void *data)
{
	vram_engine_exit(data);
}

/* Every page has come home: nothing of anybody stays behind. */
static void undo_contents(void *data)
{
	struct vram_device *vram = data;

	if (READ_ONCE(vram->engine) != VRAM_ENGINE_LOST && vram_engine_clear_all(vram))
		dev_warn(&vram->pdev->dev, "what was in the memory could not be cleared\n");
}

static int map_registers(struct vram_device *vram)
{
	struct pci_dev *pdev = vram->pdev;
	int ret;

	if (pci_resource_len(pdev, 0) < NVME_REG_DBS + PAGE_SIZE)
		return -ENODEV;
	ret = pci_request_region(pdev, 0, VRAM_NAME);
	if (ret)
		return ret;
	vram->regs = ioremap(pci_resource_start(pdev, 0), pci_resource_len(pdev, 0));
	if (!vram->regs) {
		pci_release_region(pdev, 0);
		return -ENOMEM;
	}
	return devm_add_action_or_reset(&pdev->dev, undo_regs, vram);
}

/* Claim the video memory. */
static int claim_memory(struct vram_device *vram)
{
	struct pci_dev *pdev = vram->pdev;
	int ret;

	ret = pci_request_region(pdev, vram->bar, VRAM_NAME);
	if (ret)
		return ret;
	ret = devm_add_action_or_reset(&pdev->dev, undo_bar, vram);
	if (ret)
		return ret;
	vram->size = pci_resource_len(pdev, vram->bar);
	if (!IS_ALIGNED(vram->size, PMD_SIZE) ||
	    !IS_ALIGNED(pci_resource_start(pdev, vram->bar), PMD_SIZE)) {
		dev_err(&pdev->dev, "memory of %llu bytes is not a multiple of 2 MiB\n",
			vram->size);
		return -ENXIO;
	}
	return 0;
}

/* The way of the shader cores, and of the CPU where there is no engine, to the memory. */
static int map_aperture(struct vram_device *vram)
{
	/* Two mappings of one page must not disagree about caching. */
	vram->aperture = memremap(pci_resource_start(vram->pdev, vram->bar), vram->size,
				  vram->private ? MEMREMAP_WC : MEMREMAP_WB);
	if (!vram->aperture)
		return -ENOMEM;
	return devm_add_action_or_reset(&vram->pdev->dev, undo_aperture, vram);
}

/*
 * Is what the engine reads what the CPU sees? Nothing is written through the engine before
 * that is known: the blocks might be a disk.
 */
static int check_same(struct vram_device *vram, u64 index)
{
	u64 *video = vram->aperture + index * PAGE_SIZE, before = *video, token = get_random_u64();
	struct hmm_segment seg = { .src = index, .npages = 1 };
	struct device *dev = &vram->pdev->dev;
	struct vram_batch *batch;
	struct page *page;
	dma_addr_t dma;
	bool same;

	page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	if (!page)
		return -ENOMEM;
	seg.dst = page_to_pfn(page);
	batch = mempool_alloc(&vram->copies, GFP_KERNEL);
	WRITE_ONCE(*video, token);
	/* It was written when it can be read back. */
	mb();
	same = READ_ONCE(*video) == token;
	vram_batch_init(batch, vram, VRAM_READ, &seg, 1);
	dma = dma_map_page(dev, page, 0, PAGE_SIZE, DMA_FROM_DEVICE);
	if (dma_mapping_error(dev, dma)) {
		seg.status = -ENOMEM;
	} else {
		batch->dma = &dma;
		vram_batch_submit(batch);
		vram_batch_wait(batch);
		dma_unmap_page(dev, dma, PAGE_SIZE, DMA_FROM_DEVICE);
	}
	same = same && !seg.status && *(u64 *)page_address(page) == token;
	WRITE_ONCE(*video, before);
	mempool_free(batch, &vram->copies);
	__free_page(page);
	if (same)
		return 0;
	dev_err(dev, "page %llu of the memory region is not where the engine reads it: two files? (%d)\n",
		index, seg.status);
	return seg.status ?: -ENXIO;
}

static int add_region(struct vram_device *vram)
{
	struct hmm_region_params params = {
		.ops = &vram_region_ops,
		.driver_data = vram,
		/* The CPU needs no bus addresses. */
		.dma_device = vram->layout == VRAM_LAYOUT_NVME ? &vram->pdev->dev : NULL,
	};
	struct hmm_region *region;

	if (vram->private)
		params.size = vram->size;
	else
		params.res = &vram->pdev->resource[vram->bar];
	/* Coherent memory has struct pages anyway. Without them peers go by way of RAM. */
	vram->bar_pages = !vram->private || !pci_p2pdma_add_resource(vram->pdev, vram->bar, 0, 0);
	region = devm_hmm_region_add(&vram->pdev->dev, &params);
	if (IS_ERR(region))
		return PTR_ERR(region);
	/* Files ask it for figures after the device is gone. */
	hmm_region_get(region);
	vram->region = region;
	return 0;
}

static void add_debugfs(struct vram_device *vram)
{
	struct vram_tricks *tricks = &vram->tricks;
	struct dentry *dir = debugfs_create_dir(pci_name(vram->pdev), vram_debugfs);

	vram->debugfs = dir;
	debugfs_create_bool("gone", 0600, dir, &tricks->gone);
	debugfs_create_bool("hang", 0600, dir, &tricks->hang);
	debugfs_create_bool("stuck", 0600, dir, &tricks->stuck);
	debugfs_create_u32("drop_interrupts", 0600, dir, &tricks->drop_interrupts);
	debugfs_create_u32("odd_completions", 0600, dir, &tricks->odd_completions);
}

static int find_memory(struct vram_device *vram)
{
	struct pci_dev *pdev = vram->pdev;
	int ret;

	if (vram->layout == VRAM_LAYOUT_IVSHMEM) {
		vram->bar = BAR_IVSHMEM;
		return pci_resource_len(pdev, vram->bar) ? 0 : -ENODEV;
	}
	ret = map_registers(vram);
	if (!ret)
		ret = vram_nvme_find_memory(vram);
	if (ret == -ENODEV)
		dev_err(&pdev->dev, "an NVMe function without a persistent memory region\n");
	return ret;
}

/* Everything but the node; devres undoes it. */
static int set_up(struct vram_device *vram)
{
	struct pci_dev *pdev = vram->pdev;
	struct device *dev = &pdev->dev;
	int ret;

	ret = pci_enable_device(pdev);
	if (ret)
		return ret;
	ret = devm_add_action_or_reset(dev, undo_enable, vram);
	if (ret)
		return ret;
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	ret = find_memory(vram);
	if (ret)
		return ret;
	ret = claim_memory(vram);
	if (ret)
		return ret;
	ret = map_aperture(vram);
	if (ret)
		return ret;
	ret = vram_engine_init(vram);
	if (ret)
		return ret;
	ret = devm_add_action_or_reset(dev, undo_engine, vram);
	if (ret)
		return ret;
	ret = check_same(vram, 0);
	if (!ret)
		ret = check_same(vram, (vram->size >> PAGE_SHIFT) - 1);
	if (ret)
		return ret;
	/* Whoever used it before shall not be read by whoever uses it now. */
	ret = vram_engine_clear_all(vram);
	if (ret)
		return ret;
	ret = devm_add_action_or_reset(dev, undo_contents, vram);
	if (ret)
		return ret;
	return add_region(vram);
}

static int vram_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	unsigned int caps = hmm_devmem_caps();
	bool private = caps & HMM_CAP_PRIVATE && !READ_ONCE(coherent);
	struct vram_device *vram;
	int ret;

	if (!private && !(caps & HMM_CAP_COHERENT)) {
		dev_err(&pdev->dev, "this kernel has no %s device memory: not bound\n",
			caps & HMM_CAP_PRIVATE ? "coherent" : "private or coherent");
		return -EOPNOTSUPP;
	}
	if (pdev->class != CLASS_NVME &&
	    (pdev->vendor != VENDOR_IVSHMEM || pdev->device != DEVICE_IVSHMEM)) {
		dev_err(&pdev->dev, "neither an NVMe function nor ivshmem: not bound\n");
		return -ENODEV;
	}

	vram = kzalloc(sizeof(*vram), GFP_KERNEL);
	if (!vram)
		return -ENOMEM;
	kref_init(&vram->kref);
	vram->pdev = pdev;
	vram->private = private;
	vram->layout = pdev->class == CLASS_NVME ? VRAM_LAYOUT_NVME : VRAM_LAYOUT_IVSHMEM;
	mutex_init(&vram->lock);
	INIT_LIST_HEAD(&vram->contexts);
	spin_lock_init(&vram->fault_lock);
	INIT_LIST_HEAD(&vram->faults);
	INIT_WORK(&vram->fault_work, vram_fault_work);
	vram->id = ida_alloc(&vram_ids, GFP_KERNEL);
	if (vram->id < 0) {
		ret = vram->id;
		kfree(vram);
		return ret;
	}
	snprintf(vram->name, sizeof(vram->name), VRAM_NAME "%d", vram->id);
	ret = devm_add_action_or_reset(&pdev->dev, undo_device, vram);
	if (ret)
		return ret;
	ret = set_up(vram);
	if (ret)
		return ret;

	vram->misc.minor = MISC_DYNAMIC_MINOR;
	vram->misc.name = vram->name;
	vram->misc.fops = &vram_fops;
	vram->misc.mode = 0660;
	vram->misc.parent = &pdev->dev;
	ret = misc_register(&vram->misc);
	if (ret)
		return ret;
	pci_set_drvdata(pdev, vram);
	/* What a reset by the bus puts back. */
	pci_save_state(pdev);
	add_debugfs(vram);
	dev_info(&pdev->dev, "%s: %llu MiB of %s memory, copied by %s\n", vram->name,
		 vram->size >> 20, private ? "private" : "coherent",
		 vram->engine == VRAM_ENGINE_DMA ? "its queues" : "the CPU");
	return 0;
}

/*
 * No new files, and those open find a dead device; commands end. Then devres: every page comes
 * home through the engine, the memory is cleared, the engine stops.
 */
static void vram_remove(struct pci_dev *pdev)
{
	struct vram_device *vram = pci_get_drvdata(pdev);

	misc_deregister(&vram->misc);
	debugfs_remove_recursive(vram->debugfs);
	/* In the middle of an error of the bus: what comes after it does not come any more. */
	vram_engine_resume(vram);
	/* Pulled out, or just let go? */
	vram_engine_look(vram);
	vram_contexts_stop(vram);
}

/* ------------------------------------------------------------------------
 * Errors of the bus, resets from outside, sleep
 */

static pci_ers_result_t vram_error_detected(struct pci_dev *pdev, pci_channel_state_t state)
{
	struct vram_device *vram = pci_get_drvdata(pdev);

	if (state == pci_channel_io_perm_failure) {
		vram_engine_lose(vram, "the bus has given it up");
		return PCI_ERS_RESULT_DISCONNECT;
	}
	vram_engine_pause(vram);
	return PCI_ERS_RESULT_NEED_RESET;
}

static pci_ers_result_t vram_slot_reset(struct pci_dev *pdev)
{
	struct vram_device *vram = pci_get_drvdata(pdev);

	/* For the next time as well: restoring forgets what was saved. */
	pci_restore_state(pdev);
	pci_save_state(pdev);
	vram_engine_resume(vram);
	/* Without its engine the device is still of use. */
	return READ_ONCE(vram->engine) == VRAM_ENGINE_LOST ? PCI_ERS_RESULT_DISCONNECT :
							     PCI_ERS_RESULT_RECOVERED;
}

/*
 * What is in the memory may not outlive what comes, and coherent memory is not there meanwhile:
 * nothing goes there any more, and everything comes home. Returns 0, or an error if some stayed.
 */
static int bring_home(struct vram_device *vram)
{
	struct hmm_core_stats frames;
	unsigned int tries;
	int ret = 0;

	WRITE_ONCE(vram->closed, true);
	/* A migration that was under way may arrive behind an eviction's back. */
	for (tries = 0; !ret && tries < 10; tries++) {
		ret = hmm_region_evict(vram->region);
		if (!ret)
			ret = hmm_region_frames(vram->region, &frames);
		if (!ret && !(frames.claimed + frames.resident))
			return 0;
	}
	return ret ?: -EBUSY;
}

static void vram_reset_prepare(struct pci_dev *pdev)
{
	struct vram_device *vram = pci_get_drvdata(pdev);

	if (bring_home(vram))
		dev_err(&pdev->dev, "reset with pages of processes in the memory\n");
	vram_engine_pause(vram);
}

static void vram_reset_done(struct pci_dev *pdev)
{
	struct vram_device *vram = pci_get_drvdata(pdev);

	vram_engine_resume(vram);
	WRITE_ONCE(vram->closed, false);
}

static const struct pci_error_handlers vram_error_handlers = {
	.error_detected = vram_error_detected,
	.slot_reset = vram_slot_reset,
	.reset_prepare = vram_reset_prepare,
	.reset_done = vram_reset_done,
};

/*
 * Video memory loses its contents in deep sleep, so all of it comes home first; processes are
 * frozen and cannot send it back. A page that somebody pins keeps the machine awake.
 */
static int __maybe_unused vram_suspend(struct device *dev)
{
	struct vram_device *vram = dev_get_drvdata(dev);
	int ret;

	/* Contexts are frozen, so no new faults come. */
	flush_work(&vram->fault_work);
	ret = bring_home(vram);
	if (ret)
		dev_err(dev, "some pages cannot come home (%d): not suspended\n", ret);
	else
		ret = vram_engine_pause(vram);
	if (ret) {
		vram_engine_resume(vram);
		WRITE_ONCE(vram->closed, false);
	}
	return ret;
}

static int __maybe_unused vram_resume(struct device *dev)
{
	struct vram_device *vram = dev_get_drvdata(dev);

	/* Without the engine the CPU goes on. */
	vram_engine_resume(vram);
	WRITE_ONCE(vram->closed, false);
	pci_save_state(to_pci_dev(dev));
	return 0;
}

static const struct dev_pm_ops vram_pm_ops = {
	SET_SYSTEM_SLEEP_PM_OPS(vram_suspend, vram_resume)
};

static struct pci_driver vram_driver = {
	.name = VRAM_NAME,
	.probe = vram_probe,
	.remove = vram_remove,
	.err_handler = &vram_error_handlers,
	.driver.pm = &vram_pm_ops,
};

static int __init vram_init(void)
{
	int ret;

	/* Frozen while the machine sleeps; a command is done in slices. */
	vram_workqueue = alloc_workqueue(VRAM_NAME, WQ_UNBOUND | WQ_FREEZABLE, 0);
	if (!vram_workqueue)
		return -ENOMEM;
	/* Never frozen: pages come home by it. */
	vram_helpers = alloc_workqueue("hmm_vram_helpers", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!vram_helpers) {
		ret = -ENOMEM;
		goto err_workqueue;
	}
	vram_debugfs = debugfs_create_dir(VRAM_NAME, NULL);
	ret = pci_register_driver(&vram_driver);
	if (ret)
		goto err_debugfs;
	return 0;

err_debugfs:
	debugfs_remove_recursive(vram_debugfs);
	destroy_workqueue(vram_helpers);
err_workqueue:
	destroy_workqueue(vram_workqueue);
	return ret;
}

static void __exit vram_exit(void)
{
	pci_unregister_driver(&vram_driver);
	debugfs_remove_recursive(vram_debugfs);
	destroy_workqueue(vram_helpers);
	destroy_workqueue(vram_workqueue);
	ida_destroy(&vram_ids);
}

module_init(vram_init);
module_exit(vram_exit);

MODULE_DESCRIPTION("A PCI device with memory of its own, reference driver of hmm_devmem");
MODULE_LICENSE("GPL");
MODULE_VERSION(HMM_VERSION);
