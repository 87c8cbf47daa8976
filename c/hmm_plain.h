/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Device memory as Linux 4.14 to 5.2 had it: the driver gets struct pages and two
 * callbacks and does everything else by itself. Part of two views, which cannot be
 * had together because the names of <linux/hmm.h> have changed their meaning:
 *
 *   hmm_devmem.h	today's kernel, with the managed level
 *   linux/hmm.h	the view of a driver that was written for 4.14 to 5.2
 */
#ifndef HMM_PLAIN_H
#define HMM_PLAIN_H

#include <linux/completion.h>
#include <linux/device.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/percpu-refcount.h>

#include "migrate_vma.h"

struct hmm_devmem;

/* What hmm_devmem_ops.fault returns; it was int before 5.1. */
#ifndef hmm_devmem_fault_t
#define hmm_devmem_fault_t vm_fault_t
#endif

/**
 * struct hmm_devmem_ops - callbacks of a driver that manages its own pages
 * @free: the last reference to @page is gone and the page belongs to the driver
 *	again. Called in any context in which put_page() may run, interrupts and
 *	page-table locks included: it may not sleep.
 * @fault: the CPU touched @page, which is device private. The callback moves it (and, if
 *	it likes, its neighbours) to RAM with migrate_vma(), or with today's
 *	migrate_vma_setup() and friends and @page as fault_page. Called with the mmap lock
 *	held for read; may sleep. 0 lets the CPU try again; VM_FAULT_SIGBUS or VM_FAULT_OOM
 *	otherwise. A callback that goes on returning 0 without having moved the page gets
 *	its process a SIGBUS after a few seconds. Never called for coherent memory.
 *	At removal it is called once more for every private page still in use, by the
 *	remover, with a VMA that stands for that one page only.
 */
struct hmm_devmem_ops {
	void (*free)(struct hmm_devmem *devmem, struct page *page);
	hmm_devmem_fault_t (*fault)(struct hmm_devmem *devmem,
				    struct vm_area_struct *vma, unsigned long addr,
				    const struct page *page, unsigned int flags,
				    pmd_t *pmdp);
};

/**
 * struct hmm_devmem - one range of device memory with its struct pages
 * @completion: done once @ref has drained at teardown
 * @pfn_first: first page frame number
 * @pfn_last: one past the last page frame number
 * @resource: the physical range
 * @device: the device that was passed in; everything is undone with it
 * @ops: the driver's callbacks, NULL on the managed level
 * @ref: dying once teardown has begun; from then on nothing migrates here any more
 * @pagemap: handed to memremap_pages()
 */
struct hmm_devmem {
	struct completion completion;
	unsigned long pfn_first;
	unsigned long pfn_last;
	struct resource *resource;
	struct device *device;
	const struct hmm_devmem_ops *ops;
	struct percpu_ref ref;
	struct dev_pagemap pagemap;
};

struct hmm_devmem *hmm_devmem_add(const struct hmm_devmem_ops *ops,
				  struct device *device, unsigned long size);
struct hmm_devmem *hmm_devmem_add_resource(const struct hmm_devmem_ops *ops,
					   struct device *device,
					   struct resource *res);
void hmm_devmem_remove(struct hmm_devmem *devmem);

struct hmm_devmem *hmm_devmem_of_page(const struct page *page);
struct page *hmm_devmem_page_get(struct hmm_devmem *devmem, unsigned long pfn);
bool hmm_devmem_page_take(struct page *page);
void *hmm_devmem_pgmap_owner(const struct hmm_devmem *devmem);

/* Mark of a resource that hmm_devmem_add_resource() accepts; 4.19 had it in ioport.h. */
#ifndef IORES_DESC_DEVICE_PUBLIC_MEMORY
#define IORES_DESC_DEVICE_PUBLIC_MEMORY 0x68646d70
#endif

/**
 * hmm_devmem_page_set_drvdata() - keep one word of the driver's with a page
 * @page: a page of device memory
 * @data: the word; 0 right after the memory was added
 *
 * Context: any; the word is the driver's alone, allowed on an idle page, and kept
 * when the page is freed and handed out again.
 */
static inline void hmm_devmem_page_set_drvdata(struct page *page, unsigned long data)
{
	page->zone_device_data = (void *)data;
}

/**
 * hmm_devmem_page_get_drvdata() - the word kept with a page
 * @page: a page of device memory
 *
 * Context: any.
 * Return: what hmm_devmem_page_set_drvdata() stored last, 0 before that.
 */
static inline unsigned long hmm_devmem_page_get_drvdata(const struct page *page)
{
	return (unsigned long)page->zone_device_data;
}

/**
 * hmm_devmem_page_set_link() - chain an idle page, where drivers used page->s_mem
 * @page: an idle page of device memory
 * @link: whatever the driver's list of idle pages needs
 *
 * Context: any. The link is lost when the page is migrated to.
 */
static inline void hmm_devmem_page_set_link(struct page *page, void *link)
{
	set_page_private(page, (unsigned long)link);
}

/**
 * hmm_devmem_page_link() - the link of an idle page
 * @page: an idle page of device memory
 *
 * Context: any.
 * Return: what hmm_devmem_page_set_link() stored last; NULL for a page that was migrated to
 * since.
 */
static inline void *hmm_devmem_page_link(const struct page *page)
{
	return (void *)page_private(page);
}

/* ------------------------------------------------------------------------
 * A device that is nobody's: something to hang device memory on
 */

/**
 * struct hmm_device - a device without bus, driver and sysfs
 * @device: pass it to hmm_devmem_add()
 * @minor: 0 to 255, unique
 */
struct hmm_device {
	struct device device;
	unsigned int minor;
};

struct hmm_device *hmm_device_new(void *drvdata);
void hmm_device_put(struct hmm_device *hmm_device);

/* ------------------------------------------------------------------------
 * Migration in one call, see linux/migrate.h
 */

struct page *hmm_vma_alloc_locked_page(struct vm_area_struct *vma, unsigned long addr);

#endif /* HMM_PLAIN_H */
