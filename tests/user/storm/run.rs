// SPDX-License-Identifier: GPL-2.0
//! A run: processes come and go until enough is done; then the verdicts.

use crate::actor::Stage;
use crate::board::{Board, PROCESSES};
use crate::calls;
use crate::plan::{Actor, KINDS, Kind as Step, PLANTS, Plan, Plant, life, total};
use crate::process;
use hmm_uapi::{Device, Kind, sys as abi};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Nobody takes a step for so long: something hangs.
const PATIENCE: Duration = Duration::from_secs(150);
const CGROUP: &str = "/sys/fs/cgroup";

/// One process of a run, or one thread of it.
#[derive(Clone, Copy)]
pub struct Only {
    pub process: usize,
    pub generation: usize,
    pub thread: Option<usize>,
}

/// What the command line says.
pub struct Options {
    pub seed: u64,
    pub ops: u64,
    pub processes: usize,
    pub threads: usize,
    pub steps: usize,
    pub only: Option<Only>,
    pub inject: bool,
    pub plant: Option<Plant>,
    pub trace: bool,
    pub shrink: bool,
    pub devices: Vec<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            seed: now.map_or(1, |time| {
                u64::from(time.subsec_micros()) + time.as_secs() % 4096 * 1_000_000
            }),
            ops: 10_000,
            processes: 3,
            threads: 2,
            steps: usize::MAX,
            only: None,
            inject: true,
            plant: None,
            trace: false,
            shrink: true,
            devices: Vec::new(),
        }
    }
}

