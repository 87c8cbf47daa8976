#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
set -e
name=hmm-devmem
version=@VERSION@

if command -v dkms >/dev/null && dkms status -m "$name" -v "$version" | grep -q .; then
	dkms remove -m "$name" -v "$version" --all >/dev/null
fi
rm -f "/var/lib/dkms/$name"/for-*.log
rmdir "/var/lib/dkms/$name" 2>/dev/null || true
