// SPDX-License-Identifier: GPL-2.0
/*
 * dev_pagemap_ops.page_free became folio_free.
 * upstream: 3a5a06554566 ("mm/zone_device: rename page_free callback to folio_free"), 6.19
 * expect: has no member named .*folio_free
 */
#include <linux/memremap.h>

void probe(struct dev_pagemap_ops *ops, void (*fn)(struct folio *));
void probe(struct dev_pagemap_ops *ops, void (*fn)(struct folio *))
{
	ops->folio_free = fn;
}
