// SPDX-License-Identifier: GPL-2.0
/*
 * Memory from malloc, worked on by a device: y += 3 * x. No copy in sight.
 *
 * Usage: svm [NODE]	(default: /dev/hmm_vram0)
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "c/drivers/vram/hmm_vram.h"

#define WORDS	(8UL << 20)

int main(int argc, char **argv)
{
	const char *node = argc > 1 ? argv[1] : "/dev/hmm_vram0";
	uint64_t *x = malloc(WORDS * 8), *y = malloc(WORDS * 8), wrong = 0;
	int gpu = open(node, O_RDWR | O_CLOEXEC);

	if (gpu < 0 || !x || !y) {
		perror(node);
		return 1;
	}
	for (uint64_t i = 0; i < WORDS; i++) {
		x[i] = i;
		y[i] = 1;
	}

	struct hmm_vram_command axpy = {
		.op = HMM_VRAM_AXPY, .dst = (uintptr_t)y, .src = (uintptr_t)x,
		.len = WORDS * 8, .value = 3,
	};
	struct hmm_vram_submit submit = {
		.size = sizeof(submit), .nr = 1, .commands = (uintptr_t)&axpy,
	};
	struct hmm_vram_wait wait = { .size = sizeof(wait), .timeout_ms = UINT64_MAX };

	if (ioctl(gpu, HMM_VRAM_SUBMIT, &submit)) {
		perror("submit");
		return 1;
	}
	wait.job = submit.job;
	if (ioctl(gpu, HMM_VRAM_WAIT, &wait) || wait.error) {
		fprintf(stderr, "the command failed: error %u\n", wait.error);
		return 1;
	}

	for (uint64_t i = 0; i < WORDS; i++)
		wrong += y[i] != 1 + 3 * i;
	printf("%lu words of malloc, %llu pages moved on %llu device faults, %lu wrong\n", WORDS,
	       (unsigned long long)wait.moved, (unsigned long long)wait.faults,
	       (unsigned long)wrong);
	return wrong != 0;
}
