// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/hmm_dmirror*: every call is checked here before it does anything.
 */
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "dmirror.h"
#include "../calls.h"

static int dmirror_open(struct inode *inode, struct file *filp)
{
	struct dmirror_device *device = container_of(filp->private_data,
						     struct dmirror_device, misc);
	struct dmirror *dmirror;
	struct hmm_view *view;

	dmirror = kzalloc(sizeof(*dmirror), GFP_KERNEL_ACCOUNT);
	if (!dmirror)
		return -ENOMEM;
	xa_init(&dmirror->blocks);
	dmirror_jobs_init(dmirror);
	dmirror->device = device;
	view = hmm_view_attach(device->region, &dmirror_view_ops, dmirror);
	if (IS_ERR(view)) {
		kfree(dmirror);
		return PTR_ERR(view);
	}
	dmirror->view = view;
	/* The misc layer keeps the device registered while it is being opened. */
	kref_get(&device->kref);
	filp->private_data = dmirror;
	return 0;
}

static int dmirror_release(struct inode *inode, struct file *filp)
{
	struct dmirror *dmirror = filp->private_data;

	dmirror_jobs_end(dmirror);
	hmm_view_detach(dmirror->view);
	dmirror_free_table(dmirror);
	dmirror_device_put(dmirror->device);
	kfree(dmirror);
	return 0;
}

/* The calls shared with the kernel's own test driver. */
static int cmd_ioctl(struct dmirror *dmirror, unsigned int nr, void __user *arg)
{
	struct hmm_region *region = dmirror->device->region;
	struct hmm_migrate m = { .mm = hmm_view_mm(dmirror->view),
				 .flags = HMM_MIGRATE_STRICT | HMM_MIGRATE_HOLES |
					  HMM_MIGRATE_FROM_RAM };
	struct hmm_dmirror_cmd cmd;
	u64 len;
	int ret;

	if (nr == HMM_DMIRROR_RELEASE) {
		if (!capable(CAP_SYS_ADMIN))
			return -EPERM;
		return region ? hmm_region_evict(region) : -EOPNOTSUPP;
	}
	if (copy_from_user(&cmd, arg, sizeof(cmd)))
		return -EFAULT;
	if (nr == HMM_DMIRROR_FLAGS) {
		if (cmd.npages & ~HMM_DMIRROR_FLAG_FAIL_ALLOC)
			return -EINVAL;
		WRITE_ONCE(dmirror->small_once, cmd.npages & HMM_DMIRROR_FLAG_FAIL_ALLOC);
		return 0;
	}
	if (check_mul_overflow(cmd.npages, (u64)PAGE_SIZE, &len))
		return -EINVAL;
	ret = hmm_call_check_range(dmirror->view, cmd.addr, len);
	if (ret)
		return ret;
	cmd.cpages = 0;
	cmd.faults = 0;
	m.start = cmd.addr;
	m.end = cmd.addr + len;

	switch (nr) {
	case HMM_DMIRROR_READ:
	case HMM_DMIRROR_READ_UNLOCKED:
		ret = dmirror_read(dmirror, &cmd);
		break;
	case HMM_DMIRROR_WRITE:
		ret = dmirror_write(dmirror, &cmd);
		break;
	case HMM_DMIRROR_SNAPSHOT:
		ret = hmm_call_snapshot(region, dmirror->view, &cmd);
		break;
	case HMM_DMIRROR_EXCLUSIVE:
		ret = dmirror_exclusive(dmirror, &cmd);
		break;
	case HMM_DMIRROR_CHECK_EXCLUSIVE:
		ret = dmirror_check_exclusive(dmirror, &cmd);
		break;
	case HMM_DMIRROR_MIGRATE_TO_DEV:
		if (!region)
			return -EOPNOTSUPP;
		if (xchg(&dmirror->small_once, false))
			m.flags |= HMM_MIGRATE_SMALL;
		/* A bad buffer is found before anything moves; it may be the range itself. */
		if (fault_in_safe_writeable(u64_to_user_ptr(cmd.ptr), len))
			return -EFAULT;
		ret = hmm_migrate_to_device(region, &m);
		if (!ret)
			ret = dmirror_read_resident(dmirror, &cmd);
		break;
	case HMM_DMIRROR_MIGRATE_TO_SYS:
		if (!region)
			return -EOPNOTSUPP;
		if (xchg(&dmirror->small_once, false))
			m.flags |= HMM_MIGRATE_SMALL;
		ret = hmm_migrate_to_ram(region, &m);
		cmd.cpages = m.moved;
		break;
	}
	/* What was done counts even if it was not all. */
	if (copy_to_user(arg, &cmd, sizeof(cmd)))
		return -EFAULT;
	return ret;
}

static int compute_ioctl(struct dmirror *dmirror, struct hmm_dmirror_compute *compute)
{
	int ret;

	if (compute->op != HMM_DMIRROR_ADD &&
	    (compute->op != HMM_DMIRROR_CHECKSUM || compute->operand))
		return -EINVAL;
	ret = hmm_call_check_range(dmirror->view, compute->addr, compute->len);
	if (ret)
		return ret;
	compute->result = 0;
	compute->device_pages = 0;
	compute->faults = 0;
	return dmirror_compute(dmirror, compute);
}

