// SPDX-License-Identifier: GPL-2.0
/*
 * The DMA engine: an NVMe controller whose blocks are the pages of the video memory.
 *
 * Every ring has its lock, taken by the interrupt as well. A ring that is not live is not
 * touched: the controller is being reset, and who wants to submit waits for it to come back.
 * What the device writes into memory is checked before it is believed.
 */
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/iopoll.h>

#include "vram.h"

/* What <linux/nvme.h> does not say of the persistent memory region. */
#define CAP_PMRS		BIT_ULL(56)
#define PMRCAP_BIR(cap)		(((cap) >> 5) & 7)
#define PMRCAP_CMSS		BIT(24)
#define PMRCTL_ENABLE		BIT(0)
#define PMRSTS_NOT_READY	BIT(8)
#define PMRMSCL			0xe14
#define PMRMSCU			0xe18
#define PMRMSCL_CMSE		BIT(1)

#define ONCS_WRITE_ZEROES	BIT(3)
#define FEATURE_QUEUES		0x07
#define STATUS_MASK		0x7ff
/* A controller that takes longer to start, to stop or to answer has failed, whatever it says. */
#define TIMEOUT_US		jiffies_to_usecs(vram_patience())

static void write32(struct vram_device *vram, u32 value, unsigned int reg)
{
	if (!READ_ONCE(vram->tricks.gone))
		writel(value, vram->regs + reg);
}

/* Two halves: the order does not matter, and not every platform has one write of eight bytes. */
static void write64(struct vram_device *vram, u64 value, unsigned int reg)
{
	write32(vram, lower_32_bits(value), reg);
	write32(vram, upper_32_bits(value), reg + 4);
}

static void ring(struct vram_queue *queue, bool completion)
{
	struct vram_device *vram = queue->vram;
	unsigned int reg = NVME_REG_DBS + (2 * queue->id + completion) * vram->stride;

	if (READ_ONCE(vram->tricks.hang) && queue->id)
		return;
	write32(vram, completion ? queue->head : queue->tail, reg);
}

/* ------------------------------------------------------------------------
 * Completions
 */

/* A command is over; the ring's lock is held. */
static void end_slot(struct vram_queue *queue, unsigned int nr, int err)
{
	struct vram_slot *slot = &queue->slot[nr];
	struct vram_batch *batch = slot->batch;
	unsigned int i;

	for (i = 0; err && i < slot->nr; i++)
		WRITE_ONCE(slot->seg[i].status, err);
	slot->batch = NULL;
	clear_bit(nr, queue->busy);
	/* The last one: batch and segments belong to the waiter again. */
	vram_batch_end(batch);
}

/* What the device may write at any moment. */
static u16 status_of(const struct nvme_completion *entry)
{
	return le16_to_cpu(READ_ONCE(entry->status));
}

static int status_to_errno(u16 status)
{
	switch ((status >> 1) & STATUS_MASK) {
	case NVME_SC_SUCCESS:
		return 0;
	case NVME_SC_ABORT_REQ:
	case NVME_SC_ABORT_QUEUE:
		return -EAGAIN;
	default:
		return -EIO;
	}
}

/* Take what the device has completed. Returns how many; the lock is held. */
static unsigned int reap(struct vram_queue *queue)
{
	struct vram_device *vram = queue->vram;
	struct nvme_completion *entry;
	unsigned int n = 0;
	u16 id, status;

	for (; queue->live; n++) {
		entry = &queue->cq[queue->head];
		status = status_of(entry);
		if ((status & 1) != queue->phase)
			break;
		/* The rest of the entry was written before its phase. */
		dma_rmb();
		id = READ_ONCE(entry->command_id);
		if (READ_ONCE(vram->tricks.odd_completions)) {
			vram->tricks.odd_completions--;
			id ^= 0x4000;
		}
		if (id >= VRAM_DEPTH || !queue->slot[id].batch ||
		    le16_to_cpu(entry->sq_id) != queue->id ||
		    le16_to_cpu(entry->sq_head) >= VRAM_DEPTH) {
			/* It names what nobody asked for: nothing it says can be believed. */
			atomic64_inc(&vram->odd);
			queue->live = false;
			queue_work(vram_helpers, &vram->reset_work);
			break;
		}
		if (++queue->head == VRAM_DEPTH) {
			queue->head = 0;
			queue->phase ^= 1;
		}
		end_slot(queue, id, status_to_errno(status));
	}
	if (n) {
		ring(queue, true);
		wake_up_all(&vram->wait);
	}
	return n;
}

