// SPDX-License-Identifier: GPL-2.0
/*
 * Drives the core as the kernel side does: from C, through the generated
 * header, with nothing else known about it. tests/abi.rs calls hmm_abi_test().
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "port.h"

#define SHIFT HMM_ENTRY_SHIFT
#define V HMM_ENTRY_VALID
#define M HMM_ENTRY_MIGRATE
#define W HMM_ENTRY_WRITE
#define C HMM_ENTRY_COMPOUND
#define ENTRY(pfn, flags) ((unsigned long)(pfn) << SHIFT | (flags))
#define N 1024

static int failed;
static int passed;

#define CHECK(cond)                                                                \
	do {                                                                       \
		if (cond) {                                                        \
			passed++;                                                  \
		} else {                                                           \
			failed++;                                                  \
			fprintf(stderr, "tests/abi.c:%d: %s\n", __LINE__, #cond);  \
		}                                                                  \
	} while (0)

#define EQ(a, b)                                                                   \
	do {                                                                       \
		long long a_ = (long long)(a), b_ = (long long)(b);                \
		if (a_ == b_) {                                                    \
			passed++;                                                  \
		} else {                                                           \
			failed++;                                                  \
			fprintf(stderr, "tests/abi.c:%d: %s is %lld, not %s (%lld)\n", \
				__LINE__, #a, a_, #b, b_);                         \
		}                                                                  \
	} while (0)

static unsigned long src[N], dst[N];
static struct hmm_segment seg[N];
static struct hmm_plan plan;

static struct hmm_core_stats books(const struct hmm_core *core)
{
	struct hmm_core_stats s;

	memset(&s, 0xff, sizeof(s));
	hmm_core_stats(core, &s);
	EQ(s.free + s.claimed + s.resident + s.retired, s.total);
	return s;
}

static void test_init(void)
{
	size_t size = hmm_core_size(N, 2);
	char *mem = aligned_alloc(HMM_CORE_ALIGN, (size + 127) / 64 * 64);

	EQ(hmm_core_size(0, 1), 0);
	EQ(hmm_core_size(1, 0), 0);
	EQ(hmm_core_size(~0ull, 1), 0);
	EQ(hmm_core_size(1, ~0u), 0);
	CHECK(size > N / 8);
	memset(mem, 0x5a, size);
	EQ(hmm_core_init(NULL, size, N, 2), -EINVAL);
	EQ(hmm_core_init(mem + 8, size, N, 2), -EINVAL);
	EQ(hmm_core_init(mem, size - 1, N, 2), -EINVAL);
	EQ(hmm_core_init(mem, size, 0, 2), -EINVAL);
	EQ(mem[0], 0x5a);
	EQ(mem[size - 1], 0x5a);
	/* Garbage is not a region. */
	EQ(hmm_core_release((struct hmm_core *)mem, 0, 0, 1), -EINVAL);
	EQ(hmm_core_init(mem, size, N, 2), 0);
	EQ(books((struct hmm_core *)mem).free, N);
	/* On the other half of a 128-byte line as well. */
	memset(mem, 0x5a, size);
	EQ(hmm_core_init(mem + 64, size, N, 2), 0);
	EQ(books((struct hmm_core *)(mem + 64)).free, N);
	free(mem);
}

static struct hmm_core *region(u64 npages)
{
	size_t size = hmm_core_size(npages, 2);
	void *mem = aligned_alloc(HMM_CORE_ALIGN, (size + 63) / 64 * 64);

	EQ(hmm_core_init(mem, size, npages, 2), 0);
	return mem;
}

