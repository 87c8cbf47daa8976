// SPDX-License-Identifier: GPL-2.0
/*
 * A page can be made writable without writing to it.
 * upstream: cdd591fc86e3 ("iov_iter: Introduce fault_in_iov_iter_writeable"), 5.16
 * expect: implicit declaration of function .*fault_in_safe_writeable
 */
#include <linux/pagemap.h>

unsigned long probe(char __user *at);
unsigned long probe(char __user *at)
{
	return fault_in_safe_writeable(at, 1);
}