static irqreturn_t interrupt(int irq, void *data)
{
	struct vram_queue *queue = data;
	struct vram_device *vram = queue->vram;
	unsigned int n;

	if (READ_ONCE(vram->tricks.drop_interrupts)) {
		vram->tricks.drop_interrupts--;
		return IRQ_HANDLED;
	}
	spin_lock(&queue->lock);
	n = reap(queue);
	spin_unlock(&queue->lock);
	return n ? IRQ_HANDLED : IRQ_NONE;
}

/* Look for completions that no interrupt told of. */
bool vram_nvme_poll(struct vram_device *vram)
{
	struct vram_queue *queue;
	unsigned int n = 0;

	for (queue = vram->queue + 1; queue <= vram->queue + vram->nr_queues; queue++) {
		spin_lock_irq(&queue->lock);
		n += reap(queue);
		spin_unlock_irq(&queue->lock);
	}
	return n;
}

/* ------------------------------------------------------------------------
 * Commands
 */

/* Where a batch has got to. */
struct cursor {
	unsigned int seg;
	u32 page;		/* in it */
	u64 index;		/* of the command's first page of video memory */
	unsigned int first, last;	/* segments of the command */
	unsigned int npages;		/* and its pages */
};

/* Where the engine finds the RAM, or the peer's memory, of a page. */
static dma_addr_t address_of(const struct vram_batch *batch, unsigned int seg, u32 page)
{
	dma_addr_t start = batch->dma ? batch->dma[seg] :
					batch->base + (batch->seg[seg].src << PAGE_SHIFT);

	return start + ((dma_addr_t)page << PAGE_SHIFT);
}

/* Cut the next command off a batch; its pages of RAM go to @page. False: there is none. */
static bool next_command(struct vram_batch *batch, struct cursor *c, dma_addr_t *page)
{
	unsigned int max = batch->op == VRAM_CLEAR ? HMM_BLOCK_PAGES : batch->vram->max_pages;
	struct hmm_segment *seg;
	u64 index;

	c->npages = 0;
	for (; c->seg < batch->nr && c->npages < max; c->seg++, c->page = 0) {
		seg = &batch->seg[c->seg];
		index = batch->op == VRAM_READ ? seg->src : seg->dst;
		if (!c->page) {
			if (READ_ONCE(seg->status) != -EINPROGRESS) {
				if (c->npages)
					break;
				continue;
			}
			if (c->npages && (batch->alone || index != c->index + c->npages))
				break;
		}
		if (!c->npages) {
			c->index = index + c->page;
			c->first = c->seg;
		}
		if (!c->page)
			WRITE_ONCE(seg->status, 0);
		c->last = c->seg;
		for (; c->page < seg->npages && c->npages < max; c->page++, c->npages++)
			if (batch->op != VRAM_CLEAR)
				page[c->npages] = address_of(batch, c->seg, c->page);
		if (c->page < seg->npages)
			break;
	}
	return c->npages;
}

/* A slot of a live ring, or -EBUSY. Whoever has it owns its page list, too. */
static int take_slot(struct vram_queue *queue)
{
	int nr = -EBUSY;

	spin_lock_irq(&queue->lock);
	if (queue->live) {
		/* One less than the ring has, or full would look like empty. */
		nr = find_first_zero_bit(queue->busy, VRAM_DEPTH - 1);
		if (nr < VRAM_DEPTH - 1) {
			set_bit(nr, queue->busy);
		} else {
			/* What shall make room must have been heard of. */
			ring(queue, false);
			nr = -EBUSY;
		}
	}
	spin_unlock_irq(&queue->lock);
	return nr;
}

static void write_list(struct vram_queue *queue, int nr, const struct cursor *c,
		       const dma_addr_t *page)
{
	__le64 *list = queue->list + nr * VRAM_LIST;
	unsigned int i;

	for (i = 1; i < c->npages; i++)
		list[i - 1] = cpu_to_le64(page[i]);
}

/* Into the ring; its lock is held. */
static void write_command(struct vram_queue *queue, int nr, const struct cursor *c,
			  struct vram_batch *batch, const dma_addr_t *page)
{
	struct nvme_rw_command *rw = &queue->sq[queue->tail].rw;
	unsigned int shift = PAGE_SHIFT - queue->vram->lba_shift;

