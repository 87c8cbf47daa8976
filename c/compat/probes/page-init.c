// SPDX-License-Identifier: GPL-2.0
/*
 * An idle page has no reference; zone_device_page_init() gives it one, and one of the
 * pagemap. Before that an idle page had one reference for as long as it existed.
 * upstream: 27674ef6c73f ("mm: remove the extra ZONE_DEVICE struct page refcount"), 5.18, and
 * ef233450898f ("mm: free device private pages have zero refcount"), 6.1
 * expect: zone_device_page_init.? undeclared
 */
#include <linux/memremap.h>

void *probe(void);
void *probe(void)
{
	return zone_device_page_init;
}
