// SPDX-License-Identifier: GPL-2.0
//! Everything a program does to its address space, with its pages on the device.

use crate::buffer::{Buffer, PAGE, all_counted, word};
use crate::harness::{Child, Env, Outcome, Stop, Test, conserved, ensure, ensure_eq, skip, test};
use crate::sys::{Gate, check, errno, pipe, read, write_from};
use hmm_uapi::{Direction, Range};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

pub const TESTS: &[Test] = &[
    test("mm::fork_child_reads", fork_child_reads),
    test("mm::fork_child_writes", fork_child_writes),
    test("mm::fork_parent_writes", fork_parent_writes),
    test("mm::fork_child_outlives_parent", fork_child_outlives_parent),
    test("mm::fork_then_move_shared_pages", fork_then_move),
    test("mm::fork_of_huge_pages", fork_huge),
    test("mm::fork_chain", fork_chain),
    test("mm::mprotect", mprotect),
    test("mm::read_only_memory_moves", read_only),
    test("mm::munmap_in_the_middle", munmap_middle),
    test("mm::munmap_part_of_a_huge_page", munmap_huge),
    test("mm::mremap", mremap),
    test("mm::mremap_of_a_huge_page", mremap_huge),
    test("mm::madvise_dontneed", dontneed),
    test("mm::madvise_collapse", collapse),
    test("mm::locked_memory", locked),
    test("mm::private_file_mapping", private_file),
    test("mm::shared_memory_stays", shared),
    test("mm::system_calls_on_resident_pages", system_calls),
    test("mm::pinned_pages", pinned),
    test("mm::another_process_reads_and_writes", another_process),
    test("mm::direct_io", direct_io),
    test("mm::whole_address_space", whole_address_space),
    test("mm::exec_with_resident_pages", exec),
];

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Both sides see the old bytes until one of them writes.
fn fork_child_reads(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(256, 1)?;
    buffer.to_device(&device)?;
    let child = Child::spawn(|| buffer.verify(1))?;
    buffer.verify(1)?;
    child.join()?;
    buffer.verify(1)
}

fn fork_child_writes(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(256, 2)?;
    buffer.to_device(&device)?;
    Child::spawn(|| {
        buffer.fill_pages(0..128, 3);
        buffer.verify_pages(0..128, 3)?;
        buffer.verify_pages(128..256, 2)
    })?
    .join()?;
    buffer.verify(2)?;
    conserved(&device).map(drop)
}

fn fork_parent_writes(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(256, 4)?;
    buffer.to_device(&device)?;
    let gate = Gate::new()?;
    let child = Child::spawn(|| {
        ensure!(gate.wait(), "the parent never wrote");
        buffer.verify(4)
    })?;
    buffer.fill(5);
    // SAFETY: the buffer is only accessed through volatile reads.
    unsafe { device.add(buffer.range(), 9)? };
    gate.open();
    child.join()?;
    buffer.compare(0..256, |i| word(5, i).wrapping_add(9))
}

fn fork_child_outlives_parent(env: &Env) -> Outcome {
    // The test waits for the grandchild by its pipe; the owner of the pages is the child.
    let (result, report) = pipe()?;
    let gone = Gate::new()?;
    let owner = Child::spawn(|| {
        let device = env.open()?;
        let buffer = Buffer::filled(256, 6)?;
        buffer.to_device(&device)?;
        drop(device);
        // SAFETY: fork; the grandchild ends with _exit below.
        if check(unsafe { libc::fork() })? == 0 {
            let waited = gone.wait();
            let fine = waited && buffer.verify(6).is_ok() && {
                buffer.fill(7);
                buffer.verify(7).is_ok()
            };
            let word = [u8::from(fine)];
            let _ = write_from(report.as_raw_fd(), word.as_ptr().addr() as u64, 1);
            // SAFETY: ends the grandchild.
            unsafe { libc::_exit(0) };
        }
        Ok(())
    })?;
    owner.join()?;
    drop(report);
    gone.open();
    let mut word = [0];
    ensure_eq!(
        read(result.as_raw_fd(), &mut word)?,
        1,
        "the grandchild's report"
    );
    ensure_eq!(word[0], 1, "the grandchild saw wrong bytes");
    Ok(())
}

