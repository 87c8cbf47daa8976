// SPDX-License-Identifier: GPL-2.0
/*
 * zone_device_page_init() learned about the pagemap and large folios.
 * upstream: d245f9b4ab80 ("mm/zone_device: support large zone device private folios"), 6.19, and
 * 12b2285bf3d1 ("mm/zone_device: reinitialize large zone device private folios"), 6.19
 * expect: too many arguments to function|implicit declaration of function .*zone_device_page_init
 */
#include <linux/memremap.h>

void probe(struct page *page, struct dev_pagemap *pgmap);
void probe(struct page *page, struct dev_pagemap *pgmap)
{
	zone_device_page_init(page, pgmap, 9);
}
