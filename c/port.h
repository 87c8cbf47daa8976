/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What C lends to the Rust core, and all of it. bindgen turns this file into
 * rust/port_sys.rs; c/port.c has the kernel's side.
 */
#ifndef HMM_PORT_H
#define HMM_PORT_H

#ifdef __KERNEL__
#include <linux/compiler.h>
#elif !defined(__noreturn)
#define __noreturn __attribute__((__noreturn__))
#endif

/**
 * hmm_port_panic() - stop, the core has lost its way.
 * @file: where, NUL-terminated
 * @line: where in it
 *
 * Called by the core's panic handler only. The build of the kernel object fails
 * when anything reaches that handler.
 *
 * Context: Any.
 * Return: Never.
 */
void __noreturn hmm_port_panic(const char *file, unsigned int line);

/**
 * hmm_port_warn() - say that something happened which only a caller's mistake can cause.
 * @file: where, NUL-terminated
 * @line: where in it
 *
 * The core goes on, in a safe state.
 *
 * Context: Any, also with page-table locks held and interrupts off.
 */
void hmm_port_warn(const char *file, unsigned int line);

#endif
