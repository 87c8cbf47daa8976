// SPDX-License-Identifier: GPL-2.0
/*
 * The managed level: a region is a devmem whose pages this module hands out.
 */
#include <linux/slab.h>
#include <linux/smp.h>

#include "internal.h"
#include "trace.h"

/* Managed regions; read under RCU, each kept by its own reference. */
static LIST_HEAD(regions);
static DEFINE_SPINLOCK(regions_lock);

/*
 * Walk over all managed regions: NULL gives the first, a region the one after it, and takes
 * its reference. A region that is removed meanwhile is still good, but may be dead.
 */
struct hmm_region *hmm_region_next(struct hmm_region *region)
{
	struct hmm_region *each, *next = NULL;

	/* By number, so that the place is found even if @region has left the list. */
	rcu_read_lock();
	list_for_each_entry_rcu(each, &regions, list)
		if ((!region || each->id > region->id) && (!next || each->id < next->id))
			next = each;
	/* One that has just been freed ends the walk: its device is gone, and so on. */
	if (next && !kref_get_unless_zero(&next->kref))
		next = NULL;
	rcu_read_unlock();
	if (region)
		hmm_region_put(region);
	return next;
}

static void hmm_region_unlist(void *data)
{
	struct hmm_region *region = data;

	spin_lock(&regions_lock);
	list_del_rcu(&region->list);
	spin_unlock(&regions_lock);
}

static int hmm_region_list(struct hmm_region *region)
{
	spin_lock(&regions_lock);
	list_add_rcu(&region->list, &regions);
	spin_unlock(&regions_lock);
	return devm_add_action_or_reset(region->devmem.device, hmm_region_unlist, region);
}

static void hmm_region_free(struct kref *kref)
{
	struct hmm_region *region = container_of(kref, struct hmm_region, kref);

	xa_destroy(&region->accounts);
	xa_destroy(&region->poisoned);
	kfree_rcu(region, rcu);
}

/**
 * hmm_region_get() - keep the struct alive beyond its device
 * @region: the region
 *
 * The region may die meanwhile; calls then return -ENODEV.
 *
 * Context: any.
 */
void hmm_region_get(struct hmm_region *region)
{
	kref_get(&region->kref);
}
EXPORT_SYMBOL_GPL(hmm_region_get);

/**
 * hmm_region_put() - give back what hmm_region_get() took
 * @region: the region
 *
 * Context: any.
 */
void hmm_region_put(struct hmm_region *region)
{
	kref_put(&region->kref, hmm_region_free);
}
EXPORT_SYMBOL_GPL(hmm_region_put);

static void hmm_region_host_release(struct device *host)
{
	hmm_region_put(container_of(host, struct hmm_region, host));
}

/*
 * A region without memory. Its first reference belongs to its own device, to which everything
 * it gets is tied: put_device() undoes all of it.
 */
struct hmm_region *hmm_region_alloc(struct device *device)
{
	static atomic_t last_id;
	struct hmm_region *region;
	int ret;

	region = kzalloc(sizeof(*region), GFP_KERNEL);
	if (!region)
		return ERR_PTR(-ENOMEM);
	region->id = atomic_inc_return(&last_id);
	region->devmem.device = device;
	region->devmem.pfn_first = -1UL;
	region->devmem.pfn_last = -1UL;
	kref_init(&region->kref);
	xa_init(&region->accounts);
	xa_init(&region->poisoned);

	device_initialize(&region->host);
	region->host.release = hmm_region_host_release;
	set_dev_node(&region->host, dev_to_node(device));
	/* What /proc/iomem shows. */
	ret = dev_set_name(&region->host, "%s", dev_name(device));
	if (ret) {
		put_device(&region->host);
		return ERR_PTR(ret);
	}
	return region;
}

static void hmm_region_free_lent(void *lent)
{
	kvfree(lent);
}

/* Lend the core the memory it needs to keep @npages frames. */
static int hmm_region_add_core(struct hmm_region *region, u64 npages)
{
	size_t size = hmm_core_size(npages, nr_cpu_ids);
	void *core;
	int ret;

	if (!size)
		return -EINVAL;
	/* Zeroed, and page aligned, which is more than the core asks for. */
	core = kvzalloc(PAGE_ALIGN(size), GFP_KERNEL);
	if (!core)
		return -ENOMEM;
	ret = devm_add_action_or_reset(&region->host, hmm_region_free_lent, core);
	if (ret)
		return ret;
	ret = hmm_core_init(core, size, npages, nr_cpu_ids);
	if (ret)
		return ret;
	region->core = core;
	return 0;
}

