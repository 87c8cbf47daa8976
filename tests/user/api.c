// SPDX-License-Identifier: GPL-2.0
/*
 * The HMM API of Linux 4.14 to 5.2, seen from user space: loads the probe drivers, which are
 * written against it, lets them move the memory of processes, and looks at every byte.
 *
 *	api [FILTER]	KTAP on standard output
 *	api --bench	nanoseconds for each page, of the driver for 4.19
 *
 * Every test runs in a process of its own, on every driver. Afterwards nothing may be left on
 * the device. In a machine whose reserved memory hmm_dmirror uses, the drivers get that memory
 * while they run. /dev/ram0 as swap and /dev/ram1 as a disk are used if they are there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/kmod/probe/probe.h"

#define PAGE	4096UL
#define HUGE	(2UL << 20)
#define N	50		/* pages of most tests: more than a batch is not needed */
#define LOOK_FAULT	1
#define LOOK_WRITE	2
#define LOOK_HOME	4

static const char *const drivers[] = { "hmm_probe414", "hmm_probe419", "hmm_probe420", "hmm_probe502" };
#define DRIVERS (sizeof(drivers) / sizeof(*drivers))

static unsigned long long coherent;	/* where reserved memory begins, or 0 */
static unsigned int driver;		/* under test */
static char why[256];			/* of the failure or the skip */
static unsigned int tests, failures;

static unsigned int loaded_ranges;	/* in /proc/iomem, with all drivers loaded */

enum { PASS, FAIL, SKIP };

static int reload(void);
static int unload(void);

static int stop(int verdict, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	return verdict;
}

#define need(condition, ...) \
	do { \
		if (!(condition)) { \
			char text_[160]; \
			snprintf(text_, sizeof(text_), __VA_ARGS__); \
			return stop(FAIL, "line %d: %s: %s", __LINE__, #condition, text_); \
		} \
	} while (0)
#define must(call) \
	do { \
		int must_ = (call); \
		if (must_) \
			return must_; \
	} while (0)

/* ------------------------------------------------------------------------
 * The device
 */

static int open_driver(unsigned int which)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/%s", drivers[which]);
	return open(path, O_RDWR | O_CLOEXEC);
}

static struct probe_info info(int fd)
{
	struct probe_info info = {};

	if (ioctl(fd, PROBE_INFO, &info))
		perror("# info");
	return info;
}

static bool is_private(void)
{
	return !coherent;
}

/* 0, or a negative errno. */
static int command(int fd, unsigned long code, struct probe_cmd *cmd)
{
	return ioctl(fd, code, cmd) ? -errno : 0;
}

static int to_device(int fd, void *p, size_t n, unsigned int order, uint64_t *moved)
{
	struct probe_cmd cmd = { .addr = (uintptr_t)p, .npages = n, .order = order };
	int ret = command(fd, PROBE_TO_DEVICE, &cmd);

	*moved += cmd.moved;
	return ret;
}

/* All of it: a page that somebody held for a moment gets more chances. */
static int all_to_device(int fd, void *p, size_t n, unsigned int order)
{
	uint64_t moved = 0;
	int i;

	for (i = 0; i < 50 && moved < n; i++) {
		if (to_device(fd, p, n, order, &moved))
			break;
		if (moved < n)
			usleep(1000);
	}
	need(moved == n, "moved %llu of %zu, errno %d", (unsigned long long)moved, n, errno);
	return PASS;
}

static int to_ram(int fd, void *p, size_t n)
{
	struct probe_cmd cmd = { .addr = (uintptr_t)p, .npages = n };

	return command(fd, PROBE_TO_RAM, &cmd);
}

static int device_read(int fd, void *p, size_t n, void *into)
{
	struct probe_cmd cmd = { .addr = (uintptr_t)p, .npages = n, .ptr = (uintptr_t)into };

	return command(fd, PROBE_READ, &cmd);
}

static int device_write(int fd, void *p, size_t n, const void *from)
{
	struct probe_cmd cmd = { .addr = (uintptr_t)p, .npages = n, .ptr = (uintptr_t)from };

	return command(fd, PROBE_WRITE, &cmd);
}

static int snapshot(int fd, void *p, size_t n, unsigned char *kinds, unsigned int look)
{
	struct probe_cmd cmd = { .addr = (uintptr_t)p, .npages = n, .ptr = (uintptr_t)kinds,
				 .flags = look };

	memset(kinds, 0, n);
	return command(fd, look ? PROBE_LOOK : PROBE_SNAPSHOT, &cmd);
}

static void fail(int fd, unsigned int what)
{
	struct probe_cmd cmd = { .flags = what };

	command(fd, PROBE_FAIL, &cmd);
}

/* How many of n pages are of this kind. */
static size_t count(const unsigned char *kinds, size_t n, unsigned char kind)
{
	size_t i, found = 0;

	for (i = 0; i < n; i++)
		found += (kinds[i] & 15) == kind;
	return found;
}

/* ------------------------------------------------------------------------
 * Data
 */

static void fill(void *p, size_t n, uint64_t seed)
{
	uint64_t *word = p;
	size_t i;

	for (i = 0; i < n * PAGE / 8; i++)
		word[i] = (seed + i) * 0x9e3779b97f4a7c15ULL;
}

/* Pages that are not as fill() left them. */
static size_t wrong(const void *p, size_t n, uint64_t seed)
{
	const uint64_t *word = p;
	size_t i, page, bad = 0;

	for (page = 0; page < n; page++) {
		for (i = page * PAGE / 8; i < (page + 1) * PAGE / 8; i++) {
			if (word[i] != (seed + i) * 0x9e3779b97f4a7c15ULL) {
				bad++;
				break;
			}
		}
	}
	return bad;
}

static void *map(size_t n)
{
	void *p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		exit(3);
	madvise(p, n * PAGE, MADV_NOHUGEPAGE);
	return p;
}

static sigjmp_buf on_bus;

static void bus(int signal)
{
	(void)signal;
	siglongjmp(on_bus, 1);
}

/* Whether reading *p ends in SIGBUS. */
static bool is_bus(volatile char *p)
{
	struct sigaction action = { .sa_handler = bus }, old;
	bool hit;

	sigaction(SIGBUS, &action, &old);
	hit = sigsetjmp(on_bus, 1);
	if (!hit)
		(void)*p;
	sigaction(SIGBUS, &old, NULL);
	return hit;
}

