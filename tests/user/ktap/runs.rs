// SPDX-License-Identifier: GPL-2.0
//! `hmm-run` itself: programs under it do what they do without it, and it says what moved.

use crate::harness::{Env, Outcome, Stop, Test, ensure, ensure_eq, long, skip, test};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

pub const TESTS: &[Test] = &[
    long("run::memory_moves_and_stays_right", work),
    test("run::exit_status", status),
    test("run::killed_by_a_signal", signal),
    test("run::quick_exit", quick),
    test("run::forks", forks),
    test("run::descriptors", descriptors),
    test("run::threads", threads),
    test("run::spawns", spawns),
    test("run::exec", exec),
    test("run::signals", signals),
    test("run::leader_leaves_first", leader),
    test("run::output_is_not_disturbed", output),
    test("run::own_errors", errors),
    test("run::residency_file", residency),
    test("run::collapse", collapse),
    test("run::return_every", return_every),
];

fn find(name: &str) -> Result<PathBuf, Stop> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| path.exists())
    {
        Some(path) => Ok(path),
        None => skip!("there is no {name} here"),
    }
}

/// What a run left behind.
struct Run {
    output: Output,
    json: String,
}

impl Run {
    /// A number of the JSON object; it is flat enough for this.
    fn number(&self, key: &str) -> Result<u64, Stop> {
        let mark = format!("\"{key}\":");
        let at = self
            .json
            .find(&mark)
            .ok_or(format!("no {key} in {}", self.json))?;
        let digits: String = self.json[at + mark.len()..]
            .trim_start()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        Ok(digits.parse()?)
    }
}

/// Under hmm-run, with a short interval.
fn run(env: &Env, options: &[&str], program: &[&str]) -> Result<Run, Stop> {
    let json = format!("/tmp/hmm-run.{}.json", std::process::id());
    let output = Command::new(find("hmm-run")?)
        .args(["--interval", "5", "--json", &json, "--device"])
        .arg(env.devices.first().ok_or("no device")?)
        .args(options)
        .arg("--")
        .args(program)
        .stdin(Stdio::null())
        .output()?;
    let text = fs::read_to_string(&json).unwrap_or_default();
    let _ = fs::remove_file(&json);
    Ok(Run { output, json: text })
}

/// A victim plain and under hmm-run: the same status and output; returns the latter.
fn same(env: &Env, victim: &[&str]) -> Result<Run, Stop> {
    let me = std::env::current_exe()?;
    let me = me.to_str().ok_or("own path")?;
    let program: Vec<_> = [me, "--victim"]
        .into_iter()
        .chain(victim.iter().copied())
        .collect();
    let plain = Command::new(me)
        .args(&program[1..])
        .stdin(Stdio::null())
        .output()?;
    let under = run(env, &[], &program)?;
    let errors = String::from_utf8_lossy(&under.output.stderr).into_owned();
    ensure_eq!(
        String::from_utf8_lossy(&under.output.stdout),
        String::from_utf8_lossy(&plain.stdout),
        "output of {victim:?}, which said {errors}"
    );
    use std::os::unix::process::ExitStatusExt;
    let want = plain
        .status
        .code()
        .or(plain.status.signal().map(|signal| 128 + signal));
    ensure_eq!(
        under.output.status.code(),
        want,
        "status of {victim:?}, which said {errors}"
    );
    ensure!(errors.contains("to device"), "no table: {errors}");
    Ok(under)
}

/// The same, and pages moved.
fn moves(env: &Env, victim: &[&str]) -> Result<Run, Stop> {
    let run = same(env, victim)?;
    let (to_device, faults) = (run.number("pages_to_device")?, run.number("cpu_faults")?);
    ensure!(
        to_device > 100,
        "{to_device} pages to the device: {}",
        run.json
    );
    if env.is_private() {
        ensure!(faults > 0, "no CPU faults: {}", run.json);
        let back = run.number("pages_to_ram_by_fault")?;
        ensure!(back >= faults, "{back} pages by {faults} faults");
    }
    ensure_eq!(run.number("processes_not_started")?, 0, "{}", run.json);
    ensure_eq!(run.number("errors")?, 0, "{}", run.json);
    Ok(run)
}

fn work(env: &Env) -> Outcome {
    let run = moves(env, &["work"])?;
    ensure!(run.number("rounds")? >= 1, "{}", run.json);
    ensure!(run.number("peak_resident")? > 500, "{}", run.json);
    ensure!(run.json.contains("\"exit_code\": 0"), "{}", run.json);
    let table = String::from_utf8_lossy(&run.output.stderr).into_owned();
    ensure!(table.contains("on device"), "no picture: {table}");
    Ok(())
}

fn status(env: &Env) -> Outcome {
    for status in ["0", "1", "42", "125", "255"] {
        same(env, &["status", status])?;
    }
    Ok(())
}

fn signal(env: &Env) -> Outcome {
    for signal in ["9", "15", "6"] {
        let run = same(env, &["signal", signal])?;
        ensure!(run.number("signal")?.to_string() == signal, "{}", run.json);
        ensure!(
            run.number("pages_to_device")? > 100,
            "figures of a killed program: {}",
            run.json
        );
    }
    Ok(())
}

