#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs the host tests of the core under a sanitizer of the compiler.
# usage: sanitize.sh thread|address      (from the root of the clone; `make tsan`, `make asan`)
#
# The standard library is as it comes, without the sanitizer: what the core does with its
# atomics is compiled into the tests and is seen; what std does inside of itself is not,
# and tests/sanitize.supp names the places where that shows.
set -eu

which=$1
host=$(rustc -Vv | sed -n 's/^host: //p')
case $which in
thread) short=tsan ;;
address) short=asan ;;
*) echo "usage: sanitize.sh thread|address"; exit 1 ;;
esac
if ! ls "$(rustc --print sysroot)/lib/rustlib/$host/lib/"*_rt.$short.a >/dev/null 2>&1; then
	echo "sanitize: $(rustc --version) brings no runtime for $which"
	echo "next: a compiler of rustup, first in PATH"
	exit 1
fi
export TSAN_OPTIONS="suppressions=$PWD/tests/sanitize.supp exitcode=66"
# The tests map nothing twice, and the region's memory is the tests' own.
export ASAN_OPTIONS=detect_leaks=1
export PROPTEST_CASES=${PROPTEST_CASES:-64}
RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=$which -Cunsafe-allow-abi-mismatch=sanitizer" \
	cargo test --quiet --locked --target "$host" --target-dir "target/$short" \
	--lib --test model --test journey --test abi --test map
echo "sanitize: $which: nothing found"
