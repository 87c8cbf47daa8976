// SPDX-License-Identifier: GPL-2.0
/*
 * Errors on demand: /sys/kernel/debug/hmm_devmem/fail/, for root only, one file for each leg
 * of a page's journey that can fail. N written to it makes the Nth time from now fail, once; 0
 * switches it off. Read, it says how many times are left: 0 when it has failed, or is off.
 */
#include <linux/atomic.h>
#include <linux/debugfs.h>

#include "internal.h"

DEFINE_STATIC_KEY_FALSE(hmm_fail_key);

static const char * const fail_name[HMM_FAIL_NR] = {
	[HMM_FAIL_FRAME] = "frame",
	[HMM_FAIL_RAM] = "ram",
	[HMM_FAIL_DMA] = "dma",
	[HMM_FAIL_COPY] = "copy",
	[HMM_FAIL_WAIT] = "wait",
	[HMM_FAIL_NOTIFIER] = "notifier",
	[HMM_FAIL_HINT] = "hint",
};

static atomic_t fail_left[HMM_FAIL_NR];

/* Any context. */
bool hmm_fail_count(enum hmm_fail leg)
{
	return atomic_dec_if_positive(&fail_left[leg]) == 0;
}

static int fail_get(void *left, u64 *n)
{
	*n = atomic_read(left);
	return 0;
}

static int fail_set(void *left, u64 n)
{
	if (n > INT_MAX)
		return -EINVAL;
	/* Stays on until the module goes: who injects errors does not count nanoseconds. */
	static_branch_enable(&hmm_fail_key);
	atomic_set(left, n);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(fail_fops, fail_get, fail_set, "%llu\n");

void hmm_fail_init(struct dentry *root)
{
	struct dentry *dir = debugfs_create_dir("fail", root);
	unsigned int i;

	for (i = 0; i < HMM_FAIL_NR; i++)
		debugfs_create_file_unsafe(fail_name[i], 0600, dir, &fail_left[i], &fail_fops);
}
