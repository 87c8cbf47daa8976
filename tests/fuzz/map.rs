// SPDX-License-Identifier: GPL-2.0
//! The range map with any ranges and any memory, against a list of all that was set.
#![no_main]

#[path = "bytes.rs"]
mod bytes;

use std::sync::Mutex;

use bytes::Bytes;
use hmm_devmem::map::{Map, Refused};
use libfuzzer_sys::fuzz_target;

/// Sets in a run, and the memory they can ever want.
const MOST: usize = 64;
const WORDS: usize = MOST * 48 * 512;

/// The memory of all runs, and what was set in this one.
struct Space {
    words: [u64; WORDS],
    list: [(u64, u64, u32); MOST],
}

static SPACE: Mutex<Space> = Mutex::new(Space {
    words: [0; WORDS],
    list: [(0, 0, 0); MOST],
});

/// Sets ranges until the bytes are used up.
fn sets(bytes: &mut Bytes<'_>, space: &mut Space) -> Option<()> {
    let mut len = 3 * 512;
    space.words[..len].fill(u64::MAX);
    Map::format(&mut space.words[..len])?;
    let mut n = 0;
    let value_at = |list: &[(u64, u64, u32)], page: u64| {
        let over = |s: &&(u64, u64, u32)| s.0 <= page && page - s.0 < s.1;
        list.iter().rev().find(over).map_or(0, |s| s.2)
    };
    while n < MOST {
        let shift = u32::from(bytes.byte()? % 40);
        let first = bytes.number()?.wrapping_shl(shift);
        let (npages, value) = (bytes.number()?, bytes.number()? as u32);
        let mut map = Map::at(&mut space.words[..len]).expect("a map");
        let mut got = map.set(first, npages, value);
        if let Err(Refused::Lend(lend)) = got {
            let more = len + lend.0 as usize * 512;
            space.words[len..more].fill(u64::MAX);
            len = more;
            let mut map = Map::at(&mut space.words[..len]).expect("a map");
            got = map.set(first, npages, value);
            assert_eq!(got, Ok(()), "once is enough");
        }
        if got.is_ok() {
            space.list[n] = (first, npages, value);
            n += 1;
        }
        let (list, map) = (
            &space.list[..n],
            Map::at(&mut space.words[..len]).expect("a map"),
        );
        let last = first.wrapping_add(npages);
        for page in [first, first.wrapping_sub(1), last, last.wrapping_sub(1)] {
            assert_eq!(map.get(page), value_at(list, page), "page {page:#x}");
        }
        // All of it now and then, else what is around.
        let (from, most) = if n % 8 == 0 {
            (0, 50)
        } else {
            (first.saturating_sub(1), 4)
        };
        for run in map.runs(from, u64::MAX).take(most) {
            assert_eq!(value_at(list, run.first), run.value);
            assert_eq!(value_at(list, run.first + run.npages - 1), run.value);
            assert_ne!(value_at(list, run.first + run.npages), run.value);
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
    let mut space = SPACE.lock().expect("one run at a time");
    sets(&mut Bytes(data), &mut space);
});
