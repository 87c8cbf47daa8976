// SPDX-License-Identifier: GPL-2.0
//! The library that `hmm-run` preloads into a program it knows nothing about.
//!
//! It starts one thread, which walks the program's address space and asks the device to take every
//! anonymous page, again and again. It must not be noticed, hence:
//!
//! * The thread has a descriptor table of its own (`CLOSE_RANGE_UNSHARE`): the program sees no
//!   extra descriptor, cannot close ours, and we keep none of its pipes open.
//! * It blocks every signal, allocates nothing from the program's heap, prints nothing, and ends
//!   rather than fails.
//! * Its stack and buffers are one mapping, which never moves.
//! * `fork`: the thread is gone in the child, so the child starts its own, which opens the device
//!   anew (a descriptor belongs to one address space). `vfork`, `posix_spawn` and `_Fork` children
//!   have none until they call `execve`, which loads this library again.
//! * A program whose last own thread leaves by `pthread_exit` ends, as it would without us.
//!
//! At the end of the process (`exit`, return from `main`, `_exit`) the thread takes the last
//! figures; for other ends those of its last round stand.

#![cfg_attr(test, allow(dead_code))] // the hooks into a process are not compiled into tests

mod maps;
#[allow(dead_code)] // hmm-run uses the other half
mod state;
mod thread;

use state::{ENV, MAGIC, State};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};

/// The shared page; null while (and where) this library does nothing.
static STATE: AtomicPtr<State> = AtomicPtr::new(ptr::null_mut());
/// The thread's stack and buffers.
static REGION: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
/// The process whose thread runs; after `fork` it differs from the caller's.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// What the thread sleeps on: [`RUN`], [`STOP`] or [`DONE`].
static PHASE: AtomicU32 = AtomicU32::new(DONE);

const RUN: u32 = 0;
const STOP: u32 = 1;
const DONE: u32 = 2;

/// How long the end of the program may wait for the last figures.
const LAST_WORDS_NS: u64 = 2_000_000_000;

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".fini_array")]
static FINISH: extern "C" fn() = finish;

#[cfg_attr(test, allow(dead_code))]
extern "C" fn start() {
    let Some(state) = map_state() else { return };
    let Some(region) = thread::map_region() else {
        return;
    };
    STATE.store(state, Ordering::Relaxed);
    REGION.store(region, Ordering::Relaxed);
    // SAFETY: a function of the right type; it stays loaded as long as the process lives.
    unsafe { libc::pthread_atfork(None, None, Some(after_fork)) };
    launch();
}

/// Maps the file that the environment names; `None` leaves the program alone.
fn map_state() -> Option<*mut State> {
    let name = b"HMM_RUN_STATE\0";
    debug_assert_eq!(&name[..name.len() - 1], ENV.as_bytes());
    // SAFETY: a C string; the environment does not change while constructors run.
    let path = unsafe { libc::getenv(name.as_ptr().cast()) };
    if path.is_null() {
        return None;
    }
    // SAFETY: getenv returned a C string.
    let fd = unsafe { libc::open(path, libc::O_RDWR | libc::O_CLOEXEC) };
    if fd < 0 {
        return None;
    }
    // SAFETY: a new shared mapping at a place of the kernel's choice, of a file that is checked to
    // be long enough before anything in it is touched.
    let state = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        let long_enough = libc::fstat(fd, &mut stat) == 0
            && u64::try_from(stat.st_size).is_ok_and(|size| size >= size_of::<State>() as u64);
        let state = if long_enough {
            libc::mmap(
                ptr::null_mut(),
                size_of::<State>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                0,
            )
        } else {
            libc::MAP_FAILED
        };
        libc::close(fd);
        state
    };
    if state == libc::MAP_FAILED {
        return None;
    }
    let state: *mut State = state.cast();
    // SAFETY: mapped above, long enough; all fields are integers.
    unsafe { (*state).settings.magic == MAGIC }.then_some(state)
}

/// Starts the thread of this process.
fn launch() {
    PHASE.store(RUN, Ordering::Relaxed);
    OWNER.store(thread::pid(), Ordering::Relaxed);
    // SAFETY: the mapping stays as long as the process.
    let Some(state) = (unsafe { STATE.load(Ordering::Relaxed).as_ref() }) else {
        return;
    };
    if !thread::start(REGION.load(Ordering::Relaxed)) {
        PHASE.store(DONE, Ordering::Relaxed);
        state.totals.not_started.fetch_add(1, Ordering::Relaxed);
    }
}

/// The child has no thread; it gets one of its own, on the child's copy of the same stack.
extern "C" fn after_fork() {
    launch();
}

/// Lets the thread take the last figures, once, and waits for it (not for ever).
extern "C" fn finish() {
    if OWNER.load(Ordering::Relaxed) != thread::pid() || thread::is_current() {
        return;
    }
    if PHASE
        .compare_exchange(RUN, STOP, Ordering::AcqRel, Ordering::Acquire)
        .is_err()
    {
        return;
    }
    thread::wake(&PHASE);
    let end = state::now_ns() + LAST_WORDS_NS;
    while PHASE.load(Ordering::Acquire) == STOP {
        let left = end.saturating_sub(state::now_ns());
        if left == 0 {
            break;
        }
        thread::wait(&PHASE, STOP, left);
    }
}

/// Stands before the C library's: the same, after the last figures were taken.
///
/// # Safety
/// As `_exit(2)`; it may be called in a `vfork` child, where it does nothing but end the child.
#[cfg(not(test))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _exit(status: libc::c_int) -> ! {
    finish();
    loop {
        // SAFETY: ends the process; the C library's own function does the same.
        unsafe { libc::syscall(libc::SYS_exit_group, status) };
    }
}

/// Stands before the C library's: the same as `_exit`.
///
/// # Safety
/// As `_exit`.
#[cfg(not(test))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Exit(status: libc::c_int) -> ! {
    // SAFETY: the same contract.
    unsafe { _exit(status) }
}
