#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What of hmm_devmem works on this machine, or with another kernel's headers, and why
# not the rest. Plain sh, no other file of the project: it runs where users are.
#
# It asks what the modules' own build asks, in the same way: the configuration, the
# headers and the list of exported symbols, never the version.
set -u
LC_ALL=C
export LC_ALL

usage() {
	cat <<'END'
usage: hmm-doctor [--kver RELEASE] [--kdir DIR] [--json]

  --kver RELEASE  another installed kernel instead of the running one
  --kdir DIR      the headers or build tree of any kernel
  --json          for programs
  --help          this text

Shows what hmm_devmem can do with a kernel and what stands in the way, and the
next commands to type. Secure Boot and physical memory are shown for the running
kernel; some of it only root may read.

Exit: 0 all is well, 1 there is something to do, 2 it was called wrongly.
END
}

die() { echo "hmm-doctor: $*" >&2; exit 2; }

kver=
kdir=
json=
while [ $# -gt 0 ]; do
	case $1 in
	--kver) [ $# -ge 2 ] || die "--kver wants a release; next: hmm-doctor --help"; kver=$2; shift ;;
	--kver=*) kver=${1#*=} ;;
	--kdir) [ $# -ge 2 ] || die "--kdir wants a directory; next: hmm-doctor --help"; kdir=$2; shift ;;
	--kdir=*) kdir=${1#*=} ;;
	--json) json=1 ;;
	--help | -h) usage; exit 0 ;;
	*) die "what is '$1'? next: hmm-doctor --help" ;;
	esac
	shift
done
[ -z "$kdir" ] || [ -d "$kdir" ] || die "there is no directory $kdir"

next=
# todo TEXT: a line for the end; each is said once.
todo() {
	case "
$next" in
	*"
$1
"*) ;;
	*) next="$next$1
" ;;
	esac
}

have() { command -v "$1" >/dev/null 2>&1; }

# ---------------------------------------------------------------------------
# Which kernel, and where its facts are
# ---------------------------------------------------------------------------
here=$(uname -r)
if [ -n "$kdir" ] && [ -z "$kver" ]; then
	# What modules are built for; in some packages kernel.release is another.
	kver=$(sed -n 's/^#define UTS_RELEASE "\(.*\)"$/\1/p' "$kdir/include/generated/utsrelease.h" 2>/dev/null)
	[ -n "$kver" ] || kver=$(cat "$kdir/include/config/kernel.release" 2>/dev/null)
	[ -n "$kver" ] || kver="of $kdir"
fi
[ -n "$kver" ] || kver=$here
[ -n "$kdir" ] || kdir=/lib/modules/$kver/build
running=
[ "$kver" != "$here" ] || running=1

headers=
[ ! -e "$kdir/Makefile" ] || headers=$kdir
# Debian splits the headers in two; the first lines of the one's Makefile name the other.
common=
if [ -n "$headers" ]; then
	other=$(sed -n 's|^include \(/.*\)/Makefile$|\1|p' "$kdir/Makefile" | head -n 1)
	for try in "$kdir" "$kdir/source" "$other" "$kdir/../${other##*/}"; do
		[ -z "$common" ] && [ -e "$try/include/linux/memremap.h" ] && common=$try
	done
fi

config=
for try in "$kdir/.config" "$kdir/include/config/auto.conf" "/boot/config-$kver" "/lib/modules/$kver/config"; do
	[ -n "$config" ] || { [ -r "$try" ] && config=$try; }
done
packed=
if [ -z "$config" ] && [ -n "$running" ] && [ -r /proc/config.gz ] && have zcat; then
	config=/proc/config.gz packed=1
fi

symbols=
if [ -n "$headers" ] && [ -r "$kdir/Module.symvers" ]; then
	symbols=$kdir/Module.symvers
elif [ -n "$running" ] && [ -r /proc/kallsyms ]; then
	symbols=/proc/kallsyms
fi
btf=
[ -z "$running" ] || [ ! -r /sys/kernel/btf/vmlinux ] || btf=/sys/kernel/btf/vmlinux

options="ZONE_DEVICE DEVICE_PRIVATE HMM_MIRROR MMU_NOTIFIER DEVICE_MIGRATION TRANSPARENT_HUGEPAGE PCI_P2PDMA
	MODULES MODULE_SIG MODULE_SIG_FORCE UNWINDER_ORC X86_KERNEL_IBT RANDOMIZE_MEMORY"
