// SPDX-License-Identifier: GPL-2.0
//! How much around a faulting page is worth bringing back.
//!
//! A fault that goes on where an earlier window ended, in either direction,
//! gets a window twice as large; one that belongs to no stream gets one half
//! as large as the stream whose place it takes. Windows of full size end on
//! 2 MiB boundaries, so that they can come back as whole folios.
//!
//! Of a block that scattered faults have brought home by a quarter, more comes along; by three
//! eighths, it is wanted as a whole: the rest of it comes with the next one. What goes to the
//! device again counts no more: where both sides use the same pages in turns, scattered faults
//! stay small.
//!
//! Streams and the counts of blocks live in a small table of lent memory, one 64-bit
//! word each. It forgets: a word that is lost, overwritten or out of date costs a worse
//! window, nothing else.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicU64, Ordering::Relaxed};
use crate::types::{BLOCK_PAGES, Window, to_u64, to_usize};

/// Streams that share a hash bucket: one cache line.
pub const WAYS: usize = 8;
/// Blocks whose count is known, in another bucket for each bucket of streams.
const BLOCKS: usize = 4;
/// With so much of a block at home, scattered faults in it bring what the first of a stream does.
const WANTED: u64 = BLOCK_PAGES / 4;
/// With so much of a block at home the rest comes along.
const DENSE: u64 = BLOCK_PAGES * 3 / 8;
/// Pages that the first fault of a stream brings back.
const START: u32 = 4;
/// Never smaller than this when faults are scattered.
const LEAST: u32 = 2;
/// One block.
const MOST: u32 = 9;

/// Which way a stream has been seen to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// One window so far, `at` its first page: either end may follow.
    Unknown,
    /// Up: `at` is the page after the last window.
    Up,
    /// Down: `at` is the first page of the last window.
    Down,
}

/// One stream of faults, packed into a word: 45 bits of page number, 4 bits of
/// window size (as a power of two), 2 bits of direction, 13 bits of the
/// address space it belongs to. A word of 0 is no stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stream {
    at: u64,
    order: u32,
    way: Way,
}

const AT_BITS: u32 = 45;
const AT_MASK: u64 = (1 << AT_BITS) - 1;

impl Stream {
    fn pack(self, tag: u64) -> u64 {
        let way = match self.way {
            Way::Unknown => 1,
            Way::Up => 2,
            Way::Down => 3,
        };
        (self.at & AT_MASK)
            | u64::from(self.order & 15) << AT_BITS
            | way << (AT_BITS + 4)
            | tag << (AT_BITS + 6)
    }

    /// The stream in `raw`, if it is one of the address space `tag`.
    fn unpack(raw: u64, tag: u64) -> Option<Stream> {
        if raw >> (AT_BITS + 6) != tag {
            return None;
        }
        let way = match (raw >> (AT_BITS + 4)) & 3 {
            1 => Way::Unknown,
            2 => Way::Up,
            3 => Way::Down,
            _ => return None,
        };
        let order = (raw >> AT_BITS) & 15;
        let order = if order > 9 {
            MOST
        } else {
            crate::types::to_u32(order)
        };
        Some(Stream {
            at: raw & AT_MASK,
            order,
            way,
        })
    }

    /// The stream after a fault at `page` that continues this one, and its
    /// window's direction; `None` when it does not. Less than half a window's length
    /// may lie between: pages in between can be at home already.
    fn next(self, page: u64) -> Option<Way> {
        let len = 1 << self.order;
        let near = len / 2;
        let end = match self.way {
            Way::Unknown => self.at.saturating_add(len),
            Way::Up | Way::Down => self.at,
        };
        if self.way != Way::Down && page >= end && page - end < near {
            return Some(Way::Up);
        }
        if self.way != Way::Up && page < self.at && self.at - page <= near {
            return Some(Way::Down);
        }
        None
    }
}

