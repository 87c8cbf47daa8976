// SPDX-License-Identifier: GPL-2.0
//! Runs tests in processes of their own and looks at the devices before and after.

use crate::sys::{check, drain, pipe, write_from};
use hmm_uapi::{Device, Kind, sys};
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Why a test ended early.
#[derive(Debug)]
pub enum Stop {
    Fail(String),
    Skip(String),
}

impl<E: fmt::Display> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Fail(error.to_string())
    }
}

pub type Outcome = Result<(), Stop>;

/// Fails the test unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::harness::Stop::Fail(
                format!("{}:{}: {}", file!(), line!(), format!($($message)+))));
        }
    };
}

/// Fails the test unless both are equal.
macro_rules! ensure_eq {
    ($left:expr, $right:expr) => {
        ensure_eq!($left, $right, "{}", stringify!($left))
    };
    ($left:expr, $right:expr, $($message:tt)+) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            return Err($crate::harness::Stop::Fail(format!(
                "{}:{}: {}: {left:?}, expected {right:?}", file!(), line!(), format!($($message)+))));
        }
    }};
}

/// Ends the test as skipped.
macro_rules! skip {
    ($($message:tt)+) => {
        return Err($crate::harness::Stop::Skip(format!($($message)+)))
    };
}

pub(crate) use {ensure, ensure_eq, skip};

/// One test.
#[derive(Clone, Copy)]
pub struct Test {
    pub name: &'static str,
    pub run: fn(&Env) -> Outcome,
    pub seconds: u32,
}

/// A test with the usual time limit.
pub const fn test(name: &'static str, run: fn(&Env) -> Outcome) -> Test {
    Test {
        name,
        run,
        seconds: 60,
    }
}

/// A test that takes longer.
pub const fn long(name: &'static str, run: fn(&Env) -> Outcome) -> Test {
    Test {
        name,
        run,
        seconds: 240,
    }
}

/// What tests are run on.
pub struct Env {
    pub devices: Vec<PathBuf>,
    pub modules: PathBuf,
    pub kind: Kind,
}

impl Env {
    pub fn new(devices: Vec<PathBuf>, modules: PathBuf) -> Self {
        let kind = devices
            .first()
            .and_then(|path| Device::open(path).ok()?.info().ok())
            .map_or(Kind::None, |info| Kind::from_raw(info.kind));
        Self {
            devices,
            modules,
            kind,
        }
    }

    /// The main device, opened by the calling process.
    pub fn open(&self) -> Result<Device, Stop> {
        Ok(Device::open(self.devices.first().ok_or("no device")?)?)
    }

    /// The second device.
    pub fn open_second(&self) -> Result<Device, Stop> {
        match self.devices.get(1) {
            Some(path) => Ok(Device::open(path)?),
            None => skip!("this machine has one device"),
        }
    }

    /// Memory that the CPU cannot reach: touching it brings it back.
    pub fn is_private(&self) -> bool {
        self.kind == Kind::Private
    }

    pub fn need_private(&self) -> Outcome {
        if !self.is_private() {
            skip!("the CPU uses coherent device memory in place");
        }
        Ok(())
    }
}

/// How many times longer a test may take here: a sanitizer kernel, known by its search for leaks, is slow.
fn patience() -> u32 {
    if std::path::Path::new("/sys/kernel/debug/kmemleak").exists() {
        5
    } else {
        1
    }
}