for name in $options; do
	if [ -n "$config" ]; then eval "config_$name=n"; else eval "config_$name=unknown"; fi
done
# Only names of the list and y or m come out of this.
if [ -n "$config" ]; then
	eval "$(if [ -n "$packed" ]; then zcat "$config"; else cat "$config"; fi |
		sed -n "s/^CONFIG_\($(echo $options | sed 's/ /\\|/g')\)=\([ym]\)\$/config_\1=\2/p")"
fi

# Both are long: looked through once, for all that is asked of them.
exports=
case $symbols in
*kallsyms)
	exports=$(grep -F -e hmm_range_fault -e migrate_vma_setup -e devm_request_free_mem_region -e make_device_exclusive "$symbols")
	# A kernel without CONFIG_KALLSYMS_ALL names functions only, and these are exported wherever they exist.
	if grep -qF " __ksymtab_" "$symbols"; then kind='. __ksymtab_'; else kind='T '; fi
	exports=$(printf '%s\n' "$exports" | sed -n "s/^[0-9a-f]* $kind\([a-z_]*\)\$/\1/p") ;;
?*) exports=$(cut -f 2 "$symbols") ;;
esac
types=
[ -z "$btf" ] || types=$(tr '\000' '\n' <"$btf" | grep -x 'MEMORY_DEVICE_COHERENT\|MIGRATE_VMA_SELECT_COMPOUND')

# among NAME LIST: yes or no
among() { if printf '%s\n' "$2" | grep -qx "$1"; then echo yes; else echo no; fi; }

# exported NAME: yes, no, or unknown
exported() { if [ -n "$symbols" ]; then among "$1" "$exports"; else echo unknown; fi; }

# declared NAME HEADER: whether a header, or the running kernel's own types, know a name
declared() {
	if [ -n "$common" ] && [ -r "$common/include/linux/$2" ]; then
		if grep -qw "$1" "$common/include/linux/$2"; then echo yes; else echo no; fi
	elif [ -n "$btf" ]; then
		among "$1" "$types"
	else
		echo unknown
	fi
}

# on VALUE: a configured thing as yes, no, unknown
on() { case $1 in y | m) echo yes ;; n) echo no ;; *) echo unknown ;; esac; }

# need WHAT VALUE REASON: one condition of WHAT. The first that is not met decides.
need() {
	eval "now=\$can_$1"
	case $now$2 in
	yesno) eval "can_$1=no why_$1=\$3" ;;
	yesunknown) eval "can_$1=unknown why_$1='cannot be seen from here: no headers'" ;;
	esac
}

# ---------------------------------------------------------------------------
# What of the API works
# ---------------------------------------------------------------------------
for name in mirror private coherent huge exclusive p2p; do
	eval "can_$name=yes why_$name="
done
for name in mirror private coherent huge exclusive p2p; do
	need $name "$(on "$config_MODULES")" "the kernel is built without modules"
done
need mirror "$(on "$config_HMM_MIRROR")" "the kernel is built without CONFIG_HMM_MIRROR"
need mirror "$(on "$config_MMU_NOTIFIER")" "the kernel is built without CONFIG_MMU_NOTIFIER"
need mirror "$(exported hmm_range_fault)" "hmm_range_fault() is not exported"

migrate=$(exported migrate_vma_setup)
for name in private coherent; do
	need $name "$(on "$config_ZONE_DEVICE")" "the kernel is built without CONFIG_ZONE_DEVICE"
done
need private "$(on "$config_DEVICE_PRIVATE")" "the kernel is built without CONFIG_DEVICE_PRIVATE"
need private "$migrate" "migrate_vma_setup() is not exported"
need private "$(exported devm_request_free_mem_region)" "devm_request_free_mem_region() is not exported"
need coherent "$(declared MEMORY_DEVICE_COHERENT memremap.h)" "the kernel has no MEMORY_DEVICE_COHERENT (it came in 6.0)"
need coherent "$migrate" "migrate_vma_setup() is not exported"
need huge "$can_private" "no private memory: $why_private"
need huge "$(on "$config_TRANSPARENT_HUGEPAGE")" "the kernel is built without CONFIG_TRANSPARENT_HUGEPAGE"
need huge "$(declared MIGRATE_VMA_SELECT_COMPOUND migrate.h)" "the kernel migrates no whole 2 MiB folios (newer ones do)"
need exclusive "$(exported make_device_exclusive)" "make_device_exclusive() is not exported (newer kernels with CONFIG_DEVICE_PRIVATE have it)"
need p2p "$(on "$config_PCI_P2PDMA")" "the kernel is built without CONFIG_PCI_P2PDMA"