	memset(rw, 0, sizeof(*rw));
	rw->command_id = nr;
	rw->nsid = cpu_to_le32(1);
	rw->slba = cpu_to_le64(c->index << shift);
	rw->length = cpu_to_le16((c->npages << shift) - 1);
	if (batch->op == VRAM_CLEAR) {
		rw->opcode = nvme_cmd_write_zeroes;
	} else {
		rw->opcode = batch->op == VRAM_WRITE ? nvme_cmd_write : nvme_cmd_read;
		rw->dptr.prp1 = cpu_to_le64(page[0]);
		if (c->npages == 2)
			rw->dptr.prp2 = cpu_to_le64(page[1]);
		else if (c->npages > 2)
			rw->dptr.prp2 = cpu_to_le64(queue->list_dma +
						    nr * VRAM_LIST * sizeof(*queue->list));
	}
	queue->slot[nr].batch = batch;
	queue->slot[nr].seg = &batch->seg[c->first];
	queue->slot[nr].nr = c->last - c->first + 1;
	atomic_inc(&batch->pending);
	if (++queue->tail == VRAM_DEPTH)
		queue->tail = 0;
}

/* One command. False: the engine is not what it was. */
static bool submit_command(struct vram_queue *queue, struct vram_batch *batch,
			   const struct cursor *c, const dma_addr_t *page)
{
	struct vram_device *vram = queue->vram;
	unsigned int generation;
	bool done = false;
	int nr;

	do {
		/* The ring may be full of this very batch, which nobody waits for yet. */
		do {
			generation = READ_ONCE(vram->generation);
			if (wait_event_timeout(vram->wait, (nr = take_slot(queue)) >= 0 ||
					       READ_ONCE(vram->engine) != VRAM_ENGINE_DMA,
					       vram_patience()))
				break;
			vram_engine_rescue(vram, generation);
		} while (true);
		if (nr < 0)
			return false;
		if (batch->op != VRAM_CLEAR)
			write_list(queue, nr, c, page);
		spin_lock_irq(&queue->lock);
		done = queue->live;
		if (done)
			write_command(queue, nr, c, batch, page);
		else
			clear_bit(nr, queue->busy);
		spin_unlock_irq(&queue->lock);
	} while (!done);
	atomic64_inc(&vram->commands);
	atomic64_add((u64)c->npages << PAGE_SHIFT, &vram->bytes);
	return true;
}

/* Put a whole batch into a ring. */
void vram_nvme_submit(struct vram_batch *batch)
{
	struct vram_device *vram = batch->vram;
	struct vram_queue *queue = vram->queue + 1 + raw_smp_processor_id() % vram->nr_queues;
	struct cursor cursor = {};
	dma_addr_t page[VRAM_LIST];
	unsigned int i;

	while (next_command(batch, &cursor, page)) {
		if (!submit_command(queue, batch, &cursor, page)) {
			for (i = cursor.first; i <= cursor.last; i++)
				WRITE_ONCE(batch->seg[i].status, -EAGAIN);
			break;
		}
	}
	spin_lock_irq(&queue->lock);
	if (queue->live)
		ring(queue, false);
	spin_unlock_irq(&queue->lock);
	vram_batch_end(batch);
}

/* ------------------------------------------------------------------------
 * The admin's queue: one command at a time, and nobody but us uses it
 */

static int admin(struct vram_device *vram, struct nvme_command *command, u32 *result)
{
	struct vram_queue *queue = vram->queue;
	struct nvme_completion *entry = &queue->cq[queue->head];
	u16 status;
	int ret;

	command->common.command_id = queue->tail;
	queue->sq[queue->tail] = *command;
	if (++queue->tail == VRAM_DEPTH)
		queue->tail = 0;
	ring(queue, false);
	ret = read_poll_timeout(status_of, status, (status & 1) == queue->phase,
				50, TIMEOUT_US, false, entry);
	if (ret)
		return vram_read32(vram, NVME_REG_CSTS) == ~0U ? -ENODEV : ret;
	dma_rmb();
	if (entry->command_id != command->common.command_id || entry->sq_id)
		return -EPROTO;
	if (result)
		*result = le32_to_cpu(entry->result.u32);
	if (++queue->head == VRAM_DEPTH) {
		queue->head = 0;
		queue->phase ^= 1;
	}
	ring(queue, true);
	return status >> 1 & STATUS_MASK ? -EIO : 0;
}

static int identify(struct vram_device *vram, u8 cns, u32 nsid)
{
	struct nvme_command command = {
		.identify.opcode = nvme_admin_identify,
		.identify.nsid = cpu_to_le32(nsid),
		.identify.dptr.prp1 = cpu_to_le64(vram->identify_dma),
		.identify.cns = cns,
	};

	memset(vram->identify, 0, PAGE_SIZE);
	return admin(vram, &command, NULL);
}

