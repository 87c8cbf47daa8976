// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's maple tree, compiled as it is, with the headers that the kernel's own
 * tests of it use. The lock is left out, as it is on our side.
 */
#include "shared.h"
#include <stdlib.h>
#include <linux/slab.h>
#include <linux/init.h>

static void node_gone(struct rcu_head *head);
/* One thread, so nobody can be reading the node. */
#define kfree_rcu(node, member) node_gone(&(node)->member)

#include "../../../lib/maple_tree.c"
#include "peers.h"

static struct maple_tree tree;

static void node_gone(struct rcu_head *head)
{
	kmem_cache_free(maple_node_cache, container_of(head, struct maple_node, rcu));
}

/* What is given back by address alone is a node. */
void kfree(void *object)
{
	kmem_cache_free(maple_node_cache, object);
}

void maple_new(void)
{
	if (!maple_node_cache)
		maple_tree_init();
	mt_init_flags(&tree, MT_FLAGS_LOCK_EXTERN);
}

void maple_free(void)
{
	__mt_destroy(&tree);
}

void maple_set(unsigned long first, unsigned long last, unsigned long value)
{
	MA_STATE(mas, &tree, first, last);

	if (mas_store_gfp(&mas, xa_mk_value(value), GFP_KERNEL))
		abort();
}

unsigned long maple_get(unsigned long page)
{
	return xa_to_value(mtree_load(&tree, page));
}
