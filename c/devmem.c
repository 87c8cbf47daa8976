// SPDX-License-Identifier: GPL-2.0
/*
 * Leg 0 and leg 8: a driver adds memory, and takes it away again.
 *
 * A region is a device of its own, that nobody sees: everything it takes is tied to that by
 * devres, and goes in reverse with its last reference:
 *
 *	the range	-> released
 *	the books	-> freed (the core's, region.c; or plain.c's)
 *	the live ref	-> exited
 *	struct pages	-> devm_memremap_pages(); waits until every page is free
 *
 * The driver's device has one thing to undo, hmm_devmem_remove(): dead, drained, every page
 * brought home, and then the last reference dropped. So when the struct pages go, nobody holds
 * one any more; and where somebody does not let go of one, the driver can leave all the same.
 */
#include <linux/memory_hotplug.h>
#include <linux/mmzone.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/slab.h>

#include "internal.h"
#include "trace.h"

static unsigned int remove_patience = 10;
module_param(remove_patience, uint, 0644);
MODULE_PARM_DESC(remove_patience,
		 "removal of device memory gives up pages that cannot be brought home after so many seconds without any progress (default 10)");

/* In jiffies. */
unsigned long hmm_remove_patience(void)
{
	return (unsigned long)READ_ONCE(remove_patience) * HZ;
}

/* Held across a driver's callbacks that no reference keeps from going away; may sleep. */
DEFINE_STATIC_SRCU(hmm_devmem_srcu);

int hmm_devmem_enter(void)
{
	return srcu_read_lock(&hmm_devmem_srcu);
}

void hmm_devmem_leave(int idx)
{
	srcu_read_unlock(&hmm_devmem_srcu, idx);
}

/* The last reference to a page is gone. Any context. */
static void hmm_devmem_free(struct page *page, unsigned int order)
{
	struct hmm_region *region = hmm_region_of_pgmap(page_pgmap(page));
	struct hmm_devmem *devmem = &region->devmem;

	if (devmem->ops) {
		hmm_plain_free(region, page);
		return;
	}
	/*
	 * Nothing of the page is touched from here on: another CPU may be handing it
	 * out again. Its contents need no care: whoever gets the frame overwrites all
	 * of it before it is mapped.
	 */
	if (hmm_core_release(region->core, raw_smp_processor_id(),
			     page_to_pfn(page) - devmem->pfn_first, 1UL << order))
		pr_err("page %#lx was free already\n", page_to_pfn(page));
}
HMM_DEFINE_FREE_OP(hmm_devmem_free)

/* The CPU touched private memory; the mmap lock is held for read. */
static vm_fault_t hmm_devmem_fault(struct vm_fault *vmf)
{
	struct hmm_region *region = hmm_region_of_pgmap(page_pgmap(vmf->page));
	vm_fault_t ret = VM_FAULT_SIGBUS;
	int idx = hmm_devmem_enter();

	/* Without its driver nobody can read what is there. */
	if (!READ_ONCE(region->abandoned))
		ret = region->devmem.ops ? hmm_plain_fault(region, vmf) :
					   hmm_to_ram_fault(vmf);
	hmm_devmem_leave(idx);
	return ret;
}

/*
 * The machine says that device memory lost its contents; process context. Where the driver
 * manages its pages the kernel does what it does by itself.
 */
static int __maybe_unused hmm_devmem_failure(struct dev_pagemap *pgmap, unsigned long pfn,
					     unsigned long npages, int flags)
{
	struct hmm_region *region = hmm_region_of_pgmap(pgmap);

	if (region->devmem.ops)
		return -EOPNOTSUPP;
	return hmm_region_poison(region, pfn_to_page(pfn), npages);
}

static const struct dev_pagemap_ops hmm_pagemap_ops = {
	HMM_FREE_OP(hmm_devmem_free),
	HMM_FAILURE_OP(hmm_devmem_failure)
	.migrate_to_ram = hmm_devmem_fault,
};

static void hmm_devmem_drained(struct percpu_ref *ref)
{
	complete(&container_of(ref, struct hmm_devmem, ref)->completion);
}

static void hmm_devmem_ref_exit(void *devmem)
{
	percpu_ref_exit(&((struct hmm_devmem *)devmem)->ref);
}

static unsigned long in_use(struct hmm_region *region)
{
	return region->devmem.ops ? hmm_plain_in_use(region) : hmm_frames_in_use(region);
}

/* Pins end, processes end, and with them their pages: then the rest of the region can go, too. */
static void hmm_devmem_reap(struct work_struct *work)
{
	struct hmm_region *region = container_of(to_delayed_work(work), struct hmm_region, reaper);

	if (in_use(region)) {
		queue_delayed_work(hmm_workqueue, &region->reaper, HZ);
		return;
	}
	put_device(&region->host);
	module_put(THIS_MODULE);
}

/*
 * The device goes away. Refuse new migrations, let those under way finish, bring every page
 * home. CPU faults go on being served meanwhile: they need no reference but the page's.
 *
 * What does not come home in time cannot be waited for without end, nor replaced by zeroes. The
 * struct pages stay, then, without the driver: whoever touches such a page of private memory
 * gets SIGBUS, and when the last of them is gone, so is the region.
 */