# What a loaded module says about the running kernel decides, and should be the same.
caps=
agrees=
if [ -n "$running" ] && [ -r /sys/module/hmm_devmem/parameters/caps ]; then
	caps=$(cat /sys/module/hmm_devmem/parameters/caps)
	agrees=yes
	for name in mirror private coherent huge exclusive; do
		eval "now=\$can_$name"
		case " $caps " in *" $name "*) says=yes ;; *) says=no ;; esac
		[ "$now" = unknown ] || [ "$now" = "$says" ] || agrees=no
		[ "$now" != unknown ] || eval "can_$name=$says why_$name='says the loaded module'"
	done
	[ $agrees = yes ] || todo "the loaded module and this table differ, which is a bug: please report both"
fi

# ---------------------------------------------------------------------------
# Building and installing
# ---------------------------------------------------------------------------
compiler=no
! have gcc || compiler=$(gcc -dumpfullversion 2>/dev/null || echo yes)
dkms=
! have dkms || dkms=$(dkms status hmm-devmem -k "$kver" 2>/dev/null | head -n 1)
module=$(find "/lib/modules/$kver/" -name 'hmm_devmem.ko*' 2>/dev/null | head -n 1)
loaded=no
[ -z "$running" ] || [ ! -d /sys/module/hmm_devmem ] || loaded=yes

if [ "$can_mirror" = no ]; then
	todo "this kernel cannot have hmm_devmem: $why_mirror; take one of the distribution's own"
elif [ -z "$module" ] && [ $loaded = no ]; then
	[ -n "$headers" ] || todo "apt-get install linux-headers-$kver"
	[ "$compiler" != no ] || todo "apt-get install gcc make"
	case $dkms in
	'') todo "make KVER=$kver modules_install    # or install hmm-devmem-dkms" ;;
	*) todo "dkms install $(echo "$dkms" | sed 's/[,:].*//; s/ //g') -k $kver" ;;
	esac
elif [ $loaded = no ] && [ -n "$running" ]; then
	todo "modprobe hmm_devmem"
fi

# ---------------------------------------------------------------------------
# Secure Boot and signatures
# ---------------------------------------------------------------------------
secure_boot=unknown
lockdown=unknown
enforced=unknown
if [ -n "$running" ]; then
	variable=/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
	if [ ! -d /sys/firmware/efi ]; then
		secure_boot=no
	elif [ -r $variable ] && [ "$(od -An -t u1 $variable | tr -s ' \n' ' ' | sed 's/ $//; s/.* //')" = 1 ]; then
		secure_boot=on
	elif [ -r $variable ]; then
		secure_boot=off
	fi
	lockdown=$(sed -n 's/.*\[\(.*\)\].*/\1/p' /sys/kernel/security/lockdown 2>/dev/null)
	[ -n "$lockdown" ] || lockdown=none
	enforced=no
	[ "$(cat /sys/module/module/parameters/sig_enforce 2>/dev/null)" != Y ] || enforced=yes
	[ "$lockdown" = none ] || enforced=yes
elif [ "$config_MODULE_SIG_FORCE" = y ]; then
	enforced=yes
fi

signer=
signed=unknown
if [ -n "$module" ]; then
	! have modinfo || signer=$(modinfo -F signer "$module" 2>/dev/null | head -n 1)
	case $module in
	*.ko) if tail -c 28 "$module" | grep -q 'Module signature appended'; then signed=yes; else signed=no; fi ;;
	*) if [ -n "$signer" ]; then signed=yes; else signed=no; fi ;;
	esac
fi
mok=/var/lib/dkms/mok
[ ! -e /var/lib/shim-signed/mok/MOK.der ] || mok=/var/lib/shim-signed/mok/MOK
key=$mok.key certificate=$mok.pub
case $mok in */MOK) key=$mok.priv certificate=$mok.der ;; esac
enrolled=unknown
if [ -r "$certificate" ] && have mokutil; then
	if mokutil --test-key "$certificate" 2>/dev/null | grep -q 'already enrolled'; then enrolled=yes; else enrolled=no; fi
