/* SPDX-License-Identifier: GPL-2.0 */
/* What the benches call of the kernel's structures. Values are not 0; pages are inclusive. */
#ifndef BENCH_PEERS_H
#define BENCH_PEERS_H

/* Bytes of the objects that the structures have now. */
unsigned long peer_bytes(void);

void maple_new(void);
void maple_free(void);
void maple_set(unsigned long first, unsigned long last, unsigned long value);
unsigned long maple_get(unsigned long page);

void interval_new(void);
void interval_free(void);
void interval_add(unsigned long first, unsigned long last, unsigned long value);
void interval_set(unsigned long first, unsigned long last, unsigned long value);
unsigned long interval_get(unsigned long page);

struct buddy;
struct buddy *buddy_new(unsigned long npages);
unsigned long buddy_claim(struct buddy *buddy, unsigned long npages);
void buddy_release(struct buddy *buddy, unsigned long first);

struct pool;
struct pool *pool_new(unsigned long npages);
unsigned long pool_claim(struct pool *pool, unsigned long npages);
void pool_release(struct pool *pool, unsigned long first, unsigned long npages);

#endif