static int check_controller(struct vram_device *vram)
{
	const struct nvme_id_ctrl *id = vram->identify;
	int ret = identify(vram, NVME_ID_CNS_CTRL, 0);

	if (ret)
		return ret;
	if (!(le16_to_cpu(id->oncs) & ONCS_WRITE_ZEROES)) {
		dev_err(&vram->pdev->dev, "the engine cannot clear memory\n");
		return -EOPNOTSUPP;
	}
	/* 0 is no limit; the unit is the smallest page, which is ours. */
	vram->max_pages = VRAM_LIST;
	if (id->mdts && id->mdts < ilog2(VRAM_LIST))
		vram->max_pages = 1U << id->mdts;
	return 0;
}

static int check_namespace(struct vram_device *vram)
{
	const struct nvme_id_ns *id = vram->identify;
	const struct nvme_lbaf *format;
	int ret = identify(vram, NVME_ID_CNS_NS, 1);
	u64 blocks;

	if (ret)
		return ret;
	format = &id->lbaf[id->flbas & NVME_NS_FLBAS_LBA_MASK];
	vram->lba_shift = format->ds;
	blocks = le64_to_cpu(id->nsze);
	if (format->ds < 9 || format->ds > PAGE_SHIFT || format->ms ||
	    blocks > U64_MAX >> PAGE_SHIFT || blocks << format->ds != vram->size) {
		dev_err(&vram->pdev->dev,
			"the namespace (%llu blocks of 2^%u bytes, %u of metadata) is not the memory region of %llu bytes\n",
			blocks, format->ds, le16_to_cpu(format->ms), vram->size);
		return -ENXIO;
	}
	return 0;
}

static int create_rings(struct vram_device *vram)
{
	struct nvme_command command = {
		.features.opcode = nvme_admin_set_features,
		.features.fid = cpu_to_le32(FEATURE_QUEUES),
		.features.dword11 = cpu_to_le32((vram->nr_queues - 1) * 0x10001),
	};
	struct vram_queue *queue;
	u32 granted;
	int ret;

	ret = admin(vram, &command, &granted);
	if (ret)
		return ret;
	vram->nr_queues = min3(vram->nr_queues, (granted & 0xffff) + 1, (granted >> 16) + 1);
	for (queue = vram->queue + 1; queue <= vram->queue + vram->nr_queues; queue++) {
		command = (struct nvme_command) {
			.create_cq.opcode = nvme_admin_create_cq,
			.create_cq.prp1 = cpu_to_le64(queue->cq_dma),
			.create_cq.cqid = cpu_to_le16(queue->id),
			.create_cq.qsize = cpu_to_le16(VRAM_DEPTH - 1),
			.create_cq.cq_flags = cpu_to_le16(NVME_QUEUE_PHYS_CONTIG |
							  NVME_CQ_IRQ_ENABLED),
			.create_cq.irq_vector = cpu_to_le16(min_t(u16, queue->id,
								  vram->nr_vectors - 1)),
		};
		ret = admin(vram, &command, NULL);
		if (ret)
			return ret;
		command = (struct nvme_command) {
			.create_sq.opcode = nvme_admin_create_sq,
			.create_sq.prp1 = cpu_to_le64(queue->sq_dma),
			.create_sq.sqid = cpu_to_le16(queue->id),
			.create_sq.qsize = cpu_to_le16(VRAM_DEPTH - 1),
			.create_sq.sq_flags = cpu_to_le16(NVME_QUEUE_PHYS_CONTIG),
			.create_sq.cqid = cpu_to_le16(queue->id),
		};
		ret = admin(vram, &command, NULL);
		if (ret)
			return ret;
	}
	return 0;
}

/* ------------------------------------------------------------------------
 * Start and stop
 */

static int wait_ready(struct vram_device *vram, bool ready)
{
	u32 status;
	int ret;

	ret = read_poll_timeout(vram_read32, status, (status & NVME_CSTS_RDY) == ready ||
				status == ~0U, 100, TIMEOUT_US, false, vram, NVME_REG_CSTS);
	return status == ~0U ? -ENODEV : ret;
}

