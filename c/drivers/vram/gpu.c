// SPDX-License-Identifier: GPL-2.0
/*
 * Commands on plain user pointers: a context, its page table, its faults.
 *
 * A context is a process on the device. Its page table is kept in step with the CPU's by
 * struct hmm_view. Commands run in slices on a worker that stands for the shader cores. One
 * that finds no entry goes into the fault buffer and gives up its place; when the fault was
 * served (the page moved to the device, by policy, and entered into the table) the command is
 * replayed from where it was. Copies and clears of whole pages are work for the DMA engine.
 *
 * Locks: vram->lock -> context->lock. The view's lock is taken inside reclaim: under it
 * nothing is allocated, and nothing waited for but the engine, whose watchdog bounds that.
 */
#include <linux/dma-mapping.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/uaccess.h>

#include "vram.h"

/* An entry of the page table: a page of the video memory or of RAM, or 0. */
#define ENTRY_VALID	BIT_ULL(0)
#define ENTRY_WRITE	BIT_ULL(1)
#define ENTRY_VIDEO	BIT_ULL(2)

/* Pieces, each inside a page, that are done before somebody else gets a turn. */
#define SLICE		512U
/* As many with the view's lock held. */
#define HOLD		32U
/* Faults without a step forward: somebody takes the pages away as fast as they come. */
#define MAX_REPLAYS	1000U
/* Pages that the DMA engine gets at once. */
#define BLIT_PAGES	64U
/* Words that are sorted at once. */
#define SORT_RUN	8192UL

/* 2 MiB of address space. */
struct vram_table {
	u64 entry[HMM_BLOCK_PAGES];
};

struct vram_job {
	struct hmm_vram_command *command;
	unsigned int nr;
	u64 flags;
	struct hmm_vram_wait result;
};

struct vram_context {
	struct vram_device *vram;
	struct list_head node;			/* in vram->contexts */
	struct hmm_view *view;
	struct xarray tables;			/* address / 2 MiB -> struct vram_table */

	spinlock_t lock;			/* submitted, finished, busy, closing */
	u64 submitted, finished;		/* numbers of jobs */
	bool busy;				/* the worker has something to do */
	bool closing;
	wait_queue_head_t wait;			/* for finished, and for not busy */
	struct vram_job job[HMM_VRAM_JOBS];
	struct work_struct work;

	/* The command being done. Only the worker and the fault handler look here. */
	bool started;
	unsigned int phase;
	u64 offset;
	u64 sum;
	u64 *scratch, *merged;			/* SORT: the words, and room for as many */
	unsigned int replays;

	/* Its fault. */
	struct list_head fault;			/* in vram->faults */
	unsigned long fault_addr, fault_end;
	bool fault_write;
	int fault_error;

	struct vram_batch batch;
	struct hmm_segment seg[BLIT_PAGES];
	dma_addr_t dma[BLIT_PAGES];
};

struct hmm_view *vram_context_view(struct vram_context *context)
{
	return context->view;
}

struct vram_device *vram_context_device(struct vram_context *context)
{
	return context->vram;
}

/* ------------------------------------------------------------------------
 * The page table
 */

static u64 *entry_of(struct vram_context *context, unsigned long addr)
{
	struct vram_table *table = xa_load(&context->tables, addr >> PMD_SHIFT);

	return table ? table->entry + (addr >> PAGE_SHIFT) % HMM_BLOCK_PAGES : NULL;
}

/* Tables for [start, end): made before the view's lock is taken, kept until the end. */
static int make_tables(struct vram_context *context, unsigned long start, unsigned long end)
{
	struct vram_table *table;
	unsigned long addr;
	int ret;

	for (addr = ALIGN_DOWN(start, PMD_SIZE); addr < end; addr += PMD_SIZE) {
		if (entry_of(context, addr))
			continue;
		table = kzalloc(sizeof(*table), GFP_KERNEL_ACCOUNT);
		if (!table)
			return -ENOMEM;
		/* The fault handler is the only one that makes them. */
		ret = xa_err(xa_store(&context->tables, addr >> PMD_SHIFT, table,
				      GFP_KERNEL_ACCOUNT));
		if (ret) {
			kfree(table);
			return ret;
		}
	}
	return 0;
}

