// SPDX-License-Identifier: GPL-2.0
//! Memory under test: a mapping filled with a pattern that can be told from any other, page by
//! page.

use crate::harness::{Stop, ensure, ensure_eq};
pub use crate::pattern::word;
use hmm_uapi::{Device, Direction, PAGE_SIZE, Place, Range, sys};
use std::io;
use std::ops;

pub const PAGE: u64 = PAGE_SIZE as u64;
pub const HUGE: usize = 2 << 20;
const WORDS: usize = PAGE_SIZE / 8;

/// Numbers in an order that looks random, each once.
pub fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).collect();
    for i in (1..count).rev() {
        order.swap(i, (word(seed, i) % (i as u64 + 1)) as usize);
    }
    order
}

/// A mapping of whole pages, unmapped at the end.
pub struct Buffer {
    base: *mut u8,
    pages: usize,
}

// SAFETY: the memory is accessed through raw volatile reads and writes only; tests that use it from
// several threads want to see what happens.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: our own mapping. Parts that a test unmapped are no error.
        unsafe { libc::munmap(self.base.cast(), self.len()) };
    }
}

/// Whether a page can be a huge one at all; in a kernel with PREEMPT_RT none can.
pub fn kernel_has_huge_pages() -> bool {
    std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists()
}

impl Buffer {
    /// Any mapping.
    pub fn map(pages: usize, prot: i32, flags: i32, fd: i32) -> io::Result<Self> {
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), pages * PAGE_SIZE, prot, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            base: base.cast(),
            pages,
        })
    }

    /// Private anonymous memory of small pages.
    pub fn new(pages: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let buffer = Self::map(pages, libc::PROT_READ | libc::PROT_WRITE, flags, -1)?;
        buffer.advise(0..pages, libc::MADV_NOHUGEPAGE)?;
        Ok(buffer)
    }

    /// The same, filled with the pattern `seed`.
    pub fn filled(pages: usize, seed: u64) -> io::Result<Self> {
        let buffer = Self::new(pages)?;
        buffer.fill(seed);
        Ok(buffer)
    }

    /// Private anonymous memory that starts at a 2 MiB boundary and wants huge pages. It has small
    /// ones where the kernel has no others.
    pub fn huge(blocks: usize) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let all = Self::map((blocks + 1) * HUGE / PAGE_SIZE, prot, flags, -1)?;
        let skip = all.base.align_offset(HUGE);
        let pages = blocks * HUGE / PAGE_SIZE;
        // SAFETY: the ends of our own mapping, outside the part that is kept.
        let buffer = unsafe {
            let base = all.base.add(skip);
            libc::munmap(all.base.cast(), skip);
            libc::munmap(base.add(blocks * HUGE).cast(), HUGE - skip);
            Self { base, pages }
        };
        std::mem::forget(all);
        buffer.advise(0..pages, libc::MADV_HUGEPAGE)?;
        Ok(buffer)
    }

    pub fn pages(&self) -> usize {
        self.pages
    }

    pub fn len(&self) -> usize {
        self.pages * PAGE_SIZE
    }

    pub fn addr(&self) -> u64 {
        self.base.addr() as u64
    }

    /// Address of a page.
    pub fn at(&self, page: usize) -> u64 {
        self.addr() + page as u64 * PAGE
    }

    pub fn range(&self) -> Range {
        self.part(0..self.pages)
    }

    /// Some pages as a range.
    pub fn part(&self, pages: ops::Range<usize>) -> Range {
        Range {
            addr: self.at(pages.start),
            len: pages.len() as u64 * PAGE,
        }
    }

    fn word_ptr(&self, index: usize) -> *mut u64 {
        assert!(index < self.pages * WORDS);
        // SAFETY: inside the mapping, as just checked.
        unsafe { self.base.cast::<u64>().add(index) }
    }

    pub fn get(&self, index: usize) -> u64 {
        // SAFETY: inside the mapping; tests do not read what they unmapped.
        unsafe { self.word_ptr(index).read_volatile() }
    }

    pub fn set(&self, index: usize, value: u64) {
        // SAFETY: as in `get`.
        unsafe { self.word_ptr(index).write_volatile(value) };
    }

    pub fn fill_pages(&self, pages: ops::Range<usize>, seed: u64) {
        for index in pages.start * WORDS..pages.end * WORDS {
            self.set(index, word(seed, index));
        }
    }

    pub fn fill(&self, seed: u64) {
        self.fill_pages(0..self.pages, seed);
    }

    /// The first word of these pages that is not what `expected` says.
    pub fn compare(
        &self,
        pages: ops::Range<usize>,
        expected: impl Fn(usize) -> u64,
    ) -> Result<(), Stop> {
        for index in pages.start * WORDS..pages.end * WORDS {
            let (got, want) = (self.get(index), expected(index));
            if got != want {
                return Err(Stop::Fail(format!(
                    "page {} word {}: {got:#x}, expected {want:#x}",
                    index / WORDS,
                    index % WORDS
                )));
            }
        }
        Ok(())
    }

    pub fn verify_pages(&self, pages: ops::Range<usize>, seed: u64) -> Result<(), Stop> {
        self.compare(pages, |index| word(seed, index))
    }

    pub fn verify(&self, seed: u64) -> Result<(), Stop> {
        self.verify_pages(0..self.pages, seed)
    }

    /// `bytes` hold the pattern of the pages from `first` on.
    pub fn same(bytes: &[u8], first: usize, seed: u64) -> Result<(), Stop> {
        for (i, chunk) in bytes.chunks_exact(8).enumerate() {
            let index = first * WORDS + i;
            let got = u64::from_ne_bytes(chunk.try_into()?);
            ensure_eq!(
                got,
                word(seed, index),
                "page {} word {}",
                index / WORDS,
                index % WORDS
            );
        }
        Ok(())
    }

    pub fn advise(&self, pages: ops::Range<usize>, advice: i32) -> io::Result<()> {
        let of_size = matches!(advice, libc::MADV_HUGEPAGE | libc::MADV_NOHUGEPAGE);
        if of_size && !kernel_has_huge_pages() {
            return Ok(());
        }
        let range = self.part(pages);
        // SAFETY: our own mapping; tests expect what the advice does.
        let result = unsafe { libc::madvise(range.addr as *mut _, range.len as usize, advice) };
        crate::sys::check(result).map(drop)
    }

    pub fn protect(&self, pages: ops::Range<usize>, prot: i32) -> io::Result<()> {
        let range = self.part(pages);
        // SAFETY: our own mapping; tests do not touch what they forbid.
        let result = unsafe { libc::mprotect(range.addr as *mut _, range.len as usize, prot) };
        crate::sys::check(result).map(drop)
    }

    pub fn unmap(&self, pages: ops::Range<usize>) -> io::Result<()> {
        let range = self.part(pages);
        // SAFETY: our own mapping; tests do not touch what they unmap.
        crate::sys::check(unsafe { libc::munmap(range.addr as *mut _, range.len as usize) })
            .map(drop)
    }

    pub fn places_of(&self, device: &Device, pages: ops::Range<usize>) -> Result<Vec<Place>, Stop> {
        let mut places = vec![Place(0x7f); pages.len()];
        device.snapshot(self.at(pages.start), &mut places)?;
        Ok(places)
    }

    pub fn places(&self, device: &Device) -> Result<Vec<Place>, Stop> {
        self.places_of(device, 0..self.pages)
    }

    /// How many pages are in the memory of `device`.
    pub fn local(&self, device: &Device) -> Result<usize, Stop> {
        Ok(self
            .places(device)?
            .iter()
            .filter(|place| place.is_local())
            .count())
    }

    /// Moves everything to the device; every page that is not there yet has to go.
    pub fn to_device(&self, device: &Device) -> Result<sys::hmm_dmirror_move, Stop> {
        let missing = self.pages - self.local(device)?;
        let moved = device.mv(self.range(), Direction::ToDevice)?;
        ensure_eq!(moved.moved, missing as u64, "pages moved of {moved:?}");
        ensure_eq!(
            self.local(device)?,
            self.pages,
            "pages that are on the device"
        );
        Ok(moved)
    }

    /// Moves everything to the device, whatever else has to go home for it. The kernel may hold a page
    /// of ours for a moment (compaction, a list of the other processor), so once may not be enough.
    pub fn to_full_device(&self, device: &Device) -> Result<(), Stop> {
        let mut calls = Vec::new();
        while self.local(device)? < self.pages {
            ensure!(calls.len() < 4, "pages that do not go: {calls:?}");
            calls.push(device.mv(self.range(), Direction::ToDeviceMakingRoom)?);
        }
        Ok(())
    }

    /// Moves everything back; no page may stay.
    pub fn to_ram(&self, device: &Device) -> Result<sys::hmm_dmirror_move, Stop> {
        let moved = device.mv(self.range(), Direction::ToRam)?;
        ensure_eq!(
            self.local(device)?,
            0,
            "pages still on the device after {moved:?}"
        );
        Ok(moved)
    }
}

