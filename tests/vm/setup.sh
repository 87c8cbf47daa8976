#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Installs what `make test` and `make demo` need and this machine lacks. It is POSIX sh because Python
# itself may be missing. When nothing is missing it asks apt nothing, so that the warm path is instant.
set -eu

if ! command -v dpkg-query >/dev/null 2>&1; then
	echo "setup: this is not a Debian-like system; needed by hand: python3 (3.11), rustc with its library" \
	     "sources, cargo, gcc, make, qemu-system-x86_64, a static busybox, cpio, apt, mmdebstrap" >&2
	exit 0
fi

want="python3 gcc make libc6-dev binutils kmod xz-utils zstd sqlite3 cpio busybox-static
      qemu-system-x86 mmdebstrap libhugetlbfs-dev debian-archive-keyring dpkg-dev ca-certificates git"

# The core is compiled with the library sources of its compiler. Debian 12 keeps a current Rust beside its old one
# under another name; from 13 on the plain name is current.
rust_has_sources() {
	command -v rustc >/dev/null 2>&1 && [ -e "$(rustc --print sysroot)/lib/rustlib/src/rust/library/core" ]
}
if grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release; then web=-web; else web=; fi
rust_has_sources || want="$want rustc$web rust$web-src"
command -v cargo >/dev/null 2>&1 || want="$want cargo$web"
command -v cargo-fmt >/dev/null 2>&1 || want="$want rustfmt$web"

# Pictures are drawn in a test, so that a broken one is noticed.
want="$want librsvg2-bin fonts-dejavu-core"

# What reads our tracepoints, beside our own programs.
want="$want trace-cmd linux-perf bpftrace"

# The fuzzer's engine is C++. Coverage is read with the tools of the LLVM that the compiler has; Debian 12's has 22.
want="$want g++"
llvm=$(rustc -Vv 2>/dev/null | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
if [ "$web${llvm:-22}" = -web22 ]; then want="$want llvm-22"; fi

# Instructions of the core are counted by valgrind.
want="$want valgrind"

# libclang reads the C headers for bindgen.
want="$want libclang-dev clang"

missing=
for package in $want; do
	state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

log=target/log/setup.log
mkdir -p target/log
if [ "$(id -u)" != 0 ]; then
	echo "setup: missing:$missing" >&2
	echo "setup: run as root: apt-get install --no-install-recommends$missing" >&2
	exit 1
fi

install() {
	# shellcheck disable=SC2086  # the list is words on purpose
	DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends install $missing
}

start=$(date +%s)
echo "  installing:$missing"
if ! install >"$log" 2>&1 </dev/null; then
	# The package lists were absent or too old: fetch them once and try again.
	if ! { apt-get -q update && install; } >>"$log" 2>&1 </dev/null; then
		tail -n 30 "$log" >&2
		echo "setup: apt could not install them; whole log: $log" >&2
		echo "setup: next: apt-get update && apt-get install --no-install-recommends$missing" >&2
		exit 1
	fi
fi
echo "  installed in $(($(date +%s) - start)) s"
