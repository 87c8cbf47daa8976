// SPDX-License-Identifier: GPL-2.0
//! What the engine does beyond moving a range there and back: room on a full device, moves that go
//! on by themselves, moves between devices, errors on demand, memory gone bad, a system that sleeps.

use crate::buffer::{Buffer, skipped, word};
use crate::harness::{Child, Env, Outcome, Stop, Test, conserved, ensure, ensure_eq, long, skip};
use crate::sys::{check, sleep_ms};
use crate::unload;
use hmm_uapi::{Device, Direction, sys};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    long("engine::room_by_age", room_by_age),
    long("engine::room_for_all", room_for_all),
    long("engine::room_among_pinned_pages", room_among_pinned),
    long("engine::job_by_eventfd", job_by_eventfd),
    long("engine::job_by_poll", job_by_poll),
    long("engine::job_refusals", job_refusals),
    long("engine::job_closed_under_way", job_closed),
    long("engine::peer_copy", peer_copy),
    long("engine::peer_copy_fails", peer_copy_fails),
    long("engine::peer_and_ram", peer_and_ram),
    long("engine::fail_frame", |env| walk(env, "frame")),
    long("engine::fail_ram", |env| walk(env, "ram")),
    long("engine::fail_copy", |env| walk(env, "copy")),
    long("engine::fail_wait", |env| walk(env, "wait")),
    long("engine::fail_notifier", fail_notifier),
    long("engine::sleep_brings_home", sleep_brings_home),
    long(
        "engine::removal_with_pinned_pages",
        removal_with_pinned_pages,
    ),
    long("engine::memory_gone_bad", gone_bad),
];

/// Fills the device but for `leave` pages with zeroed pages.
pub fn fill_up(device: &Device, leave: u64) -> Result<Buffer, Stop> {
    let pages = usize::try_from(device.info()?.frames_free - leave)?;
    let buffer = Buffer::new(pages)?;
    let moved = device.mv(buffer.range(), Direction::ToDeviceWithHoles)?;
    ensure_eq!(moved.moved, pages as u64, "{moved:?}");
    Ok(buffer)
}

fn room_by_age(env: &Env) -> Outcome {
    let device = env.open()?;
    let old = fill_up(&device, 0)?;
    // A first turn of the clock's hand: everything was marked when it came.
    let first = Buffer::filled(512, 1)?;
    first.to_full_device(&device)?;
    // The device uses some, so that others are older.
    let used = old.pages() / 2..old.pages() / 2 + 8 * 512;
    let before = old.places_of(&device, used.clone())?;
    let before = before.iter().filter(|place| place.is_local()).count();
    device.checksum(old.part(used.clone()))?;
    let second = Buffer::filled(16 * 512, 2)?;
    second.to_full_device(&device)?;
    let after = old.places_of(&device, used)?;
    let after = after.iter().filter(|place| place.is_local()).count();
    ensure!(
        after + 512 >= before,
        "{after} of {before} pages that the device had just used are still there"
    );
    first.verify(1)?;
    second.verify(2)?;
    old.compare(0..old.pages(), |_| 0)?;
    conserved(&device).map(drop)
}

