// SPDX-License-Identifier: GPL-2.0
//! The planner to RAM with any entries, against the plainest coalescing loop.
#![no_main]

#[path = "bytes.rs"]
mod bytes;
#[path = "../lent.rs"]
mod lent;

use bytes::Bytes;
use hmm_devmem::plan;
use hmm_devmem::types::{Errno, Segment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    let (Some(src), Some(dst), Some(first)) =
        (bytes.entries(4096), bytes.entries(4096), bytes.number())
    else {
        return;
    };
    let n = src.len().min(dst.len());
    let (src, dst) = (&src[..n], &dst[..n]);
    let mut seg = vec![Segment::default(); n];
    let got = plan::to_ram(src, dst, first, &mut seg);
    let Ok(nseg) = got else {
        assert_eq!(got, Err(Errno::INVAL));
        return;
    };
    let seg = &seg[..nseg as usize];
    assert!(seg.iter().all(|s| s.npages >= 1 && s.status == 0));
    let compound = |e: &u64| e & 16 != 0;
    if src.iter().any(compound) || dst.iter().any(compound) {
        return;
    }
    // No machine has frame numbers of more than 52 bits; beyond them the sum of one and a number may begin at 0 again.
    if src.iter().chain(dst).any(|e| e >> 6 >= 1 << 52) {
        return;
    }
    // Without compounds, each entry by itself.
    let on = |i: usize| src[i] & 3 == 3 && dst[i] & 1 != 0;
    let page = |i: usize| on(i).then(|| ((src[i] >> 6) - first, dst[i] >> 6));
    let pages: Vec<_> = (0..n).map(page).collect();
    assert_eq!(seg, &lent::coalesce(&pages, 1)[..]);
});
