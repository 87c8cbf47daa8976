// SPDX-License-Identifier: GPL-2.0
//! The memory of one actor, and what has to be in it.

use crate::plan::{BLOCK, PAGES};
use hmm_uapi::PAGE_SIZE;
use std::fmt;
use std::io;
use std::ops::Range;

const WORDS: usize = PAGE_SIZE / 8;
/// Arenas are at fixed addresses, where the kernel puts nothing by itself.
const BASE: usize = 0x1000_0000_0000;
const DISTANCE: usize = 1 << 30;

/// What the process may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Full,
    ReadOnly,
    None,
    Unmapped,
}

/// A word that is not what it has to be.
#[derive(Debug)]
pub struct Mismatch {
    pub page: usize,
    pub word: usize,
    pub got: u64,
    pub want: u64,
}

/// Why a step could not go on.
#[derive(Debug)]
pub enum Stop {
    Mismatch(Mismatch),
    Other(String),
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::Other(text)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<hmm_uapi::Error> for Stop {
    fn from(error: hmm_uapi::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch(m) => write!(
                f,
                "page {} word {}: {:#x}, expected {:#x}",
                m.page, m.word, m.got, m.want
            ),
            Self::Other(text) => f.write_str(text),
        }
    }
}

pub type Result<T = ()> = std::result::Result<T, Stop>;

/// The memory of an actor and its model: for each page what was written there last, 0 for zeroes.
pub struct Arena {
    slot: usize,
    contents: Vec<u64>,
    access: Vec<Access>,
}

/// The word of a page that has these contents: cheap, since most of a run's time was spent on it. Contents
/// are random, so a word of another page, or from another place of the same one, is told all the same.
pub fn expected(contents: u64, index: usize) -> u64 {
    match contents {
        0 => 0,
        seed => seed.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    }
}

impl Arena {
    /// Maps the arena of a thread.
    pub fn new(slot: usize) -> Result<Self> {
        let mut arena = Self {
            slot,
            contents: vec![0; PAGES],
            access: vec![Access::Unmapped; PAGES],
        };
        arena.map(0..PAGES)?;
        // Every other thread begins with huge pages.
        let advice = if slot.is_multiple_of(2) {
            libc::MADV_NOHUGEPAGE
        } else {
            libc::MADV_HUGEPAGE
        };
        // A kernel without huge pages has no such advice.
        let _ = arena.advise(0..PAGES, advice);
        Ok(arena)
    }

    /// Where the pages of any thread of this process are.
    pub fn address_in(slot: usize, page: usize) -> usize {
        BASE + slot * DISTANCE + page * PAGE_SIZE
    }

    /// Address of a page.
    pub fn at(&self, page: usize) -> usize {
        Self::address_in(self.slot, page)
    }

    fn pointer(&self, pages: &Range<usize>) -> *mut libc::c_void {
        std::ptr::with_exposed_provenance_mut(self.at(pages.start))
    }

