// SPDX-License-Identifier: GPL-2.0
//! `hmm-run`: runs an unmodified program with its anonymous memory migrated to a device again and
//! again, then says what moved.

mod picture;
mod program;
mod report;
#[allow(dead_code)] // the preloaded library uses the other half
mod state;

use clap::{Parser, ValueEnum};
use hmm_uapi::{Device, Kind};
use report::{Outcome, Report};
use state::{ENV, HUGE_COLLAPSE, HUGE_NEVER, MAGIC, PATH_BYTES, State};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// Runs a program with its memory on the device.
///
/// A library is preloaded into PROGRAM and everything it starts. A thread in each process moves
/// all its anonymous memory (the heap and anonymous mappings) to the device, again and again; what
/// the program touches comes back by itself. The program needs no change and its output stays as
/// it is. What moved is printed to standard error at the end.
#[derive(Parser)]
#[command(
    name = "hmm-run",
    version,
    after_help = "Exit status: that of PROGRAM; 128 + the signal that killed it; 125 if hmm-run \
                  itself failed, 126 if PROGRAM cannot be executed, 127 if there is none.\n\n\
                  Example: hmm-run --interval 50 -- sort -o sorted.txt words.txt"
)]
struct Args {
    /// The device whose memory is used.
    #[arg(long, value_name = "NODE", default_value = "/dev/hmm_dmirror0")]
    device: PathBuf,

    /// Milliseconds between two rounds over the memory of a process. A round that took longer is
    /// followed by a pause of its own length.
    #[arg(long, value_name = "MS", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    interval: u64,

    /// Write the figures as one JSON object to FILE.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write where the memory was to FILE: one JSON object per process and round.
    #[arg(long, value_name = "FILE")]
    residency: Option<PathBuf>,

    /// Bring all memory back to RAM in every Nth round; 0: never. Private memory comes back when
    /// the program touches it, coherent memory does not [default: 0 for private, 4 for coherent].
    #[arg(long, value_name = "N")]
    return_every: Option<u32>,

    /// Make 2 MiB blocks huge pages before they move: collapse asks the kernel to (MADV_COLLAPSE),
    /// auto does so where the kernel can move a huge page whole.
    #[arg(long, value_enum, default_value_t = Huge::Auto)]
    huge: Huge,

    /// Do not print the table at the end.
    #[arg(long, short)]
    quiet: bool,

    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM ARGS")]
    program: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Huge {
    Auto,
    Never,
    Collapse,
}

/// A failure of our own: what to print, and the exit status.
struct Failure(String, u8);

impl From<program::Problem> for Failure {
    fn from(problem: program::Problem) -> Self {
        Self(problem.to_string(), problem.status())
    }
}

fn failed(what: impl Into<String>) -> Failure {
    Failure(what.into(), 125)
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // clap exits with 2, which could be the program's own status.
            let status = if error.use_stderr() { 125 } else { 0 };
            drop(error.print());
            return ExitCode::from(status);
        }
    };
    match run(&args) {
        Ok(status) => ExitCode::from(status),
        Err(Failure(what, status)) => {
            eprintln!("hmm-run: {what}");
            ExitCode::from(status)
        }
    }
}

fn run(args: &Args) -> Result<u8, Failure> {
    let name = args
        .program
        .first()
        .ok_or_else(|| failed("no program given"))?;
    program::check(name)?;
    let library = library()?;
    let kind = probe(&args.device)?;
    let residency = args.residency.as_deref().map(create).transpose()?;
    let json = args.json.as_deref().map(create).transpose()?;
    let shared = Shared::new(args, kind, residency.as_ref())?;

    let mut preload = library.into_os_string();
    if let Some(other) = std::env::var_os("LD_PRELOAD").filter(|other| !other.is_empty()) {
        preload.push(":");
        preload.push(other);
    }
    let begin = Instant::now();
    let mut child = Command::new(name)
        .args(&args.program[1..])
        .env("LD_PRELOAD", preload)
        .env(ENV, shared.path())
        .spawn()
        .map_err(|why| Failure(format!("{}: {why}", name.to_string_lossy()), 126))?;
    forward_signals(child.id());
    let status = child
        .wait()
        .map_err(|why| failed(format!("waiting for the program: {why}")))?;
    let wall = begin.elapsed();

    let outcome = match (status.code(), status.signal()) {
        (Some(code), _) => Outcome::Exited(code),
        (None, Some(signal)) => Outcome::Killed(signal),
        (None, None) => Outcome::Exited(125),
    };
    let report = Report::new(args, kind, outcome, wall, shared.state());
    if let (Some(mut file), Some(path)) = (json, &args.json) {
        report
            .write_json(&mut file)
            .map_err(|why| failed(format!("{}: {why}", path.display())))?;
    }
    if !args.quiet {
        eprint!("{report}");
    }
    Ok(outcome.status())
}

