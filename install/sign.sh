#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Signs modules with the kernel's own tool: sign.sh KDIR KEY CERT MODULE...
# KEY is a private key (PEM), CERT its certificate (DER). An old signature is replaced.
set -eu
kdir=$1 key=$2 cert=$3
shift 3

say() { printf 'sign: %s\n' "$*" >&2; }
if [ -z "$key" ] || [ -z "$cert" ]; then
	say "which key? KEY= is the private key, CERT= its certificate; DKMS has one in /var/lib/dkms (mok.key, mok.pub)"
	say "next, for a key of your own:"
	say "  openssl req -new -x509 -newkey rsa:2048 -nodes -days 36500 -subj /CN=hmm -keyout mok.key -outform DER -out mok.der"
	say "  make sign KEY=mok.key CERT=mok.der"
	say "  mokutil --import mok.der        # under Secure Boot; then reboot and choose 'Enroll MOK'"
	exit 1
fi
tool=$kdir/scripts/sign-file
[ -x "$tool" ] || { say "there is no $tool; next: apt-get install linux-headers-$(uname -r), or KDIR="; exit 1; }
for file in "$key" "$cert"; do
	[ -r "$file" ] || { say "cannot read $file"; exit 1; }
done
[ $# -gt 0 ] || { say "there are no modules; next: make"; exit 1; }
hash=$(sed -n 's/^CONFIG_MODULE_SIG_HASH="\(.*\)"$/\1/p' "$kdir/.config" 2>/dev/null)

for module; do
	# At the end of a signed module: the signature, 12 bytes of which the last four are its length, 28 bytes of text.
	if tail -c 28 "$module" | grep -q '^~Module signature appended~$'; then
		# shellcheck disable=SC2046  # four numbers
		set -- $(tail -c 32 "$module" | head -c 4 | od -An -t u1)
		truncate -s "-$((($1 << 24) + ($2 << 16) + ($3 << 8) + $4 + 12 + 28))" "$module"
	fi
	"$tool" "${hash:-sha512}" "$key" "$cert" "$module"
	say "signed $module"
done
