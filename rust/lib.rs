// SPDX-License-Identifier: GPL-2.0
//! The core of hmm-devmem: which device page, in which order, how much at once.
//!
//! No kernel header, no allocator, no panic. C lends one piece of memory per
//! region and gets answers as arrays of page indices. The same source is the
//! kernel object (`rust/core.mk`) and a host library (`Cargo.toml`), where the
//! tests and benches drive it.
//!
//! Reading order is a page's journey: [`plan`] asks [`frames`] for device
//! frames and turns the answer into copy segments; [`retired`] knows which frames
//! are not to be had any more; [`window`] says how much a
//! CPU fault brings back, and [`density`] which of a block; [`evict`] finds what is resident; [`region`] lays all
//! of it out in the lent memory; [`ffi`] is the border to C. Apart from these,
//! [`map`] knows what is where in an address space, in memory from [`nodes`].
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]

pub mod density;
pub mod evict;
#[cfg(not(loom))]
pub mod ffi;
pub mod frames;
pub mod map;
pub mod nodes;
pub mod plan;
pub mod port;
#[cfg(hmm_kernel)]
#[rustfmt::skip]
mod port_sys;
#[cfg(not(loom))]
pub mod region;
pub mod retired;
pub mod types;
pub mod window;

/// The atomics that everything here is built on: the machine's own, or the
/// model checker's when the crate is built with `--cfg loom`.
pub mod atomic {
    #[cfg(not(loom))]
    pub use core::sync::atomic::{AtomicU64, Ordering};
    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicU64, Ordering};

    /// A sequentially consistent load. The model checker knows that order only
    /// for fences, so there it is a fence and a load.
    #[inline(always)]
    pub fn look(word: &AtomicU64) -> u64 {
        #[cfg(loom)]
        loom::sync::atomic::fence(Ordering::SeqCst);
        word.load(Ordering::SeqCst)
    }

    /// Lets another get on with its work before we look again.
    #[inline(always)]
    pub fn pause() {
        #[cfg(loom)]
        loom::thread::yield_now();
        #[cfg(not(loom))]
        core::hint::spin_loop();
    }
}

/// The kernel object's panic handler. The link step fails when anything
/// reaches it, so this is a proof obligation, not a code path.
#[cfg(hmm_kernel)]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    port::stop(line!())
}