/* Where folios may be whole: a bit for each block of them. */
static int hmm_region_add_seals(struct hmm_region *region, u64 npages)
{
	if (!HMM_SELECT_COMPOUND)
		return 0;
	region->sealed = kvcalloc(BITS_TO_LONGS(DIV_ROUND_UP_ULL(npages, HMM_BLOCK_PAGES)),
				  sizeof(long), GFP_KERNEL);
	if (!region->sealed)
		return -ENOMEM;
	return devm_add_action_or_reset(&region->host, hmm_region_free_lent, region->sealed);
}

static int hmm_region_check(const struct hmm_region_params *p)
{
	const struct hmm_region_ops *ops = p->ops;
	bool copies = ops && ops->copy_to_device && ops->copy_to_ram && ops->zero;

	if (p->res) {
		if (p->size || (ops && !copies))
			return -EINVAL;
		return hmm_devmem_check_coherent(p->res);
	}
	if (!HMM_KERNEL_PRIVATE)
		return -EOPNOTSUPP;
	if (!copies || !p->size || !IS_ALIGNED(p->size, PMD_SIZE))
		return -EINVAL;
	return 0;
}

/**
 * devm_hmm_region_add() - add device memory and let this module manage it
 * @device: the device; the memory is removed when its driver is unbound
 * @params: what to add; read during the call only, but @params->ops stays in use
 *
 * From here on hmm_migrate_to_device() fills it. At removal (or at
 * devm_hmm_region_remove()) new migrations are refused, those under way finish, and
 * every page still there is brought home; the callbacks in @params->ops must work until
 * then.
 *
 * Context: process context, may sleep.
 * Return: the region, owned by @device; or ERR_PTR: -EOPNOTSUPP this kernel lacks that kind
 * of memory (nothing was tried); -EINVAL @params; -ENXIO, -EBUSY, -ERANGE as for
 * hmm_devmem_add_resource(); -ERANGE no hole of that size; -ENOMEM.
 */
struct hmm_region *devm_hmm_region_add(struct device *device,
				       const struct hmm_region_params *params)
{
	struct hmm_region *region;
	struct resource *res;
	int ret;

	ret = hmm_region_check(params);
	if (ret)
		return ERR_PTR(ret);
	region = hmm_region_alloc(device);
	if (IS_ERR(region))
		return region;
	region->ops = params->ops;
	region->driver_data = params->driver_data;
	region->dma_device = params->dma_device;
	region->fault_window = params->fault_window;

	res = params->res;
	if (!res) {
		res = hmm_devmem_find_hole(&region->host, params->size);
		if (IS_ERR(res)) {
			ret = PTR_ERR(res);
			goto err_host;
		}
	}
	/* A hole is made of whole sections and may be larger than the memory. */
	ret = hmm_region_add_core(region, PHYS_PFN(params->res ? resource_size(res) :
								 params->size));
	if (!ret && !params->res)
		ret = hmm_region_add_seals(region, PHYS_PFN(params->size));
	if (ret)
		goto err_host;
	ret = hmm_devmem_map(region, res,
			     params->res ? HMM_MEMORY_COHERENT : MEMORY_DEVICE_PRIVATE,
			     region);
	if (ret)
		goto err_host;
	ret = hmm_devmem_open(region);
	if (ret)
		return ERR_PTR(ret);
	ret = hmm_show_add(region);
	if (ret)
		goto err_group;
	ret = hmm_region_list(region);
	if (ret)
		goto err_group;

	devres_close_group(device, region->group);
	trace_region_add(region);
	return region;

err_group:
	devres_release_group(device, region->group);
	return ERR_PTR(ret);
err_host:
	put_device(&region->host);
	return ERR_PTR(ret);
}
EXPORT_SYMBOL_GPL(devm_hmm_region_add);

