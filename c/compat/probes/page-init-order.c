// SPDX-License-Identifier: GPL-2.0
/*
 * zone_device_page_init() learned about the pagemap and large folios.
 * changed after 6.16 and before 7.2, read in the headers of Debian
 * expect: too many arguments to function|implicit declaration of function .*zone_device_page_init
 */
#include <linux/memremap.h>

void probe(struct page *page, struct dev_pagemap *pgmap);
void probe(struct page *page, struct dev_pagemap *pgmap)
{
	zone_device_page_init(page, pgmap, 9);
}
