// SPDX-License-Identifier: GPL-2.0
/*
 * The driver of the README, in a machine: KTAP on standard output. Run as root, with
 * hmm_devmem loaded and /modules/hmm_minimal.ko at hand.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIZE	(8UL << 20)
#define WORDS	(SIZE / sizeof(uint64_t))

static int number;
static bool failed;

static bool check(bool good, const char *what)
{
	printf("%sok %d %s\n", good ? "" : "not ", ++number, what);
	failed |= !good;
	return good;
}

static void fill(uint64_t *word)
{
	for (size_t i = 0; i < WORDS; i++)
		word[i] = i * 0x9e3779b97f4a7c15;
}

static bool intact(const uint64_t *word)
{
	for (size_t i = 0; i < WORDS; i++)
		if (word[i] != i * 0x9e3779b97f4a7c15)
			return false;
	return true;
}

static bool has_private_memory(void)
{
	char caps[256] = "";
	int fd = open("/sys/module/hmm_devmem/parameters/caps", O_RDONLY);

	if (fd < 0 || read(fd, caps, sizeof(caps) - 1) < 0)
		caps[0] = '\0';
	close(fd);
	return strstr(caps, "private");
}

/* Bit 63 of a pagemap entry: in RAM; bit 62: elsewhere. A page on the device is elsewhere. */
static size_t pages_elsewhere(const void *start)
{
	size_t npages = SIZE / sysconf(_SC_PAGESIZE), n = 0;
	uint64_t *entry = calloc(npages, sizeof(*entry));
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (entry && pread(fd, entry, npages * sizeof(*entry),
			   (uintptr_t)start / sysconf(_SC_PAGESIZE) * sizeof(*entry)) > 0)
		for (size_t i = 0; i < npages; i++)
			n += entry[i] >> 62 & 1;
	close(fd);
	free(entry);
	return n;
}

int main(void)
{
	int module = open("/modules/hmm_minimal.ko", O_RDONLY);
	uint64_t *word;
	int fd, ret;

	printf("KTAP version 1\n");
	ret = syscall(SYS_finit_module, module, "", 0);
	if (!has_private_memory()) {
		printf("1..1\n");
		check(ret < 0 && errno == EOPNOTSUPP, "this kernel has no private memory: refused with EOPNOTSUPP");
		return failed;
	}
	printf("1..6\n");
	check(!ret, "it loads");

	word = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fd = open("/dev/hmm_minimal", O_WRONLY);
	fill(word);
	check(fd >= 0 && write(fd, word, SIZE) == (ssize_t)SIZE, "a buffer is written");
	check(pages_elsewhere(word) > SIZE / 4096 / 2, "and its pages are on the device");
	check(intact(word), "the CPU finds every byte");

	write(fd, word, SIZE);
	close(fd);
	check(!syscall(SYS_delete_module, "hmm_minimal", O_NONBLOCK), "it unloads with pages on the device");
	check(!pages_elsewhere(word) && intact(word), "which are all home, intact");
	return failed;
}
