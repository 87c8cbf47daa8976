// SPDX-License-Identifier: GPL-2.0
/*
 * The owner of a pagemap hears of memory that went bad.
 * upstream: 33a8f7f2b3a3 ("pagemap,pmem: introduce ->memory_failure()"), 6.0
 * expect: has no member named .*memory_failure
 */
#include <linux/memremap.h>

int probe(const struct dev_pagemap_ops *ops);
int probe(const struct dev_pagemap_ops *ops)
{
	return ops->memory_failure(0, 0, 1, 0);
}