static int gpu_map(struct hmm_view *view, unsigned long addr, const unsigned long *pfns,
		   unsigned long npages)
{
	struct vram_context *context = hmm_view_data(view);
	struct hmm_region *region = context->vram->region;
	struct page *page;
	u64 *entry;

	for (; npages; npages--, pfns++, addr += PAGE_SIZE) {
		entry = entry_of(context, addr);
		if (!entry)
			return -ENOMEM;
		page = hmm_pfn_to_page(*pfns);
		if (hmm_region_of_page(page) == region)
			*entry = hmm_region_page_index(region, page) << PAGE_SHIFT | ENTRY_VIDEO;
		else
			*entry = (u64)page_to_pfn(page) << PAGE_SHIFT;
		*entry |= ENTRY_VALID | (*pfns & HMM_PFN_WRITE ? ENTRY_WRITE : 0);
	}
	return 0;
}

static void gpu_invalidate(struct hmm_view *view, unsigned long start, unsigned long end)
{
	struct vram_context *context = hmm_view_data(view);
	struct vram_table *table;
	unsigned long nr;
	u64 first, last;

	xa_for_each_range(&context->tables, nr, table, start >> PMD_SHIFT,
			  (end - 1) >> PMD_SHIFT) {
		first = nr == start >> PMD_SHIFT ? PHYS_PFN(start) % HMM_BLOCK_PAGES : 0;
		last = nr == (end - 1) >> PMD_SHIFT ? PHYS_PFN(end - 1) % HMM_BLOCK_PAGES :
						      HMM_BLOCK_PAGES - 1;
		memset64(table->entry + first, 0, last - first + 1);
	}
}

static const struct hmm_view_ops gpu_view_ops = {
	.map = gpu_map,
	.invalidate = gpu_invalidate,
};

/* The entry for @addr if the device may do that there, else 0. The view's lock is held. */
static u64 translate(struct vram_context *context, unsigned long addr, bool write)
{
	u64 *entry = entry_of(context, addr);

	return entry && (!write || *entry & ENTRY_WRITE) ? *entry : 0;
}

/* Where the shader cores find the bytes of @addr. */
static void *bytes_of(struct vram_context *context, u64 entry, unsigned long addr)
{
	unsigned long nr = entry >> PAGE_SHIFT;

	if (entry & ENTRY_VIDEO)
		return context->vram->aperture + nr * PAGE_SIZE + offset_in_page(addr);
	return page_address(pfn_to_page(nr)) + offset_in_page(addr);
}

/* While the view's lock is held the page stays mapped, so it may be marked without its lock. */
static void dirty(u64 entry)
{
	if (!(entry & ENTRY_VIDEO) && !is_zone_device_page(pfn_to_page(entry >> PAGE_SHIFT)))
		set_page_dirty(pfn_to_page(entry >> PAGE_SHIFT));
}

/* ------------------------------------------------------------------------
 * Faults
 */

/*
 * Put the command that runs into the fault buffer. Returns -EINPROGRESS: it is the fault
 * handler's now, and may be served already; or -EBUSY: too often for nothing.
 */
static int post_fault(struct vram_context *context, unsigned long addr, unsigned long end,
		      bool write)
{
	struct vram_device *vram = context->vram;

	if (++context->replays > MAX_REPLAYS)
		return -EBUSY;
	context->fault_addr = addr;
	context->fault_end = end;
	context->fault_write = write;
	spin_lock(&vram->fault_lock);
	list_add_tail(&context->fault, &vram->faults);
	spin_unlock(&vram->fault_lock);
	queue_work(vram_helpers, &vram->fault_work);
	return -EINPROGRESS;
}

