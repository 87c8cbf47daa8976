/* SPDX-License-Identifier: GPL-2.0 */
/*
 * hmm_vram: a PCI device with memory of its own, the reference for authors of GPU drivers.
 *
 *	pci.c		the function: BARs, probe, remove, errors, suspend
 *	memory.c	its memory: copying in, out, clearing, as hmm_devmem wants it
 *	engine.c	batches and fences, the watchdog, the CPU as an engine of last resort
 *	nvme.c		the DMA engine: registers, queues, interrupts
 *	gpu.c		commands on plain user pointers, the device's page table, its faults
 *	file.c		/dev/hmm_vram*
 *
 * Two devices of QEMU serve as one. An NVMe function with a persistent memory region on the
 * same file as its namespace is a GPU in all but the name: registers, rings, doorbells, MSI-X,
 * and video memory in a BAR, where reading block n is a DMA from page n to RAM. And ivshmem is
 * a bare BAR of memory, with the CPU to copy.
 */
#ifndef VRAM_H
#define VRAM_H

#include <linux/completion.h>
#include <linux/io.h>
#include <linux/kref.h>
#include <linux/mempool.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/nvme.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "hmm_devmem.h"
#include "hmm_vram.h"

#define VRAM_NAME	"hmm_vram"

enum vram_layout {
	VRAM_LAYOUT_NVME,
	VRAM_LAYOUT_IVSHMEM,
};

/* Who moves the bytes. It only ever changes downwards. */
enum vram_engine {
	VRAM_ENGINE_DMA,	/* the device's queues */
	VRAM_ENGINE_CPU,	/* a worker, through the BAR */
	VRAM_ENGINE_LOST,	/* nobody: the device does not answer any more */
};

enum vram_op {
	VRAM_WRITE,		/* RAM to video memory */
	VRAM_READ,		/* video memory to RAM */
	VRAM_CLEAR,		/* video memory to zeroes */
};

/* One submission, and the fence that is waited for. */
struct vram_batch {
	struct vram_device *vram;
	enum vram_op op;
	struct hmm_segment *seg;
	unsigned int nr;
	bool alone;			/* one command for each segment, to find the bad one */
	bool dma_only;			/* fails on any other engine */
	const dma_addr_t *dma;		/* of each segment's RAM */
	dma_addr_t base;		/* without @dma: of page 0 of what the segments' src counts */
	struct scatterlist peer;	/* memory.c's */
	atomic_t pending;		/* commands under way, and one while submitting */
	struct completion done;
	struct work_struct work;	/* for the CPU */
};

#define VRAM_DEPTH	64U		/* commands in a ring */
#define VRAM_QUEUES	4U		/* I/O queue pairs at most; pair 0 is the admin's */
#define VRAM_LIST	128U		/* entries of a command's page list */

/* A command under way. */
struct vram_slot {
	struct vram_batch *batch;	/* NULL: nothing was submitted */
	struct hmm_segment *seg;	/* that fail if it fails */
	unsigned int nr;
};

/* A submission ring, its completion ring, and what is under way in them. */
struct vram_queue {
	struct vram_device *vram;
	u16 id;
	u16 tail, head, phase;
	bool live;			/* the device may be told; under lock */
	spinlock_t lock;		/* all of this; taken by the interrupt */
	struct nvme_command *sq;
	struct nvme_completion *cq;
	__le64 *list;			/* VRAM_LIST entries for each slot */
	dma_addr_t sq_dma, cq_dma, list_dma;
	DECLARE_BITMAP(busy, VRAM_DEPTH);
	struct vram_slot slot[VRAM_DEPTH];
};

/* How a device can be made to misbehave, through debugfs. */
struct vram_tricks {
	bool gone;			/* registers read all ones, and hear nothing */
	bool hang;			/* doorbells are not heard, until the next reset */
	bool stuck;			/* a reset is not heard either */
	u32 drop_interrupts;		/* so many get lost */
	u32 odd_completions;		/* so many name a command that nobody gave */
};

