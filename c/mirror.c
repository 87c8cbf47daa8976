// SPDX-License-Identifier: GPL-2.0
/*
 * hmm_mirror_register() of Linux 4.14 to 5.2: a driver hears of every change to an address
 * space.
 *
 * All mirrors of an address space share one struct space, found by mm, with one interval
 * notifier over everything. A mirror may come and go in any order; the last one to go takes
 * the space with it. The notifier is removed by a worker, for it must not be waited for
 * from inside an invalidation, and a driver's release callback is inside one.
 *
 * What a driver has looked at (snapshot.c) is true until an invalidation hits it. The space
 * keeps the last few, so that a range needs no place on a list: nothing of the driver's is
 * kept, and a driver that forgets to end a range does no harm.
 *
 * Order in an invalidation: sequence, history, driver. A reader that took its place in the
 * history before it walked either sees the new sequence during the walk, or finds the
 * invalidation in the history afterwards.
 *
 * Locks: mmap lock -> spaces_lock; mirrors_sem is taken inside reclaim and under both.
 */
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "mirror.h"

/* A driver's callbacks, as either kind of driver has them. */
struct hmm_client_update {
	unsigned long start;
	unsigned long end;
	int event;
	bool blockable;
};

struct hmm_mirror_ops {
	void (*release)(struct hmm_mirror *mirror);
	union {
		void (*range)(struct hmm_mirror *mirror, int update_type,
			      unsigned long start, unsigned long end);
		int (*update)(struct hmm_mirror *mirror,
			      const struct hmm_client_update *update);
	} sync_cpu_device_pagetables;
};

static DEFINE_MUTEX(spaces_lock);
static DEFINE_XARRAY(spaces);		/* mm -> struct space; changed under spaces_lock */
static atomic64_t last_id;

static void space_free(struct kref *kref)
{
	kfree_rcu(container_of(kref, struct space, kref), rcu);
}

void hmm_space_put(struct space *space)
{
	kref_put(&space->kref, space_free);
}

/* The live space of @mm with a reference, or NULL. @id other than 0: this one only. */
struct space *hmm_space_get(struct mm_struct *mm, u64 id)
{
	struct space *space;

	rcu_read_lock();
	space = xa_load(&spaces, (unsigned long)mm);
	if (space && ((id && space->id != id) || !kref_get_unless_zero(&space->kref)))
		space = NULL;
	rcu_read_unlock();
	return space;
}

/* Where in the history a walk begins. */
unsigned long hmm_space_now(struct space *space)
{
	unsigned long now;

	spin_lock(&space->lock);
	now = space->now;
	spin_unlock(&space->lock);
	return now;
}

/* Whether nothing has hit [start, end) since @then. */
bool hmm_space_unchanged(struct space *space, unsigned long then, unsigned long start,
			 unsigned long end)
{
	bool same;

	spin_lock(&space->lock);
	same = space->now - then <= SPACE_HISTORY && !space->hmm.dead;
	for (; same && then != space->now; then++) {
		const struct space_change *change = &space->history[then % SPACE_HISTORY];

		same = change->end <= start || change->start >= end;
	}
	spin_unlock(&space->lock);
	return same;
}

static void space_record(struct space *space, unsigned long start, unsigned long end)
{
	struct space_change *change;

	spin_lock(&space->lock);
	change = &space->history[space->now++ % SPACE_HISTORY];
	change->start = start;
	change->end = end;
	spin_unlock(&space->lock);
}

/* Tell one driver. False: it would have to sleep, and may not. */
static bool mirror_sync(struct hmm_mirror *mirror, unsigned long start, unsigned long end,
			bool blockable)
{
	struct hmm_client_update update = {
		.start = start,
		.end = end,
		.event = HMM_UPDATE_INVALIDATE,
		.blockable = blockable,
	};

	if (mirror->update)
		return !mirror->ops->sync_cpu_device_pagetables.update(mirror, &update) ||
		       blockable;
	if (!blockable)
		return false;
	mirror->ops->sync_cpu_device_pagetables.range(mirror, HMM_UPDATE_INVALIDATE,
						      start, end);
	return true;
}

/* The address space ends. Mirrors leave the list one by one, each with its callback. */
static void space_release(struct space *space)
{
	struct hmm_mirror *mirror;

	down_write(&space->mirrors_sem);
	while ((mirror = list_first_entry_or_null(&space->mirrors, struct hmm_mirror, list))) {
		list_del_init(&mirror->list);
		if (!mirror->ops->release)
			continue;
		/* It may wait for work of the driver's, which may unregister other mirrors. */
		space->releasing = mirror;
		space->releaser = current;
		up_write(&space->mirrors_sem);
		mirror->ops->release(mirror);
		down_write(&space->mirrors_sem);
		space->releasing = NULL;
		wake_up_all(&space->wait);
	}
	up_write(&space->mirrors_sem);
}

static bool space_invalidate(struct mmu_interval_notifier *notifier,
			     const struct mmu_notifier_range *range, unsigned long seq)
{
	struct space *space = container_of(notifier, struct space, notifier);
	bool blockable = mmu_notifier_range_blockable(range);
	/* At exit the range is everything; drivers walk tables that end where user space does. */
	unsigned long end = min(PAGE_ALIGN_DOWN(range->end), TASK_SIZE_MAX);
	struct hmm_mirror *mirror;
	bool done = true;

	if (blockable)
		down_read(&space->mirrors_sem);
	else if (!down_read_trylock(&space->mirrors_sem))
		return false;
	if (range->event == MMU_NOTIFY_RELEASE)
		WRITE_ONCE(space->hmm.dead, true);
	mmu_interval_set_seq(notifier, seq);
	space_record(space, range->start, end);
	list_for_each_entry(mirror, &space->mirrors, list)
		done &= mirror_sync(mirror, range->start, end, blockable);
	up_read(&space->mirrors_sem);

	if (range->event == MMU_NOTIFY_RELEASE)
		space_release(space);
	return done;
}

