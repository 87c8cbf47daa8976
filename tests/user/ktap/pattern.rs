// SPDX-License-Identifier: GPL-2.0
//! Words that can be told from any other, and numbers that look random.

/// The word number `index` of the pattern `seed`: a pseudo-random function, so that any word can be
/// checked alone (the finaliser of splitmix64).
pub fn word(seed: u64, index: usize) -> u64 {
    let mut z = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Random numbers from a number.
pub struct Dice {
    seed: u64,
    thrown: usize,
}

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self { seed, thrown: 0 }
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.thrown += 1;
        word(self.seed, self.thrown)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.any() % limit as u64) as usize
    }
}
