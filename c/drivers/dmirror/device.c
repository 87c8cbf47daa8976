// SPDX-License-Identifier: GPL-2.0
/*
 * Platform devices come and go: what a device is made of, and what outlives it.
 */
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/slab.h>

#include "dmirror.h"

#define MAX_DEVICES	8

static unsigned int devices = 2;
module_param(devices, uint, 0444);
MODULE_PARM_DESC(devices, "devices with private memory, if the kernel offers it (default 2)");

static unsigned int size_mb = 256;
module_param(size_mb, uint, 0444);
MODULE_PARM_DESC(size_mb, "private memory of each, MiB, an even number; taken from RAM (default 256)");

static u64 coherent_start[MAX_DEVICES];
static unsigned int coherent_devices;
module_param_array(coherent_start, ullong, &coherent_devices, 0444);
MODULE_PARM_DESC(coherent_start,
		 "physical address of a reserved range (boot with memmap=SIZE$ADDRESS), one for each device with coherent memory");

static unsigned int coherent_size_mb = 256;
module_param(coherent_size_mb, uint, 0444);
MODULE_PARM_DESC(coherent_size_mb, "coherent memory of each, MiB, an even number (default 256)");

static struct platform_device *platform_devices[2 * MAX_DEVICES];
static unsigned int nr_platform_devices;

static void dmirror_device_free(struct kref *kref)
{
	kfree(container_of(kref, struct dmirror_device, kref));
}

void dmirror_device_put(struct dmirror_device *device)
{
	kref_put(&device->kref, dmirror_device_free);
}

static void put_device_devres(void *data)
{
	struct dmirror_device *device = data;

	if (device->region)
		hmm_region_put(device->region);
	dmirror_device_put(device);
}

/* Tells who looks at it what memory of @config there is. */
static struct hmm_region *add_region(struct device *dev, struct dmirror_device *device,
				     const struct dmirror_config *config)
{
	struct hmm_region_params params = { .driver_data = device };
	int ret;

	if (config->kind == HMM_DMIRROR_KIND_PRIVATE) {
		ret = dmirror_memory_add(dev, device, config->size);
		if (ret)
			return ERR_PTR(ret);
		params.ops = &dmirror_region_ops;
		params.size = config->size;
		return devm_hmm_region_add(dev, &params);
	}

	/* A hole that nothing decodes would read as all ones: it has to be reserved RAM. */
	if (region_intersects(config->start, config->size, IORESOURCE_MEM,
			      IORES_DESC_RESERVED) != REGION_INTERSECTS &&
	    region_intersects(config->start, config->size, IORESOURCE_MEM,
			      IORES_DESC_SOFT_RESERVED) != REGION_INTERSECTS) {
		dev_err(dev, "%#llx is not reserved memory: boot with memmap=%lluM$%#llx\n",
			config->start, config->size >> 20, config->start);
		return ERR_PTR(-ENXIO);
	}
	params.res = devm_request_mem_region(dev, config->start, config->size, dev_name(dev));
	if (!params.res)
		return ERR_PTR(-EBUSY);
	return devm_hmm_region_add(dev, &params);
}

/*
 * Devres undoes all of it in reverse: the region is emptied, then the RAM behind it freed,
 * then our reference dropped.
 */
static int dmirror_probe(struct platform_device *pdev)
{
	const struct dmirror_config *config = dev_get_platdata(&pdev->dev);
	struct dmirror_device *device;
	struct hmm_region *region;
	int ret;

	device = kzalloc(sizeof(*device), GFP_KERNEL);
	if (!device)
		return -ENOMEM;
	kref_init(&device->kref);
	spin_lock_init(&device->fail_lock);
	device->kind = config->kind;
	ret = devm_add_action_or_reset(&pdev->dev, put_device_devres, device);
	if (ret)
		return ret;

	if (config->kind != HMM_DMIRROR_KIND_NONE) {
		region = add_region(&pdev->dev, device, config);
		if (IS_ERR(region))
			return PTR_ERR(region);
		/* Files ask it for figures after the device is gone. */
		hmm_region_get(region);
		device->region = region;
	}

	snprintf(device->name, sizeof(device->name), "hmm_dmirror%d", pdev->id);
	device->misc.minor = MISC_DYNAMIC_MINOR;
	device->misc.name = device->name;
	device->misc.fops = &dmirror_fops;
	device->misc.mode = 0660;
	device->misc.parent = &pdev->dev;
	ret = misc_register(&device->misc);
	if (ret)
		return ret;
	platform_set_drvdata(pdev, device);
	return 0;
}

/* No new files; those open find a dead device. What was added goes by devres. */
static void dmirror_remove(struct platform_device *pdev)
{
	struct dmirror_device *device = platform_get_drvdata(pdev);

	misc_deregister(&device->misc);
	WRITE_ONCE(device->dead, true);
}
HMM_DEFINE_REMOVE_OP(dmirror_remove)

static struct platform_driver dmirror_driver = {
	.probe = dmirror_probe,
	.remove = HMM_REMOVE_OP(dmirror_remove),
	.driver = { .name = "hmm_dmirror" },
};

static int add_device(u32 kind, u64 size, u64 start)
{
	struct dmirror_config config = { .kind = kind, .size = size, .start = start };
	struct platform_device *pdev;

	pdev = platform_device_register_data(NULL, "hmm_dmirror", nr_platform_devices,
					     &config, sizeof(config));
	if (IS_ERR(pdev))
		return PTR_ERR(pdev);
	platform_devices[nr_platform_devices++] = pdev;
	/* A device that could not be set up has said why. */
	return pdev->dev.driver ? 0 : -ENODEV;
}

static void remove_devices(void)
{
	while (nr_platform_devices)
		platform_device_unregister(platform_devices[--nr_platform_devices]);
	platform_driver_unregister(&dmirror_driver);
}

static int __init dmirror_init(void)
{
	unsigned int i;
	int ret;

	if (devices > MAX_DEVICES) {
		pr_err("devices=%u, but %d at most\n", devices, MAX_DEVICES);
		return -EINVAL;
	}
	ret = platform_driver_register(&dmirror_driver);
	if (ret)
		return ret;

	if (hmm_devmem_caps() & HMM_CAP_PRIVATE)
		for (i = 0; i < devices && !ret; i++)
			ret = add_device(HMM_DMIRROR_KIND_PRIVATE, (u64)size_mb << 20, 0);
	for (i = 0; i < coherent_devices && !ret; i++)
		ret = add_device(HMM_DMIRROR_KIND_COHERENT, (u64)coherent_size_mb << 20,
				 coherent_start[i]);
	/* A kernel without either: the device still looks at processes. */
	if (!ret && !nr_platform_devices)
		ret = add_device(HMM_DMIRROR_KIND_NONE, 0, 0);
	if (ret)
		remove_devices();
	return ret;
}

static void __exit dmirror_exit(void)
{
	remove_devices();
}

module_init(dmirror_init);
module_exit(dmirror_exit);

MODULE_DESCRIPTION("A device made of RAM, reference driver of hmm_devmem");
MODULE_LICENSE("GPL");
MODULE_VERSION(HMM_VERSION);
