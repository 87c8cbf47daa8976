// SPDX-License-Identifier: GPL-2.0
/*
 * Moves that go on by themselves while their caller does something else.
 */
#include "internal.h"

static void job_run(struct work_struct *item)
{
	struct hmm_migrate_work *work = container_of(item, struct hmm_migrate_work, work);
	struct hmm_region *region = work->region;

	work->result = work->direction == HMM_TO_DEVICE ?
		hmm_migrate_to_device(region, &work->migrate) :
		hmm_migrate_to_ram(region, &work->migrate);
	/* From here on @work is the caller's, and may be gone. */
	work->done(work);
	percpu_ref_put(&region->devmem.ref);
}

/**
 * hmm_migrate_start() - move a range without waiting for it
 * @region: to or from where
 * @work: what to move, and whom to tell; owned by this module until work->done is called
 *
 * Removal of @region waits for it, and ends it early.
 *
 * Context: process context.
 * Return: 0, and work->done will be called, maybe before this returns; -ENODEV the device is
 * gone, -EINVAL no work->done or no such direction: it will not be called.
 */
int hmm_migrate_start(struct hmm_region *region, struct hmm_migrate_work *work)
{
	if (!work->done || work->direction > HMM_TO_RAM)
		return -EINVAL;
	if (!percpu_ref_tryget_live(&region->devmem.ref))
		return -ENODEV;
	work->region = region;
	work->migrate.cancel = false;
	INIT_WORK(&work->work, job_run);
	queue_work(hmm_workqueue, &work->work);
	return 0;
}
EXPORT_SYMBOL_GPL(hmm_migrate_start);

/**
 * hmm_migrate_cancel() - have a move end early
 * @work: given to hmm_migrate_start(), and not done yet
 *
 * It ends with -ECANCELED at the next 2 MiB, unless it is done before. Does not wait.
 *
 * Context: any.
 */
void hmm_migrate_cancel(struct hmm_migrate_work *work)
{
	WRITE_ONCE(work->migrate.cancel, true);
}
EXPORT_SYMBOL_GPL(hmm_migrate_cancel);