static int fail_ioctl(struct dmirror *dmirror, struct hmm_dmirror_fail *fail)
{
	struct dmirror_device *device = dmirror->device;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	/* A leg to fail and how often, or neither. */
	if (fail->leg > HMM_DMIRROR_FAIL_LONG || !fail->leg != !fail->count ||
	    (!fail->leg && fail->skip))
		return -EINVAL;
	/* Coherent memory is copied by the CPU; there is nothing to fail. */
	if (fail->leg && device->kind != HMM_DMIRROR_KIND_PRIVATE)
		return -EOPNOTSUPP;
	spin_lock(&device->fail_lock);
	WRITE_ONCE(device->fail_leg, fail->leg);
	device->fail_skip = fail->skip;
	device->fail_count = fail->count;
	spin_unlock(&device->fail_lock);
	return 0;
}

/* Our own calls: a structure that begins with its size goes in and comes back. */
static int sized_ioctl(struct dmirror *dmirror, unsigned int nr, void __user *arg)
{
	union {
		u32 size;
		struct hmm_dmirror_info info;
		struct hmm_dmirror_move move;
		struct hmm_dmirror_compute compute;
		struct hmm_dmirror_fail fail;
		struct hmm_dmirror_start start;
		struct hmm_dmirror_result result;
		struct hmm_dmirror_hint hint;
	} u;
	int ret;

	if (copy_from_user(&u, arg, _IOC_SIZE(nr)))
		return -EFAULT;
	if (u.size != _IOC_SIZE(nr))
		return -EINVAL;
	switch (nr) {
	case HMM_DMIRROR_INFO:
		ret = hmm_call_info(dmirror->device->region, dmirror->view,
				    dmirror->device->kind, &u.info);
		break;
	case HMM_DMIRROR_MOVE:
		ret = hmm_call_move(dmirror->device->region, dmirror->view, &u.move);
		break;
	case HMM_DMIRROR_COMPUTE:
		ret = compute_ioctl(dmirror, &u.compute);
		break;
	case HMM_DMIRROR_START:
		ret = dmirror_job_start(dmirror, &u.start);
		break;
	case HMM_DMIRROR_RESULT:
		ret = dmirror_job_result(dmirror, &u.result);
		break;
	case HMM_DMIRROR_SET_HINT:
		ret = hmm_call_set_hint(dmirror->view, &u.hint);
		break;
	case HMM_DMIRROR_GET_HINT:
		ret = hmm_call_get_hint(dmirror->view, &u.hint);
		break;
	default:
		return fail_ioctl(dmirror, &u.fail);
	}
	/* What was done counts even if it was not all; a refusal leaves it as it came. */
	if (copy_to_user(arg, &u, _IOC_SIZE(nr)))
		return -EFAULT;
	return ret;
}

static long dmirror_ioctl(struct file *filp, unsigned int nr, unsigned long arg)
{
	int (*call)(struct dmirror *dmirror, unsigned int nr, void __user *arg);
	struct dmirror *dmirror = filp->private_data;

	switch (nr) {
	case HMM_DMIRROR_READ:
	case HMM_DMIRROR_WRITE:
	case HMM_DMIRROR_MIGRATE_TO_DEV:
	case HMM_DMIRROR_MIGRATE_TO_SYS:
	case HMM_DMIRROR_SNAPSHOT:
	case HMM_DMIRROR_EXCLUSIVE:
	case HMM_DMIRROR_CHECK_EXCLUSIVE:
	case HMM_DMIRROR_RELEASE:
	case HMM_DMIRROR_FLAGS:
	case HMM_DMIRROR_READ_UNLOCKED:
		call = cmd_ioctl;
		break;
	case HMM_DMIRROR_INFO:
	case HMM_DMIRROR_MOVE:
	case HMM_DMIRROR_COMPUTE:
	case HMM_DMIRROR_FAIL:
	case HMM_DMIRROR_START:
	case HMM_DMIRROR_RESULT:
	case HMM_DMIRROR_SET_HINT:
	case HMM_DMIRROR_GET_HINT:
		call = sized_ioctl;
		break;
	default:
		return -ENOTTY;
	}
	if (READ_ONCE(dmirror->device->dead))
		return -ENODEV;
	/* The view is of the process that opened the file; nobody else looks through it. */
	if (current->mm != hmm_view_mm(dmirror->view))
		return -EPERM;
	return call(dmirror, nr, (void __user *)arg);
}

/*
 * Pages of the driver's own, mapped by hand, as programs written for the test driver expect
 * to find behind the descriptor: a mapping whose pages cannot move.
 */
static int dmirror_mmap(struct file *filp, struct vm_area_struct *vma)
{
	unsigned long addr;
	struct page *page;
	int ret = 0;

	for (addr = vma->vm_start; addr < vma->vm_end && !ret; addr += PAGE_SIZE) {
		page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
		if (!page)
			return -ENOMEM;
		ret = vm_insert_page(vma, addr, page);
		/* The mapping holds a reference of its own. */
		put_page(page);
	}
	return ret;
}

static void dmirror_show_fdinfo(struct seq_file *s, struct file *filp)
{
	struct dmirror *dmirror = filp->private_data;

	hmm_call_fdinfo(s, "hmm_dmirror", dmirror->device->name, dmirror->device->region,
			dmirror->view);
}

static __poll_t dmirror_poll(struct file *filp, poll_table *wait)
{
	struct dmirror *dmirror = filp->private_data;

	return dmirror_job_poll(dmirror, filp, wait) |
	       (READ_ONCE(dmirror->device->dead) ? EPOLLHUP : 0);
}

const struct file_operations dmirror_fops = {
	.owner = THIS_MODULE,
	.open = dmirror_open,
	.release = dmirror_release,
	.mmap = dmirror_mmap,
	.poll = dmirror_poll,
	.unlocked_ioctl = dmirror_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.show_fdinfo = dmirror_show_fdinfo,
};