/* Is a page of [start, end) somewhere else than in the video memory? */
static bool is_elsewhere(struct vram_context *context, unsigned long start, unsigned long end)
{
	bool elsewhere = false;

	hmm_view_lock(context->view);
	for (; start < end && !elsewhere; start += PAGE_SIZE)
		elsewhere = !(translate(context, start, false) & ENTRY_VIDEO);
	hmm_view_unlock(context->view);
	return elsewhere;
}

/* Enter [start, end) into the page table; moved to the video memory before, by policy. */
static int bring(struct vram_context *context, struct vram_job *job, unsigned long start,
		 unsigned long end)
{
	struct hmm_migrate m = {
		.mm = hmm_view_mm(context->view),
		.start = start,
		.end = end,
		.flags = HMM_MIGRATE_HOLES | HMM_MIGRATE_MAKE_ROOM,
	};
	bool again = true;
	int ret;

	for (;;) {
		if (!(job->flags & HMM_VRAM_STAY)) {
			/* What cannot move is used where it is. */
			ret = hmm_migrate_to_device(context->vram->region, &m);
			if (ret)
				return ret;
			job->result.moved += m.moved;
		}
		ret = hmm_view_fault(context->view, start, end,
				     context->fault_write ? HMM_VIEW_WRITE : 0);
		/* What was on another device has come to RAM by that, and can move now. */
		if (ret || !again || !m.skipped[HMM_SKIP_BUSY] ||
		    !is_elsewhere(context, start, end))
			return ret;
		again = false;
	}
}

static int serve(struct vram_context *context, struct vram_job *job)
{
	unsigned long start = ALIGN_DOWN(context->fault_addr, PAGE_SIZE);
	unsigned long end = min(PAGE_ALIGN(context->fault_end), ALIGN(start + 1, PMD_SIZE));
	int ret;

	job->result.faults++;
	ret = make_tables(context, start, end);
	if (ret)
		return ret;
	ret = bring(context, job, start, end);
	/* What is wrong further on does not matter yet. */
	if (ret && end > start + PAGE_SIZE)
		ret = bring(context, job, start, start + PAGE_SIZE);
	return ret;
}

static struct vram_job *current_job(struct vram_context *context)
{
	return &context->job[(context->finished + 1) % HMM_VRAM_JOBS];
}

/**
 * vram_fault_work() - serve what is in the fault buffer, and replay
 * @work: of the device
 */
void vram_fault_work(struct work_struct *work)
{
	struct vram_device *vram = container_of(work, struct vram_device, fault_work);
	struct vram_context *context;

	for (;;) {
		spin_lock(&vram->fault_lock);
		context = list_first_entry_or_null(&vram->faults, struct vram_context, fault);
		if (context)
			list_del(&context->fault);
		spin_unlock(&vram->fault_lock);
		if (!context)
			return;
		context->fault_error = serve(context, current_job(context));
		/* From here on the context is its worker's again. */
		queue_work(vram_workqueue, &context->work);
	}
}

/* ------------------------------------------------------------------------
 * Work of the DMA engine
 */

/*
 * What one page of the command is to the engine. Returns the operation, or -1: something for
 * the shader cores.
 */
static int blit_op(const struct hmm_vram_command *command, u64 dst, u64 src)
{
	if (command->op == HMM_VRAM_FILL)
		return !command->value && dst & ENTRY_VIDEO ? VRAM_CLEAR : -1;
	if (command->op != HMM_VRAM_COPY)
		return -1;
	return dst & ENTRY_VIDEO ? VRAM_WRITE : src & ENTRY_VIDEO ? VRAM_READ : -1;
}

/* A page's address for the engine: RAM, or the video memory itself. */
static dma_addr_t blit_address(struct vram_context *context, u64 entry,
			       enum dma_data_direction direction)
{
	struct pci_dev *pdev = context->vram->pdev;

