#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
set -e
[ "$1" = configure ] || exit 0
name=hmm-devmem
version=@VERSION@

dkms status -m "$name" -v "$version" | grep -q . || dkms add -m "$name" -v "$version" >/dev/null
for kernel in /lib/modules/*/build; do
	[ ! -e "$kernel" ] || /usr/lib/hmm-devmem/for-kernel "$(basename "$(dirname "$kernel")")"
done