/// Pages moved and not moved: together all of the range.
pub fn all_counted(moved: &sys::hmm_dmirror_move) -> Result<(), Stop> {
    let sum = moved.moved + moved.skipped.iter().sum::<u64>();
    ensure_eq!(sum, moved.len / PAGE, "moved + skipped of {moved:?}");
    Ok(())
}

/// Pages not moved for one reason.
pub fn skipped(moved: &sys::hmm_dmirror_move, reason: u32) -> u64 {
    moved.skipped[reason as usize]
}

/// Every call through a descriptor is refused with this errno, and changes nothing.
pub fn refused_everywhere(device: &Device, buffer: &Buffer, errno: i32) -> Result<(), Stop> {
    let mut bytes = vec![0; 4096];
    let mut place = [Place(0)];
    let errors = [
        ("INFO", device.info().map(drop)),
        (
            "MOVE",
            device.mv(buffer.range(), Direction::ToRam).map(drop),
        ),
        ("CHECKSUM", device.checksum(buffer.range()).map(drop)),
        // SAFETY: refused.
        ("ADD", unsafe { device.add(buffer.range(), 1) }.map(drop)),
        ("READ", device.read(buffer.addr(), &mut bytes).map(drop)),
        // SAFETY: refused.
        (
            "WRITE",
            unsafe { device.write(buffer.addr(), &bytes) }.map(drop),
        ),
        (
            "MIGRATE_TO_DEV",
            device.migrate_to_dev(buffer.addr(), &mut bytes).map(drop),
        ),
        (
            "MIGRATE_TO_SYS",
            device.migrate_to_sys(buffer.addr(), 1).map(drop),
        ),
        (
            "SNAPSHOT",
            device.snapshot(buffer.addr(), &mut place).map(drop),
        ),
        ("RELEASE", device.release().map(drop)),
        ("FAIL", device.fail(sys::HMM_DMIRROR_FAIL_WAIT, 0, 1)),
    ];
    for (call, result) in errors {
        ensure_eq!(result.err().map(|error| error.errno), Some(errno), "{call}");
    }
    Ok(())
}
