// SPDX-License-Identifier: GPL-2.0
/*
 * What C lends to the Rust core.
 */
#include <linux/bug.h>
#include <linux/printk.h>

#include "port.h"

/*
 * The core has found the impossible and cannot go on. The build proves that no such
 * path is reachable; should it be wrong, this says where before it stops.
 */
void hmm_port_panic(const char *file, unsigned int line)
{
	pr_emerg("impossible state in the core at %s:%u\n", file, line);
	BUG();
}

/* The core has refused something that must not happen, such as a double free. */
void hmm_port_warn(const char *file, unsigned int line)
{
	WARN(1, "hmm_devmem: refused at %s:%u\n", file, line);
}
