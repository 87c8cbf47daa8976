// SPDX-License-Identifier: GPL-2.0
//! Which pages of a block are worth bringing along, by how many of their
//! neighbours are wanted.
//!
//! A block's 512 pages are the leaves of a binary tree. For each page that was
//! faulted on, the largest subtree around it comes along that has more than a given
//! share of its pages here already or faulted on. Instead of going up from each page,
//! each level of the tree is done in one go: the counts of all subtrees of a level
//! lie side by side in a word, and are compared there.
#![forbid(unsafe_code)]

use crate::types::to_u64;

/// One bit for each page of a block.
pub type Mask = [u64; 8];

/// Fields of `w` bits: a bit at the lowest place of each.
const fn ones(w: u32) -> u64 {
    u64::MAX / if w >= 64 { u64::MAX } else { (1 << w) - 1 }
}

/// From how many wanted pages on a subtree of `pages` comes along.
#[inline(always)]
const fn enough(pages: u64, percent: u64) -> u64 {
    pages * percent / 100 + 1
}

/// One level inside a word. `counts`: fields of `W` bits, how many of their `W`
/// pages are wanted. `faulted`: the lowest bit of a field says whether one of them
/// was faulted on. The pages of the fields that come along.
#[inline(always)]
fn level<const W: u32>(counts: u64, faulted: u64, percent: u64) -> u64 {
    let enough = enough(W as u64, percent);
    if enough > W as u64 {
        return 0;
    }
    // The top bit of a field after the addition: its count is large enough. No
    // field runs over: W + 2^(W-1) - 1 is less than 2^W from W = 4 on, and for
    // W = 2 `enough` is 2 or 1.
    let top = 1u64 << (W - 1);
    let hit = counts.wrapping_add(top.wrapping_sub(enough).wrapping_mul(ones(W)));
    let hit = hit >> (W - 1) & faulted & ones(W);
    // From a bit at the lowest place to the whole field.
    (hit << W).wrapping_sub(hit)
}

/// The pages of one word that come along, up to subtrees of 32 pages.
#[inline(always)]
fn inside(wanted: u64, faults: u64, percent: u64) -> u64 {
    let fold = |x: u64, w: u32| x | x >> w;
    let c2 = wanted - (wanted >> 1 & 0x5555_5555_5555_5555);
    let f2 = fold(faults, 1);
    let c4 = (c2 & 0x3333_3333_3333_3333) + (c2 >> 2 & 0x3333_3333_3333_3333);
    let f4 = fold(f2 & ones(2), 2);
    let c8 = (c4 + (c4 >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    let f8 = fold(f4 & ones(4), 4);
    let c16 = (c8 + (c8 >> 8)) & 0x00ff_00ff_00ff_00ff;
    let f16 = fold(f8 & ones(8), 8);
    let c32 = (c16 + (c16 >> 16)) & 0x0000_ffff_0000_ffff;
    let f32 = fold(f16 & ones(16), 16);
    faults
        | level::<2>(c2, f2, percent)
        | level::<4>(c4, f4, percent)
        | level::<8>(c8, f8, percent)
        | level::<16>(c16, f16, percent)
        | level::<32>(c32, f32, percent)
}

/// The pages to bring: those of `faults`, and around them the largest subtrees of
/// which more than `percent` are in `here` or `faults`; none that is `here`.
pub fn prefetch(here: &Mask, faults: &Mask, percent: u32) -> Mask {
    let percent = u64::from(percent);
    let mut counts = [0u64; 8];
    let mut any = 0u32;
    let mut total = 0;
    // Bounded, as all loops here: eight words.
    for (i, (count, (here, faults))) in counts.iter_mut().zip(here.iter().zip(faults)).enumerate() {
        *count = u64::from((here | faults).count_ones());
        total += *count;
        any |= u32::from(*faults != 0) << i;
    }
    let mut out = [0; 8];
    if any == 0 {
        return out;
    }
    if total >= enough(512, percent) {
        for (out, here) in out.iter_mut().zip(here) {
            *out = !here;
        }
        return out;
    }
    // Subtrees of whole words, a bit for each word: of 256, 128 and 64 pages.
    let whole = words::<4>(&counts, any, percent)
        | words::<2>(&counts, any, percent)
        | words::<1>(&counts, any, percent);
    for (i, out) in out.iter_mut().enumerate() {
        let (Some(here), Some(faults)) = (here.get(i), faults.get(i)) else {
            continue;
        };
        if whole >> i & 1 != 0 {
            *out = !here;
        } else if *faults != 0 {
            *out = inside(here | faults, *faults, percent) & !here;
        }
    }
    out
}

/// Which words come along because their subtree of `N` words does.
#[inline(always)]
fn words<const N: usize>(counts: &Mask, any: u32, percent: u64) -> u32 {
    let enough = enough(to_u64(N) * 64, percent);
    let group = (1u32 << N) - 1;
    let mut out = 0;
    for (i, counts) in counts.chunks_exact(N).enumerate() {
        let sum: u64 = counts.iter().sum();
        let mask = group << (i * N);
        if sum >= enough && any & mask != 0 {
            out |= mask;
        }
    }
    out
}