/// Pages that two processes share do not go, or go and stay shared; the bytes are right.
fn fork_then_move(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(128, 8)?;
    let gate = Gate::new()?;
    let child = Child::spawn(|| {
        ensure!(gate.wait(), "the parent never moved");
        buffer.verify(8)?;
        buffer.fill(9);
        buffer.verify(9)
    })?;
    for _ in 0..3 {
        all_counted(&device.mv(buffer.range(), Direction::ToDevice)?)?;
        // SAFETY: the buffer is only accessed through volatile reads.
        unsafe { device.add(buffer.part(0..64), 1)? };
    }
    gate.open();
    child.join()?;
    buffer.compare(0..64, |i| word(8, i).wrapping_add(3))?;
    buffer.verify_pages(64..128, 8)?;
    conserved(&device).map(drop)
}

fn fork_huge(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::huge(2)?;
    buffer.fill(10);
    buffer.to_device(&device)?;
    let child = Child::spawn(|| {
        buffer.verify(10)?;
        buffer.fill_pages(100..600, 11);
        buffer.verify_pages(100..600, 11)
    })?;
    buffer.fill_pages(0..50, 12);
    child.join()?;
    buffer.verify_pages(0..50, 12)?;
    buffer.verify_pages(50..1024, 10)?;
    conserved(&device).map(drop)
}

fn fork_chain(env: &Env) -> Outcome {
    fn link(env: &Env, buffer: &Buffer, depth: u64) -> Outcome {
        // Each generation opens the device anew and moves its own copy.
        let device = env.open()?;
        buffer.verify(depth)?;
        buffer.fill(depth + 1);
        device.mv(buffer.range(), Direction::ToDevice)?;
        if depth < 5 {
            Child::spawn(|| link(env, buffer, depth + 1))?.join()?;
        }
        buffer.verify(depth + 1)
    }
    link(env, &Buffer::filled(64, 0)?, 0)
}

fn mprotect(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(96, 13)?;
    buffer.to_device(&device)?;
    buffer.protect(0..32, libc::PROT_READ)?;
    buffer.protect(32..64, libc::PROT_NONE)?;
    buffer.verify_pages(0..32, 13)?;
    // Forbidden and on the device: touching is a plain segmentation fault, told by the kernel here.
    let (_read, write) = pipe()?;
    let touch = write_from(write.as_raw_fd(), buffer.at(40), 8);
    ensure_eq!(
        touch.err().and_then(|e| e.raw_os_error()),
        Some(libc::EFAULT),
        "PROT_NONE page"
    );
    buffer.protect(0..64, RW)?;
    buffer.verify(13)?;
    buffer.fill(14);
    buffer.verify(14)?;
    conserved(&device).map(drop)
}

fn read_only(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(96, 15)?;
    buffer.protect(0..96, libc::PROT_READ)?;
    buffer.to_device(&device)?;
    buffer.verify_pages(0..48, 15)?;
    device.mv(buffer.range(), Direction::ToRam)?;
    buffer.verify(15)?;
    ensure!(
        !buffer
            .places(&device)?
            .iter()
            .any(|place| place.is_writable()),
        "became writable"
    );
    buffer.protect(0..96, RW)?;
    buffer.fill(16);
    buffer.verify(16)
}

fn munmap_middle(env: &Env) -> Outcome {
    let device = env.open()?;
    let before = device.info()?.frames_resident;
    let buffer = Buffer::filled(300, 17)?;
    buffer.to_device(&device)?;
    buffer.unmap(100..200)?;
    ensure_eq!(
        conserved(&device)?.frames_resident,
        before + 200,
        "resident after munmap"
    );
    buffer.verify_pages(0..100, 17)?;
    buffer.verify_pages(200..300, 17)
}

fn munmap_huge(env: &Env) -> Outcome {
    let device = env.open()?;
    for part in [0..100, 100..200, 500..512, 0..512, 300..700] {
        let buffer = Buffer::huge(2)?;
        buffer.fill(18);
        buffer.to_device(&device)?;
        buffer.unmap(part.clone())?;
        buffer.verify_pages(0..part.start, 18)?;
        buffer.verify_pages(part.end..1024, 18)?;
        conserved(&device)?;
    }
    Ok(())
}

