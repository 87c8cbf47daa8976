// SPDX-License-Identifier: GPL-2.0
/*
 * What the probe drivers have in common; included by each of them after HMM_API is chosen.
 * A device made of RAM with its own bitmap allocator, its own page table (one range that was
 * looked at last) and a migration in either direction, written only with what <linux/hmm.h>
 * and <linux/migrate.h> of Linux 4.14 to 5.2 offer.
 */
#include <linux/hmm.h>
#include <linux/migrate.h>

#include <linux/bitmap.h>
#include <linux/dma-mapping.h>
#include <linux/highmem.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "probe.h"

#ifndef PROBE_NAME
#define PROBE_NAME	"hmm_probe" __stringify(HMM_API)
#endif
#undef pr_fmt
#define pr_fmt(fmt)	PROBE_NAME ": " fmt

#if HMM_API < 501
#define vm_fault_t_or_int int
#else
#define vm_fault_t_or_int vm_fault_t
#endif

/* Pages looked at or moved at once. */
#define PROBE_BATCH	512
/* Device pages that are handed out; the rest of the range stays idle. */
#define PROBE_PAGES	8192UL

/* Ranges of memory, and mirrors of each process. */
#ifndef PROBE_REGIONS
#define PROBE_REGIONS	1
#endif

#define LOOK_FAULT	1
#define LOOK_WRITE	2
#define LOOK_HOME	4

static u64 coherent_start;
module_param(coherent_start, ullong, 0444);
MODULE_PARM_DESC(coherent_start, "physical address of reserved memory, instead of private memory");
static unsigned int coherent_size_mb = 64;
module_param(coherent_size_mb, uint, 0444);
MODULE_PARM_DESC(coherent_size_mb, "its size in MiB");

struct probe_region {
	struct hmm_devmem *devmem;
	struct resource res;
	unsigned long npages;
	unsigned long *used;
	unsigned long hint;		/* where to look for an idle page */
	struct page **backing;		/* private memory: what is behind a device page */
};

static struct probe {
	struct hmm_device *hdev;
	struct platform_device *pdev;	/* for DMA */
	struct mutex remove_lock;
	spinlock_t lock;		/* the allocators */
	struct probe_region regions[PROBE_REGIONS];
	u64 handed_out;
	u64 freed;
	atomic64_t faults;
	unsigned int fail;
	unsigned int fail_turn;
} probe;

struct probe_file {
	struct hmm_mirror mirror;
	struct hmm_mirror second;	/* with two regions: one for each */
	struct mm_struct *mm;
	struct mutex lock;		/* the device's page table: what was looked at last */
	struct hmm_range range;
	struct vm_area_struct *looked_at;
	u64 entries[PROBE_BATCH];
	unsigned long start;
	unsigned long end;
	u64 syncs;
	u64 second_syncs;
	u64 released;
};

struct probe_move {
	unsigned long src[PROBE_BATCH];
	unsigned long dst[PROBE_BATCH];
	unsigned int order;
	struct probe_region *to;	/* the device */
	u64 wanted;
	u64 moved;
};

struct report {
	char *text;
	size_t len;
	unsigned int failed;
	unsigned long user;		/* some pages of anonymous memory */
	struct device *dma;
};

static const struct hmm_mirror_ops my_mirror_ops;
#if PROBE_REGIONS > 1
static const struct hmm_mirror_ops * const second_mirror_ops;
#else
#define second_mirror_ops NULL
#endif
static const struct migrate_vma_ops probe_to_ram_ops;
static int probe_look(struct probe_file *f, struct vm_area_struct *vma, unsigned long start,
		      unsigned long end, unsigned int how);
static bool probe_still_true(struct probe_file *f);
static u8 probe_entry(struct probe_file *f, unsigned long i, struct page **page);
static void probe_selftest_api(struct report *r, struct probe_file *f);
static vm_fault_t_or_int probe_migrate_home(struct hmm_devmem *devmem,
					    struct vm_area_struct *vma, unsigned long start,
					    unsigned long addr, unsigned long end,
					    struct probe_move *move);

static __printf(3, 4) void check(struct report *r, bool ok, const char *fmt, ...)
{
	va_list args;

	r->failed += !ok;
	r->len += scnprintf(r->text + r->len, PAGE_SIZE - r->len, "%s - ", ok ? "ok" : "not ok");
	va_start(args, fmt);
	r->len += vscnprintf(r->text + r->len, PAGE_SIZE - r->len, fmt, args);
	va_end(args);
	r->len += scnprintf(r->text + r->len, PAGE_SIZE - r->len, "\n");
}

/* ------------------------------------------------------------------------
 * Device pages
 */

static bool probe_fails(unsigned int what)
{
	if (!(probe.fail & what))
		return false;
	return !(probe.fail & PROBE_FAIL_SOME) || probe.fail_turn++ % 3 == 0;
}

/* The region that is this devmem; all of them come and go together, or one after the other. */
static struct probe_region *probe_region_of(const struct hmm_devmem *devmem)
{
	struct probe_region *region;

