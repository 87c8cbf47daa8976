// SPDX-License-Identifier: GPL-2.0
//! Small wrappers of system calls that tests need.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// The result of a system call, or its errno.
pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A pipe: read end, write end.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which are then owned.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Reads all there is, without waiting for more.
pub fn drain(fd: &OwnedFd) -> Vec<u8> {
    // SAFETY: a flag of a descriptor that is only read here.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let got = read(fd.as_raw_fd(), &mut piece);
        match got {
            Ok(0) | Err(_) => return all,
            Ok(got) => all.extend_from_slice(&piece[..got]),
        }
    }
}

/// `read(2)`.
pub fn read(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: room for its length.
    let got = unsafe { libc::read(fd, into.as_mut_ptr().cast(), into.len()) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// `write(2)` of memory that may not be there: the kernel says EFAULT instead of killing us.
pub fn write_from(fd: RawFd, addr: u64, len: usize) -> io::Result<usize> {
    // SAFETY: the kernel checks the address.
    let put = unsafe { libc::write(fd, addr as *const libc::c_void, len) };
    usize::try_from(put).map_err(|_| io::Error::last_os_error())
}

/// One process lets another go on.
pub struct Gate {
    read: OwnedFd,
    write: OwnedFd,
}

impl Gate {
    pub fn new() -> io::Result<Self> {
        let (read, write) = pipe()?;
        Ok(Self { read, write })
    }

    /// Lets one waiter through.
    pub fn open(&self) {
        let _ = write_from(self.write.as_raw_fd(), (&raw const *b"x").addr() as u64, 1);
    }

    /// Waits for [`Gate::open`]; `false` after ten seconds or so.
    pub fn wait(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.read.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid entry.
        let ready = unsafe { libc::poll(&mut poll, 1, 30_000) };
        ready == 1 && read(self.read.as_raw_fd(), &mut [0]).is_ok_and(|got| got == 1)
    }
}

pub fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Memory of this kind or not: what `open`, `mmap` and friends say is passed on by name.
pub fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
