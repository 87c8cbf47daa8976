/* SPDX-License-Identifier: GPL-2.0 */
/*
 * hmm_devmem: device memory for Linux drivers.
 *
 * A driver adds its device's memory; any anonymous page of a process can then
 * live there and comes home when the CPU touches it. Two levels:
 *
 *   hmm_devmem_add(), hmm_devmem_add_resource()	the API of Linux 4.19, in hmm_plain.h: the
 *	driver gets struct pages and a fault callback and does everything else by itself.
 *   devm_hmm_region_add()	the managed level: the driver says how to copy, this
 *	module does allocation, migration both ways, CPU faults, page free, teardown.
 *
 * Beside them, struct hmm_view is a device's view of a process: a page table of
 * the driver's own kept in step with the CPU's.
 *
 * Everything here is GPL-only.
 */
#ifndef HMM_DEVMEM_H
#define HMM_DEVMEM_H

#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/hmm.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/workqueue.h>

#include "core.h"
#include "hmm_plain.h"

/* ------------------------------------------------------------------------
 * What this kernel can do
 */

/* Memory that the CPU cannot address: hmm_devmem_add(), private regions. */
#define HMM_CAP_PRIVATE		(1U << 0)
/* Memory that the CPU addresses coherently: hmm_devmem_add_resource(). */
#define HMM_CAP_COHERENT	(1U << 1)
/* 2 MiB folios move whole, in private memory. */
#define HMM_CAP_HUGE		(1U << 2)
/* hmm_view_exclusive() works. */
#define HMM_CAP_EXCLUSIVE	(1U << 3)

/**
 * hmm_devmem_caps() - what device memory this kernel supports
 *
 * Context: any.
 * Return: HMM_CAP_* bits; they do not change while the kernel runs.
 */
unsigned int hmm_devmem_caps(void);

/* ------------------------------------------------------------------------
 * The managed level
 */

struct hmm_region;

/**
 * struct hmm_copy - one batch of work handed to a driver
 * @seg: coalesced segments; a driver that could not do one of them sets its status
 *	to a negative errno, the pages of the others go on; -EAGAIN: it is called again for each
 *	page of the segment, because one bad page shall not fail its neighbours
 * @nr: number of segments
 * @npages: pages in all of them
 * @dma: with hmm_region_params.dma_device: the bus address of the RAM side of each segment,
 *	mapped until @wait has returned; else NULL
 * @peer: for copy_from_peer(): the region that src is an index of
 * @fence: the driver's own, NULL at first: what @wait shall wait for
 * @submitted: this module's own
 *
 * Page indices count from the start of the region, system pages are given by page
 * frame number. Copying to the device: src is a frame number, dst an index; to RAM:
 * src is an index, dst a frame number; zeroing: dst is an index.
 */
struct hmm_copy {
	struct hmm_segment *seg;
	unsigned int nr;
	unsigned long npages;
	const dma_addr_t *dma;
	struct hmm_region *peer;
	void *fence;
	bool submitted;
};

/**
 * struct hmm_region_ops - how a driver moves bytes
 * @copy_to_device: copy RAM to device memory. Every byte of the destination must
 *	have been written when @wait returns: what is there belonged to somebody else.
 * @copy_to_ram: copy device memory to RAM, likewise.
 * @zero: clear device memory.
 * @copy_from_peer: copy the memory of another device, copy->peer, to this one; absent if this
 *	device cannot, or -EOPNOTSUPP if it cannot from that one: pages then go by way of RAM.
 *	The other region stays until this returns and @wait has.
 * @wait: wait until the batch is done; absent if the others only return when it is.
 *
 * All are called in process context, may sleep, and return 0 or a negative errno, by
 * which the whole batch is taken as failed; a driver that has started work before it
 * fails must not return until the device has stopped touching the pages. They run
 * with the mmap lock of some process held for read and with pages locked, so they
 * must not wait for a CPU fault to be served. Several calls run side by side.
 *
 * A copy that fails leaves its page where it was, intact; on a CPU fault the process
 * gets SIGBUS. With no callbacks at all (coherent memory only) the CPU copies.
 */
struct hmm_region_ops {
	int (*copy_to_device)(struct hmm_region *region, struct hmm_copy *copy);
	int (*copy_to_ram)(struct hmm_region *region, struct hmm_copy *copy);
	int (*zero)(struct hmm_region *region, struct hmm_copy *copy);
	int (*wait)(struct hmm_region *region, struct hmm_copy *copy);
	int (*copy_from_peer)(struct hmm_region *region, struct hmm_copy *copy);
};

/**
 * struct hmm_region_params - what to add
 * @ops: callbacks; may be NULL for coherent memory
 * @size: bytes of device memory, a multiple of 2 MiB; only for private memory
 * @res: coherent memory: its physical range, owned by the caller, aligned to 2 MiB,
 *	with real memory behind every byte; NULL for private memory
 * @driver_data: for hmm_region_data()
 * @dma_device: who reads and writes RAM when copying: segments come with their bus address.
 *	What cannot be mapped stays where it is. NULL: the driver finds RAM by its frame number
 * @fault_window: at most so many pages come home on a CPU fault; 0: as the module's parameter
 *	of that name says, 1: only the page that was touched
 */
