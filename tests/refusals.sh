#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# rust/core.sh must refuse what does not belong into a kernel. Each case puts
# something wrong into a copy of hmm_core_size() and expects no object and the
# right reason. `make core-refusals` runs it; nothing in the tree is touched.
set -u
cd "$(dirname "$0")/.." || exit 1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp -r rust c "$dir"/
cp rust/ffi.rs "$dir/ffi.orig"
cd "$dir" || exit 1
passed=0
failed=0

# attempt NAME REASON BODY: REASON is what core.sh must say, "" for nothing to refuse.
attempt() {
	awk -v body="$3" '{ if (!done && $0 == "    region::size(npages, ncpus)") { print "    " body; done = 1 } else print }' \
		ffi.orig > rust/ffi.rs
	rm -rf out
	sh rust/core.sh out/hmm_core.o > log 2>&1
	if [ -z "$2" ] && [ -e out/hmm_core.o ]; then
		ok=1
	elif [ -n "$2" ] && [ ! -e out/hmm_core.o ] && grep -q "REFUSED: $2" log; then
		ok=1
	else
		ok=
	fi
	if [ -n "$ok" ]; then
		passed=$((passed + 1))
		echo "ok $1"
	else
		failed=$((failed + 1))
		echo "not ok $1: expected ${2:-an object}; core.sh said:"
		sed 's/^/    /' log
	fi
}

attempt "the core as it is" "" 'region::size(npages, ncpus)'
attempt "an index that may be out of bounds" "undefined symbols" \
	'let a = [1usize, 2, ncpus as usize]; a[npages as usize]'
attempt "unwrap" "undefined symbols" 'npages.checked_sub(u64::from(ncpus)).unwrap() as usize'
attempt "a division by what may be zero" "panic paths" '(npages / u64::from(ncpus)) as usize'
attempt "floating point" "undefined symbols" '(npages as f64 * f64::from(ncpus)) as usize'
attempt "writable data" "writable data" \
	'static X: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0); X.fetch_add(npages + u64::from(ncpus), core::sync::atomic::Ordering::Relaxed) as usize'
attempt "a function that nobody offers" "undefined symbols" \
	'unsafe extern "C" { fn hmm_nowhere(n: u64, m: u32) -> usize; } unsafe { hmm_nowhere(npages, ncpus) }'
attempt "a function pointer" "undefined symbols" \
	'static T: [fn(u64) -> usize; 2] = [|x| x as usize, |x| (x + 1) as usize]; if let Some(f) = T.get(ncpus as usize) { core::hint::black_box(f)(npages) } else { 0 }'
attempt "a bare return" "returns or indirect" \
	'unsafe { core::arch::asm!("call 2f", "jmp 3f", "2:", "ret", "3:") }; region::size(npages, ncpus)'
attempt "a vector register" "vector" \
	'unsafe { core::arch::asm!("pxor xmm0, xmm0") }; region::size(npages, ncpus)'
attempt "more than 40 KiB of code" "more than 40 KiB" \
	'unsafe { core::arch::asm!(".skip 33000, 0x90") }; region::size(npages, ncpus)'

echo "$passed passed, $failed failed"
[ $failed = 0 ]