/* Outlives its PCI function for as long as files are open. */
struct vram_device {
	struct kref kref;
	struct pci_dev *pdev;
	enum vram_layout layout;
	bool dead;			/* unbound; under lock with contexts */
	int id;
	char name[24];
	struct miscdevice misc;
	bool private;			/* the CPU does not address the memory */
	struct hmm_region *region;
	bool closed;			/* no page moves there for now */

	/* pci.c */
	void __iomem *regs;
	int bar;			/* of the video memory */
	u64 size;
	void *aperture;			/* where the CPU finds the video memory */
	bool bar_pages;			/* the BAR has struct pages: others can be shown it */

	/* engine.c */
	enum vram_engine engine;
	struct mutex reset_lock;
	unsigned int generation;	/* of the engine: counts resets */
	bool paused;			/* registers and BAR mean nothing now; under reset_lock */
	wait_queue_head_t wait;		/* for a slot, or for the engine to come back */
	mempool_t copies, clears;	/* a migration takes one of each at most */
	struct work_struct reset_work;
	atomic64_t commands, bytes, lost_interrupts, odd;

	/* nvme.c */
	u64 cap;
	unsigned int stride;		/* of the doorbells */
	unsigned int nr_queues;		/* I/O queue pairs */
	unsigned int nr_vectors, nr_irqs;
	unsigned int lba_shift;
	unsigned int max_pages;		/* of one command */
	void *identify;
	dma_addr_t identify_dma;
	struct vram_queue *queue;	/* nr_queues + 1 */

	/* gpu.c */
	struct mutex lock;
	struct list_head contexts;
	spinlock_t fault_lock;
	struct list_head faults;	/* the fault buffer */
	struct work_struct fault_work;

	struct vram_tricks tricks;
	struct dentry *debugfs;
};

/* pci.c */
extern struct workqueue_struct *vram_workqueue, *vram_helpers;
void vram_device_put(struct vram_device *vram);
u32 vram_read32(struct vram_device *vram, unsigned int reg);
u64 vram_read64(struct vram_device *vram, unsigned int reg);

/* memory.c */
extern const struct hmm_region_ops vram_region_ops;

/* engine.c */
int vram_engine_init(struct vram_device *vram);
void vram_engine_exit(struct vram_device *vram);
void vram_batch_init(struct vram_batch *batch, struct vram_device *vram, enum vram_op op,
		     struct hmm_segment *seg, unsigned int nr);
void vram_batch_submit(struct vram_batch *batch);
void vram_batch_wait(struct vram_batch *batch);
void vram_batch_end(struct vram_batch *batch);
unsigned long vram_patience(void);
void vram_engine_rescue(struct vram_device *vram, unsigned int generation);
void vram_engine_reset(struct vram_device *vram, unsigned int generation);
void vram_engine_lose(struct vram_device *vram, const char *why);
void vram_engine_look(struct vram_device *vram);
int vram_aperture_enter(struct vram_device *vram);
void vram_aperture_leave(int idx);
int vram_engine_pause(struct vram_device *vram);
void vram_engine_resume(struct vram_device *vram);
int vram_engine_clear_all(struct vram_device *vram);

/* nvme.c */
int vram_nvme_find_memory(struct vram_device *vram);
int vram_nvme_init(struct vram_device *vram);
void vram_nvme_exit(struct vram_device *vram);
int vram_nvme_start(struct vram_device *vram);
int vram_nvme_stop(struct vram_device *vram);
void vram_nvme_abort(struct vram_device *vram, int err);
void vram_nvme_submit(struct vram_batch *batch);
bool vram_nvme_poll(struct vram_device *vram);

/* gpu.c */
struct vram_context;
struct vram_context *vram_context_new(struct vram_device *vram);
void vram_context_free(struct vram_context *context);
struct hmm_view *vram_context_view(struct vram_context *context);
struct vram_device *vram_context_device(struct vram_context *context);
int vram_context_submit(struct vram_context *context, struct hmm_vram_submit *submit);
int vram_context_wait(struct vram_context *context, struct hmm_vram_wait *wait);
void vram_contexts_stop(struct vram_device *vram);
void vram_fault_work(struct work_struct *work);

/* file.c */
extern const struct file_operations vram_fops;

#endif /* VRAM_H */