/**
 * devm_hmm_region_remove() - remove a region before its device goes
 * @region: the region; its struct lives on for those who hold a reference
 *
 * What somebody pins for longer than the module's remove_patience, or what is left when the
 * caller is killed, is left behind: see hmm_devmem_remove_action().
 *
 * Context: process context; sleeps until every page is home.
 */
void devm_hmm_region_remove(struct hmm_region *region)
{
	devres_release_group(region->devmem.device, region->group);
}
EXPORT_SYMBOL_GPL(devm_hmm_region_remove);

/**
 * hmm_region_data() - the driver_data the region was added with
 * @region: the region
 *
 * Context: any.
 * Return: hmm_region_params.driver_data.
 */
void *hmm_region_data(const struct hmm_region *region)
{
	return region->driver_data;
}
EXPORT_SYMBOL_GPL(hmm_region_data);

/**
 * hmm_region_ops() - the callbacks the region was added with
 * @region: the region
 *
 * By them a driver knows another device of its own kind.
 *
 * Context: any.
 * Return: hmm_region_params.ops.
 */
const struct hmm_region_ops *hmm_region_ops(const struct hmm_region *region)
{
	return region->ops;
}
EXPORT_SYMBOL_GPL(hmm_region_ops);

/**
 * hmm_region_of_page() - whose page is this
 * @page: any page that cannot go away during the call
 *
 * Context: any.
 * Return: the managed region that @page is part of, or NULL.
 */
struct hmm_region *hmm_region_of_page(const struct page *page)
{
	struct dev_pagemap *pgmap;
	struct hmm_region *region;

	if (!is_zone_device_page(page))
		return NULL;
	pgmap = page_pgmap(page);
	if (pgmap->type != MEMORY_DEVICE_PRIVATE && pgmap->type != HMM_MEMORY_COHERENT)
		return NULL;
	/* A region's pagemap is recognised by its owner, the region itself. */
	region = hmm_region_of_pgmap(pgmap);
	return pgmap->owner == region ? region : NULL;
}
EXPORT_SYMBOL_GPL(hmm_region_of_page);

/**
 * hmm_region_page_index() - where in the region a page is
 * @region: the region
 * @page: a page of it
 *
 * Context: any.
 * Return: the page index, counted from the start of the region.
 */
u64 hmm_region_page_index(const struct hmm_region *region, const struct page *page)
{
	return page_to_pfn(page) - region->devmem.pfn_first;
}
EXPORT_SYMBOL_GPL(hmm_region_page_index);

/**
 * hmm_region_frames() - how many frames are free, claimed, resident
 * @region: the region
 * @frames: (out) filled on success
 *
 * While migrations are under way the figures are a moment's guess; at rest free, claimed,
 * resident and retired add up to total.
 *
 * Context: process context.
 * Return: 0, or -ENODEV when the device is gone.
 */
int hmm_region_frames(struct hmm_region *region, struct hmm_core_stats *frames)
{
	if (!percpu_ref_tryget_live(&region->devmem.ref))
		return -ENODEV;
	hmm_core_stats(region->core, frames);
	percpu_ref_put(&region->devmem.ref);
	return 0;
}
EXPORT_SYMBOL_GPL(hmm_region_frames);

/*
 * Frames lost their contents. They are never handed out again, and whoever maps one that is
 * in use gets SIGBUS: when it touches private memory, at once where the CPU reads it directly.
 */
int hmm_region_poison(struct hmm_region *region, struct page *page, u64 npages)
{
	u64 index = hmm_region_page_index(region, page);
	int ret;

	ret = hmm_core_retire(region->core, index, npages);
	for (; !ret && npages; npages--, index++, page++) {
		ret = xa_err(xa_store(&region->poisoned, index, xa_mk_value(1), GFP_KERNEL));
		if (!hmm_region_is_private(region))
			hmm_rmap_kill(page);
	}
	return ret;
}

bool hmm_page_is_poisoned(struct hmm_region *region, struct page *page)
{
	return !xa_empty(&region->poisoned) &&
	       xa_load(&region->poisoned, hmm_region_page_index(region, page));
}

/* The account of @mm, made if it has none. Pairs with hmm_account_put(). */
struct hmm_account *hmm_account_get(struct hmm_region *region, struct mm_struct *mm)
{
	unsigned long key = (unsigned long)mm;
	struct hmm_account *fresh, *account;
	int err;

