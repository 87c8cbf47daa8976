// SPDX-License-Identifier: GPL-2.0
//! The ioctl numbers, computed the way `<linux/ioctl.h>` does.
//!
//! bindgen cannot evaluate `_IOWR(...)`; the numbers are therefore built here from the generated
//! structures, and `tests/abi.rs` compares each with what the C compiler says.

use crate::{sys, vram_sys};
use core::mem::size_of;

const WRITE: u32 = 1;
const READ: u32 = 2;

/// `_IOC(dir, type, nr, size)` of `<asm-generic/ioctl.h>`.
#[must_use]
pub const fn ioc(dir: u32, ty: u8, nr: u8, size: usize) -> u32 {
    assert!(
        size < 1 << 14,
        "an ioctl argument has at most 14 bits of size"
    );
    dir << 30 | (size as u32) << 16 | (ty as u32) << 8 | nr as u32
}

const fn iowr<T>(nr: u8) -> u32 {
    ioc(READ | WRITE, b'H', nr, size_of::<T>())
}

/// The device reads memory into a buffer.
pub const READ_NR: u32 = iowr::<sys::hmm_dmirror_cmd>(0x00);
/// The device writes memory from a buffer.
pub const WRITE_NR: u32 = iowr::<sys::hmm_dmirror_cmd>(0x01);
/// Move to the device, then read back through the device.
pub const MIGRATE_TO_DEV: u32 = iowr::<sys::hmm_dmirror_cmd>(0x02);
/// Move to RAM.
pub const MIGRATE_TO_SYS: u32 = iowr::<sys::hmm_dmirror_cmd>(0x03);
/// Where each page is.
pub const SNAPSHOT: u32 = iowr::<sys::hmm_dmirror_cmd>(0x04);
/// Take pages from the CPU for the device alone.
pub const EXCLUSIVE: u32 = iowr::<sys::hmm_dmirror_cmd>(0x05);
/// Has the device a page for itself alone?
pub const CHECK_EXCLUSIVE: u32 = iowr::<sys::hmm_dmirror_cmd>(0x06);
/// Bring every page of the device home.
pub const RELEASE: u32 = iowr::<sys::hmm_dmirror_cmd>(0x07);
/// How the next move through a descriptor shall go.
pub const FLAGS: u32 = iowr::<sys::hmm_dmirror_cmd>(0x08);
/// As `READ_NR`.
pub const READ_UNLOCKED: u32 = iowr::<sys::hmm_dmirror_cmd>(0x09);
/// Device and process counters.
pub const INFO: u32 = iowr::<sys::hmm_dmirror_info>(0x40);
/// Move what can be moved, count the rest.
pub const MOVE: u32 = iowr::<sys::hmm_dmirror_move>(0x41);
/// Let the device work on memory in place.
pub const COMPUTE: u32 = iowr::<sys::hmm_dmirror_compute>(0x42);
/// Begin a move.
pub const START: u32 = iowr::<sys::hmm_dmirror_start>(0x44);
/// What came of it.
pub const RESULT: u32 = iowr::<sys::hmm_dmirror_result>(0x45);
/// Say something about memory.
pub const SET_HINT: u32 = iowr::<sys::hmm_dmirror_hint>(0x46);
/// What was said about it.
pub const GET_HINT: u32 = iowr::<sys::hmm_dmirror_hint>(0x47);
/// Make the device fail.
pub const FAIL: u32 = ioc(WRITE, b'H', 0x43, size_of::<sys::hmm_dmirror_fail>());
/// `hmm_vram`: queue commands.
pub const VRAM_SUBMIT: u32 = iowr::<vram_sys::hmm_vram_submit>(0x60);
/// `hmm_vram`: wait for a submission.
pub const VRAM_WAIT: u32 = iowr::<vram_sys::hmm_vram_wait>(0x61);
/// `hmm_vram`: how the engine is.
pub const VRAM_STATUS: u32 = iowr::<vram_sys::hmm_vram_status>(0x62);