static const struct mmu_interval_notifier_ops space_notifier_ops = {
	.invalidate = space_invalidate,
};

static void space_end(struct work_struct *work)
{
	struct space *space = container_of(work, struct space, end);

	mmu_interval_notifier_remove(&space->notifier);
	hmm_space_put(space);
}

/* The space of @mm, made if there is none; spaces_lock and the mmap lock are held. */
static struct space *space_find_or_make(struct mm_struct *mm)
{
	struct space *space = xa_load(&spaces, (unsigned long)mm);
	int ret;

	if (space)
		return space;
	space = kzalloc(sizeof(*space), GFP_KERNEL);
	if (!space)
		return ERR_PTR(-ENOMEM);
	space->hmm.mm = mm;
	space->id = atomic64_inc_return(&last_id);
	kref_init(&space->kref);
	init_rwsem(&space->mirrors_sem);
	init_waitqueue_head(&space->wait);
	INIT_LIST_HEAD(&space->mirrors);
	spin_lock_init(&space->lock);
	INIT_WORK(&space->end, space_end);

	ret = xa_err(xa_store(&spaces, (unsigned long)mm, space, GFP_KERNEL));
	if (ret)
		goto err_free;
	ret = mmu_interval_notifier_insert_locked(&space->notifier, mm, 0,
						  ULONG_MAX & PAGE_MASK,
						  &space_notifier_ops);
	if (ret)
		goto err_erase;
	return space;

err_erase:
	xa_erase(&spaces, (unsigned long)mm);
err_free:
	/* Somebody may be looking at it. */
	kfree_rcu(space, rcu);
	return ERR_PTR(ret == -EINVAL ? -EINVAL : -ENOMEM);
}

static int mirror_register(struct hmm_mirror *mirror, struct mm_struct *mm, bool update)
{
	struct space *space;

	if (!mirror || !mm || !mirror->ops ||
	    !mirror->ops->sync_cpu_device_pagetables.range || !atomic_read(&mm->mm_users))
		return -EINVAL;
	mutex_lock(&spaces_lock);
	space = space_find_or_make(mm);
	if (!IS_ERR(space)) {
		mirror->hmm = &space->hmm;
		mirror->update = update;
		space->users++;
		down_write(&space->mirrors_sem);
		list_add(&mirror->list, &space->mirrors);
		up_write(&space->mirrors_sem);
	}
	mutex_unlock(&spaces_lock);
	return PTR_ERR_OR_ZERO(space);
}

/**
 * hmm_mirror_register_range() - hmm_mirror_register() of Linux 4.14 to 4.19
 * @mirror: with &hmm_mirror.ops set, the rest is overwritten; to be given to
 *	hmm_mirror_unregister() before it is freed
 * @mm: the address space; kept alive as a struct, not as an address space
 *
 * From now on the driver's sync callback is called before anything changes in the CPU's page
 * table. Several mirrors of an address space are possible.
 *
 * Context: process context, mmap lock of @mm held for write.
 * Return: 0; -EINVAL no @mirror, @mm, ops or sync callback, or @mm has ended; -ENOMEM.
 */
int hmm_mirror_register_range(struct hmm_mirror *mirror, struct mm_struct *mm)
{
	return mirror_register(mirror, mm, false);
}
EXPORT_SYMBOL_GPL(hmm_mirror_register_range);

/**
 * hmm_mirror_register_update() - hmm_mirror_register() of Linux 4.20 to 5.2
 * @mirror: as for hmm_mirror_register_range()
 * @mm: as for hmm_mirror_register_range()
 *
 * Its sync callback gets a struct hmm_update and may refuse to sleep.
 *
 * Context: as hmm_mirror_register_range().
 * Return: as hmm_mirror_register_range().
 */
int hmm_mirror_register_update(struct hmm_mirror *mirror, struct mm_struct *mm)
{
	return mirror_register(mirror, mm, true);
}
EXPORT_SYMBOL_GPL(hmm_mirror_register_update);

/**
 * hmm_mirror_unregister() - end a mirror
 * @mirror: the mirror; does nothing if it is not registered. When this returns no callback of
 *	it runs, nor will one be called.
 *
 * Possible in any order among the mirrors of an address space, before, while and after that
 * comes to its end, and from the release callback; which must not wait for somebody who
 * unregisters the same mirror.
 *
 * Context: process context, sleeps; not from the sync callback.
 */
void hmm_mirror_unregister(struct hmm_mirror *mirror)
{
	struct space *space;

	if (!mirror->hmm)
		return;
	space = hmm_space_of(mirror->hmm);
	mutex_lock(&spaces_lock);
	down_write(&space->mirrors_sem);
	list_del_init(&mirror->list);
	up_write(&space->mirrors_sem);
	/* Its release callback may be under way, or be the caller. */
	if (space->releaser != current)
		wait_event(space->wait, READ_ONCE(space->releasing) != mirror);
	mirror->hmm = NULL;
	if (!--space->users) {
		xa_erase(&spaces, (unsigned long)space->hmm.mm);
		queue_work(hmm_workqueue, &space->end);
	}
	mutex_unlock(&spaces_lock);
}
EXPORT_SYMBOL_GPL(hmm_mirror_unregister);

void hmm_mirror_exit(void)
{
	WARN_ON(!xa_empty(&spaces));
}