/// Moves a mapping elsewhere; the old buffer must not be used any more.
fn move_mapping(buffer: &Buffer, new: &Buffer) -> Result<(), Stop> {
    // SAFETY: both are our own mappings; the new one is replaced.
    let moved = unsafe {
        libc::mremap(
            buffer.addr() as *mut _,
            buffer.len(),
            buffer.len(),
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            new.addr() as *mut libc::c_void,
        )
    };
    ensure!(moved != libc::MAP_FAILED, "mremap: errno {}", errno());
    Ok(())
}

fn mremap(env: &Env) -> Outcome {
    let device = env.open()?;
    let (buffer, new) = (Buffer::filled(300, 19)?, Buffer::new(300)?);
    buffer.to_device(&device)?;
    move_mapping(&buffer, &new)?;
    ensure_eq!(
        new.local(&device)?,
        300,
        "pages on the device at the new place"
    );
    let mut seen = vec![0; new.len()];
    device.read(new.addr(), &mut seen)?;
    Buffer::same(&seen, 0, 19)?;
    let error = device.read(buffer.addr(), &mut seen).unwrap_err();
    ensure_eq!(error.errno, libc::EFAULT, "READ at the old place");
    new.verify(19)?;
    new.to_device(&device)?;
    new.verify(19)
}

fn mremap_huge(env: &Env) -> Outcome {
    let device = env.open()?;
    let (buffer, new) = (Buffer::huge(2)?, Buffer::huge(2)?);
    buffer.fill(20);
    buffer.to_device(&device)?;
    move_mapping(&buffer, &new)?;
    ensure_eq!(
        new.local(&device)?,
        1024,
        "pages on the device at the new place"
    );
    new.verify(20)?;
    // To a place that is not aligned: the kernel has to split.
    let crooked = Buffer::new(1025)?;
    new.to_device(&device)?;
    let tail = Range {
        addr: crooked.at(1),
        len: 1024 * PAGE,
    };
    // SAFETY: both are our own mappings.
    let moved = unsafe {
        libc::mremap(
            new.addr() as *mut _,
            new.len(),
            new.len(),
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            tail.addr as *mut libc::c_void,
        )
    };
    ensure!(moved != libc::MAP_FAILED, "mremap: errno {}", errno());
    crooked.compare(1..1025, |i| word(20, i - 512))?;
    conserved(&device).map(drop)
}

fn dontneed(env: &Env) -> Outcome {
    let device = env.open()?;
    let before = device.info()?.frames_resident;
    let buffer = Buffer::filled(128, 21)?;
    buffer.to_device(&device)?;
    buffer.advise(32..96, libc::MADV_DONTNEED)?;
    ensure_eq!(
        conserved(&device)?.frames_resident,
        before + 64,
        "resident after MADV_DONTNEED"
    );
    buffer.compare(32..96, |_| 0)?;
    buffer.verify_pages(0..32, 21)?;
    buffer.verify_pages(96..128, 21)
}

fn collapse(env: &Env) -> Outcome {
    const MADV_COLLAPSE: i32 = 25;
    let device = env.open()?;
    let buffer = Buffer::huge(1)?;
    buffer.advise(0..512, libc::MADV_NOHUGEPAGE)?;
    buffer.fill(22);
    buffer.advise(0..512, libc::MADV_HUGEPAGE)?;
    device.mv(buffer.part(0..200), Direction::ToDevice)?;
    // It may refuse while pages are on the device; nothing may get lost.
    let _ = buffer.advise(0..512, MADV_COLLAPSE);
    buffer.verify(22)?;
    device.mv(buffer.range(), Direction::ToRam)?;
    let _ = buffer.advise(0..512, MADV_COLLAPSE);
    device.mv(buffer.range(), Direction::ToDevice)?;
    let _ = buffer.advise(0..512, MADV_COLLAPSE);
    buffer.verify(22)?;
    conserved(&device).map(drop)
}

fn locked(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(64, 23)?;
    // SAFETY: our own mapping.
    check(unsafe { libc::mlock(buffer.addr() as *const _, buffer.len()) })?;
    all_counted(&device.mv(buffer.range(), Direction::ToDevice)?)?;
    buffer.verify(23)?;
    device.mv(buffer.range(), Direction::ToDevice)?;
    // SAFETY: our own mapping.
    check(unsafe { libc::munlock(buffer.addr() as *const _, buffer.len()) })?;
    buffer.verify(23)?;
    conserved(&device).map(drop)
}

