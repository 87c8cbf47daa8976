// SPDX-License-Identifier: GPL-2.0
/*
 * The smallest driver: 64 MiB of vmalloc() stand for a device's memory. What a program
 * writes to /dev/hmm_minimal is not copied: the pages it is in move to the device.
 */
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/vmalloc.h>
#include "hmm_devmem.h"

#define SIZE	(64UL << 20)

static struct hmm_region *region;
static void *memory;

static int copy_to_device(struct hmm_region *r, struct hmm_copy *copy)
{
	for (struct hmm_segment *s = copy->seg; s < copy->seg + copy->nr; s++)
		memcpy(memory + s->dst * PAGE_SIZE, pfn_to_kaddr(s->src), s->npages * PAGE_SIZE);
	return 0;
}
static int copy_to_ram(struct hmm_region *r, struct hmm_copy *copy)
{
	for (struct hmm_segment *s = copy->seg; s < copy->seg + copy->nr; s++)
		memcpy(pfn_to_kaddr(s->dst), memory + s->src * PAGE_SIZE, s->npages * PAGE_SIZE);
	return 0;
}
static int zero(struct hmm_region *r, struct hmm_copy *copy)
{
	for (struct hmm_segment *s = copy->seg; s < copy->seg + copy->nr; s++)
		memset(memory + s->dst * PAGE_SIZE, 0, s->npages * PAGE_SIZE);
	return 0;
}
static const struct hmm_region_ops ops = { copy_to_device, copy_to_ram, zero };

static ssize_t minimal_write(struct file *file, const char __user *buf, size_t len, loff_t *pos)
{
	unsigned long start = (unsigned long)buf & PAGE_MASK, end = PAGE_ALIGN((unsigned long)buf + len);
	struct hmm_migrate m = { .mm = current->mm, .start = start, .end = end };

	return IS_ERR_OR_NULL(region) ? -ENODEV : hmm_migrate_to_device(region, &m) ?: len;
}
static const struct file_operations fops = { .owner = THIS_MODULE, .write = minimal_write };
static struct miscdevice misc = { MISC_DYNAMIC_MINOR, "hmm_minimal", &fops };

static int __init minimal_init(void)
{
	struct hmm_region_params params = { .ops = &ops, .size = SIZE };
	int ret;

	memory = vmalloc(SIZE);
	if (!memory)
		return -ENOMEM;
	ret = misc_register(&misc);
	if (!ret) {
		region = devm_hmm_region_add(misc.this_device, &params);
		ret = PTR_ERR_OR_ZERO(region);
		if (ret)
			misc_deregister(&misc);
	}
	if (ret)
		vfree(memory);
	return ret;
}
static void __exit minimal_exit(void)
{
	misc_deregister(&misc);		/* with its device goes the region: every page comes home */
	vfree(memory);
}
module_init(minimal_init);
module_exit(minimal_exit);
MODULE_DESCRIPTION("The smallest driver on top of hmm_devmem");
MODULE_LICENSE("GPL");
