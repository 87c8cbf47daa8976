// SPDX-License-Identifier: GPL-2.0
/*
 * The pagemap pointer moved from struct page to struct folio, page_pgmap() reads it.
 * upstream: "mm: allow compound zone device pages", 6.15
 * expect: implicit declaration of function .*page_pgmap
 */
#include <linux/memremap.h>
#include <linux/mm.h>

struct dev_pagemap *probe(const struct page *page);
struct dev_pagemap *probe(const struct page *page)
{
	return page_pgmap(page);
}
