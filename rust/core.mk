# SPDX-License-Identifier: GPL-2.0
#
# `make core`: the kernel object of the Rust core, target/core/hmm_core.o. One
# object serves every kernel; rust/core.sh makes and checks it.
# HMM_RUSTC= names a rustc to use instead of the one that the script would pick.

HMM_CORE_SRC := $(addprefix rust/,lib.rs evict.rs ffi.rs frames.rs plan.rs port.rs \
		port_sys.rs region.rs types.rs window.rs)

.PHONY: core
core: target/core/hmm_core.o ## build and check the kernel object of the Rust core

target/core/hmm_core.o: $(HMM_CORE_SRC) rust/core.sh rust/core.allow rust/core.mk c/core.h
	@sh rust/core.sh $@ $(HMM_RUSTC)

.PHONY: gen gen-check
gen: ## rewrite the generated files (needs libclang)
	cargo run --quiet --locked --features gen --bin gen
gen-check: ## compare the generated files with their sources
	cargo run --quiet --locked --features gen --bin gen -- --check

.PHONY: bench
# The vectoriser is off on both sides, as in a kernel.
bench: export RUSTFLAGS := -Cno-vectorize-loops -Cno-vectorize-slp
bench: export BENCH_OUT := $(CURDIR)/target
bench: ## measure the core against its peers (target/bench*.json)
	cargo bench --locked --target-dir target/bench -p hmm-bench -- --noplot

.PHONY: loom
# Release mode, because the search is long; see tests/loom.rs for its bounds.
loom: export RUSTFLAGS := --cfg loom
loom: ## explore the interleavings of claim, release and hand-over (minutes)
	cargo test --locked --release --target-dir target/loom --test loom

.PHONY: core-refusals
core-refusals: ## prove that the build refuses code that does not belong into a kernel
	@sh tests/refusals.sh