/// How many hash buckets a region of `npages` gets: at most a tenth of a bit
/// per frame, at least one, at most 64, a power of two.
pub const fn buckets(npages: u64) -> usize {
    let fair = npages / 5120;
    if fair <= 1 {
        1
    } else if fair >= 64 {
        64
    } else {
        1 << (63 - fair.leading_zeros())
    }
}

fn mix(key: u64) -> u64 {
    // A multiplicative hash: the high bits depend on every bit of the key.
    (key ^ (key >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Where in the table the streams of an address space are, and their tag.
fn place(table: &[AtomicU64], key: u64) -> Option<(u64, &[AtomicU64])> {
    let hash = mix(key);
    // Buckets are a power of two; 13 bits of hash are the tag, the next the bucket.
    let tag = hash >> (64 - 13);
    let nsets = table.len() / (WAYS + BLOCKS);
    let set = to_usize(hash >> 32) & nsets.checked_sub(1)?;
    Some((tag, table.get(set * WAYS..(set + 1) * WAYS)?))
}

const COUNT_MASK: u64 = 1023;

/// The words among which the pages of `block` that windows have brought home are counted, and what
/// a word that does is called: 10 bits of count, here all ones, and 54 bits of hash; never 0 when
/// in use. Neighbouring blocks are in different sets.
fn counts(table: &[AtomicU64], key: u64, block: u64) -> Option<(&[AtomicU64], u64)> {
    let key = mix(key);
    let nsets = table.len() / (WAYS + BLOCKS);
    let set = to_usize((key >> 32).wrapping_add(block)) & nsets.checked_sub(1)?;
    let set = nsets * WAYS + set * BLOCKS;
    let words = table.get(set..set + BLOCKS)?;
    Some((words, mix(key ^ block) | COUNT_MASK))
}

/// The word that is called `name`, and its count.
fn known(words: &[AtomicU64], name: u64) -> Option<(&AtomicU64, u64)> {
    // Bounded: BLOCKS words.
    words.iter().find_map(|word| {
        let raw = word.load(Relaxed);
        (raw | COUNT_MASK == name).then_some((word, raw & COUNT_MASK))
    })
}

/// How many pages of the block of `page` are at home, and where that is kept. A block that is
/// not known takes the place of the smallest count; the others of its set lose a page, so that
/// what nobody comes back to goes in the end.
fn count_of(table: &[AtomicU64], key: u64, page: u64) -> Option<(&AtomicU64, u64)> {
    let (words, name) = counts(table, key, page / BLOCK_PAGES)?;
    let found = known(words, name);
    if found.is_some() {
        return found;
    }
    let mut least = words.first()?;
    // Bounded: BLOCKS words.
    for word in words {
        let raw = word.load(Relaxed);
        if raw & COUNT_MASK < least.load(Relaxed) & COUNT_MASK {
            least = word;
        }
        if raw & COUNT_MASK != 0 {
            word.store(raw - 1, Relaxed);
        }
    }
    least.store(name & !COUNT_MASK, Relaxed);
    Some((least, 0))
}

/// Pages of the block of `page` went to the device: none of it counts as brought home any more.
pub fn went(table: &[AtomicU64], key: u64, page: u64) {
    if let Some((words, name)) = counts(table, key, page / BLOCK_PAGES) {
        if let Some((word, _)) = known(words, name) {
            word.store(name & !COUNT_MASK, Relaxed);
        }
    }
}

/// How much comes home with a scattered fault at `page`, at least `order`: more, the more of its
/// block is there already. It is counted.
fn grown(table: &[AtomicU64], key: u64, page: u64, order: u32) -> u32 {
    let Some((word, count)) = count_of(table, key, page) else {
        return order;
    };
    let order = if count >= DENSE {
        MOST
    } else if count >= WANTED {
        START
    } else {
        order
    };
    // What comes home as a whole begins anew.
    let count = if order == MOST {
        0
    } else {
        count + (1 << order)
    };
    word.store(word.load(Relaxed) & !COUNT_MASK | count, Relaxed);
    order
}

/// The window of a fault at `page` in the address space `key`, inside
/// `[lo, hi)`, of at most `max` pages. It always contains `page`; if `page` is
/// not inside `[lo, hi)`, it is `page` alone.
pub fn fault(table: &[AtomicU64], key: u64, page: u64, lo: u64, hi: u64, max: u32) -> Window {
    let alone = Window {
        first: page,
        npages: 1,
    };
    if page < lo || page >= hi || page > AT_MASK || max <= 1 {
        return alone;
    }
    let most = if max >= 512 {
        MOST
    } else {
        31 - max.leading_zeros()
    };
    let Some((tag, ways)) = place(table, key) else {
        return alone;
    };

    let mut found = None;
    let mut oldest = None;
    // Bounded: WAYS streams.
    for way in ways {
        let raw = way.load(Relaxed);
        if raw == 0 && oldest.is_none() {
            oldest = Some((way, START));
        }
        // Most are far away, whatever else they are; see next().
        if page.wrapping_sub(raw & AT_MASK).wrapping_add(BLOCK_PAGES) >= 3 * BLOCK_PAGES {
            continue;
        }
        let Some(stream) = Stream::unpack(raw, tag) else {
            continue;
        };
        if let Some(dir) = stream.next(page) {
            found = Some((way, stream, dir));
            break;
        }
    }
    let (way, order, dir) = match found {
        Some((way, stream, dir)) => (way, stream.order + 1, dir),
        None => {
            // A new stream: a free place, or the one that a hash of the page
            // picks, at half the size of the stream that loses it.
            let victim = to_usize(mix(page) >> 40) % WAYS;
            let (way, order) = match (oldest, ways.get(victim)) {
                (Some(free), _) => free,
                (None, Some(way)) => match Stream::unpack(way.load(Relaxed), tag) {
                    Some(old) => (way, old.order.saturating_sub(1)),
                    None => (way, START),
                },
                (None, None) => return alone,
            };
            let order = if order < LEAST { LEAST } else { order };
            let order = if order > START { START } else { order };
            (way, grown(table, key, page, order), Way::Unknown)
        }
    };
    let order = if order > most { most } else { order };
    let len = 1 << order;
    // Up: from the page to the next multiple of the size. Down: likewise below.
    // Unknown: the aligned window that the page is in.
    let base = page & !(len - 1);
    let (first, end) = match dir {
        Way::Unknown => (base, base + len),
        Way::Up => (page, base + len),
        Way::Down => (base, page + 1),
    };
    let first = if first < lo { lo } else { first };
    let end = if end > hi { hi } else { end };
    let at = match dir {
        Way::Unknown => base,
        Way::Up => end,
        Way::Down => first,
    };
    way.store(
        Stream {
            at,
            order,
            way: dir,
        }
        .pack(tag),
        Relaxed,
    );
    Window {
        first,
        npages: end - first,
    }
}

/// Forgets everything; only the caller may see the memory yet.
pub fn format(table: &[AtomicU64]) {
    for way in table {
        way.store(0, Relaxed);
    }
}

/// Words that the table of a region of `npages` takes.
pub const fn table_words(npages: u64) -> usize {
    to_usize(to_u64(buckets(npages)) * to_u64(WAYS + BLOCKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_survive_packing() {
        for way in [Way::Unknown, Way::Up, Way::Down] {
            for at in [0, 1, 12345, AT_MASK] {
                for order in 0..=MOST {
                    for tag in [0, 1, 8191] {
                        let stream = Stream { at, order, way };
                        assert_eq!(Stream::unpack(stream.pack(tag), tag), Some(stream));
                        assert_eq!(Stream::unpack(stream.pack(tag), tag ^ 1), None);
                        assert_ne!(stream.pack(tag), 0);
                    }
                }
            }
        }
        assert_eq!(Stream::unpack(0, 0), None);
    }

    #[test]
    fn buckets_are_a_power_of_two() {
        for npages in 1..1_000_000 {
            let n = buckets(npages);
            assert!(n.is_power_of_two() && n <= 64);
            assert!(n == 1 || n * WAYS * 64 * 10 <= to_usize(npages) + 64 * 64 * 10);
        }
    }
}
