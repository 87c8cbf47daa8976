// SPDX-License-Identifier: GPL-2.0
//! Processes that come and go: killed in mid-migration, many at once, a full device, a descriptor in
//! the wrong hands, memory that must not be seen by the next one.

use crate::buffer::{Buffer, all_counted, refused_everywhere, skipped, word};
use crate::harness::{
    Child, Env, Outcome, Stop, Test, conserved, ensure, ensure_eq, long, skip, test,
};
use crate::sys::{Gate, check, sleep_ms};
use hmm_uapi::{Device, Direction, sys};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub const TESTS: &[Test] = &[
    test("life::exit_frees", exit_frees),
    test("life::close_with_resident_pages", close_with_pages),
    long("life::kill_in_mid_migration", kill_in_mid_migration),
    long("life::kill_while_forking", kill_while_forking),
    long("life::several_processes", several_processes),
    long("life::device_full", device_full),
    long("life::device_nearly_full", nearly_full),
    long("life::device_shared_when_full", full_and_shared),
    long("life::zero_before_reuse", zero_before_reuse),
    long(
        "life::zero_before_reuse_of_huge_pages",
        zero_before_reuse_huge,
    ),
    test("life::descriptor_after_fork", descriptor_after_fork),
    test("life::descriptor_over_a_socket", descriptor_over_socket),
    test("life::descriptor_duplicated", descriptor_duplicated),
    test("life::release_brings_all_home", release),
    test("life::release_against_migration", release_against_migration),
    test("life::unprivileged_user", unprivileged),
    test("life::open_and_close", open_and_close),
];

fn exit_frees(env: &Env) -> Outcome {
    let device = env.open()?;
    let before = device.info()?.frames_free;
    for _ in 0..5 {
        Child::spawn(|| {
            let device = env.open()?;
            let buffer = Buffer::filled(500, 1)?;
            buffer.to_device(&device)?;
            std::mem::forget(buffer);
            std::mem::forget(device);
            Ok(())
        })?
        .join()?;
    }
    ensure_eq!(
        conserved(&device)?.frames_free,
        before,
        "free frames after five processes"
    );
    Ok(())
}

fn close_with_pages(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(256, 2)?;
    buffer.to_device(&device)?;
    drop(device);
    buffer.verify(2)?;
    let device = env.open()?;
    buffer.fill(3);
    device.mv(buffer.range(), Direction::ToDevice)?;
    ensure_eq!(buffer.local(&device)?, 256);
    drop(device);
    buffer.fill(4);
    buffer.verify(4)
}

/// A process that migrates until it is killed.
fn restless(env: &Env, seed: u64, fork: bool) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(256, seed)?;
    let huge = Buffer::huge(1)?;
    huge.fill(seed);
    for round in 0.. {
        device.mv(buffer.range(), Direction::ToDevice)?;
        device.mv(huge.range(), Direction::ToDevice)?;
        if fork {
            // SAFETY: fork; the child only reads and ends.
            if check(unsafe { libc::fork() })? == 0 {
                let fine = buffer.verify_pages(0..64, seed).is_ok();
                // SAFETY: ends the child.
                unsafe { libc::_exit(i32::from(!fine)) };
            }
        }
        match round % 3 {
            0 => buffer.verify(seed)?,
            1 => drop(device.mv(buffer.range(), Direction::ToRam)?),
            _ => huge.verify_pages(0..100, seed)?,
        }
    }
    Ok(())
}

fn kill_rounds(env: &Env, rounds: u64, fork: bool) -> Outcome {
    let device = env.open()?;
    for round in 0..rounds {
        let child = Child::spawn(|| {
            // What it forks has to die with it.
            // SAFETY: concerns the calling process only.
            unsafe { libc::setpgid(0, 0) };
            restless(env, round, fork)
        })?;
        sleep_ms(5 + word(round, 0) % 60);
        // SAFETY: the child's own group, if it came that far.
        unsafe { libc::kill(-child.pid, libc::SIGKILL) };
        child.kill()?;
        conserved(&device)?;
    }
    Ok(())
}

fn kill_in_mid_migration(env: &Env) -> Outcome {
    kill_rounds(env, 60, false)
}

fn kill_while_forking(env: &Env) -> Outcome {
    kill_rounds(env, 25, true)
}

