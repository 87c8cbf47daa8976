// SPDX-License-Identifier: GPL-2.0
/*
 * MEMORY_DEVICE_COHERENT exists.
 * upstream: f25cbb7a95a2 ("mm: add zone device coherent type memory support"), 6.0
 * expect: MEMORY_DEVICE_COHERENT.? undeclared
 */
#include <linux/memremap.h>

int probe(void);
int probe(void)
{
	return MEMORY_DEVICE_COHERENT;
}
