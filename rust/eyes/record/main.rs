// SPDX-License-Identifier: GPL-2.0
//! `hmm-record`: writes down what a run does with device memory.

use clap::Parser;
use hmm_eyes::recording::{RESIDENT, Recording};
use hmm_eyes::trace::{Event, Tracer};
use hmm_eyes::{counters, timeline};
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Records what happens on devices while PROGRAM runs, of whatever process.
///
/// Takes the module's tracepoints in a tracefs instance of its own and looks at the counters in
/// debugfs beside them; run it as root. hmm-replay shows the recording again. To see every page that
/// the program touches, and not only the first of each window, record with
/// /sys/module/hmm_devmem/parameters/fault_window set to 1.
#[derive(Parser)]
#[command(
    name = "hmm-record",
    version,
    after_help = "Exit status: that of PROGRAM; 125 if the recording failed.\n\n\
                  Example: hmm-record --out sort.trace --svg sort.svg -- hmm-run -- sort words.txt"
)]
struct Args {
    /// The recording.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,

    /// A timeline of it, as a picture.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// The same as a page, with the sums.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// What to call it [default: PROGRAM and its arguments].
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,

    /// Stop after so many seconds, or when PROGRAM ends.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,

    /// Milliseconds between two looks at how much is on the devices.
    #[arg(long, value_name = "MS", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    sample: u64,

    /// KiB of buffer for each CPU; more if events are lost.
    #[arg(long, value_name = "KIB", default_value_t = 4096)]
    buffer: u64,

    /// What to run; without it, record until interrupted.
    #[arg(trailing_var_arg = true, value_name = "PROGRAM ARGS")]
    program: Vec<OsString>,
}

/// Somebody pressed Ctrl-C.
static ENOUGH: AtomicBool = AtomicBool::new(false);

extern "C" fn enough(_signal: libc::c_int) {
    ENOUGH.store(true, Ordering::Relaxed);
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("hmm-record: {error}");
            ExitCode::from(125)
        }
    }
}

/// Frames in use on all devices; a kernel without debugfs shows none.
fn resident() -> Option<u64> {
    let snapshot = counters::read(Path::new(counters::ROOT)).ok()?;
    let frames = snapshot.regions.iter();
    Some(frames.map(|region| region.frames.get("resident")).sum())
}

/// The clock of the events.
fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

fn run(args: &Args) -> io::Result<u8> {
    if args.program.is_empty() && args.seconds.is_none() {
        eprintln!("hmm-record: recording until Ctrl-C");
    }
    let mut tracer = Tracer::start(&format!("hmm-record-{}", std::process::id()), args.buffer)?;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does nothing but set a flag.
        unsafe { libc::signal(signal, enough as *const () as libc::sighandler_t) };
    }
    let mut child = match args.program.split_first() {
        Some((name, rest)) => Some(
            Command::new(name)
                .args(rest)
                .spawn()
                .map_err(|why| io::Error::other(format!("{}: {why}", name.to_string_lossy())))?,
        ),
        None => None,
    };
    let words = args.program.iter().map(|word| word.to_string_lossy());
    let mut recording = Recording {
        title: args
            .title
            .clone()
            .unwrap_or_else(|| words.collect::<Vec<_>>().join(" ")),
        ..Recording::default()
    };
    let outcome = watch(args, &mut tracer, &mut child, &mut recording.events);
    tracer.stop()?;
    recording.events.append(&mut tracer.take()?);
    recording.events.sort_by_key(|event| event.ns);
    recording.lost = tracer.lost;
    drop(tracer);
    let status = outcome?;

    if let Some(file) = &args.out {
        let mut out = BufWriter::new(create(file)?);
        recording.write(&mut out, window())?;
        out.flush()?;
    }
    for (file, text) in [
        (&args.svg, timeline::draw as fn(&Recording) -> String),
        (&args.html, timeline::page),
    ] {
        if let Some(file) = file {
            create(file)?.write_all(text(&recording).as_bytes())?;
        }
    }
    eprintln!("hmm-record: {} events", recording.events.len());
    for ((direction, cause), pages) in recording.totals() {
        eprintln!(
            "  {:<10} {cause:<9} {pages:>9} pages",
            direction.replace('_', " ")
        );
    }
    if recording.lost != 0 {
        eprintln!(
            "hmm-record: {} events were lost\nnext: a larger --buffer",
            recording.lost
        );
    }
    Ok(status)
}

fn create(file: &Path) -> io::Result<fs::File> {
    fs::File::create(file).map_err(|why| io::Error::other(format!("{}: {why}", file.display())))
}

/// The largest fault window there is; 512 where the module does not say.
fn window() -> u64 {
    let text = fs::read_to_string("/sys/module/hmm_devmem/parameters/fault_window");
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(512)
}

/// Takes events until there is a reason to stop; the exit status.
fn watch(
    args: &Args,
    tracer: &mut Tracer,
    child: &mut Option<Child>,
    events: &mut Vec<Event>,
) -> io::Result<u8> {
    let begin = Instant::now();
    loop {
        if let Some(npages) = resident() {
            events.push(Event::new(now(), RESIDENT, &[("npages", npages)]));
        }
        events.append(&mut tracer.take()?);
        if let Some(child) = child {
            if let Some(status) = child.try_wait()? {
                let code = status.code().or(status.signal().map(|signal| 128 + signal));
                return Ok(u8::try_from(code.unwrap_or(0) & 0xff).unwrap_or(u8::MAX));
            }
        } else if ENOUGH.load(Ordering::Relaxed) {
            return Ok(0);
        }
        if args
            .seconds
            .is_some_and(|limit| begin.elapsed() >= Duration::from_secs(limit))
        {
            return Ok(0);
        }
        std::thread::sleep(Duration::from_millis(args.sample));
    }
}
