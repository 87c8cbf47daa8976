// SPDX-License-Identifier: GPL-2.0
/*
 * migrate_vma_setup() is told which page a CPU fault is about.
 * upstream: 16ce101db85d ("mm/memory.c: fix race when faulting a device private page"), 6.1
 * expect: has no member named .*fault_page
 */
#include <linux/migrate.h>

struct page *probe(struct migrate_vma *args);
struct page *probe(struct migrate_vma *args)
{
	return args->fault_page;
}
