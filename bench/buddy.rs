// SPDX-License-Identifier: GPL-2.0
//! The kernel's `gpu_buddy`, compiled from Debian's source package at bench time
//! (see `build.rs`), as a safe type.
#![cfg(gpu_buddy)]

use std::ffi::{c_ulong, c_void};

unsafe extern "C" {
    fn buddy_new(npages: c_ulong) -> *mut c_void;
    fn buddy_claim(buddy: *mut c_void, npages: c_ulong) -> c_ulong;
    fn buddy_release(buddy: *mut c_void, first: c_ulong);
}

/// `gpu_buddy`, with 4K as its smallest size. It stays with the process.
pub struct GpuBuddy(*mut c_void);

// SAFETY: nothing of it belongs to a thread; callers take turns (`&mut self`).
unsafe impl Send for GpuBuddy {}

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
