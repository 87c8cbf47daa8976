/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A mirrored address space, between mirror.c and snapshot.c.
 */
#ifndef HMM_SPACE_H
#define HMM_SPACE_H

#include "hmm_mirror.h"
#include "internal.h"

/* Invalidations that are remembered; a range that has seen more of them has changed. */
#define SPACE_HISTORY	64

struct space_change {
	unsigned long start;
	unsigned long end;
};

struct space {
	struct hmm hmm;			/* what drivers see */
	struct kref kref;		/* the struct; the notifier owns one */
	u64 id;				/* never used twice, other than mm */
	unsigned int users;		/* mirrors; under spaces_lock */
	struct mmu_interval_notifier notifier;
	struct rw_semaphore mirrors_sem;
	struct list_head mirrors;
	struct hmm_mirror *releasing;	/* its release callback is running */
	struct task_struct *releaser;
	wait_queue_head_t wait;
	spinlock_t lock;		/* the history */
	unsigned long now;		/* invalidations so far */
	struct space_change history[SPACE_HISTORY];
	struct work_struct end;
	struct rcu_head rcu;
};

static inline struct space *hmm_space_of(struct hmm *hmm)
{
	return container_of(hmm, struct space, hmm);
}

struct space *hmm_space_get(struct mm_struct *mm, u64 id);
void hmm_space_put(struct space *space);
unsigned long hmm_space_now(struct space *space);
bool hmm_space_unchanged(struct space *space, unsigned long then, unsigned long start,
			 unsigned long end);

#endif /* HMM_SPACE_H */
