// SPDX-License-Identifier: GPL-2.0
//! `hmm-ktap`: tests of `hmm_dmirror` and `hmm-run` in KTAP, run as root in a test machine.
//!
//! Each test runs in a process of its own. When that process is gone, every device has to be as it
//! was before: nothing claimed, nothing more resident, `free + claimed + resident == total`.

mod buffer;
mod data;
mod device;
mod engine;
mod eyes;
mod failing;
mod harness;
mod hint;
mod input;
mod life;
mod mm;
mod pattern;
mod runs;
mod storm;
mod sys;
mod unload;
mod victim;
mod vram;
mod whole;

use harness::{Env, Test};
use hmm_uapi::Device;
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
usage: hmm-ktap [--device NODE]... [--modules DIR] [--list] [--skip TEXT]... [FILTER]...

  --device NODE   the devices under test, the first one is the main one (default: all there are)
  --modules DIR   where hmm_devmem.ko and hmm_dmirror.ko are (default: /modules)
  --list          print the names of the tests
  --skip TEXT     leave out tests whose name contains TEXT
  FILTER          run only tests whose name contains one of these
";

fn tests() -> Vec<Test> {
    [
        data::TESTS,
        device::TESTS,
        mm::TESTS,
        life::TESTS,
        failing::TESTS,
        engine::TESTS,
        hint::TESTS,
        input::TESTS,
        storm::TESTS,
        eyes::TESTS,
        runs::TESTS,
        unload::TESTS,
        vram::TESTS,
        whole::TESTS,
    ]
    .concat()
}

fn main() -> ExitCode {
    let mut devices = Vec::new();
    let mut modules = PathBuf::from("/modules");
    let mut list = false;
    let mut one = None;
    let mut skip = Vec::new();
    let mut filters = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        match word.as_str() {
            "--victim" => victim::run(&value(), &words.collect::<Vec<_>>()),
            "--device" => devices.push(PathBuf::from(value())),
            "--modules" => modules = value().into(),
            "--list" => list = true,
            "--one" => one = Some(value()),
            "--skip" => skip.push(value()),
            "--help" | "-h" => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            other if other.starts_with('-') => {
                eprint!("hmm-ktap: unknown option {other}\n{HELP}");
                return ExitCode::from(2);
            }
            other => filters.push(other.to_owned()),
        }
    }
    if let Some(name) = one {
        match tests().iter().find(|test| test.name == name) {
            Some(test) => harness::one(&Env::new(devices, modules), test),
            None => return ExitCode::from(2),
        }
    }
    let mut chosen = tests();
    chosen.retain(|test| {
        (filters.is_empty()
            || filters
                .iter()
                .any(|filter| test.name.contains(filter.as_str())))
            && !skip.iter().any(|skip| test.name.contains(skip.as_str()))
    });
    if list {
        chosen.iter().for_each(|test| println!("{}", test.name));
        return ExitCode::SUCCESS;
    }
    if devices.is_empty() {
        devices = Device::list();
    }
    // A machine has devices of one driver.
    if devices.is_empty() {
        devices = Device::list_of("hmm_vram");
    }
    harness::run(&Env::new(devices, modules), &chosen)
}