	if (entry & ENTRY_VIDEO)
		return pci_bus_address(pdev, context->vram->bar) + (entry & PAGE_MASK);
	return dma_map_page(&pdev->dev, pfn_to_page(entry >> PAGE_SHIFT), 0, PAGE_SIZE,
			    direction);
}

/*
 * Do as many pages of a COPY or FILL as the engine can. Returns the pages done; 0: none of
 * these is for the engine; or a negative errno. The view's lock is held.
 */
static int blit(struct vram_context *context, const struct hmm_vram_command *command, u64 left)
{
	struct vram_batch *batch = &context->batch;
	struct device *dev = &context->vram->pdev->dev;
	unsigned long dst = command->dst + context->offset, src = command->src + context->offset;
	bool copy = command->op == HMM_VRAM_COPY;
	enum dma_data_direction direction = DMA_TO_DEVICE;
	unsigned int i, n, max = min_t(u64, BLIT_PAGES, left >> PAGE_SHIFT);
	u64 d, s = 0, ram[BLIT_PAGES];
	int op = -1, ret;

	if (READ_ONCE(context->vram->engine) != VRAM_ENGINE_DMA || offset_in_page(dst) ||
	    (copy && offset_in_page(src)))
		return 0;
	for (n = 0; n < max; n++, dst += PAGE_SIZE, src += PAGE_SIZE) {
		d = translate(context, dst, true);
		if (copy)
			s = translate(context, src, false);
		if (!d || (copy && !s) || blit_op(command, d, s) < 0 ||
		    (n && blit_op(command, d, s) != op))
			break;
		op = blit_op(command, d, s);
		if (op == VRAM_READ)
			direction = DMA_FROM_DEVICE;
		ram[n] = op == VRAM_READ ? d : s;
		context->seg[n] = (struct hmm_segment) {
			.npages = 1,
			.dst = d >> PAGE_SHIFT,
			.src = s >> PAGE_SHIFT,
		};
		if (op == VRAM_CLEAR)
			continue;
		context->dma[n] = blit_address(context, ram[n], direction);
		if (dma_mapping_error(dev, context->dma[n]))
			break;
	}
	if (!n)
		return 0;

	vram_batch_init(batch, context->vram, op, context->seg, n);
	/* The CPU could not tell a page of the video memory from one of RAM. */
	batch->dma_only = true;
	batch->dma = context->dma;
	vram_batch_submit(batch);
	vram_batch_wait(batch);
	ret = n;
	for (i = 0; i < n; i++) {
		if (context->seg[i].status)
			ret = context->seg[i].status == -ENODEV ? -ENODEV : -EIO;
		if (op == VRAM_CLEAR || ram[i] & ENTRY_VIDEO)
			continue;
		dma_unmap_page(dev, context->dma[i], PAGE_SIZE, direction);
		if (op == VRAM_READ)
			dirty(ram[i]);
	}
	/* The engine was lost on the way, not the device: what it left the cores do again. */
	if (ret < 0 && READ_ONCE(context->vram->engine) == VRAM_ENGINE_CPU)
		ret = 0;
	return ret;
}

/* ------------------------------------------------------------------------
 * Work of the shader cores
 */

