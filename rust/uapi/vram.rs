// SPDX-License-Identifier: GPL-2.0
//! The commands of `hmm_vram`: work of a device on plain memory of the process.

use crate::vram_sys as sys;
use crate::{Device, Error, Range, Result, ioctl, size_of_u32};

/// Every word of a range becomes `value`.
#[must_use]
pub fn fill(dst: Range, value: u64) -> sys::hmm_vram_command {
    command(sys::HMM_VRAM_FILL, dst.addr, 0, dst.len, value)
}

/// `dst` becomes what `src` is; they may not overlap.
#[must_use]
pub fn copy(dst: u64, src: Range) -> sys::hmm_vram_command {
    command(sys::HMM_VRAM_COPY, dst, src.addr, src.len, 0)
}

/// Every word at `dst` grows by `a` times that of `src`.
#[must_use]
pub fn axpy(dst: u64, a: u64, src: Range) -> sys::hmm_vram_command {
    command(sys::HMM_VRAM_AXPY, dst, src.addr, src.len, a)
}

/// The word at `dst` becomes the sum of the words of `src`.
#[must_use]
pub fn sum(dst: u64, src: Range) -> sys::hmm_vram_command {
    command(sys::HMM_VRAM_SUM, dst, src.addr, src.len, 0)
}

/// The words of a range are put into rising order.
#[must_use]
pub fn sort(range: Range) -> sys::hmm_vram_command {
    command(sys::HMM_VRAM_SORT, range.addr, 0, range.len, 0)
}

fn command(op: u32, dst: u64, src: u64, len: u64, value: u64) -> sys::hmm_vram_command {
    sys::hmm_vram_command {
        op,
        reserved: 0,
        dst,
        src,
        len,
        value,
    }
}

impl Device {
    /// Queues commands; the number is for [`Device::wait`]. `flags` is `HMM_VRAM_STAY` or 0.
    ///
    /// # Safety
    /// Nothing in this program may rely on the bytes that the commands write not changing.
    ///
    /// # Errors
    /// EINVAL: a command that cannot be; EAGAIN: too much is queued; ENODEV, EPERM as
    /// [`Device::info`].
    pub unsafe fn submit(&self, commands: &[sys::hmm_vram_command], flags: u32) -> Result<u64> {
        let mut arg = sys::hmm_vram_submit {
            size: size_of_u32::<sys::hmm_vram_submit>(),
            nr: u32::try_from(commands.len()).unwrap_or(u32::MAX),
            commands: commands.as_ptr() as u64,
            flags: flags.into(),
            job: 0,
        };
        self.call("SUBMIT", ioctl::VRAM_SUBMIT, &mut arg)?;
        Ok(arg.job)
    }

    /// Waits for a submission; what came of its commands is in the result.
    ///
    /// # Errors
    /// ETIMEDOUT: it is not done; ENOENT: no such submission; EINTR.
    pub fn wait(&self, job: u64, timeout_ms: u64) -> Result<sys::hmm_vram_wait> {
        let mut arg = sys::hmm_vram_wait {
            size: size_of_u32::<sys::hmm_vram_wait>(),
            job,
            timeout_ms,
            ..Default::default()
        };
        self.call("WAIT", ioctl::VRAM_WAIT, &mut arg)?;
        Ok(arg)
    }

    /// Does commands and waits for them; a command that failed is an error of this call.
    ///
    /// # Safety
    /// As [`Device::submit`].
    ///
    /// # Errors
    /// As [`Device::submit`] and [`Device::wait`], and that of the command.
    pub unsafe fn run(&self, commands: &[sys::hmm_vram_command]) -> Result<sys::hmm_vram_wait> {
        // SAFETY: forwarded to the caller.
        let job = unsafe { self.submit(commands, 0) }?;
        let result = self.wait(job, u64::MAX)?;
        match i32::try_from(result.error) {
            Ok(0) => Ok(result),
            errno => Err(Error {
                call: "command",
                errno: errno.unwrap_or(0),
            }),
        }
    }

    /// How the device's engine is.
    ///
    /// # Errors
    /// As [`Device::info`].
    pub fn status(&self) -> Result<sys::hmm_vram_status> {
        let mut arg = sys::hmm_vram_status {
            size: size_of_u32::<sys::hmm_vram_status>(),
            ..Default::default()
        };
        self.call("STATUS", ioctl::VRAM_STATUS, &mut arg)?;
        Ok(arg)
    }
}
