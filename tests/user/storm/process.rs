// SPDX-License-Identifier: GPL-2.0
//! A process of the run: its threads, its signals, its end.

use crate::actor::{Player, Stage};
use crate::arena::{Arena, Result, Stop};
use crate::board::Board;
use crate::plan::{Actor, End, at_home, life};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// For the signal handler.
static BOARD: AtomicPtr<Board> = AtomicPtr::new(std::ptr::null_mut());
static STEPS_AT_LAST_BUS: AtomicU64 = AtomicU64::new(0);
static BUS_IN_A_ROW: AtomicU64 = AtomicU64::new(0);
/// So many bus errors without a step of anybody between them are too many.
const TOO_MANY: u64 = 100_000;
/// Exit statuses.
pub const TOO_MANY_BUS_ERRORS: i32 = 9;
pub const UNEXPECTED_BUS_ERROR: i32 = 10;

/// A page that cannot come home because the device fails: the access is tried again.
extern "C" fn on_bus_error(_signal: libc::c_int) {
    // SAFETY: set before the handler was, and never freed.
    let Some(board) = (unsafe { BOARD.load(Ordering::Relaxed).as_ref() }) else {
        // SAFETY: ends the process.
        unsafe { libc::_exit(UNEXPECTED_BUS_ERROR) }
    };
    board.bus_errors.fetch_add(1, Ordering::Relaxed);
    let steps = board.steps.load(Ordering::Relaxed);
    if STEPS_AT_LAST_BUS.swap(steps, Ordering::Relaxed) != steps {
        BUS_IN_A_ROW.store(0, Ordering::Relaxed);
    }
    if BUS_IN_A_ROW.fetch_add(1, Ordering::Relaxed) > TOO_MANY {
        // SAFETY: ends the process.
        unsafe { libc::_exit(TOO_MANY_BUS_ERRORS) }
    }
}

fn survive_bus_errors(stage: &Stage) {
    if stage.inject {
        BOARD.store(
            std::ptr::from_ref(stage.board).cast_mut(),
            Ordering::Relaxed,
        );
    }
    let handler = on_bus_error as extern "C" fn(libc::c_int);
    // SAFETY: the handler uses atomics and `_exit` only.
    unsafe { libc::signal(libc::SIGBUS, handler as libc::sighandler_t) };
}

/// Kills the calling process.
fn die(stage: &Stage, process: usize) -> ! {
    stage.board.processes[process]
        .doomed
        .store(true, Ordering::Release);
    // SAFETY: the calling process only.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
        libc::_exit(0)
    }
}

/// Keeps the calling process and all it starts on one processor.
fn stay_on(processor: usize) {
    // SAFETY: all zeroes is an empty set; the calling process only. A machine without that processor
    // refuses, and the process goes where it likes.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// A process from its first to its last step; never returns. `only`: this thread alone.
pub fn live(
    stage: &Stage,
    process: usize,
    generation: usize,
    only: Option<usize>,
    limit: usize,
) -> ! {
    // SAFETY: an option of the calling process only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    survive_bus_errors(stage);
    if at_home(stage.seed, process, generation) {
        stay_on(process % 2);
    }
    let outcome = act(stage, process, generation, only, limit);
    if let Err(stop) = &outcome {
        stage.board.fail(&format!("{process}.{generation}: {stop}"));
    }
    // SAFETY: nothing is left to do.
    unsafe { libc::_exit(i32::from(outcome.is_err())) }
}

fn act(
    stage: &Stage,
    process: usize,
    generation: usize,
    only: Option<usize>,
    limit: usize,
) -> Result {
    let (steps, end) = life(stage.seed, process, generation);
    let whole = steps <= limit;
    let steps = steps.min(limit);
    let devices = stage.open()?;
    let mut players = (0..stage.threads)
        .map(|thread| {
            let actor = Actor {
                process,
                generation,
                thread,
            };
            let arena = Arena::new(thread)?;
            Ok(Player {
                stage,
                actor,
                arena,
                devices: &devices,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = players
            .iter_mut()
            .filter(|player| only.is_none_or(|thread| player.actor.thread == thread))
            .map(|player| {
                let doom = whole && end == End::KilledInFlight && player.actor.thread == 0;
                scope.spawn(move || {
                    let outcome = player.play(steps);
                    // Who found something shall live to tell.
                    if doom && outcome.is_ok() && !stage.board.has_failed() {
                        die(stage, process);
                    }
                    outcome
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Stop::Other("a thread panicked".into())))
            })
            .fold(Ok(()), std::result::Result::and)
    })?;
    if whole && end == End::KilledAtRest && !stage.board.has_failed() {
        die(stage, process);
    }
    Ok(())
}
