// SPDX-License-Identifier: GPL-2.0
/*
 * The device's page table for a process, and the work the device does through it.
 *
 * The table has two levels: an xarray of blocks, each with an entry for every page of
 * 2 MiB. Entries come and go under the view's lock, which is taken inside reclaim, so
 * blocks are made before it is taken and stay until the file is closed.
 */
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "dmirror.h"

/* An entry is a struct page, with bits that say what the device may do. */
#define ENTRY_WRITE	1UL
#define ENTRY_EXCLUSIVE	2UL	/* nobody else may touch it */
#define ENTRY_FLAGS	(ENTRY_WRITE | ENTRY_EXCLUSIVE)

/* Pages worked on at a time: bounds the bounce buffer and how long the lock is held. */
#define CHUNK_PAGES	64UL

/* What the device lacks is faulted in so far ahead: a fault is dear, a present page is not. */
#define FAULT_AHEAD	(64UL << 20)

/* Entries may be invalidated as fast as they are made; somebody wins after so many tries. */
#define MAX_TRIES	1000

struct dmirror_block {
	unsigned long entry[DMIRROR_BLOCK_PAGES];
};

static unsigned long *find_entry(struct dmirror *dmirror, unsigned long addr)
{
	struct dmirror_block *block = xa_load(&dmirror->blocks, addr / PMD_SIZE);

	return block ? &block->entry[addr % PMD_SIZE / PAGE_SIZE] : NULL;
}

/* Make the blocks that entries of [start, end) go to. */
static int reserve_blocks(struct dmirror *dmirror, unsigned long start, unsigned long end)
{
	unsigned long nr, last = (end - 1) / PMD_SIZE;
	struct dmirror_block *block;
	int ret;

	for (nr = start / PMD_SIZE; nr <= last; nr++) {
		if (xa_load(&dmirror->blocks, nr))
			continue;
		block = kzalloc(sizeof(*block), GFP_KERNEL_ACCOUNT);
		if (!block)
			return -ENOMEM;
		ret = xa_insert(&dmirror->blocks, nr, block, GFP_KERNEL_ACCOUNT);
		if (ret)
			kfree(block);
		/* -EBUSY: another thread was faster. */
		if (ret && ret != -EBUSY)
			return ret;
	}
	return 0;
}

void dmirror_free_table(struct dmirror *dmirror)
{
	struct dmirror_block *block;
	unsigned long nr;

	xa_for_each(&dmirror->blocks, nr, block)
		kfree(block);
	xa_destroy(&dmirror->blocks);
}

static int dmirror_map(struct hmm_view *view, unsigned long addr, const unsigned long *pfns,
		       unsigned long npages)
{
	struct dmirror *dmirror = hmm_view_data(view);
	unsigned long i, *entry;

	for (i = 0; i < npages; i++, addr += PAGE_SIZE) {
		entry = find_entry(dmirror, addr);
		if (!entry)
			return -ENOMEM;
		*entry = (unsigned long)hmm_pfn_to_page(pfns[i]) |
			 (pfns[i] & HMM_PFN_WRITE ? ENTRY_WRITE : 0);
	}
	return 0;
}

static int dmirror_map_exclusive(struct hmm_view *view, unsigned long addr, struct page *page)
{
	unsigned long *entry = find_entry(hmm_view_data(view), addr);

	if (!entry)
		return -ENOMEM;
	*entry = (unsigned long)page | ENTRY_WRITE | ENTRY_EXCLUSIVE;
	return 0;
}

static void dmirror_invalidate(struct hmm_view *view, unsigned long start, unsigned long end)
{
	struct dmirror *dmirror = hmm_view_data(view);
	struct dmirror_block *block;
	unsigned long nr, from, to;

	xa_for_each_range(&dmirror->blocks, nr, block, start / PMD_SIZE, (end - 1) / PMD_SIZE) {
		from = max(start, nr * PMD_SIZE);
		to = min(end - 1, nr * PMD_SIZE + PMD_SIZE - 1);
		memset(&block->entry[from % PMD_SIZE / PAGE_SIZE], 0,
		       (to / PAGE_SIZE - from / PAGE_SIZE + 1) * sizeof(block->entry[0]));
	}
}

const struct hmm_view_ops dmirror_view_ops = {
	.map = dmirror_map,
	.invalidate = dmirror_invalidate,
	.map_exclusive = dmirror_map_exclusive,
};

/* Something the device does to one page; @data is its bytes. Runs under the view lock. */
struct dmirror_work {
	void (*page)(struct dmirror_work *work, void *data, bool on_device);
	bool write;
	void *bounce;			/* reading, writing */
	struct hmm_dmirror_compute *compute;
	u64 word;			/* number of the next word of the range */
	u64 faults;
};