	for (region = probe.regions; region < probe.regions + PROBE_REGIONS; region++)
		if (devmem && region->devmem == devmem)
			return region;
	return NULL;
}

/* NULL: not a page of ours. */
static struct probe_region *probe_mine(struct page *page)
{
	return page ? probe_region_of(hmm_devmem_of_page(page)) : NULL;
}

static struct page *probe_backing(struct page *page)
{
	struct probe_region *region = probe_mine(page);

	return region->backing ? region->backing[hmm_devmem_page_get_drvdata(page) - 1] : page;
}

static struct page *probe_pick(struct probe_region *region)
{
	unsigned long at;

	spin_lock_irq(&probe.lock);
	at = find_next_zero_bit(region->used, region->npages, region->hint);
	if (at >= region->npages)
		at = find_first_zero_bit(region->used, region->npages);
	if (at < region->npages) {
		__set_bit(at, region->used);
		region->hint = at + 1;
		probe.handed_out++;
	}
	spin_unlock_irq(&probe.lock);
	return at < region->npages ? pfn_to_page(region->devmem->pfn_first + at) : NULL;
}

/* The page is idle: take it, as far as that comes before the copy. */
static void probe_take(struct page *page, unsigned int order)
{
	switch (order) {
	case PROBE_LOCK_GET:
		lock_page(page);
		get_page(page);
		break;
	case PROBE_TRYLOCK_GET:
		while (!trylock_page(page))
			cond_resched();
		get_page(page);
		break;
	case PROBE_GET_LOCK:
		get_page(page);
		lock_page(page);
		break;
	case PROBE_REF_INC:
		page_ref_inc(page);
		lock_page(page);
		break;
	case PROBE_PAGE_GET:
		hmm_devmem_page_get(probe_mine(page)->devmem, page_to_pfn(page));
		break;
	default:
		get_page(page);
	}
}

static void probe_free(struct hmm_devmem *devmem, struct page *page)
{
	unsigned long flags, at = page_to_pfn(page) - devmem->pfn_first;
	struct probe_region *region = probe_region_of(devmem);

	if (WARN_ON(!region))
		return;
	spin_lock_irqsave(&probe.lock, flags);
	WARN_ON(!__test_and_clear_bit(at, region->used));
	WARN_ON(hmm_devmem_page_get_drvdata(page) != at + 1);
	/* Kept with the page; written here because drivers do. */
	hmm_devmem_page_set_drvdata(page, at + 1);
	probe.freed++;
	spin_unlock_irqrestore(&probe.lock, flags);
}

/* ------------------------------------------------------------------------
 * Migration
 */

static void to_device_alloc_and_copy(struct vm_area_struct *vma, const unsigned long *src,
				     unsigned long *dst, unsigned long start,
				     unsigned long end, void *private)
{
	struct probe_move *move = private;
	unsigned long i;

	for (i = 0; i < (end - start) >> PAGE_SHIFT; i++) {
		struct page *from = migrate_pfn_to_page(src[i]), *page;

		if (!(src[i] & MIGRATE_PFN_MIGRATE) || probe_mine(from) == move->to)
			continue;
		WARN_ON(from && !(src[i] & MIGRATE_PFN_LOCKED));
		WARN_ON(!from != !(src[i] & MIGRATE_PFN_VALID));
		WARN_ON(from && is_device_private_page(from) != !!(src[i] & MIGRATE_PFN_DEVICE));
		/* Another driver's private memory cannot be read from here. */
		if (src[i] & MIGRATE_PFN_DEVICE && !probe_mine(from))
			continue;
		move->wanted++;
		if (probe_fails(PROBE_FAIL_ALLOC))
			continue;
		page = probe_pick(move->to);
		if (!page)
			continue;
		probe_take(page, move->order);
		if (probe_fails(PROBE_FAIL_COPY)) {
			/* On the error path it goes back as it came. */
			if (PageLocked(page))
				unlock_page(page);
			put_page(page);
			continue;
		}
		if (from)
			copy_highpage(probe_backing(page),
				      probe_mine(from) ? probe_backing(from) : from);
		else
			clear_highpage(probe_backing(page));
		if (move->order == PROBE_GET_COPY_LOCK)
			lock_page(page);
		dst[i] = migrate_pfn(page_to_pfn(page)) | MIGRATE_PFN_LOCKED |
			 MIGRATE_PFN_DEVICE | (src[i] & MIGRATE_PFN_WRITE);
	}
}

