// SPDX-License-Identifier: GPL-2.0
// GENERATED from c/port.h by `make gen`; not to be edited.
#![allow(missing_docs)]

unsafe extern "C" {
    /// hmm_port_panic() - stop, the core has lost its way.
    /// @file: where, NUL-terminated
    /// @line: where in it
    ///
    /// Called by the core's panic handler only. The build of the kernel object fails
    /// when anything reaches that handler.
    ///
    /// Context: Any.
    /// Return: Never.
    pub fn hmm_port_panic(file: *const ::core::ffi::c_char, line: ::core::ffi::c_uint) -> !;
}
unsafe extern "C" {
    /// hmm_port_warn() - say that something happened which only a caller's mistake can cause.
    /// @file: where, NUL-terminated
    /// @line: where in it
    ///
    /// The core goes on, in a safe state.
    ///
    /// Context: Any, also with page-table locks held and interrupts off.
    pub fn hmm_port_warn(file: *const ::core::ffi::c_char, line: ::core::ffi::c_uint);
}