fn several_processes(env: &Env) -> Outcome {
    let device = env.open()?;
    let children: Vec<_> = (0..4_u64)
        .map(|number| {
            Child::spawn(move || {
                let device = env.open()?;
                let second = Device::open(env.devices.last().ok_or("no device")?)?;
                let buffer = Buffer::filled(300, number)?;
                for round in 0..40 {
                    let device = if round % 4 == 3 { &second } else { &device };
                    all_counted(&device.mv(buffer.range(), Direction::ToDevice)?)?;
                    buffer.verify_pages(0..150, number)?;
                    if round % 2 == 0 {
                        device.mv(buffer.range(), Direction::ToRam)?;
                    }
                }
                buffer.verify(number)
            })
        })
        .collect::<Result<_, Stop>>()?;
    for child in children {
        child.join()?;
    }
    conserved(&device).map(drop)
}

fn device_full(env: &Env) -> Outcome {
    let device = env.open()?;
    let before = device.info()?;
    let more = 2000;
    let pages = usize::try_from(before.frames_free)? + more;
    let buffer = Buffer::filled(pages, 5)?;
    let moved = device.mv(buffer.range(), Direction::ToDevice)?;
    all_counted(&moved)?;
    let full = conserved(&device)?;
    ensure_eq!(moved.moved, before.frames_free, "pages moved: {moved:?}");
    ensure_eq!(
        skipped(&moved, sys::HMM_DMIRROR_SKIP_NO_MEMORY),
        more as u64,
        "{moved:?}"
    );
    ensure_eq!([full.frames_free, full.frames_claimed], [0, 0], "{full:?}");
    // One page more does not go, and says so in both languages.
    let one = Buffer::filled(1, 6)?;
    let moved = device.mv(one.range(), Direction::ToDevice)?;
    ensure_eq!(
        skipped(&moved, sys::HMM_DMIRROR_SKIP_NO_MEMORY),
        1,
        "{moved:?}"
    );
    let error = device
        .migrate_to_dev(one.addr(), &mut [0; 4096])
        .unwrap_err();
    ensure_eq!(error.errno, libc::ENOENT, "MIGRATE_TO_DEV to a full device");
    let hole = Buffer::new(1)?;
    let moved = device.mv(hole.range(), Direction::ToDeviceWithHoles)?;
    ensure_eq!(moved.moved, 0, "{moved:?}");
    hole.compare(0..1, |_| 0)?;
    one.verify(6)?;
    buffer.verify(5)?;
    // There is room again.
    device.mv(buffer.range(), Direction::ToRam)?;
    one.to_device(&device)?;
    one.verify(6)?;
    conserved(&device).map(drop)
}

/// Two MiB that were never touched could be one folio, but there are frames for some of it only.
fn nearly_full(env: &Env) -> Outcome {
    let device = env.open()?;
    let left = 300;
    let pages = usize::try_from(device.info()?.frames_free)? - left;
    let buffer = Buffer::filled(pages, 7)?;
    let moved = device.mv(buffer.range(), Direction::ToDevice)?;
    ensure_eq!(moved.moved, pages as u64, "{moved:?}");
    let holes = Buffer::huge(1)?;
    let moved = device.mv(holes.range(), Direction::ToDeviceWithHoles)?;
    all_counted(&moved)?;
    ensure_eq!(moved.moved, left as u64, "{moved:?}");
    ensure_eq!(holes.local(&device)?, left, "pages on the device");
    holes.compare(0..holes.pages(), |_| 0)?;
    buffer.verify(7)?;
    conserved(&device).map(drop)
}

/// Two processes want all of the device at once.
fn full_and_shared(env: &Env) -> Outcome {
    let device = env.open()?;
    let share = usize::try_from(device.info()?.frames_free)? * 5 / 8;
    let children: Vec<_> = (0..2_u64)
        .map(|number| {
            Child::spawn(move || {
                let device = env.open()?;
                let buffer = Buffer::filled(share, number)?;
                all_counted(&device.mv(buffer.range(), Direction::ToDevice)?)?;
                buffer.verify(number)?;
                all_counted(&device.mv(buffer.part(0..share / 2), Direction::ToDevice)?)?;
                buffer.verify_pages(0..share / 2, number)
            })
        })
        .collect::<Result<_, Stop>>()?;
    for child in children {
        child.join()?;
    }
    conserved(&device).map(drop)
}

