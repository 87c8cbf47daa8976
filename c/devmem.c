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
 * so that when the struct pages go, nobody holds one any more.
 */
#include <linux/memory_hotplug.h>
#include <linux/mmzone.h>
#include <linux/pagemap.h>
#include <linux/slab.h>

#include "internal.h"

/* Larger than any device's memory, small enough for sums of it not to overflow. */
#define HMM_MAX_SIZE	(1ULL << 46)

/*
 * All plain devmems share an owner: their drivers expect migration to collect the
 * pages of any of them, as 4.19 did. Managed regions are their own owners.
 */
static char hmm_devmem_owner;

/* The last reference to a page is gone. Any context. */
static void hmm_devmem_free(struct page *page, unsigned int order)
{
	struct hmm_region *region = hmm_region_of_pgmap(page_pgmap(page));
	struct hmm_devmem *devmem = &region->devmem;

	if (devmem->ops) {
		atomic_long_dec(&region->handed_out);
		devmem->ops->free(devmem, page);
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
	struct hmm_devmem *devmem = &hmm_region_of_pgmap(page_pgmap(vmf->page))->devmem;

	if (devmem->ops)
		return devmem->ops->fault(devmem, vmf->vma, vmf->address, vmf->page,
					  vmf->flags, vmf->pmd);
	return hmm_to_ram_fault(vmf);
}

static const struct dev_pagemap_ops hmm_pagemap_ops = {
	HMM_FREE_OP(hmm_devmem_free),
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

	percpu_ref_kill(&devmem->ref);
	wait_for_completion(&devmem->completion);
	hmm_evict_for_teardown(hmm_region_of_devmem(devmem));
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

	init_completion(&devmem->completion);
	ret = percpu_ref_init(&devmem->ref, hmm_devmem_drained, 0, GFP_KERNEL);
	if (ret)
		return ret;
	ret = devm_add_action_or_reset(devmem->device, hmm_devmem_ref_exit, devmem);
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

static struct hmm_devmem *hmm_devmem_add_range(const struct hmm_devmem_ops *ops,
					       struct device *device, u64 size,
					       struct resource *res)
{
	struct hmm_region *region;
	int ret;

	region = hmm_region_alloc(device);
	if (IS_ERR(region))
		return ERR_CAST(region);
	region->devmem.ops = ops;

	if (!res) {
		res = hmm_devmem_find_hole(device, size);
		if (IS_ERR(res)) {
			ret = PTR_ERR(res);
			goto err_group;
		}
		ret = hmm_devmem_map(region, res, MEMORY_DEVICE_PRIVATE, &hmm_devmem_owner);
	} else {
		ret = hmm_devmem_map(region, res, HMM_MEMORY_COHERENT, &hmm_devmem_owner);
	}
	if (ret)
		goto err_group;

	devres_close_group(device, region->group);
	return &region->devmem;

err_group:
	devres_release_group(device, region->group);
	return ERR_PTR(ret);
}

/**
 * hmm_devmem_add() - add memory that only the device can address
 * @ops: the driver's callbacks, both needed
 * @device: the device; the memory is removed when its driver is unbound, or at the last
 *	put_device() of a device that was never added
 * @size: bytes; rounded up to a memory section (128 MiB on x86-64)
 *
 * Finds a hole in the physical address space and creates struct pages for it. The
 * driver allocates from [pfn_first, pfn_last) as it likes, turning an idle page into
 * one in use with hmm_devmem_page_get(). Before @device goes, the driver has to bring
 * home what is still in use; removal waits for it.
 *
 * Context: process context, may sleep.
 * Return: the devmem, owned by @device; or ERR_PTR: -EOPNOTSUPP this kernel has no
 * device-private memory (nothing was tried); -EINVAL @ops incomplete, or @size 0 or absurd;
 * -ERANGE no hole of that size; -ENOMEM.
 */
struct hmm_devmem *hmm_devmem_add(const struct hmm_devmem_ops *ops,
				  struct device *device, unsigned long size)
{
	if (!HMM_KERNEL_PRIVATE)
		return ERR_PTR(-EOPNOTSUPP);
	if (!device || !ops || !ops->free || !ops->fault || !size ||
	    size > HMM_MAX_SIZE)
		return ERR_PTR(-EINVAL);
	return hmm_devmem_add_range(ops, device, ALIGN(size, 1UL << PA_SECTION_SHIFT), NULL);
}
EXPORT_SYMBOL_GPL(hmm_devmem_add);

/**
 * hmm_devmem_add_resource() - add memory that the CPU addresses coherently
 * @ops: the driver's callbacks; @ops->fault is never called
 * @device: as for hmm_devmem_add()
 * @res: the range, owned by the caller and never released here; its desc must be
 *	IORES_DESC_DEVICE_PUBLIC_MEMORY, start and size multiples of 2 MiB, and there must be
 *	memory behind every byte of it
 *
 * Context: process context, may sleep.
 * Return: the devmem, owned by @device; or ERR_PTR: -EOPNOTSUPP this kernel has no coherent
 * device memory; -EINVAL @ops, desc or alignment; -ENXIO @res overlaps system RAM; -ERANGE
 * beyond what this kernel can map; -ENOMEM.
 */
struct hmm_devmem *hmm_devmem_add_resource(const struct hmm_devmem_ops *ops,
					   struct device *device,
					   struct resource *res)
{
	int ret;

	if (!HMM_KERNEL_COHERENT)
		return ERR_PTR(-EOPNOTSUPP);
	if (!device || !ops || !ops->free || !res ||
	    res->desc != IORES_DESC_DEVICE_PUBLIC_MEMORY)
		return ERR_PTR(-EINVAL);
	ret = hmm_devmem_check_coherent(res);
	if (ret)
		return ERR_PTR(ret);
	return hmm_devmem_add_range(ops, device, 0, res);
}
EXPORT_SYMBOL_GPL(hmm_devmem_add_resource);

/**
 * hmm_devmem_page_get() - turn an idle page into one in use
 * @devmem: from hmm_devmem_add() or hmm_devmem_add_resource()
 * @pfn: an idle page of it, chosen by the driver
 *
 * This is what get_page() and lock_page() on an idle page did in 4.19. The driver
 * stores migrate_pfn(pfn) in migrate_vma.dst, or gives the page back with
 * unlock_page() and put_page(), which ends in its free callback.
 *
 * Context: any; the driver makes sure that nobody else hands out the same page.
 * Return: the page, locked, with one reference, both of which pass to the caller.
 */
struct page *hmm_devmem_page_get(struct hmm_devmem *devmem, unsigned long pfn)
{
	struct page *page = pfn_to_page(pfn);

	atomic_long_inc(&hmm_region_of_devmem(devmem)->handed_out);
	zone_device_page_init(page, &devmem->pagemap, 0);
	return page;
}
EXPORT_SYMBOL_GPL(hmm_devmem_page_get);

/**
 * hmm_devmem_pgmap_owner() - what a driver puts in migrate_vma.pgmap_owner
 * @devmem: the devmem
 *
 * Context: any.
 * Return: the owner shared by all devmems, also right for hmm_range.dev_private_owner.
 */
void *hmm_devmem_pgmap_owner(const struct hmm_devmem *devmem)
{
	return devmem->pagemap.owner;
}
EXPORT_SYMBOL_GPL(hmm_devmem_pgmap_owner);
