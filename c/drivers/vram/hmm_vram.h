/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * User ABI of hmm_vram, a PCI device with memory and a DMA engine.
 *
 * What moves memory is the same as on every device: HMM_DMIRROR_INFO, _MOVE, _SNAPSHOT and
 * _RELEASE of hmm_dmirror.h work on /dev/hmm_vramN as well. This header adds the commands.
 *
 * A command works on plain pointers of the process: whatever malloc() returned, or the stack.
 * There is nothing to allocate, map or copy before; what the device touches first moves to its
 * memory, and comes home when the CPU touches it.
 *
 * Every structure starts with its own size; reserved fields and unknown flags must be zero. A
 * descriptor belongs to the process that opened it: any call through it from another address
 * space fails with EPERM. Once the device is gone every call fails with ENODEV.
 */
#ifndef HMM_VRAM_H
#define HMM_VRAM_H

#include <linux/types.h>
#include <linux/ioctl.h>

/* hmm_vram_command.op; words are 64 bits wide, arithmetic is modulo 2^64 */
enum {
	HMM_VRAM_FILL	= 1,	/* every word of dst = value */
	HMM_VRAM_COPY	= 2,	/* dst = src, which may not overlap */
	HMM_VRAM_AXPY	= 3,	/* every word of dst += value * that of src */
	HMM_VRAM_SUM	= 4,	/* the word at dst = sum of the words of src */
	HMM_VRAM_SORT	= 5,	/* the words of dst in rising order, unsigned */
};

/* The most bytes that HMM_VRAM_SORT takes. */
#define HMM_VRAM_SORT_MAX	(16ULL << 20)
/* The most commands in one submission. */
#define HMM_VRAM_COMMANDS_MAX	256
/* Submissions of one descriptor that are remembered, done or not. */
#define HMM_VRAM_JOBS		64

/**
 * struct hmm_vram_command - one thing to do
 * @op: HMM_VRAM_*
 * @reserved: 0
 * @dst: address that is written, a multiple of 8
 * @src: address that is read, a multiple of 8; 0 where there is none
 * @len: bytes, a multiple of 8, not 0
 * @value: for FILL and AXPY; otherwise 0
 */
struct hmm_vram_command {
	__u32 op;
	__u32 reserved;
	__u64 dst;
	__u64 src;
	__u64 len;
	__u64 value;
};

/* hmm_vram_submit.flags */
enum {
	/* The device works on pages where they are and moves none to its memory. */
	HMM_VRAM_STAY	= 1,
};

/**
 * struct hmm_vram_submit - queue commands, which are done one after the other
 * @size: (in) sizeof(struct hmm_vram_submit)
 * @nr: (in) number of commands, 1 to HMM_VRAM_COMMANDS_MAX
 * @commands: (in) address of as many struct hmm_vram_command
 * @flags: (in) HMM_VRAM_STAY or 0
 * @job: (out) number of the submission, for HMM_VRAM_WAIT; they count up from 1
 *
 * Submissions of one descriptor are done in order. If a command fails, the rest of its
 * submission is not done; the next submission is.
 *
 * EAGAIN: HMM_VRAM_JOBS submissions are waiting already.
 */
struct hmm_vram_submit {
	__u32 size;
	__u32 nr;
	__u64 commands;
	__u64 flags;
	__u64 job;
};
#define HMM_VRAM_SUBMIT		_IOWR('H', 0x60, struct hmm_vram_submit)

/**
 * struct hmm_vram_wait - wait until a submission is done
 * @size: (in) sizeof(struct hmm_vram_wait)
 * @error: (out) 0, or the errno of the command that failed
 * @job: (in) from HMM_VRAM_SUBMIT; one of the last HMM_VRAM_JOBS
 * @timeout_ms: (in) milliseconds to wait at most; 0 only looks
 * @done: (out) commands done
 * @fault_addr: (out) address that the failed command could not reach, if that was why
 * @faults: (out) device page faults
 * @moved: (out) pages that moved to the device for them
 * @video_pages: (out) pages that the device found in its own memory, each as often as it did
 * @ram_pages: (out) pages it worked on elsewhere
 * @dma_bytes: (out) bytes copied or cleared by the DMA engine for the commands themselves
 *
 * ETIMEDOUT: not done yet; ENOENT: no such job is remembered; EINTR.
 * @error may be EFAULT (no mapping), EACCES (a mapping that may not be written), EIO, ENODEV
 * (the device failed or was lost), ECANCELED (the descriptor was closed), ENOMEM, ESRCH.
 */
struct hmm_vram_wait {
	__u32 size;
	__u32 error;
	__u64 job;
	__u64 timeout_ms;
	__u64 done;
	__u64 fault_addr;
	__u64 faults;
	__u64 moved;
	__u64 video_pages;
	__u64 ram_pages;
	__u64 dma_bytes;
};
#define HMM_VRAM_WAIT		_IOWR('H', 0x61, struct hmm_vram_wait)

/* hmm_vram_status.engine */
enum {
	HMM_VRAM_ENGINE_DMA	= 0,	/* the device's queues move the bytes */
	HMM_VRAM_ENGINE_CPU	= 1,	/* a worker does */
	HMM_VRAM_ENGINE_LOST	= 2,	/* the device does not answer any more */
};

/**
 * struct hmm_vram_status - how the device is
 * @size: (in) sizeof(struct hmm_vram_status)
 * @engine: (out) HMM_VRAM_ENGINE_*
 * @resets: (out) of the engine since the driver was bound
 * @commands: (out) that the engine was given
 * @bytes: (out) in these
 * @lost_interrupts: (out) completions found without one
 * @odd_completions: (out) completions of commands that were not given
 */
struct hmm_vram_status {
	__u32 size;
	__u32 engine;
	__u64 resets;
	__u64 commands;
	__u64 bytes;
	__u64 lost_interrupts;
	__u64 odd_completions;
};
#define HMM_VRAM_STATUS		_IOWR('H', 0x62, struct hmm_vram_status)

#endif /* HMM_VRAM_H */
