// SPDX-License-Identifier: GPL-2.0
/*
 * vm_area_struct.vm_flags is written by helpers only.
 * upstream: bc292ab00f6c ("mm: introduce vma->vm_flags wrapper functions"), 6.3
 * expect: implicit declaration of function .*vm_flags_init
 */
#include <linux/mm.h>

void probe(struct vm_area_struct *vma);
void probe(struct vm_area_struct *vma)
{
	vm_flags_init(vma, VM_READ);
}
