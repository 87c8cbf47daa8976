// SPDX-License-Identifier: GPL-2.0
//! Any sequence of calls of the C ABI with any numbers: no panic, no endless loop,
//! known errors only, and books that never believe in more frames than there are.
#![no_main]

#[path = "bytes.rs"]
mod bytes;

use std::sync::Mutex;

use bytes::{Bytes, NONE};
use hmm_devmem::ffi;
use hmm_devmem::region;
use hmm_devmem::types::{CoreStats, Plan, Segment, Window};
use libfuzzer_sys::fuzz_target;

const MOST: usize = 2048;
/// The largest region, in pages and CPUs.
const PAGES: u64 = 5000;
const CPUS: u32 = 4;

/// What is lent in all runs: to allocate it takes longer than most calls.
#[repr(align(64))]
struct Arrays {
    region: [u8; region::size(PAGES, CPUS)],
    src: [u64; MOST],
    dst: [u64; MOST],
    seg: [Segment; MOST],
}

static ARRAYS: Mutex<Arrays> = Mutex::new(Arrays {
    region: [0; region::size(PAGES, CPUS)],
    src: [0; MOST],
    dst: [0; MOST],
    seg: [NONE; MOST],
});

/// Calls until the bytes are used up.
fn calls(bytes: &mut Bytes<'_>, arrays: &mut Arrays) -> Option<()> {
    let total = 1 + bytes.number()? % PAGES;
    let ncpus = 1 + u32::from(bytes.byte()?) % CPUS;
    let Arrays {
        region,
        src,
        dst,
        seg,
    } = arrays;
    let size = ffi::hmm_core_size(total, ncpus);
    // Nothing may rely on zeroes.
    region[..size].fill(0xa5);
    let mem = region.as_mut_ptr();
    // SAFETY: memory of that size, for this run.
    let ret = unsafe { ffi::hmm_core_init(mem.cast(), size, total, ncpus) };
    assert_eq!(ret, 0);
    let core: *const region::Core = mem.cast_const().cast();
    loop {
        let cpu = u32::from(bytes.byte()?);
        let (mut first, mut npages) = (0, 1);
        let inside = |ret: i32, first: u64, npages: u64| {
            assert!(ret != 0 || npages >= 1 && first + npages <= total);
            ret
        };
        // SAFETY: a living region; each array is as long as it is said to be.
        let ret = unsafe {
            match bytes.byte()? % 12 {
                0 | 1 => {
                    let mut plan = Plan::default();
                    let n = bytes.entries(src)? as u32;
                    let (src, dst) = (src.as_ptr(), dst.as_mut_ptr());
                    let seg = seg.as_mut_ptr();
                    ffi::hmm_core_plan_to_device(core, cpu, src, dst, n, seg, &mut plan)
                }
                2 => {
                    let n = bytes.entries(src)?.min(bytes.entries(dst)?) as u32;
                    let pfn = bytes.number()?;
                    let mut nseg = 0;
                    let (src, dst) = (src.as_ptr(), dst.as_ptr());
                    ffi::hmm_core_plan_to_ram(src, dst, n, pfn, seg.as_mut_ptr(), &mut nseg)
                }
                3 => {
                    ffi::hmm_core_commit(core, cpu, bytes.number()?);
                    0
                }
                4 => ffi::hmm_core_rollback(core, cpu, bytes.number()?, bytes.number()?),
                5 | 6 => ffi::hmm_core_release(core, cpu, bytes.number()?, bytes.number()?),
                7 => ffi::hmm_core_retire(core, bytes.number()?, bytes.number()?),
                8 => {
                    ffi::hmm_core_touch(core, bytes.number()?, bytes.number()?);
                    0
                }
                9 => {
                    let (from, max) = (bytes.number()?, bytes.number()?);
                    let ret = ffi::hmm_core_next_span(core, from, max, &mut first, &mut npages);
                    inside(ret, first, npages)
                }
                10 => {
                    let max = bytes.number()?;
                    let ret = ffi::hmm_core_victim(core, max, &mut first, &mut npages);
                    inside(ret, first, npages)
                }
                _ => {
                    let mut w = Window::default();
                    let (key, page) = (bytes.number()?, bytes.number()?);
                    let (lo, hi) = (bytes.number()?, bytes.number()?);
                    let max = bytes.number()? as u32;
                    ffi::hmm_core_window(core, key, page, lo, hi, max, &mut w);
                    if max % 2 == 0 {
                        ffi::hmm_core_went(core, key, lo);
                    }
                    assert!(w.first <= page && page - w.first < w.npages && w.npages <= 512);
                    0
                }
            }
        };
        assert!([0, -2, -22, -114].contains(&ret), "{ret}");
        let mut stats = CoreStats::default();
        // SAFETY: a living region and a structure to fill.
        unsafe { ffi::hmm_core_stats(core, &mut stats) };
        assert!(stats.total == total && stats.free <= total && stats.retired <= total);
    }
}

fuzz_target!(|data: &[u8]| {
    let mut arrays = ARRAYS.lock().expect("one run at a time");
    calls(&mut Bytes(data), &mut arrays);
});
