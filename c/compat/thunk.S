/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The core's functions return through a thunk that a kernel with mitigations patches or
 * provides. A kernel built without them has none, and needs none: a plain return will do.
 */
#include <linux/linkage.h>

#include "conf.h"

#if !HMM_HAVE_SYMBOL___X86_RETURN_THUNK
SYM_FUNC_START(__x86_return_thunk)
	ret
	int3
SYM_FUNC_END(__x86_return_thunk)
#endif
