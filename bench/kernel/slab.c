// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's object caches for its structures in a bench: a free list each, no
 * lock, no poison. Faster than the kernel's own, in favour of the peers.
 */
#include "shared.h"
#include <stdlib.h>
#include <linux/slab.h>
#include "peers.h"

#define CHUNK (1UL << 20)

static unsigned long taken;

unsigned long peer_bytes(void)
{
	return taken;
}

struct kmem_cache *__kmem_cache_create_args(const char *name, unsigned int size,
					    struct kmem_cache_args *args, unsigned int flags)
{
	struct kmem_cache *s = calloc(1, sizeof(*s));

	(void)name, (void)flags;
	s->align = args->align > sizeof(void *) ? args->align : sizeof(void *);
	s->size = (size + s->align - 1) / s->align * s->align;
	return s;
}

static void push(struct kmem_cache *s, void *object)
{
	*(void **)object = s->objs;
	s->objs = object;
}

void *kmem_cache_alloc_lru(struct kmem_cache *s, struct list_lru *lru, int flags)
{
	void *object = s->objs;

	(void)lru, (void)flags;
	if (!object) {
		char *chunk = aligned_alloc(CHUNK, CHUNK);

		for (unsigned long at = CHUNK / s->size; at--;)
			push(s, chunk + at * s->size);
		object = s->objs;
	}
	s->objs = *(void **)object;
	taken += s->size;
	return object;
}

void kmem_cache_free(struct kmem_cache *s, void *object)
{
	taken -= s->size;
	push(s, object);
}

void kmem_cache_free_bulk(struct kmem_cache *s, size_t n, void **objects)
{
	while (n--)
		kmem_cache_free(s, objects[n]);
}

/* A sheaf is only a number here: what it promises is on the free list or made then. */
struct slab_sheaf *kmem_cache_prefill_sheaf(struct kmem_cache *s, gfp_t gfp, unsigned int size)
{
	static struct slab_sheaf one;

	(void)gfp;
	one.cache = s;
	one.size = size;
	return &one;
}

int kmem_cache_refill_sheaf(struct kmem_cache *s, gfp_t gfp, struct slab_sheaf **sheaf,
			    unsigned int size)
{
	(void)s, (void)gfp;
	(*sheaf)->size = size;
	return 0;
}

void *kmem_cache_alloc_from_sheaf(struct kmem_cache *s, gfp_t gfp, struct slab_sheaf *sheaf)
{
	sheaf->size--;
	return kmem_cache_alloc_lru(s, NULL, gfp);
}

void kmem_cache_return_sheaf(struct kmem_cache *s, gfp_t gfp, struct slab_sheaf *sheaf)
{
	(void)s, (void)gfp;
	sheaf->size = 0;
}
