#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# DKMS runs this in the directory of a build, after it: symvers.sh KERNEL ARCH.
# Keeps the symbols of hmm_devmem beside the modules, where hmm.mk looks for them.
# Newer DKMS does the same by itself.
set -eu
cp Module.symvers "../$1/$2/module/Module.symvers"
