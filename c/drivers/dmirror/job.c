// SPDX-License-Identifier: GPL-2.0
/*
 * Moves that go on by themselves: a program starts one, does something else, and finds out by
 * poll() or an eventfd that it is over.
 */
#include <linux/eventfd.h>
#include <linux/slab.h>

#include "../calls.h"
#include "dmirror.h"

/* Of one descriptor: bounds what a program can make the kernel remember. */
#define MAX_JOBS	64

struct dmirror_job {
	struct list_head list;
	struct dmirror *dmirror;
	struct hmm_migrate_work work;
	struct eventfd_ctx *eventfd;	/* NULL: poll() only */
	u64 id;
	u64 begin;
	u64 ns;
};

void dmirror_jobs_init(struct dmirror *dmirror)
{
	spin_lock_init(&dmirror->jobs_lock);
	INIT_LIST_HEAD(&dmirror->running);
	INIT_LIST_HEAD(&dmirror->finished);
	init_waitqueue_head(&dmirror->job_done);
}

static void free_job(struct dmirror_job *job)
{
	if (job->eventfd)
		eventfd_ctx_put(job->eventfd);
	kfree(job);
}

/* Under the lock to the end: with the last move the file may go. */
static void job_done(struct hmm_migrate_work *work)
{
	struct dmirror_job *job = container_of(work, struct dmirror_job, work);
	struct dmirror *dmirror = job->dmirror;

	spin_lock(&dmirror->jobs_lock);
	job->ns = ktime_get_ns() - job->begin;
	list_move_tail(&job->list, &dmirror->finished);
	if (job->eventfd)
		hmm_eventfd_signal(job->eventfd);
	wake_up(&dmirror->job_done);
	spin_unlock(&dmirror->jobs_lock);
}

/* The file is closed: end what is under way, forget what came of it. */
void dmirror_jobs_end(struct dmirror *dmirror)
{
	struct dmirror_job *job, *next;

	spin_lock(&dmirror->jobs_lock);
	list_for_each_entry(job, &dmirror->running, list)
		hmm_migrate_cancel(&job->work);
	spin_unlock(&dmirror->jobs_lock);
	wait_event(dmirror->job_done, list_empty_careful(&dmirror->running));

	spin_lock(&dmirror->jobs_lock);
	spin_unlock(&dmirror->jobs_lock);
	list_for_each_entry_safe(job, next, &dmirror->finished, list)
		free_job(job);
}

int dmirror_job_start(struct dmirror *dmirror, struct hmm_dmirror_start *start)
{
	struct dmirror_job *job;
	int ret;

	if (start->reserved || start->eventfd < -1)
		return -EINVAL;
	job = kzalloc(sizeof(*job), GFP_KERNEL_ACCOUNT);
	if (!job)
		return -ENOMEM;
	ret = hmm_call_check_move(dmirror->device->region, dmirror->view, start->addr,
				  start->len, start->direction, start->flags,
				  &job->work.migrate);
	if (ret)
		goto err_job;
	if (start->eventfd >= 0) {
		job->eventfd = eventfd_ctx_fdget(start->eventfd);
		if (IS_ERR(job->eventfd)) {
			ret = PTR_ERR(job->eventfd) == -EINVAL ? -EBADF : PTR_ERR(job->eventfd);
			job->eventfd = NULL;
			goto err_job;
		}
	}
	job->dmirror = dmirror;
	job->begin = ktime_get_ns();
	job->work.direction = start->direction == HMM_DMIRROR_TO_DEVICE ? HMM_TO_DEVICE :
									  HMM_TO_RAM;
	job->work.done = job_done;

	spin_lock(&dmirror->jobs_lock);
	if (dmirror->nr_jobs == MAX_JOBS) {
		spin_unlock(&dmirror->jobs_lock);
		ret = -EBUSY;
		goto err_job;
	}
	dmirror->nr_jobs++;
	job->id = ++dmirror->last_id;
	start->id = job->id;
	list_add_tail(&job->list, &dmirror->running);
	spin_unlock(&dmirror->jobs_lock);

	ret = hmm_migrate_start(dmirror->device->region, &job->work);
	if (!ret)
		return 0;

	spin_lock(&dmirror->jobs_lock);
	list_del(&job->list);
	dmirror->nr_jobs--;
	spin_unlock(&dmirror->jobs_lock);
err_job:
	free_job(job);
	return ret;
}

int dmirror_job_result(struct dmirror *dmirror, struct hmm_dmirror_result *result)
{
	const struct hmm_migrate *m;
	struct dmirror_job *job, *found = NULL;
	int i, ret = -ENOENT;

	spin_lock(&dmirror->jobs_lock);
	list_for_each_entry(job, &dmirror->finished, list) {
		if (!result->id || job->id == result->id) {
			found = job;
			break;
		}
	}
	if (found) {
		list_del(&found->list);
		dmirror->nr_jobs--;
	} else {
		list_for_each_entry(job, &dmirror->running, list)
			if (!result->id || job->id == result->id)
				ret = -EAGAIN;
	}
	spin_unlock(&dmirror->jobs_lock);
	if (!found)
		return ret;

	m = &found->work.migrate;
	*result = (struct hmm_dmirror_result) {
		.size = sizeof(*result), .error = -found->work.result, .id = found->id,
		.moved = m->moved, .ns = found->ns,
	};
	for (i = 0; i < HMM_SKIP_NR; i++)
		result->skipped[i] = m->skipped[i];
	free_job(found);
	return 0;
}

__poll_t dmirror_job_poll(struct dmirror *dmirror, struct file *filp, poll_table *wait)
{
	poll_wait(filp, &dmirror->job_done, wait);
	return list_empty_careful(&dmirror->finished) ? 0 : EPOLLIN | EPOLLRDNORM;
}
