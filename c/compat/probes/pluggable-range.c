// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel says which physical addresses it can map.
 * upstream: bca3feaa0764 ("mm/memory_hotplug: prevalidate the address range being added with
 * platform"), 5.12
 * expect: implicit declaration of function .*mhp_get_pluggable_range
 */
#include <linux/memory_hotplug.h>

unsigned long long probe(void);
unsigned long long probe(void)
{
	return mhp_get_pluggable_range(true).end;
}
