// SPDX-License-Identifier: GPL-2.0
//! What C lends to Rust: a way to complain, and a way to stop.
//!
//! `c/port.h` declares both, bindgen turns that into `port_sys.rs`. On the host
//! there is no C behind them: warnings are counted, so that tests can ask.

use core::ffi::CStr;

/// Says where something happened that only a caller's mistake can cause. The
/// core goes on, in a safe state.
#[cfg(hmm_kernel)]
#[cold]
pub fn warn(file: &'static CStr, line: u32) {
    // SAFETY: `file` is a NUL-terminated string that lives as long as the
    // module; hmm_port_warn() only prints and may be called in any context.
    unsafe { crate::port_sys::hmm_port_warn(file.as_ptr(), line) }
}

/// Stops the machine: reached only by a panic, which the link step rules out.
#[cfg(hmm_kernel)]
#[cold]
pub fn stop(line: u32) -> ! {
    // SAFETY: as in warn(); hmm_port_panic() does not return.
    unsafe { crate::port_sys::hmm_port_panic(c"hmm_core".as_ptr(), line) }
}

/// Says where something happened that only a caller's mistake can cause. On
/// the host it is counted.
#[cfg(not(hmm_kernel))]
#[cold]
pub fn warn(_file: &'static CStr, _line: u32) {
    #[cfg(not(loom))]
    WARNINGS.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    #[cfg(loom)]
    panic!("{_file:?}:{_line}: warning in a model");
}

#[cfg(not(any(hmm_kernel, loom)))]
static WARNINGS: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);

/// How many warnings there were in this process.
#[cfg(not(any(hmm_kernel, loom)))]
pub fn warnings() -> u64 {
    WARNINGS.load(core::sync::atomic::Ordering::Relaxed)
}

/// Warns with the place where it stands.
#[doc(hidden)]
#[macro_export]
macro_rules! warn_here {
    () => {{
        const FILE: &core::ffi::CStr =
            match core::ffi::CStr::from_bytes_with_nul(concat!(file!(), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => c"?",
            };
        $crate::port::warn(FILE, line!())
    }};
}
