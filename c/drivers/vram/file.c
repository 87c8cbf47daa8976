// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/hmm_vram*: every call is checked here before it does anything.
 */
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vram.h"
#include "../calls.h"

static int vram_open(struct inode *inode, struct file *filp)
{
	struct vram_device *vram = container_of(filp->private_data, struct vram_device, misc);
	struct vram_context *context = vram_context_new(vram);

	if (IS_ERR(context))
		return PTR_ERR(context);
	filp->private_data = context;
	return 0;
}

static int vram_release(struct inode *inode, struct file *filp)
{
	vram_context_free(filp->private_data);
	return 0;
}

static u32 kind(const struct vram_device *vram)
{
	return vram->private ? HMM_DMIRROR_KIND_PRIVATE : HMM_DMIRROR_KIND_COHERENT;
}

static int status_ioctl(struct vram_device *vram, struct hmm_vram_status *status)
{
	static_assert((int)VRAM_ENGINE_DMA == HMM_VRAM_ENGINE_DMA);
	static_assert((int)VRAM_ENGINE_CPU == HMM_VRAM_ENGINE_CPU);
	static_assert((int)VRAM_ENGINE_LOST == HMM_VRAM_ENGINE_LOST);

	status->engine = READ_ONCE(vram->engine);
	status->resets = READ_ONCE(vram->generation);
	status->commands = atomic64_read(&vram->commands);
	status->bytes = atomic64_read(&vram->bytes);
	status->lost_interrupts = atomic64_read(&vram->lost_interrupts);
	status->odd_completions = atomic64_read(&vram->odd);
	return 0;
}

/* Where the pages of a range are: the one call here without a size in front. */
static int snapshot_ioctl(struct vram_context *context, void __user *arg)
{
	struct hmm_view *view = vram_context_view(context);
	struct hmm_dmirror_cmd cmd;
	u64 len;
	int ret;

	if (copy_from_user(&cmd, arg, sizeof(cmd)))
		return -EFAULT;
	if (check_mul_overflow(cmd.npages, (u64)PAGE_SIZE, &len))
		return -EINVAL;
	ret = hmm_call_check_range(view, cmd.addr, len);
	if (ret)
		return ret;
	cmd.cpages = 0;
	cmd.faults = 0;
	ret = hmm_call_snapshot(vram_context_device(context)->region, view, &cmd);
	return copy_to_user(arg, &cmd, sizeof(cmd)) ? -EFAULT : ret;
}

static long vram_ioctl(struct file *filp, unsigned int nr, unsigned long arg)
{
	struct vram_context *context = filp->private_data;
	struct vram_device *vram = vram_context_device(context);
	struct hmm_view *view = vram_context_view(context);
	void __user *user = (void __user *)arg;
	union {
		u32 size;
		struct hmm_dmirror_info info;
		struct hmm_dmirror_move move;
		struct hmm_vram_submit submit;
		struct hmm_vram_wait wait;
		struct hmm_vram_status status;
	} u;
	int ret;

	if (READ_ONCE(vram->dead))
		return -ENODEV;
	/* A context is of the process that opened the file; nobody else looks through it. */
	if (current->mm != hmm_view_mm(view))
		return -EPERM;

	switch (nr) {
	case HMM_DMIRROR_SNAPSHOT:
		return snapshot_ioctl(context, user);
	case HMM_DMIRROR_RELEASE:
		return capable(CAP_SYS_ADMIN) ? hmm_region_evict(vram->region) : -EPERM;
	case HMM_DMIRROR_INFO:
	case HMM_DMIRROR_MOVE:
	case HMM_VRAM_SUBMIT:
	case HMM_VRAM_WAIT:
	case HMM_VRAM_STATUS:
		break;
	default:
		return -ENOTTY;
	}

	if (copy_from_user(&u, user, _IOC_SIZE(nr)))
		return -EFAULT;
	if (u.size != _IOC_SIZE(nr))
		return -EINVAL;
	switch (nr) {
	case HMM_DMIRROR_INFO:
		ret = hmm_call_info(vram->region, view, kind(vram), &u.info);
		break;
	case HMM_DMIRROR_MOVE:
		ret = hmm_call_move(vram->region, view, &u.move);
		break;
	case HMM_VRAM_SUBMIT:
		ret = vram_context_submit(context, &u.submit);
		break;
	case HMM_VRAM_WAIT:
		ret = vram_context_wait(context, &u.wait);
		break;
	default:
		ret = status_ioctl(vram, &u.status);
	}
	/* What was done counts even if it was not all. */
	return copy_to_user(user, &u, _IOC_SIZE(nr)) ? -EFAULT : ret;
}

static void vram_show_fdinfo(struct seq_file *s, struct file *filp)
{
	struct vram_context *context = filp->private_data;
	struct vram_device *vram = vram_context_device(context);

	hmm_call_fdinfo(s, VRAM_NAME, vram->name, vram->region, vram_context_view(context));
}

const struct file_operations vram_fops = {
	.owner = THIS_MODULE,
	.open = vram_open,
	.release = vram_release,
	.unlocked_ioctl = vram_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.show_fdinfo = vram_show_fdinfo,
};