fn room_for_all(env: &Env) -> Outcome {
    let device = env.open()?;
    let _old = fill_up(&device, 3000)?;
    let children = (0..3)
        .map(|child| {
            Child::spawn(|| {
                let device = env.open()?;
                let buffer = Buffer::filled(2500, child)?;
                for round in 0..6 {
                    let moved = device.mv(buffer.range(), Direction::ToDeviceMakingRoom)?;
                    let full = skipped(&moved, sys::HMM_DMIRROR_SKIP_NO_MEMORY);
                    ensure!(full < 1250, "round {round}: {moved:?}");
                    buffer.verify(child)?;
                }
                Ok(())
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    for child in children {
        child.join()?;
    }
    conserved(&device).map(drop)
}

/// Pages that the device reads cannot be pinned; those of coherent memory can, by vmsplice().
fn room_among_pinned(env: &Env) -> Outcome {
    if env.is_private() {
        skip!("nobody can pin a page that the CPU cannot reach");
    }
    let device = env.open()?;
    let old = fill_up(&device, 0)?;
    let (out, into) = crate::sys::pipe()?;
    let piece = libc::iovec {
        iov_base: old.addr() as *mut libc::c_void,
        iov_len: 4 * 4096,
    };
    // SAFETY: the range is mapped as long as the pipe holds its pages.
    let held = unsafe { libc::vmsplice(into.as_raw_fd(), &piece, 1, 0) };
    ensure_eq!(held, 4 * 4096);
    let new = Buffer::filled(1024, 7)?;
    new.to_full_device(&device)?;
    let pinned = old.places_of(&device, 0..4)?;
    ensure!(
        pinned.iter().all(|place| place.is_local()),
        "a pinned page was moved: {pinned:?}"
    );
    drop((out, into));
    new.verify(7)?;
    conserved(&device).map(drop)
}

fn eventfd() -> Result<OwnedFd, Stop> {
    // SAFETY: a new descriptor.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
    // SAFETY: owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn readable(fd: i32, ms: i32) -> Result<bool, Stop> {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid entry.
    Ok(check(unsafe { libc::poll(&mut poll, 1, ms) })? == 1)
}

fn job_by_eventfd(env: &Env) -> Outcome {
    let device = env.open()?;
    let event = eventfd()?;
    let buffer = Buffer::filled(3000, 1)?;
    let there = device.start(buffer.range(), Direction::ToDevice, Some(event.as_fd()))?;
    ensure!(readable(event.as_raw_fd(), 30_000)?, "no event");
    let result = device.result(there)?;
    ensure_eq!(
        [u64::from(result.error), result.id, result.moved],
        [0, there, 3000],
        "{result:?}"
    );
    ensure_eq!(buffer.local(&device)?, 3000);
    // Two at once, over the same range: together they move all of it.
    let back = [
        device.start(buffer.range(), Direction::ToRam, Some(event.as_fd()))?,
        device.start(buffer.range(), Direction::ToRam, Some(event.as_fd()))?,
    ];
    let mut moved = 0;
    for id in back {
        moved += loop {
            match device.result(id) {
                Ok(result) => break result.moved,
                Err(error) if error.errno == libc::EAGAIN => sleep_ms(5),
                Err(error) => return Err(error.into()),
            }
        };
    }
    ensure_eq!(moved, 3000);
    buffer.verify(1)?;
    conserved(&device).map(drop)
}

fn job_by_poll(env: &Env) -> Outcome {
    let device = env.open()?;
    ensure!(!readable(device.as_raw_fd(), 0)?, "readable without a job");
    let buffers = (0..8)
        .map(|seed| Buffer::filled(600, seed))
        .collect::<Result<Vec<_>, _>>()?;
    let mut ids = Vec::new();
    for buffer in &buffers {
        ids.push(device.start(buffer.range(), Direction::ToDevice, None)?);
    }
    while !ids.is_empty() {
        ensure!(readable(device.as_raw_fd(), 30_000)?, "{ids:?} never end");
        let result = device.result(0)?;
        ensure_eq!(
            [u64::from(result.error), result.moved],
            [0, 600],
            "{result:?}"
        );
        let before = ids.len();
        ids.retain(|id| *id != result.id);
        ensure_eq!(ids.len() + 1, before, "{result:?} is none of ours");
    }
    ensure!(
        !readable(device.as_raw_fd(), 0)?,
        "readable with nothing left"
    );
    for (seed, buffer) in buffers.iter().enumerate() {
        buffer.verify(seed as u64)?;
    }
    Ok(())
}

fn job_refusals(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(64, 1)?;
    let fails = |result: hmm_uapi::Result<u64>, errno: i32, what: &str| -> Outcome {
        ensure_eq!(result.err().map(|error| error.errno), Some(errno), "{what}");
        Ok(())
    };
    fails(device.result(0).map(|r| r.id), libc::ENOENT, "no job")?;
    let null = fs::File::open("/dev/null")?;
    fails(
        device.start(buffer.range(), Direction::ToDevice, Some(null.as_fd())),
        libc::EBADF,
        "not an eventfd",
    )?;
    let mut odd = buffer.range();
    odd.addr += 1;
    fails(
        device.start(odd, Direction::ToDevice, None),
        libc::EINVAL,
        "unaligned",
    )?;
    for _ in 0..64 {
        device.start(buffer.range(), Direction::ToDevice, None)?;
    }
    fails(
        device.start(buffer.range(), Direction::ToDevice, None),
        libc::EBUSY,
        "one too many",
    )?;
    fails(
        device.result(4711).map(|r| r.id),
        libc::ENOENT,
        "unknown job",
    )?;
    for _ in 0..64 {
        ensure!(readable(device.as_raw_fd(), 30_000)?, "jobs never end");
        device.result(0)?;
    }
    fails(device.result(0).map(|r| r.id), libc::ENOENT, "all fetched")?;
    buffer.verify(1)
}

fn job_closed(env: &Env) -> Outcome {
    let buffer = Buffer::filled(16 * 512, 3)?;
    for round in 0..5 {
        let device = env.open()?;
        device.start(buffer.range(), Direction::ToDevice, None)?;
        device.start(buffer.range(), Direction::ToRam, None)?;
        sleep_ms(round * 3);
        drop(device);
        buffer.verify_pages(0..600, 3)?;
    }
    buffer.verify(3)?;
    // Killed with moves under way.
    let child = Child::spawn(|| {
        let device = env.open()?;
        let buffer = Buffer::filled(16 * 512, 4)?;
        for _ in 0..8 {
            device.start(buffer.range(), Direction::ToDevice, None)?;
        }
        sleep_ms(60_000);
        Ok(())
    })?;
    sleep_ms(150);
    child.kill()?;
    conserved(&env.open()?).map(drop)
}

fn peer_copy(env: &Env) -> Outcome {
    let (first, second) = (env.open()?, env.open_second()?);
    let buffer = Buffer::filled(1500, 5)?;
    buffer.to_device(&first)?;
    let moved = second.mv(buffer.range(), Direction::ToDevice)?;
    ensure_eq!(moved.moved, 1500, "{moved:?}");
    ensure_eq!(buffer.local(&second)?, 1500);
    ensure_eq!(buffer.local(&first)?, 0);
    if env.is_private() {
        let info = first.info()?;
        ensure_eq!(
            info.to_ram_request + info.to_ram_fault,
            0,
            "pages went by way of RAM: {info:?}"
        );
    }
    buffer.verify(5)?;
    conserved(&first)?;
    conserved(&second).map(drop)
}

fn peer_copy_fails(env: &Env) -> Outcome {
    env.need_private()?;
    let (first, second) = (env.open()?, env.open_second()?);
    let buffer = Buffer::filled(300, 6)?;
    for skip in 0..4 {
        buffer.fill(6 + skip);
        buffer.to_device(&first)?;
        second.fail(sys::HMM_DMIRROR_FAIL_COPY_TO_DEVICE, skip, 1)?;
        second.mv(buffer.range(), Direction::ToDevice)?;
        second.fail(sys::HMM_DMIRROR_FAIL_NONE, 0, 0)?;
        let left = buffer.local(&first)? + buffer.local(&second)?;
        ensure_eq!(left, 300, "pages on one of the devices");
        conserved(&first)?;
        conserved(&second)?;
        buffer.verify(6 + skip)?;
    }
    Ok(())
}

/// Some pages in RAM, some there, some here, some nowhere.
fn peer_and_ram(env: &Env) -> Outcome {
    let (first, second) = (env.open()?, env.open_second()?);
    let buffer = Buffer::new(1200)?;
    for page in (0..1200).filter(|page| page % 4 != 3) {
        buffer.fill_pages(page..page + 1, 9);
    }
    for page in 0..300 {
        first.mv(buffer.part(page * 4..page * 4 + 1), Direction::ToDevice)?;
        second.mv(buffer.part(page * 4 + 1..page * 4 + 2), Direction::ToDevice)?;
    }
    let moved = second.mv(buffer.range(), Direction::ToDevice)?;
    crate::buffer::all_counted(&moved)?;
    ensure_eq!(buffer.local(&second)?, 900, "{moved:?}");
    ensure_eq!(buffer.local(&first)?, 0);
    buffer.compare(0..1200, |index| {
        if index / 512 % 4 == 3 {
            0
        } else {
            word(9, index)
        }
    })
}

pub fn leg(name: &str) -> Result<PathBuf, Stop> {
    let debugfs = PathBuf::from("/sys/kernel/debug");
    let file = debugfs.join("hmm_devmem/fail").join(name);
    if !file.exists() {
        let mount = [c"debugfs".as_ptr(), c"/sys/kernel/debug".as_ptr()];
        // SAFETY: C strings; it fails where it is mounted already.
        unsafe { libc::mount(mount[0], mount[1], mount[0], 0, std::ptr::null()) };
    }
    ensure!(file.exists(), "no {}", file.display());
    Ok(file)
}

fn left(file: &PathBuf) -> Result<u64, Stop> {
    Ok(fs::read_to_string(file)?.trim().parse()?)
}

/// Fails the first, the second, … time, until a whole journey has no further.
fn walk(env: &Env, name: &str) -> Outcome {
    let device = env.open()?;
    let file = leg(name)?;
    for nth in 1..2000 {
        let buffer = Buffer::new(160)?;
        for page in (0..160).filter(|page| page % 5 != 4) {
            buffer.fill_pages(page..page + 1, nth);
        }
        fs::write(&file, nth.to_string())?;
        device.mv(buffer.range(), Direction::ToDeviceWithHoles)?;
        device.mv(buffer.part(0..80), Direction::ToRam)?;
        // By the kernel's hand, which says EFAULT where the process would get SIGBUS.
        for page in 80..160 {
            let (out, into) = crate::sys::pipe()?;
            if crate::sys::write_from(into.as_raw_fd(), buffer.at(page), 4096).is_ok() {
                drop(into);
                ensure_eq!(crate::sys::drain(&out).len(), 4096);
            }
        }
        let reached = left(&file)? == 0;
        fs::write(&file, "0")?;
        buffer.compare(0..160, |index| {
            if index / 512 % 5 == 4 {
                0
            } else {
                word(nth, index)
            }
        })?;
        device.mv(buffer.range(), Direction::ToDevice)?;
        drop(buffer);
        let info = conserved(&device)?;
        ensure_eq!(info.frames_claimed, 0, "{name} {nth}: {info:?}");
        if !reached {
            ensure!(nth > 1, "{name} was never reached");
            return Ok(());
        }
    }
    Err(Stop::Fail(format!("{name} has no end")))
}

fn fail_notifier(env: &Env) -> Outcome {
    let file = leg("notifier")?;
    fs::write(&file, "1")?;
    let error = env.open().err();
    ensure_eq!(left(&file)?, 0);
    ensure!(error.is_some(), "opened without a notifier");
    env.open().map(drop)
}

/// Somebody holds pages for ever: the driver leaves all the same, and nobody's data is touched.
fn removal_with_pinned_pages(env: &Env) -> Outcome {
    if env.is_private() {
        skip!("nobody can pin a page that the CPU cannot reach");
    }
    let patience = "/sys/module/hmm_devmem/parameters/remove_patience";
    let buffer = Buffer::filled(8, 4)?;
    let device = env.open()?;
    buffer.to_device(&device)?;
    let (out, into) = crate::sys::pipe()?;
    let piece = libc::iovec {
        iov_base: buffer.addr() as *mut libc::c_void,
        iov_len: 2 * 4096,
    };
    // SAFETY: the range is mapped as long as the pipe holds its pages.
    ensure_eq!(
        unsafe { libc::vmsplice(into.as_raw_fd(), &piece, 1, 0) },
        2 * 4096
    );
    drop(device);
    let before = fs::read_to_string(patience)?;
    fs::write(patience, "1")?;
    fs::write("/dev/kmsg", "<4>hmm-vm: expect could not be brought home")?;
    let begin = Instant::now();
    let outcome = unload::away(env, || {
        ensure!(
            begin.elapsed() < Duration::from_secs(10),
            "removal took {:?}",
            begin.elapsed()
        );
        // What was not pinned is in RAM, the rest where it was; all of it reads as before.
        buffer.verify(4)?;
        drop(into);
        ensure_eq!(crate::sys::drain(&out).len(), 2 * 4096);
        drop((buffer, out));
        // The rest of the region goes within a second or two of its last page.
        sleep_ms(3000);
        Ok(())
    });
    fs::write("/dev/kmsg", "<4>hmm-vm: expect")?;
    fs::write(patience, before.trim())?;
    outcome
}

fn sleep_brings_home(env: &Env) -> Outcome {
    let test = PathBuf::from("/sys/power/pm_test");
    if !test.exists() {
        skip!("this kernel has no /sys/power/pm_test to rehearse suspend with");
    }
    let device = env.open()?;
    let buffer = Buffer::filled(2000, 8)?;
    buffer.to_device(&device)?;
    // Notifiers are called, processes frozen for five seconds, and all is undone.
    fs::write(&test, "freezer")?;
    let slept = fs::write("/sys/power/state", "freeze");
    fs::write(&test, "none")?;
    slept?;
    ensure_eq!(buffer.local(&device)?, 0, "pages on the device after sleep");
    buffer.verify(8)?;
    buffer.to_device(&device)?;
    buffer.verify(8)
}

/// The page frame number behind an address, also of private device memory.
fn frame_number(addr: u64) -> Result<u64, Stop> {
    use std::os::unix::fs::FileExt;
    let mut entry = [0; 8];
    fs::File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, addr / 4096 * 8)?;
    let entry = u64::from_le_bytes(entry);
    ensure!(entry >> 62 != 0, "nothing at {addr:#x}");
    let low = entry & ((1 << 55) - 1);
    // A special swap entry: five bits of type, then the number.
    Ok(if entry >> 62 & 1 == 1 { low >> 5 } else { low })
}

fn gone_bad(env: &Env) -> Outcome {
    let offline = "/sys/devices/system/memory/hard_offline_page";
    if !PathBuf::from(offline).exists() {
        skip!("this kernel cannot declare a page bad");
    }
    if env.is_private() && fs::read_to_string("/proc/sys/kernel/osrelease")?.starts_with("5.10.") {
        skip!("5.10 takes no private page for bad: its memory_failure() says EBUSY");
    }
    let device = env.open()?;
    let before = device.info()?;
    let buffer = Buffer::filled(64, 9)?;
    buffer.to_device(&device)?;
    let bad = 13;
    let pfn = frame_number(buffer.at(bad))?;
    let declared = {
        let child = Child::spawn(|| {
            Ok(
                fs::write(offline, format!("{:#x}", pfn * 4096)).or_else(|error| {
                    // EIO: the kernel wanted more than was there to do.
                    if error.raw_os_error() == Some(libc::EIO) {
                        Ok(())
                    } else {
                        Err(error)
                    }
                })?,
            )
        })?;
        child.join()
    };
    declared?;
    if env.is_private() {
        // The neighbours come home, the page itself does not, and who touches it is told.
        for page in (0..64).filter(|page| *page != bad) {
            buffer.verify_pages(page..page + 1, 9)?;
        }
        let (_out, into) = crate::sys::pipe()?;
        let error = crate::sys::write_from(into.as_raw_fd(), buffer.at(bad), 4096).err();
        ensure!(error.is_some(), "a page that is lost was read");
        device.mv(buffer.range(), Direction::ToRam)?;
        ensure!(buffer.places(&device)?[bad].is_local(), "it came home");
    }
    drop(buffer);
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let info = conserved(&device)?;
        if info.frames_retired == before.frames_retired + 1 {
            ensure_eq!(info.frames_free, before.frames_free - 1, "{info:?}");
            break;
        }
        ensure!(Instant::now() < end, "never retired: {info:?}");
        sleep_ms(20);
    }
    drop(device);
    // A device without the bad frame, for the tests that follow.
    unload::renew(env)
}
