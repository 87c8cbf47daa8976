// SPDX-License-Identifier: GPL-2.0
//! System calls by which the kernel itself takes pages of a process.

use hmm_uapi::PAGE_SIZE;
use std::io;
use std::os::fd::RawFd;

fn count(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn pointer(at: usize) -> *mut libc::c_void {
    std::ptr::with_exposed_provenance_mut(at)
}

/// `write(2)` of what is in memory of ours.
pub fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: as long as it says.
    count(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })
}

/// Each page a piece of its own, so that the kernel takes them one by one.
fn pieces(at: usize, len: usize) -> Vec<libc::iovec> {
    (at..at + len)
        .step_by(PAGE_SIZE)
        .map(|at| libc::iovec {
            iov_base: pointer(at),
            iov_len: PAGE_SIZE,
        })
        .collect()
}

/// Reads memory of a process at `at`. Whether it was all of it.
pub fn read_remote(pid: libc::pid_t, at: usize, into: &mut [u8]) -> io::Result<bool> {
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let remote = pieces(at, into.len());
    // SAFETY: room for what is read.
    let got = patient(|| {
        count(unsafe {
            libc::process_vm_readv(pid, &local, 1, remote.as_ptr(), remote.len() as u64, 0)
        })
    })?;
    Ok(got == into.len())
}

/// The kernel's process_vm_rw_single_vec() says EFAULT for whatever kept it from pinning a page, also for
/// what passes: no memory for a moment, a page on its way. Who may not, may not after a while either.
fn patient(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    for _ in 0..50 {
        match call() {
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => crate::sys::sleep_ms(1),
            other => return other,
        }
    }
    call()
}

/// Writes memory of this process at `at`, as if it were another's. Whether it was all of it.
pub fn write_remote(at: usize, from: &[u8]) -> io::Result<bool> {
    let local = libc::iovec {
        iov_base: from.as_ptr().cast_mut().cast(),
        iov_len: from.len(),
    };
    let remote = pieces(at, from.len());
    // SAFETY: the caller's own memory at `at`, which only it writes.
    let put = patient(|| {
        count(unsafe {
            let pid = libc::getpid();
            libc::process_vm_writev(pid, &local, 1, remote.as_ptr(), remote.len() as u64, 0)
        })
    })?;
    Ok(put == from.len())
}

/// Whether this kernel has these two calls.
pub fn has_remote() -> bool {
    let mut byte = [0];
    let at = byte.as_ptr().addr();
    // SAFETY: only a question.
    let pid = unsafe { libc::getpid() };
    !read_remote(pid, at, &mut byte).is_err_and(|error| error.raw_os_error() == Some(libc::ENOSYS))
}

/// Puts pages, not their contents, into a pipe.
pub fn splice_from(pipe: RawFd, at: usize, len: usize) -> io::Result<usize> {
    let piece = libc::iovec {
        iov_base: pointer(at),
        iov_len: len,
    };
    // SAFETY: the kernel checks the address.
    count(unsafe { libc::vmsplice(pipe, &piece, 1, 0) })
}

/// Writes pages to a file.
pub fn put_at(fd: RawFd, at: usize, len: usize, place: u64) -> io::Result<usize> {
    // SAFETY: the kernel checks the address.
    count(unsafe { libc::pwrite(fd, pointer(at), len, place as libc::off_t) })
}

/// Reads a file into pages.
pub fn get_at(fd: RawFd, at: usize, len: usize, place: u64) -> io::Result<usize> {
    // SAFETY: pages that only the caller uses.
    count(unsafe { libc::pread(fd, pointer(at), len, place as libc::off_t) })
}
