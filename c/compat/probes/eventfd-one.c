// SPDX-License-Identifier: GPL-2.0
/*
 * eventfd_signal() counts by one.
 * upstream: 3652117f8548 ("eventfd: simplify eventfd_signal()"), 6.8
 * expect: too few arguments to function
 */
#include <linux/eventfd.h>

void probe(struct eventfd_ctx *ctx);
void probe(struct eventfd_ctx *ctx)
{
	eventfd_signal(ctx);
}