static void to_ram_alloc_and_copy(struct vm_area_struct *vma, const unsigned long *src,
				  unsigned long *dst, unsigned long start,
				  unsigned long end, void *private)
{
	struct probe_move *move = private;
	unsigned long i;

	for (i = 0; i < (end - start) >> PAGE_SHIFT; i++) {
		struct page *from = migrate_pfn_to_page(src[i]), *page;

		if (!(src[i] & MIGRATE_PFN_MIGRATE) || !probe_mine(from))
			continue;
		move->wanted++;
		page = probe_fails(PROBE_FAIL_ALLOC) ? NULL :
		       hmm_vma_alloc_locked_page(vma, start + i * PAGE_SIZE);
		if (!page) {
			dst[i] = MIGRATE_PFN_ERROR;
			continue;
		}
		if (probe_fails(PROBE_FAIL_COPY)) {
			unlock_page(page);
			put_page(page);
			dst[i] = MIGRATE_PFN_ERROR;
			continue;
		}
		copy_highpage(page, probe_backing(from));
		dst[i] = migrate_pfn(page_to_pfn(page)) | MIGRATE_PFN_LOCKED;
	}
}

static void probe_finalize_and_map(struct vm_area_struct *vma, const unsigned long *src,
				   const unsigned long *dst, unsigned long start,
				   unsigned long end, void *private)
{
	struct probe_move *move = private;
	unsigned long i;

	for (i = 0; i < (end - start) >> PAGE_SHIFT; i++) {
		struct page *page = migrate_pfn_to_page(dst[i]);

		if (page && (src[i] & MIGRATE_PFN_MIGRATE)) {
			WARN_ON(!PageLocked(page));
			move->moved++;
		}
	}
}

static const struct migrate_vma_ops probe_to_device_ops = {
	.alloc_and_copy = to_device_alloc_and_copy,
	.finalize_and_map = probe_finalize_and_map,
};

static const struct migrate_vma_ops probe_to_ram_ops = {
	.alloc_and_copy = to_ram_alloc_and_copy,
	.finalize_and_map = probe_finalize_and_map,
};

#ifndef HMM_DRAFT_FAULT_RANGE
static vm_fault_t_or_int probe_migrate_home(struct hmm_devmem *devmem,
					    struct vm_area_struct *vma, unsigned long start,
					    unsigned long addr, unsigned long end,
					    struct probe_move *move)
{
	if (migrate_vma(&probe_to_ram_ops, vma, start, end, move->src, move->dst, move))
		return VM_FAULT_SIGBUS;
	return move->dst[(addr - start) >> PAGE_SHIFT] & MIGRATE_PFN_ERROR ?
	       VM_FAULT_SIGBUS : 0;
}
#endif

static vm_fault_t_or_int probe_fault(struct hmm_devmem *devmem, struct vm_area_struct *vma,
				     unsigned long addr, const struct page *page,
				     unsigned int flags, pmd_t *pmdp)
{
	struct probe_move *move;
	unsigned long start = addr & ~(PROBE_WINDOW * PAGE_SIZE - 1);
	unsigned long end = start + PROBE_WINDOW * PAGE_SIZE;
	vm_fault_t_or_int ret;

	atomic64_inc(&probe.faults);
	if (probe.fail & PROBE_FAIL_FAULT)
		return VM_FAULT_SIGBUS;
	if (probe.fail & PROBE_FAIL_LAZY)
		return 0;
	move = kzalloc(sizeof(*move), GFP_KERNEL);
	if (!move)
		return VM_FAULT_OOM;
	start = max(start, vma->vm_start);
	end = min(end, vma->vm_end);
	ret = probe_migrate_home(devmem, vma, start, addr & PAGE_MASK, end, move);
	kfree(move);
	return ret;
}

static const struct hmm_devmem_ops probe_devmem_ops = {
	.free = probe_free,
	.fault = probe_fault,
};

static long probe_migrate(struct probe_file *f, struct probe_cmd *cmd,
			  const struct migrate_vma_ops *ops)
{
	unsigned long addr = cmd->addr, end = addr + cmd->npages * PAGE_SIZE, next;
	struct vm_area_struct *vma;
	struct probe_move *move;
	long ret = 0;

	if (cmd->region >= PROBE_REGIONS)
		return -EINVAL;
	if (!probe.regions[cmd->region].devmem)
		return -ENODEV;
	move = kzalloc(sizeof(*move), GFP_KERNEL);
	if (!move)
		return -ENOMEM;
	move->order = cmd->order;
	move->to = &probe.regions[cmd->region];
	mmap_read_lock(f->mm);
	for (; addr < end && !ret; addr = next) {
		vma = find_vma(f->mm, addr);
		next = vma ? vma->vm_start : end;
		if (!vma || addr < vma->vm_start)
			continue;
		next = min3(end, vma->vm_end, addr + PROBE_BATCH * PAGE_SIZE);
		ret = migrate_vma(ops, vma, addr, next, move->src, move->dst, move);
	}
	mmap_read_unlock(f->mm);
	cmd->moved = move->moved;
	cmd->wanted = move->wanted;
	kfree(move);
	return ret;
}

/* ------------------------------------------------------------------------
 * Mirror
 */

/* What the device knew of the range is forgotten. */
static int probe_sync(struct hmm_mirror *mirror, unsigned long start, unsigned long end,
		      bool blockable)
{
	struct probe_file *f = container_of(mirror, struct probe_file, mirror);

	if (blockable)
		mutex_lock(&f->lock);
	else if (!mutex_trylock(&f->lock))
		return -EAGAIN;
	f->syncs++;
	if (start < f->end && end > f->start)
		f->start = f->end = 0;
	mutex_unlock(&f->lock);
	return 0;
}

