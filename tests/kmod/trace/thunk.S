/* SPDX-License-Identifier: GPL-2.0 */
/* As in hmm_devmem.ko, for kernels without mitigations. */
#include "../../../c/compat/thunk.S"
