/* SPDX-License-Identifier: GPL-2.0 */
/* The part of userspace RCU that the kernel's own test headers want, for one thread. */
#ifndef BENCH_URCU_H
#define BENCH_URCU_H

struct rcu_head {
	struct rcu_head *next;
	void (*func)(struct rcu_head *head);
};

#define rcu_read_lock()			do { } while (0)
#define rcu_read_unlock()		do { } while (0)
#define rcu_read_ongoing()		1
#define rcu_barrier()			do { } while (0)
#define rcu_dereference(p)		(*(volatile typeof(p) *)&(p))
#define rcu_assign_pointer(p, v)	(*(volatile typeof(p) *)&(p) = (v))
#define call_rcu(head, fn)		(fn)(head)
#define rcu_register_thread()		do { } while (0)
#define rcu_unregister_thread()		do { } while (0)

#endif
