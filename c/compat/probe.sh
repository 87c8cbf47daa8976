#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Ask the kernel's headers what they offer and write the answers to conf.h.
#
#   probe.sh PROBES OUT SYMVERS COMPILER FLAGS...
#
# Every probes/NAME.c is one question, compiled with the flags of a real unit. It
# compiles: HMM_HAVE_NAME is 1. It fails with the error that the file itself
# announces ("expect: REGEX"): 0. It fails in any other way: the probe is broken
# (wrong flags, a header that moved), and a wrong "no" would be worse than no build,
# so the build stops with the compiler's words. A probe without an "expect:" line
# must compile: it shows that the flags work at all.
#
# probes/symbols lists exported symbols, looked up in Module.symvers: headers may
# declare what the image does not have.
set -eu

probes=$1 out=$2 symvers=$3
shift 3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

jobs=
for probe in "$probes"/*.c; do
	name=$(basename "$probe" .c)
	(
		if "$@" -Werror=incompatible-pointer-types -Werror=implicit-function-declaration \
			-c -o "$work/$name.o" "$probe" >"$work/$name.log" 2>&1; then
			echo 1 >"$work/$name.answer"
		else
			echo 0 >"$work/$name.answer"
		fi
	) &
	jobs="$jobs $!"
done
for job in $jobs; do wait "$job"; done

{
	echo "/* Written by probe.sh from the headers of the kernel; do not edit. */"
	for probe in "$probes"/*.c; do
		name=$(basename "$probe" .c)
		macro=HMM_HAVE_$(echo "$name" | tr 'a-z-' 'A-Z_')
		answer=$(cat "$work/$name.answer")
		expect=$(sed -n 's|^ \* expect: *||p' "$probe")
		if [ "$answer" = 0 ] && { [ -z "$expect" ] ||
		    ! grep -Eq "$expect" "$work/$name.log"; }; then
			echo "hmm_devmem: compile probe '$name' is broken on this kernel;" \
				"it should compile${expect:+, or fail with: $expect}. It says:" >&2
			cat "$work/$name.log" >&2
			exit 1
		fi
		echo "#define $macro $answer"
	done
	while read -r symbol _; do
		case $symbol in ''|'#'*) continue ;; esac
		macro=HMM_HAVE_SYMBOL_$(echo "$symbol" | tr 'a-z' 'A-Z')
		if grep -q "	$symbol	" "$symvers"; then
			echo "#define $macro 1"
		else
			echo "#define $macro 0"
		fi
	done <"$probes/symbols"
} >"$work/conf.h"

# Unchanged answers keep the file's date, and with it every object.
cmp -s "$work/conf.h" "$out" || cp "$work/conf.h" "$out"