/* The child's verdict. */
static int child_ok(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return FAIL;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return stop(FAIL, "child ended with %#x", status);
	return PASS;
}

/* ------------------------------------------------------------------------
 * Tests
 */

static int there_and_back(int fd)
{
	unsigned char kinds[N];
	char *p = map(N), *copy = map(N);
	unsigned int order;

	for (order = 0; order < PROBE_ORDERS; order++) {
		fill(p, N, order);
		must(all_to_device(fd, p, N, order));
		need(!snapshot(fd, p, N, kinds, 0) && count(kinds, N, PROBE_DEVICE) == N,
		     "order %u: %zu on the device", order, count(kinds, N, PROBE_DEVICE));
		need(!device_read(fd, p, N, copy), "errno %d", errno);
		need(!wrong(copy, N, order), "the device reads it, order %u", order);
		need(!snapshot(fd, p, N, kinds, 0) && count(kinds, N, PROBE_DEVICE) == N,
		     "it is still there");
		/* Half by the CPU's touch, half on request. */
		need(!wrong(p, N / 2, order), "the CPU reads it, order %u", order);
		need(!to_ram(fd, p, N), "errno %d", errno);
		need(!snapshot(fd, p, N, kinds, 0) && count(kinds, N, PROBE_RAM) == N,
		     "order %u: %zu in RAM", order, count(kinds, N, PROBE_RAM));
		need(!wrong(p, N, order), "it is back, order %u", order);
	}
	return PASS;
}

static int device_writes(int fd)
{
	char *p = map(N), *data = map(N);

	fill(p, N, 1);
	fill(data, N, 2);
	need(!device_write(fd, p, N, data), "to RAM: errno %d", errno);
	need(!wrong(p, N, 2), "the CPU sees it");
	must(all_to_device(fd, p, N, 0));
	fill(data, N, 3);
	need(!device_write(fd, p, N, data), "to its own memory: errno %d", errno);
	need(!wrong(p, N, 3), "the CPU sees it");
	return PASS;
}

static int holes(int fd)
{
	char *p = map(N), *copy = map(N);
	unsigned char kinds[N];

	need(!snapshot(fd, p, N, kinds, 0) && count(kinds, N, PROBE_NONE) == N, "nothing there");
	must(all_to_device(fd, p, N, PROBE_GET_LOCK));
	memset(copy, 1, N * PAGE);
	need(!device_read(fd, p, N, copy), "errno %d", errno);
	need(!copy[0] && !memcmp(copy, copy + 1, N * PAGE - 1), "the device reads zeroes");
	need(!p[0] && !memcmp(p, p + 1, N * PAGE - 1), "so does the CPU");
	/* The zero page. */
	p = map(N);
	for (size_t i = 0; i < N; i++)
		need(!p[i * PAGE], "zero");
	must(all_to_device(fd, p, N, PROBE_TRYLOCK_GET));
	need(!p[0] && !memcmp(p, p + 1, N * PAGE - 1), "the zero page, too");
	return PASS;
}

static int after_fork(int fd)
{
	char *p = map(N), *data = map(N);
	pid_t pid;

	fill(p, N, 1);
	must(all_to_device(fd, p, N, 0));
	pid = fork();
	if (!pid) {
		/* The child outlives what it came from, without a file. */
		close(fd);
		if (wrong(p, N / 2, 1))
			_exit(1);
		usleep(50000);
		if (wrong(p, N, 1))
			_exit(2);
		fill(p, N, 9);
		_exit(wrong(p, N, 9) ? 3 : 0);
	}
	fill(data, N, 2);
	need(!device_write(fd, p, N, data), "errno %d", errno);
	need(!wrong(p, N, 2), "the parent has what the device wrote");
	must(child_ok(pid));
	need(!wrong(p, N, 2), "and still has it");
	return PASS;
}

/* A process fills the device and ends; what it has forked keeps the pages, without any file. */
static int outliving(int fd)
{
	int pipes[2], own;
	char *p, verdict = 9;
	pid_t pid;

	need(!pipe(pipes), "pipe");
	pid = fork();
	if (!pid) {
		own = open_driver(driver);
		p = map(N);
		fill(p, N, 4);
		if (all_to_device(own, p, N, PROBE_GET_LOCK))
			_exit(1);
		if (fork())
			_exit(0);
		close(own);
		close(fd);
		while (getppid() == pid)
			usleep(1000);
		usleep(30000);
		verdict = wrong(p, N, 4) ? 1 : 0;
		fill(p, N, 5);
		verdict |= wrong(p, N, 5) ? 2 : 0;
		_exit(write(pipes[1], &verdict, 1) != 1);
	}
	must(child_ok(pid));
	need(read(pipes[0], &verdict, 1) == 1 && !verdict, "verdict %d", verdict);
	return PASS;
}

static int fork_while_shared(int fd)
{
	char *p = map(N), *data = map(N);
	int pipes[2];
	char byte;
	pid_t pid;

	fill(p, N, 1);
	must(all_to_device(fd, p, N, 0));
	need(!pipe(pipes), "pipe");
	pid = fork();
	if (!pid) {
		close(pipes[1]);
		if (read(pipes[0], &byte, 1) != 0)
			_exit(4);
		_exit(wrong(p, N, 1) ? 1 : 0);
	}
	close(pipes[0]);
	/* Shared pages, on the device: the write has to break that. */
	fill(data, N, 2);
	need(!device_write(fd, p, N, data), "errno %d", errno);
	need(!wrong(p, N, 2), "written");
	close(pipes[1]);
	must(child_ok(pid));

	/* And migrate what is shared, in RAM. */
	fill(p, N, 3);
	pid = fork();
	if (!pid) {
		usleep(30000);
		_exit(wrong(p, N, 3) ? 1 : 0);
	}
	must(all_to_device(fd, p, N, 0));
	must(child_ok(pid));
	need(!wrong(p, N, 3), "shared pages were moved");
	return PASS;
}

