// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's interval tree, compiled as it is: one node of 64 bytes for each range,
 * found by the pages it has, changed by taking nodes out and putting them in.
 */
#include "shared.h"
#include <stdlib.h>
#include <linux/slab.h>
#include <linux/interval_tree.h>
#include "peers.h"

struct range {
	struct interval_tree_node node;
	unsigned long value;
};

static struct rb_root_cached root;
static struct kmem_cache *cache;

void interval_new(void)
{
	struct kmem_cache_args args = { .align = 64 };

	root = RB_ROOT_CACHED;
	if (!cache)
		cache = __kmem_cache_create_args("range", sizeof(struct range), &args, 0);
}

void interval_free(void)
{
	struct interval_tree_node *node;

	while ((node = interval_tree_iter_first(&root, 0, ~0UL))) {
		interval_tree_remove(node, &root);
		kmem_cache_free(cache, container_of(node, struct range, node));
	}
}

void interval_add(unsigned long first, unsigned long last, unsigned long value)
{
	struct range *range = kmem_cache_alloc(cache, 0);

	range->node.start = first;
	range->node.last = last;
	range->value = value;
	interval_tree_insert(&range->node, &root);
}

void interval_set(unsigned long first, unsigned long last, unsigned long value)
{
	struct interval_tree_node *node;

	while ((node = interval_tree_iter_first(&root, first, last))) {
		struct range had = *container_of(node, struct range, node);

		interval_tree_remove(node, &root);
		kmem_cache_free(cache, container_of(node, struct range, node));
		if (had.node.start < first)
			interval_add(had.node.start, first - 1, had.value);
		if (had.node.last > last)
			interval_add(last + 1, had.node.last, had.value);
	}
	interval_add(first, last, value);
}

unsigned long interval_get(unsigned long page)
{
	struct interval_tree_node *node = interval_tree_iter_first(&root, page, page);

	return node ? container_of(node, struct range, node)->value : 0;
}