/* Show the video memory in its BAR, and let the engine use addresses in there as RAM. */
static int enable_memory(struct vram_device *vram)
{
	u64 address = pci_bus_address(vram->pdev, vram->bar);
	u32 status;
	int ret;

	write32(vram, PMRCTL_ENABLE, NVME_REG_PMRCTL);
	ret = read_poll_timeout(vram_read32, status, !(status & PMRSTS_NOT_READY) ||
				status == ~0U, 100, TIMEOUT_US, false, vram,
				NVME_REG_PMRSTS);
	if (status == ~0U)
		return -ENODEV;
	if (!ret && vram_read32(vram, NVME_REG_PMRCAP) & PMRCAP_CMSS) {
		write32(vram, upper_32_bits(address), PMRMSCU);
		write32(vram, lower_32_bits(address) | PMRMSCL_CMSE, PMRMSCL);
	}
	return ret;
}

/**
 * vram_nvme_stop() - make the device let go of all memory
 * @vram: the device
 *
 * Context: process context, sleeps; the caller holds the reset lock.
 * Return: 0; -ENODEV it does not answer; -ETIMEDOUT it does not stop.
 */
int vram_nvme_stop(struct vram_device *vram)
{
	struct vram_queue *queue;
	int ret;

	for (queue = vram->queue + 1; queue < vram->queue + 1 + VRAM_QUEUES; queue++) {
		spin_lock_irq(&queue->lock);
		queue->live = false;
		spin_unlock_irq(&queue->lock);
	}
	if (vram_read32(vram, NVME_REG_CSTS) == ~0U)
		return -ENODEV;
	if (READ_ONCE(vram->tricks.stuck))
		return -ETIMEDOUT;
	write32(vram, 0, NVME_REG_CC);
	ret = wait_ready(vram, false);
	if (!ret)
		vram->tricks.hang = false;
	return ret;
}

/**
 * vram_nvme_abort() - end all commands under way
 * @vram: the device, which is stopped
 * @err: what became of them
 *
 * Context: process context; the caller holds the reset lock.
 */
void vram_nvme_abort(struct vram_device *vram, int err)
{
	struct vram_queue *queue;
	unsigned int nr;

	for (queue = vram->queue + 1; queue < vram->queue + 1 + VRAM_QUEUES; queue++) {
		spin_lock_irq(&queue->lock);
		for (nr = 0; nr < VRAM_DEPTH; nr++)
			if (queue->slot[nr].batch)
				end_slot(queue, nr, err);
		spin_unlock_irq(&queue->lock);
	}
}

/**
 * vram_nvme_start() - bring up a stopped controller
 * @vram: the device; nothing is under way
 *
 * Context: process context, sleeps; the caller holds the reset lock, if anybody else can know
 * of the device.
 * Return: 0; -ENODEV it does not answer; other errors: it does not do what it should.
 */
int vram_nvme_start(struct vram_device *vram)
{
	struct vram_queue *queue;
	int ret;

	if (vram_read32(vram, NVME_REG_CSTS) == ~0U)
		return -ENODEV;
	if (READ_ONCE(vram->tricks.stuck))
		return -ETIMEDOUT;
	pci_set_master(vram->pdev);
	for (queue = vram->queue; queue < vram->queue + 1 + VRAM_QUEUES; queue++) {
		queue->tail = 0;
		queue->head = 0;
		queue->phase = 1;
		memset(queue->cq, 0, VRAM_DEPTH * sizeof(*queue->cq));
	}
	write32(vram, (VRAM_DEPTH - 1) * 0x10001, NVME_REG_AQA);
	write64(vram, vram->queue->sq_dma, NVME_REG_ASQ);
	write64(vram, vram->queue->cq_dma, NVME_REG_ACQ);
	write32(vram, NVME_CC_IOSQES | NVME_CC_IOCQES | NVME_CC_ENABLE, NVME_REG_CC);
	ret = wait_ready(vram, true);
	if (!ret)
		ret = enable_memory(vram);
	if (!ret)
		ret = check_controller(vram);
	if (!ret)
		ret = check_namespace(vram);
	if (!ret)
		ret = create_rings(vram);
	if (ret)
		return ret;
	for (queue = vram->queue + 1; queue <= vram->queue + vram->nr_queues; queue++) {
		spin_lock_irq(&queue->lock);
		queue->live = true;
		spin_unlock_irq(&queue->lock);
	}
	return 0;
}

/**
 * vram_nvme_find_memory() - where the video memory is
 * @vram: the device, with its registers mapped
 *
 * Sets @vram->bar and shows the memory there.
 *
 * Context: process context, sleeps.
 * Return: 0; -ENODEV it does not answer, or has no such memory; -ENXIO it says what cannot be.
 */