fi
if [ $enforced = yes ]; then
	case $signed in
	no) if [ -r "$key" ]; then
		todo "make sign KEY=$key CERT=$certificate    # the module is not signed, and this kernel wants it"
	elif [ -n "$dkms" ]; then
		todo "apt-get install openssl && dkms install --force $(echo "$dkms" | cut -d, -f1) -k $kver    # makes a key and signs"
	else
		todo "openssl req -new -x509 -newkey rsa:2048 -nodes -days 36500 -subj /CN=hmm -keyout mok.key -outform DER -out mok.der"
		todo "make sign KEY=mok.key CERT=mok.der && mokutil --import mok.der    # then reboot and choose 'Enroll MOK'"
	fi ;;
	yes) case $enrolled in
	yes) ;;
	*) have mokutil || todo "apt-get install mokutil"
		todo "mokutil --import $certificate    # then reboot and choose 'Enroll MOK'" ;;
	esac ;;
	esac
fi

# ---------------------------------------------------------------------------
# Free physical addresses, where private memory gets its struct pages
# ---------------------------------------------------------------------------
free=
limit=
at=
if [ -n "$running" ] && [ -r /proc/iomem ]; then
	bits=$(sed -n 's/^address sizes.*: *\([0-9]*\) bits physical.*/\1/p' /proc/cpuinfo | head -n 1)
	bits=${bits:-46}
	# Without five-level page tables the kernel's map of all memory ends at 64 TiB.
	if grep -qw la57 /proc/cpuinfo; then most=52; else most=46; fi
	[ "$bits" -le $most ] || bits=$most
	limit=$((1 << bits))
	end=0 ram=0 free=0 seen=
	while IFS= read -r line; do
		case $line in ' '*) continue ;; esac
		range=${line%% : *}
		first=$((0x${range%-*})) last=$((0x${range#*-}))
		[ $last = 0 ] || seen=1
		case $line in *'System RAM'*) ram=$last ;; esac
		if [ $first -gt $end ] && [ $((first - end)) -gt $free ] && [ $first -le $limit ]; then
			free=$((first - end)) at=$end
		fi
		[ $last -lt $end ] || end=$((last + 1))
	done </proc/iomem
	# A randomised map of memory leaves room for 10 TiB more than there is.
	if [ "$config_RANDOMIZE_MEMORY" != n ] && ! grep -qw nokaslr /proc/cmdline; then
		room=$((((ram >> 40) + 1 + 10) << 40))
		[ $room -gt $limit ] || limit=$room
	fi
	if [ $end -lt $limit ] && [ $((limit - end)) -gt $free ]; then
		free=$((limit - end)) at=$end
	fi
	# Only root sees the addresses.
	[ -n "$seen" ] || { free='' at=''; }
fi
if [ -n "$free" ] && [ "$can_private" = yes ] && [ $free -lt $((1 << 30)) ]; then
	todo "less than 1 GiB of physical addresses is free: a region for private memory must be smaller, or take devices out"
fi

# ---------------------------------------------------------------------------
# Telling it
# ---------------------------------------------------------------------------
size() {
	if [ "$1" -ge $((1 << 40)) ]; then echo "$(($1 >> 40)) TiB"
	elif [ "$1" -ge $((1 << 30)) ]; then echo "$(($1 >> 30)) GiB"
	else echo "$(($1 >> 20)) MiB"; fi
}

code=0
[ -z "$next" ] || code=1

# The names in the table and what they stand for.
about() {
	case $1 in
	mirror) echo "mirrors|hmm_mirror_register, hmm_vma_get_pfns, hmm_vma_fault, hmm_range_*, hmm_view" ;;
	private) echo "private memory|hmm_devmem_add, hmm_region_add, migrate_vma, CPU faults bring pages home" ;;
	coherent) echo "coherent memory|hmm_devmem_add_resource, coherent regions, migrate_vma" ;;
	huge) echo "2 MiB folios|the parameter huge=1" ;;
	exclusive) echo "exclusive access|atomic operations of the device" ;;
	p2p) echo "peer to peer|copies from device to device over PCI" ;;
	esac
}