static void test_plan_to_device(void)
{
	struct hmm_core *core = region(N);
	struct hmm_core_stats s;
	unsigned int i;

	/* 0-2: a run; 3: not to move; 4: a hole; 5: elsewhere; 6: a hole. */
	memset(src, 0, sizeof(src));
	for (i = 0; i < 3; i++)
		src[i] = ENTRY(100 + i, V | M | (i == 1 ? W : 0));
	src[3] = ENTRY(103, V);
	src[4] = M | W;
	src[5] = ENTRY(500, V | M);
	src[6] = M;
	memset(dst, 0xff, sizeof(dst));
	EQ(hmm_core_plan_to_device(core, 0, src, dst, 8, seg, &plan), 0);
	EQ(plan.wanted, 6);
	EQ(plan.claimed, 6);
	EQ(plan.ncopy, 2);
	EQ(plan.nzero, 2);
	EQ(seg[0].src, 100);
	EQ(seg[0].npages, 3);
	EQ(seg[0].entry, 0);
	EQ(seg[0].status, 0);
	EQ(seg[0].dst, dst[0] >> SHIFT);
	EQ(seg[1].src, 500);
	EQ(seg[1].npages, 1);
	EQ(seg[1].entry, 5);
	EQ(seg[1].dst, dst[5] >> SHIFT);
	EQ(seg[7].entry, 4);
	EQ(seg[7].src, 0);
	EQ(seg[7].dst, dst[4] >> SHIFT);
	EQ(seg[6].entry, 6);
	EQ(dst[0] & 63, V);
	EQ(dst[1] & 63, V | W);
	EQ(dst[3], 0);
	EQ(dst[4] & 63, V | W);
	EQ(dst[6] & 63, V);
	EQ(dst[7], 0);
	CHECK(dst[8] == ~0ul);
	for (i = 1; i < 3; i++)
		EQ(dst[i] >> SHIFT, (dst[0] >> SHIFT) + i);
	s = books(core);
	EQ(s.claimed, 6);
	EQ(s.resident, 0);

	/* Two did not make it. */
	EQ(hmm_core_rollback(core, 1, dst[1] >> SHIFT, 2), 0);
	hmm_core_commit(core, 1, 4);
	s = books(core);
	EQ(s.claimed, 0);
	EQ(s.resident, 4);
	EQ(s.free, N - 4);
	EQ(hmm_core_rollback(core, 0, dst[1] >> SHIFT, 1), -EALREADY);
	EQ(hmm_core_release(core, 0, dst[0] >> SHIFT, 2), -EALREADY);
	s = books(core);
	EQ(s.resident, 3);
	EQ(s.free, N - 3);
	for (i = 4; i < 7; i++)
		EQ(hmm_core_release(core, 7777, dst[i] >> SHIFT, 1), 0);
	EQ(books(core).free, N);

	EQ(hmm_core_release(core, 0, N, 1), -EINVAL);
	EQ(hmm_core_release(core, 0, N - 1, 2), -EINVAL);
	EQ(hmm_core_release(core, 0, ~0ull, 2), -EINVAL);
	EQ(hmm_core_rollback(core, 0, 1, ~0ull), -EINVAL);
	EQ(hmm_core_release(core, 0, 0, 0), -EINVAL);
	EQ(books(core).free, N);
	free(core);
}

static void test_compound(void)
{
	struct hmm_core *core = region(N + 10);
	unsigned int i;

	memset(src, 0, sizeof(src));
	src[0] = ENTRY(1024, V | M | W | C);
	src[512] = M | C;
	EQ(hmm_core_plan_to_device(core, 0, src, dst, N, seg, &plan), 0);
	EQ(plan.claimed, N);
	EQ(plan.ncopy, 1);
	EQ(plan.nzero, 1);
	EQ(seg[0].npages, 512);
	EQ(seg[0].src, 1024);
	EQ(seg[N - 1].npages, 512);
	EQ(seg[N - 1].entry, 512);
	EQ(dst[0] & 63, V | W | C);
	EQ((dst[0] >> SHIFT) % 512, 0);
	EQ(dst[1], 0);
	EQ(dst[512] & 63, V | C);
	EQ(books(core).free_blocks, 0);

	/* No block left: as many singles as there are, and no error. */
	hmm_core_commit(core, 0, N);
	EQ(hmm_core_release(core, 1, dst[0] >> SHIFT, 500), 0);
	EQ(hmm_core_plan_to_device(core, 1, src, dst, 512, seg, &plan), 0);
	EQ(plan.wanted, 512);
	EQ(plan.claimed, 510);
	for (i = 0; i < 510; i++)
		CHECK((dst[i] & 63) == (V | W));
	EQ(dst[511], 0);
	EQ(books(core).free, 0);
	/* Full: everything is refused page by page, not as a whole. */
	EQ(hmm_core_plan_to_device(core, 1, src, dst, 512, seg, &plan), 0);
	EQ(plan.claimed, 0);
	EQ(plan.ncopy, 0);
	EQ(dst[0], 0);

	EQ(hmm_core_plan_to_device(core, 1, src, dst, 511, seg, &plan), -EINVAL);
	free(core);
}

