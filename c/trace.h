/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints of hmm_devmem.ko: /sys/kernel/tracing/events/hmm_devmem/.
 *
 * Numbers only, so that perf, trace-cmd, bpftrace and hmm-record read them without help:
 *
 *   region	number of the region, the first part of its name in debugfs; 0 for none
 *   process	whose memory it is: thread group id in the initial namespace; 0 unknown
 *   address	user address, page aligned
 *   npages	pages of 4 KiB
 *   ns		nanoseconds from begin to end
 *   result	0 or a negative errno
 *
 * They show addresses of every process. So does tracefs, which only root may read, and a
 * user needs CAP_PERFMON for them in perf; nothing less shows them.
 *
 * The sum of small + 512 * huge over migrate_end is what the counters of the region show.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM hmm_devmem

#if !defined(HMM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define HMM_TRACE_H

#include <linux/tracepoint.h>

#include "internal.h"

TRACE_DEFINE_ENUM(HMM_TO_DEVICE);
TRACE_DEFINE_ENUM(HMM_TO_RAM);
TRACE_DEFINE_ENUM(HMM_CAUSE_REQUEST);
TRACE_DEFINE_ENUM(HMM_CAUSE_FAULT);
TRACE_DEFINE_ENUM(HMM_CAUSE_EVICT);
TRACE_DEFINE_ENUM(HMM_CAUSE_TEARDOWN);
TRACE_DEFINE_ENUM(HMM_CAUSE_PREFETCH);

#define hmm_show_direction(direction) \
	__print_symbolic(direction, { HMM_TO_DEVICE, "to_device" }, { HMM_TO_RAM, "to_ram" })

#define hmm_show_cause(cause) \
	__print_symbolic(cause, { HMM_CAUSE_REQUEST, "request" }, { HMM_CAUSE_FAULT, "fault" }, \
			 { HMM_CAUSE_EVICT, "evict" }, { HMM_CAUSE_TEARDOWN, "teardown" }, \
			 { HMM_CAUSE_PREFETCH, "prefetch" })

/* A region is there, and gone again. */
TRACE_EVENT(region_add,
	TP_PROTO(const struct hmm_region *region),
	TP_ARGS(region),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u32, private)
		__field(u64, npages)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->private = hmm_region_is_private(region);
		__entry->npages = region->devmem.pfn_last - region->devmem.pfn_first;
	),
	TP_printk("region=%u private=%u npages=%llu", __entry->region, __entry->private,
		  __entry->npages)
);

TRACE_EVENT(region_remove,
	TP_PROTO(const struct hmm_region *region, u64 ns),
	TP_ARGS(region, ns),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u64, ns)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->ns = ns;
	),
	TP_printk("region=%u ns=%llu", __entry->region, __entry->ns)
);

/*
 * One batch, at most 2 MiB, sets out; and has arrived. An eviction knows frames, not
 * addresses: there process and address are 0, and the event evict has the frames.
 */
TRACE_EVENT(migrate_begin,
	TP_PROTO(const struct hmm_region *region, enum hmm_direction direction,
		 enum hmm_cause cause, u32 process, unsigned long address,
		 unsigned long npages),
	TP_ARGS(region, direction, cause, process, address, npages),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u32, direction)
		__field(u32, cause)
		__field(u32, process)
		__field(u64, address)
		__field(u64, npages)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->direction = direction;
		__entry->cause = cause;
		__entry->process = process;
		__entry->address = address;
		__entry->npages = npages;
	),
	TP_printk("region=%u direction=%s cause=%s process=%u address=%#llx npages=%llu",
		  __entry->region, hmm_show_direction(__entry->direction),
		  hmm_show_cause(__entry->cause), __entry->process, __entry->address,
		  __entry->npages)
);

TRACE_EVENT(migrate_end,
	TP_PROTO(const struct hmm_region *region, const struct hmm_trace_move *move, u64 small,
		 u64 huge, u64 ns, int result),
	TP_ARGS(region, move, small, huge, ns, result),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u32, direction)
		__field(u32, cause)
		__field(u32, process)
		__field(u64, address)
		__field(u64, npages)
		__field(u64, small)
		__field(u64, huge)
		__field(u64, bytes)
		__field(u64, ns)
		__field(s32, result)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->direction = move->direction;
		__entry->cause = move->cause;
		__entry->process = move->process;
		__entry->address = move->address;
		__entry->npages = move->npages;
		__entry->small = small;
		__entry->huge = huge;
		__entry->bytes = small * PAGE_SIZE + huge * PMD_SIZE;
		__entry->ns = ns;
		__entry->result = result;
	),
	TP_printk("region=%u direction=%s cause=%s process=%u address=%#llx npages=%llu small=%llu huge=%llu bytes=%llu ns=%llu result=%d",
		  __entry->region, hmm_show_direction(__entry->direction),
		  hmm_show_cause(__entry->cause), __entry->process, __entry->address,
		  __entry->npages, __entry->small, __entry->huge, __entry->bytes, __entry->ns,
		  __entry->result)
);

/* The CPU touched @address; [first, first + npages * 4 KiB) was to come home with it. */
TRACE_EVENT(cpu_fault,
	TP_PROTO(const struct hmm_region *region, unsigned long address, unsigned long first,
		 unsigned long npages, unsigned long moved, unsigned int result),
	TP_ARGS(region, address, first, npages, moved, result),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u32, process)
		__field(u64, address)
		__field(u64, first)
		__field(u64, npages)
		__field(u64, moved)
		__field(u32, result)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->process = current->tgid;
		__entry->address = address;
		__entry->first = first;
		__entry->npages = npages;
		__entry->moved = moved;
		__entry->result = result;
	),
	TP_printk("region=%u process=%u address=%#llx first=%#llx npages=%llu moved=%llu result=%#x",
		  __entry->region, __entry->process, __entry->address, __entry->first,
		  __entry->npages, __entry->moved, __entry->result)
);

