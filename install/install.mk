# SPDX-License-Identifier: GPL-2.0
#
# What gets the modules onto other machines.

HMM_VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)
DIST := target/dist

.PHONY: dist
dist: core ## make the release archive: all sources and the core's object, so that building it needs no Rust
	@mkdir -p $(DIST)
	@sh install/dist.sh $(DIST)/hmm-devmem-$(HMM_VERSION).tar.xz target/core/hmm_core.o

.PHONY: test-install
test-install: setup core ## test what gets the modules onto other machines: archive, packages, DKMS, signatures
	@$(PYTHON) tests/vm/install.py