    /// Maps pages anew, whatever is there.
    pub fn map(&mut self, pages: Range<usize>) -> Result {
        // SAFETY: replaces a part of this arena only.
        let map = unsafe {
            libc::mmap(
                self.pointer(&pages),
                pages.len() * PAGE_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(Stop::Other(format!("mmap: {}", io::Error::last_os_error())));
        }
        self.contents[pages.clone()].fill(0);
        self.access[pages].fill(Access::Full);
        Ok(())
    }

    pub fn unmap(&mut self, pages: Range<usize>) -> Result {
        // SAFETY: a part of this arena only.
        let code = unsafe { libc::munmap(self.pointer(&pages), pages.len() * PAGE_SIZE) };
        said("munmap", code)?;
        self.access[pages].fill(Access::Unmapped);
        Ok(())
    }

    fn protect(&mut self, pages: Range<usize>, protection: i32, access: Access) -> Result {
        // SAFETY: a part of this arena only, whose model knows.
        let code =
            unsafe { libc::mprotect(self.pointer(&pages), pages.len() * PAGE_SIZE, protection) };
        said("mprotect", code)?;
        self.access[pages].fill(access);
        Ok(())
    }

    /// Forbids writing, or everything, where something is mapped.
    pub fn forbid(&mut self, pages: Range<usize>, all: bool) -> Result {
        if !self.is_mapped(pages.clone()) {
            return Ok(());
        }
        if all {
            self.protect(pages, libc::PROT_NONE, Access::None)
        } else {
            self.protect(pages, libc::PROT_READ, Access::ReadOnly)
        }
    }

    /// Makes pages writable, mapping what is not.
    pub fn allow(&mut self, pages: Range<usize>) -> Result {
        for page in pages.clone() {
            if self.access[page] == Access::Unmapped {
                self.map(page..page + 1)?;
            }
        }
        if self.access[pages.clone()]
            .iter()
            .any(|access| *access != Access::Full)
        {
            self.protect(pages, libc::PROT_READ | libc::PROT_WRITE, Access::Full)?;
        }
        Ok(())
    }

    pub fn is_mapped(&self, pages: Range<usize>) -> bool {
        self.access[pages]
            .iter()
            .all(|access| *access != Access::Unmapped)
    }

    pub fn is_readable(&self, pages: Range<usize>) -> bool {
        let readable = |access: &Access| matches!(access, Access::Full | Access::ReadOnly);
        self.access[pages].iter().all(readable)
    }

    /// `madvise`; its errno if it refuses.
    pub fn advise(&mut self, pages: Range<usize>, advice: i32) -> std::result::Result<(), i32> {
        // SAFETY: a part of this arena; what the advice does to its contents, the caller knows.
        let code = unsafe { libc::madvise(self.pointer(&pages), pages.len() * PAGE_SIZE, advice) };
        if code == 0 {
            return Ok(());
        }
        Err(io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    /// Throws contents away.
    pub fn discard(&mut self, pages: Range<usize>) -> Result {
        if self.is_mapped(pages.clone()) {
            self.lose(pages.clone())?;
            self.contents[pages].fill(0);
        }
        Ok(())
    }

    /// The same; the model is not told.
    pub fn lose(&mut self, pages: Range<usize>) -> Result {
        self.advise(pages, libc::MADV_DONTNEED)
            .map_err(|errno| Stop::Other(format!("madvise(DONTNEED): errno {errno}")))
    }

    /// One page takes the place of another; the model is not told.
    pub fn swap(&mut self, from: Range<usize>, to: Range<usize>) -> Result {
        self.allow(from.start..to.end)?;
        self.remap(from.clone(), to.start, false)
            .map_err(|errno| Stop::Other(format!("mremap: errno {errno}")))?;
        let contents = self.contents[from.start];
        self.map(from.clone())?;
        self.contents[from.start] = contents;
        Ok(())
    }

    fn word_at(&self, page: usize, index: usize) -> *mut u64 {
        assert!(page < PAGES && index < WORDS);
        std::ptr::with_exposed_provenance_mut(self.at(page) + index * 8)
    }

    /// Writes pages with the CPU, each with the contents that `new` has for it.
    pub fn write(&mut self, pages: Range<usize>, new: impl Fn(usize) -> u64) -> Result {
        self.allow(pages.clone())?;
        for page in pages {
            let contents = new(page);
            self.contents[page] = contents;
            for index in 0..WORDS {
                // SAFETY: mapped and writable, as just made sure; nobody else writes there.
                unsafe {
                    self.word_at(page, index)
                        .write_volatile(expected(contents, index));
                }
            }
        }
        Ok(())
    }

    /// Reads with the CPU what may be read, and compares. Returns how many pages that were.
    pub fn verify(&self, pages: Range<usize>) -> Result<usize> {
        let mut compared = 0;
        for page in pages {
            if !self.is_readable(page..page + 1) {
                continue;
            }
            compared += 1;
            let contents = self.contents[page];
            for index in 0..WORDS {
                // SAFETY: mapped and readable, as just made sure.
                let got = unsafe { self.word_at(page, index).read_volatile() };
                if got != expected(contents, index) {
                    return Err(self.wrong(page, index, got));
                }
            }
        }
        Ok(compared)
    }

    fn wrong(&self, page: usize, word: usize, got: u64) -> Stop {
        Stop::Mismatch(Mismatch {
            page,
            word,
            got,
            want: expected(self.contents[page], word),
        })
    }

    /// Compares what somebody else has read from these pages.
    pub fn compare(&self, pages: Range<usize>, bytes: &[u8]) -> Result {
        for (page, bytes) in pages.zip(bytes.chunks_exact(PAGE_SIZE)) {
            let contents = self.contents[page];
            for (index, word) in bytes.chunks_exact(8).enumerate() {
                let got = u64::from_ne_bytes(word.try_into().expect("eight bytes"));
                if got != expected(contents, index) {
                    return Err(self.wrong(page, index, got));
                }
            }
        }
        Ok(())
    }

    /// What somebody else shall write to these pages.
    pub fn image(pages: Range<usize>, new: impl Fn(usize) -> u64) -> Vec<u8> {
        let mut image = vec![0; pages.len() * PAGE_SIZE];
        for (page, bytes) in pages.zip(image.chunks_exact_mut(PAGE_SIZE)) {
            let contents = new(page);
            for (index, bytes) in bytes.chunks_exact_mut(8).enumerate() {
                bytes.copy_from_slice(&expected(contents, index).to_ne_bytes());
            }
        }
        image
    }

    /// What a page has to hold.
    pub fn contents_of(&self, page: usize) -> u64 {
        self.contents[page]
    }

    /// Somebody else wrote these pages.
    pub fn written(&mut self, pages: Range<usize>, new: impl Fn(usize) -> u64) {
        for page in pages {
            self.contents[page] = new(page);
        }
    }

    /// Takes pages to where others of this arena were. With `leave` the mapping of the old place
    /// stays, empty.
    pub fn relocate(&mut self, from: Range<usize>, to: usize, leave: bool) -> Result {
        let target = to..to + from.len();
        if target.end > PAGES || from.start < target.end && target.start < from.end {
            return Ok(());
        }
        if !self.is_mapped(from.clone()) {
            return Ok(());
        }
        self.allow(from.clone())?;
        if let Err(errno) = self.remap(from.clone(), to, leave) {
            // Older kernels refuse a piece that has become several mappings, when they have
            // unmapped the target already: it goes page by page.
            if errno != libc::EFAULT && errno != libc::EINVAL {
                return Err(Stop::Other(format!("mremap: errno {errno}")));
            }
            self.map(target.clone())?;
            for (i, page) in from.clone().enumerate() {
                self.remap(page..page + 1, to + i, leave)
                    .map_err(|errno| format!("mremap of one page: errno {errno}"))?;
            }
        }
        let contents = self.contents[from.clone()].to_vec();
        self.contents[target.clone()].copy_from_slice(&contents);
        self.access[target].fill(Access::Full);
        if leave {
            self.contents[from].fill(0);
        } else {
            self.access[from].fill(Access::Unmapped);
        }
        Ok(())
    }

    fn remap(&self, from: Range<usize>, to: usize, leave: bool) -> std::result::Result<(), i32> {
        let len = from.len() * PAGE_SIZE;
        let flags = libc::MREMAP_MAYMOVE
            | libc::MREMAP_FIXED
            | if leave { libc::MREMAP_DONTUNMAP } else { 0 };
        // SAFETY: both are parts of this arena.
        let moved = unsafe {
            libc::mremap(
                self.pointer(&from),
                len,
                len,
                flags,
                self.pointer(&(to..to + 1)),
            )
        };
        if moved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
        }
        Ok(())
    }
}

/// The errno of a call that does not fail.
fn said(call: &str, code: i32) -> Result {
    if code == 0 {
        return Ok(());
    }
    Err(Stop::Other(format!(
        "{call}: {}",
        io::Error::last_os_error()
    )))
}

/// The two huge pages of an arena.
pub fn block_of(page: usize) -> Range<usize> {
    let start = page / BLOCK * BLOCK;
    start..start + BLOCK
}
