/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * User ABI of hmm_dmirror, a device made of RAM.
 *
 * The first half speaks the ioctl numbers and structures of the kernel's own
 * HMM test driver, so that programs written for that one run on this one. The
 * second half is ours: every structure there starts with its own size, reserved
 * fields must be zero, and a structure that is too small or has garbage in it
 * is refused with EINVAL before anything happens.
 *
 * A descriptor belongs to the process that opened it: any call through it
 * from another address space (after fork, or passed over a socket) fails with
 * EPERM. Once the device is gone every call fails with ENODEV.
 */
#ifndef HMM_DMIRROR_H
#define HMM_DMIRROR_H

#include <linux/types.h>
#include <linux/ioctl.h>

/**
 * struct hmm_dmirror_cmd - argument of the calls shared with the test driver
 * @addr: (in) user address the device works on, page aligned
 * @ptr: (in) user buffer: device data for READ and MIGRATE_TO_DEV is stored
 *	here, WRITE takes it from here, SNAPSHOT stores one byte per page
 * @npages: (in) number of pages
 * @cpages: (out) pages done
 * @faults: (out) device page faults taken
 */
struct hmm_dmirror_cmd {
	__u64 addr;
	__u64 ptr;
	__u64 npages;
	__u64 cpages;
	__u64 faults;
};

/* Device reads @npages at @addr into @ptr. */
#define HMM_DMIRROR_READ		_IOWR('H', 0x00, struct hmm_dmirror_cmd)
/* Device writes @npages from @ptr to @addr. */
#define HMM_DMIRROR_WRITE		_IOWR('H', 0x01, struct hmm_dmirror_cmd)
/* Move pages to the device, then let the device read them into @ptr. */
#define HMM_DMIRROR_MIGRATE_TO_DEV	_IOWR('H', 0x02, struct hmm_dmirror_cmd)
/* Move pages back to RAM. */
#define HMM_DMIRROR_MIGRATE_TO_SYS	_IOWR('H', 0x03, struct hmm_dmirror_cmd)
/* One byte per page into @ptr: where the page is and what the device may do. */
#define HMM_DMIRROR_SNAPSHOT		_IOWR('H', 0x04, struct hmm_dmirror_cmd)
/* Take pages from the CPU for the device alone, then let the device read them into @ptr. */
#define HMM_DMIRROR_EXCLUSIVE		_IOWR('H', 0x05, struct hmm_dmirror_cmd)
/* EPERM if the device still has a page of the range for itself alone. */
#define HMM_DMIRROR_CHECK_EXCLUSIVE	_IOWR('H', 0x06, struct hmm_dmirror_cmd)
/* Bring every page of the device's memory home, whoever owns it. */
#define HMM_DMIRROR_RELEASE		_IOWR('H', 0x07, struct hmm_dmirror_cmd)

/* @npages is HMM_DMIRROR_FLAG_*: how the next move through this descriptor shall go. */
#define HMM_DMIRROR_FLAGS		_IOWR('H', 0x08, struct hmm_dmirror_cmd)
/* As READ; the test driver takes another way to fault pages in, here it is the same. */
#define HMM_DMIRROR_READ_UNLOCKED	_IOWR('H', 0x09, struct hmm_dmirror_cmd)

/* No 2 MiB frame is to be had: huge pages move page by page, once. */
#define HMM_DMIRROR_FLAG_FAIL_ALLOC	(1ULL << 0)

/* Bytes stored by HMM_DMIRROR_SNAPSHOT: one place, ORed with the access. */
enum {
	HMM_DMIRROR_PROT_ERROR			= 0xff,
	HMM_DMIRROR_PROT_NONE			= 0x00,
	HMM_DMIRROR_PROT_READ			= 0x01,
	HMM_DMIRROR_PROT_WRITE			= 0x02,
	HMM_DMIRROR_PROT_PMD			= 0x04,
	HMM_DMIRROR_PROT_PUD			= 0x08,
	HMM_DMIRROR_PROT_ZERO			= 0x10,
	HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL	= 0x20,
	HMM_DMIRROR_PROT_DEV_PRIVATE_REMOTE	= 0x30,
	HMM_DMIRROR_PROT_DEV_COHERENT_LOCAL	= 0x40,
	HMM_DMIRROR_PROT_DEV_COHERENT_REMOTE	= 0x50,
};

/* hmm_dmirror_info.kind */
enum {
	HMM_DMIRROR_KIND_NONE		= 0,	/* mirror only, no memory of its own */
	HMM_DMIRROR_KIND_PRIVATE	= 1,
	HMM_DMIRROR_KIND_COHERENT	= 2,
};

