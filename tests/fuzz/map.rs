// SPDX-License-Identifier: GPL-2.0
//! The range map with any ranges and any memory, against a list of all that was set.
#![no_main]

#[path = "bytes.rs"]
mod bytes;

use bytes::Bytes;
use hmm_devmem::map::{Map, Refused};
use libfuzzer_sys::fuzz_target;

/// Sets ranges until the bytes are used up.
fn sets(bytes: &mut Bytes<'_>) -> Option<()> {
    let mut words = vec![u64::MAX; 3 * 512];
    Map::format(&mut words)?;
    let mut list: Vec<(u64, u64, u32)> = Vec::new();
    let value_at = |list: &[(u64, u64, u32)], page: u64| {
        let over = |s: &&(u64, u64, u32)| s.0 <= page && page - s.0 < s.1;
        list.iter().rev().find(over).map_or(0, |s| s.2)
    };
    while list.len() < 200 {
        let shift = u32::from(bytes.byte()? % 40);
        let first = bytes.number()?.wrapping_shl(shift);
        let (npages, value) = (bytes.number()?, bytes.number()? as u32);
        let mut map = Map::at(&mut words).expect("a map");
        match map.set(first, npages, value) {
            Ok(()) => list.push((first, npages, value)),
            Err(Refused::Invalid) => {}
            Err(Refused::Lend(lend)) => {
                let more = words.len() + lend.0 as usize * 512;
                words.resize(more, u64::MAX);
                let mut map = Map::at(&mut words).expect("a map");
                assert_eq!(map.set(first, npages, value), Ok(()), "once is enough");
                list.push((first, npages, value));
            }
        }
        let map = Map::at(&mut words).expect("a map");
        let last = first.wrapping_add(npages);
        for page in [first, first.wrapping_sub(1), last, last.wrapping_sub(1)] {
            assert_eq!(map.get(page), value_at(&list, page), "page {page:#x}");
        }
        let runs: Vec<_> = map.runs(0, u64::MAX).take(50).collect();
        for run in runs {
            assert_eq!(value_at(&list, run.first), run.value);
            assert_eq!(value_at(&list, run.first + run.npages - 1), run.value);
            assert_ne!(value_at(&list, run.first + run.npages), run.value);
        }
        assert_eq!(
            hmm_devmem::port::warnings(),
            0,
            "memory ran out in a change"
        );
    }
    Some(())
}

fuzz_target!(|data: &[u8]| {
    sets(&mut Bytes(data));
});