/* A span of frames was picked to come home; @moved of it did. */
TRACE_EVENT(evict,
	TP_PROTO(const struct hmm_region *region, enum hmm_cause cause, u64 frame, u64 npages,
		 u64 moved),
	TP_ARGS(region, cause, frame, npages, moved),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u32, cause)
		__field(u64, frame)
		__field(u64, npages)
		__field(u64, moved)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->cause = cause;
		__entry->frame = frame;
		__entry->npages = npages;
		__entry->moved = moved;
	),
	TP_printk("region=%u cause=%s frame=%llu npages=%llu moved=%llu", __entry->region,
		  hmm_show_cause(__entry->cause), __entry->frame, __entry->npages,
		  __entry->moved)
);

/* Pages for which there was no free memory on the other side. */
TRACE_EVENT(alloc_fail,
	TP_PROTO(const struct hmm_region *region, enum hmm_direction direction,
		 unsigned long npages),
	TP_ARGS(region, direction, npages),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u32, direction)
		__field(u64, npages)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->direction = direction;
		__entry->npages = npages;
	),
	TP_printk("region=%u direction=%s npages=%llu", __entry->region,
		  hmm_show_direction(__entry->direction), __entry->npages)
);

/* The driver could not copy or clear these pages. */
TRACE_EVENT(copy_error,
	TP_PROTO(const struct hmm_region *region, enum hmm_direction direction,
		 const struct hmm_segment *seg),
	TP_ARGS(region, direction, seg),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u32, direction)
		__field(u64, npages)
		__field(s32, result)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->direction = direction;
		__entry->npages = seg->npages;
		__entry->result = seg->status;
	),
	TP_printk("region=%u direction=%s npages=%llu result=%d", __entry->region,
		  hmm_show_direction(__entry->direction), __entry->npages, __entry->result)
);

/* A device needs [address, address + npages * 4 KiB) in its page table, and faults it in. */
TRACE_EVENT(device_fault,
	TP_PROTO(struct hmm_region *region, struct mm_struct *mm, unsigned long address,
		 unsigned long npages, bool write),
	TP_ARGS(region, mm, address, npages, write),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u32, process)
		__field(u64, address)
		__field(u64, npages)
		__field(u32, write)
	),
	TP_fast_assign(
		__entry->region = region ? region->id : 0;
		__entry->process = hmm_account_process(region, mm);
		__entry->address = address;
		__entry->npages = npages;
		__entry->write = write;
	),
	TP_printk("region=%u process=%u address=%#llx npages=%llu write=%u", __entry->region,
		  __entry->process, __entry->address, __entry->npages, __entry->write)
);

/*
 * The kernel changes [start, end): a device's view of it is told. @event is its reason, an enum
 * mmu_notifier_event; @unmap says that the memory itself is going.
 */
TRACE_EVENT(notifier,
	TP_PROTO(struct hmm_region *region, const struct mmu_notifier_range *range),
	TP_ARGS(region, range),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u32, process)
		__field(u32, event)
		__field(u32, unmap)
		__field(u64, start)
		__field(u64, end)
	),
	TP_fast_assign(
		__entry->region = region ? region->id : 0;
		__entry->process = hmm_account_process(region, range->mm);
		__entry->event = range->event;
		__entry->unmap = range->event == MMU_NOTIFY_UNMAP ||
				 range->event == MMU_NOTIFY_RELEASE;
		__entry->start = range->start;
		__entry->end = range->end;
	),
	TP_printk("region=%u process=%u event=%u unmap=%u start=%#llx end=%#llx",
		  __entry->region, __entry->process, __entry->event, __entry->unmap,
		  __entry->start, __entry->end)
);

#ifndef HMM_TRACE_INLINES
#define HMM_TRACE_INLINES

void hmm_trace_begin_slow(struct hmm_region *region, struct hmm_trace_move *move,
			  const struct hmm_migrate *m);
void hmm_trace_end_slow(struct hmm_region *region, const struct hmm_trace_move *move,
			const struct hmm_batch *b, const struct hmm_migrate *m);

/*
 * Around the move of one batch. @m says in the end what came of it; it may have counted other
 * batches before. While nobody traces: two jumps that are not taken, and one word written.
 */
static inline void hmm_trace_begin(struct hmm_region *region, struct hmm_trace_move *move,
				   enum hmm_direction direction, enum hmm_cause cause,
				   unsigned long address, unsigned long npages,
				   const struct hmm_migrate *m)
{
	move->begin = 0;
	if (!trace_migrate_begin_enabled() && !trace_migrate_end_enabled())
		return;
	move->direction = direction;
	move->cause = cause;
	move->address = address;
	move->npages = npages;
	hmm_trace_begin_slow(region, move, m);
}

static inline void hmm_trace_end(struct hmm_region *region, const struct hmm_trace_move *move,
				 const struct hmm_batch *b, const struct hmm_migrate *m)
{
	if (trace_migrate_end_enabled() && move->begin)
		hmm_trace_end_slow(region, move, b, m);
}

#endif

#endif /* HMM_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