static void test_plan_to_ram(void)
{
	u32 nseg = 77;
	unsigned int i;

	memset(src, 0, sizeof(src));
	memset(dst, 0, sizeof(dst));
	for (i = 0; i < 8; i++) {
		src[i] = ENTRY(5000 + i, V | M);
		dst[i] = ENTRY(i < 4 ? 10 + i : 90 + i, V);
	}
	dst[6] = 0;
	EQ(hmm_core_plan_to_ram(src, dst, 8, 5000, seg, &nseg), 0);
	EQ(nseg, 3);
	EQ(seg[0].src, 0);
	EQ(seg[0].dst, 10);
	EQ(seg[0].npages, 4);
	EQ(seg[1].src, 4);
	EQ(seg[1].dst, 94);
	EQ(seg[1].npages, 2);
	EQ(seg[2].entry, 7);
	nseg = 77;
	EQ(hmm_core_plan_to_ram(src, dst, 8, 5001, seg, &nseg), -EINVAL);
	EQ(nseg, 77);

	memset(src, 0, sizeof(src));
	memset(dst, 0, sizeof(dst));
	src[0] = ENTRY(5120, V | M | C);
	dst[0] = ENTRY(2048, V | C);
	src[512] = ENTRY(5632, V | M | C);
	for (i = 512; i < N; i++)
		dst[i] = i == 600 ? 0 : ENTRY(8000 + i, V);
	EQ(hmm_core_plan_to_ram(src, dst, N, 5000, seg, &nseg), 0);
	EQ(nseg, 3);
	EQ(seg[0].npages, 512);
	EQ(seg[1].src, 632);
	EQ(seg[1].npages, 88);
	EQ(seg[2].src, 632 + 89);
	EQ(seg[2].npages, 512 - 89);
	EQ(hmm_core_plan_to_ram(src, dst, N - 1, 5000, seg, &nseg), -EINVAL);
}

static void test_span(void)
{
	struct hmm_core *core = region(N + 10);
	u64 first = 1, npages = 1;

	EQ(hmm_core_next_span(core, 0, 512, &first, &npages), -ENOENT);
	EQ(first, 1);
	memset(src, 0, sizeof(src));
	src[0] = ENTRY(1024, V | M | C);
	EQ(hmm_core_plan_to_device(core, 0, src, dst, 512, seg, &plan), 0);
	EQ(hmm_core_next_span(core, 0, 512, &first, &npages), 0);
	EQ(first, dst[0] >> SHIFT);
	EQ(npages, 512);
	EQ(hmm_core_next_span(core, first + 500, 100, &first, &npages), 0);
	EQ(npages, 12);
	EQ(hmm_core_next_span(core, 0, 7, &first, &npages), 0);
	EQ(npages, 7);
	EQ(hmm_core_next_span(core, N + 10, 7, &first, &npages), -ENOENT);
	EQ(hmm_core_next_span(core, ~0ull, 7, &first, &npages), -ENOENT);
	EQ(hmm_core_next_span(core, 0, 0, &first, &npages), -EINVAL);
	free(core);
}

