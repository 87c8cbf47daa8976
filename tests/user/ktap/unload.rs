// SPDX-License-Identifier: GPL-2.0
//! The device goes away: rmmod and unbind with pages resident, and everything comes home.

use crate::buffer::{Buffer, refused_everywhere};
use crate::harness::{Env, Outcome, Stop, Test, conserved, ensure, ensure_eq, long, skip};
use crate::sys::{errno, sleep_ms};
use hmm_uapi::{Device, Direction};
use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub const TESTS: &[Test] = &[
    long("unload::refused_while_open", refused_while_open),
    long("unload::resident_pages_come_home", pages_come_home),
    long("unload::while_threads_touch", while_threads_touch),
    long("unload::again_and_again", again_and_again),
    long("unload::unbind_under_a_running_process", unbind),
    long("unload::unbind_during_migration", unbind_during_migration),
];

const DRIVER: &str = "/sys/bus/platform/drivers/hmm_dmirror";
const PARAMETERS: &str = "/sys/module/hmm_dmirror/parameters";

/// Loads and unloads hmm_dmirror with the parameters it had.
struct Module {
    file: PathBuf,
    parameters: String,
}

impl Module {
    fn find(env: &Env) -> Result<Self, Stop> {
        let file = env.modules.join("hmm_dmirror.ko");
        if !file.exists() {
            skip!("no {} to load again", file.display());
        }
        let mut parameters = Vec::new();
        for entry in fs::read_dir(PARAMETERS)? {
            let entry = entry?;
            let value = fs::read_to_string(entry.path())?;
            if !value.trim().is_empty() {
                parameters.push(format!(
                    "{}={}",
                    entry.file_name().to_string_lossy(),
                    value.trim()
                ));
            }
        }
        Ok(Self {
            file,
            parameters: parameters.join(" "),
        })
    }

    /// rmmod, without waiting; the errno if it is refused.
    fn unload(name: &str) -> Result<(), i32> {
        let name = CString::new(name).unwrap_or_default();
        // SAFETY: a C string.
        let result =
            unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) };
        if result == 0 { Ok(()) } else { Err(errno()) }
    }

    fn load(&self) -> Outcome {
        let file = fs::File::open(&self.file)?;
        let parameters = CString::new(self.parameters.as_str())?;
        // SAFETY: a C string.
        let result = unsafe {
            libc::syscall(
                libc::SYS_finit_module,
                file.as_raw_fd(),
                parameters.as_ptr(),
                0,
            )
        };
        ensure_eq!(
            result,
            0,
            "insmod {} {}: errno {}",
            self.file.display(),
            self.parameters,
            errno()
        );
        Ok(())
    }
}

/// Waits for a node to appear.
fn open_again(path: &Path) -> Result<Device, Stop> {
    for _ in 0..200 {
        match Device::open(path) {
            Ok(device) => return Ok(device),
            Err(_) => sleep_ms(20),
        }
    }
    Ok(Device::open(path)?)
}

const BUSY: [i32; 2] = [libc::EBUSY, libc::EWOULDBLOCK];

fn refused_while_open(env: &Env) -> Outcome {
    Module::find(env)?;
    let device = env.open()?;
    let buffer = Buffer::filled(256, 1)?;
    buffer.to_device(&device)?;
    for name in ["hmm_dmirror", "hmm_devmem"] {
        let refusal = Module::unload(name).err();
        ensure!(
            refusal.is_some_and(|errno| BUSY.contains(&errno)),
            "rmmod {name}: {refusal:?}"
        );
    }
    ensure_eq!(buffer.local(&device)?, 256);
    buffer.verify(1)?;
    conserved(&device).map(drop)
}

/// Pages whose owner closed the device stay resident; rmmod is refused, or brings them home.
fn resident_then_unload(
    env: &Env,
    touch: impl Fn(&Buffer, &AtomicBool) -> Outcome + Sync,
) -> Outcome {
    let module = Module::find(env)?;
    let node = env.devices.first().ok_or("no device")?;
    let small = Buffer::filled(700, 2)?;
    let huge = Buffer::huge(2)?;
    huge.fill(3);
    {
        let device = env.open()?;
        small.to_device(&device)?;
        huge.to_device(&device)?;
    }
    let gone = AtomicBool::new(false);
    let unloaded = std::thread::scope(|scope| {
        let toucher = scope.spawn(|| touch(&small, &gone));
        let unloaded = Module::unload("hmm_dmirror");
        gone.store(true, Ordering::Release);
        toucher.join().map_err(|_| "panicked")??;
        Result::<_, Stop>::Ok(unloaded)
    })?;
    // Whatever it said: the bytes are right, and they stay right.
    let bytes = small.verify(2).and_then(|()| huge.verify(3));
    match unloaded {
        Ok(()) => {
            ensure!(
                !node.exists(),
                "{} is still there after rmmod",
                node.display()
            );
            module.load()?;
        }
        Err(errno) => ensure!(BUSY.contains(&errno), "rmmod: errno {errno}"),
    }
    bytes?;
    let device = open_again(node)?;
    device.mv(small.range(), Direction::ToDevice)?;
    ensure_eq!(small.local(&device)?, 700, "pages on the new device");
    small.verify(2)?;
    conserved(&device).map(drop)
}

fn pages_come_home(env: &Env) -> Outcome {
    resident_then_unload(env, |_, _| Ok(()))
}