#ifndef PROBE_NO_RELEASE
static void probe_release(struct hmm_mirror *mirror)
{
	struct probe_file *f = container_of(mirror, struct probe_file, mirror);

	mutex_lock(&f->lock);
	f->released++;
	mutex_unlock(&f->lock);
}
#endif

/*
 * Look at [start, end), which lies in one mapping, until it is true; then the lock is held and
 * what is in the table stays true.
 */
static int probe_look_locked(struct probe_file *f, unsigned long start, unsigned long *end,
			     unsigned int how)
{
	struct vm_area_struct *vma;
	unsigned int tries;
	int ret;

	for (tries = 0; tries < 1000; tries++) {
		mmap_read_lock(f->mm);
		vma = find_vma(f->mm, start);
		if (!vma || start < vma->vm_start) {
			mmap_read_unlock(f->mm);
			return -EFAULT;
		}
		*end = min3(*end, vma->vm_end, start + PROBE_BATCH * PAGE_SIZE);
		ret = probe_look(f, vma, start, *end, how);
		/* The lock is gone. */
		if (ret == -EAGAIN)
			continue;
		if (ret) {
			mmap_read_unlock(f->mm);
			return ret;
		}
		mutex_lock(&f->lock);
		if (probe_still_true(f)) {
			f->start = start;
			f->end = *end;
			mmap_read_unlock(f->mm);
			return 0;
		}
		mutex_unlock(&f->lock);
		mmap_read_unlock(f->mm);
	}
	return -EBUSY;
}

/* The device reads or writes; what passes is a copy, for the lock forbids page faults. */
static int probe_access(struct probe_file *f, struct probe_cmd *cmd, char *data, bool write)
{
	unsigned long addr = cmd->addr, end = addr + cmd->npages * PAGE_SIZE, next, i;
	int ret;

	for (; addr < end; addr = next) {
		next = end;
		ret = probe_look_locked(f, addr, &next, LOOK_FAULT | (write ? LOOK_WRITE : 0));
		if (ret)
			return ret;
		for (i = 0; !ret && i < (next - addr) >> PAGE_SHIFT; i++) {
			char *at = data + (addr - cmd->addr) + i * PAGE_SIZE, *map;
			struct page *page;
			u8 kind = probe_entry(f, i, &page);

			if (!page || (write && !(kind & PROBE_WRITABLE))) {
				ret = -EPROTO;
				break;
			}
			if (probe_mine(page))
				page = probe_backing(page);
			else if (is_device_private_page(page)) {
				/* Somebody else's: it has to come home. */
				ret = -EXDEV;
				break;
			}
			map = kmap(page);
			if (write)
				memcpy(map, at, PAGE_SIZE);
			else
				memcpy(at, map, PAGE_SIZE);
			kunmap(page);
			if (write && !is_zone_device_page(page))
				set_page_dirty(page);
		}
		mutex_unlock(&f->lock);
		if (ret == -EXDEV) {
			ret = probe_look_locked(f, addr, &next, LOOK_FAULT | LOOK_HOME |
						(write ? LOOK_WRITE : 0));
			if (ret)
				return ret;
			mutex_unlock(&f->lock);
			next = addr;
		}
		if (ret)
			return ret;
	}
	return 0;
}

static long probe_data(struct probe_file *f, struct probe_cmd *cmd, bool write)
{
	char *data;
	long ret;

	if (cmd->npages > 65536)
		return -EINVAL;
	data = vmalloc(cmd->npages * PAGE_SIZE);
	if (!data)
		return -ENOMEM;
	ret = -EFAULT;
	if (write && copy_from_user(data, u64_to_user_ptr(cmd->ptr), cmd->npages * PAGE_SIZE))
		goto out;
	ret = probe_access(f, cmd, data, write);
	if (!ret && !write &&
	    copy_to_user(u64_to_user_ptr(cmd->ptr), data, cmd->npages * PAGE_SIZE))
		ret = -EFAULT;
out:
	vfree(data);
	return ret;
}

/* One byte for each page; also of what fails, as far as the entries say why. */
static long probe_snapshot(struct probe_file *f, struct probe_cmd *cmd, unsigned int how)
{
	unsigned long addr = cmd->addr, end = addr + cmd->npages * PAGE_SIZE, i;
	u8 kinds[PROBE_BATCH] = {};
	struct page *page;
	long ret;

	if (cmd->npages > PROBE_BATCH)
		return -EINVAL;
	memset(f->entries, 0, sizeof(f->entries));
	ret = probe_look_locked(f, addr, &end, how);
	for (i = 0; f->range.pfns && i < cmd->npages && i < (end - addr) >> PAGE_SHIFT; i++)
		kinds[i] = probe_entry(f, i, &page);
	if (!ret)
		mutex_unlock(&f->lock);
	cmd->moved = (end - addr) >> PAGE_SHIFT;
	if (copy_to_user(u64_to_user_ptr(cmd->ptr), kinds, cmd->npages))
		return -EFAULT;
	return ret;
}

