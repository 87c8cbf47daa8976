// SPDX-License-Identifier: GPL-2.0
/*
 * Nothing is asked: shows that the compiler and the flags work.
 */
#include <linux/mm.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
