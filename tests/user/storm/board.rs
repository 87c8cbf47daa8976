// SPDX-License-Identifier: GPL-2.0
//! What the processes of a run tell each other: a piece of shared memory.

use crate::plan::KINDS;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

pub const PROCESSES: usize = 8;
pub const THREADS: usize = 4;
const TEXT: usize = 4000;
const NO_STEP: u32 = u32::MAX;

/// One process.
#[derive(Default)]
pub struct Process {
    /// What each thread is doing.
    step: [AtomicU32; THREADS],
    /// It goes by kill -9 now: whatever becomes of it is right.
    pub doomed: AtomicBool,
}

/// All of them. Zeroes are a good beginning.
pub struct Board {
    pub processes: [Process; PROCESSES],
    /// Steps of each kind.
    pub done: [AtomicU64; KINDS.len()],
    /// What they came to: pages, mostly.
    pub effect: [AtomicU64; KINDS.len()],
    /// How long they took, in nanoseconds of all threads together.
    pub spent: [AtomicU64; KINDS.len()],
    /// Calls that were refused for a reason that a device failing on purpose explains.
    pub refused: AtomicU64,
    pub bus_errors: AtomicU64,
    /// Steps of all.
    pub steps: AtomicU64,
    failed: AtomicBool,
    length: AtomicUsize,
    text: [AtomicU32; TEXT],
}

impl Board {
    /// A board that forked processes share; it stays until the program ends.
    pub fn new() -> &'static Self {
        // SAFETY: a new mapping.
        let place = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Self>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(place != libc::MAP_FAILED, "no memory");
        // SAFETY: a mapping of that size at a page boundary, never unmapped; all of it is atomics,
        // for which zeroes are a value.
        unsafe { &*place.cast::<Self>() }
    }

    /// A thread begins a step.
    pub fn begin(&self, process: usize, thread: usize, number: usize) {
        let number = u32::try_from(number).unwrap_or(NO_STEP);
        self.processes[process].step[thread].store(number + 1, Ordering::Relaxed);
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// A step of this kind came to that, in that time.
    pub fn did(&self, kind: usize, effect: usize, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(0);
        for (sum, more) in [
            (&self.done, 1),
            (&self.effect, effect as u64),
            (&self.spent, nanos),
        ] {
            sum[kind].fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Nobody has begun anything in this process.
    pub fn clear(&self, process: usize) {
        for step in &self.processes[process].step {
            step.store(0, Ordering::Relaxed);
        }
        self.processes[process]
            .doomed
            .store(false, Ordering::Relaxed);
    }

    /// The step that a thread is doing.
    pub fn step(&self, process: usize, thread: usize) -> Option<usize> {
        let step = self.processes[process].step[thread].load(Ordering::Relaxed);
        step.checked_sub(1).map(|step| step as usize)
    }

    /// Something is wrong. The first one to say so is heard.
    pub fn fail(&self, text: &str) {
        if self.failed.swap(true, Ordering::AcqRel) {
            return;
        }
        let text = text.as_bytes();
        let length = text.len().min(TEXT);
        for (cell, byte) in self.text.iter().zip(&text[..length]) {
            cell.store((*byte).into(), Ordering::Relaxed);
        }
        self.length.store(length, Ordering::Release);
    }

    /// Somebody failed.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// What is wrong.
    pub fn failure(&self) -> Option<String> {
        let length = self.length.load(Ordering::Acquire);
        if !self.has_failed() {
            return None;
        }
        let bytes: Vec<u8> = self.text[..length]
            .iter()
            .filter_map(|cell| u8::try_from(cell.load(Ordering::Relaxed)).ok())
            .collect();
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}
