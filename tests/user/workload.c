// SPDX-License-Identifier: GPL-2.0
/*
 * What a program does with a device that has its own memory: plain malloc, no special allocator.
 *
 *	workload [DEVICE [MIB]]
 *
 * Fills MIB MiB (64) from malloc with a pseudo-random pattern, moves them to the device, lets the
 * device sum them up and add to them in place, reads them back with the CPU and checks every byte.
 * Prints a line for people and one line `HMM-DEMO {json}`; exits with 1 if a byte is wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "c/drivers/dmirror/hmm_dmirror.h"

#define PAGE		4096UL
#define SUMMAND		UINT64_C(0x0123456789abcdef)

static int device;

static void die(const char *what)
{
	fprintf(stderr, "workload: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* The pattern: word number i, from nothing but i (the finaliser of splitmix64). */
static uint64_t pattern(uint64_t i)
{
	uint64_t z = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static struct hmm_dmirror_info info(void)
{
	struct hmm_dmirror_info i = { .size = sizeof(i) };

	if (ioctl(device, HMM_DMIRROR_INFO, &i))
		die("INFO");
	return i;
}

static uint64_t compute(uint32_t op, const void *start, size_t len, uint64_t operand,
			uint64_t *device_pages)
{
	struct hmm_dmirror_compute c = {
		.size = sizeof(c), .op = op, .addr = (uintptr_t)start, .len = len,
		.operand = operand,
	};

	if (ioctl(device, HMM_DMIRROR_COMPUTE, &c))
		die("COMPUTE");
	*device_pages = c.device_pages;
	return c.result;
}

static double milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
	const char *node = argc > 1 ? argv[1] : "/dev/hmm_dmirror0";
	unsigned long mib = argc > 2 ? strtoul(argv[2], NULL, 0) : 64;
	size_t len = mib << 20, words = len / sizeof(uint64_t), i;
	uint64_t expected = 0, sum, on_device, added_on_device, wrong_words = 0, wrong_bytes = 0;
	struct hmm_dmirror_info before, there, after;
	struct hmm_dmirror_move move = { .size = sizeof(move), .direction = HMM_DMIRROR_TO_DEVICE };
	double begin, moved, computed, end;
	unsigned char *block;
	uint64_t *data;

	device = open(node, O_RDWR | O_CLOEXEC);
	if (device < 0)
		die(node);
	/* malloc does not align to pages; the device works on whole ones. */
	block = malloc(len + PAGE);
	if (!block)
		die("malloc");
	data = (uint64_t *)(((uintptr_t)block + PAGE - 1) & ~(PAGE - 1));
	for (i = 0; i < words; i++) {
		data[i] = pattern(i);
		expected += data[i] * (2 * i + 1);
	}

	before = info();
	begin = milliseconds();
	move.addr = (uintptr_t)data;
	move.len = len;
	if (ioctl(device, HMM_DMIRROR_MOVE, &move))
		die("MOVE");
	moved = milliseconds();
	there = info();
	sum = compute(HMM_DMIRROR_CHECKSUM, data, len, 0, &on_device);
	compute(HMM_DMIRROR_ADD, data, len, SUMMAND, &added_on_device);
	computed = milliseconds();
	for (i = 0; i < words; i++) {
		uint64_t difference = data[i] ^ (pattern(i) + SUMMAND);

		for (; difference; difference >>= 8)
			wrong_bytes += (difference & 0xff) != 0;
	}
	end = milliseconds();
	after = info();
	if (sum != expected) {
		fprintf(stderr, "workload: the device's checksum is wrong\n");
		wrong_words++;
	}

	printf("%lu MiB of malloc: %" PRIu64 " pages to the device in %.0f ms, %" PRIu64
	       " computed in place, %" PRIu64 " wrong bytes\n",
	       mib, (uint64_t)move.moved, moved - begin, on_device, wrong_bytes);
	printf("HMM-DEMO {\"kind\": \"compute\", \"name\": \"malloc and compute\", \"mib\": %lu, "
	       "\"to_device\": %" PRIu64 ", \"to_device_us\": %.0f, "
	       "\"to_ram\": %" PRIu64 ", \"to_ram_us\": %.0f, \"faults\": %" PRIu64 ", "
	       "\"computed_on_device\": %" PRIu64 ", \"compute_us\": %.0f, \"verify_us\": %.0f, "
	       "\"wrong_bytes\": %" PRIu64 ", \"wrong_sums\": %" PRIu64 "}\n",
	       mib, (uint64_t)(there.to_device - before.to_device), (moved - begin) * 1e3,
	       (uint64_t)(after.to_ram_fault - there.to_ram_fault),
	       (double)(after.ns_to_ram - there.ns_to_ram) / 1e3,
	       (uint64_t)(after.cpu_faults - there.cpu_faults), on_device,
	       (computed - moved) * 1e3, (end - computed) * 1e3, wrong_bytes, wrong_words);
	if (move.moved != len / PAGE || on_device != len / PAGE || added_on_device != len / PAGE) {
		fprintf(stderr, "workload: not all pages went to the device\n");
		return 1;
	}
	free(block);
	return wrong_bytes || wrong_words;
}
