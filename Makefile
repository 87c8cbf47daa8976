# SPDX-License-Identifier: GPL-2.0
#
# hmm-devmem: `make help` lists what can be made.

KVER    ?= $(shell uname -r)
KDIR    ?= /lib/modules/$(KVER)/build
PYTHON  ?= /usr/bin/python3
KERNEL  ?=
MACHINE ?=
RUN     ?=
FILES   ?=
OUT     := target/build/$(if $(filter file,$(origin KDIR)),$(KVER),custom)
VM      := $(PYTHON) tests/vm/cli.py

.DEFAULT_GOAL := modules
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

-include rust/core.mk

.PHONY: modules
modules: core ## build the modules for the running kernel (KVER= or KDIR= for another)
	@test -e $(KDIR)/Makefile || { \
		echo "no kernel headers at $(KDIR)"; \
		echo "next: apt-get install linux-headers-$(KVER), or give KDIR=, or see a test kernel: make demo"; exit 1; }
	@mkdir -p $(OUT) && cp -Rpu Kbuild c $(OUT)/ && cmp -s target/core/hmm_core.o $(OUT)/hmm_core.o_shipped || \
		cp target/core/hmm_core.o $(OUT)/hmm_core.o_shipped
	$(MAKE) -C $(KDIR) M=$(CURDIR)/$(OUT) modules
	@echo "built: $$(ls $(OUT)/*.ko | tr '\n' ' ')"

.PHONY: modules_install
modules_install: modules ## install them below /lib/modules (INSTALL_MOD_PATH= for another root)
	$(MAKE) -C $(KDIR) M=$(CURDIR)/$(OUT) modules_install

.PHONY: setup
setup:
	@sh tests/vm/setup.sh

.PHONY: vm
vm: setup core ## boot a kernel, load the modules, run one command: make vm KERNEL=7.3 MACHINE=coherent RUN='cmd' FILES='prog ...'
	@$(VM) run $(if $(KERNEL),--kernel $(KERNEL)) $(if $(MACHINE),--machine $(MACHINE)) $(FILES:%=--file %) \
		$(if $(RUN),--command '$(subst ','\'',$(RUN))')

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z_-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24