/// Checks that no frame is unaccounted for. The figures are read one after the other, so they only
/// add up at rest: while a process that was killed is still going, they are read again.
pub fn conserved(device: &Device) -> Result<sys::hmm_dmirror_info, Stop> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let info = device.info()?;
        let sum =
            info.frames_free + info.frames_claimed + info.frames_resident + info.frames_retired;
        if sum == info.frames_total {
            return Ok(info);
        }
        ensure!(
            Instant::now() < end,
            "free + claimed + resident of {info:?}: {sum}, expected {}",
            info.frames_total
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process that runs a closure and reports its outcome.
pub struct Child {
    pub pid: libc::pid_t,
    report: OwnedFd,
}

impl Child {
    /// Forks. The child dies with its parent.
    pub fn spawn(body: impl FnOnce() -> Outcome) -> Result<Self, Stop> {
        let (read, write) = pipe()?;
        // SAFETY: the forking process has one thread, or the child uses only what survives a fork:
        // the C library repairs its heap.
        let pid = check(unsafe { libc::fork() })?;
        if pid != 0 {
            return Ok(Self { pid, report: read });
        }
        drop(read);
        report(&write, body)
    }

    /// A test as a program of its own: it shares no page with this one.
    fn exec(env: &Env, test: &Test) -> Result<Self, Stop> {
        let (read, write) = pipe()?;
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["--one", test.name, "--modules"])
            .arg(&env.modules);
        for device in &env.devices {
            command.arg("--device").arg(device);
        }
        // Its report is its standard input, which it has no other use for; its output is a comment.
        let child = command
            .stdin(write)
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self {
            pid: i32::try_from(child.id())?,
            report: read,
        })
    }

    /// Waits; the child's outcome, or how it died.
    pub fn join(self) -> Outcome {
        let status = self.wait()?;
        let text = String::from_utf8_lossy(&drain(&self.report)).into_owned();
        if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            return Err(Stop::Fail(match signal {
                libc::SIGALRM => "took too long".into(),
                _ => format!("killed by signal {signal}: {text}"),
            }));
        }
        match libc::WEXITSTATUS(status) {
            0 => Ok(()),
            4 => Err(Stop::Skip(text)),
            _ => Err(Stop::Fail(text)),
        }
    }

    fn wait(&self) -> Result<libc::c_int, Stop> {
        let mut status = 0;
        loop {
            // SAFETY: room for the status.
            match check(unsafe { libc::waitpid(self.pid, &mut status, 0) }) {
                Ok(_) => return Ok(status),
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Kills and reaps.
    pub fn kill(self) -> Outcome {
        // SAFETY: our own child, not yet reaped.
        check(unsafe { libc::kill(self.pid, libc::SIGKILL) })?;
        self.wait().map(drop)
    }
}

/// Runs the body of a process and reports how it ended.
fn report(to: &impl AsRawFd, body: impl FnOnce() -> Outcome) -> ! {
    // SAFETY: an option of the calling process only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err(Stop::Fail("panicked".into())));
    let (status, text) = match outcome {
        Ok(()) => (0, String::new()),
        Err(Stop::Fail(text)) => (1, text),
        Err(Stop::Skip(text)) => (4, text),
    };
    let _ = write_from(to.as_raw_fd(), text.as_ptr().addr() as u64, text.len());
    // SAFETY: ends the child without running what belongs to the parent.
    unsafe { libc::_exit(status) }
}

/// Frames of one device: total, free, claimed, resident.
type Frames = [u64; 4];

fn frames(env: &Env) -> Vec<Option<Frames>> {
    env.devices
        .iter()
        .map(|path| {
            let info = Device::open(path).ok()?.info().ok()?;
            Some([
                info.frames_total,
                info.frames_free,
                info.frames_claimed,
                info.frames_resident,
            ])
        })
        .collect()
}

/// Waits until the devices are as they were: pages of a dead process go when the kernel gets to it.
fn settled(env: &Env, before: &[Option<Frames>]) -> Outcome {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let after = frames(env);
        let sums = |all: &Option<Frames>| all.is_some_and(|f| f[1] + f[2] + f[3] == f[0]);
        if after == before
            && after
                .iter()
                .all(|all| sums(all) && all.is_some_and(|f| f[2] == 0))
        {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(Stop::Fail(format!(
                "frames [total, free, claimed, resident] were {before:?} and are {after:?}"
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A failing device would fail the next test too.
fn repair(env: &Env) {
    for path in &env.devices {
        if let Ok(device) = Device::open(path) {
            let _ = device.fail(sys::HMM_DMIRROR_FAIL_NONE, 0, 0);
        }
    }
}

fn run_one(env: &Env, test: &Test) -> Outcome {
    let before = frames(env);
    let child = Child::exec(env, test)?;
    let group = child.pid;
    let outcome = child.join();
    // SAFETY: the group is the test's own; nobody may be left in it.
    unsafe { libc::kill(-group, libc::SIGKILL) };
    repair(env);
    let after = settled(env, &before);
    match (outcome, after) {
        (Err(Stop::Fail(text)), Err(Stop::Fail(more))) => {
            Err(Stop::Fail(format!("{text}\nand afterwards: {more}")))
        }
        (Err(stop), _) => Err(stop),
        (Ok(()), after) => after,
    }
}

/// The process of one test.
pub fn one(env: &Env, test: &Test) -> ! {
    // SAFETY: sets a timer of the calling process.
    unsafe { libc::alarm(test.seconds * patience()) };
    report(&std::io::stdin(), || (test.run)(env))
}

/// Runs the tests, then looks whether the counters of all regions add up, and prints KTAP.
pub fn run(env: &Env, tests: &[Test]) -> ExitCode {
    println!("KTAP version 1\n1..{}", tests.len() + 1);
    let law = test("eyes::nothing_is_lost_after_all", |_| {
        crate::eyes::conserved()
    });
    let mut failed = false;
    for (number, test) in (1..).zip(tests.iter().chain([&law])) {
        let begin = Instant::now();
        let outcome = if test.name == law.name {
            (law.run)(env)
        } else if env.devices.is_empty() {
            Err(Stop::Fail(
                "there is no /dev/hmm_dmirror* or /dev/hmm_vram*; load the modules first".into(),
            ))
        } else {
            run_one(env, test)
        };
        let ms = begin.elapsed().as_millis();
        match outcome {
            Ok(()) => println!("# {ms} ms\nok {number} {}", test.name),
            Err(Stop::Skip(why)) => println!("ok {number} {} # SKIP {why}", test.name),
            Err(Stop::Fail(why)) => {
                failed = true;
                why.lines().for_each(|line| println!("# {line}"));
                println!("# {ms} ms\nnot ok {number} {}", test.name);
            }
        }
    }
    ExitCode::from(u8::from(failed))
}