static int changes_of_mapping(int fd)
{
	char *p = map(N), *copy = map(N), *q;
	unsigned char kinds[N];

	fill(p, N, 1);
	must(all_to_device(fd, p, N, 0));
	need(!mprotect(p, N * PAGE, PROT_READ), "mprotect");
	need(device_write(fd, p, N, copy) == -EPERM, "errno %d", errno);
	need(!device_read(fd, p, N, copy) && !wrong(copy, N, 1), "still readable");
	need(!mprotect(p, N * PAGE, PROT_NONE), "mprotect");
	need(device_read(fd, p, N, copy) == -EPERM, "errno %d", errno);
	need(!mprotect(p, N * PAGE, PROT_READ | PROT_WRITE), "mprotect");

	q = mremap(p, N * PAGE, N * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, map(N));
	need(q != MAP_FAILED, "mremap");
	need(!device_read(fd, q, N, copy) && !wrong(copy, N, 1), "the device reads it there");
	need(!snapshot(fd, q, N, kinds, 0) && count(kinds, N, PROBE_DEVICE) == N, "not moved");
	need(!munmap(q + 10 * PAGE, 10 * PAGE), "munmap in the middle");
	need(device_read(fd, q, N, copy) == -EFAULT, "errno %d", errno);
	need(!madvise(q + 30 * PAGE, 10 * PAGE, MADV_DONTNEED), "madvise");
	need(!q[30 * PAGE] && !memcmp(q + 30 * PAGE, q + 30 * PAGE + 1, 10 * PAGE - 1), "zeroes");
	need(!wrong(q, 10, 1), "before the hole");
	need(!wrong(q + 20 * PAGE, 10, 1 + 20 * PAGE / 8), "after the hole");
	need(!wrong(q + 40 * PAGE, 10, 1 + 40 * PAGE / 8), "behind that");
	return PASS;
}

static int huge_pages(int fd)
{
	char *p = map(3 * 512);
	char *q = (char *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));

	madvise(q, HUGE, MADV_HUGEPAGE);
	fill(q, 512, 5);
	must(all_to_device(fd, q, 512, PROBE_GET_LOCK));
	need(!wrong(q + 100 * PAGE, 100, 5 + 100 * PAGE / 8), "the middle");
	need(!wrong(q, 512, 5), "all of it");
	return PASS;
}

static int not_anonymous(int fd)
{
	char name[] = "/tmp/apiXXXXXX", *p, *copy = map(N);
	uint64_t moved = 0;
	int file = mkstemp(name);

	need(file >= 0, "mkstemp");
	fill(copy, N, 7);
	need(write(file, copy, N * PAGE) == (ssize_t)(N * PAGE), "write");
	p = mmap(NULL, N * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	need(p != MAP_FAILED, "mmap");
	memset(copy, 0, N * PAGE);
	need(!device_read(fd, p, N, copy) && !wrong(copy, N, 7), "a file is read");
	if (info(fd).total)
		need(!to_device(fd, p, N, 0, &moved) && !moved, "and stays: %llu moved",
		     (unsigned long long)moved);
	need(!wrong(p, N, 7), "intact");
	fill(copy, N, 8);
	need(!device_write(fd, p, N, copy) && !wrong(p, N, 8), "a private copy is written");
	unlink(name);
	close(file);

	p = mmap(NULL, N * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	need(p != MAP_FAILED, "mmap");
	need(!device_write(fd, p, N, copy) && !wrong(p, N, 8), "shared memory is written");
	return PASS;
}

/* A figure of /proc/vmstat. */
static unsigned long long vmstat(const char *name)
{
	unsigned long long value = 0;
	size_t length = strlen(name);
	FILE *file = fopen("/proc/vmstat", "r");
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, name, length) && line[length] == ' ')
			value = strtoull(line + length, NULL, 10);
	if (file)
		fclose(file);
	return value;
}

static int swapping(int fd)
{
	unsigned long long out = vmstat("pswpout"), in = vmstat("pswpin");
	char *p = map(4 * N), line[160];
	unsigned char kinds[N];
	uint64_t moved = 0;
	FILE *swaps = fopen("/proc/swaps", "r");
	int i;

	for (i = 0; swaps && fgets(line, sizeof(line), swaps); i++)
		;
	if (swaps)
		fclose(swaps);
	if (i < 2)
		return stop(SKIP, "no swap device: this kernel has no brd.ko");
	/* In swap: nothing that could move, and the device's access brings it in. */
	fill(p, 4 * N, 1);
	for (i = 0; i < 50 && vmstat("pswpout") < out + N; i++)
		need(!madvise(p, 4 * N * PAGE, MADV_PAGEOUT), "errno %d", errno);
	need(vmstat("pswpout") >= out + N, "only %llu pages went to swap", vmstat("pswpout") - out);
	need(!to_device(fd, p, N, PROBE_GET_LOCK, &moved), "errno %d", errno);
	need(moved < N, "%llu moved out of swap", (unsigned long long)moved);
	need(!snapshot(fd, p, N, kinds, LOOK_FAULT) && !count(kinds, N, PROBE_NONE), "all come");
	need(vmstat("pswpin") > in, "from swap");
	need(!wrong(p, 4 * N, 1), "as they were");
	must(all_to_device(fd, p, 4 * N, PROBE_GET_LOCK));
	/* On the device: nothing that could be swapped out. */
	need(!madvise(p, 4 * N * PAGE, MADV_PAGEOUT), "errno %d", errno);
	need(!snapshot(fd, p, N, kinds, 0) && count(kinds, N, PROBE_DEVICE) == N, "they stay");
	need(!to_ram(fd, p, 4 * N) && !wrong(p, 4 * N, 1), "home");
	/* All ways at once. */
	for (i = 0; i < 40; i++) {
		size_t at = i * 13 % (3 * N);

		madvise(p + at * PAGE, N * PAGE, MADV_PAGEOUT);
		need(!to_device(fd, p, 4 * N, i % PROBE_ORDERS, &moved), "errno %d", errno);
		need(!wrong(p + at * PAGE, 5, 1 + at * PAGE / 8), "round %d", i);
	}
	need(!wrong(p, 4 * N, 1), "intact");
	return PASS;
}