static void test_victim(void)
{
	struct hmm_core *core = region(N);
	u64 first = 1, npages = 1;

	EQ(hmm_core_victim(core, 512, &first, &npages), -ENOENT);
	EQ(first, 1);
	memset(src, 0, sizeof(src));
	src[0] = ENTRY(1024, V | M | C);
	src[512] = ENTRY(2048, V | M | C);
	EQ(hmm_core_plan_to_device(core, 0, src, dst, 1024, seg, &plan), 0);
	EQ(plan.claimed, 1024);
	/* Both were marked when they were handed out; the second is used again. */
	EQ(hmm_core_victim(core, 100, &first, &npages), 0);
	EQ(first % 512, 0);
	EQ(npages, 100);
	hmm_core_touch(core, first + 3, 1);
	EQ(hmm_core_victim(core, 512, &first, &npages), 0);
	EQ(npages, 512);
	hmm_core_touch(core, 0, ~0ull);
	EQ(hmm_core_victim(core, 7, &first, &npages), 0);
	EQ(npages, 7);
	EQ(hmm_core_victim(core, 0, &first, &npages), -EINVAL);
	free(core);
}

static void test_window(void)
{
	struct hmm_core *core = region(N);
	struct hmm_window w = { 0, 0 };
	u64 page = 1 << 20, most = 0;

	while (page < (1 << 20) + 8192) {
		hmm_core_window(core, 42, page, 1 << 20, (1 << 20) + 8192, 512, &w);
		CHECK(w.first <= page && page < w.first + w.npages);
		CHECK(w.npages <= 512);
		if (w.npages > most)
			most = w.npages;
		page = w.first + w.npages;
	}
	EQ(most, 512);
	hmm_core_window(core, 42, 5, 5, 6, 512, &w);
	EQ(w.first, 5);
	EQ(w.npages, 1);
	hmm_core_window(core, 42, 5, 6, 4, 512, &w);
	EQ(w.npages, 1);
	hmm_core_window(core, 42, 5, 0, 100, 0, &w);
	EQ(w.npages, 1);
	hmm_core_window(core, 42, 5, 0, 100, ~0u, &w);
	CHECK(w.npages >= 1 && w.npages <= 512);
	/* Scattered faults grow, but not in a block that goes to the device between them. */
	for (page = 0, most = 0; page < 100; page++) {
		hmm_core_went(core, 7, 1 << 21);
		hmm_core_window(core, 7, (1 << 21) + page * 239 % 512, 0, 1 << 22, 512, &w);
		if (page > 8 && w.npages > most)
			most = w.npages;
	}
	CHECK(most < 64);
	for (page = 0, most = 0; page < 100 && most < 512; page++) {
		hmm_core_window(core, 7, (1 << 21) + page * 239 % 512, 0, 1 << 22, 512, &w);
		most = w.npages;
	}
	EQ(most, 512);
	hmm_core_went(core, 7, ~0ull);
	free(core);
}