/* Do @work on as many pages from @addr on as have entries. Returns where it stopped. */
static unsigned long work_on_entries(struct dmirror *dmirror, struct dmirror_work *work,
				     unsigned long addr, unsigned long end)
{
	struct dmirror_device *device = dmirror->device;
	unsigned long *entry;
	struct page *page;

	hmm_view_lock(dmirror->view);
	for (; addr < end; addr += PAGE_SIZE) {
		entry = find_entry(dmirror, addr);
		if (!entry || !*entry || (work->write && !(*entry & ENTRY_WRITE)))
			break;
		page = (struct page *)(*entry & ~ENTRY_FLAGS);
		/*
		 * While the lock is held the page stays mapped, so it has not been truncated,
		 * and may be marked without its lock.
		 */
		if (work->write && !is_zone_device_page(page))
			set_page_dirty(page);
		work->page(work, dmirror_memory_address(device, page),
			   device->region && hmm_region_of_page(page) == device->region);
	}
	hmm_view_unlock(dmirror->view);
	return addr;
}

/*
 * Do @work on [addr, end), faulting in what the device's page table lacks, and what it will
 * soon need of the rest of the range, which ends at @last.
 */
static int do_work(struct dmirror *dmirror, struct dmirror_work *work, unsigned long addr,
		   unsigned long end, unsigned long last)
{
	unsigned int flags = work->write ? HMM_VIEW_WRITE : 0;
	unsigned long done, ahead;
	unsigned int tries = 0;
	int ret;

	for (;;) {
		done = work_on_entries(dmirror, work, addr, end);
		if (done == end)
			return 0;
		tries = done == addr ? tries + 1 : 0;
		addr = done;
		if (tries == MAX_TRIES)
			return -EBUSY;
		if (fatal_signal_pending(current))
			return -EINTR;
		ahead = min(last, max(end, addr + FAULT_AHEAD));
		ret = reserve_blocks(dmirror, addr, ahead);
		if (ret)
			return ret;
		ret = hmm_view_fault(dmirror->view, addr, ahead, flags);
		/* What is wrong further on does not matter yet. */
		if (ret && ahead > end)
			ret = hmm_view_fault(dmirror->view, addr, end, flags);
		if (ret)
			return ret;
		work->faults++;
	}
}

static void read_page(struct dmirror_work *work, void *data, bool on_device)
{
	memcpy(work->bounce, data, PAGE_SIZE);
	work->bounce += PAGE_SIZE;
}

static void write_page(struct dmirror_work *work, void *data, bool on_device)
{
	memcpy(data, work->bounce, PAGE_SIZE);
	work->bounce += PAGE_SIZE;
}

/* Through a bounce buffer, chunk by chunk, between the range and the user's buffer. */
static int transfer(struct dmirror *dmirror, struct dmirror_work *work,
		    struct hmm_dmirror_cmd *cmd)
{
	unsigned long last = cmd->addr + cmd->npages * PAGE_SIZE;
	unsigned long addr, len;
	void __user *user;
	void *buffer;
	int ret = 0;

	buffer = kvmalloc(CHUNK_PAGES * PAGE_SIZE, GFP_KERNEL);
	if (!buffer)
		return -ENOMEM;
	for (addr = cmd->addr; addr < last; addr += len) {
		len = min(CHUNK_PAGES * PAGE_SIZE, last - addr);
		user = u64_to_user_ptr(cmd->ptr + (addr - cmd->addr));
		if (work->write && copy_from_user(buffer, user, len)) {
			ret = -EFAULT;
			break;
		}
		work->bounce = buffer;
		ret = do_work(dmirror, work, addr, addr + len, last);
		if (!ret && !work->write && copy_to_user(user, buffer, len))
			ret = -EFAULT;
		if (ret)
			break;
		cmd->cpages += PHYS_PFN(len);
	}
	cmd->faults = work->faults;
	kvfree(buffer);
	return ret;
}

/**
 * dmirror_read() - the device reads a range into a user buffer
 * @dmirror: the file
 * @cmd: checked; cpages and faults are set, also on error
 *
 * Return: 0; -EFAULT no mapping, or the buffer is bad; and what hmm_view_fault() returns.
 */
int dmirror_read(struct dmirror *dmirror, struct hmm_dmirror_cmd *cmd)
{
	struct dmirror_work work = { .page = read_page };

	return transfer(dmirror, &work, cmd);
}

/**
 * dmirror_write() - the device writes a user buffer to a range
 * @dmirror: the file
 * @cmd: checked; cpages and faults are set, also on error
 *
 * Return: as dmirror_read(), and -EPERM the range is read-only.
 */
int dmirror_write(struct dmirror *dmirror, struct hmm_dmirror_cmd *cmd)
{
	struct dmirror_work work = { .page = write_page, .write = true };

	return transfer(dmirror, &work, cmd);
}

static void compute_page(struct dmirror_work *work, void *data, bool on_device)
{
	struct hmm_dmirror_compute *compute = work->compute;
	u64 *word = data, *end = data + PAGE_SIZE;

	compute->device_pages += on_device;
	if (compute->op == HMM_DMIRROR_ADD) {
		while (word < end)
			*word++ += compute->operand;
	} else {
		while (word < end)
			compute->result += *word++ * (2 * work->word++ + 1);
	}
}

