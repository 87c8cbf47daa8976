# SPDX-License-Identifier: GPL-2.0
#
# hmm-devmem: `make help` lists what can be made.

KVER    ?= $(shell uname -r)
KDIR    ?= /lib/modules/$(KVER)/build
PYTHON  ?= /usr/bin/python3
KERNEL  ?=
MACHINE ?=
VARIANT ?=
RUN     ?=
FILES   ?=
OPS     ?=
SEED    ?=
# One directory per kernel, so that objects of two kernels never meet.
OUT     := target/build/host$(subst /,-,$(KDIR))
VM      := $(PYTHON) tests/vm/cli.py
# Nothing that is made lies beside the sources.
export PYTHONPYCACHEPREFIX := $(CURDIR)/target/pycache
CACHE   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hmm-devmem

.DEFAULT_GOAL := modules
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

-include rust/core.mk
-include install/install.mk

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
	@# Without the distribution's private key there is nothing to sign with; see README for a key of your own.
	$(MAKE) -C $(KDIR) M=$(CURDIR)/$(OUT) CONFIG_MODULE_SIG_ALL= modules_install

.PHONY: setup
setup:
	@sh tests/vm/setup.sh

.PHONY: user
user: $(patsubst tests/user/%.c,target/user/%,$(wildcard tests/user/*.c)) target/user/svm ## build hmm-run and the programs that run in the test machines
	cargo build --release --locked --workspace

target/user/%: tests/user/%.c $(wildcard tests/user/*.h c/drivers/dmirror/*.h)
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -Werror -pthread -I. -o $@ $<

target/user/svm: c/examples/svm.c c/drivers/vram/hmm_vram.h
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -Werror -I. -o $@ $<

.PHONY: test
test: setup ## run every test: host, generated files, modules, virtual machines (KERNEL= for one kernel only)
	@$(VM) test $(KERNEL:%=--kernel %)

.PHONY: test-api
test-api: setup core ## run the tests of the 4.14 to 5.2 API alone, and show which probe driver uses which symbol (KERNEL=)
	@$(PYTHON) tests/vm/api.py $(KERNEL:%=--kernel %)

.PHONY: test-all matrix matrix-build
test-all: setup ## run every test in every machine of every kernel, with all sanitizer kernels (hours; KERNEL= for one kernel only)
	@$(VM) test --every $(KERNEL:%=--kernel %)
matrix: setup ## build for every kernel of tests/vm/kernels.toml and boot each: target/matrix.json (KERNEL= for one only)
	@$(VM) matrix $(KERNEL:%=--kernel %)
matrix-build: setup ## the same without booting anything
	@$(VM) matrix --build-only $(KERNEL:%=--kernel %)

.PHONY: demo
demo: setup ## boot stock kernels and show pages of real programs living in device memory (KERNEL= for one kernel only)
	@$(VM) demo $(KERNEL:%=--kernel %)

.PHONY: hmm-tests
hmm-tests: setup core ## run the kernel's own HMM selftests on our device (KERNEL=, VARIANT=private or coherent)
	@$(VM) hmm-tests $(KERNEL:%=--kernel %) $(VARIANT:%=--variant %)

.PHONY: bench-vm
bench-vm: setup ## count instructions per page in a machine, beside the kernel's own test driver
	@$(VM) bench $(KERNEL:%=--kernel %)

.PHONY: bench-trace
bench-trace: setup ## count what tracepoints cost per page: not compiled in, unused, used
	@$(VM) bench-trace $(KERNEL:%=--kernel %)

.PHONY: soak
soak: setup core user ## random operations for hours: 10 million, or OPS=, from SEED=, on KERNEL= and MACHINE=
	@$(PYTHON) tests/vm/soak.py $(KERNEL:%=--kernel %) $(MACHINE:%=--machine %) $(OPS:%=--ops %) $(SEED:%=--seed %)

.PHONY: vm
vm: export HMM_RUN = $(value RUN)
vm: setup core ## boot one kernel, load the modules, run a command: make vm KERNEL=7.3 MACHINE=coherent RUN='cmd' FILES='prog ...'
	@$(VM) run $(KERNEL:%=--kernel %) $(MACHINE:%=--machine %) $(FILES:%=--file %)

.PHONY: kernels update
kernels: setup ## show the kernels under test and fetch those that are missing
	@$(VM) list
update: setup ## look for newer kernels in the archive now
	@$(VM) update

.PHONY: readme
readme: ## put the last results of make demo, make bench-vm and make matrix into README.md
	@$(VM) readme

.PHONY: clean distclean
clean: ## remove what was built
	rm -rf target
distclean: clean ## remove the cache of kernels and build roots as well
	@if grep -qs " $(CACHE)/" /proc/mounts; then echo "something is mounted below $(CACHE); unmount it first"; exit 1; fi
	rm -rf --one-file-system "$(CACHE)"

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z_-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24