/* ------------------------------------------------------------------------
 * Memory comes and goes
 */

static void probe_release_memory(void)
{
	struct probe_region *region;
	unsigned long i;

	for (region = probe.regions; region < probe.regions + PROBE_REGIONS; region++) {
		for (i = 0; region->backing && i < region->npages; i++)
			if (region->backing[i])
				__free_page(region->backing[i]);
		kvfree(region->backing);
		bitmap_free(region->used);
		region->backing = NULL;
		region->used = NULL;
	}
}

/* The last one first. */
static void probe_remove(unsigned int from)
{
	unsigned int i;

	mutex_lock(&probe.remove_lock);
	for (i = PROBE_REGIONS; i-- > from;) {
		if (!probe.regions[i].devmem)
			continue;
#if defined(PROBE_PUT_ONLY)
		hmm_device_put(probe.hdev);
		probe.hdev = NULL;
#elif defined(PROBE_ON_BUS)
		device_release_driver(&probe.pdev->dev);
#else
		hmm_devmem_remove(probe.regions[i].devmem);
#endif
		probe.regions[i].devmem = NULL;
	}
	mutex_unlock(&probe.remove_lock);
}

static int probe_add_region(struct probe_region *region, struct device *device)
{
	u64 size = ((u64)coherent_size_mb << 20) / PROBE_REGIONS;
	unsigned long i;

	if (coherent_start) {
		region->res = (struct resource) {
			.name = PROBE_NAME,
			.start = coherent_start + (region - probe.regions) * size,
			.end = coherent_start + (region - probe.regions + 1) * size - 1,
			.flags = IORESOURCE_MEM,
			.desc = IORES_DESC_DEVICE_PUBLIC_MEMORY,
		};
		region->devmem = hmm_devmem_add_resource(&probe_devmem_ops, device, &region->res);
	} else {
		region->devmem = hmm_devmem_add(&probe_devmem_ops, device, 100UL << 20);
	}
	if (IS_ERR(region->devmem)) {
		int ret = PTR_ERR(region->devmem);

		region->devmem = NULL;
		return ret;
	}
	region->npages = min(region->devmem->pfn_last - region->devmem->pfn_first, PROBE_PAGES);
	region->used = bitmap_zalloc(PROBE_PAGES, GFP_KERNEL);
	if (!region->used)
		return -ENOMEM;
	if (!coherent_start) {
		region->backing = kvcalloc(region->npages, sizeof(*region->backing), GFP_KERNEL);
		for (i = 0; region->backing && i < region->npages; i++)
			region->backing[i] = alloc_page(GFP_KERNEL);
		if (!region->backing || !region->backing[region->npages - 1])
			return -ENOMEM;
	}
	for (i = 0; i < region->npages; i++) {
		struct page *page = pfn_to_page(region->devmem->pfn_first + i);

		if (hmm_devmem_page_get_drvdata(page))
			return -EBADSLT;
		/* Once, on an idle page, for all of its lives. */
		hmm_devmem_page_set_drvdata(page, i + 1);
	}
	return 0;
}

/* On a device of its own, or one of a bus, which it leaves when its driver is unbound. */
static int probe_add(struct device *device)
{
	unsigned int i;
	int ret = 0;

	probe.hdev = hmm_device_new(&probe);
	if (IS_ERR(probe.hdev))
		return PTR_ERR(probe.hdev);
	for (i = 0; i < PROBE_REGIONS && !ret; i++)
		ret = probe_add_region(&probe.regions[i], device ? : &probe.hdev->device);
	/* A kernel without that kind of memory: there is still the mirror. */
	return ret == -EOPNOTSUPP ? 0 : ret;
}

/* ------------------------------------------------------------------------
 * What can be checked without a process
 */

static void nothing_free(struct hmm_devmem *devmem, struct page *page)
{
}