fn while_threads_touch(env: &Env) -> Outcome {
    resident_then_unload(env, |buffer, gone| {
        while !gone.load(Ordering::Acquire) {
            buffer.verify_pages(0..350, 2)?;
        }
        Ok(())
    })
}

fn again_and_again(env: &Env) -> Outcome {
    let module = Module::find(env)?;
    let node = env.devices.first().ok_or("no device")?;
    for seed in 0..6 {
        let buffer = Buffer::filled(200, seed)?;
        let device = open_again(node)?;
        buffer.to_device(&device)?;
        conserved(&device)?;
        drop(device);
        if seed % 2 == 0 {
            drop(buffer);
            if let Err(errno) = Module::unload("hmm_dmirror") {
                return Err(Stop::Fail(format!("rmmod without any user: errno {errno}")));
            }
        } else {
            let unloaded = Module::unload("hmm_dmirror");
            buffer.verify(seed)?;
            if unloaded.is_err() {
                continue;
            }
        }
        module.load()?;
    }
    Ok(())
}

/// The platform devices behind the nodes.
fn bound() -> Result<Vec<String>, Stop> {
    let mut names: Vec<_> = fs::read_dir(DRIVER)?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("hmm_dmirror"))
        .collect();
    names.sort();
    ensure!(!names.is_empty(), "no device in {DRIVER}");
    Ok(names)
}

fn bind(name: &str) -> Outcome {
    Ok(fs::write(format!("{DRIVER}/bind"), name)?)
}

/// `work` runs while the first device is unbound; then all are bound again.
fn unbound<T>(env: &Env, work: impl FnOnce(&Path, &str) -> Result<T, Stop>) -> Result<T, Stop> {
    let names = bound()?;
    let node = env.devices.first().ok_or("no device")?;
    // Nodes and platform devices are numbered alike.
    let number = node
        .to_string_lossy()
        .chars()
        .rev()
        .take_while(char::is_ascii_digit)
        .collect::<String>();
    let number: String = number.chars().rev().collect();
    let wanted = names
        .iter()
        .find(|name| name.ends_with(&format!(".{number}")));
    let name = wanted.ok_or(format!("no device {number} among {names:?}"))?;
    let result = work(node, name);
    let missing = !bound().is_ok_and(|names| names.contains(name));
    if missing {
        bind(name)?;
    }
    result
}

/// Takes the first device away and brings it back, as new.
pub fn renew(env: &Env) -> Outcome {
    away(env, || Ok(()))
}

/// `work` runs while the first device is away.
pub fn away(env: &Env, work: impl FnOnce() -> Outcome) -> Outcome {
    unbound(env, |_, name| {
        fs::write(format!("{DRIVER}/unbind"), name)?;
        work()
    })
}

fn unbind(env: &Env) -> Outcome {
    unbound(env, |node, name| {
        let device = env.open()?;
        let small = Buffer::filled(700, 4)?;
        let huge = Buffer::huge(2)?;
        huge.fill(5);
        small.to_device(&device)?;
        huge.to_device(&device)?;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let toucher = scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    small.verify_pages(0..200, 4)?;
                    huge.verify_pages(0..200, 5)?;
                }
                Outcome::Ok(())
            });
            let result = fs::write(format!("{DRIVER}/unbind"), name);
            done.store(true, Ordering::Release);
            toucher.join().map_err(|_| "panicked")??;
            Ok::<_, Stop>(result?)
        })?;
        small.verify(4)?;
        huge.verify(5)?;
        refused_everywhere(&device, &small, libc::ENODEV)?;
        let opened = Device::open(node).map(drop).map_err(|error| error.errno);
        let refused = [libc::ENOENT, libc::ENODEV, libc::ENXIO];
        ensure!(
            opened.is_err_and(|errno| refused.contains(&errno)),
            "open: {opened:?}"
        );
        small.fill(6);
        bind(name)?;
        // The old descriptor stays dead, a new one works.
        let new = open_again(node)?;
        refused_everywhere(&device, &small, libc::ENODEV)?;
        small.to_device(&new)?;
        small.verify(6)?;
        conserved(&new).map(drop)
    })
}

fn unbind_during_migration(env: &Env) -> Outcome {
    unbound(env, |node, name| {
        for round in 0..4 {
            let device = open_again(node)?;
            let buffers = [Buffer::filled(300, 7)?, Buffer::filled(300, 8)?];
            std::thread::scope(|scope| {
                let device = &device;
                let movers: Vec<_> = buffers
                    .iter()
                    .zip([7, 8])
                    .map(|(buffer, seed)| {
                        scope.spawn(move || {
                            loop {
                                match device.mv(buffer.range(), Direction::ToDevice) {
                                    Ok(_) => buffer.verify_pages(0..100, seed)?,
                                    Err(error) => {
                                        ensure_eq!(
                                            error.errno,
                                            libc::ENODEV,
                                            "MOVE while unbinding"
                                        );
                                        return buffer.verify(seed);
                                    }
                                }
                            }
                        })
                    })
                    .collect();
                sleep_ms(20 * round + 10);
                let result = fs::write(format!("{DRIVER}/unbind"), name);
                for mover in movers {
                    mover.join().map_err(|_| "panicked")??;
                }
                Ok::<_, Stop>(result?)
            })?;
            for (buffer, seed) in buffers.iter().zip([7, 8]) {
                buffer.verify(seed)?;
            }
            refused_everywhere(&device, &buffers[0], libc::ENODEV)?;
            bind(name)?;
        }
        Ok(())
    })
}
