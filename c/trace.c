// SPDX-License-Identifier: GPL-2.0
/*
 * Tracepoints: what is only worked out while somebody looks.
 */
#define CREATE_TRACE_POINTS
#include "trace.h"

void hmm_trace_begin_slow(struct hmm_region *region, struct hmm_trace_move *move,
			  const struct hmm_migrate *m)
{
	move->process = hmm_account_process(region, m->mm);
	move->before = *m;
	trace_migrate_begin(region, move->direction, move->cause, move->process, move->address,
			    move->npages);
	move->begin = ktime_get_ns();
}

/* Why a batch moved nothing at all, or not all that it could have; 0 if neither. */
static int result_of(const struct hmm_trace_move *move, const struct hmm_migrate *m)
{
	static const int result[] = {
		[HMM_SKIP_COPY] = -EIO,
		[HMM_SKIP_NO_MEMORY] = -ENOMEM,
		[HMM_SKIP_REFUSED] = -EAGAIN,
		[HMM_SKIP_VMA] = -EINVAL,
		[HMM_SKIP_BUSY] = -EBUSY,
	};
	static const enum hmm_skip order[] = {
		HMM_SKIP_COPY, HMM_SKIP_NO_MEMORY, HMM_SKIP_REFUSED, HMM_SKIP_VMA, HMM_SKIP_BUSY,
	};
	unsigned int i;

	/* What was never there or is elsewhere already is no failure of a batch that moved. */
	for (i = 0; i < ARRAY_SIZE(order); i++)
		if (m->skipped[order[i]] != move->before.skipped[order[i]] &&
		    (i < 3 || m->moved == move->before.moved))
			return result[order[i]];
	return 0;
}

void hmm_trace_end_slow(struct hmm_region *region, const struct hmm_trace_move *move,
			const struct hmm_batch *b, const struct hmm_migrate *m)
{
	u64 ns = ktime_get_ns() - move->begin;
	u64 moved = m->moved - move->before.moved, huge = 0;
	unsigned long i;

	/* The arrays are those of this batch only if it got so far. */
	for (i = 0; moved && i < move->npages; i++)
		huge += hmm_entry_order(b->dst[i]) && (b->src[i] & MIGRATE_PFN_MIGRATE);
	trace_migrate_end(region, move, moved - huge * HMM_BLOCK_PAGES, huge, ns,
			  result_of(move, m));
}