/// Takes every frame, so that whoever comes next gets one that was used.
fn occupy(device: &Device, huge: bool) -> Result<Buffer, Stop> {
    let free = usize::try_from(device.info()?.frames_free)?;
    let buffer = if huge {
        Buffer::huge(free / 512)?
    } else {
        Buffer::new(free)?
    };
    Ok(buffer)
}

fn reuse(env: &Env, huge: bool) -> Outcome {
    for end_by_request in [false, true] {
        Child::spawn(|| {
            let device = env.open()?;
            let buffer = occupy(&device, huge)?;
            for page in 0..buffer.pages() {
                // A page full of one value is enough to see where it came from.
                for index in [0, 1, 255, 511] {
                    buffer.set(page * 512 + index, 0x5ec2_e750_5ec2_e750);
                }
            }
            let moved = device.mv(buffer.range(), Direction::ToDevice)?;
            ensure!(moved.moved as usize + 1024 > buffer.pages(), "{moved:?}");
            if end_by_request {
                device.mv(buffer.range(), Direction::ToRam)?;
            }
            Ok(())
        })?
        .join()?;
        Child::spawn(|| {
            let device = env.open()?;
            let buffer = occupy(&device, huge)?;
            let moved = device.mv(buffer.range(), Direction::ToDeviceWithHoles)?;
            ensure!(moved.moved as usize + 1024 > buffer.pages(), "{moved:?}");
            // The device looks at all of its memory, the CPU at some of it.
            let sum = device.checksum(buffer.range())?;
            ensure_eq!(sum.result, 0, "the device sees what another process left");
            for page in (0..buffer.pages()).step_by(16) {
                for index in [0, 1, 255, 511] {
                    ensure_eq!(buffer.get(page * 512 + index), 0, "page {page}");
                }
            }
            Ok(())
        })?
        .join()?;
    }
    Ok(())
}

fn zero_before_reuse(env: &Env) -> Outcome {
    reuse(env, false)
}

fn zero_before_reuse_huge(env: &Env) -> Outcome {
    reuse(env, true)
}

fn descriptor_after_fork(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(64, 7)?;
    buffer.to_device(&device)?;
    Child::spawn(|| {
        refused_everywhere(&device, &buffer, libc::EPERM)?;
        // Its own descriptor works on its own copy.
        let own = env.open()?;
        own.mv(buffer.range(), Direction::ToRam)?;
        buffer.verify(7)
    })?
    .join()?;
    ensure_eq!(device.info()?.to_device, 64);
    buffer.verify(7)
}

/// Sends a descriptor over a socket.
fn send_descriptor(socket: RawFd, fd: RawFd) -> Outcome {
    with_message(|message| {
        // SAFETY: the control buffer has room for one descriptor.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
            check(libc::sendmsg(socket, message, 0) as i32)?;
        }
        Ok(())
    })
}

fn receive_descriptor(socket: RawFd) -> Result<OwnedFd, Stop> {
    with_message(|message| {
        // SAFETY: the control buffer has room for one descriptor, which is then owned.
        unsafe {
            check(libc::recvmsg(socket, message, libc::MSG_CMSG_CLOEXEC) as i32)?;
            let header = libc::CMSG_FIRSTHDR(message);
            ensure!(!header.is_null(), "no descriptor came");
            Ok(OwnedFd::from_raw_fd(
                libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned(),
            ))
        }
    })
}

fn with_message<T>(work: impl FnOnce(&mut libc::msghdr) -> Result<T, Stop>) -> Result<T, Stop> {
    let mut byte = [0_u8];
    let mut control = [0_u64; 8];
    let mut vector = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: zeroes are an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: arithmetic only.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(4) } as usize;
    work(&mut message)
}

fn descriptor_over_socket(env: &Env) -> Outcome {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()) })?;
    let buffer = Buffer::filled(16, 8)?;
    let child = Child::spawn(|| {
        let fd = receive_descriptor(ends[1])?;
        // The node is opened only to have something to replace.
        let device = env.open()?;
        // SAFETY: both are descriptors of this process.
        check(unsafe { libc::dup2(fd.as_raw_fd(), device.as_raw_fd()) })?;
        refused_everywhere(&device, &buffer, libc::EPERM)
    })?;
    let device = env.open()?;
    buffer.to_device(&device)?;
    send_descriptor(ends[0], device.as_raw_fd())?;
    child.join()?;
    ensure_eq!(buffer.local(&device)?, 16);
    buffer.verify(8)
}