if [ -n "$json" ]; then
	text() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g' | tr '\n\t' '  ')"; }
	maybe() { if [ -n "$1" ]; then text "$1"; else printf null; fi; }
	number() { printf '%s' "${1:-null}"; }
	printf '{"kernel": %s, "running": %s' "$(text "$kver")" "$([ -n "$running" ] && echo true || echo false)"
	printf ', "headers": %s, "config_from": %s, "symbols_from": %s, "config": {' \
		"$(maybe "$headers")" "$(maybe "$config")" "$(maybe "$symbols")"
	separator=
	for name in $options; do
		eval "now=\$config_$name"
		printf '%s"%s": "%s"' "$separator" $name "$now"
		separator=', '
	done
	printf '}, "can": {'
	separator=
	for name in mirror private coherent huge exclusive p2p; do
		eval "now=\$can_$name why=\$why_$name"
		printf '%s"%s": {"works": "%s", "why": %s}' "$separator" $name "$now" "$(maybe "$why")"
		separator=', '
	done
	printf '}, "caps": %s, "agrees": %s' "$(maybe "$caps")" "$(maybe "$agrees")"
	printf ', "compiler": %s, "dkms": %s, "module": %s, "loaded": "%s"' \
		"$(text "$compiler")" "$(maybe "$dkms")" "$(maybe "$module")" $loaded
	printf ', "secure_boot": "%s", "lockdown": %s, "signature_wanted": "%s", "signed": "%s", "signer": %s, "key_enrolled": "%s"' \
		$secure_boot "$(text "$lockdown")" $enforced $signed "$(maybe "$signer")" $enrolled
	printf ', "free_physical_bytes": %s, "free_physical_at": %s, "physical_limit": %s, "next": [' \
		"$(number "$free")" "$(number "$at")" "$(number "$limit")"
	separator=
	printf '%s' "$next" | while IFS= read -r line; do
		printf '%s%s' "$separator" "$(text "$line")"
		separator=', '
	done
	printf ']}\n'
	exit $code
fi

row() { printf '  %-18s %s\n' "$1" "$2"; }

echo
if [ -n "$running" ]; then echo "Linux $kver, running"; else echo "Linux $kver, not running"; fi
echo
row "headers" "${headers:-none}"
row "configuration" "${config:-not found}"
row "symbols from" "${symbols:-nowhere}"
row "compiler" "$compiler"
row "DKMS" "${dkms:-does not know hmm-devmem}"
row "module" "${module:-not installed}$([ $loaded = no ] || echo ', loaded')"
[ -z "$caps" ] || row "it says" "$caps"
echo
for name in mirror private coherent huge exclusive p2p; do
	eval "now=\$can_$name why=\$why_$name"
	what=$(about $name)
	if [ "$now" = yes ]; then row "${what%%|*}" "yes      ${what#*|}"
	else row "${what%%|*}" "$(printf '%-8s' "$now") $why"; fi
done
echo
for name in ZONE_DEVICE DEVICE_PRIVATE HMM_MIRROR MMU_NOTIFIER DEVICE_MIGRATION TRANSPARENT_HUGEPAGE PCI_P2PDMA; do
	eval "now=\$config_$name"
	row "" "CONFIG_$name=$now"
done
echo
if [ -n "$running" ]; then
	case $secure_boot in
	no) row "Secure Boot" "no: this machine was not started by UEFI" ;;
	*) row "Secure Boot" "$secure_boot" ;;
	esac
	row "lockdown" "$lockdown"
	if [ -n "$free" ]; then
		row "free addresses" "$(size "$free") in one piece from $(printf '0x%x' "$at"), below $(printf '0x%x' "$limit")"
	else
		row "free addresses" "only root can see them"
	fi
fi
case $enforced in
yes) row "signature" "wanted by the kernel" ;;
no) row "signature" "not wanted by the kernel" ;;
*) row "signature" "decided when it runs: wanted under Secure Boot" ;;
esac
case $signed in
yes) row "" "the module is signed${signer:+ by $signer}; key enrolled: $enrolled" ;;
no) row "" "the module is not signed" ;;
esac
echo
if [ -n "$next" ]; then
	echo "Next:"
	printf '%s' "$next" | sed 's/^/  /'
else
	echo "Nothing is missing."
fi
exit $code
