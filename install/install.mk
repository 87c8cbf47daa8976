# SPDX-License-Identifier: GPL-2.0
#
# What gets the modules onto other machines.

HMM_VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)
DIST := target/dist

.PHONY: dist
dist: core ## make the release archive: all sources and the core's object, so that building it needs no Rust
	@mkdir -p $(DIST)
	@sh install/dist.sh $(DIST)/hmm-devmem-$(HMM_VERSION).tar.xz target/core/hmm_core.o

.PHONY: deb deb-modules
deb: dist ## make the Debian packages: modules for DKMS, headers for other modules, the programs
	cargo build --release --locked -p hmm-run -p hmm-eyes
	@sh install/deb.sh $(DIST)/hmm-devmem-$(HMM_VERSION).tar.xz $(DIST) target/release
deb-modules: dist ## the same without the programs, for which no Rust is needed
	@sh install/deb.sh $(DIST)/hmm-devmem-$(HMM_VERSION).tar.xz $(DIST)

# --- Signing, for Secure Boot ---
KEY  ?=
CERT ?=

.PHONY: sign sign-key
sign: sign-key modules ## sign the modules with a key of yours: make sign KEY=mok.key CERT=mok.der (DKMS signs by itself)
	@sh install/sign.sh $(KDIR) "$(KEY)" "$(CERT)" $(OUT)/*.ko
sign-key:
	@test -n "$(KEY)" -a -n "$(CERT)" || sh install/sign.sh "" "" ""

.PHONY: doctor
doctor: ## what works on this machine and what stands in the way (KVER= or KDIR= for another kernel)
	@sh install/doctor.sh $(if $(filter file undefined,$(origin KVER)),,--kver "$(KVER)") \
		$(if $(filter file undefined,$(origin KDIR)),,--kdir "$(KDIR)") || test $$? = 1

.PHONY: test-install
test-install: setup core target/user/api ## test what gets the modules onto other machines: archive, packages, DKMS, signatures
	@$(PYTHON) tests/vm/install.py
