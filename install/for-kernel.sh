#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# /usr/lib/hmm-devmem/for-kernel KERNEL: have DKMS build and install the modules for a
# kernel. It always succeeds: the installation of a kernel must not fail because of us.
kernel=$1
name=hmm-devmem
version=@VERSION@
log=/var/lib/dkms/$name/for-$kernel.log

say() { printf '%s: %s\n' "$name" "$*" >&2; }

command -v dkms >/dev/null || exit 0
if [ ! -d "/lib/modules/$kernel/build/include" ]; then
	say "no headers of $kernel here; the modules will be built when linux-headers-$kernel is installed"
	exit 0
fi
case $(dkms status -m "$name" -v "$version" -k "$kernel" 2>/dev/null) in
*installed*) exit 0 ;;
esac

say "building for $kernel ..."
dkms install -m "$name" -v "$version" -k "$kernel" >"$log" 2>&1 </dev/null
case $? in
0)
	say "installed for $kernel"
	rm -f "$log" ;;
77)
	say "left out for $kernel: that kernel is built without what it takes"
	say "next: hmm-doctor --kver $kernel says what is missing"
	rm -f "$log" ;;
*)
	tail -n 20 "$log" | sed "s/^/$name: | /" >&2
	say "could not be built for $kernel; nothing else is affected. Log: $log"
	say "next: hmm-doctor --kver $kernel; then: dkms install $name/$version -k $kernel" ;;
esac
exit 0
