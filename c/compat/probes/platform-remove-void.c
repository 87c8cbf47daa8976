// SPDX-License-Identifier: GPL-2.0
/*
 * platform_driver.remove returns nothing.
 * upstream: 0edb555a65d1 ("platform: Make platform_driver::remove() return void"), 6.11
 * expect: incompatible pointer type
 */
#include <linux/platform_device.h>

void probe(struct platform_driver *driver, void (*fn)(struct platform_device *));
void probe(struct platform_driver *driver, void (*fn)(struct platform_device *))
{
	driver->remove = fn;
}
