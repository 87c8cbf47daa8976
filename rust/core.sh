#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Builds the kernel object of the Rust core and refuses to hand out a wrong one.
# usage: core.sh OUTPUT.o [RUSTC]        (from the root of the clone)
#
# The core is compiled against a `core` library of its own, made from the
# library sources that belong to the compiler: rustc does not mix code built
# with and without the kernel's mitigation flags. That takes most of a minute
# once and is kept in the cache, under a name that says compiler and flags.
set -eu
LC_ALL=C
export LC_ALL

out=$1
want=${2:-}
here=rust
tab=$(printf '\t')

say() { printf 'core: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# Where the library sources of compiler $1 are; empty when it has none.
sources() {
	root=$("$1" --print sysroot 2>/dev/null) || return 0
	[ -f "$root/lib/rustlib/src/rust/library/core/src/lib.rs" ] &&
		printf '%s\n' "$root/lib/rustlib/src/rust/library"
	return 0
}

# --- how --------------------------------------------------------------------
# Each flag mirrors a line of the kernel's arch/x86/Makefile. Together they are
# the superset that every kernel from 5.10 on accepts: ENDBR is a NOP where IBT
# is off, padding is inert, and the thunks exist in all stock images.
flags="--target x86_64-unknown-none -Cpanic=abort -Copt-level=2 -Ccodegen-units=1
-Cdebuginfo=0 -Ccode-model=kernel -Crelocation-model=static -Cno-redzone=y
-Cforce-unwind-tables=n -Csymbol-mangling-version=v0 -Crelro-level=off
-Ctarget-cpu=x86-64 -Ztune-cpu=generic -Zfunction-return=thunk-extern
-Zretpoline-external-thunk -Zindirect-branch-cs-prefix -Zcf-protection=branch
-Cjump-tables=n -Zpatchable-function-entry=16,16 -Cembed-bitcode=no
-Coverflow-checks=n -Cdebug-assertions=n"
# Some of these are unstable; this is how the kernel itself asks for them.
RUSTC_BOOTSTRAP=1
export RUSTC_BOOTSTRAP

# Whether compiler $1 takes all the flags.
knows() { "$1" $flags --print cfg >/dev/null; }

# --- which compiler ---------------------------------------------------------
rustc=
if [ -n "$want" ]; then
	command -v "$want" >/dev/null || die "HMM_RUSTC=$want: no such program"
	rustc=$want
	lib=$(sources "$rustc")
	[ -n "$lib" ] || die "HMM_RUSTC=$want has no library sources (rust-src)"
	knows "$rustc" || die "HMM_RUSTC=$want does not know the mitigation flags"
else
	for try in /usr/bin/rustc rustc; do
		command -v "$try" >/dev/null || continue
		lib=$(sources "$try")
		[ -n "$lib" ] || { say "$(command -v "$try"): has no library sources, passed over"; continue; }
		knows "$try" || { say "$("$try" --version): does not know the mitigation flags, passed over"; continue; }
		rustc=$try
		break
	done
fi
if [ -z "$rustc" ]; then
	say "no Rust compiler that can build kernel code on this machine: it takes one that knows"
	say "-Zindirect-branch-cs-prefix (1.96 does), with its library sources. One of these helps:"
	say "  Debian 12:            apt-get install rustc-web rust-web-src"
	say "  newer Debian:         apt-get install rustc rust-src"
	say "  rustup:               rustup component add rust-src"
	exit 1
fi
for tool in ld nm objcopy objdump readelf size; do
	command -v $tool >/dev/null || die "$tool is missing: apt-get install binutils"
done
version=$("$rustc" --version)
say "$version ($(command -v "$rustc")), library sources in $lib"

# --- the library ------------------------------------------------------------
key=$({ "$rustc" -Vv; printf '%s\n' "$flags"; sed -n '/^# --- the library/,/^# --- the object/p' "$0"; } |
	sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hmm-devmem/rust-core-$key
if [ ! -f "$cache/libcore.rlib" ] || [ ! -f "$cache/libcompiler_builtins.rlib" ]; then
	say "building the core library for kernel code, once (about a minute) ..."
	tmp=$cache.tmp.$$
	rm -rf "$tmp"
	mkdir -p "$tmp"
	trap 'rm -rf "$tmp"' EXIT
	edition=$(sed -n 's/^edition *= *"\(.*\)"/\1/p' "$lib/core/Cargo.toml")
	"$rustc" $flags --edition "${edition:-2024}" --crate-type rlib --crate-name core \
		--cfg no_fp_fmt_parse --remap-path-prefix "$lib=/rust" --cap-lints allow \
		-L "$tmp" --out-dir "$tmp" "$lib/core/src/lib.rs"
	# memcpy and its kin are the kernel's own: a stand-in without them.
	printf '%s\n' '#![feature(compiler_builtins)]' '#![compiler_builtins]' \
		'#![no_builtins]' '#![no_std]' > "$tmp/builtins.rs"
	"$rustc" $flags --edition 2024 --crate-type rlib --crate-name compiler_builtins \
		--remap-path-prefix "$tmp=/rust" --cap-lints allow \
		--sysroot=/dev/null -L "$tmp" --out-dir "$tmp" "$tmp/builtins.rs"
	rm "$tmp/builtins.rs"
	# Two builds at once: the first one wins, both are the same.
	mv -T "$tmp" "$cache" 2>/dev/null || [ -f "$cache/libcore.rlib" ]
fi

# --- the object -------------------------------------------------------------
dir=$(dirname "$out")
work=$dir/work
rm -rf "$work" "$out"
mkdir -p "$work"
"$rustc" $flags --edition 2024 --crate-type lib --crate-name hmm_core --cfg hmm_kernel \
	--check-cfg 'cfg(hmm_kernel, loom, test)' -Dwarnings \
	--remap-path-prefix "$PWD/=" --sysroot=/dev/null -L "$cache" \
	--emit "obj=$work/all.o" "$here/lib.rs"

# The functions of the border are the roots; what they do not reach goes.
sed -n 's/.*extern "C" fn \(hmm_core_[a-z_]*\).*/\1/p' "$here/ffi.rs" | sort > "$work/roots"
[ -s "$work/roots" ] || die "no exported function found in $here/ffi.rs"
cat > "$work/merge.lds" <<'LDS'
SECTIONS {
	.text 0 : { *(.text .text.*) }
	.rodata 0 : { *(.rodata .rodata.*) }
	.data 0 : { *(.data .data.*) }
	.bss 0 : { *(.bss .bss.*) }
}
LDS
ld -r --gc-sections -T "$work/merge.lds" $(sed 's/^/-u /' "$work/roots") \
	-o "$work/linked.o" "$work/all.o" "$cache/libcore.rlib" "$cache/libcompiler_builtins.rlib"
# The linker keeps the names of what it has thrown away. Those that no relocation
# asks for any more go; one that is asked for stays and is judged below.
readelf -rW "$work/linked.o" | awk '$3 ~ /^R_/ { print $5 }' | sort -u > "$work/used"
nm -u "$work/linked.o" | awk '{ print $2 }' | grep -vxFf "$work/used" > "$work/gone" || :
# Everything else becomes local: its names could meet the kernel's own Rust.
objcopy --strip-symbols="$work/gone" --discard-locals --strip-debug --keep-global-symbols="$work/roots" --remove-section=.comment \
	--remove-section='.llvm*' --remove-section=__patchable_function_entries \
	--remove-section='.eh_frame*' --remove-section='.note*' \
	--enable-deterministic-archives "$work/linked.o" "$work/core.o"

# --- the checks -------------------------------------------------------------
bad=
fail() { say "REFUSED: $1"; sed "s/^/core:   /" >&2; bad=1; }
check() { [ -s "$work/found" ] && fail "$1" < "$work/found"; : > "$work/found"; }

nm -g --defined-only "$work/core.o" | awk '{ print $3 }' | sort | diff - "$work/roots" > "$work/found" || :
check "exported names differ from the functions of the border"

readelf -rW "$work/core.o" | awk '$3 ~ /^R_/ { print $3 }' | sort | uniq -c |
	grep -vwE 'R_X86_64_(NONE|64|32|32S|PC32|PLT32|PC64)' > "$work/found" || :
check "relocations that the module loader does not take"

grep -v '^#' "$here/core.allow" > "$work/allow"
nm -u "$work/core.o" | awk '{ print $2 }' | grep -vxEf "$work/allow" > "$work/found" || :
check "undefined symbols outside $here/core.allow (hmm_port_panic: a panic is reachable)"

nm "$work/core.o" | grep -iE 'panic|unwind|slice_index|bounds|_fail|expect_failed|unwrap_failed|3fmt' > "$work/found" || :
check "panic paths or formatting code in the object"

objdump -d --no-show-raw-insn "$work/core.o" > "$work/core.dis"
grep -E '%[xyz]mm|%st|%mm[0-7]|%k[0-7]' "$work/core.dis" > "$work/found" || :
check "vector or floating point registers"
grep -E "$tab(repz )?ret|$tab(notrack |bnd |cs )*(jmp|call) +\*" "$work/core.dis" > "$work/found" || :
check "returns or indirect branches without a thunk"
grep -E "$tab(ud2|int3|hlt)" "$work/core.dis" > "$work/found" || :
check "traps: the compiler believes that something cannot happen"

# Each exported function starts with ENDBR, after its 16 bytes of padding.
while read -r root; do
	grep -A1 "<$root>:" "$work/core.dis" | grep -q endbr64 || echo "$root"
done < "$work/roots" > "$work/found"
check "functions without ENDBR"

readelf -SW "$work/core.o" | grep -E ' \.(data|bss)[ .]' |
	awk '{ sub(/^ *\[ *[0-9]+\]/, ""); if ($5 != "000000") print }' > "$work/found"
check "writable data: the core has none of its own"

if strings -a "$work/core.o" | grep -F -e "$PWD" -e "$cache" -e "$lib" > "$work/found"; then :; fi
check "paths of this machine"

text=$(size -A "$work/core.o" | awk '$1 ~ /^\.text/ { n += $2 } END { print n + 0 }')
# The range map alone is 12 KiB.
[ "$text" -le 40960 ] || { echo "$text bytes" > "$work/found"; check "more than 40 KiB of text"; }
[ -z "$bad" ] || exit 1

mv "$work/core.o" "$out"
say "$out: $text bytes of text, $(wc -l < "$work/roots") functions, undefined: $(nm -u "$out" | awk '{ printf "%s ", $2 }')"
