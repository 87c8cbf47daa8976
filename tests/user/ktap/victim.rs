// SPDX-License-Identifier: GPL-2.0
//! Small programs to be run under `hmm-run`: each does what breaks naive preloaded libraries, and
//! prints what must not depend on being run there.

use crate::buffer::{Buffer, word};
use crate::harness::Child;
use crate::sys::sleep_ms;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Runs one of them; does not return.
pub fn run(name: &str, words: &[String]) -> ! {
    let number = words
        .first()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0);
    match name {
        "exit" => {}
        "status" => std::process::exit(number),
        "signal" => {
            work(800);
            // SAFETY: ends this process.
            unsafe { libc::raise(number) };
        }
        "work" => work(1500),
        "quick" => {
            work(500);
            // SAFETY: ends this process.
            unsafe { libc::_exit(7) };
        }
        "forks" => forks(0),
        "descriptors" => descriptors(),
        "threads" => threads(),
        "spawns" => spawns(),
        "exec" => exec(),
        "signals" => signals(),
        "leader" => leader(),
        "move" => crate::eyes::victim(words).expect("moved there and back"),
        other => {
            eprintln!("no such victim: {other}");
            std::process::exit(2);
        }
    }
    std::process::exit(0)
}

fn works_until(end: Instant) -> u64 {
    let heap: Vec<u64> = (0..400_000).map(|i| word(1, i)).collect();
    let buffer = Buffer::filled(256, 2).expect("memory");
    let mut sum = 0_u64;
    loop {
        assert!(
            heap.iter()
                .enumerate()
                .all(|(i, &value)| value == word(1, i)),
            "the heap changed"
        );
        assert!(buffer.verify(2).is_ok(), "a mapping changed");
        sum = sum.wrapping_add(heap.iter().fold(0, |sum, &value| sum ^ value));
        if Instant::now() >= end {
            return sum;
        }
        sleep_ms(20);
    }
}

/// Reads its memory again and again for a while.
fn work(ms: u64) {
    let sum = works_until(Instant::now() + Duration::from_millis(ms));
    println!(
        "all bytes right, {}",
        if sum == 1 { "odd" } else { "as expected" }
    );
}

fn forks(depth: u32) {
    let mine = format!("generation {depth}").repeat(10_000);
    let children: Vec<_> = (0..if depth < 2 { 2 } else { 0 })
        .map(|_| {
            Child::spawn(|| {
                assert_eq!(mine, format!("generation {depth}").repeat(10_000));
                forks(depth + 1);
                Ok(())
            })
            .expect("fork")
        })
        .collect();
    sleep_ms(300);
    let again = format!("generation {depth}").repeat(10_000);
    assert_eq!(mine, again);
    for child in children {
        assert!(child.join().is_ok(), "a child failed");
    }
    if depth == 0 {
        println!("seven processes were right");
    }
}

/// Counts its descriptors, closes all, opens some: it always gets the lowest number.
fn descriptors() {
    let count = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    sleep_ms(300);
    println!("{} descriptors", count());
    // SAFETY: the standard library uses none of these.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    // SAFETY: a C string.
    let first = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) };
    work(500);
    println!("{} descriptors, the first new one is {first}", count());
}

fn threads() {
    let workers: Vec<_> = (0..4_u64)
        .map(|lane| {
            std::thread::spawn(move || {
                let end = Instant::now() + Duration::from_millis(1200);
                let mut kept: Vec<Vec<u64>> = Vec::new();
                let mut round = 0;
                while Instant::now() < end {
                    let size = (word(lane, round) % 3000) as usize;
                    kept.push((0..size).map(|i| word(lane, i)).collect());
                    if kept.len() > 50 {
                        let old = kept.swap_remove((word(lane, round + 1) % 50) as usize);
                        let right = old.iter().enumerate().all(|(i, &v)| v == word(lane, i));
                        assert!(right, "an allocation changed");
                    }
                    round += 1;
                }
                kept.iter()
                    .all(|all| all.iter().enumerate().all(|(i, &v)| v == word(lane, i)))
            })
        })
        .collect();
    let right = workers
        .into_iter()
        .all(|worker| worker.join().unwrap_or(false));
    println!("four threads: {right}");
}

fn spawns() {
    let me = std::env::current_exe().expect("own path");
    for number in 0..20 {
        let status = Command::new(&me)
            .args(["--victim", "status", &number.to_string()])
            .status()
            .expect("spawn");
        assert_eq!(status.code(), Some(number));
    }
    let output = Command::new("sh")
        .args(["-c", "echo one | cat; (echo two; exit 3)"])
        .output();
    let output = output.expect("a shell");
    println!(
        "{:?} {}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).trim()
    );
}

fn exec() {
    use std::os::unix::process::CommandExt;
    let me = std::env::current_exe().expect("own path");
    work(200);
    let error = Command::new(me).args(["--victim", "work"]).exec();
    println!("exec: {error}");
}

static TICKS: AtomicU32 = AtomicU32::new(0);
static MISPLACED: AtomicU32 = AtomicU32::new(0);

extern "C" fn tick(_: libc::c_int) {
    TICKS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: no arguments.
    let main = unsafe { libc::syscall(libc::SYS_gettid) == libc::syscall(libc::SYS_getpid) };
    MISPLACED.fetch_add(u32::from(!main), Ordering::Relaxed);
}

/// Signals to the process reach its own, only thread.
fn signals() {
    // SAFETY: the handler only counts; the timer is stopped by the end of the process.
    unsafe {
        libc::signal(libc::SIGALRM, tick as extern "C" fn(libc::c_int) as usize);
        let every = libc::timeval {
            tv_sec: 0,
            tv_usec: 5000,
        };
        let timer = libc::itimerval {
            it_interval: every,
            it_value: every,
        };
        libc::syscall(
            libc::SYS_setitimer,
            libc::ITIMER_REAL,
            &timer,
            std::ptr::null_mut::<u8>(),
        );
    }
    works_until(Instant::now() + Duration::from_millis(800));
    let ticks = TICKS.load(Ordering::Relaxed);
    println!(
        "ticks {}, elsewhere {}",
        ticks > 10,
        MISPLACED.load(Ordering::Relaxed)
    );
}

/// The main thread leaves first; the process ends well when the other one does.
fn leader() -> ! {
    // Ends the calling thread without unwinding, which would not get past Rust's own frames.
    // SAFETY: neither thread owns anything that the other one uses.
    let leave = || unsafe { libc::syscall(libc::SYS_exit, 0) };
    std::thread::spawn(move || {
        works_until(Instant::now() + Duration::from_millis(700));
        println!("the other thread is done");
        leave()
    });
    leave();
    unreachable!("the thread ended")
}
