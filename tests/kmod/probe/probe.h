/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/hmm_probe*: what the test program asks of a probe driver.
 */
#ifndef PROBE_H
#define PROBE_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Pages that a fault brings home, at most. */
#define PROBE_WINDOW	16

/* How a driver makes an idle page one in use; every way that drivers are known to have. */
enum probe_order {
	PROBE_LOCK_GET,		/* lock_page(), get_page() */
	PROBE_TRYLOCK_GET,	/* trylock_page(), get_page() */
	PROBE_GET_LOCK,		/* get_page(), lock_page() */
	PROBE_GET_COPY_LOCK,	/* get_page(), copy, lock_page() */
	PROBE_GET_ONLY,		/* forgets the lock */
	PROBE_REF_INC,		/* page_ref_inc(), lock_page() */
	PROBE_PAGE_GET,		/* hmm_devmem_page_get() */
	PROBE_ORDERS
};

/* What goes wrong on purpose; bits. */
#define PROBE_FAIL_ALLOC	1	/* no destination, in either direction */
#define PROBE_FAIL_COPY		2	/* the copy fails: page given back, ERROR on the way home */
#define PROBE_FAIL_FAULT	4	/* the fault callback returns SIGBUS without a try */
#define PROBE_FAIL_LAZY		8	/* the fault callback returns 0 without a try */
#define PROBE_FAIL_SOME		16	/* with ALLOC or COPY: every third page only */

/* One byte for each page of a snapshot. */
#define PROBE_NONE		0
#define PROBE_RAM		1
#define PROBE_DEVICE		2
#define PROBE_ERROR		3
#define PROBE_SPECIAL		4
#define PROBE_WRITABLE		0x10

struct probe_cmd {
	__u64 addr;
	__u64 npages;
	__u64 ptr;		/* data, snapshot or text */
	__u32 order;		/* enum probe_order */
	__u32 flags;		/* PROBE_FAIL_* */
	__u32 region;		/* where to, on the device */
	__u32 reserved;
	__u64 moved;		/* out */
	__u64 wanted;		/* out: pages that alloc_and_copy() was asked for */
};

struct probe_info {
	__u64 total;		/* pages of device memory that the driver hands out */
	__u64 used;
	__u64 handed_out;
	__u64 freed;
	__u64 faults;
	__u64 syncs;		/* of the calling file */
	__u64 released;		/* of the calling file */
	__u64 second_syncs;	/* of the second mirror of the calling file */
	__u32 private_memory;
	__u32 api;		/* HMM_API */
	__u32 regions;		/* of device memory */
	__u32 reserved;
};

#define PROBE_TO_DEVICE		_IOWR('P', 1, struct probe_cmd)
#define PROBE_TO_RAM		_IOWR('P', 2, struct probe_cmd)
#define PROBE_READ		_IOWR('P', 3, struct probe_cmd)
#define PROBE_WRITE		_IOWR('P', 4, struct probe_cmd)
#define PROBE_SNAPSHOT		_IOWR('P', 5, struct probe_cmd)
#define PROBE_FAIL		_IOWR('P', 6, struct probe_cmd)
#define PROBE_INFO		_IOR('P', 7, struct probe_info)
/* hmm_devmem_remove() or hmm_device_put(); the argument is the first region that goes. */
#define PROBE_REMOVE		_IO('P', 8)
#define PROBE_SELFTEST		_IOWR('P', 9, struct probe_cmd)
#define PROBE_LOOK		_IOWR('P', 10, struct probe_cmd)	/* fault, no data */

#endif /* PROBE_H */