/// A file of `pages` pages of the pattern `seed`, in /tmp, already unlinked.
fn pattern_file(pages: usize, seed: u64) -> Result<File, Stop> {
    let path = format!("/tmp/hmm-ktap.{}", std::process::id());
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    let bytes: Vec<u8> = (0..pages * 512)
        .flat_map(|i| word(seed, i).to_ne_bytes())
        .collect();
    file.write_all(&bytes)?;
    Ok(file)
}

fn private_file(env: &Env) -> Outcome {
    let device = env.open()?;
    let file = pattern_file(64, 24)?;
    let buffer = Buffer::map(64, RW, libc::MAP_PRIVATE, file.as_raw_fd())?;
    buffer.verify(24)?;
    buffer.fill_pages(16..48, 25);
    let moved = device.mv(buffer.range(), Direction::ToDevice)?;
    all_counted(&moved)?;
    let places = buffer.places(&device)?;
    ensure!(
        places[16..48].iter().all(|place| place.is_local()),
        "own copies did not go {moved:?}"
    );
    ensure!(
        !places[..16].iter().any(|place| place.is_local()),
        "pages of the file went"
    );
    let check = |buffer: &Buffer| {
        buffer.verify_pages(0..16, 24)?;
        buffer.verify_pages(16..48, 25)?;
        buffer.verify_pages(48..64, 24)
    };
    check(&buffer)?;
    device.mv(buffer.range(), Direction::ToDevice)?;
    device.mv(buffer.range(), Direction::ToRam)?;
    check(&buffer)?;
    let again = Buffer::map(64, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd())?;
    again.verify(24)
}

fn shared(env: &Env) -> Outcome {
    let device = env.open()?;
    let file = pattern_file(32, 26)?;
    for buffer in [
        Buffer::map(32, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)?,
        Buffer::map(32, RW, libc::MAP_SHARED, file.as_raw_fd())?,
    ] {
        buffer.fill(27);
        let moved = device.mv(buffer.range(), Direction::ToDevice)?;
        ensure_eq!(moved.moved, 0, "{moved:?}");
        all_counted(&moved)?;
        ensure_eq!(buffer.local(&device)?, 0);
        let mut seen = vec![0; buffer.len()];
        device.read(buffer.addr(), &mut seen)?;
        Buffer::same(&seen, 0, 27)?;
        // SAFETY: the buffer is only accessed through volatile reads.
        unsafe { device.add(buffer.range(), 5)? };
        buffer.compare(0..32, |i| word(27, i).wrapping_add(5))?;
    }
    Ok(())
}

/// The kernel copies from and to pages on the device on behalf of the program.
fn system_calls(env: &Env) -> Outcome {
    let device = env.open()?;
    let (source, target) = (Buffer::filled(16, 28)?, Buffer::filled(16, 29)?);
    source.to_device(&device)?;
    target.to_device(&device)?;
    let (out, into) = pipe()?;
    ensure_eq!(
        write_from(into.as_raw_fd(), source.addr(), source.len())?,
        source.len()
    );
    let mut got = 0;
    while got < target.len() {
        // SAFETY: the buffer is only accessed through volatile reads.
        let rest = unsafe {
            std::slice::from_raw_parts_mut(
                (target.addr() + got as u64) as *mut u8,
                target.len() - got,
            )
        };
        got += read(out.as_raw_fd(), rest)?;
    }
    target.verify(28)?;
    source.verify(28)?;
    conserved(&device).map(drop)
}

/// vmsplice takes references on pages: first on the device, then in RAM while they are asked to move.
fn pinned(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(8, 30)?;
    buffer.to_device(&device)?;
    let (out, into) = pipe()?;
    let vector = libc::iovec {
        iov_base: buffer.addr() as *mut _,
        iov_len: buffer.len(),
    };
    // SAFETY: one valid vector over our own memory, which stays unchanged until the pipe is read.
    let put = unsafe { libc::vmsplice(into.as_raw_fd(), &vector, 1, 0) };
    ensure_eq!(put, buffer.len() as isize, "vmsplice, errno {}", errno());
    let moved = device.mv(buffer.range(), Direction::ToDevice)?;
    all_counted(&moved)?;
    if env.is_private() {
        ensure_eq!(moved.moved, 0, "pinned pages moved: {moved:?}");
    }
    let mut bytes = vec![0; buffer.len()];
    let mut got = 0;
    while got < bytes.len() {
        got += read(out.as_raw_fd(), &mut bytes[got..])?;
    }
    Buffer::same(&bytes, 0, 30)?;
    buffer.verify(30)?;
    device.mv(buffer.range(), Direction::ToDevice)?;
    buffer.verify(30)?;
    conserved(&device).map(drop)
}