/* Disk I/O past the page cache, from pages and into pages that are on the device. */
static int direct_io(int fd)
{
	int disk = open("/dev/ram1", O_RDWR | O_DIRECT | O_CLOEXEC);
	char *p = map(N), *q = map(N);
	unsigned char kinds[N];

	if (disk < 0)
		return stop(SKIP, "no disk with O_DIRECT: this kernel has no brd.ko");
	fill(p, N, 7);
	must(all_to_device(fd, p, N, PROBE_GET_LOCK));
	need(pwrite(disk, p, N * PAGE, 0) == (ssize_t)(N * PAGE), "errno %d", errno);
	fill(q, N, 8);
	must(all_to_device(fd, q, N, PROBE_LOCK_GET));
	need(!snapshot(fd, q, N, kinds, 0) && count(kinds, N, PROBE_DEVICE) == N, "on the device");
	need(pread(disk, q, N * PAGE, 0) == (ssize_t)(N * PAGE), "errno %d", errno);
	need(!wrong(q, N, 7), "the CPU reads what was read");
	need(!device_read(fd, q, N, p) && !wrong(p, N, 7), "so does the device");
	close(disk);
	return PASS;
}

static int userfault(int fd)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	char *p = map(N);
	uint64_t moved = 0;
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0)
		return stop(SKIP, "no userfaultfd");
	fill(p, N / 2, 1);
	need(!ioctl(uffd, UFFDIO_API, &api), "api");
	reg.range.start = (uintptr_t)p;
	reg.range.len = N * PAGE;
	need(!ioctl(uffd, UFFDIO_REGISTER, &reg), "register");
	need(!to_device(fd, p, N, 0, &moved), "errno %d", errno);
	need(moved == N / 2, "only what is there: %llu", (unsigned long long)moved);
	need(!wrong(p, N / 2, 1), "intact");
	close(uffd);
	return PASS;
}

static int pinned_by_io(int fd)
{
	char *p = map(N), *copy = map(N);
	int pipes[2];
	size_t i;

	fill(p, N, 1);
	need(!pipe(pipes), "pipe");
	for (i = 0; i < 10; i++) {
		struct iovec v = { p + i * PAGE, PAGE };

		must(all_to_device(fd, p + i * PAGE, 1, 0));
		/* The kernel takes the page itself, wherever it is. */
		need(vmsplice(pipes[1], &v, 1, 0) == (ssize_t)PAGE, "vmsplice: errno %d", errno);
		need(read(pipes[0], copy + i * PAGE, PAGE) == (ssize_t)PAGE, "read");
	}
	need(!wrong(copy, 10, 1), "it carries the data");
	need(!wrong(p, N, 1), "intact");
	return PASS;
}

static int failing_to_device(int fd)
{
	static const unsigned int what[] = {
		PROBE_FAIL_ALLOC, PROBE_FAIL_COPY,
		PROBE_FAIL_ALLOC | PROBE_FAIL_SOME, PROBE_FAIL_COPY | PROBE_FAIL_SOME,
	};
	char *p = map(N), *copy = map(N);
	unsigned int i, order;

	for (i = 0; i < 4; i++) {
		for (order = 0; order < PROBE_ORDERS; order++) {
			uint64_t moved = 0;

			fill(p, N, i);
			fail(fd, what[i]);
			need(!to_device(fd, p, N, order, &moved), "errno %d", errno);
			fail(fd, 0);
			need(what[i] & PROBE_FAIL_SOME ? moved < N : !moved, "%llu moved",
			     (unsigned long long)moved);
			need(info(fd).used == moved, "%llu in use",
			     (unsigned long long)info(fd).used);
			need(!device_read(fd, p, N, copy) && !wrong(copy, N, i), "the device");
			need(!wrong(p, N, i), "the CPU");
			need(!to_ram(fd, p, N) && !info(fd).used, "home again");
		}
	}
	return PASS;
}

static int failing_to_ram(int fd)
{
	static const unsigned int what[] = { PROBE_FAIL_ALLOC, PROBE_FAIL_COPY, PROBE_FAIL_FAULT };
	char *p = map(N);
	unsigned int i;

	if (!is_private())
		return stop(SKIP, "the CPU reads coherent memory in place");
	fill(p, N, 1);
	for (i = 0; i < 3; i++) {
		must(all_to_device(fd, p, N, 0));
		fail(fd, what[i]);
		need(is_bus(p + 5 * PAGE), "what cannot be read back is SIGBUS, %u", i);
		fail(fd, 0);
		need(!wrong(p, N, 1), "and nothing is lost");
	}
	must(all_to_device(fd, p, N, 0));
	fail(fd, PROBE_FAIL_COPY | PROBE_FAIL_SOME);
	need(!to_ram(fd, p, N), "errno %d", errno);
	fail(fd, 0);
	need(!wrong(p, N, 1), "half of it fails, nothing is lost");
	return PASS;
}

static int lazy_driver(int fd)
{
	char *p = map(N);
	time_t begin = time(NULL);

	if (!is_private())
		return stop(SKIP, "no faults on coherent memory");
	fill(p, N, 1);
	must(all_to_device(fd, p, N, 0));
	fail(fd, PROBE_FAIL_LAZY);
	need(is_bus(p), "a driver that never moves a page is not asked for ever");
	fail(fd, 0);
	need(time(NULL) - begin < 20, "%ld seconds", (long)(time(NULL) - begin));
	need(info(fd).faults < 100000, "%llu faults", (unsigned long long)info(fd).faults);
	need(!wrong(p, N, 1), "nothing is lost");
	return PASS;
}

static int killed(int fd)
{
	int pipes[2];
	char byte;
	pid_t pid;
	int i;

	need(!pipe(pipes), "pipe");
	pid = fork();
	if (!pid) {
		char *p = map(N);
		int own = open_driver(driver);

		fill(p, N, 1);
		if (all_to_device(own, p, N, 0) || write(pipes[1], "", 1) != 1)
			_exit(1);
		pause();
	}
	need(read(pipes[0], &byte, 1) == 1, "read");
	need(info(fd).used == N, "%llu in use", (unsigned long long)info(fd).used);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	for (i = 0; i < 100 && info(fd).used; i++)
		usleep(10000);
	need(!info(fd).used, "%llu in use", (unsigned long long)info(fd).used);
	return PASS;
}

