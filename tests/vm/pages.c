// SPDX-License-Identifier: GPL-2.0
/*
 * How much does one page cost, each way? Runs inside a machine that counts instructions, against our driver and
 * against the kernel's own test driver, through the calls that both understand.
 *
 *	pages DEVICE NAME		what a page costs: the time of the whole operation, in virtual nanoseconds
 *	pages DEVICE NAME wall		how much several threads, or processes, get done in a while of real time
 *
 * Prints one line `HMM-BENCH {json}` per measurement.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "c/drivers/dmirror/hmm_dmirror.h"

enum { PAGE = 4096, HUGE = 2 << 20, BYTES = 64 << 20, PAGES = BYTES / PAGE, ROUNDS = 4 };

static int device;
static const char *driver;
static unsigned char *scratch;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/*
 * Tell who counts instructions from outside what is done from here on; 0: nothing of interest. A long nop with the number
 * in its operand, for instructions.c to find.
 */
#define MARK(n) case n: asm volatile(".byte 0x0f, 0x1f, 0x80, " #n ", 0x4d, 0x4d, 0x48" ::: "memory"); break

static void mark(int op)
{
	switch (op) {
	MARK(0); MARK(1); MARK(2); MARK(3); MARK(4); MARK(5); MARK(6); MARK(7); MARK(8);
	}
}