static int compare_words(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

/* Merge two runs of words, [0, middle) and [middle, n). */
static void merge(u64 *to, const u64 *from, unsigned long middle, unsigned long n)
{
	unsigned long i = 0, k = middle, out;

	for (out = 0; out < n; out++)
		to[out] = k >= n || (i < middle && from[i] <= from[k]) ? from[i++] : from[k++];
}

/* Sort what was read, with pauses. */
static void sort_scratch(struct vram_context *context, unsigned long words)
{
	unsigned long run, at;

	for (at = 0; at < words; at += SORT_RUN) {
		sort(context->scratch + at, min(SORT_RUN, words - at), sizeof(u64),
		     compare_words, NULL);
		cond_resched();
	}
	for (run = SORT_RUN; run < words; run *= 2) {
		for (at = 0; at < words; at += 2 * run) {
			merge(context->merged + at, context->scratch + at, min(run, words - at),
			      min(2 * run, words - at));
			cond_resched();
		}
		swap(context->scratch, context->merged);
	}
}

static void drop_scratch(struct vram_context *context)
{
	kvfree(context->scratch);
	kvfree(context->merged);
	context->scratch = NULL;
	context->merged = NULL;
}

/* What the phase of a command reads and writes. */
struct operands {
	unsigned long dst, src;		/* addresses of the whole */
	u64 len;
	bool write, read;
};

static struct operands operands_of(const struct hmm_vram_command *command, unsigned int phase)
{
	struct operands o = { .dst = command->dst, .src = command->src, .len = command->len };

	switch (command->op) {
	case HMM_VRAM_FILL:
		o.write = true;
		break;
	case HMM_VRAM_COPY:
	case HMM_VRAM_AXPY:
		o.write = true;
		o.read = true;
		break;
	case HMM_VRAM_SUM:
		o.read = !phase;
		o.write = phase;
		if (phase)
			o.len = sizeof(u64);
		break;
	case HMM_VRAM_SORT:
		o.src = o.dst;
		o.read = !phase;
		o.write = phase;
		break;
	}
	return o;
}

/* One piece, inside a page on either side. */
static void compute(struct vram_context *context, const struct hmm_vram_command *command,
		    u64 *dst, const u64 *src, unsigned long bytes)
{
	unsigned long i, words = bytes / sizeof(u64);

	switch (command->op) {
	case HMM_VRAM_FILL:
		memset64(dst, command->value, words);
		break;
	case HMM_VRAM_COPY:
		memcpy(dst, src, bytes);
		break;
	case HMM_VRAM_AXPY:
		for (i = 0; i < words; i++)
			dst[i] += command->value * src[i];
		break;
	case HMM_VRAM_SUM:
		if (context->phase)
			*dst = context->sum;
		else
			for (i = 0; i < words; i++)
				context->sum += src[i];
		break;
	case HMM_VRAM_SORT:
		if (context->phase)
			memcpy(dst, (void *)context->scratch + context->offset, bytes);
		else
			memcpy((void *)context->scratch + context->offset, src, bytes);
		break;
	}
}

static void count_page(struct vram_job *job, u64 entry)
{
	if (entry & ENTRY_VIDEO)
		job->result.video_pages++;
	else
		job->result.ram_pages++;
}

/*
 * Go on with a phase, with the view's lock held, until an entry is missing or somebody else
 * should get the lock. Returns 0; -EINPROGRESS: a fault is posted; or another negative errno.
 */
static int hold(struct vram_context *context, struct vram_job *job,
		const struct hmm_vram_command *command, const struct operands *o)
{
	unsigned long dst, src, bytes;
	unsigned int n;
	u64 d = 0, s = 0;
	int done, idx, ret = 0;

	hmm_view_lock(context->view);
	for (n = 0; n < HOLD && context->offset < o->len; n++) {
		done = o->write ? blit(context, command, o->len - context->offset) : 0;
		if (done < 0) {
			ret = done;
			break;
		}
		if (done) {
			context->offset += done * PAGE_SIZE;
			job->result.dma_bytes += done * PAGE_SIZE;
			context->replays = 0;
			continue;
		}
		dst = o->dst + context->offset;
		src = o->src + context->offset;
		bytes = o->len - context->offset;
		if (o->write) {
			bytes = min(bytes, PAGE_SIZE - offset_in_page(dst));
			d = translate(context, dst, true);
			if (!d) {
				ret = post_fault(context, dst, o->dst + o->len, true);
				break;
			}
			count_page(job, d);
		}
		if (o->read) {
			bytes = min(bytes, PAGE_SIZE - offset_in_page(src));
			s = translate(context, src, false);
			if (!s) {
				ret = post_fault(context, src, o->src + o->len, false);
				break;
			}
			count_page(job, s);
		}
		idx = vram_aperture_enter(context->vram);
		compute(context, command, o->write ? bytes_of(context, d, dst) : NULL,
			o->read ? bytes_of(context, s, src) : NULL, bytes);
		vram_aperture_leave(idx);
		if (o->write)
			dirty(d);
		context->offset += bytes;
		context->replays = 0;
	}
	hmm_view_unlock(context->view);
	return ret;
}

/* The next phase of a command. Returns 0: there is none; 1: there is; or a negative errno. */
static int next_phase(struct vram_context *context, const struct hmm_vram_command *command)
{
	context->offset = 0;
	if (command->op == HMM_VRAM_SORT && !context->phase)
		sort_scratch(context, command->len / sizeof(u64));
	if (context->phase++ ||
	    (command->op != HMM_VRAM_SORT && command->op != HMM_VRAM_SUM))
		return 0;
	return 1;
}

static int begin_command(struct vram_context *context, const struct hmm_vram_command *command)
{
	context->phase = 0;
	context->offset = 0;
	context->sum = 0;
	context->replays = 0;
	if (command->op != HMM_VRAM_SORT)
		return 0;
	context->scratch = kvmalloc(command->len, GFP_KERNEL);
	context->merged = kvmalloc(command->len, GFP_KERNEL);
	return context->scratch && context->merged ? 0 : -ENOMEM;
}

/* ------------------------------------------------------------------------
 * The worker of a context
 */

/* Is there a reason to stop? */
static int stopped(struct vram_context *context)
{
	struct vram_device *vram = context->vram;

	if (READ_ONCE(context->closing))
		return -ECANCELED;
	if (READ_ONCE(vram->dead))
		return -ENODEV;
	vram_engine_look(vram);
	return READ_ONCE(vram->engine) == VRAM_ENGINE_LOST ? -EIO : 0;
}

/* A job is over. Returns whether there is another. */
static bool finish_job(struct vram_context *context, struct vram_job *job, int error)
{
	bool more;

	context->started = false;
	drop_scratch(context);
	kvfree(job->command);
	job->command = NULL;
	/* On a descriptor EPERM means something else. */
	job->result.error = error == -EPERM ? EACCES : -error;
	spin_lock(&context->lock);
	context->finished++;
	more = context->finished != context->submitted;
	context->busy = more;
	/* Whoever waits for it to be idle may free it when the lock is let go of. */
	wake_up_all(&context->wait);
	spin_unlock(&context->lock);
	return more;
}

/* Go on with a job. Returns 0: it is done; -EAGAIN: not yet; -EINPROGRESS: a fault is posted. */
static int advance(struct vram_context *context, struct vram_job *job)
{
	const struct hmm_vram_command *command = &job->command[job->result.done];
	struct operands o;
	int ret;

	if (!context->started) {
		context->started = true;
		ret = begin_command(context, command);
		if (ret)
			return ret;
	}
	o = operands_of(command, context->phase);
	if (context->offset < o.len)
		return hold(context, job, command, &o) ?: -EAGAIN;
	ret = next_phase(context, command);
	if (ret)
		return ret < 0 ? ret : -EAGAIN;
	drop_scratch(context);
	context->started = false;
	return ++job->result.done == job->nr ? 0 : -EAGAIN;
}

static void context_work(struct work_struct *work)
{
	struct vram_context *context = container_of(work, struct vram_context, work);
	struct vram_job *job = current_job(context);
	unsigned int n;
	int ret = stopped(context);

	if (!ret && context->fault_error) {
		job->result.fault_addr = context->fault_addr;
		ret = context->fault_error;
	}
	context->fault_error = 0;
	if (!ret)
		ret = -EAGAIN;
	for (n = 0; ret == -EAGAIN && n < SLICE / HOLD; n++) {
		ret = advance(context, job);
		if (ret == -EINPROGRESS)
			return;
		cond_resched();
	}
	if (ret == -EAGAIN || finish_job(context, job, ret))
		queue_work(vram_workqueue, &context->work);
}

/* ------------------------------------------------------------------------
 * Contexts
 */

static void free_tables(struct vram_context *context)
{
	struct vram_table *table;
	unsigned long nr;

	xa_for_each(&context->tables, nr, table)
		kfree(table);
	xa_destroy(&context->tables);
}

/**
 * vram_context_new() - a context for the calling process
 * @vram: the device, registered
 *
 * Context: process context of the process in question.
 * Return: the context, which holds a reference to @vram, to be given to vram_context_free(); or
 * ERR_PTR: -ENOMEM, -ENODEV the device is gone, and what hmm_view_attach() says.
 */
struct vram_context *vram_context_new(struct vram_device *vram)
{
	struct vram_context *context;
	struct hmm_view *view;
	int ret = 0;

	context = kvzalloc(sizeof(*context), GFP_KERNEL_ACCOUNT);
	if (!context)
		return ERR_PTR(-ENOMEM);
	context->vram = vram;
	xa_init(&context->tables);
	spin_lock_init(&context->lock);
	init_waitqueue_head(&context->wait);
	INIT_WORK(&context->work, context_work);
	view = hmm_view_attach(vram->region, &gpu_view_ops, context);
	if (IS_ERR(view)) {
		kvfree(context);
		return ERR_CAST(view);
	}
	context->view = view;

	mutex_lock(&vram->lock);
	if (vram->dead)
		ret = -ENODEV;
	else
		list_add(&context->node, &vram->contexts);
	mutex_unlock(&vram->lock);
	if (ret) {
		hmm_view_detach(view);
		kvfree(context);
		return ERR_PTR(ret);
	}
	kref_get(&vram->kref);
	return context;
}

static bool is_idle(struct vram_context *context)
{
	bool idle;

	spin_lock(&context->lock);
	idle = !context->busy;
	spin_unlock(&context->lock);
	return idle;
}

/**
 * vram_context_free() - the end of a context
 * @context: nobody uses it any more; what it was told to do and has not done is forgotten
 *
 * Context: process context, sleeps.
 */
void vram_context_free(struct vram_context *context)
{
	struct vram_device *vram = context->vram;

	WRITE_ONCE(context->closing, true);
	/* As long as it is in the list, the device waits for it, too. */
	wait_event(context->wait, is_idle(context));
	mutex_lock(&vram->lock);
	list_del(&context->node);
	mutex_unlock(&vram->lock);
	cancel_work_sync(&context->work);
	hmm_view_detach(context->view);
	free_tables(context);
	kvfree(context);
	vram_device_put(vram);
}

/**
 * vram_contexts_stop() - the device goes: commands end, and nobody gives it new ones
 * @vram: the device
 *
 * Context: process context, sleeps.
 */
void vram_contexts_stop(struct vram_device *vram)
{
	struct vram_context *context;

	mutex_lock(&vram->lock);
	WRITE_ONCE(vram->dead, true);
	list_for_each_entry(context, &vram->contexts, node)
		wait_event(context->wait, is_idle(context));
	mutex_unlock(&vram->lock);
	flush_work(&vram->fault_work);
}

static bool overlap(u64 a, u64 b, u64 len)
{
	return a < b + len && b < a + len;
}

static int check_command(const struct vram_context *context,
			 const struct hmm_vram_command *command)
{
	u64 limit = hmm_view_mm(context->view)->task_size;
	bool src = command->op != HMM_VRAM_FILL && command->op != HMM_VRAM_SORT;
	bool value = command->op == HMM_VRAM_FILL || command->op == HMM_VRAM_AXPY;
	u64 written = command->op == HMM_VRAM_SUM ? sizeof(u64) : command->len;

	if (command->op < HMM_VRAM_FILL || command->op > HMM_VRAM_SORT || command->reserved ||
	    !command->len || (command->dst | command->src | command->len) % sizeof(u64) ||
	    command->len > limit || command->dst > limit - written ||
	    command->src > limit - command->len || (!src && command->src) ||
	    (!value && command->value))
		return -EINVAL;
	if (command->op == HMM_VRAM_SORT && command->len > HMM_VRAM_SORT_MAX)
		return -EINVAL;
	if (command->op == HMM_VRAM_AXPY && command->dst == command->src)
		return 0;
	if ((command->op == HMM_VRAM_COPY || command->op == HMM_VRAM_AXPY) &&
	    overlap(command->dst, command->src, command->len))
		return -EINVAL;
	return 0;
}

/**
 * vram_context_submit() - queue commands
 * @context: the context
 * @submit: from the user
 *
 * Context: process context of the context's process.
 * Return: 0; -EINVAL, -EFAULT, -ENOMEM; -EAGAIN too much is queued; -ENODEV the device is gone.
 */
int vram_context_submit(struct vram_context *context, struct hmm_vram_submit *submit)
{
	struct hmm_vram_command *command;
	struct vram_job *job;
	unsigned int i;
	int ret = 0;

	if (!submit->nr || submit->nr > HMM_VRAM_COMMANDS_MAX ||
	    submit->flags & ~(u64)HMM_VRAM_STAY)
		return -EINVAL;
	command = kvmalloc_array(submit->nr, sizeof(*command), GFP_KERNEL_ACCOUNT);
	if (!command)
		return -ENOMEM;
	if (copy_from_user(command, u64_to_user_ptr(submit->commands),
			   submit->nr * sizeof(*command)))
		ret = -EFAULT;
	for (i = 0; !ret && i < submit->nr; i++)
		ret = check_command(context, &command[i]);
	if (ret)
		goto err;

	spin_lock(&context->lock);
	if (READ_ONCE(context->vram->dead)) {
		ret = -ENODEV;
	} else if (context->submitted - context->finished == HMM_VRAM_JOBS) {
		ret = -EAGAIN;
	} else {
		submit->job = ++context->submitted;
		job = &context->job[submit->job % HMM_VRAM_JOBS];
		*job = (struct vram_job) {
			.command = command, .nr = submit->nr, .flags = submit->flags,
		};
		if (!context->busy) {
			context->busy = true;
			queue_work(vram_workqueue, &context->work);
		}
	}
	spin_unlock(&context->lock);
	if (ret)
		goto err;
	return 0;

err:
	kvfree(command);
	return ret;
}

/* Is the job over, or was it never there? */
static bool look(struct vram_context *context, struct hmm_vram_wait *wait, int *ret)
{
	struct hmm_vram_wait *result = &context->job[wait->job % HMM_VRAM_JOBS].result;

	spin_lock(&context->lock);
	if (!wait->job || wait->job > context->submitted ||
	    wait->job + HMM_VRAM_JOBS <= context->submitted) {
		*ret = -ENOENT;
	} else if (wait->job > context->finished) {
		*ret = -ETIMEDOUT;
	} else {
		result->size = wait->size;
		result->job = wait->job;
		result->timeout_ms = wait->timeout_ms;
		*wait = *result;
		*ret = 0;
	}
	spin_unlock(&context->lock);
	return *ret != -ETIMEDOUT;
}

/**
 * vram_context_wait() - wait for a job
 * @context: the context
 * @wait: from the user; has the result afterwards
 *
 * Context: process context, sleeps.
 * Return: 0; -ENOENT no such job; -ETIMEDOUT; -EINTR.
 */
int vram_context_wait(struct vram_context *context, struct hmm_vram_wait *wait)
{
	unsigned long timeout = msecs_to_jiffies(min_t(u64, wait->timeout_ms, INT_MAX));
	long left;
	int ret;

	left = wait_event_interruptible_timeout(context->wait, look(context, wait, &ret), timeout);
	return left < 0 ? -EINTR : ret;
}
