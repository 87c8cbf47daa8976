#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0
#
# The first process of a test machine. The kernel speaks on the first serial port; on the second one we report
# what /plan asks for, one command a line: name, seconds, command. Lines that begin with @vm are for boot.py.
export PATH=/usr/bin:/usr/sbin:/busybox HOME=/root LC_ALL=C
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev 2>/dev/null
/bin/busybox --install -s /busybox
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
# A kernel may be built so that debugfs no longer shows it by itself.
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
mount -t tmpfs tmpfs /tmp && chmod 1777 /tmp
ip link set lo up
stty -F /dev/ttyS1 raw -echo
# Through the third one a test talks to the world outside (outside.py), where there is one.
stty -F /dev/ttyS2 raw -echo 2>/dev/null
exec </dev/null >/dev/ttyS1 2>&1

note() { echo "hmm-vm: $*" >/dev/kmsg; }

# run NAME SECONDS COMMAND: in a session of its own, so that everything it started can be ended with it.
run() {
	note "begin $1"
	printf '@vm begin %s\n' "$1"
	setsid /usr/bin/sh -c "$3" </dev/null &
	child=$!
	setsid sh -c 'sleep "$1"; echo "@vm timeout $2"; echo w >/proc/sysrq-trigger; kill -KILL -"$3"' \
		sh "$2" "$1" "$child" &
	watch=$!
	wait "$child"
	code=$?
	kill -KILL -"$watch" 2>/dev/null
	wait "$watch" 2>/dev/null
	note "end $1"
	printf '\n@vm end %s %d\n' "$1" "$code"
}

echo 1 >/proc/sys/kernel/sysrq
note "start $(uname -r)"
printf '\n@vm up %s\n' "$(cut -d' ' -f1 /proc/uptime)"
while IFS='	' read -r name seconds command; do
	run "$name" "$seconds" "$command"
done </plan
printf '@vm tainted %s\n' "$(cat /proc/sys/kernel/tainted)"
echo '@vm log'
dmesg -r
echo '@vm done'
sync
poweroff -f