static void selftest_add(struct report *r)
{
	static const struct hmm_devmem_ops no_fault = { .free = nothing_free };
	static const struct hmm_devmem_ops all = { .free = nothing_free, .fault = probe_fault };
	struct hmm_device *hdev = hmm_device_new(NULL);
	struct resource res = {
		.start = coherent_start ? : 0x100000000ULL,
		.end = (coherent_start ? : 0x100000000ULL) + (16UL << 20) - 1,
		.flags = IORESOURCE_MEM,
	};
	bool private = hmm_devmem_add(NULL, NULL, 0) != ERR_PTR(-EOPNOTSUPP);
	struct hmm_devmem *devmem;
	long want = private ? -EINVAL : -EOPNOTSUPP;

	if (IS_ERR(hdev)) {
		check(r, false, "a device");
		return;
	}
	check(r, PTR_ERR(hmm_devmem_add(NULL, &hdev->device, PAGE_SIZE)) == want &&
	      PTR_ERR(hmm_devmem_add(&no_fault, &hdev->device, PAGE_SIZE)) == want &&
	      PTR_ERR(hmm_devmem_add(&all, NULL, PAGE_SIZE)) == want &&
	      PTR_ERR(hmm_devmem_add(&all, &hdev->device, 0)) == want &&
	      PTR_ERR(hmm_devmem_add(&all, &hdev->device, ~0UL)) == want,
	      "hmm_devmem_add() refuses with %ld", want);
	devmem = private ? hmm_devmem_add(&all, &hdev->device, 1UL << 45) : ERR_PTR(-ERANGE);
	check(r, PTR_ERR(devmem) == -ERANGE, "there is no hole of 32 TiB");

	devmem = hmm_devmem_add_resource(&all, &hdev->device, &res);
	check(r, PTR_ERR(devmem) == -EINVAL || PTR_ERR(devmem) == -EOPNOTSUPP,
	      "a resource without the mark is refused");
	res.desc = IORES_DESC_DEVICE_PUBLIC_MEMORY;
	check(r, IS_ERR(hmm_devmem_add_resource(NULL, &hdev->device, &res)) &&
	      IS_ERR(hmm_devmem_add_resource(&all, NULL, &res)) &&
	      IS_ERR(hmm_devmem_add_resource(&all, &hdev->device, NULL)),
	      "so is one without callbacks or device, or none");
	res.start = 0x1000000;
	res.end = 0x1ffffff;
	devmem = hmm_devmem_add_resource(&all, &hdev->device, &res);
	check(r, PTR_ERR(devmem) == -ENXIO || PTR_ERR(devmem) == -EOPNOTSUPP,
	      "system RAM is not device memory: %ld", PTR_ERR(devmem));
	hmm_devmem_remove(NULL);

	devmem = private ? hmm_devmem_add(&all, &hdev->device, PAGE_SIZE) : NULL;
	if (devmem && !IS_ERR(devmem)) {
		unsigned long n = devmem->pfn_last - devmem->pfn_first;

		check(r, n == (1UL << PA_SECTION_SHIFT) >> PAGE_SHIFT &&
		      devmem->pfn_first == devmem->resource->start >> PAGE_SHIFT &&
		      resource_size(devmem->resource) == n << PAGE_SHIFT &&
		      devmem->device == &hdev->device && devmem->ops == &all,
		      "a page becomes a section: %lu pages", n);
		check(r, is_device_private_page(pfn_to_page(devmem->pfn_first)) &&
		      !is_device_public_page(pfn_to_page(devmem->pfn_first)) &&
		      hmm_devmem_of_page(pfn_to_page(devmem->pfn_last - 1)) == devmem,
		      "of private pages, known by their devmem");
	} else if (private) {
		check(r, false, "a second devmem: %ld", PTR_ERR(devmem));
	}
	hmm_device_put(hdev);
}

static void selftest_device(struct report *r)
{
	static struct hmm_device *devices[260];
	unsigned int i, n;

	for (n = 0; n < ARRAY_SIZE(devices); n++) {
		devices[n] = hmm_device_new(&devices[n]);
		if (IS_ERR(devices[n]))
			break;
		if (dev_get_drvdata(&devices[n]->device) != &devices[n] ||
		    devices[n]->minor > 255)
			break;
	}
	check(r, n <= 256 && n > 200 && PTR_ERR(devices[n]) == -EBUSY,
	      "256 devices and no more: %u were free", n);
	for (i = 0; i < n; i++)
		hmm_device_put(devices[i]);
	devices[0] = hmm_device_new(NULL);
	check(r, !IS_ERR(devices[0]), "a minor is used again");
	if (!IS_ERR(devices[0]))
		hmm_device_put(devices[0]);
}

static void selftest_pages(struct report *r)
{
	unsigned int order, round;
	struct page *page;
	int idle;	/* before 5.19 an idle page has a count of 1 */
	u64 freed;

	check(r, !hmm_devmem_of_page(virt_to_page(r->text)), "RAM is not device memory");
	check(r, hmm_devmem_pgmap_owner(probe.regions[0].devmem) != NULL, "devmems have an owner");
	for (order = 0; order < PROBE_ORDERS; order++) {
		for (round = 0; round < 3; round++) {
			bool good;

			page = probe_pick(probe.regions);
			if (!page)
				break;
			freed = probe.freed;
			idle = page_count(page);
			probe_take(page, order);
			good = idle < 2 && page_count(page) == idle + 1;
			get_page(page);
			good &= page_count(page) == idle + 2;
			if (PageLocked(page))
				unlock_page(page);
			put_page(page);
			good &= probe.freed == freed;
			put_page(page);
			good &= probe.freed == freed + 1 && page_count(page) == idle &&
				hmm_devmem_page_get_drvdata(page) ==
				page_to_pfn(page) - probe.regions[0].devmem->pfn_first + 1;
			if (!round || !good)
				check(r, good, "an idle page is taken and given back, order %u",
				      order);
		}
	}
	page = probe_pick(probe.regions);
	if (page) {
		hmm_devmem_page_set_link(page, r);
		check(r, hmm_devmem_page_link(page) == r, "idle pages can be chained");
		hmm_devmem_page_set_link(page, NULL);
		check(r, hmm_devmem_page_take(page) && !hmm_devmem_page_take(page),
		      "a page is taken once");
		put_page(page);
	}
	page = virt_to_page(r->text);
	check(r, !hmm_devmem_page_take(page), "RAM is not taken");
	get_page(page);
	put_page(page);
}