struct hmm_region_params {
	const struct hmm_region_ops *ops;
	u64 size;
	struct resource *res;
	void *driver_data;
	struct device *dma_device;
	unsigned int fault_window;
};

enum hmm_direction {
	HMM_TO_DEVICE,
	HMM_TO_RAM,
};

/* Why a page was not moved. */
enum hmm_skip {
	HMM_SKIP_UNMAPPED,	/* no mapping at this address */
	HMM_SKIP_VMA,		/* a mapping whose pages never move */
	HMM_SKIP_BUSY,		/* swapped out, pinned, locked, or already there */
	HMM_SKIP_NO_MEMORY,	/* no free frame on the other side */
	HMM_SKIP_COPY,		/* the driver reported a failed copy */
	HMM_SKIP_REFUSED,	/* not anonymous, or changed while it was copied */
	HMM_SKIP_HOLE,		/* never touched; see HMM_MIGRATE_HOLES */
	HMM_SKIP_NR
};

/* Nothing is moved unless every page of the range is mapped and readable. */
#define HMM_MIGRATE_STRICT	(1U << 0)
/* To the device: addresses never touched get a zeroed device page, too. */
#define HMM_MIGRATE_HOLES	(1U << 1)
/* 2 MiB folios are split and move page by page. */
#define HMM_MIGRATE_SMALL	(1U << 2)
/* To a full device: what it has not used for longest goes home to make room. */
#define HMM_MIGRATE_MAKE_ROOM	(1U << 3)
/* To the device: pages on other devices stay where they are. */
#define HMM_MIGRATE_FROM_RAM	(1U << 4)
#define HMM_MIGRATE_ALL		((1U << 5) - 1)

/**
 * struct hmm_migrate - a request to move a range, and what came of it
 * @mm: the address space; the caller holds a reference that keeps the struct alive
 * @start: first byte, page aligned
 * @end: one past the last byte, page aligned
 * @flags: HMM_MIGRATE_*
 * @cancel: set while it runs, the call ends with -ECANCELED at the next 2 MiB
 * @moved: (out) pages moved
 * @huge: (out) of these, pages in whole 2 MiB folios
 * @again: (out) moves beyond the first of a page that was taken back meanwhile
 * @skipped: (out) pages not moved, by enum hmm_skip. Unless the call failed, @moved
 *	and all of these together are the pages of the range.
 */
struct hmm_migrate {
	struct mm_struct *mm;
	unsigned long start;
	unsigned long end;
	unsigned int flags;
	bool cancel;
	unsigned long moved;
	unsigned long huge;
	unsigned long again;
	unsigned long skipped[HMM_SKIP_NR];
};

/**
 * struct hmm_region_stats - counters of a region, or of one process on it
 * @to_device: pages moved to the device
 * @to_ram_request: pages brought back because somebody asked for that range
 * @to_ram_fault: pages brought back because the CPU touched memory
 * @cpu_faults: CPU faults served
 * @ns_to_device: nanoseconds spent moving pages to the device
 * @ns_to_ram: nanoseconds spent moving pages back
 * @to_ram_evict: pages brought back to make room, or by hmm_region_evict(); counted for the
 *	region only, like all that follows here by eviction
 * @to_ram_teardown: pages brought back because the device went
 * @huge_to_device: of all pages moved to the device, those in whole 2 MiB folios
 * @huge_to_ram: of all pages moved back, those in whole 2 MiB folios
 * @no_frame: pages not moved because the device was full
 * @no_ram: pages not moved back because there was no RAM
 * @copy_failed: pages whose copy failed, either way
 *
 * At rest to_device is at least the sum of all to_ram_* and the frames resident; the rest was
 * freed by its owner while it was on the device.
 */
struct hmm_region_stats {
	u64 to_device;
	u64 to_ram_request;
	u64 to_ram_fault;
	u64 cpu_faults;
	u64 ns_to_device;
	u64 ns_to_ram;
	u64 to_ram_evict;
	u64 to_ram_teardown;
	u64 huge_to_device;
	u64 huge_to_ram;
	u64 no_frame;
	u64 no_ram;
	u64 copy_failed;
};

struct hmm_region *devm_hmm_region_add(struct device *device,
				       const struct hmm_region_params *params);
void devm_hmm_region_remove(struct hmm_region *region);
void hmm_region_get(struct hmm_region *region);
void hmm_region_put(struct hmm_region *region);
void *hmm_region_data(const struct hmm_region *region);
const struct hmm_region_ops *hmm_region_ops(const struct hmm_region *region);
struct hmm_region *hmm_region_of_page(const struct page *page);
u64 hmm_region_page_index(const struct hmm_region *region, const struct page *page);
int hmm_region_frames(struct hmm_region *region, struct hmm_core_stats *frames);
void hmm_region_stats(struct hmm_region *region, struct mm_struct *mm,
		      struct hmm_region_stats *stats);

