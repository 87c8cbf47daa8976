#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs each fuzz target for a while and fails on the first input that breaks it.
# usage: run.sh SECONDS [TARGET...]      (from the root of the clone; `make fuzz` does)
#
# The stable compiler builds them: coverage comes from an LLVM pass, and, where the
# compiler brings its runtime, the address sanitizer. What breaks a target is kept in
# target/fuzz/TARGET-*; put it into tests/fuzz/corpus/TARGET with its fix.
set -eu

seconds=$1
shift
[ $# -gt 0 ] || set -- abi planner map
# Nothing on a stack outlives it here, and to look for that costs more than a run.
export ASAN_OPTIONS="detect_stack_use_after_return=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
host=$(rustc -Vv | sed -n 's/^host: //p')
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
-Ccodegen-units=1 --cfg=fuzzing"
if ls "$(rustc --print sysroot)/lib/rustlib/$host/lib/"*_rt.asan.a >/dev/null 2>&1; then
	flags="$flags -Zsanitizer=address"
else
	echo "fuzz: this compiler brings no address sanitizer: only panics and loops are found"
fi
out=$PWD/target/fuzz
RUSTC_BOOTSTRAP=1 RUSTFLAGS=$(echo $flags) cargo build --quiet --locked --release --target "$host" \
	--target-dir "$out" --manifest-path tests/fuzz/Cargo.toml

for target; do
	mkdir -p "$out/corpus-$target"
	log=$out/$target.log
	# Nothing is allocated in a run, so nothing leaks; a second is an eternity for these.
	if ! "$out/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -detect_leaks=0 -max_len=512 \
		-print_final_stats=1 -artifact_prefix="$out/$target-" "$out/corpus-$target" \
		"tests/fuzz/corpus/$target" > "$log" 2>&1; then
		tail -n 40 "$log"
		echo "fuzz: $target broke; the input is in target/fuzz, the whole log in $log"
		echo "next: $out/$host/release/$target FILE"
		exit 1
	fi
	runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	covered=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
	echo "fuzz: $target: $runs executions in $seconds s, ${covered:-cov: ?}, nothing found"
done