	fresh = kzalloc(sizeof(*fresh), GFP_KERNEL);
	if (!fresh)
		return ERR_PTR(-ENOMEM);
	fresh->mm = mm;
	fresh->process = current->tgid;
	mutex_init(&fresh->hints_lock);

	xa_lock(&region->accounts);
	/* May drop the lock to allocate, so it decides who was first. */
	err = __xa_insert(&region->accounts, key, fresh, GFP_KERNEL);
	account = err ? xa_load(&region->accounts, key) : fresh;
	if (!account)
		account = ERR_PTR(err);
	if (!IS_ERR(account))
		account->users++;
	xa_unlock(&region->accounts);

	if (account != fresh)
		kfree(fresh);
	return account;
}

/* The account of @mm, if it has one. Pairs with hmm_account_put(). */
struct hmm_account *hmm_account_find(struct hmm_region *region, struct mm_struct *mm)
{
	struct hmm_account *account;

	xa_lock(&region->accounts);
	account = xa_load(&region->accounts, (unsigned long)mm);
	if (account)
		account->users++;
	xa_unlock(&region->accounts);
	return account;
}

void hmm_account_put(struct hmm_region *region, struct hmm_account *account)
{
	xa_lock(&region->accounts);
	if (--account->users) {
		account = NULL;
	} else {
		__xa_erase(&region->accounts, (unsigned long)account->mm);
	}
	xa_unlock(&region->accounts);
	if (account) {
		hmm_hint_free(region, account);
		kfree_rcu(account, rcu);
	}
}

/* The process that @mm belongs to, as far as @region (or NULL) knows; 0 if it does not. */
u32 hmm_account_process(struct hmm_region *region, struct mm_struct *mm)
{
	struct hmm_account *account;
	u32 process = mm && mm == current->mm ? current->tgid : 0;

	rcu_read_lock();
	account = region && mm ? xa_load(&region->accounts, (unsigned long)mm) : NULL;
	if (account)
		process = account->process;
	rcu_read_unlock();
	return process;
}

void hmm_region_count(struct hmm_region *region, struct mm_struct *mm,
		      unsigned int counter, u64 n)
{
	struct hmm_account *account;

	if (!n)
		return;
	atomic64_add(n, &region->counters.of[counter]);
	if (!mm)
		return;
	rcu_read_lock();
	account = xa_load(&region->accounts, (unsigned long)mm);
	if (account)
		atomic64_add(n, &account->counters.of[counter]);
	rcu_read_unlock();
}

/* What a move came to beside the pages that it moved. */
void hmm_region_count_skipped(struct hmm_region *region, enum hmm_direction direction,
			      const struct hmm_migrate *m)
{
	if (direction == HMM_TO_DEVICE) {
		hmm_count(region, m->mm, huge_to_device, m->huge);
		hmm_count(region, m->mm, no_frame, m->skipped[HMM_SKIP_NO_MEMORY]);
	} else {
		hmm_count(region, m->mm, huge_to_ram, m->huge);
		hmm_count(region, m->mm, no_ram, m->skipped[HMM_SKIP_NO_MEMORY]);
	}
	hmm_count(region, m->mm, copy_failed, m->skipped[HMM_SKIP_COPY]);
}

/**
 * hmm_region_stats() - what was moved so far
 * @region: the region, alive or dead
 * @mm: count for this process only, from its first hmm_view_attach() on until its last
 *	hmm_view_detach(); NULL for everybody
 * @stats: (out)
 *
 * Context: any.
 */
void hmm_region_stats(struct hmm_region *region, struct mm_struct *mm,
		      struct hmm_region_stats *stats)
{
	struct hmm_counters *c = &region->counters;
	struct hmm_account *account;
	u64 *field = (u64 *)stats;
	unsigned int i;

	memset(stats, 0, sizeof(*stats));
	rcu_read_lock();
	if (mm) {
		account = xa_load(&region->accounts, (unsigned long)mm);
		c = account ? &account->counters : NULL;
	}
	for (i = 0; c && i < ARRAY_SIZE(c->of); i++)
		field[i] = atomic64_read(&c->of[i]);
	rcu_read_unlock();
}
EXPORT_SYMBOL_GPL(hmm_region_stats);