static void test_map(void)
{
	unsigned long *mem = aligned_alloc(8, 3 * 4096), *larger;
	struct hmm_map_run run = { 1, 2, 3, 4 };
	uint32_t npages = 3, more = 7;
	u64 page, end = 1ull << 45;

	EQ(hmm_core_map_init(NULL, 3), -EINVAL);
	EQ(hmm_core_map_init(mem, 2), -EINVAL);
	EQ(hmm_core_map_init(mem, ~0u), -EINVAL);
	memset(mem, 0, 3 * 4096);
	EQ(hmm_core_map_set(mem, 3, 0, 1, 1, &more), -EINVAL);
	EQ(hmm_core_map_next(mem, 3, 0, end, &run), -EINVAL);
	EQ(hmm_core_map_spare(mem, 3), 0);
	EQ(hmm_core_map_init(mem, 3), 0);
	CHECK(hmm_core_map_spare(mem, 3) >= 1);
	EQ(hmm_core_map_next(mem, 3, 0, end, &run), -ENOENT);
	EQ(run.first, 1);
	EQ(hmm_core_map_next(mem, 3, 0, end, NULL), -EINVAL);
	EQ(hmm_core_map_set(mem, 3, 5, 0, 1, &more), -EINVAL);
	EQ(hmm_core_map_set(mem, 3, 5, 1, 1u << 28, &more), -EINVAL);
	EQ(hmm_core_map_set(mem, 3, 1ull << 60, 1, 1, &more), -EINVAL);
	EQ(hmm_core_map_set(mem, 3, 5, 1, 1, NULL), -EINVAL);
	EQ(more, 7);
	/* Every other page, in memory that grows as it is asked for. */
	for (page = 0; page < 4000; page += 2) {
		while (hmm_core_map_set(mem, npages, (1ull << 34) + page, 1, 1 + page % 3, &more)) {
			CHECK(more >= 1 && more <= 50);
			larger = aligned_alloc(8, (npages + more) * 4096ul);
			memset(larger, 0xff, (npages + more) * 4096ul);
			memcpy(larger, mem, npages * 4096ul);
			free(mem);
			mem = larger;
			npages += more;
		}
	}
	EQ(hmm_core_map_next(mem, npages - 1, 0, end, &run), -EINVAL);
	for (page = 0; page < 4000; page += 2) {
		EQ(hmm_core_map_next(mem, npages, (1ull << 34) + page - !!page, end, &run), 0);
		EQ(run.first, (1ull << 34) + page);
		EQ(run.npages, 1);
		EQ(run.value, 1 + page % 3);
		EQ(run.reserved, 0);
	}
	EQ(hmm_core_map_set(mem, npages, 0, end, 0, &more), 0);
	EQ(hmm_core_map_next(mem, npages, 0, end, &run), -ENOENT);
	free(mem);
}

static void test_retire(void)
{
	struct hmm_core *core = region(N);
	struct hmm_core_stats s;

	memset(src, 0, sizeof(src));
	src[0] = ENTRY(77, V | M);
	EQ(hmm_core_plan_to_device(core, 0, src, dst, 1, seg, &plan), 0);
	hmm_core_commit(core, 0, 1);
	/* One that is resident, and one that is free: the same block or not. */
	EQ(hmm_core_retire(core, dst[0] >> SHIFT, 1), 0);
	EQ(hmm_core_retire(core, (dst[0] >> SHIFT) ^ 512, 1), 0);
	EQ(hmm_core_retire(core, (dst[0] >> SHIFT) ^ 512, 1), 0);
	s = books(core);
	EQ(s.retired, 1);
	EQ(s.resident, 1);
	EQ(s.free, N - 2);
	EQ(s.free_blocks, 0);
	EQ(hmm_core_release(core, 1, dst[0] >> SHIFT, 1), 0);
	EQ(hmm_core_release(core, 1, dst[0] >> SHIFT, 1), -EALREADY);
	EQ(books(core).retired, 2);
	/* All of a block, and what is no range. */
	EQ(hmm_core_retire(core, 0, N / 2), 0);
	EQ(books(core).retired, N / 2 + 1);
	EQ(hmm_core_retire(core, 0, 0), -EINVAL);
	EQ(hmm_core_retire(core, N, 1), -EINVAL);
	EQ(hmm_core_retire(core, N - 1, 2), -EINVAL);
	EQ(hmm_core_retire(core, 1, ~0ull), -EINVAL);
	EQ(hmm_core_retire(NULL, 0, 1), -EINVAL);
	EQ(books(core).free, N / 2 - 1);
	free(core);
}

