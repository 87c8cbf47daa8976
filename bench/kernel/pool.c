// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's gen_pool as a peer, compiled as it is but for its part about devices:
 * frames of 4K by index. It takes no lock.
 */
#include "shared.h"
#include <stdlib.h>
#include <string.h>
#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/slab.h>
#include "peers.h"

/* What it asks for and the headers of the kernel's own tests lack. */
#undef atomic_long_t
#undef spinlock_t
#undef atomic_long_read
#undef atomic_long_set
#define atomic_long_t			long
#define spinlock_t			int
#define dma_addr_t			phys_addr_t
#define atomic_long_read(p)		READ_ONCE(*(p))
#define atomic_long_set(p, v)		WRITE_ONCE(*(p), v)
#define atomic_long_sub(n, p)		((void)__atomic_sub_fetch(p, n, __ATOMIC_SEQ_CST))
#define atomic_long_add(n, p)		((void)__atomic_add_fetch(p, n, __ATOMIC_SEQ_CST))
#undef try_cmpxchg
#define try_cmpxchg(p, old, new) \
	__atomic_compare_exchange_n(p, old, new, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
#undef cpu_relax
#define cpu_relax()			__builtin_ia32_pause()
#define kmalloc_node(size, gfp, nid)	malloc(size)
#define vzalloc_node(size, nid)		calloc(1, size)
#define vfree(p)			free(p)
#define kfree(p)			free(p)
#define kfree_const(p)			free((void *)(p))
#define virt_to_phys(p)			((phys_addr_t)(unsigned long)(p))
#define CONFIG_ARCH_HAVE_NMI_SAFE_CMPXCHG 1
#undef spin_lock_init
#undef spin_lock
#undef spin_unlock
#define spin_lock_init(lock)		do { } while (0)
#define spin_lock(lock)			do { } while (0)
#define spin_unlock(lock)		do { } while (0)
#undef rcu_read_lock
#undef rcu_read_unlock
#define rcu_read_lock()			do { } while (0)
#define rcu_read_unlock()		do { } while (0)
#undef list_add_rcu
#undef list_for_each_entry_rcu
#define list_add_rcu			list_add
#define list_for_each_entry_rcu		list_for_each_entry

/* The first of @nr bits that are all clear, @start or later, aligned and @off beside that. */
static unsigned long bitmap_find_next_zero_area_off(unsigned long *map, unsigned long size,
						    unsigned long start, unsigned int nr,
						    unsigned long mask, unsigned long off)
{
	for (;;) {
		unsigned long at = find_next_zero_bit(map, size, start), end, set;

		at = ((at + off + mask) & ~mask) - off;
		end = at + nr;
		if (end > size)
			return end;
		set = nr == 1 ? end : find_next_bit(map, end, at);
		if (set >= end)
			return at;
		start = set + 1;
	}
}
#define bitmap_find_next_zero_area(map, size, start, nr, mask) \
	bitmap_find_next_zero_area_off(map, size, start, nr, mask, 0)

#include "genalloc-pool.c"

/* Addresses are not 0, which means failure. */
#define BASE (1UL << 40)

struct pool {
	struct gen_pool *gen;
};

struct pool *pool_new(unsigned long npages)
{
	struct pool *pool = malloc(sizeof(*pool));

	pool->gen = gen_pool_create(12, -1);
	if (gen_pool_add(pool->gen, BASE, npages << 12, -1))
		abort();
	return pool;
}

/* The first frame of @npages together, aligned to them, or ~0. */
unsigned long pool_claim(struct pool *pool, unsigned long npages)
{
	struct genpool_data_align data = { .align = npages << 12 };
	unsigned long at = npages == 1 ? gen_pool_alloc(pool->gen, 4096) :
		gen_pool_alloc_algo(pool->gen, npages << 12, gen_pool_first_fit_align, &data);

	return at ? (at - BASE) >> 12 : ~0UL;
}

void pool_release(struct pool *pool, unsigned long first, unsigned long npages)
{
	gen_pool_free(pool->gen, BASE + (first << 12), npages << 12);
}