int hmm_migrate_to_device(struct hmm_region *region, struct hmm_migrate *m);
int hmm_migrate_to_ram(struct hmm_region *region, struct hmm_migrate *m);
int hmm_region_evict(struct hmm_region *region);

/**
 * struct hmm_migrate_work - a move that goes on by itself
 * @migrate: the request, and when @done is called what came of it. The caller keeps
 *	migrate.mm alive (mmgrab()) until then
 * @direction: where to
 * @result: (out) what hmm_migrate_to_device() or hmm_migrate_to_ram() returned
 * @done: called once, in process context, when it is over; the struct is the caller's again
 * @region: this module's own
 * @work: this module's own
 */
struct hmm_migrate_work {
	struct hmm_migrate migrate;
	enum hmm_direction direction;
	int result;
	void (*done)(struct hmm_migrate_work *work);
	struct hmm_region *region;
	struct work_struct work;
};

int hmm_migrate_start(struct hmm_region *region, struct hmm_migrate_work *work);
void hmm_migrate_cancel(struct hmm_migrate_work *work);

/* ------------------------------------------------------------------------
 * A device's view of a process
 */

struct hmm_view;

/**
 * struct hmm_view_ops - a driver's page table for one process
 * @map: enter pages into the device's page table. @pfns are HMM_PFN_* entries as
 *	hmm_range_fault() made them, one per page from @addr on, all valid. 0 or a
 *	negative errno, which hmm_view_fault() hands back.
 * @invalidate: forget every entry in [start, end). On return the device no longer
 *	uses them. Cannot fail.
 * @map_exclusive: enter one page that only the device may use until it is invalidated:
 *	it may read, write, and do atomic operations. Absent if the device has no use for
 *	that; 0 or a negative errno.
 *
 * All are called with the view's lock held. That lock is taken inside memory
 * reclaim: neither may allocate memory in a way that waits for reclaim, nor take
 * the mmap lock, nor call back into this module.
 */
struct hmm_view_ops {
	int (*map)(struct hmm_view *view, unsigned long addr,
		   const unsigned long *pfns, unsigned long npages);
	void (*invalidate)(struct hmm_view *view, unsigned long start,
			   unsigned long end);
	int (*map_exclusive)(struct hmm_view *view, unsigned long addr, struct page *page);
};

/* The device is going to write. */
#define HMM_VIEW_WRITE	(1U << 0)

struct hmm_view *hmm_view_attach(struct hmm_region *region,
				 const struct hmm_view_ops *ops, void *driver_data);
void hmm_view_detach(struct hmm_view *view);
void *hmm_view_data(const struct hmm_view *view);
struct mm_struct *hmm_view_mm(const struct hmm_view *view);
void hmm_view_lock(struct hmm_view *view);
void hmm_view_unlock(struct hmm_view *view);
int hmm_view_fault(struct hmm_view *view, unsigned long start, unsigned long end,
		   unsigned int flags);
int hmm_view_exclusive(struct hmm_view *view, unsigned long start, unsigned long end);
int hmm_view_snapshot(struct hmm_view *view, unsigned long start, unsigned long end,
		      int (*visit)(struct hmm_view *view, unsigned long addr,
				   const unsigned long *pfns, unsigned long npages,
				   void *arg),
		      void *arg);

/* ------------------------------------------------------------------------
 * Hints: what a process says about its memory
 */

/* Nothing, or no more. */
#define HMM_HINT_NONE		0U
/*
 * The device uses it most. What the device faults on moves to it first, as far as there is room
 * (hmm_view_fault()); what the CPU touches comes home without its neighbours (a 2 MiB page as a
 * whole); and where room is made by others, it is the last to go (as far as 2 GiB of other memory
 * can be found).
 */
#define HMM_HINT_PREFER_DEVICE	(1U << 0)
/*
 * The CPU uses it most. A touch of the CPU brings home all of it within the same 2 MiB. A device
 * uses it where it is, as without a hint. Not together with HMM_HINT_PREFER_DEVICE.
 */
#define HMM_HINT_PREFER_RAM	(1U << 1)
/*
 * It is seldom written. What the device faults on to read stays where it is, and is entered
 * read-only, so that the first write is a fault of its own; that one goes as without this.
 */
#define HMM_HINT_READ_MOSTLY	(1U << 2)
#define HMM_HINT_ALL		((1U << 3) - 1)

int hmm_hint_set(struct hmm_view *view, unsigned long start, unsigned long end,
		 unsigned int hint);
unsigned int hmm_hint_get(const struct hmm_view *view, unsigned long addr, unsigned long end,
			  unsigned long *until);

#endif /* HMM_DEVMEM_H */
