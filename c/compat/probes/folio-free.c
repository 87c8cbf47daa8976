// SPDX-License-Identifier: GPL-2.0
/*
 * dev_pagemap_ops.page_free became folio_free.
 * changed after 6.16 and before 7.2, read in the headers of Debian
 * expect: has no member named .*folio_free
 */
#include <linux/memremap.h>

void probe(struct dev_pagemap_ops *ops, void (*fn)(struct folio *));
void probe(struct dev_pagemap_ops *ops, void (*fn)(struct folio *))
{
	ops->folio_free = fn;
}