/**
 * dmirror_compute() - the device works on a range in place
 * @dmirror: the file
 * @compute: checked; results are set, also on error
 *
 * Return: as dmirror_read() and dmirror_write().
 */
int dmirror_compute(struct dmirror *dmirror, struct hmm_dmirror_compute *compute)
{
	struct dmirror_work work = {
		.page = compute_page,
		.write = compute->op == HMM_DMIRROR_ADD,
		.compute = compute,
	};
	unsigned long addr = compute->addr, end = compute->addr + compute->len, next;
	int ret = 0;

	for (; addr < end && !ret; addr = next) {
		next = min(end, addr + CHUNK_PAGES * PAGE_SIZE);
		ret = do_work(dmirror, &work, addr, next, end);
		cond_resched();
	}
	compute->faults = work.faults;
	return ret;
}

/**
 * dmirror_exclusive() - the device takes a range for itself alone, and reads it
 * @dmirror: the file
 * @cmd: checked; cpages is set, also on error
 *
 * Return: 0; as hmm_view_exclusive() and dmirror_read().
 */
int dmirror_exclusive(struct dmirror *dmirror, struct hmm_dmirror_cmd *cmd)
{
	unsigned long end = cmd->addr + cmd->npages * PAGE_SIZE;
	int ret;

	ret = reserve_blocks(dmirror, cmd->addr, end);
	if (!ret)
		ret = hmm_view_exclusive(dmirror->view, cmd->addr, end);
	return ret ?: dmirror_read(dmirror, cmd);
}

/**
 * dmirror_check_exclusive() - does the device have a page of a range for itself alone
 * @dmirror: the file
 * @cmd: checked
 *
 * Return: 0 no; -EPERM yes.
 */
int dmirror_check_exclusive(struct dmirror *dmirror, const struct hmm_dmirror_cmd *cmd)
{
	unsigned long addr, end = cmd->addr + cmd->npages * PAGE_SIZE, *entry;
	int ret = 0;

	hmm_view_lock(dmirror->view);
	for (addr = cmd->addr; addr < end && !ret; addr += PAGE_SIZE) {
		entry = find_entry(dmirror, addr);
		if (entry && (*entry & ENTRY_EXCLUSIVE))
			ret = -EPERM;
	}
	hmm_view_unlock(dmirror->view);
	return ret;
}

/* A walk over a snapshot that stores something per page. */
struct dmirror_visit {
	struct dmirror *dmirror;
	void *buffer;
	unsigned long npages;
};

/* The bytes of the pages that are on the device, up to the first that is not. */
static int visit_resident(struct hmm_view *view, unsigned long addr,
			  const unsigned long *pfns, unsigned long npages, void *arg)
{
	struct dmirror_visit *visit = arg;
	struct dmirror_device *device = visit->dmirror->device;
	struct page *page;

	for (; npages; npages--, pfns++) {
		page = *pfns & HMM_PFN_VALID ? hmm_pfn_to_page(*pfns) : NULL;
		if (!page || hmm_region_of_page(page) != device->region)
			return -ENOENT;
		memcpy(visit->buffer, dmirror_memory_address(device, page), PAGE_SIZE);
		visit->buffer += PAGE_SIZE;
		visit->npages++;
	}
	return 0;
}

/**
 * dmirror_read_resident() - the device reads what it has in its own memory
 * @dmirror: the file, of a device with memory
 * @cmd: checked; cpages is set, also on error
 *
 * Return: 0; -ENOENT a page is not on this device, the pages before it were read;
 * -EFAULT the buffer is bad; and what hmm_view_snapshot() returns.
 */
int dmirror_read_resident(struct dmirror *dmirror, struct hmm_dmirror_cmd *cmd)
{
	unsigned long addr = cmd->addr, n;
	struct dmirror_visit visit = { .dmirror = dmirror };
	void *buffer;
	int ret = 0;

	buffer = kvmalloc(CHUNK_PAGES * PAGE_SIZE, GFP_KERNEL);
	if (!buffer)
		return -ENOMEM;
	while (cmd->cpages < cmd->npages && !ret) {
		n = min_t(u64, CHUNK_PAGES, cmd->npages - cmd->cpages);
		visit.buffer = buffer;
		visit.npages = 0;
		ret = hmm_view_snapshot(dmirror->view, addr, addr + n * PAGE_SIZE,
					visit_resident, &visit);
		if (copy_to_user(u64_to_user_ptr(cmd->ptr + cmd->cpages * PAGE_SIZE), buffer,
				 visit.npages * PAGE_SIZE)) {
			ret = -EFAULT;
			break;
		}
		cmd->cpages += visit.npages;
		addr += visit.npages * PAGE_SIZE;
	}
	kvfree(buffer);
	return ret;
}