fn quick(env: &Env) -> Outcome {
    moves(env, &["quick"]).map(drop)
}

fn forks(env: &Env) -> Outcome {
    let run = moves(env, &["forks"])?;
    ensure_eq!(run.number("processes")?, 7, "{}", run.json);
    Ok(())
}

fn descriptors(env: &Env) -> Outcome {
    moves(env, &["descriptors"]).map(drop)
}

fn threads(env: &Env) -> Outcome {
    moves(env, &["threads"]).map(drop)
}

fn spawns(env: &Env) -> Outcome {
    same(env, &["spawns"]).map(drop)
}

fn exec(env: &Env) -> Outcome {
    let run = moves(env, &["exec"])?;
    ensure_eq!(run.number("processes")?, 2, "{}", run.json);
    Ok(())
}

fn signals(env: &Env) -> Outcome {
    moves(env, &["signals"]).map(drop)
}

fn leader(env: &Env) -> Outcome {
    moves(env, &["leader"]).map(drop)
}

/// Nothing of ours on standard output, standard input reaches the program.
fn output(env: &Env) -> Outcome {
    let shell = find("sh")?;
    let shell = shell.to_str().ok_or("path")?;
    let run = run(
        env,
        &["--quiet"],
        &[shell, "-c", "echo out; echo err >&2; exit 5"],
    )?;
    ensure_eq!(String::from_utf8_lossy(&run.output.stdout), "out\n");
    ensure_eq!(String::from_utf8_lossy(&run.output.stderr), "err\n");
    ensure_eq!(run.output.status.code(), Some(5));
    Ok(())
}

fn errors(env: &Env) -> Outcome {
    let exe = std::env::current_exe()?;
    let me = exe.to_str().ok_or("own path")?;
    let hmm_run = find("hmm-run")?;
    let node = env
        .devices
        .first()
        .and_then(|path| path.to_str())
        .ok_or("no device")?;
    let say = |arguments: &[&str]| -> Result<(Option<i32>, String), Stop> {
        let output = Command::new(&hmm_run)
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        Ok((
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    };
    for (arguments, status, text) in [
        (
            vec![
                "--device",
                "/dev/hmm_dmirror99",
                "--",
                me,
                "--victim",
                "exit",
            ],
            125,
            node,
        ),
        (
            vec!["--device", "/dev/null", "--", me],
            125,
            "not a device of hmm_dmirror",
        ),
        (vec!["--", "no-such-program"], 127, "command not found"),
        (vec!["--", "/proc/version"], 126, "ermission denied"),
        (vec!["--interval", "0", "--", me], 125, "0 is not in"),
        (vec!["--unknown", "--", me], 125, "unexpected argument"),
        (vec![], 125, "Usage"),
    ] {
        let (code, said) = say(&arguments)?;
        ensure_eq!(code, Some(status), "{arguments:?} said {said}");
        ensure!(said.contains(text), "{arguments:?} said {said}");
    }
    let busybox = PathBuf::from("/bin/busybox");
    if busybox.exists() {
        let (code, said) = say(&["--", "/bin/busybox", "true"])?;
        ensure_eq!(code, Some(125), "{said}");
        ensure!(said.contains("statically linked"), "{said}");
    }
    let help = Command::new(&hmm_run).arg("--help").output()?;
    ensure_eq!(help.status.code(), Some(0));
    ensure!(
        String::from_utf8_lossy(&help.stdout).contains("--interval"),
        "--help"
    );
    Ok(())
}

fn residency(env: &Env) -> Outcome {
    let file = format!("/tmp/hmm-run.{}.lines", std::process::id());
    let exe = std::env::current_exe()?;
    let me = exe.to_str().ok_or("own path")?;
    run(env, &["--residency", &file], &[me, "--victim", "work"])?;
    let text = fs::read_to_string(&file)?;
    let _ = fs::remove_file(&file);
    ensure!(text.lines().count() >= 1, "{text}");
    for line in text.lines() {
        let whole = line.starts_with("{\"ms\":") && line.ends_with("]}");
        ensure!(whole && line.matches(',').count() == 37, "{line}");
    }
    Ok(())
}

fn collapse(env: &Env) -> Outcome {
    let exe = std::env::current_exe()?;
    let me = exe.to_str().ok_or("own path")?;
    for huge in ["never", "auto", "collapse"] {
        let run = run(env, &["--huge", huge], &[me, "--victim", "work"])?;
        ensure_eq!(run.output.status.code(), Some(0), "--huge {huge}");
        if huge == "never" {
            ensure_eq!(run.number("blocks_collapsed")?, 0);
        }
    }
    Ok(())
}

/// Every second round brings everything back, whatever the kind of memory.
fn return_every(env: &Env) -> Outcome {
    let exe = std::env::current_exe()?;
    let me = exe.to_str().ok_or("own path")?;
    let run = run(env, &["--return-every", "2"], &[me, "--victim", "work"])?;
    ensure_eq!(run.output.status.code(), Some(0));
    if run.number("rounds")? >= 3 {
        let back = run.number("pages_to_ram_by_request")?;
        ensure!(back > 0, "no page came back by request: {}", run.json);
    }
    Ok(())
}
