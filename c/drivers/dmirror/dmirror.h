/* SPDX-License-Identifier: GPL-2.0 */
/*
 * hmm_dmirror: a device made of RAM, the smallest complete client of hmm_devmem.
 *
 *	device.c	platform devices come and go
 *	memory.c	the device's memory: copying in, out, clearing
 *	mirror.c	the device's page table for a process, and work done through it
 *	job.c		moves that go on by themselves
 *	file.c		/dev/hmm_dmirror*
 */
#ifndef DMIRROR_H
#define DMIRROR_H

#include <linux/kref.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/poll.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/xarray.h>

#include "hmm_devmem.h"
#include "hmm_dmirror.h"

#define DMIRROR_BLOCK_PAGES	(PMD_SIZE / PAGE_SIZE)

/* What a platform device is made for. */
struct dmirror_config {
	u32 kind;		/* HMM_DMIRROR_KIND_* */
	u64 size;
	u64 start;		/* coherent memory: physical address */
};

/* Outlives its platform device for as long as files are open. */
struct dmirror_device {
	struct kref kref;
	bool dead;
	u32 kind;
	struct miscdevice misc;
	char name[32];
	struct hmm_region *region;	/* NULL: no memory of its own */

	/* Private memory: 2 MiB blocks of RAM stand for it. */
	struct page **blocks;
	unsigned int nr_blocks;

	/* Errors on demand. */
	spinlock_t fail_lock;
	u32 fail_leg;
	u64 fail_skip;
	u64 fail_count;
};

/* One open file: the device's page table for the process that opened it. */
struct dmirror {
	struct dmirror_device *device;
	struct hmm_view *view;
	struct xarray blocks;		/* address / 2 MiB -> struct dmirror_block */
	bool small_once;		/* the next move splits huge pages */

	/* Moves that go on by themselves: job.c */
	spinlock_t jobs_lock;
	struct list_head running;
	struct list_head finished;	/* the first first */
	unsigned int nr_jobs;
	u64 last_id;
	wait_queue_head_t job_done;
};

/* device.c */
void dmirror_device_put(struct dmirror_device *device);

/* memory.c */
extern const struct hmm_region_ops dmirror_region_ops;
int dmirror_memory_add(struct device *dev, struct dmirror_device *device, u64 size);
void *dmirror_memory_address(struct dmirror_device *device, struct page *page);

/* mirror.c */
extern const struct hmm_view_ops dmirror_view_ops;
void dmirror_free_table(struct dmirror *dmirror);
int dmirror_read(struct dmirror *dmirror, struct hmm_dmirror_cmd *cmd);
int dmirror_write(struct dmirror *dmirror, struct hmm_dmirror_cmd *cmd);
int dmirror_read_resident(struct dmirror *dmirror, struct hmm_dmirror_cmd *cmd);
int dmirror_exclusive(struct dmirror *dmirror, struct hmm_dmirror_cmd *cmd);
int dmirror_check_exclusive(struct dmirror *dmirror, const struct hmm_dmirror_cmd *cmd);
int dmirror_compute(struct dmirror *dmirror, struct hmm_dmirror_compute *compute);

/* job.c */
void dmirror_jobs_init(struct dmirror *dmirror);
void dmirror_jobs_end(struct dmirror *dmirror);
int dmirror_job_start(struct dmirror *dmirror, struct hmm_dmirror_start *start);
int dmirror_job_result(struct dmirror *dmirror, struct hmm_dmirror_result *result);
__poll_t dmirror_job_poll(struct dmirror *dmirror, struct file *filp,
			  struct poll_table_struct *wait);

/* file.c */
extern const struct file_operations dmirror_fops;

#endif /* DMIRROR_H */