static void selftest_migrate(struct report *r, struct mm_struct *mm)
{
	struct probe_move *move = kzalloc(sizeof(*move), GFP_KERNEL);
	struct vm_area_struct *vma;
	unsigned long a = r->user, b = a + PAGE_SIZE;
	int ret;

	if (!move)
		return;
	mmap_read_lock(mm);
	vma = find_vma(mm, a);
	ret = migrate_vma(&probe_to_device_ops, NULL, a, b, move->src, move->dst, move);
	if (ret == -EOPNOTSUPP)
		goto out;
	check(r, ret == -EINVAL &&
	      migrate_vma(NULL, vma, a, b, move->src, move->dst, move) == -EINVAL &&
	      migrate_vma(&probe_to_device_ops, vma, a, b, NULL, move->dst, move) == -EINVAL &&
	      migrate_vma(&probe_to_device_ops, vma, a, b, move->src, NULL, move) == -EINVAL &&
	      migrate_vma(&probe_to_device_ops, vma, a, a, move->src, move->dst, move) == -EINVAL &&
	      migrate_vma(&probe_to_device_ops, vma, b, a, move->src, move->dst, move) == -EINVAL &&
	      migrate_vma(&probe_to_device_ops, vma, vma->vm_end, vma->vm_end + PAGE_SIZE,
			  move->src, move->dst, move) == -EINVAL,
	      "migrate_vma() refuses what it cannot work with");
	check(r, !move->wanted, "and calls nobody");
	/* Nothing of ours is there, so nothing is given: the page stays. */
	move->dst[0] = ~0UL;
	ret = migrate_vma(&probe_to_ram_ops, vma, a + 1, b + 1, move->src, move->dst, move);
	check(r, !ret && !move->dst[0] && !move->moved, "an unaligned range is rounded down");
out:
	mmap_read_unlock(mm);
	kfree(move);
}

static void selftest_mirror(struct report *r, struct probe_file *f)
{
	static const struct hmm_mirror_ops no_sync;
	struct hmm_mirror *m = kcalloc(4, sizeof(*m), GFP_KERNEL);
	struct mm_struct *mm = f->mm;
	unsigned int i;
	bool good = true;

	if (!m)
		return;
	for (i = 0; i < 4; i++)
		m[i].ops = &my_mirror_ops;
	mmap_write_lock(mm);
	check(r, hmm_mirror_register(NULL, mm) == -EINVAL &&
	      hmm_mirror_register(&m[0], NULL) == -EINVAL, "a mirror of nothing is -EINVAL");
	m[3].ops = NULL;
	good = hmm_mirror_register(&m[3], mm) == -EINVAL;
	m[3].ops = &no_sync;
	good &= hmm_mirror_register(&m[3], mm) == -EINVAL;
	check(r, good, "so is one without callbacks");
	mmap_write_unlock(mm);
	hmm_mirror_unregister(&m[3]);
	kfree(m);
}

static long probe_selftest(struct probe_file *f, struct probe_cmd *cmd)
{
	struct report r = { .user = cmd->addr, .dma = &probe.pdev->dev };
	long ret = 0;

	r.text = (char *)get_zeroed_page(GFP_KERNEL);
	if (!r.text)
		return -ENOMEM;
	selftest_mirror(&r, f);
	selftest_device(&r);
	selftest_add(&r);
	selftest_migrate(&r, f->mm);
	if (probe.regions[0].devmem)
		selftest_pages(&r);
	probe_selftest_api(&r, f);
	cmd->moved = r.failed;
	if (copy_to_user(u64_to_user_ptr(cmd->ptr), r.text, r.len + 1))
		ret = -EFAULT;
	free_page((unsigned long)r.text);
	return ret;
}

/* ------------------------------------------------------------------------
 * /dev/hmm_probe*
 */

static int probe_open(struct inode *inode, struct file *file)
{
	struct probe_file *f = kzalloc(sizeof(*f), GFP_KERNEL);
	int ret;

	if (!f)
		return -ENOMEM;
	mutex_init(&f->lock);
	f->mm = current->mm;
	mmgrab(f->mm);
	f->mirror.ops = &my_mirror_ops;
	mmap_write_lock(f->mm);
	ret = hmm_mirror_register(&f->mirror, f->mm);
	if (!ret && PROBE_REGIONS > 1) {
		f->second.ops = second_mirror_ops;
		ret = hmm_mirror_register(&f->second, f->mm);
	}
	mmap_write_unlock(f->mm);
	if (ret) {
		hmm_mirror_unregister(&f->mirror);
		mmdrop(f->mm);
		kfree(f);
		return ret;
	}
	file->private_data = f;
	return 0;
}