fn descriptor_duplicated(env: &Env) -> Outcome {
    let device = env.open()?;
    let other = env.open()?;
    // SAFETY: both are descriptors of this process; afterwards they are the same file.
    check(unsafe { libc::dup2(device.as_raw_fd(), other.as_raw_fd()) })?;
    drop(device);
    let buffer = Buffer::filled(16, 9)?;
    std::thread::scope(|scope| scope.spawn(|| buffer.to_device(&other)).join())
        .map_err(|_| "panicked")??;
    buffer.verify(9)
}

fn release(env: &Env) -> Outcome {
    let device = env.open()?;
    let (there, home) = (Gate::new()?, Gate::new()?);
    let child = Child::spawn(|| {
        let device = env.open()?;
        let small = Buffer::filled(300, 10)?;
        let huge = Buffer::huge(2)?;
        huge.fill(11);
        small.to_device(&device)?;
        huge.to_device(&device)?;
        there.open();
        ensure!(home.wait(), "the release never came");
        ensure_eq!(
            small.local(&device)? + huge.local(&device)?,
            0,
            "pages still there"
        );
        small.verify(10)?;
        huge.verify(11)
    })?;
    ensure!(there.wait(), "the child never got ready");
    let before = device.info()?;
    ensure!(before.frames_resident >= 1324, "{before:?}");
    device.release()?;
    let after = conserved(&device)?;
    ensure_eq!(after.frames_resident, 0, "resident after RELEASE");
    home.open();
    child.join()
}

fn release_against_migration(env: &Env) -> Outcome {
    let device = env.open()?;
    let children: Vec<_> = (0..2_u64)
        .map(|number| {
            Child::spawn(move || {
                let device = env.open()?;
                let buffer = Buffer::filled(256, number)?;
                for _ in 0..60 {
                    device.mv(buffer.range(), Direction::ToDevice)?;
                    buffer.verify_pages(0..64, number)?;
                }
                buffer.verify(number)
            })
        })
        .collect::<Result<_, Stop>>()?;
    for _ in 0..40 {
        device.release()?;
        conserved(&device)?;
        sleep_ms(3);
    }
    children.into_iter().try_for_each(Child::join)
}

/// Moving one's own memory needs no privilege; what concerns others does.
fn unprivileged(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(32, 12)?;
    // SAFETY: concerns the calling process only.
    if unsafe { libc::geteuid() } != 0 {
        skip!("not root");
    }
    // SAFETY: as above.
    unsafe {
        check(libc::setresgid(1000, 1000, 1000))?;
        check(libc::setresuid(1000, 1000, 1000))?;
    }
    ensure_eq!(
        device.release().map_err(|e| e.errno),
        Err(libc::EPERM),
        "RELEASE"
    );
    ensure_eq!(
        device.fail(1, 0, 1).map_err(|e| e.errno),
        Err(libc::EPERM),
        "FAIL"
    );
    ensure_eq!(
        device.fail(0, 0, 0).map_err(|e| e.errno),
        Err(libc::EPERM),
        "FAIL, off"
    );
    buffer.to_device(&device)?;
    device.info()?;
    device.checksum(buffer.range())?;
    device.mv(buffer.part(0..16), Direction::ToRam)?;
    buffer.verify(12)?;
    let node = env.devices.first().ok_or("no device")?;
    ensure_eq!(
        Device::open(node).map(drop).map_err(|e| e.errno),
        Err(libc::EACCES),
        "open"
    );
    Ok(())
}

fn open_and_close(env: &Env) -> Outcome {
    let buffer = Buffer::filled(8, 13)?;
    for _ in 0..200 {
        let device = env.open()?;
        device.mv(buffer.range(), Direction::ToDevice)?;
    }
    let many = (0..100)
        .map(|_| env.open())
        .collect::<Result<Vec<_>, _>>()?;
    for device in &many {
        device.mv(buffer.range(), Direction::ToDevice)?;
        device.mv(buffer.range(), Direction::ToRam)?;
    }
    drop(many);
    buffer.verify(13)
}
