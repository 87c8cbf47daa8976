// SPDX-License-Identifier: GPL-2.0
/*
 * hmm_devmem.ko: load, unload, and what the kernel can do.
 */
#include <linux/mempool.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "internal.h"

/* The core and the kernel must mean the same by a migrate entry. */
static_assert(HMM_ENTRY_VALID == MIGRATE_PFN_VALID);
static_assert(HMM_ENTRY_MIGRATE == MIGRATE_PFN_MIGRATE);
static_assert(HMM_ENTRY_WRITE == MIGRATE_PFN_WRITE);
static_assert(HMM_ENTRY_SHIFT == MIGRATE_PFN_SHIFT);
static_assert(!HMM_SELECT_COMPOUND || HMM_ENTRY_COMPOUND == MIGRATE_PFN_COMPOUND);
static_assert(HMM_BLOCK_PAGES == PMD_SIZE / PAGE_SIZE);

/*
 * Enough batches that a fault can always be served: each holder has all it needs
 * and will finish, so a waiter makes progress.
 */
#define HMM_BATCHES_RESERVED	4

static struct kmem_cache *hmm_batch_cache;
static mempool_t *hmm_batch_pool;

/* For what has to wait: the last pages of a region, the end of a mirror. */
struct workqueue_struct *hmm_workqueue;

/* May sleep, never fails. */
struct hmm_batch *hmm_batch_get(void)
{
	struct hmm_batch *batch = mempool_alloc(hmm_batch_pool, GFP_KERNEL);

	batch->mm = NULL;
	batch->write = false;
	batch->huge = NULL;
	return batch;
}

void hmm_batch_put(struct hmm_batch *batch)
{
	mempool_free(batch, hmm_batch_pool);
}

unsigned int hmm_devmem_caps(void)
{
	return (HMM_KERNEL_PRIVATE ? HMM_CAP_PRIVATE : 0) |
	       (HMM_KERNEL_COHERENT ? HMM_CAP_COHERENT : 0) |
	       (HMM_KERNEL_PRIVATE && HMM_SELECT_COMPOUND ? HMM_CAP_HUGE : 0) |
	       (HMM_KERNEL_EXCLUSIVE ? HMM_CAP_EXCLUSIVE : 0);
}
EXPORT_SYMBOL_GPL(hmm_devmem_caps);

static int caps_get(char *buffer, const struct kernel_param *kp)
{
	static const char * const name[] = { "private", "coherent", "huge", "exclusive" };
	int i, len = sysfs_emit(buffer, "mirror");

	for (i = 0; i < ARRAY_SIZE(name); i++)
		if (hmm_devmem_caps() & BIT(i))
			len += sysfs_emit_at(buffer, len, " %s", name[i]);
	return len + sysfs_emit_at(buffer, len, "\n");
}

static const struct kernel_param_ops caps_ops = { .get = caps_get };
module_param_cb(caps, &caps_ops, NULL, 0444);
MODULE_PARM_DESC(caps, "what this kernel supports (read only): mirror, private, coherent, huge, exclusive");

static int __init hmm_devmem_init(void)
{
	int ret = -ENOMEM;

	/*
	 * With init_on_alloc the kernel would zero 28 KiB for each fault. Whoever gets a batch writes
	 * what he reads; of the caches that may be behind a mempool, those of this kind are not zeroed.
	 */
	hmm_batch_cache = KMEM_CACHE(hmm_batch, SLAB_TYPESAFE_BY_RCU);
	if (!hmm_batch_cache)
		return ret;
	hmm_batch_pool = mempool_create_slab_pool(HMM_BATCHES_RESERVED, hmm_batch_cache);
	if (!hmm_batch_pool)
		goto err_cache;
	hmm_workqueue = alloc_workqueue("hmm_devmem", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!hmm_workqueue)
		goto err_pool;
	hmm_note_init();
	ret = hmm_device_init();
	if (ret)
		goto err_workqueue;
	ret = hmm_sleep_init();
	if (ret)
		goto err_device;
	hmm_show_init();
	pr_info("this kernel offers mirrors%s%s%s%s\n",
		hmm_devmem_caps() & HMM_CAP_PRIVATE ? ", private memory" : "",
		hmm_devmem_caps() & HMM_CAP_COHERENT ? ", coherent memory" : "",
		hmm_devmem_caps() & HMM_CAP_HUGE ? ", whole 2 MiB folios" : "",
		hmm_devmem_caps() & HMM_CAP_EXCLUSIVE ? ", exclusive access" : "");
	return 0;

err_device:
	hmm_device_exit();
err_workqueue:
	destroy_workqueue(hmm_workqueue);
err_pool:
	mempool_destroy(hmm_batch_pool);
err_cache:
	kmem_cache_destroy(hmm_batch_cache);
	return ret;
}

static void __exit hmm_devmem_exit(void)
{
	hmm_mirror_exit();
	hmm_device_exit();
	hmm_sleep_exit();
	hmm_show_exit();
	destroy_workqueue(hmm_workqueue);
	/* Accounts are freed by RCU. */
	rcu_barrier();
	mempool_destroy(hmm_batch_pool);
	kmem_cache_destroy(hmm_batch_cache);
}

module_init(hmm_devmem_init);
module_exit(hmm_devmem_exit);

MODULE_DESCRIPTION("Device memory for Linux drivers: HMM devmem on today's kernels");
MODULE_LICENSE("GPL");
MODULE_VERSION(HMM_VERSION);