static int many_mirrors(int fd)
{
	static const unsigned char orders[][3] = {
		{ 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 },
	};
	char *p = map(N), *copy = map(N);
	unsigned int i, k;

	fill(p, N, 1);
	for (i = 0; i < 6; i++) {
		uint64_t before[3];
		int fds[3];

		for (k = 0; k < 3; k++) {
			fds[k] = open_driver(k == 2 ? (driver + 1) % DRIVERS : driver);
			need(fds[k] >= 0, "open");
			before[k] = info(fds[k]).syncs;
		}
		madvise(copy, PAGE, MADV_DONTNEED);
		copy[0] = 1;
		madvise(copy, PAGE, MADV_DONTNEED);
		for (k = 0; k < 3; k++)
			need(info(fds[k]).syncs > before[k], "mirror %u hears of it", k);
		for (k = 0; k < 3; k++) {
			need(!device_read(fds[orders[i][k]], p, N, copy) && !wrong(copy, N, 1), "reads");
			close(fds[orders[i][k]]);
		}
	}
	need(!device_read(fd, p, N, copy) && !wrong(copy, N, 1), "the first one still works");
	return PASS;
}

static int two_devices(int fd)
{
	int other = open_driver((driver + 1) % DRIVERS);
	char *p = map(N), *copy = map(N);
	unsigned char kinds[N];
	uint64_t moved = 0;

	need(other >= 0, "open");
	fill(p, N, 1);
	must(all_to_device(fd, p, N, 0));
	need(!device_read(other, p, N, copy), "the other reads: errno %d", errno);
	need(!wrong(copy, N, 1), "what is on the first");
	p = map(N);
	fill(p, N, 2);
	must(all_to_device(fd, p, N / 2, 0));
	must(all_to_device(other, p + N / 2 * PAGE, N / 2, 0));
	need(!snapshot(fd, p, N, kinds, 0) && count(kinds, N, PROBE_DEVICE) == N,
	     "pages of both are seen: %zu", count(kinds, N, PROBE_DEVICE));
	if (!is_private()) {
		/* Coherent memory can be read by everybody, so it goes from one to the other. */
		need(!to_device(other, p, N / 2, 0, &moved) && moved == N / 2,
		     "device to device: %llu", (unsigned long long)moved);
	}
	fill(copy, N, 3);
	need(!device_write(other, p, N, copy), "errno %d", errno);
	need(!wrong(p, N, 3), "the CPU sees what the other wrote");
	close(other);
	return PASS;
}

/* One driver with two ranges of memory and two mirrors of this process. */
static int two_regions(int fd)
{
	struct probe_info i = info(fd);
	uint64_t syncs[2] = { i.syncs, i.second_syncs };
	struct probe_cmd cmd = { .npages = N };
	char *p = map(2 * N), *copy = map(2 * N);
	unsigned char kinds[2 * N];

	if (i.regions < 2)
		return stop(SKIP, "this driver has one");
	fill(p, 2 * N, 1);
	must(all_to_device(fd, p, N, PROBE_GET_LOCK));
	cmd.addr = (uintptr_t)p + N * PAGE;
	cmd.region = 1;
	need(!command(fd, PROBE_TO_DEVICE, &cmd) && cmd.moved == N, "the second: %llu",
	     (unsigned long long)cmd.moved);
	need(info(fd).used == 2 * N, "%llu in use", (unsigned long long)info(fd).used);
	need(!snapshot(fd, p, 2 * N, kinds, 0) && count(kinds, 2 * N, PROBE_DEVICE) == 2 * N, "both");
	need(!device_read(fd, p, 2 * N, copy) && !wrong(copy, 2 * N, 1), "the device reads both");
	/* From one to the other, without a detour. */
	cmd.addr = (uintptr_t)p;
	need(!command(fd, PROBE_TO_DEVICE, &cmd) && cmd.moved == N, "device to device: %llu",
	     (unsigned long long)cmd.moved);
	need(!snapshot(fd, p, N, kinds, 0) && count(kinds, N, PROBE_DEVICE) == N, "still there");
	need(!device_read(fd, p, 2 * N, copy) && !wrong(copy, 2 * N, 1), "as it was");
	need(info(fd).syncs > syncs[0] && info(fd).second_syncs > syncs[1], "both mirrors hear of it");

	/* One goes, the other stays, with what it has. */
	cmd.region = 0;
	need(!command(fd, PROBE_TO_DEVICE, &cmd) && cmd.moved == N, "back to the first");
	need(!ioctl(fd, PROBE_REMOVE, 1), "errno %d", errno);
	/* 5.10 asks the driver's own handler to bring them home, and that takes the neighbours along. */
	need(!snapshot(fd, p, 2 * N, kinds, 0) && count(kinds + N, N, PROBE_RAM) == N &&
	     count(kinds, N, PROBE_DEVICE) > N - PROBE_WINDOW,
	     "%zu came home, and %zu of the others stayed", count(kinds + N, N, PROBE_RAM),
	     count(kinds, N, PROBE_DEVICE));
	need(!device_read(fd, p, 2 * N, copy) && !wrong(copy, 2 * N, 1), "the device reads it");
	need(!wrong(p, 2 * N, 1), "so does the CPU");
	cmd.region = 1;
	need(command(fd, PROBE_TO_DEVICE, &cmd) == -ENODEV, "errno %d", errno);
	cmd.region = 2;
	need(command(fd, PROBE_TO_DEVICE, &cmd) == -EINVAL, "errno %d", errno);
	close(fd);
	return reload();
}

static int asks_for_home(int fd)
{
	char *p = map(N);
	unsigned char kinds[N];

	fill(p, N, 1);
	must(all_to_device(fd, p, N, 0));
	need(!snapshot(fd, p, N, kinds, LOOK_FAULT) && count(kinds, N, PROBE_DEVICE) == N,
	     "a fault leaves device memory where it is");
	if (is_private()) {
		need(!snapshot(fd, p, N, kinds, LOOK_FAULT | LOOK_HOME) &&
		     count(kinds, N, PROBE_RAM) == N, "unless asked: %zu",
		     count(kinds, N, PROBE_RAM));
	}
	need(!wrong(p, N, 1), "intact");
	return PASS;
}

