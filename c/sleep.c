// SPDX-License-Identifier: GPL-2.0
/*
 * The system sleeps: what is on devices is brought home before, since a device may lose its
 * memory without power. Until the system is awake again nothing moves to a device.
 */
#include <linux/srcu.h>
#include <linux/suspend.h>

#include "internal.h"

static bool sleep_is_near;

/* Held while a migration is under way; may sleep. */
DEFINE_STATIC_SRCU(sleep_srcu);

int hmm_sleep_enter(void)
{
	return srcu_read_lock(&sleep_srcu);
}

void hmm_sleep_leave(int idx)
{
	srcu_read_unlock(&sleep_srcu, idx);
}

/* Asked inside hmm_sleep_enter(): shall nothing move to a device any more? */
bool hmm_sleep_is_near(void)
{
	return READ_ONCE(sleep_is_near);
}

static int bring_all_home(void)
{
	struct hmm_region *region = NULL;
	int ret, first = 0;

	while ((region = hmm_region_next(region))) {
		ret = hmm_region_evict(region);
		/* Its own removal brings everything home. */
		if (ret == -ENODEV)
			ret = 0;
		if (ret)
			dev_err(region->devmem.device,
				"pages did not come home, so the system does not sleep (error %d)\n",
				ret);
		first = first ?: ret;
	}
	return first;
}

static int sleep_notify(struct notifier_block *unused, unsigned long event, void *data)
{
	int ret = 0;

	switch (event) {
	case PM_SUSPEND_PREPARE:
	case PM_HIBERNATION_PREPARE:
		WRITE_ONCE(sleep_is_near, true);
		synchronize_srcu(&sleep_srcu);
		ret = bring_all_home();
		/* The chain calls back only those that had agreed. */
		if (ret)
			WRITE_ONCE(sleep_is_near, false);
		break;
	case PM_POST_SUSPEND:
	case PM_POST_HIBERNATION:
		WRITE_ONCE(sleep_is_near, false);
		break;
	}
	return notifier_from_errno(ret);
}

static struct notifier_block sleep_notifier = { .notifier_call = sleep_notify };

int hmm_sleep_init(void)
{
	return register_pm_notifier(&sleep_notifier);
}

void hmm_sleep_exit(void)
{
	unregister_pm_notifier(&sleep_notifier);
}
