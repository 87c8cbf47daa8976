#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Inside a test machine: what the doctor says of the running kernel, beside what the loaded
# module says. KTAP on standard output; /data/doctor.sh is install/doctor.sh.
number=0
failed=0
caps=$(cat /sys/module/hmm_devmem/parameters/caps)
told=$(sh /data/doctor.sh --json)

# result TRUTH NAME NOTE
result() {
	number=$((number + 1))
	if [ "$1" = 0 ]; then
		echo "ok $number - $2"
	else
		failed=1
		echo "not ok $number - $2"
		echo "# $3"
	fi
}

# says PATTERN: whether the answer has it
says() { printf '%s\n' "$told" | grep -q -e "$1"; }

echo "KTAP version 1"
for name in mirror private coherent huge exclusive; do
	case " $caps " in *" $name "*) works=yes ;; *) works=no ;; esac
	says "\"$name\": {\"works\": \"$works\""
	result $? "$name: $works, as the module says" "module: $caps; doctor: $told"
done
what="it found that out by itself"
if [ -r /sys/kernel/btf/vmlinux ]; then
	! says "says the loaded module"
	result $? "$what" "$told"
else
	number=$((number + 1))
	echo "ok $number - $what # SKIP this kernel is built without BTF, and a machine has no headers"
fi
says '"agrees": "yes"'
result $? "it sees that the module agrees" "$told"
says '"running": true' && says '"loaded": "yes"' && says '"secure_boot": "no"'
result $? "it sees that the module is loaded and that there is no Secure Boot" "$told"

# At least the reserved upper half of the address space is free in a machine of this size.
bytes=$(printf '%s\n' "$told" | sed -n 's/.*"free_physical_bytes": \([0-9]*\).*/\1/p')
[ "${bytes:-0}" -gt $((1 << 36)) ]
result $? "it finds free physical addresses" "$bytes"
told=$(/busybox/su -s /usr/bin/sh user -c 'sh /data/doctor.sh --json')
says '"free_physical_bytes": null' && says '"agrees": "yes"'
result $? "an ordinary user sees all but the addresses" "$told"
echo "1..$number"
exit $failed