static int probe_close(struct inode *inode, struct file *file)
{
	struct probe_file *f = file->private_data;

#if HMM_API >= 502
	hmm_range_unregister(&f->range);
#endif
	/* In the order in which they came, and once more. */
	hmm_mirror_unregister(&f->mirror);
	hmm_mirror_unregister(&f->mirror);
	hmm_mirror_unregister(&f->second);
	mmdrop(f->mm);
	kfree(f);
	return 0;
}

static long probe_info(struct probe_file *f, unsigned long arg)
{
	struct probe_info info = {
		.faults = atomic64_read(&probe.faults),
		.syncs = f->syncs,
		.released = f->released,
		.private_memory = probe.regions[0].devmem && !coherent_start,
		.regions = PROBE_REGIONS,
		.second_syncs = f->second_syncs,
		.api = HMM_API,
	};
	struct probe_region *region;

	spin_lock_irq(&probe.lock);
	for (region = probe.regions; region < probe.regions + PROBE_REGIONS; region++) {
		info.total += region->devmem ? region->npages : 0;
		info.used += region->used ? bitmap_weight(region->used, PROBE_PAGES) : 0;
	}
	info.handed_out = probe.handed_out;
	info.freed = probe.freed;
	spin_unlock_irq(&probe.lock);
	return copy_to_user((void __user *)arg, &info, sizeof(info)) ? -EFAULT : 0;
}

static long probe_ioctl(struct file *file, unsigned int code, unsigned long arg)
{
	struct probe_file *f = file->private_data;
	struct probe_cmd cmd;
	long ret;

	if (current->mm != f->mm && code != PROBE_INFO && code != PROBE_REMOVE)
		return -EPERM;
	if (code == PROBE_INFO)
		return probe_info(f, arg);
	if (code == PROBE_REMOVE) {
		probe_remove(arg);
		return 0;
	}
	if (copy_from_user(&cmd, (void __user *)arg, sizeof(cmd)))
		return -EFAULT;
	switch (code) {
	case PROBE_TO_DEVICE:
		ret = probe_migrate(f, &cmd, &probe_to_device_ops);
		break;
	case PROBE_TO_RAM:
		ret = probe_migrate(f, &cmd, &probe_to_ram_ops);
		break;
	case PROBE_READ:
		ret = probe_data(f, &cmd, false);
		break;
	case PROBE_WRITE:
		ret = probe_data(f, &cmd, true);
		break;
	case PROBE_SNAPSHOT:
		ret = probe_snapshot(f, &cmd, 0);
		break;
	case PROBE_LOOK:
		ret = probe_snapshot(f, &cmd, cmd.flags);
		break;
	case PROBE_FAIL:
		probe.fail = cmd.flags;
		ret = 0;
		break;
	case PROBE_SELFTEST:
		ret = probe_selftest(f, &cmd);
		break;
	default:
		return -ENOTTY;
	}
	if (copy_to_user((void __user *)arg, &cmd, sizeof(cmd)))
		return -EFAULT;
	return ret;
}

static const struct file_operations probe_fops = {
	.owner = THIS_MODULE,
	.open = probe_open,
	.release = probe_close,
	.unlocked_ioctl = probe_ioctl,
};

static struct miscdevice probe_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = PROBE_NAME,
	.fops = &probe_fops,
};

#ifdef PROBE_ON_BUS
static int probe_bind(struct platform_device *pdev)
{
	return probe_add(&pdev->dev);
}

static struct platform_driver probe_driver = {
	.probe = probe_bind,
	.driver = { .name = PROBE_NAME },
};
#endif

static void probe_undo(void)
{
	probe_remove(0);
#ifdef PROBE_ON_BUS
	platform_driver_unregister(&probe_driver);
#endif
	if (probe.hdev)
		hmm_device_put(probe.hdev);
	probe_release_memory();
	platform_device_unregister(probe.pdev);
}

static int __init probe_init(void)
{
	int ret;

	mutex_init(&probe.remove_lock);
	spin_lock_init(&probe.lock);
	probe.pdev = platform_device_register_simple(PROBE_NAME, PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(probe.pdev))
		return PTR_ERR(probe.pdev);
	ret = dma_coerce_mask_and_coherent(&probe.pdev->dev, DMA_BIT_MASK(64));
#ifdef PROBE_ON_BUS
	if (!ret) {
		ret = platform_driver_register(&probe_driver);
		if (!ret && !probe.pdev->dev.driver)
			ret = -ENODEV;
	}
#else
	if (!ret)
		ret = probe_add(NULL);
#endif
	if (!ret)
		ret = misc_register(&probe_misc);
	if (ret)
		probe_undo();
	return ret;
}

static void __exit probe_exit(void)
{
	misc_deregister(&probe_misc);
	probe_undo();
}

module_init(probe_init);
module_exit(probe_exit);

MODULE_DESCRIPTION("A driver written against HMM of Linux 4.14 to 5.2, for tests");
MODULE_LICENSE("GPL");