/**
 * struct hmm_dmirror_info - the device and what it did for this process
 * @size: (in) sizeof(struct hmm_dmirror_info)
 * @kind: (out) HMM_DMIRROR_KIND_*
 * @page_size: (out) bytes in a page
 * @reserved: (in) 0
 * @frames_total: (out) device memory, in pages
 * @frames_free: (out) of these, free
 * @frames_claimed: (out) of these, picked by a migration still under way
 * @frames_resident: (out) of these, holding a page of some process
 * @to_device: (out) pages of this process moved to the device
 * @to_ram_request: (out) pages brought back because somebody asked
 * @to_ram_fault: (out) pages brought back because the CPU touched memory
 * @cpu_faults: (out) CPU faults served
 * @ns_to_device: (out) time spent moving to the device
 * @ns_to_ram: (out) time spent moving back, faults included
 * @frames_retired: (out) frames out of use for good, because their memory went bad
 *
 * The process counters are those of the caller's address space on this device
 * since it first opened it.
 */
struct hmm_dmirror_info {
	__u32 size;
	__u32 kind;
	__u32 page_size;
	__u32 reserved;
	__u64 frames_total;
	__u64 frames_free;
	__u64 frames_claimed;
	__u64 frames_resident;
	__u64 to_device;
	__u64 to_ram_request;
	__u64 to_ram_fault;
	__u64 cpu_faults;
	__u64 ns_to_device;
	__u64 ns_to_ram;
	__u64 frames_retired;
};
#define HMM_DMIRROR_INFO		_IOWR('H', 0x40, struct hmm_dmirror_info)

/* hmm_dmirror_move.direction */
enum {
	HMM_DMIRROR_TO_DEVICE	= 1,
	HMM_DMIRROR_TO_RAM	= 2,
};

/* Why a page was not moved: index into hmm_dmirror_move.skipped. */
enum {
	HMM_DMIRROR_SKIP_UNMAPPED	= 0,	/* no mapping at this address */
	HMM_DMIRROR_SKIP_VMA		= 1,	/* a mapping whose pages never move (device, hugetlb, DAX) */
	HMM_DMIRROR_SKIP_BUSY		= 2,	/* swapped out, pinned, locked, or already there */
	HMM_DMIRROR_SKIP_NO_MEMORY	= 3,	/* no free frame on the other side */
	HMM_DMIRROR_SKIP_COPY		= 4,	/* the copy failed; the page stayed where it was */
	HMM_DMIRROR_SKIP_REFUSED	= 5,	/* not anonymous, or changed while it was copied */
	HMM_DMIRROR_SKIP_HOLE		= 6,	/* never touched by the program; see MOVE_HOLES */
	HMM_DMIRROR_SKIP_NR		= 7,
};

/* hmm_dmirror_move.flags */
enum {
	/* To the device: give zeroed device pages to addresses never touched, too. */
	HMM_DMIRROR_MOVE_HOLES		= 1,
	/* To a full device: what it has not used for longest goes home to make room. */
	HMM_DMIRROR_MOVE_MAKE_ROOM	= 2,
};

/**
 * struct hmm_dmirror_move - move what can be moved, say what was not and why
 * @size: (in) sizeof(struct hmm_dmirror_move)
 * @direction: (in) HMM_DMIRROR_TO_DEVICE or HMM_DMIRROR_TO_RAM
 * @addr: (in) start, page aligned
 * @len: (in) bytes, a multiple of the page size, not 0
 * @flags: (in) HMM_DMIRROR_MOVE_*
 * @moved: (out) pages moved
 * @skipped: (out) pages not moved, by reason; the unused rest is 0
 * @ns: (out) time spent
 *
 * Holes in the range are no error. @moved + the sum of @skipped is the number of
 * pages in the range, unless the call was interrupted by a deadly signal (EINTR).
 */
struct hmm_dmirror_move {
	__u32 size;
	__u32 direction;
	__u64 addr;
	__u64 len;
	__u64 flags;
	__u64 moved;
	__u64 skipped[8];
	__u64 ns;
};
#define HMM_DMIRROR_MOVE		_IOWR('H', 0x41, struct hmm_dmirror_move)

/**
 * struct hmm_dmirror_start - begin a move, and go on without waiting for it
 * @size: (in) sizeof(struct hmm_dmirror_start)
 * @direction: (in) as in struct hmm_dmirror_move, like @addr, @len, @flags
 * @addr: (in) start, page aligned
 * @len: (in) bytes, a multiple of the page size, not 0
 * @flags: (in) HMM_DMIRROR_MOVE_*
 * @eventfd: (in) descriptor of an eventfd that counts up when the move is over, or -1
 * @reserved: (in) 0
 * @id: (out) names the move; never 0
 *
 * The descriptor polls readable while there is a result to fetch. Moves still under way when
 * it is closed are ended. EBUSY: 64 moves are under way, or their results not fetched. EBADF:
 * @eventfd is none.
 */
struct hmm_dmirror_start {
	__u32 size;
	__u32 direction;
	__u64 addr;
	__u64 len;
	__u64 flags;
	__s32 eventfd;
	__u32 reserved;
	__u64 id;
};
#define HMM_DMIRROR_START		_IOWR('H', 0x44, struct hmm_dmirror_start)

