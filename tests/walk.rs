// SPDX-License-Identifier: GPL-2.0
//! The density prefetch as it is usually written: over a tree of counts, level by
//! level, and from each faulted page up. Tests and benches compare with it.

/// What `density::prefetch` has to say.
pub fn level_by_level(here: &[u64; 8], faults: &[u64; 8], percent: u32) -> [u64; 8] {
    // counts[1] is the root, counts[512 + page] a page.
    let mut counts = [0u16; 1024];
    let mut page = 0;
    while page < 512 {
        let wanted = here[page / 64] | faults[page / 64];
        counts[512 + page] = (wanted >> (page % 64) & 1) as u16;
        page += 1;
    }
    let mut node = 511;
    while node > 0 {
        counts[node] = counts[2 * node] + counts[2 * node + 1];
        node -= 1;
    }
    let mut out = *faults;
    for word in 0..8 {
        let mut left = faults[word];
        while left != 0 {
            let page = word * 64 + left.trailing_zeros() as usize;
            left &= left - 1;
            let (mut first, mut n) = (page, 1);
            let mut level = 1;
            while level < 10 {
                let size = 1usize << level;
                let count = u32::from(counts[(512 + page) >> level]);
                if count * 100 > size as u32 * percent {
                    (first, n) = (page & !(size - 1), size);
                }
                level += 1;
            }
            let mask = if n >= 64 { u64::MAX } else { (1 << n) - 1 } << (first % 64);
            let mut at = first / 64;
            while at * 64 < first + n {
                out[at] |= mask;
                at += 1;
            }
        }
    }
    for (out, here) in out.iter_mut().zip(here) {
        *out &= !here;
    }
    out
}

/// The same without a tree: for each faulted page that does not come along yet, the
/// counts of the subtrees around it, largest first, from the bits.
#[allow(dead_code)]
pub fn page_by_page(here: &[u64; 8], faults: &[u64; 8], percent: u32) -> [u64; 8] {
    let wanted: [u64; 8] = core::array::from_fn(|i| here[i] | faults[i]);
    let low = |n: usize| if n == 64 { u64::MAX } else { (1 << n) - 1 };
    let mut out = [0u64; 8];
    for word in 0..8 {
        let mut left = faults[word] & !out[word];
        while left != 0 {
            let page = word * 64 + left.trailing_zeros() as usize;
            for level in (0..10).rev() {
                let size = 1usize << level;
                let first = page & !(size - 1);
                let words = first / 64..(first + size).div_ceil(64);
                let mask = low(size.min(64)) << (first % 64);
                let count: u32 = words.clone().map(|w| (wanted[w] & mask).count_ones()).sum();
                if level == 0 || u64::from(count) * 100 > size as u64 * u64::from(percent) {
                    words.for_each(|w| out[w] |= mask);
                    break;
                }
            }
            left &= !out[word];
        }
    }
    core::array::from_fn(|i| out[i] & !here[i])
}
