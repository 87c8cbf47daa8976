/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The calls that every device with memory answers its users in the same way, whatever the
 * device: INFO, MOVE and SNAPSHOT of hmm_dmirror.h, and fdinfo. So hmm-run and its like work on all.
 */
#ifndef DRIVERS_CALLS_H
#define DRIVERS_CALLS_H

#include <linux/overflow.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#include "hmm_devmem.h"
#include "dmirror/hmm_dmirror.h"

/* What the engine counts and what the user is told are the same. */
static_assert((int)HMM_SKIP_UNMAPPED == HMM_DMIRROR_SKIP_UNMAPPED);
static_assert((int)HMM_SKIP_VMA == HMM_DMIRROR_SKIP_VMA);
static_assert((int)HMM_SKIP_BUSY == HMM_DMIRROR_SKIP_BUSY);
static_assert((int)HMM_SKIP_NO_MEMORY == HMM_DMIRROR_SKIP_NO_MEMORY);
static_assert((int)HMM_SKIP_COPY == HMM_DMIRROR_SKIP_COPY);
static_assert((int)HMM_SKIP_REFUSED == HMM_DMIRROR_SKIP_REFUSED);
static_assert((int)HMM_SKIP_HOLE == HMM_DMIRROR_SKIP_HOLE);
static_assert((int)HMM_SKIP_NR == HMM_DMIRROR_SKIP_NR);

static_assert(HMM_HINT_PREFER_DEVICE == HMM_DMIRROR_HINT_PREFER_DEVICE);
static_assert(HMM_HINT_PREFER_RAM == HMM_DMIRROR_HINT_PREFER_RAM);
static_assert(HMM_HINT_READ_MOSTLY == HMM_DMIRROR_HINT_READ_MOSTLY);

/* Pages of a snapshot taken at a time. */
#define HMM_CALL_CHUNK	64UL

/* Start and size of a range: aligned, not empty, inside the address space. */
static inline int hmm_call_check_range(const struct hmm_view *view, u64 addr, u64 len)
{
	u64 end;

	if (!len || !PAGE_ALIGNED(addr) || !PAGE_ALIGNED(len) ||
	    check_add_overflow(addr, len, &end) || end > hmm_view_mm(view)->task_size)
		return -EINVAL;
	return 0;
}

/* @region may be NULL: a device without memory. */
static inline int hmm_call_info(struct hmm_region *region, const struct hmm_view *view, u32 kind,
				struct hmm_dmirror_info *info)
{
	struct hmm_core_stats frames;
	struct hmm_region_stats stats;
	int ret;

	if (info->reserved)
		return -EINVAL;
	*info = (struct hmm_dmirror_info) {
		.size = sizeof(*info), .kind = kind, .page_size = PAGE_SIZE,
	};
	if (!region)
		return 0;
	ret = hmm_region_frames(region, &frames);
	if (ret)
		return ret;
	hmm_region_stats(region, hmm_view_mm(view), &stats);
	info->frames_total = frames.total;
	info->frames_free = frames.free;
	info->frames_claimed = frames.claimed;
	info->frames_resident = frames.resident;
	info->to_device = stats.to_device;
	info->to_ram_request = stats.to_ram_request;
	info->to_ram_fault = stats.to_ram_fault;
	info->cpu_faults = stats.cpu_faults;
	info->ns_to_device = stats.ns_to_device;
	info->ns_to_ram = stats.ns_to_ram;
	info->frames_retired = frames.retired;
	return 0;
}

/* Turn what a user asks for into a request to the engine. */
static inline int hmm_call_check_move(const struct hmm_region *region,
				      const struct hmm_view *view, u64 addr, u64 len,
				      u32 direction, u64 flags, struct hmm_migrate *m)
{
	int ret;

	if (flags & ~(u64)(HMM_DMIRROR_MOVE_HOLES | HMM_DMIRROR_MOVE_MAKE_ROOM))
		return -EINVAL;
	ret = hmm_call_check_range(view, addr, len);
	if (ret)
		return ret;
	if (!region)
		return -EOPNOTSUPP;
	if (direction != HMM_DMIRROR_TO_DEVICE && direction != HMM_DMIRROR_TO_RAM)
		return -EINVAL;
	*m = (struct hmm_migrate) {
		.mm = hmm_view_mm(view), .start = addr, .end = addr + len,
	};
	if (direction == HMM_DMIRROR_TO_DEVICE)
		m->flags = (flags & HMM_DMIRROR_MOVE_HOLES ? HMM_MIGRATE_HOLES : 0) |
			   (flags & HMM_DMIRROR_MOVE_MAKE_ROOM ? HMM_MIGRATE_MAKE_ROOM : 0);
	return 0;
}

static inline int hmm_call_move(struct hmm_region *region, const struct hmm_view *view,
				struct hmm_dmirror_move *move)
{
	u64 begin = ktime_get_ns();
	struct hmm_migrate m;
	int i, ret;