/**
 * struct hmm_dmirror_result - what came of a move that was started
 * @size: (in) sizeof(struct hmm_dmirror_result)
 * @error: (out) 0, or the errno with which HMM_DMIRROR_MOVE would have failed
 * @id: (in) which move, 0 for whichever was over first; (out) which it is
 * @moved: (out) as in struct hmm_dmirror_move, like @skipped and @ns
 * @skipped: (out) pages not moved, by reason; the unused rest is 0
 * @ns: (out) time from start to end
 *
 * A result is fetched once. EAGAIN: the move is not over; ENOENT: there is none.
 */
struct hmm_dmirror_result {
	__u32 size;
	__u32 error;
	__u64 id;
	__u64 moved;
	__u64 skipped[8];
	__u64 ns;
};
#define HMM_DMIRROR_RESULT		_IOWR('H', 0x45, struct hmm_dmirror_result)

/* hmm_dmirror_hint.hint; the device's own words for what hmm_devmem.h says of them */
enum {
	HMM_DMIRROR_HINT_NONE		= 0,
	/* The device uses it most: its faults move it there, a touch of the CPU takes little back. */
	HMM_DMIRROR_HINT_PREFER_DEVICE	= 1,
	/* The CPU uses it most: a touch takes back all of it within 2 MiB. Not with the former. */
	HMM_DMIRROR_HINT_PREFER_RAM	= 2,
	/* Seldom written: the device reads it where it is, and may not write without a fault. */
	HMM_DMIRROR_HINT_READ_MOSTLY	= 4,
};

/**
 * struct hmm_dmirror_hint - what the program says about a range of its memory
 * @size: (in) sizeof(struct hmm_dmirror_hint)
 * @hint: SET: (in) HMM_DMIRROR_HINT_*, in place of what was said before; GET: (out) what was
 *	said about @addr, (in) 0
 * @addr: (in) start, page aligned
 * @len: (in) bytes, a multiple of the page size, not 0; GET: (out) how much of the range, from
 *	@addr on, the same was said about
 *
 * A hint is for the caller's address space on this device. It ends with the mapping that it was
 * given for, and with the last descriptor of the device. SET fails with EFAULT if a part of the
 * range is not mapped; nothing is changed when it fails.
 */
struct hmm_dmirror_hint {
	__u32 size;
	__u32 hint;
	__u64 addr;
	__u64 len;
};
#define HMM_DMIRROR_SET_HINT		_IOWR('H', 0x46, struct hmm_dmirror_hint)
#define HMM_DMIRROR_GET_HINT		_IOWR('H', 0x47, struct hmm_dmirror_hint)

/* hmm_dmirror_compute.op */
enum {
	HMM_DMIRROR_CHECKSUM	= 1,	/* result = sum of all 64-bit words, times odd weights, see below */
	HMM_DMIRROR_ADD		= 2,	/* every 64-bit word += operand */
};

/**
 * struct hmm_dmirror_compute - let the device work on memory in place
 * @size: (in) sizeof(struct hmm_dmirror_compute)
 * @op: (in) HMM_DMIRROR_CHECKSUM or HMM_DMIRROR_ADD
 * @addr: (in) start, page aligned
 * @len: (in) bytes, a multiple of the page size, not 0
 * @operand: (in) for ADD; 0 for CHECKSUM
 * @result: (out) for CHECKSUM: the sum over i of word[i] * (2 * i + 1), modulo 2^64
 * @device_pages: (out) pages that the device found in its own memory
 * @faults: (out) device page faults taken on the way
 *
 * The device goes through its own page table, faulting pages in where it must; it
 * never moves them.
 */
struct hmm_dmirror_compute {
	__u32 size;
	__u32 op;
	__u64 addr;
	__u64 len;
	__u64 operand;
	__u64 result;
	__u64 device_pages;
	__u64 faults;
};
#define HMM_DMIRROR_COMPUTE		_IOWR('H', 0x42, struct hmm_dmirror_compute)

/* hmm_dmirror_fail.leg */
enum {
	HMM_DMIRROR_FAIL_NONE		= 0,	/* switch all off */
	HMM_DMIRROR_FAIL_COPY_TO_DEVICE	= 1,
	HMM_DMIRROR_FAIL_COPY_TO_RAM	= 2,
	HMM_DMIRROR_FAIL_ZERO		= 3,
	HMM_DMIRROR_FAIL_WAIT		= 4,
	HMM_DMIRROR_FAIL_LONG		= 5,	/* copies of more than a page: wanted page by page */
};

/**
 * struct hmm_dmirror_fail - make the device fail (needs CAP_SYS_ADMIN)
 * @size: (in) sizeof(struct hmm_dmirror_fail)
 * @leg: (in) HMM_DMIRROR_FAIL_*
 * @skip: (in) let that many segments of this leg succeed first
 * @count: (in) then fail that many
 */
struct hmm_dmirror_fail {
	__u32 size;
	__u32 leg;
	__u64 skip;
	__u64 count;
};
#define HMM_DMIRROR_FAIL		_IOW('H', 0x43, struct hmm_dmirror_fail)

#endif /* HMM_DMIRROR_H */
