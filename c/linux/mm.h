/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's <linux/mm.h>, as drivers written for 4.14 to 5.2 HMM find it, with a
 * get_page() that knows idle device pages.
 *
 * An idle device page used to have one reference, and get_page() made it two. Now it has
 * none, a reference of the pagemap belongs to every page in use, and the kernel gives that
 * back when the page is freed. get_page() on an idle page of ours takes it; everything else
 * goes to the kernel's get_page(). All code of a driver that finds this file is safe,
 * whether it includes <linux/hmm.h> or not.
 */
#ifndef HMM_LINUX_MM_H
#define HMM_LINUX_MM_H

#define get_page hmm_kernel_get_page
#include_next <linux/mm.h>
#undef get_page

bool hmm_devmem_page_take(struct page *page);

/**
 * get_page() - take a reference, of an idle device page, too
 * @page: a page in use, or an idle one of an hmm_devmem
 *
 * The lock of the page plays no part: lock_page() or trylock_page() may come before or
 * after.
 *
 * Context: any.
 */
static inline void get_page(struct page *page)
{
	if (unlikely(!page_count(page)) && hmm_devmem_page_take(page))
		return;
	hmm_kernel_get_page(page);
}

#endif /* HMM_LINUX_MM_H */