static void die(const char *what)
{
	fprintf(stderr, "pages: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void tell(const char *size, const char *op, int round, uint64_t ns, uint64_t pages)
{
	printf("HMM-BENCH {\"driver\":\"%s\",\"size\":\"%s\",\"op\":\"%s\",\"round\":%d,\"ns\":%llu,\"pages\":%llu}\n",
	       driver, size, op, round, (unsigned long long)ns, (unsigned long long)pages);
	fflush(stdout);
}

/* A fresh buffer, every page touched and marked with its number. */
static unsigned char *fill(int huge, const char *size, int round)
{
	unsigned char *room = mmap(NULL, BYTES + HUGE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned char *p = (unsigned char *)(((uintptr_t)room + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
	uint64_t start;

	if (room == MAP_FAILED)
		die("mmap");
	munmap(room, p - room);
	munmap(p + BYTES, HUGE - (p - room));
	if (madvise(p, BYTES, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) && huge)
		die("madvise");
	start = now();
	for (uint64_t i = 0; i < PAGES; i++)
		*(volatile uint64_t *)(p + i * PAGE) = i;
	tell(size, "first touch", round, now() - start, PAGES);
	return p;
}

static uint64_t call(unsigned long request, const unsigned char *p, uint64_t *pages, int op)
{
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)p, .ptr = (uintptr_t)scratch, .npages = PAGES,
	};
	uint64_t start = now(), ns;

	mark(op);
	if (ioctl(device, request, &cmd))
		die("ioctl");
	mark(0);
	ns = now() - start;
	*pages = cmd.cpages;
	return ns;
}

/* Our own call moves without handing the contents back; the test driver has no such call. */
static int move(int direction, const unsigned char *p, uint64_t *ns, uint64_t *pages, int op)
{
	struct hmm_dmirror_move arg = {
		.size = sizeof(arg), .direction = direction, .addr = (uintptr_t)p, .len = BYTES,
	};
	uint64_t start = now();

	mark(op);
	if (ioctl(device, HMM_DMIRROR_MOVE, &arg)) {
		mark(0);
		return -1;
	}
	mark(0);
	*ns = now() - start;
	*pages = arg.moved;
	return 0;
}

static uint64_t touch(const unsigned char *p, int scattered, int op)
{
	uint64_t start = now();

	mark(op);
	for (uint64_t i = 0; i < PAGES; i++) {
		/* An odd factor visits every page once, far from the one before. */
		uint64_t page = scattered ? i * 7919 % PAGES : i;

		if (*(volatile uint64_t *)(p + page * PAGE) != page) {
			fprintf(stderr, "pages: page %llu has wrong contents\n", (unsigned long long)page);
			exit(1);
		}
	}
	mark(0);
	return now() - start;
}

/* The marks are those of profile.py. What is done first fills caches of the kernel, and is not marked. */
static void measure(int huge, int round)
{
	const char *size = huge ? "2M" : "4K";
	const int first = round ? 1 + 4 * huge : 0;
	const int to_device = first, by_request = first ? first + 1 : 0, by_fault = first ? first + 2 : 0;
	uint64_t ns, read_ns, pages, done;
	unsigned char *p = fill(huge, size, round);

	ns = call(HMM_DMIRROR_MIGRATE_TO_DEV, p, &pages, 0);
	tell(size, "to device and read", round, ns, PAGES);
	read_ns = call(HMM_DMIRROR_READ, p, &done, 0);
	tell(size, "read", round, read_ns, PAGES);
	ns = call(HMM_DMIRROR_MIGRATE_TO_SYS, p, &pages, by_request);
	tell(size, "to RAM by request", round, ns, PAGES);
	touch(p, 0, 0);
	munmap(p, BYTES);

	for (int scattered = 0; scattered < 2; scattered++) {
		p = fill(huge, size, round);
		if (!move(HMM_DMIRROR_TO_DEVICE, p, &ns, &pages, scattered ? 0 : to_device))
			tell(size, "to device", round, ns, pages);
		else
			call(HMM_DMIRROR_MIGRATE_TO_DEV, p, &pages, scattered ? 0 : to_device);
		tell(size, scattered ? "to RAM by fault, scattered" : "to RAM by fault, in order", round,
		     touch(p, scattered, first ? by_fault + scattered : 0), PAGES);
		munmap(p, BYTES);
	}
}

/*
 * Several at once, each with a range of its own, there and back again and again.
 */
enum { PART = 1024, MOST = 4, WHILE_MS = 3000 };

static struct shared {
	atomic_int ready;
	atomic_int go;
	atomic_ullong pages;
} *shared;

static const char *node;

static void *back_and_forth(void *unused)
{
	struct hmm_dmirror_cmd cmd = { .npages = PART };
	int fd = open(node, O_RDWR);
	unsigned char *p = mmap(NULL, 2 * PART * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (fd < 0 || p == MAP_FAILED)
		die(node);
	madvise(p, 2 * PART * PAGE, MADV_NOHUGEPAGE);
	memset(p, 1, 2 * PART * PAGE);
	cmd.addr = (uintptr_t)p;
	cmd.ptr = (uintptr_t)p + PART * PAGE;
	atomic_fetch_add(&shared->ready, 1);
	while (!atomic_load(&shared->go))
		usleep(1000);
	while (atomic_load(&shared->go) == 1) {
		if (!ioctl(fd, HMM_DMIRROR_MIGRATE_TO_DEV, &cmd) && !ioctl(fd, HMM_DMIRROR_MIGRATE_TO_SYS, &cmd))
			atomic_fetch_add(&shared->pages, PART);
		else if (errno != EBUSY && errno != ENOENT)
			/*
			 * Memory that was not still for a second, or a page that did not go, because the kernel
			 * held it just then: the other processor empties its lists of new pages. Not counted.
			 */
			die("ioctl");
	}
	close(fd);
	munmap(p, 2 * PART * PAGE);
	return unused;
}

static void at_once(const char *what, int n, int round)
{
	int processes = *what == 'p', status, i;
	pthread_t threads[MOST];
	uint64_t start, pages;

	memset(shared, 0, sizeof(*shared));
	fflush(stdout);
	for (i = 0; i < n; i++) {
		if (!processes) {
			pthread_create(&threads[i], NULL, back_and_forth, NULL);
		} else if (!fork()) {
			back_and_forth(NULL);
			_exit(0);
		}
	}
	while (atomic_load(&shared->ready) < n)
		usleep(1000);
	atomic_store(&shared->go, 1);
	start = now();
	usleep(WHILE_MS * 1000);
	pages = atomic_load(&shared->pages);
	start = now() - start;
	atomic_store(&shared->go, 2);
	for (i = 0; i < n; i++) {
		if (!processes)
			pthread_join(threads[i], NULL);
		else if (wait(&status) < 0 || status)
			exit(1);
	}
	printf("HMM-BENCH {\"driver\":\"%s\",\"size\":\"4K\",\"op\":\"%d %s\",\"round\":%d,\"ns\":%llu,\"pages\":%llu}\n",
	       driver, n, what, round + 1, (unsigned long long)start, (unsigned long long)pages);
	fflush(stdout);
}

static int wall(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap");
	for (int round = 0; round < 3; round++) {
		for (int n = 1; n <= MOST; n *= 2)
			at_once("threads", n, round);
		at_once("processes", 1, round);
		at_once("processes", MOST, round);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 3 || argc > 4) {
		fprintf(stderr, "usage: pages DEVICE NAME [wall]\n");
		return 2;
	}
	node = argv[1];
	driver = argv[2];
	if (argc == 4)
		return wall();
	device = open(argv[1], O_RDWR);
	if (device < 0)
		die(argv[1]);
	scratch = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (scratch == MAP_FAILED)
		die("mmap");
	for (int huge = 0; huge < 2; huge++)
		for (int round = 0; round < ROUNDS; round++)
			measure(huge, round);
	return 0;
}
