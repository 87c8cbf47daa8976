# SPDX-License-Identifier: GPL-2.0
#
# For the Kbuild of a module that uses hmm_devmem:
#
#	include /usr/include/hmm-devmem/hmm.mk
#
# A driver that was written for HMM of Linux 4.14 to 5.2 says which shape of that API it has, with
# "HMM_API := 419" in the line before; then <linux/hmm.h> and its kin are ours before the kernel's.
# With DKMS, BUILD_DEPENDS[0]="hmm-devmem" in its dkms.conf has ours built first.
# KBUILD_EXTRA_SYMBOLS= on the command line names the symbols of a hmm_devmem that DKMS did not build.

HMM_INCLUDE := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))

ccflags-y += -I$(HMM_INCLUDE)
ifdef HMM_API
ccflags-y += -DHMM_API=$(HMM_API)
LINUXINCLUDE := -I$(HMM_INCLUDE) $(LINUXINCLUDE)
endif

HMM_SYMVERS := $(wildcard /var/lib/dkms/hmm-devmem/kernel-$(KERNELRELEASE)-x86_64/module/Module.symvers)
KBUILD_EXTRA_SYMBOLS += $(HMM_SYMVERS)
ifeq ($(strip $(KBUILD_EXTRA_SYMBOLS)),)
$(warning hmm_devmem is not installed for $(KERNELRELEASE); next: apt-get install hmm-devmem-dkms, or KBUILD_EXTRA_SYMBOLS=)
endif