static int what_entries_say(int fd)
{
	unsigned char kinds[N];
	char *p = map(3), line[256];
	unsigned long start = 0, end = 0;
	FILE *maps;
	int ret;

	mprotect(p + PAGE, PAGE, PROT_NONE);
	munmap(p + 2 * PAGE, PAGE);
	p[0] = 1;
	need(!snapshot(fd, p, 1, kinds, 0) && kinds[0] == (PROBE_RAM | PROBE_WRITABLE),
	     "kind %#x", kinds[0]);
	need(snapshot(fd, p + PAGE, 1, kinds, 0) == -EPERM && kinds[0] == PROBE_NONE,
	     "no access: errno %d, kind %#x", errno, kinds[0]);
	need(snapshot(fd, p + 2 * PAGE, 1, kinds, 0) == -EFAULT, "nothing mapped: errno %d", errno);
	mprotect(p, PAGE, PROT_READ);
	need(!snapshot(fd, p, 1, kinds, 0) && kinds[0] == PROBE_RAM, "read only: %#x", kinds[0]);
	need(snapshot(fd, p, 1, kinds, LOOK_FAULT | LOOK_WRITE) == -EPERM, "errno %d", errno);
	p = map(N);
	need(!snapshot(fd, p, N, kinds, LOOK_FAULT | LOOK_WRITE) &&
	     count(kinds, N, PROBE_RAM) == N && (kinds[N - 1] & PROBE_WRITABLE),
	     "faulted in: %zu", count(kinds, N, PROBE_RAM));

	maps = fopen("/proc/self/maps", "r");
	while (maps && fgets(line, sizeof(line), maps) && !start)
		if (strstr(line, "[vvar"))
			sscanf(line, "%lx-%lx", &start, &end);
	if (maps)
		fclose(maps);
	if (!start)
		return PASS;
	ret = snapshot(fd, (void *)start, 1, kinds, 0);
	need(ret == (info(fd).api < 502 ? -EINVAL : -EFAULT) && kinds[0] == PROBE_SPECIAL,
	     "a special mapping: errno %d, kind %#x", errno, kinds[0]);
	return PASS;
}

static int shares_files(void *fds)
{
	int *slot = fds, *result = slot + 1;

	*slot = open_driver(driver);
	*result = *slot < 0;
	return 0;
}

/* A process that ends while its file lives on, in another process. */
static int release_is_called(int fd)
{
	int *slot = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *stack = map(16), byte[PAGE];
	int status;
	pid_t pid;

	(void)fd;
	pid = clone(shares_files, stack + 16 * PAGE, CLONE_FILES | SIGCHLD, slot);
	need(pid > 0, "clone");
	need(waitpid(pid, &status, 0) == pid && !slot[1], "the child opened it");
	need(info(slot[0]).released == (info(slot[0]).api >= 417), "released %llu times",
	     (unsigned long long)info(slot[0]).released);
	need(device_read(slot[0], stack, 1, byte) == -EPERM, "errno %d", errno);
	close(slot[0]);
	return PASS;
}

static volatile bool enough;

struct worker {
	int fd;
	char *p;
	int bad;
};

static void *mover(void *arg)
{
	struct worker *w = arg;
	uint64_t moved = 0;
	unsigned int i;

	for (i = 0; !enough; i++) {
		to_device(w->fd, w->p, N, i % PROBE_ORDERS, &moved);
		if (i % 4 == 3)
			to_ram(w->fd, w->p, N);
	}
	return NULL;
}

static void *toucher(void *arg)
{
	struct worker *w = arg;

	while (!enough)
		w->bad += wrong(w->p, N, 1) != 0;
	return NULL;
}

static void *device_reader(void *arg)
{
	struct worker *w = arg;
	char *copy = map(N);
	int ret;

	while (!enough) {
		ret = device_read(w->fd, w->p, N, copy);
		w->bad += ret ? ret != -EBUSY : wrong(copy, N, 1) != 0;
	}
	return NULL;
}