fn another_process(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(64, 31)?;
    buffer.to_device(&device)?;
    // SAFETY: no arguments.
    let owner = unsafe { libc::getpid() };
    let vector = |addr: u64, len: usize| libc::iovec {
        iov_base: addr as *mut _,
        iov_len: len,
    };
    Child::spawn(|| {
        let copy = Buffer::new(64)?;
        let (mine, theirs) = (
            vector(copy.addr(), copy.len()),
            vector(buffer.addr(), buffer.len()),
        );
        // SAFETY: valid vectors; the child's copy is written.
        let got = unsafe { libc::process_vm_readv(owner, &mine, 1, &theirs, 1, 0) };
        ensure_eq!(
            got,
            copy.len() as isize,
            "process_vm_readv, errno {}",
            errno()
        );
        copy.verify(31)?;
        copy.fill(32);
        // SAFETY: valid vectors; the parent waits.
        let put = unsafe { libc::process_vm_writev(owner, &mine, 1, &theirs, 1, 0) };
        ensure_eq!(
            put,
            copy.len() as isize,
            "process_vm_writev, errno {}",
            errno()
        );
        Ok(())
    })?
    .join()?;
    buffer.verify(32)?;
    conserved(&device).map(drop)
}

fn direct_io(env: &Env) -> Outcome {
    let device = env.open()?;
    let path = format!("/tmp/hmm-ktap-direct.{}\0", std::process::id());
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_DIRECT | libc::O_CLOEXEC;
    // SAFETY: a C string.
    let fd = unsafe { libc::open(path.as_ptr().cast(), flags, 0o600) };
    if fd < 0 {
        skip!("no file system with O_DIRECT here");
    }
    let buffer = Buffer::filled(16, 33)?;
    buffer.to_device(&device)?;
    let written = write_from(fd, buffer.addr(), buffer.len());
    let target = Buffer::filled(16, 34)?;
    target.to_device(&device)?;
    // SAFETY: our own memory, only accessed through volatile reads.
    let got = unsafe { libc::pread(fd, target.addr() as *mut _, target.len(), 0) };
    // SAFETY: opened above.
    unsafe {
        libc::close(fd);
        libc::unlink(path.as_ptr().cast());
    }
    ensure_eq!(written?, buffer.len());
    ensure_eq!(got, target.len() as isize);
    target.verify(33)?;
    buffer.verify(33)?;
    conserved(&device).map(drop)
}

/// Everything the process has goes, its stack, heap and code included, while it runs.
fn whole_address_space(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(64, 35)?;
    for _ in 0..5 {
        let everything = Range {
            addr: 0,
            len: 0x7fff_ffff_f000,
        };
        let moved = device.mv(everything, Direction::ToDevice)?;
        let local = buffer.local(&device)?;
        ensure!(local >= 60, "{local} pages on the device, {moved:?}");
        let text = format!("still {} here", "alive and");
        ensure_eq!(text, "still alive and here");
        buffer.verify(35)?;
    }
    conserved(&device).map(drop)
}

fn exec(env: &Env) -> Outcome {
    Child::spawn(|| {
        let device = env.open()?;
        let buffer = Buffer::filled(64, 36)?;
        buffer.to_device(&device)?;
        // The program does nothing but end well, in a fresh address space.
        let program = std::ffi::CString::new("/proc/self/exe")?;
        let arguments = [
            program.as_ptr(),
            c"--victim".as_ptr(),
            c"exit".as_ptr(),
            std::ptr::null(),
        ];
        // SAFETY: C strings and a terminated list.
        unsafe { libc::execv(program.as_ptr(), arguments.as_ptr()) };
        Err(Stop::Fail(format!("exec: errno {}", errno())))
    })?
    .join()
}
