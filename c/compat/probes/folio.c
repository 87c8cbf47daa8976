// SPDX-License-Identifier: GPL-2.0
/*
 * Folios exist.
 * upstream: 7b230db3b8d3 ("mm: Introduce struct folio"), 5.16
 * expect: implicit declaration of function .*page_folio
 */
#include <linux/mm.h>
#include <linux/pagemap.h>

void probe(struct page *page);
void probe(struct page *page)
{
	folio_put(page_folio(page));
}
