// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin for QEMU: how often was each instruction executed, between two marks that a program in the machine sets?
 *
 *	qemu-system-x86_64 ... -plugin instructions.so,out=FILE
 *
 * A mark is a long nop whose operand is a number that nobody else uses; see pages.c. What is executed after a mark N
 * counts for N, until the next; 0 is for nobody. When the machine stops, FILE gets a line for each address and N:
 * `N address count`, the address in hexadecimal; 0 stands for all addresses of user space.
 *
 * Debian's QEMU takes plugins, but has no package with the header for them: what is used of it is declared here, as of
 * version 1 of the interface (QEMU 4.2 to 8.1).
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;

enum { NO_REGISTERS, ADD_U64 = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*translated)(uint64_t id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_atexit_cb(uint64_t id, void (*stopped)(uint64_t id, void *arg), void *arg);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t i);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, void (*executed)(unsigned int cpu, void *arg),
					    int registers, void *arg);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, int op, void *counter, uint64_t n);

/* As in pages.c: the first seven bytes of a mark, without the number in the lowest byte of its operand. */
enum { MARKS = 16, SLOTS = 1 << 20 };
static const unsigned char mark_head[3] = { 0x0f, 0x1f, 0x80 }, mark_tail[3] = { 0x4d, 0x4d, 0x48 };

int qemu_plugin_version = 1;

static uint64_t address[SLOTS], count[SLOTS], before[SLOTS], total[MARKS][SLOTS];
static uintptr_t current;
static const char *file;

/* Slot 0 is for user space, and for what finds no room. */
static uint64_t *counter_of(uint64_t addr)
{
	if (!(addr >> 63))
		return &count[0];
	for (uint64_t i = 0, slot = addr * 0x9e3779b97f4a7c15 >> 44; i < SLOTS; i++, slot = (slot + 1) % SLOTS) {
		if (!slot || (address[slot] && address[slot] != addr))
			continue;
		address[slot] = addr;
		return &count[slot];
	}
	return &count[0];
}

static void marked(unsigned int cpu, void *arg)
{
	(void)cpu;
	for (uint64_t slot = 0; current && slot < SLOTS; slot++)
		total[current][slot] += count[slot] - before[slot];
	current = (uintptr_t)arg;
	memcpy(before, count, sizeof(before));
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		const unsigned char *byte = qemu_plugin_insn_data(insn);

		qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64, counter_of(qemu_plugin_insn_vaddr(insn)), 1);
		if (qemu_plugin_insn_size(insn) == 7 && !memcmp(byte, mark_head, 3) && byte[3] < MARKS &&
		    !memcmp(byte + 4, mark_tail, 3))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, NO_REGISTERS, (void *)(uintptr_t)byte[3]);
	}
}

static void stopped(uint64_t id, void *arg)
{
	FILE *out = fopen(file, "w");

	(void)id;
	(void)arg;
	if (!out)
		return;
	for (int mark = 1; mark < MARKS; mark++)
		for (uint64_t slot = 0; slot < SLOTS; slot++)
			if (total[mark][slot])
				fprintf(out, "%d %llx %llu\n", mark, (unsigned long long)address[slot],
					(unsigned long long)total[mark][slot]);
	fclose(out);
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	(void)info;
	if (argc != 1 || strncmp(argv[0], "out=", 4))
		return -1;
	file = strdup(argv[0] + 4);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, stopped, NULL);
	return 0;
}
