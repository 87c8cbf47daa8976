// SPDX-License-Identifier: GPL-2.0
/*
 * Leg 0 and leg 8: a driver adds memory, and takes it away again.
 *
 * Everything is tied to the device by devres, in one group, in this order:
 *
 *	our reference	-> dropped last
 *	the range	-> released
 *	the core	-> freed (managed level, see region.c)
 *	the live ref	-> exited
 *	struct pages	-> devm_memremap_pages(); waits until every page is free
 *	teardown	-> runs first: dead, drained, every page brought home
 *
 * so that when the struct pages go, nobody holds one any more. That is the managed level;
 * memory whose driver manages the pages by itself is in plain.c.
 */
#include <linux/memory_hotplug.h>
#include <linux/mmzone.h>
#include <linux/pagemap.h>
#include <linux/slab.h>

#include "internal.h"
#include "trace.h"

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

	return region->devmem.ops ? hmm_plain_fault(region, vmf) : hmm_to_ram_fault(vmf);
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

/*
 * The device goes away. Refuse new migrations, let those under way finish, bring every
 * page home. CPU faults go on being served meanwhile: they need no reference but the
 * page's.
 */
static void hmm_devmem_teardown(void *data)
{
	struct hmm_devmem *devmem = data;
	u64 begin = ktime_get_ns();

	percpu_ref_kill(&devmem->ref);
	wait_for_completion(&devmem->completion);
	hmm_evict_for_teardown(hmm_region_of_devmem(devmem));
	trace_region_remove(hmm_region_of_devmem(devmem), ktime_get_ns() - begin);
}

/* Describe @res to the kernel. What this takes is given back by percpu_ref_exit(). */
int hmm_devmem_prepare(struct hmm_region *region, struct resource *res,
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
	devmem->pagemap.range.start = res->start;
	devmem->pagemap.range.end = res->end;
	devmem->pagemap.nr_range = 1;
	devmem->pagemap.ops = &hmm_pagemap_ops;
	devmem->pagemap.owner = owner;
	return 0;
}

/*
 * Give @region struct pages for @res. On error the caller releases the devres group.
 */
int hmm_devmem_map(struct hmm_region *region, struct resource *res,
		   enum memory_type type, void *owner)
{
	struct hmm_devmem *devmem = &region->devmem;
	void *addr;
	int ret;

	ret = hmm_devmem_prepare(region, res, type, owner);
	if (ret)
		return ret;
	ret = devm_add_action_or_reset(devmem->device, hmm_devmem_ref_exit, devmem);
	if (ret)
		return ret;
	addr = devm_memremap_pages(devmem->device, &devmem->pagemap);
	if (IS_ERR(addr))
		return PTR_ERR(addr);
	return devm_add_action_or_reset(devmem->device, hmm_devmem_teardown, devmem);
}

/* A range of physical addresses that nothing decodes, for memory the CPU cannot see. */
struct resource *hmm_devmem_find_hole(struct device *device, u64 size)
{
	if (!HMM_KERNEL_PRIVATE)
		return ERR_PTR(-EOPNOTSUPP);
	if (!size || size > HMM_MAX_SIZE)
		return ERR_PTR(-EINVAL);
	return devm_request_free_mem_region(device, &iomem_resource, size);
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
	return 0;
}