	ret = hmm_call_check_move(region, view, move->addr, move->len, move->direction,
				  move->flags, &m);
	if (ret)
		return ret;
	if (move->direction == HMM_DMIRROR_TO_DEVICE)
		ret = hmm_migrate_to_device(region, &m);
	else
		ret = hmm_migrate_to_ram(region, &m);
	memset(move->skipped, 0, sizeof(move->skipped));
	for (i = 0; i < HMM_SKIP_NR; i++)
		move->skipped[i] = m.skipped[i];
	move->moved = m.moved;
	move->ns = ktime_get_ns() - begin;
	return ret;
}

static inline int hmm_call_set_hint(struct hmm_view *view, const struct hmm_dmirror_hint *hint)
{
	int ret = hmm_call_check_range(view, hint->addr, hint->len);

	return ret ?: hmm_hint_set(view, hint->addr, hint->addr + hint->len, hint->hint);
}

static inline int hmm_call_get_hint(struct hmm_view *view, struct hmm_dmirror_hint *hint)
{
	int ret = hint->hint ? -EINVAL : hmm_call_check_range(view, hint->addr, hint->len);
	unsigned long until;

	if (ret)
		return ret;
	hint->hint = hmm_hint_get(view, hint->addr, hint->addr + hint->len, &until);
	hint->len = until - hint->addr;
	return 0;
}

/* Where a page is and what the device may do with it, in a byte. */
static inline u8 hmm_call_place(struct hmm_region *own, unsigned long pfn)
{
	struct hmm_region *region;
	struct page *page;
	u8 prot;

	if (pfn & HMM_PFN_ERROR)
		return HMM_DMIRROR_PROT_ERROR;
	if (!(pfn & HMM_PFN_VALID))
		return HMM_DMIRROR_PROT_NONE;

	page = hmm_pfn_to_page(pfn);
	prot = pfn & HMM_PFN_WRITE ? HMM_DMIRROR_PROT_WRITE : HMM_DMIRROR_PROT_READ;
	region = hmm_region_of_page(page);
	if (is_device_private_page(page))
		prot |= region && region == own ?
			HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL : HMM_DMIRROR_PROT_DEV_PRIVATE_REMOTE;
	else if (region)
		prot |= region == own ?
			HMM_DMIRROR_PROT_DEV_COHERENT_LOCAL : HMM_DMIRROR_PROT_DEV_COHERENT_REMOTE;
	else if (is_zero_pfn(page_to_pfn(page)))
		prot |= HMM_DMIRROR_PROT_ZERO;

	if (hmm_pfn_to_map_order(pfn) + PAGE_SHIFT == PMD_SHIFT)
		prot |= HMM_DMIRROR_PROT_PMD;
	else if (hmm_pfn_to_map_order(pfn) + PAGE_SHIFT == PUD_SHIFT)
		prot |= HMM_DMIRROR_PROT_PUD;
	return prot;
}

struct hmm_call_visit {
	struct hmm_region *region;
	u8 byte[HMM_CALL_CHUNK];
};

static inline int hmm_call_visit(struct hmm_view *view, unsigned long addr,
				 const unsigned long *pfns, unsigned long npages, void *arg)
{
	struct hmm_call_visit *visit = arg;
	u8 *byte = visit->byte;

	for (; npages; npages--)
		*byte++ = hmm_call_place(visit->region, *pfns++);
	return 0;
}

/* @cmd was checked. */
static inline int hmm_call_snapshot(struct hmm_region *region, struct hmm_view *view,
				    struct hmm_dmirror_cmd *cmd)
{
	struct hmm_call_visit visit = { .region = region };
	unsigned long addr = cmd->addr, n;
	int ret;

	while (cmd->cpages < cmd->npages) {
		n = min_t(u64, HMM_CALL_CHUNK, cmd->npages - cmd->cpages);
		ret = hmm_view_snapshot(view, addr, addr + n * PAGE_SIZE, hmm_call_visit, &visit);
		if (ret)
			return ret;
		if (copy_to_user(u64_to_user_ptr(cmd->ptr + cmd->cpages), visit.byte, n))
			return -EFAULT;
		cmd->cpages += n;
		addr += n * PAGE_SIZE;
	}
	return 0;
}

/*
 * /proc/PID/fdinfo/FD: who may trace the process sees what it moved. The keys with drm- are those
 * of the kernel's drm-usage-stats; the rest is ours.
 */
static inline void hmm_call_fdinfo(struct seq_file *s, const char *driver, const char *device,
				   struct hmm_region *region, const struct hmm_view *view)
{
	struct hmm_region_stats stats;

	seq_printf(s, "drm-driver:\t%s\nhmm-device:\t%s\n", driver, device);
	if (!region)
		return;
	hmm_region_stats(region, hmm_view_mm(view), &stats);
	seq_printf(s, "drm-engine-copy:\t%llu ns\n", stats.ns_to_device + stats.ns_to_ram);
	seq_printf(s, "hmm-to-device:\t%llu KiB\nhmm-to-ram:\t%llu KiB\nhmm-cpu-faults:\t%llu\n",
		   stats.to_device << (PAGE_SHIFT - 10),
		   (stats.to_ram_request + stats.to_ram_fault) << (PAGE_SHIFT - 10),
		   stats.cpu_faults);
}

#endif /* DRIVERS_CALLS_H */