fn create(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(|why| failed(format!("{}: {why}", path.display())))
}

/// The library lies beside the program, or where a distribution puts it.
fn library() -> Result<PathBuf, Failure> {
    const NAME: &str = "libhmm_run.so";
    let mut places = Vec::new();
    if let Some(path) = std::env::var_os("HMM_RUN_LIBRARY") {
        places.push(PathBuf::from(path));
    } else {
        if let Some(dir) = std::env::current_exe()
            .ok()
            .as_deref()
            .and_then(Path::parent)
        {
            places.push(dir.join(NAME));
            places.push(dir.join("../lib/hmm").join(NAME));
            places.push(dir.join("../lib").join(NAME));
        }
        places.push(Path::new("/usr/lib/hmm").join(NAME));
    }
    let found = places.iter().find_map(|place| place.canonicalize().ok());
    let Some(found) = found else {
        let tried: Vec<_> = places
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        return Err(failed(format!(
            "{NAME} not found; tried {}",
            tried.join(", ")
        )));
    };
    if found
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| b" :".contains(byte))
    {
        return Err(failed(format!(
            "{}: a path with spaces or colons cannot be preloaded; set HMM_RUN_LIBRARY to a copy \
             elsewhere",
            found.display()
        )));
    }
    Ok(found)
}

/// Opens the device once to say clearly what is wrong, if something is.
fn probe(node: &Path) -> Result<Kind, Failure> {
    let device = Device::open(node).map_err(|error| {
        let node = node.display();
        let others: Vec<_> = Device::list()
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        failed(match error.errno {
            libc::ENOENT | libc::ENXIO | libc::ENODEV if others.is_empty() => format!(
                "{node}: no such device. Load the driver first: modprobe hmm_dmirror (or insmod \
                 hmm_devmem.ko, then insmod hmm_dmirror.ko)"
            ),
            libc::ENOENT | libc::ENXIO | libc::ENODEV => {
                format!("{node}: no such device. There are: {}", others.join(", "))
            }
            libc::EACCES | libc::EPERM => format!(
                "{node}: permission denied. Run as root, or let your group use the node: chgrp \
                 GROUP {node}; chmod 660 {node}"
            ),
            _ => format!("{node}: {error}"),
        })
    })?;
    let info = device.info().map_err(|error| {
        failed(match error.errno {
            libc::ENOTTY => format!("{}: not a device of hmm_dmirror", node.display()),
            _ => format!("{}: {error}", node.display()),
        })
    })?;
    match Kind::from_raw(info.kind) {
        Kind::None => Err(failed(format!(
            "{}: this device has no memory",
            node.display()
        ))),
        kind => Ok(kind),
    }
}

/// The mapping shared with the program, and the anonymous file behind it.
struct Shared {
    file: OwnedFd,
    state: &'static State,
}

