// SPDX-License-Identifier: GPL-2.0
//! The kernel's `gpu_buddy` and `gen_pool`, compiled from Debian's source package at
//! bench time (see `build.rs`), as safe types.
#![cfg(linux_source)]

use std::ffi::{c_ulong, c_void};

#[cfg(gpu_buddy)]
unsafe extern "C" {
    fn buddy_new(npages: c_ulong) -> *mut c_void;
    fn buddy_claim(buddy: *mut c_void, npages: c_ulong) -> c_ulong;
    fn buddy_release(buddy: *mut c_void, first: c_ulong);
}

unsafe extern "C" {
    fn pool_new(npages: c_ulong) -> *mut c_void;
    fn pool_claim(pool: *mut c_void, npages: c_ulong) -> c_ulong;
    fn pool_release(pool: *mut c_void, first: c_ulong, npages: c_ulong);
}

/// `gen_pool`, with 4K as its smallest size. It stays with the process.
pub struct GenPool(*mut c_void);

// SAFETY: it is made to be used by many at a time.
unsafe impl Send for GenPool {}
// SAFETY: as above.
unsafe impl Sync for GenPool {}

impl GenPool {
    /// All of `npages` free.
    pub fn new(npages: u64) -> GenPool {
        // SAFETY: makes a new one.
        GenPool(unsafe { pool_new(npages) })
    }

    /// The first of `npages` together.
    #[inline]
    pub fn claim(&self, npages: u64) -> Option<u64> {
        // SAFETY: a living pool.
        Some(unsafe { pool_claim(self.0, npages) }).filter(|first| *first != u64::MAX)
    }

    /// Gives back what claim() returned.
    #[inline]
    pub fn release(&self, first: u64, npages: u64) {
        // SAFETY: a living pool; `first` came from claim() with as many pages.
        unsafe { pool_release(self.0, first, npages) }
    }
}

/// `gpu_buddy`, with 4K as its smallest size. It stays with the process.
#[cfg(gpu_buddy)]
pub struct GpuBuddy(*mut c_void);

#[cfg(gpu_buddy)]
// SAFETY: nothing of it belongs to a thread; callers take turns (`&mut self`).
unsafe impl Send for GpuBuddy {}

#[cfg(gpu_buddy)]
impl GpuBuddy {
    /// All of `npages` free.
    pub fn new(npages: u64) -> GpuBuddy {
        // SAFETY: makes a new one.
        GpuBuddy(unsafe { buddy_new(npages) })
    }

    /// The first of `npages` together.
    #[inline]
    pub fn claim(&mut self, npages: u64) -> Option<u64> {
        // SAFETY: a living allocator, ours alone.
        Some(unsafe { buddy_claim(self.0, npages) }).filter(|first| *first != u64::MAX)
    }

    /// Gives back what claim() returned.
    #[inline]
    pub fn release(&mut self, first: u64) {
        // SAFETY: a living allocator, ours alone; `first` came from claim().
        unsafe { buddy_release(self.0, first) }
    }
}