impl Options {
    /// The command that does the same again.
    fn command(&self, only: Option<Only>, steps: usize) -> Vec<String> {
        let mut words = vec![format!("--seed={}", self.seed)];
        if let Some(Only {
            process,
            generation,
            thread,
        }) = only
        {
            let thread = thread.map_or(String::new(), |thread| format!(".{thread}"));
            words.push(format!("--only={process}.{generation}{thread}"));
            words.push(format!("--steps={steps}"));
        } else {
            words.push(format!("--ops={}", self.ops));
            words.push(format!("--processes={}", self.processes));
        }
        words.push(format!("--threads={}", self.threads));
        if !self.inject {
            words.push("--calm".into());
        }
        if let Some((_, name)) = PLANTS.iter().find(|(plant, _)| Some(*plant) == self.plant) {
            words.push(format!("--plant={name}"));
        }
        words
            .iter()
            .flat_map(|word| word.split('=').map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}

/// KTAP, one line a verdict.
struct Verdicts {
    number: usize,
    failed: bool,
}

impl Verdicts {
    fn say(&mut self, name: &str, outcome: &Result<String, String>) {
        self.number += 1;
        match outcome {
            Ok(note) if note.starts_with("SKIP") => println!("ok {} {name} # {note}", self.number),
            Ok(note) => println!("# {note}\nok {} {name}", self.number),
            Err(why) => {
                self.failed = true;
                for line in why.lines() {
                    println!("# {line}");
                }
                println!("not ok {} {name}", self.number);
            }
        }
    }
}

/// The pages in use of each device, and whether its figures add up.
fn resident(nodes: &[PathBuf]) -> Result<Vec<u64>, String> {
    nodes
        .iter()
        .map(|node| {
            let info = Device::open(node)
                .and_then(|device| device.info())
                .map_err(|e| e.to_string())?;
            let sum = info.frames_free + info.frames_claimed + info.frames_resident;
            if sum != info.frames_total || info.frames_claimed != 0 {
                return Err(format!("{}: {info:?}", node.display()));
            }
            Ok(info.frames_resident)
        })
        .collect()
}

/// A figure of `/proc/vmstat`; 0 if this kernel does not have it.
fn vmstat(name: &str) -> u64 {
    fs::read_to_string("/proc/vmstat")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

const FIGURES: [&str; 6] = [
    "pswpout",
    "pswpin",
    "thp_fault_alloc",
    "thp_collapse_alloc",
    "thp_split_page",
    "thp_split_pmd",
];

/// A memory cgroup of our own, and the file that makes it give up memory.
fn cgroup() -> Option<fs::File> {
    let ours = Path::new(CGROUP).join("hmm-storm");
    if !Path::new(CGROUP).join("cgroup.controllers").exists() {
        // SAFETY: C strings.
        unsafe {
            libc::mount(
                c"none".as_ptr(),
                c"/sys/fs/cgroup".as_ptr(),
                c"cgroup2".as_ptr(),
                0,
                std::ptr::null(),
            )
        };
    }
    fs::write(Path::new(CGROUP).join("cgroup.subtree_control"), "+memory").ok()?;
    let _ = fs::create_dir(&ours);
    fs::write(ours.join("cgroup.procs"), "0").ok()?;
    fs::OpenOptions::new()
        .write(true)
        .open(ours.join("memory.reclaim"))
        .ok()
}

fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}

/// Coherent memory is copied by the kernel, so nothing of the device can fail.
fn can_fail(node: &Path) -> bool {
    Device::open(node)
        .and_then(|device| device.info())
        .is_ok_and(|info| Kind::from_raw(info.kind) == Kind::Private)
}

/// Does what was asked and prints KTAP.
pub fn run(options: &Options) -> ExitCode {
    let mut nodes = options.devices.clone();
    if nodes.is_empty() {
        nodes = Device::list();
    }
    let mut verdicts = Verdicts {
        number: 0,
        failed: false,
    };
    println!("KTAP version 1");
    if nodes.is_empty() {
        verdicts.say(
            "there are devices",
            &Err("no /dev/hmm_dmirror*; load the modules first".into()),
        );
        println!("1..1");
        return ExitCode::FAILURE;
    }
    nodes.truncate(2);
    println!(
        "# hmm-storm {}",
        options.command(options.only, options.steps).join(" ")
    );
    let stage = Stage {
        seed: options.seed,
        board: Board::new(),
        nodes: [nodes[0].clone(), nodes.last().unwrap_or(&nodes[0]).clone()],
        threads: options.threads,
        trace: options.trace,
        inject: options.inject && nodes.iter().all(|node| can_fail(node)),
        plant: options.plant,
        remote: calls::has_remote(),
        disk: fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open("/dev/ram1")
            .ok(),
        reclaim: cgroup(),
    };
    let before = resident(&nodes);
    let figures = FIGURES.map(vmstat);
    let begin = Instant::now();
    let hung = play(&stage, options);
    for node in &nodes {
        if let Ok(device) = Device::open(node) {
            let _ = device.fail(abi::HMM_DMIRROR_FAIL_NONE, 0, 0);
        }
    }
    let steps = stage.board.steps.load(Ordering::Relaxed);
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "# {steps} operations in {seconds:.1} s, {:.0} a second",
        steps as f64 / seconds
    );

    let failure = stage.board.failure();
    let hint = match &failure {
        Some(text) if options.only.is_none() && hung.is_none() => again(options, text),
        _ => String::new(),
    };
    verdicts.say(
        "every page has what was written there",
        &failure.map_or(Ok("compared throughout".into()), |text| {
            Err(format!("{text}{hint}"))
        }),
    );
    verdicts.say("nobody hangs", &hung.map_or(Ok("all went on".into()), Err));
    verdicts.say("no frame is lost", &settled(&nodes, &before));
    if options.only.is_none() {
        what_was_done(&stage, &mut verdicts, figures);
    }
    println!("1..{}", verdicts.number);
    ExitCode::from(u8::from(verdicts.failed))
}

/// Waits until the devices are as they were.
fn settled(nodes: &[PathBuf], before: &Result<Vec<u64>, String>) -> Result<String, String> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let after = resident(nodes);
        if after == *before && after.is_ok() {
            return Ok(format!("resident as before: {after:?}"));
        }
        if Instant::now() > end {
            return Err(format!("resident were {before:?} and are {after:?}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Every kind of step has to have come to something, in a run that is long enough.
fn what_was_done(stage: &Stage, verdicts: &mut Verdicts, before: [u64; FIGURES.len()]) {
    let board = stage.board;
    for (kind, name, weight, _) in KINDS {
        let done = board.done[*kind as usize].load(Ordering::Relaxed);
        let effect = board.effect[*kind as usize].load(Ordering::Relaxed);
        let expect = board.steps.load(Ordering::Relaxed) * *weight as u64 / total() as u64;
        let missing = match kind {
            Step::Direct if stage.disk.is_none() => Some("there is no /dev/ram1 with O_DIRECT"),
            Step::RemoteRead | Step::RemoteWrite if !stage.remote => {
                Some("this kernel has no process_vm_readv()")
            }
            Step::Reclaim if stage.reclaim.is_none() => Some("this kernel has no memory.reclaim"),
            Step::PageOut | Step::Reclaim if !has_swap() => Some("there is no swap device"),
            Step::Fail if !stage.inject => {
                Some("--calm, or a device without copies that could fail")
            }
            Step::Exclusive | Step::Collapse if effect == 0 => {
                Some("this kernel does not offer it")
            }
            _ => None,
        };
        let spent = board.spent[*kind as usize].load(Ordering::Relaxed);
        let note = format!(
            "{done} times, {effect} pages, {} us each",
            spent / 1000 / done.max(1)
        );
        verdicts.say(
            &format!("{name} was done"),
            &match missing {
                Some(why) => Ok(format!("SKIP {why}")),
                None if effect > 0 || expect < 30 => Ok(note),
                None => Err(note),
            },
        );
    }
    let mut line = String::from("of the kernel:");
    for (name, before) in FIGURES.iter().zip(before) {
        let _ = write!(line, " {name} {}", vmstat(name) - before);
    }
    println!(
        "# {line}; refused {}, bus errors {}",
        board.refused.load(Ordering::Relaxed),
        board.bus_errors.load(Ordering::Relaxed)
    );
    let swapped = vmstat("pswpout") - before[0];
    if has_swap() && board.steps.load(Ordering::Relaxed) > 2000 {
        let outcome = if swapped > 0 {
            Ok(format!("{swapped} pages"))
        } else {
            Err("nothing was".into())
        };
        verdicts.say("pages were swapped out", &outcome);
    }
}

/// A process of the run that lives now.
struct Living {
    pid: libc::pid_t,
    generation: usize,
}

fn spawn(stage: &Stage, process: usize, generation: usize, options: &Options) -> Living {
    stage.board.clear(process);
    let only = options.only.and_then(|only| only.thread);
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        process::live(stage, process, generation, only, options.steps);
    }
    assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
    Living { pid, generation }
}

/// Runs everything. What hung, if something did.
fn play(stage: &Stage, options: &Options) -> Option<String> {
    let board = stage.board;
    let mut alive: [Option<Living>; PROCESSES] = Default::default();
    let mut planned = 0;
    let mut plan = |process: usize, generation: usize| {
        if options.only.is_some() {
            return generation == usize::MAX;
        }
        let more = planned < options.ops && !board.has_failed();
        planned += (life(options.seed, process, generation).0 * options.threads) as u64;
        more
    };
    if let Some(only) = options.only {
        alive[only.process % PROCESSES] = Some(spawn(
            stage,
            only.process % PROCESSES,
            only.generation,
            options,
        ));
    } else {
        for (process, place) in alive.iter_mut().enumerate().take(options.processes) {
            if plan(process, 0) {
                *place = Some(spawn(stage, process, 0, options));
            }
        }
    }
    let (mut steps, mut moved) = (0, Instant::now());
    let mut told = Instant::now();
    while alive.iter().any(Option::is_some) {
        std::thread::sleep(Duration::from_millis(10));
        for (process, place) in alive.iter_mut().enumerate() {
            let Some(Living { pid, generation }) = *place else {
                continue;
            };
            let mut status = 0;
            // SAFETY: our own child; room for the status.
            if unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } != pid {
                continue;
            }
            judge(stage, process, generation, status);
            let next = generation + 1;
            *place = plan(process, next).then(|| spawn(stage, process, next, options));
        }
        let now = board.steps.load(Ordering::Relaxed);
        if now != steps {
            (steps, moved) = (now, Instant::now());
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            println!("# {now} of about {} operations", options.ops);
        }
        if moved.elapsed() > PATIENCE {
            let text = stuck(stage, &alive);
            for living in alive.iter().flatten() {
                // SAFETY: our own children.
                unsafe { libc::kill(living.pid, libc::SIGKILL) };
            }
            return Some(text);
        }
    }
    None
}

/// How a process ended.
fn judge(stage: &Stage, process: usize, generation: usize, status: i32) {
    let doomed = stage.board.processes[process]
        .doomed
        .load(Ordering::Acquire);
    if status == 0 || doomed && libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL
    {
        return;
    }
    let how = if libc::WIFSIGNALED(status) {
        format!("was ended by signal {}", libc::WTERMSIG(status))
    } else {
        match libc::WEXITSTATUS(status) {
            process::TOO_MANY_BUS_ERRORS => "got bus errors without end".into(),
            process::UNEXPECTED_BUS_ERROR => {
                "got a bus error, and no device was told to fail".into()
            }
            other => format!("ended with {other}"),
        }
    };
    let mut text = format!("process {process}.{generation} {how}, at\n");
    for thread in 0..stage.threads {
        text += &at(stage, process, generation, thread);
    }
    stage.board.fail(&text);
}

/// What a thread was doing.
fn at(stage: &Stage, process: usize, generation: usize, thread: usize) -> String {
    let actor = Actor {
        process,
        generation,
        thread,
    };
    let step = stage.board.step(process, thread);
    let step = step.and_then(|number| Plan::new(stage.seed, actor).nth(number));
    step.map_or(String::new(), |step| format!("  {actor} {step}\n"))
}

/// Who hangs where, as far as the kernel tells.
fn stuck(stage: &Stage, alive: &[Option<Living>]) -> String {
    let mut text = format!("no step in {} s\n", PATIENCE.as_secs());
    let _ = fs::write("/proc/sysrq-trigger", "w");
    for (process, living) in alive.iter().enumerate() {
        let Some(Living { pid, generation }) = living else {
            continue;
        };
        for thread in 0..stage.threads {
            text += &at(stage, process, *generation, thread);
        }
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let stack = fs::read_to_string(task.path().join("stack")).unwrap_or_default();
            let _ = writeln!(
                text,
                "  task {}:\n{stack}",
                task.file_name().to_string_lossy()
            );
        }
    }
    text
}

/// Looks for the shortest command that fails again.
fn again(options: &Options, failure: &str) -> String {
    let whole = format!("again: hmm-storm {}", options.command(None, 0).join(" "));
    // A failure begins with the name of its actor, and has the number of the step.
    let name = failure
        .split(' ')
        .next()
        .unwrap_or_default()
        .trim_end_matches(':');
    let mut numbers = name.split('.').map(str::parse::<usize>);
    let (Some(Ok(process)), Some(Ok(generation))) = (numbers.next(), numbers.next()) else {
        return whole;
    };
    let thread = numbers.next().and_then(Result::ok);
    let steps = failure
        .split('#')
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok())
        .map_or(usize::MAX >> 1, |number| number + 1);
    let mut tries = vec![Only {
        process,
        generation,
        thread: None,
    }];
    if thread.is_some() {
        tries.insert(
            0,
            Only {
                process,
                generation,
                thread,
            },
        );
    }
    if options.shrink {
        for only in tries {
            let words = options.command(Some(only), steps);
            for _ in 0..3 {
                let status = Command::new("/proc/self/exe")
                    .args(&words)
                    .stdout(Stdio::null())
                    .status();
                if status.is_ok_and(|status| !status.success()) {
                    return format!("again: hmm-storm {}", words.join(" "));
                }
            }
        }
    }
    format!(
        "{whole}\nthat process alone does not fail: {}",
        options
            .command(
                Some(Only {
                    process,
                    generation,
                    thread: None
                }),
                steps
            )
            .join(" ")
    )
}
