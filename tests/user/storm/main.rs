// SPDX-License-Identifier: GPL-2.0
//! `hmm-storm`: random operations on memory that moves between RAM and two devices, each page's
//! contents checked against a model. What is done is a function of the seed alone; what it meets is
//! not, because several threads of several processes do it at once.

mod actor;
mod arena;
mod board;
mod calls;
#[path = "../ktap/pattern.rs"]
mod pattern;
mod plan;
mod process;
mod run;
#[allow(dead_code, reason = "hmm-ktap uses more of it")]
#[path = "../ktap/sys.rs"]
mod sys;

use run::{Only, Options};
use std::process::ExitCode;

const HELP: &str = "\
usage: hmm-storm [--seed N] [--ops N] [--processes N] [--threads N] [--calm] [--trace] [--device NODE]...
       hmm-storm --seed N --only PROCESS.GENERATION[.THREAD] [--steps N] [--trace]
       hmm-storm --list

  --seed N        what is done follows from this number (default: from the clock, and printed)
  --ops N         operations, of all threads together (default 10000)
  --processes N   that live at a time, 1 to 8 (default 3)
  --threads N     of each, 1 to 4 (default 2)
  --calm          no device fails on purpose
  --trace         print every step before it is taken
  --device NODE   the devices (default: the first two there are)
  --only P.G[.T]  one process of a run with this seed, or one thread of it
  --steps N       and of that only so many steps
  --no-shrink     after a failure, do not look for a shorter way to it
  --plant WHAT    pages go wrong on purpose, behind the model's back: lost, foreign or word; the run has to fail
  --list          the kinds of steps, and how often each comes

Prints KTAP; run it as root. A failure names the seed, the step and the shortest command that shows it again.
For swap and O_DIRECT it wants /dev/ram0 (used as swap by whoever calls this) and /dev/ram1.
";

fn options() -> Result<Option<Options>, String> {
    let mut options = Options::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        let number = |text: String| {
            let text = text.replace('_', "");
            text.parse::<u64>()
                .or_else(|_| u64::from_str_radix(text.trim_start_matches("0x"), 16))
                .map_err(|_| format!("{text} is no number"))
        };
        let between = |text: String, most: u64| match number(text)? {
            n if (1..=most).contains(&n) => Ok(n as usize),
            n => Err(format!("{n} is not between 1 and {most}")),
        };
        match word.as_str() {
            "--seed" => options.seed = number(value()?)?,
            "--ops" => options.ops = number(value()?)?.max(1),
            "--processes" => options.processes = between(value()?, board::PROCESSES as u64)?,
            "--threads" => options.threads = between(value()?, board::THREADS as u64)?,
            "--steps" => options.steps = number(value()?)? as usize,
            "--calm" => options.inject = false,
            "--plant" => {
                let text = value()?;
                let known = plan::PLANTS.iter().find(|(_, name)| *name == text);
                options.plant = Some(known.ok_or(format!("{text}: not lost, foreign or word"))?.0);
            }
            "--trace" => options.trace = true,
            "--no-shrink" => options.shrink = false,
            "--device" => options.devices.push(value()?.into()),
            "--only" => {
                let text = value()?;
                let parts = text
                    .split('.')
                    .map(|part| {
                        part.parse()
                            .map_err(|_| format!("{text}: not P.G or P.G.T"))
                    })
                    .collect::<Result<Vec<usize>, _>>()?;
                options.only = match parts[..] {
                    [process, generation] => Some(Only {
                        process,
                        generation,
                        thread: None,
                    }),
                    [process, generation, thread] => Some(Only {
                        process,
                        generation,
                        thread: Some(thread),
                    }),
                    _ => return Err(format!("{text}: not P.G or P.G.T")),
                };
            }
            "--list" => {
                for (_, name, weight, what) in plan::KINDS {
                    println!("{name:<16} {weight:>3}  {what}");
                }
                return Ok(None);
            }
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(None);
            }
            _ => return Err(format!("unknown option {word}")),
        }
    }
    Ok(Some(options))
}

fn main() -> ExitCode {
    match options() {
        Ok(Some(options)) => run::run(&options),
        Ok(None) => ExitCode::SUCCESS,
        Err(why) => {
            eprint!("hmm-storm: {why}\n{HELP}");
            ExitCode::from(2)
        }
    }
}
