// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings of a page for the running task alone.
 * upstream: f3ba3c710ac5 ("mm/highmem: Provide kmap_local*"), 5.11
 * expect: implicit declaration of function .*kmap_local_page
 */
#include <linux/highmem.h>

void *probe(struct page *page);
void *probe(struct page *page)
{
	return kmap_local_page(page);
}
