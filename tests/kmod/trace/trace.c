// SPDX-License-Identifier: GPL-2.0
/*
 * Spoils the books of a region, once, while it is loaded: what nothing but a driver's mistake,
 * repeated at the worst moment, could do. The core finds it at the next claim and warns;
 * tests/vm/loading.py reads the stack trace that hmm_port_warn() leaves in the log.
 */
#include <linux/bits.h>
#include <linux/errno.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "core.h"
/* The real one: what is tested is its trace, not another's. */
#include "port.c"

#define PAGES	4096
#define WORDS	(HMM_BLOCK_PAGES / 64)	/* of the bitmap, for one block */

/*
 * The block that the first claim has opened is the one with 511 free frames. In the
 * bitmap, with a bit for each free frame of open blocks and none for whole ones, that is
 * easy to find; so the layout of the core's memory need not be known.
 */
static u64 *find_block(void *mem, size_t size, u64 index)
{
	u64 *word, *end = mem + size - WORDS * sizeof(u64);
	u64 first = ~(1ULL << index % 64);
	int i;

	for (word = mem; word <= end; word++) {
		for (i = 0; i < WORDS && word[i] == (i ? ~0ULL : first); i++)
			;
		if (i == WORDS)
			return word;
	}
	return NULL;
}

struct arrays {
	unsigned long src[PAGES], dst[PAGES];
	struct hmm_segment seg[PAGES];
};

/* Claims @n frames. A name of its own in the trace. */
static noinline int hmm_trace_claim(const struct hmm_core *core, struct arrays *a, u32 n)
{
	struct hmm_plan plan;
	int ret = hmm_core_plan_to_device(core, 0, a->src, a->dst, n, a->seg, &plan);

	/* Keeps the frame: a call in last place would be a jump. */
	barrier();
	return ret ?: plan.claimed == n ? 0 : -ENOSPC;
}

static int spoil(void *mem, size_t size, struct arrays *a)
{
	u64 index, block, *word;
	int i, ret;

	for (i = 0; i < PAGES; i++)
		a->src[i] = (i + 1UL) << HMM_ENTRY_SHIFT | HMM_ENTRY_VALID | HMM_ENTRY_MIGRATE;
	ret = hmm_trace_claim(mem, a, 1);
	if (ret)
		return ret;
	index = a->dst[0] >> HMM_ENTRY_SHIFT;
	block = index / HMM_BLOCK_PAGES;
	word = find_block(mem, size, index);
	if (!word)
		return -ENOENT;
	/* A frame of another block, whole, is "given back" once more. */
	word += block ? -(s64)WORDS : WORDS;
	word[1] |= BIT(5);
	/* Whole blocks are claimed in another way: a few frames at a time. */
	for (i = 1; i < PAGES && !ret; i += 15)
		ret = hmm_trace_claim(mem, a, 15);
	return ret;
}

static int __init hmm_trace_init(void)
{
	size_t size = hmm_core_size(PAGES, 1);
	struct arrays *arrays = kvzalloc(sizeof(*arrays), GFP_KERNEL);
	void *mem = kzalloc(ALIGN(size, HMM_CORE_ALIGN) + HMM_CORE_ALIGN, GFP_KERNEL);
	void *core = PTR_ALIGN(mem, HMM_CORE_ALIGN);
	int ret = -ENOMEM;

	if (mem && arrays) {
		ret = hmm_core_init(core, size, PAGES, 1);
		if (!ret)
			ret = spoil(core, size, arrays);
	}
	kvfree(arrays);
	kfree(mem);
	return ret;
}

static void __exit hmm_trace_exit(void)
{
}

module_init(hmm_trace_init);
module_exit(hmm_trace_exit);
MODULE_DESCRIPTION("A mistake that the core of hmm_devmem reports");
MODULE_LICENSE("GPL");
