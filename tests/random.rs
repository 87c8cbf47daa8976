// SPDX-License-Identifier: GPL-2.0
//! Numbers that look random and are the same in every run: for tests, benches and
//! generated traces.
#![allow(dead_code)]

/// A linear congruential generator; what it holds is the seed.
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits, of which the upper ones are good.
    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        self.0
    }

    /// One below `n`, which fits 32 bits. No division: benches time it.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        ((self.next() >> 32) * n) >> 32
    }
}
