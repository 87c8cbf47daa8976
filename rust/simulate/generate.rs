// SPDX-License-Identifier: GPL-2.0
//! Traces of programs that are easy to describe: what each does is its name. The same
//! every time.

use crate::random::Random;
use crate::trace::{Event, Trace, What};

/// Blocks that each program has.
const BLOCKS: u64 = 8;
const BLOCK: u64 = 512;
const BASE: u64 = 0x7_f31c_0400;

/// Writes events one microsecond apart.
struct Tape {
    events: Vec<Event>,
}

impl Tape {
    fn put(&mut self, what: What, page: u64, npages: u64) {
        self.events.push(Event {
            ns: self.events.len() as u64 * 1000,
            what,
            space: 1,
            page: BASE + page,
            npages,
        });
    }
}

/// The names of all that can be generated.
pub const NAMES: [&str; 6] = ["scan", "down", "strided", "scattered", "hot", "pingpong"];

/// A trace by its name; `None` if there is no such.
pub fn generate(name: &str) -> Option<Trace> {
    let pages = BLOCKS * BLOCK;
    let mut random = Random(name.len() as u64);
    let mut below = |n: u64| (random.next() >> 33) % n;
    let mut tape = Tape { events: Vec::new() };
    for block in 0..BLOCKS {
        tape.put(What::In, block * BLOCK, BLOCK);
    }
    match name {
        // The device writes all of it, the CPU reads it from one end to the other.
        "scan" => (0..pages).for_each(|page| tape.put(What::Cpu, page, 1)),
        "down" => (0..pages)
            .rev()
            .for_each(|page| tape.put(What::Cpu, page, 1)),
        // Every third page: a column of a table.
        "strided" => (0..pages)
            .step_by(3)
            .for_each(|page| tape.put(What::Cpu, page, 1)),
        // A hash table: a few places anywhere, while the device goes on.
        "scattered" => (0..1500).for_each(|i| {
            tape.put(What::Cpu, below(pages), 1);
            if i % 16 == 0 {
                tape.put(What::Dev, below(BLOCKS) * BLOCK, BLOCK);
            }
        }),
        // The device uses two blocks all the time and goes through the rest; the CPU
        // looks at results in the rest.
        "hot" => (0..400).for_each(|i| {
            tape.put(What::Dev, i % 2 * BLOCK, BLOCK);
            let block = 2 + i / 4 % (BLOCKS - 2);
            tape.put(What::Dev, block * BLOCK + below(8) * 64, 64);
            if i % 8 == 7 {
                let page = block * BLOCK + below(BLOCK - 4);
                (page..page + 4).for_each(|page| tape.put(What::Cpu, page, 1));
            }
        }),
        // Both sides use the same memory in turns: what comes home goes back at once.
        "pingpong" => (0..60).for_each(|turn| {
            let block = turn % 4 * BLOCK;
            let page = block + turn * 8 % BLOCK;
            (page..page + 8).for_each(|page| tape.put(What::Cpu, page, 1));
            tape.put(What::Dev, block, BLOCK);
        }),
        _ => return None,
    }
    tape.put(What::Gone, 0, pages);
    Some(Trace {
        window: 1,
        events: tape.events,
    })
}
