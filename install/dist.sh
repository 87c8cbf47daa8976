#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Makes the release archive: every file of the project, and the finished object of
# the Rust core, so that whoever builds the modules from it needs no Rust.
#
#   dist.sh OUT.tar.xz [CORE.o]        (from the root of the clone)
#
# The same files give the same bytes, wherever and whenever: names are sorted, and
# owners, modes and dates do not come from this machine. The date is that of the last
# commit, or SOURCE_DATE_EPOCH.
set -eu
LC_ALL=C
export LC_ALL

out=$1
core=${2:-target/core/hmm_core.o}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
name=hmm-devmem-$version

say() { printf 'dist: %s\n' "$*" >&2; }
[ -n "$version" ] || { say "Cargo.toml names no version"; exit 1; }
[ -f "$core" ] || { say "there is no $core; next: make core"; exit 1; }

if git ls-files --error-unmatch Cargo.toml >/dev/null 2>&1; then
	epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
	git ls-files
else
	# An unpacked archive: all its files have the one date.
	epoch=${SOURCE_DATE_EPOCH:-$(stat -c %Y Cargo.toml)}
	find . \( -path ./target -o -name __pycache__ \) -prune -o \( -type f -o -type l \) -print |
		sed 's|^\./||' | grep -vx hmm_core.o_shipped
fi >"${out%.tar.xz}.list.$$"
# A file that is removed and not yet committed is not part of it.
list=${out%.tar.xz}.list.$$
stage=$(mktemp -d)
trap 'rm -rf "$stage" "$list"' EXIT
trap 'exit 1' INT TERM

mkdir "$stage/$name"
while IFS= read -r file; do
	[ ! -e "$file" ] || printf '%s\n' "$file"
done <"$list" | sort | tar -cf - -T - | tar -xf - -C "$stage/$name"
cp "$core" "$stage/$name/hmm_core.o_shipped"
chmod 644 "$stage/$name/hmm_core.o_shipped"

tar -C "$stage" --format=gnu --sort=name --owner=0 --group=0 --numeric-owner \
	--mode=u+rwX,go+rX,go-w,a-s --mtime="@$epoch" -cf "$stage/archive.tar" "$name"
# One thread: with more, the bytes depend on how many there are.
xz -T1 -6 <"$stage/archive.tar" >"$out.part"
mv "$out.part" "$out"
say "$out: $(wc -l <"$list") files and the core's object, $(wc -c <"$out") bytes"