int vram_nvme_find_memory(struct vram_device *vram)
{
	u64 cap = vram_read64(vram, NVME_REG_CAP);
	unsigned int bir;

	if (cap == ~0ULL || !(cap & CAP_PMRS))
		return -ENODEV;
	vram->cap = cap;
	vram->stride = 4U << NVME_CAP_STRIDE(cap);
	bir = PMRCAP_BIR(vram_read32(vram, NVME_REG_PMRCAP));
	if (bir < 2 || bir > 5 || !pci_resource_len(vram->pdev, bir) ||
	    NVME_CAP_MPSMIN(cap) || NVME_CAP_MQES(cap) + 1 < VRAM_DEPTH ||
	    !(NVME_CAP_CSS(cap) & NVME_CAP_CSS_NVM) ||
	    NVME_REG_DBS + 2 * (VRAM_QUEUES + 1) * vram->stride >
	    pci_resource_len(vram->pdev, 0)) {
		dev_err(&vram->pdev->dev, "capabilities %#llx, memory in BAR %u: not ours\n",
			cap, bir);
		return -ENXIO;
	}
	vram->bar = bir;
	return enable_memory(vram);
}

/**
 * vram_nvme_init() - rings, interrupts, and the controller up
 * @vram: the device
 *
 * Memory for the rings goes with the device.
 *
 * Context: process context, sleeps.
 * Return: 0, to be undone by vram_nvme_exit(); or a negative errno.
 */
int vram_nvme_init(struct vram_device *vram)
{
	struct device *dev = &vram->pdev->dev;
	struct vram_queue *queue;
	int ret;

	vram->queue = devm_kcalloc(dev, 1 + VRAM_QUEUES, sizeof(*queue), GFP_KERNEL);
	vram->identify = dmam_alloc_coherent(dev, PAGE_SIZE, &vram->identify_dma, GFP_KERNEL);
	if (!vram->queue || !vram->identify)
		return -ENOMEM;
	for (queue = vram->queue; queue < vram->queue + 1 + VRAM_QUEUES; queue++) {
		queue->vram = vram;
		queue->id = queue - vram->queue;
		spin_lock_init(&queue->lock);
		queue->sq = dmam_alloc_coherent(dev, VRAM_DEPTH * sizeof(*queue->sq),
						&queue->sq_dma, GFP_KERNEL);
		queue->cq = dmam_alloc_coherent(dev, VRAM_DEPTH * sizeof(*queue->cq),
						&queue->cq_dma, GFP_KERNEL);
		queue->list = dmam_alloc_coherent(dev,
						  VRAM_DEPTH * VRAM_LIST * sizeof(*queue->list),
						  &queue->list_dma, GFP_KERNEL);
		if (!queue->sq || !queue->cq || !queue->list)
			return -ENOMEM;
	}

	ret = pci_alloc_irq_vectors(vram->pdev, 1, 1 + min(VRAM_QUEUES, num_online_cpus()),
				    PCI_IRQ_MSIX | PCI_IRQ_MSI);
	if (ret < 0)
		return ret;
	vram->nr_vectors = ret;
	vram->nr_queues = max(vram->nr_vectors - 1, 1U);
	for (; vram->nr_irqs < vram->nr_queues; vram->nr_irqs++) {
		queue = vram->queue + 1 + vram->nr_irqs;
		ret = request_irq(pci_irq_vector(vram->pdev,
						 min_t(u16, queue->id, vram->nr_vectors - 1)),
				  interrupt, 0, vram->name, queue);
		if (ret)
			goto err;
	}
	/* Somebody else may have left it running. */
	ret = vram_nvme_stop(vram);
	if (!ret)
		ret = vram_nvme_start(vram);
	if (!ret)
		return 0;
	dev_err(dev, "the engine does not start (%d)\n", ret);
err:
	vram_nvme_exit(vram);
	return ret;
}

/* Undo vram_nvme_init(); nothing is under way. */
void vram_nvme_exit(struct vram_device *vram)
{
	struct vram_queue *queue;

	if (vram_nvme_stop(vram))
		pci_clear_master(vram->pdev);
	while (vram->nr_irqs) {
		queue = vram->queue + vram->nr_irqs--;
		free_irq(pci_irq_vector(vram->pdev,
					min_t(u16, queue->id, vram->nr_vectors - 1)), queue);
	}
	pci_free_irq_vectors(vram->pdev);
}
