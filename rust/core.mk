# SPDX-License-Identifier: GPL-2.0
#
# `make core`: the kernel object of the Rust core, target/core/hmm_core.o. One
# object serves every kernel; rust/core.sh makes and checks it.
# HMM_RUSTC= names a rustc to use instead of the one that the script would pick.

HMM_CORE_SRC := $(addprefix rust/,lib.rs density.rs evict.rs ffi.rs frames.rs map.rs nodes.rs plan.rs port.rs \
		port_sys.rs region.rs retired.rs types.rs window.rs)

.PHONY: core
core: target/core/hmm_core.o ## build and check the kernel object of the Rust core

HMM_CORE_FROM := $(HMM_CORE_SRC) rust/core.sh rust/core.allow rust/core.mk c/core.h
# A release brings the object along, and no Rust compiler is needed as long as nothing that it
# was made from is newer.
HMM_SHIPPED := $(wildcard hmm_core.o_shipped)
HMM_NEWER := $(if $(HMM_SHIPPED),$(HMM_RUSTC)$(shell find $(HMM_CORE_FROM) -newer hmm_core.o_shipped))

ifeq ($(if $(HMM_SHIPPED),$(HMM_NEWER),build),)
target/core/hmm_core.o: hmm_core.o_shipped
	@mkdir -p $(@D) && cp $< $@ && echo "core: the object that came with this release"
else
target/core/hmm_core.o: $(HMM_CORE_FROM)
	@sh rust/core.sh $@ $(HMM_RUSTC)
endif

.PHONY: gen gen-check
gen: ## rewrite the generated files (needs libclang)
	cargo run --quiet --locked --features gen --bin gen
gen-check: ## compare the generated files with their sources
	cargo run --quiet --locked --features gen --bin gen -- --check

.PHONY: bench
# The vectoriser is off on both sides, as in a kernel.
bench: export RUSTFLAGS := -Cno-vectorize-loops -Cno-vectorize-slp
bench: export BENCH_OUT := $(CURDIR)/target
bench: ## measure the core against its peers: table, target/bench.json, target/bench.svg; fails when a goal is missed
	@$(PYTHON) bench/report.py --begin $(BENCH_OUT)
	HMM_LINUX_SOURCE="$$($(PYTHON) bench/source.py)" \
		cargo bench --locked --target-dir target/bench -p hmm-bench -- --noplot
	@$(PYTHON) bench/report.py $(BENCH_OUT)

.PHONY: simulate traces
simulate: ## replay traces of faults: the core's policies beside LRU and one page a fault (target/simulate.json)
	@mkdir -p target
	cargo run --quiet --release --locked -p hmm-simulate -- --json target/simulate.json tests/traces/*.trace
traces: ## write the generated traces of tests/traces anew
	cargo run --quiet --release --locked -p hmm-simulate -- --generate tests/traces

.PHONY: fuzz coverage
fuzz: export RUSTFLAGS :=
fuzz: ## feed anything to the C ABI, the planner and the range map (FUZZ_SECONDS= for each, 60)
	@sh tests/fuzz/run.sh $(or $(FUZZ_SECONDS),60)
coverage: ## line and branch coverage of the core by its host tests; fails below 95 and 90 %
	@$(PYTHON) tests/coverage.py

.PHONY: counts
counts: ## count the instructions of the core's hot paths and compare them with tests/counts.txt
	@$(PYTHON) tests/counts.py

.PHONY: tsan asan
tsan: ## the host tests under ThreadSanitizer (a compiler that brings its runtime: rustup's do)
	@sh tests/sanitize.sh thread
asan: ## the host tests under AddressSanitizer (likewise)
	@sh tests/sanitize.sh address

.PHONY: loom
# Release mode, because the search is long; see tests/loom.rs for its bounds.
loom: export RUSTFLAGS := --cfg loom
loom: ## explore the interleavings of claim, release and hand-over (minutes)
	cargo test --locked --release --target-dir target/loom --test loom

.PHONY: core-refusals
core-refusals: ## prove that the build refuses code that does not belong into a kernel
	@sh tests/refusals.sh

.PHONY: abi-asan
abi-asan: core ## drive the kernel object from C under AddressSanitizer and UBSan
	@$(CC) -std=gnu11 -g -O1 -Wall -Wextra -Werror -DHMM_ABI_MAIN -fsanitize=address,undefined \
		-fno-sanitize-recover=all -no-pie -Wl,-z,noexecstack -Ic -o target/core/abi-asan tests/abi.c target/core/hmm_core.o
	@target/core/abi-asan