static void test_null(void)
{
	struct hmm_core *core = region(N);
	struct hmm_core_stats s;
	struct hmm_window w = { 0, 0 };
	u64 a, b;
	u32 n;

	EQ(hmm_core_plan_to_device(NULL, 0, src, dst, 8, seg, &plan), -EINVAL);
	EQ(hmm_core_plan_to_device(core, 0, NULL, dst, 8, seg, &plan), -EINVAL);
	EQ(hmm_core_plan_to_device(core, 0, src, NULL, 8, seg, &plan), -EINVAL);
	EQ(hmm_core_plan_to_device(core, 0, src, dst, 8, NULL, &plan), -EINVAL);
	EQ(hmm_core_plan_to_device(core, 0, src, dst, 8, seg, NULL), -EINVAL);
	EQ(hmm_core_plan_to_device(core, 0, src, dst, 0, seg, &plan), -EINVAL);
	EQ(hmm_core_plan_to_device(core, 0, src, dst, HMM_PLAN_MAX + 1, seg, &plan), -EINVAL);
	EQ(hmm_core_plan_to_ram(NULL, dst, 8, 0, seg, &n), -EINVAL);
	EQ(hmm_core_plan_to_ram(src, NULL, 8, 0, seg, &n), -EINVAL);
	EQ(hmm_core_plan_to_ram(src, dst, 8, 0, NULL, &n), -EINVAL);
	EQ(hmm_core_plan_to_ram(src, dst, 8, 0, seg, NULL), -EINVAL);
	EQ(hmm_core_plan_to_ram(src, dst, 0, 0, seg, &n), -EINVAL);
	EQ(hmm_core_plan_to_ram(src, dst, HMM_PLAN_MAX + 1, 0, seg, &n), -EINVAL);
	EQ(hmm_core_rollback(NULL, 0, 0, 1), -EINVAL);
	EQ(hmm_core_release(NULL, 0, 0, 1), -EINVAL);
	EQ(hmm_core_next_span(NULL, 0, 1, &a, &b), -EINVAL);
	EQ(hmm_core_next_span(core, 0, 1, NULL, &b), -EINVAL);
	EQ(hmm_core_next_span(core, 0, 1, &a, NULL), -EINVAL);
	EQ(hmm_core_victim(NULL, 1, &a, &b), -EINVAL);
	EQ(hmm_core_victim(core, 1, NULL, &b), -EINVAL);
	EQ(hmm_core_victim(core, 1, &a, NULL), -EINVAL);
	hmm_core_touch(NULL, 0, 1);
	hmm_core_touch(core, 0, 0);
	hmm_core_commit(NULL, 0, 1);
	memset(&s, 0x11, sizeof(s));
	hmm_core_stats(NULL, &s);
	CHECK(s.total == 0x1111111111111111ull);
	hmm_core_stats(core, NULL);
	hmm_core_went(NULL, 0, 9);
	hmm_core_window(NULL, 0, 9, 0, 100, 64, &w);
	EQ(w.first, 9);
	EQ(w.npages, 1);
	hmm_core_window(core, 0, 9, 0, 100, 64, NULL);
	EQ(books(core).free, N);
	free(core);
}

/* Returns the number of failed checks; *done is the number of passed ones. */
int hmm_abi_test(int *done)
{
	test_init();
	test_plan_to_device();
	test_compound();
	test_plan_to_ram();
	test_span();
	test_victim();
	test_window();
	test_map();
	test_retire();
	test_null();
	*done = passed;
	return failed;
}

#ifdef HMM_ABI_MAIN
/*
 * By itself, with the kernel object in place of the host's library: what that asks
 * of a kernel is here. `make abi-asan` runs it under the sanitizers of gcc.
 */
asm(".globl __x86_return_thunk\n__x86_return_thunk: ret\n");

void hmm_port_warn(const char *file, unsigned int line)
{
	fprintf(stderr, "warning from %s:%u\n", file, line);
	failed++;
}

int main(void)
{
	int done, bad = hmm_abi_test(&done);

	printf("%d checks passed, %d failed\n", done, bad);
	return bad || done < 150;
}
#endif