impl Shared {
    fn new(args: &Args, kind: Kind, residency: Option<&File>) -> Result<Self, Failure> {
        let system = |what: &str| {
            let what = what.to_owned();
            move || failed(format!("{what}: {}", std::io::Error::last_os_error()))
        };
        // SAFETY: a C string; the descriptor is checked, and then owned.
        let file = unsafe {
            let fd = libc::memfd_create(c"hmm-run".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 {
                return Err(system("memfd_create")());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let bytes = size_of::<State>();
        let length = libc::off_t::try_from(bytes).map_err(|_| failed("state too large"))?;
        // SAFETY: a new mapping at a place of the kernel's choice, as long as the file.
        let state = unsafe {
            if libc::ftruncate(file.as_raw_fd(), length) != 0 {
                return Err(system("ftruncate")());
            }
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if state == libc::MAP_FAILED {
            return Err(system("mmap")());
        }
        let state: *mut State = state.cast();
        let collapse = match args.huge {
            Huge::Never => false,
            Huge::Collapse => true,
            Huge::Auto => moves_huge_pages(),
        };
        // SAFETY: zeroes are a valid State; nobody else has the mapping yet. It stays for the life
        // of the process.
        let state = unsafe {
            let settings = &mut (*state).settings;
            settings.magic = MAGIC;
            settings.start_ns = state::now_ns();
            settings.interval_ns = args.interval * 1_000_000;
            settings.huge = if collapse { HUGE_COLLAPSE } else { HUGE_NEVER };
            settings.return_every =
                args.return_every
                    .unwrap_or(if kind == Kind::Coherent { 4 } else { 0 });
            put_path(&mut settings.device, &absolute(&args.device)?)?;
            if let Some(file) = residency {
                put_path(&mut settings.residency, &proc_path(file.as_raw_fd()))?;
            }
            &*state
        };
        Ok(Self { file, state })
    }

    fn path(&self) -> PathBuf {
        proc_path(self.file.as_raw_fd())
    }

    fn state(&self) -> &'static State {
        self.state
    }
}

/// A descriptor of ours by a name that the program's processes can open; it dies with us.
fn proc_path(fd: libc::c_int) -> PathBuf {
    format!("/proc/{}/fd/{fd}", std::process::id()).into()
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|why| failed(format!("{}: {why}", path.display())))
}

fn put_path(place: &mut [u8; PATH_BYTES], path: &Path) -> Result<(), Failure> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= place.len() {
        return Err(failed(format!("{}: path too long", path.display())));
    }
    place[..bytes.len()].copy_from_slice(bytes);
    Ok(())
}

/// Where huge pages are split when they move, collapsing first would be work for nothing.
fn moves_huge_pages() -> bool {
    let parameter = |name: &str| {
        fs::read_to_string(format!("/sys/module/hmm_devmem/parameters/{name}")).unwrap_or_default()
    };
    parameter("huge").starts_with('Y') && parameter("caps").contains("huge")
}

/// The child that signals are passed on to.
static CHILD: AtomicI32 = AtomicI32::new(0);

extern "C" fn pass_on(signal: libc::c_int) {
    // SAFETY: kill is async-signal-safe.
    unsafe { libc::kill(CHILD.load(Ordering::Relaxed), signal) };
}

extern "C" fn leave_to_the_program(_: libc::c_int) {}

/// The terminal sends its signals to the program itself, so they must only not kill us; others are
/// passed on. What was ignored when we came stays ignored.
fn forward_signals(pid: u32) {
    CHILD.store(i32::try_from(pid).unwrap_or(0), Ordering::Relaxed);
    let terminal = [libc::SIGINT, libc::SIGQUIT];
    let others = [libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];
    for signal in terminal.into_iter().chain(others) {
        let handler: extern "C" fn(libc::c_int) = if terminal.contains(&signal) {
            leave_to_the_program
        } else {
            pass_on
        };
        // SAFETY: the handlers do nothing that a signal handler may not do.
        unsafe {
            let mut old: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &mut old);
            if old.sa_sigaction == libc::SIG_IGN {
                continue;
            }
            let mut new: libc::sigaction = std::mem::zeroed();
            new.sa_sigaction = handler as usize;
            new.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &new, std::ptr::null_mut());
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn everything_behind_the_program_is_the_programs() {
        let args =
            Args::try_parse_from(["hmm-run", "--interval", "5", "sort", "--json", "-h"]).unwrap();
        assert_eq!(args.interval, 5);
        assert_eq!(args.program, ["sort", "--json", "-h"]);
        assert!(args.json.is_none());
        let args = Args::try_parse_from(["hmm-run", "--", "-x", "--", "y"]).unwrap();
        assert_eq!(args.program, ["-x", "--", "y"]);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Args::try_parse_from(["hmm-run", "--unknown", "sort"]).is_err());
        for bad in [
            &["hmm-run"][..],
            &["hmm-run", "--interval", "0", "x"],
            &["hmm-run", "--huge", "2"],
        ] {
            assert!(Args::try_parse_from(bad).is_err(), "{bad:?}");
        }
    }
}