static void hmm_devmem_remove_action(void *data)
{
	struct hmm_region *region = data;
	struct hmm_devmem *devmem = &region->devmem;
	u64 begin = ktime_get_ns();
	unsigned long left;

	percpu_ref_kill(&devmem->ref);
	wait_for_completion(&devmem->completion);
	synchronize_srcu(&hmm_devmem_srcu);

	left = devmem->ops ? hmm_plain_evict(region) : hmm_evict_for_teardown(region);
	trace_region_remove(region, ktime_get_ns() - begin);
	if (!left) {
		put_device(&region->host);
		return;
	}

	dev_warn(devmem->device,
		 "%lu pages of device memory could not be brought home; processes that touch them get SIGBUS\n",
		 left);
	WRITE_ONCE(region->abandoned, true);
	synchronize_rcu();
	synchronize_srcu(&hmm_devmem_srcu);
	__module_get(THIS_MODULE);
	INIT_DELAYED_WORK(&region->reaper, hmm_devmem_reap);
	queue_delayed_work(hmm_workqueue, &region->reaper, HZ);
}

/*
 * From here on the region goes when its device does. On error it is gone, and with it the
 * group that the caller has not closed yet.
 */
int hmm_devmem_open(struct hmm_region *region)
{
	struct device *device = region->devmem.device;
	int ret;

	region->group = devres_open_group(device, NULL, GFP_KERNEL);
	if (!region->group) {
		hmm_devmem_remove_action(region);
		return -ENOMEM;
	}
	ret = devm_add_action_or_reset(device, hmm_devmem_remove_action, region);
	/* The region may be gone; its group, still open, is the newest of the device. */
	if (ret)
		devres_release_group(device, NULL);
	return ret;
}

/* Describe @res to the kernel. What this takes is given back by percpu_ref_exit(). */
static int hmm_devmem_prepare(struct hmm_region *region, struct resource *res,
			      enum memory_type type, void *owner)
{
	struct hmm_devmem *devmem = &region->devmem;
	int ret;

	init_completion(&devmem->completion);
	ret = percpu_ref_init(&devmem->ref, hmm_devmem_drained, 0, GFP_KERNEL);
	if (ret)
		return ret;
	devmem->resource = res;
	devmem->pfn_first = PHYS_PFN(res->start);
	devmem->pfn_last = devmem->pfn_first + PHYS_PFN(resource_size(res));
	devmem->pagemap.type = type;
	/* The kernel wants more alignment than the driver's memory may have. */
	devmem->pagemap.range.start = ALIGN_DOWN(res->start, SUBSECTION_SIZE);
	devmem->pagemap.range.end = ALIGN(res->end + 1, SUBSECTION_SIZE) - 1;
	devmem->pagemap.nr_range = 1;
	devmem->pagemap.ops = &hmm_pagemap_ops;
	devmem->pagemap.owner = owner;
	return 0;
}

/* Give @region struct pages for @res. On error the caller puts the region's device. */
int hmm_devmem_map(struct hmm_region *region, struct resource *res,
		   enum memory_type type, void *owner)
{
	struct hmm_devmem *devmem = &region->devmem;
	void *addr;
	int ret;

	ret = hmm_devmem_prepare(region, res, type, owner);
	if (ret)
		return ret;
	ret = devm_add_action_or_reset(&region->host, hmm_devmem_ref_exit, devmem);
	if (ret)
		return ret;
	addr = devm_memremap_pages(&region->host, &devmem->pagemap);
	return PTR_ERR_OR_ZERO(addr);
}

/* A range of physical addresses that nothing decodes, for memory the CPU cannot see. */
struct resource *hmm_devmem_find_hole(struct device *device, u64 size)
{
	if (!HMM_KERNEL_PRIVATE)
		return ERR_PTR(-EOPNOTSUPP);
	if (!size || size > HMM_MAX_SIZE)
		return ERR_PTR(-EINVAL);
	/* The search of older kernels, which goes downwards, would begin below zero. */
	if (size > iomem_resource.end)
		return ERR_PTR(-ERANGE);
	return devm_request_free_mem_region(device, &iomem_resource, size);
}

static bool is_mapped(phys_addr_t addr)
{
	return pfn_valid(PHYS_PFN(addr)) && is_zone_device_page(pfn_to_page(PHYS_PFN(addr)));
}

/*
 * May the kernel map this as coherent memory? memremap_pages() WARNs where the answer
 * is no, so it is found out before.
 */
int hmm_devmem_check_coherent(const struct resource *res)
{
	struct range limit;

	if (!HMM_KERNEL_COHERENT)
		return -EOPNOTSUPP;
	if (res->end < res->start || !IS_ALIGNED(res->start, SUBSECTION_SIZE) ||
	    !IS_ALIGNED(res->end + 1, SUBSECTION_SIZE))
		return -EINVAL;
	limit = mhp_get_pluggable_range(true);
	if (res->start < limit.start || res->end > limit.end)
		return -ERANGE;
	if (region_intersects(res->start, resource_size(res), IORESOURCE_SYSTEM_RAM,
			      IORES_DESC_NONE) != REGION_DISJOINT)
		return -ENXIO;
	/* Pages that an earlier region could not let go of are still there. */
	if (is_mapped(res->start) || is_mapped(res->end))
		return -EBUSY;
	return 0;
}
