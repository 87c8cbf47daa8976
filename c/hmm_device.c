// SPDX-License-Identifier: GPL-2.0
/*
 * struct hmm_device: a device for drivers that have none. It is initialised but never added,
 * so that nothing of it is visible; what was hung on it goes with its last reference.
 */
#include <linux/fs.h>
#include <linux/idr.h>
#include <linux/slab.h>

#include "internal.h"

#define HMM_DEVICE_MAX	256

static DEFINE_IDA(hmm_device_minors);
static dev_t hmm_device_region;

static void hmm_device_release(struct device *device)
{
	struct hmm_device *hmm_device = container_of(device, struct hmm_device, device);

	ida_free(&hmm_device_minors, hmm_device->minor);
	kfree(hmm_device);
}

static struct class hmm_device_class = {
	.name = "hmm_device",
	.dev_release = hmm_device_release,
};

/**
 * hmm_device_new() - make a device that is nobody's
 * @drvdata: what dev_get_drvdata() of its &hmm_device.device is to return
 *
 * Context: process context, may sleep.
 * Return: the device, to be given to hmm_device_put(); or ERR_PTR: -ENOMEM; -EBUSY there
 * are 256 of them.
 */
struct hmm_device *hmm_device_new(void *drvdata)
{
	struct hmm_device *hmm_device;
	int minor, ret;

	hmm_device = kzalloc(sizeof(*hmm_device), GFP_KERNEL);
	if (!hmm_device)
		return ERR_PTR(-ENOMEM);
	minor = ida_alloc_max(&hmm_device_minors, HMM_DEVICE_MAX - 1, GFP_KERNEL);
	if (minor < 0) {
		kfree(hmm_device);
		return ERR_PTR(minor == -ENOSPC ? -EBUSY : minor);
	}
	hmm_device->minor = minor;
	device_initialize(&hmm_device->device);
	/* From here on the last put frees it, with all that devres hung on it. */
	hmm_device->device.class = &hmm_device_class;
	hmm_device->device.devt = MKDEV(MAJOR(hmm_device_region), minor);
	dev_set_drvdata(&hmm_device->device, drvdata);
	ret = dev_set_name(&hmm_device->device, "hmm_device%d", minor);
	if (ret) {
		put_device(&hmm_device->device);
		return ERR_PTR(ret);
	}
	return hmm_device;
}
EXPORT_SYMBOL_GPL(hmm_device_new);

/**
 * hmm_device_put() - let go of a device
 * @hmm_device: from hmm_device_new(); gone afterwards unless others took references
 *
 * This is the teardown: device memory that was added to it is removed as by
 * hmm_devmem_remove().
 *
 * Context: process context; sleeps until the device's memory is empty.
 */
void hmm_device_put(struct hmm_device *hmm_device)
{
	put_device(&hmm_device->device);
}
EXPORT_SYMBOL_GPL(hmm_device_put);

int __init hmm_device_init(void)
{
	int ret;

	ret = alloc_chrdev_region(&hmm_device_region, 0, HMM_DEVICE_MAX, "hmm_device");
	if (ret)
		return ret;
	ret = class_register(&hmm_device_class);
	if (ret)
		unregister_chrdev_region(hmm_device_region, HMM_DEVICE_MAX);
	return ret;
}

void hmm_device_exit(void)
{
	class_unregister(&hmm_device_class);
	unregister_chrdev_region(hmm_device_region, HMM_DEVICE_MAX);
	ida_destroy(&hmm_device_minors);
}
