// SPDX-License-Identifier: GPL-2.0
/*
 * Three bugs on purpose. A sanitizer kernel has to tell on each of them; one that is
 * silent proves nothing about the rest of its run. Never part of what is installed.
 */
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/string.h>

#define SIZE	100
#define LARGE	(4 * PAGE_SIZE)	/* more than any slab cache has */

static char *bug = "";
module_param(bug, charp, 0444);
MODULE_PARM_DESC(bug, "lock, free or leak");

static DEFINE_MUTEX(one);
static DEFINE_MUTEX(other);

/* Two locks in one order, then in the other: nothing hangs here, but two tasks might. */
static void invert_locks(void)
{
	mutex_lock(&one);
	mutex_lock(&other);
	mutex_unlock(&other);
	mutex_unlock(&one);

	mutex_lock(&other);
	mutex_lock(&one);
	mutex_unlock(&one);
	mutex_unlock(&other);
}

static int use_after_free(void)
{
	volatile char *bytes = kmalloc(SIZE, GFP_KERNEL);

	if (!bytes)
		return -ENOMEM;
	bytes[0] = 1;
	kfree((void *)bytes);
	pr_info("read %d from memory that is free\n", bytes[0]);
	return 0;
}

/*
 * Nobody remembers where these are. Several: the last pointer to one may be somewhere still.
 * Large: small ones come out of per-CPU arrays in 7.x, which keep the pointer, and kmemleak
 * finds it there.
 */
static int leak(void)
{
	char *bytes;
	int i;

	for (i = 0; i < 8; i++) {
		bytes = kmalloc(LARGE, GFP_KERNEL);
		if (!bytes)
			return -ENOMEM;
		memset(bytes, 0x5a, LARGE);
	}
	return 0;
}

static int __init planted_init(void)
{
	if (!strcmp(bug, "lock")) {
		invert_locks();
		return 0;
	}
	if (!strcmp(bug, "free"))
		return use_after_free();
	if (!strcmp(bug, "leak"))
		return leak();
	return -EINVAL;
}

static void __exit planted_exit(void)
{
}

module_init(planted_init);
module_exit(planted_exit);

MODULE_DESCRIPTION("Bugs on purpose, for kernels that must tell on them");
MODULE_LICENSE("GPL");
