// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's gpu_buddy as a peer, compiled as it is: frames of 4K by index. The
 * caller takes the lock, as a driver does.
 */
#include "shared.h"
#include <stdlib.h>
#include <string.h>
#include <linux/slab.h>
#include "peers.h"

/* What it asks for and the headers of the kernel's own tests lack. */
#define __init
#define __exit
#define kmalloc(size, gfp)		malloc(size)
#define kfree(p)			free(p)
#define kcalloc(n, size, gfp)		calloc(n, size)
#define kmalloc_objs(type, n)		((typeof(type) *)malloc((n) * sizeof(type)))
#define kzalloc_objs(type, n)		((typeof(type) *)calloc(n, sizeof(type)))
#define KMEM_CACHE(type, flags) \
	kmem_cache_create(#type, sizeof(struct type), __alignof__(struct type), flags, NULL)
#define kmem_cache_zalloc(s, gfp)	memset(kmem_cache_alloc(s, gfp), 0, (s)->size)
#define kmem_cache_destroy(s)		free(s)
#define cond_resched()			do { } while (0)
#define IS_ALIGNED(x, a)		(((x) & ((typeof(x))(a) - 1)) == 0)
#define __ffs64(x)			((unsigned long)__builtin_ctzll(x))
#define hweight64(x)			((unsigned int)__builtin_popcountll(x))
#define range_overflows(start, size, max) ((start) >= (max) || (size) > (max) - (start))

#include "drivers/gpu/buddy.c"

struct buddy {
	struct gpu_buddy mm;
	/* As a driver has it in the page. */
	struct gpu_buddy_block **block;
};

struct buddy *buddy_new(unsigned long npages)
{
	struct buddy *buddy = calloc(1, sizeof(*buddy));

	if (!slab_blocks)
		gpu_buddy_module_init();
	buddy->block = calloc(npages, sizeof(*buddy->block));
	if (gpu_buddy_init(&buddy->mm, (u64)npages << 12, 4096))
		abort();
	return buddy;
}

/* The first frame of @npages together, or ~0. */
unsigned long buddy_claim(struct buddy *buddy, unsigned long npages)
{
	struct gpu_buddy_block *block;
	LIST_HEAD(blocks);
	unsigned long first;

	if (gpu_buddy_alloc_blocks(&buddy->mm, 0, buddy->mm.size, (u64)npages << 12,
				   (u64)npages << 12, &blocks, 0))
		return ~0ul;
	block = list_first_entry(&blocks, struct gpu_buddy_block, link);
	first = gpu_buddy_block_offset(block) >> 12;
	buddy->block[first] = block;
	return first;
}

void buddy_release(struct buddy *buddy, unsigned long first)
{
	gpu_buddy_free_block(&buddy->mm, buddy->block[first]);
}
