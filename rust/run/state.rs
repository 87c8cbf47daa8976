// SPDX-License-Identifier: GPL-2.0
//! What `hmm-run` and the library inside the program share: one mapping of an anonymous file.
//!
//! `hmm-run` writes the settings, then starts the program. Every process that the program becomes
//! or forks adds to the same counters, so that the figures of a process killed by `SIGKILL` are
//! there up to its last round. Counters only grow; there is no lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Name of the environment variable that holds the path of the shared file.
pub const ENV: &str = "HMM_RUN_STATE";
/// First word of the mapping; changes with the layout.
pub const MAGIC: u64 = 0x686d_6d72_756e_0001;
/// Length of one slot of the residency picture.
pub const SLOT_NS: u64 = 50_000_000;
/// Slots of the residency picture: 54 minutes; what comes later is left out.
pub const SLOTS: usize = 1 << 16;
/// Room for a path, with its terminating zero.
pub const PATH_BYTES: usize = 256;
/// Reasons for a page to stay, as many as the ABI has room for.
pub const REASONS: usize = 8;

/// Do not collapse.
pub const HUGE_NEVER: u32 = 0;
/// Make a full 2 MiB block one huge page before it moves.
pub const HUGE_COLLAPSE: u32 = 1;

/// Settings, fixed before the program starts.
#[repr(C)]
pub struct Settings {
    /// [`MAGIC`].
    pub magic: u64,
    /// `CLOCK_MONOTONIC` at the start of the program.
    pub start_ns: u64,
    /// Pause between two rounds.
    pub interval_ns: u64,
    /// One of the `HUGE_` constants.
    pub huge: u32,
    /// Every so many rounds all comes back to RAM; 0: never.
    pub return_every: u32,
    /// Device node, zero-terminated.
    pub device: [u8; PATH_BYTES],
    /// File for residency lines, zero-terminated; empty: none.
    pub residency: [u8; PATH_BYTES],
}

/// Sums over all processes.
#[repr(C)]
#[derive(Default)]
pub struct Totals {
    /// Processes whose thread started.
    pub processes: AtomicU64,
    /// Processes whose thread could not start.
    pub not_started: AtomicU64,
    /// Walks over an address space.
    pub rounds: AtomicU64,
    /// Pages moved to the device.
    pub to_device: AtomicU64,
    /// Pages brought back on request.
    pub to_ram_request: AtomicU64,
    /// Pages brought back because the CPU touched memory.
    pub to_ram_fault: AtomicU64,
    /// CPU faults served.
    pub cpu_faults: AtomicU64,
    /// Time spent moving to the device.
    pub ns_to_device: AtomicU64,
    /// Time spent moving back.
    pub ns_to_ram: AtomicU64,
    /// Pages not moved, by reason.
    pub skipped: [AtomicU64; REASONS],
    /// 2 MiB blocks made huge before they moved.
    pub collapsed: AtomicU64,
    /// Most pages that one process had on the device at the end of a round.
    pub peak_resident: AtomicU64,
    /// Failed calls.
    pub errors: AtomicU64,
    /// The last failed call's errno.
    pub last_errno: AtomicU32,
    /// Fills the line.
    pub reserved: AtomicU32,
}

/// One slot of time: pages seen by all samples that fell into it.
#[repr(C)]
#[derive(Default)]
pub struct Slot {
    /// Anonymous pages on the device.
    pub resident: AtomicU64,
    /// Anonymous pages there are.
    pub present: AtomicU64,
}

/// The whole mapping.
#[repr(C)]
pub struct State {
    /// Settings.
    pub settings: Settings,
    /// Sums.
    pub totals: Totals,
    /// The picture.
    pub slots: [Slot; SLOTS],
}

impl State {
    /// Nanoseconds since the start of the program.
    pub fn since_start(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.settings.start_ns)
    }

    /// Adds one sample, taken `now_ns` (`CLOCK_MONOTONIC`).
    pub fn sample(&self, now_ns: u64, resident: u64, present: u64) {
        let slot = self.since_start(now_ns) / SLOT_NS;
        let slot = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.slots.get(slot));
        if let Some(slot) = slot {
            slot.resident.fetch_add(resident, Relaxed);
            slot.present.fetch_add(present, Relaxed);
        }
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds.
#[must_use]
pub fn now_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_land_in_their_slot() {
        // SAFETY: every field is an integer, for which zero is a value.
        let mut state: Box<State> = unsafe { Box::new_zeroed().assume_init() };
        state.settings.start_ns = 1000;
        state.sample(999, 1, 2);
        state.sample(1000 + 3 * SLOT_NS, 4, 8);
        state.sample(1000 + 4 * SLOT_NS - 1, 4, 8);
        state.sample(u64::MAX, 4, 8);
        assert_eq!(state.slots[0].present.load(Relaxed), 2);
        assert_eq!(state.slots[3].resident.load(Relaxed), 8);
        assert_eq!(state.slots[4].present.load(Relaxed), 0);
    }
}
