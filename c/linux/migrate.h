/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's <linux/migrate.h>, with what it had until 5.3: migrate_vma().
 */
#ifndef HMM_LINUX_MIGRATE_H
#define HMM_LINUX_MIGRATE_H

#include_next <linux/migrate.h>
#include <linux/mm.h>

#include "../migrate_vma.h"

#ifndef MIGRATE_PFN_LOCKED
#define MIGRATE_PFN_LOCKED	HMM_PFN_CLIENT_LOCKED
#endif
#ifndef MIGRATE_PFN_DEVICE
#define MIGRATE_PFN_DEVICE	HMM_PFN_CLIENT_DEVICE
#endif
#ifndef MIGRATE_PFN_ERROR
#define MIGRATE_PFN_ERROR	HMM_PFN_CLIENT_ERROR
#endif

#endif /* HMM_LINUX_MIGRATE_H */
