// SPDX-License-Identifier: GPL-2.0
//! The planner to RAM with any entries, against the plainest coalescing loop.
#![no_main]

#[path = "bytes.rs"]
mod bytes;

use std::sync::Mutex;

use bytes::{Bytes, NONE};
use hmm_devmem::plan;
use hmm_devmem::types::{Errno, Segment};
use libfuzzer_sys::fuzz_target;

const MOST: usize = 2048;

/// The arrays of all runs: to allocate them takes longer than a plan.
struct Arrays {
    src: [u64; MOST],
    dst: [u64; MOST],
    seg: [Segment; MOST],
}

static ARRAYS: Mutex<Arrays> = Mutex::new(Arrays {
    src: [0; MOST],
    dst: [0; MOST],
    seg: [NONE; MOST],
});

fn plan(bytes: &mut Bytes<'_>, arrays: &mut Arrays) -> Option<()> {
    let n = bytes.entries(&mut arrays.src)?;
    let n = n.min(bytes.entries(&mut arrays.dst)?);
    let first = bytes.number()?;
    let (src, dst) = (&arrays.src[..n], &arrays.dst[..n]);
    let got = plan::to_ram(src, dst, first, &mut arrays.seg[..n]);
    let Ok(nseg) = got else {
        assert_eq!(got, Err(Errno::INVAL));
        return None;
    };
    let seg = &arrays.seg[..nseg as usize];
    assert!(seg.iter().all(|s| s.npages >= 1 && s.status == 0));
    let compound = |e: &u64| e & 16 != 0;
    if src.iter().any(compound) || dst.iter().any(compound) {
        return None;
    }
    // No machine has frame numbers of more than 52 bits; beyond them the sum of one and a number may begin at 0 again.
    if src.iter().chain(dst).any(|e| e >> 6 >= 1 << 52) {
        return None;
    }
    // Without compounds, each entry by itself: what the segments say, page by page, is
    // what the entries say, and a segment ends only where it has to.
    let mut said = seg.iter().flat_map(|s| {
        (0..s.npages).map(move |k| {
            (
                s,
                k,
                s.entry + k,
                s.src + u64::from(k),
                s.dst + u64::from(k),
            )
        })
    });
    let mut last = None;
    for (i, (s, d)) in src.iter().zip(dst).enumerate() {
        if s & 3 != 3 || d & 1 == 0 {
            continue;
        }
        let page = (i as u32, (s >> 6) - first, d >> 6);
        let (segment, k, entry, from, to) =
            said.next().expect("a page that is to move is in a segment");
        assert_eq!((entry, from, to), page, "{segment:?}");
        let goes_on = last == Some((page.0, page.1, page.2));
        assert_eq!(k != 0, goes_on, "{segment:?}");
        last = Some((page.0 + 1, page.1 + 1, page.2 + 1));
    }
    assert!(said.next().is_none(), "a segment of nothing");
    Some(())
}

fuzz_target!(|data: &[u8]| {
    let mut arrays = ARRAYS.lock().expect("one run at a time");
    plan(&mut Bytes(data), &mut arrays);
});