static int all_at_once(int fd)
{
	struct worker w[4] = {};
	pthread_t threads[4];
	char *p = map(N);
	unsigned int i;

	fill(p, N, 1);
	for (i = 0; i < 4; i++) {
		w[i].fd = fd;
		w[i].p = p;
	}
	pthread_create(&threads[0], NULL, mover, &w[0]);
	pthread_create(&threads[1], NULL, mover, &w[1]);
	pthread_create(&threads[2], NULL, toucher, &w[2]);
	pthread_create(&threads[3], NULL, device_reader, &w[3]);
	for (i = 0; i < 10; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(wrong(p, N, 1) ? 1 : 0);
		must(child_ok(pid));
		usleep(100000);
	}
	enough = true;
	for (i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	need(!w[2].bad && !w[3].bad, "%d wrong by the CPU, %d by the device", w[2].bad, w[3].bad);
	need(!wrong(p, N, 1), "intact");
	return PASS;
}

/* The driver's memory goes while it is full, shared after a fork. */
static int removal(int fd)
{
	char *p = map(4 * N), *copy = map(4 * N);
	unsigned char kinds[N];
	pid_t pid;

	fill(p, 4 * N, 1);
	must(all_to_device(fd, p, 4 * N, 0));
	pid = fork();
	if (!pid) {
		usleep(200000);
		_exit(wrong(p, 4 * N, 1) ? 1 : 0);
	}
	need(!ioctl(fd, PROBE_REMOVE, 0), "errno %d", errno);
	need(!info(fd).used, "%llu in use", (unsigned long long)info(fd).used);
	need(!snapshot(fd, p, N, kinds, 0) && count(kinds, N, PROBE_RAM) == N, "all at home");
	need(!wrong(p, 4 * N, 1), "intact");
	need(!device_read(fd, p, 4 * N, copy) && !wrong(copy, 4 * N, 1), "the mirror still works");
	must(child_ok(pid));
	close(fd);
	return reload();
}

/* No file is open, pages are on the device: the module goes. */
static int unloading(int fd)
{
	char *p = map(N);

	fill(p, N, 1);
	must(all_to_device(fd, p, N, 0));
	close(fd);
	must(unload());
	need(!wrong(p, N, 1), "intact");
	return reload();
}

/* How many ranges of memory the drivers have in /proc/iomem. */
static unsigned int ranges(void)
{
	FILE *file = fopen("/proc/iomem", "r");
	unsigned int found = 0;
	char line[160];

	while (file && fgets(line, sizeof(line), file))
		found += strstr(line, "hmm_device") || strstr(line, "hmm_probe");
	if (file)
		fclose(file);
	return found;
}

/* Memory that was given up is taken away once the last process that had a page of it is gone. */
static int all_reaped(void)
{
	unsigned int i;

	/* Coherent memory has no range of its own there; who reaps looks once a second. */
	if (!is_private())
		return sleep(3) ? FAIL : PASS;
	for (i = 0; i < 100 && ranges() >= loaded_ranges; i++)
		usleep(100000);
	need(i < 100, "%u ranges, the lost memory stays in /proc/iomem", ranges());
	return PASS;
}

/* A driver that cannot bring home: no zeroes, no endless wait. */
static int hopeless_removal(int fd)
{
	char *p = map(N);
	pid_t pid;

	if (!is_private())
		return stop(SKIP, "the CPU can always read coherent memory");
	need(!system("echo 1 >/sys/module/hmm_devmem/parameters/remove_patience"), "parameter");
	pid = fork();
	if (!pid) {
		int own = open_driver(driver);

		fill(p, N, 1);
		if (all_to_device(own, p, N, 0))
			_exit(1);
		fail(own, PROBE_FAIL_COPY);
		if (ioctl(own, PROBE_REMOVE, 0))
			_exit(2);
		if (!is_bus(p) || !is_bus(p + (N - 1) * PAGE))
			_exit(3);
		_exit(0);
	}
	must(child_ok(pid));
	system("echo 10 >/sys/module/hmm_devmem/parameters/remove_patience");
	must(all_reaped());
	close(fd);
	return reload();
}

/*
 * Who removes the memory is killed while it waits for pages that cannot come home: it ends at once, nobody
 * finds zeroes, and the memory goes when the last page has.
 */
static int killed_remover(int fd)
{
	int gate[2], ready[2], pages[2], status, i;
	char *p = map(N), byte = 0;
	pid_t owner, remover;

	need(!pipe(gate) && !pipe(ready) && !pipe(pages), "pipe");
	owner = fork();
	if (!owner) {
		int own = open_driver(driver);
		struct iovec v = { p, 10 * PAGE };

		fill(p, N, 1);
		if (all_to_device(own, p, N, PROBE_GET_LOCK))
			_exit(1);
		if (is_private())
			fail(own, PROBE_FAIL_LAZY);
		else if (vmsplice(pages[1], &v, 1, 0) != (ssize_t)(10 * PAGE))
			_exit(2);
		close(own);
		if (write(ready[1], "", 1) != 1 || read(gate[0], &byte, 1) != 1)
			_exit(3);
		/* What could not come home is lost, and says so, or was never lost. */
		for (i = 0; i < N; i++)
			if (!is_bus(p + i * PAGE) && wrong(p + i * PAGE, 1, 1 + i * PAGE / 8))
				_exit(4);
		_exit(0);
	}
	need(read(ready[0], &byte, 1) == 1, "the owner is not ready");
	remover = fork();
	if (!remover)
		_exit(ioctl(fd, PROBE_REMOVE, 0) ? 1 : 0);
	usleep(700000);
	need(!waitpid(remover, &status, WNOHANG), "the remover did not have to wait");
	kill(remover, SIGKILL);
	for (i = 0; i < 300 && !waitpid(remover, &status, WNOHANG); i++)
		usleep(10000);
	need(i < 300, "three seconds after kill -9 the remover is still there");
	need(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %#x", status);
	/* Lets the owner and the pinned pages go. */
	need(write(gate[1], "", 1) == 1, "write");
	close(pages[0]);
	close(pages[1]);
	must(child_ok(owner));
	close(fd);
	must(all_reaped());
	return reload();
}

static const struct {
	const char *name;
	int (*run)(int fd);
	bool memory;		/* needs device memory */
} list[] = {
	{ "there and back, in every order of lock and reference", there_and_back, true },
	{ "the device writes", device_writes, true },
	{ "holes and the zero page", holes, true },
	{ "after fork", after_fork, true },
	{ "a child outlives its parent", outliving, true },
	{ "pages shared by fork", fork_while_shared, true },
	{ "mprotect, mremap, munmap, madvise", changes_of_mapping, true },
	{ "huge pages", huge_pages, true },
	{ "files and shared memory", not_anonymous, false },
	{ "userfaultfd", userfault, true },
	{ "pages taken for I/O", pinned_by_io, true },
	{ "disk I/O past the page cache", direct_io, true },
	{ "swap", swapping, true },
	{ "failures on the way to the device", failing_to_device, true },
	{ "failures on the way home", failing_to_ram, true },
	{ "a driver that does nothing", lazy_driver, true },
	{ "kill", killed, true },
	{ "mirrors in any order", many_mirrors, false },
	{ "two devices in one process", two_devices, true },
	{ "two regions and two mirrors of one driver", two_regions, true },
	{ "device memory on request", asks_for_home, true },
	{ "what entries say", what_entries_say, false },
	{ "release is called", release_is_called, false },
	{ "all at once", all_at_once, true },
	{ "removal while in use", removal, true },
	{ "unloading while in use", unloading, true },
	{ "removal that cannot succeed", hopeless_removal, true },
	{ "the remover is killed", killed_remover, true },
};

/* ------------------------------------------------------------------------
 * Drivers come and go
 */

static int load(unsigned int which)
{
	char line[256];

	if (coherent)
		snprintf(line, sizeof(line), "insmod /modules/%s.ko coherent_start=%#llx coherent_size_mb=64",
			 drivers[which], coherent + which * (64ULL << 20));
	else
		snprintf(line, sizeof(line), "insmod /modules/%s.ko", drivers[which]);
	return system(line) ? stop(FAIL, "insmod %s", drivers[which]) : PASS;
}

static int unload(void)
{
	char line[64];
	int i;

	snprintf(line, sizeof(line), "rmmod %s", drivers[driver]);
	for (i = 0; i < 20; i++) {
		if (!system(line))
			return PASS;
		usleep(100000);
	}
	return stop(FAIL, "%s", line);
}

static int reload(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/%s", drivers[driver]);
	if (!access(path, F_OK))
		must(unload());
	return load(driver);
}

/* A word of a module's parameters, "" if it has no such thing. */
static void parameter(const char *name, char *value, size_t size)
{
	char path[96];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/module/hmm_dmirror/parameters/%s", name);
	file = fopen(path, "r");
	value[0] = 0;
	if (file && fgets(value, size, file))
		value[strcspn(value, "\n")] = 0;
	if (file)
		fclose(file);
}

/* Take the reserved memory, and give it back to who had it. */
static void lend(bool take)
{
	static char start[64], size[16];
	char line[256];

	if (take) {
		parameter("coherent_start", start, sizeof(start));
		parameter("coherent_size_mb", size, sizeof(size));
		coherent = strtoull(start, NULL, 0);
		if (coherent && system("rmmod hmm_dmirror"))
			printf("# hmm_dmirror stays\n");
	} else if (coherent) {
		snprintf(line, sizeof(line),
			 "insmod /modules/hmm_dmirror.ko devices=0 coherent_start=%s coherent_size_mb=%s",
			 start, size);
		if (system(line))
			printf("# hmm_dmirror does not come back\n");
	}
}

static void result(int verdict, const char *name)
{
	tests++;
	failures += verdict == FAIL;
	printf("%sok %u - %s%s %s\n", verdict == FAIL ? "not " : "", tests, name,
	       verdict == SKIP ? " # SKIP" : "", verdict == SKIP ? why : "");
	if (verdict == FAIL)
		printf("# %s\n", why);
	fflush(stdout);
}

/* The driver's own checks, one result for each line. */
static int selftest(int fd)
{
	char *text = map(4), *pages = map(4), *line;
	struct probe_cmd cmd = { .addr = (uintptr_t)pages, .npages = 4, .ptr = (uintptr_t)text };

	memset(pages, 1, 4 * PAGE);
	if (command(fd, PROBE_SELFTEST, &cmd))
		return stop(FAIL, "errno %d", errno);
	for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		if (strncmp(line, "ok", 2))
			return stop(FAIL, "%s", line);
	return PASS;
}

struct verdict {
	int verdict;
	char why[sizeof(why)];
};

/* In a process of its own, and what it leaves behind. */
static void run(const char *name, int (*test)(int fd), bool memory)
{
	struct verdict *v = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct probe_info after = {};
	struct timespec begin, end;
	char title[128];
	int fd, status, i;
	pid_t pid;

	snprintf(title, sizeof(title), "%s: %s", drivers[driver], name);
	v->verdict = FAIL;
	strcpy(v->why, "died");
	clock_gettime(CLOCK_MONOTONIC, &begin);
	pid = fork();
	if (!pid) {
		fd = open_driver(driver);
		if (fd < 0)
			v->verdict = stop(FAIL, "open: errno %d", errno);
		else if (memory && !info(fd).total)
			v->verdict = stop(SKIP, "this kernel has no such memory");
		else
			v->verdict = test(fd);
		strcpy(v->why, why);
		_exit(0);
	}
	for (i = 0; i < 600 && !waitpid(pid, &status, WNOHANG); i++)
		usleep(100000);
	if (i == 600) {
		kill(pid, SIGKILL);
		strcpy(v->why, "timed out");
		v->verdict = FAIL;
		waitpid(pid, &status, 0);
	}
	fd = open_driver(driver);
	for (i = 0; fd >= 0 && i < 100; i++) {
		after = info(fd);
		if (!after.used)
			break;
		usleep(10000);
	}
	if (fd >= 0) {
		fail(fd, 0);
		close(fd);
	}
	strcpy(why, v->why);
	if (v->verdict == PASS && (after.used || after.handed_out != after.freed))
		v->verdict = stop(FAIL, "%llu pages left on the device, %llu handed out, %llu freed",
				  (unsigned long long)after.used,
				  (unsigned long long)after.handed_out,
				  (unsigned long long)after.freed);
	result(v->verdict, title);
	clock_gettime(CLOCK_MONOTONIC, &end);
	if (end.tv_sec - begin.tv_sec >= 5)
		printf("# %ld seconds\n", (long)(end.tv_sec - begin.tv_sec));
	munmap(v, PAGE);
}

static void tell(const char *op, int round, uint64_t ns, uint64_t pages)
{
	printf("HMM-BENCH {\"driver\":\"%s\",\"size\":\"4K\",\"op\":\"%s\",\"round\":%d,\"ns\":%llu,\"pages\":%llu}\n",
	       drivers[driver], op, round, (unsigned long long)ns, (unsigned long long)pages);
}

/* Meant for a machine where a nanosecond is an instruction; for tests/vm/bench.py. */
static int bench(void)
{
	enum { PAGES = 4096 };
	uint64_t moved, ns[2];
	struct timespec t[3];
	int fd, round;
	char *p;

	driver = 1;
	if (load(driver))
		return 1;
	fd = open_driver(driver);
	p = map(PAGES);
	for (round = 0; round < 4; round++) {
		fill(p, PAGES, round);
		moved = 0;
		clock_gettime(CLOCK_MONOTONIC, &t[0]);
		to_device(fd, p, PAGES, PROBE_GET_LOCK, &moved);
		clock_gettime(CLOCK_MONOTONIC, &t[1]);
		to_ram(fd, p, PAGES);
		clock_gettime(CLOCK_MONOTONIC, &t[2]);
		ns[0] = (t[1].tv_sec - t[0].tv_sec) * 1000000000ULL + t[1].tv_nsec - t[0].tv_nsec;
		ns[1] = (t[2].tv_sec - t[1].tv_sec) * 1000000000ULL + t[2].tv_nsec - t[1].tv_nsec;
		if (moved != PAGES || wrong(p, PAGES, round))
			return 1;
		tell("to device", round, ns[0], PAGES);
		tell("to RAM by request", round, ns[1], PAGES);
	}
	close(fd);
	return unload();
}

int main(int argc, char **argv)
{
	const char *filter = argc > 1 ? argv[1] : "";
	unsigned int i, k;

	if (!strcmp(filter, "--bench"))
		return bench();
	printf("KTAP version 1\n");
	lend(true);
	for (k = 0; k < DRIVERS; k++) {
		char title[64];

		snprintf(title, sizeof(title), "%s loads", drivers[k]);
		result(load(k), title);
	}
	loaded_ranges = ranges();
	for (driver = 0; driver < DRIVERS; driver++) {
		run("the driver's own checks", selftest, false);
		for (i = 0; i < sizeof(list) / sizeof(*list); i++)
			if (strstr(list[i].name, filter))
				run(list[i].name, list[i].run, list[i].memory);
	}
	for (driver = 0; driver < DRIVERS; driver++) {
		char title[64];

		snprintf(title, sizeof(title), "%s unloads", drivers[driver]);
		result(unload(), title);
	}
	lend(false);
	printf("1..%u\n", tests);
	return failures ? 1 : 0;
}
