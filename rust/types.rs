// SPDX-License-Identifier: GPL-2.0
//! The words of the trade: page indices, blocks, migrate entries, segments.
#![forbid(unsafe_code)]

const _: () = assert!(
    size_of::<usize>() == size_of::<u64>(),
    "the core is 64-bit only"
);

/// Pages in one 2 MiB block.
pub const BLOCK_PAGES: u64 = 512;
/// Frames in one bitmap word.
pub const WORD_PAGES: u64 = 64;
/// Bitmap words in one block: exactly one cache line.
pub const BLOCK_WORDS: usize = 8;
/// The largest region: 16 TiB of 4K pages.
pub const MAX_PAGES: u64 = 1 << 32;
/// The largest number of CPUs a region is made for.
pub const MAX_CPUS: u32 = 8192;
/// The largest number of entries in one plan.
pub const MAX_ENTRIES: u32 = 65536;

/// A `u64` that is known to index something in memory.
#[inline(always)]
pub const fn to_usize(x: u64) -> usize {
    x as usize
}

/// A memory index as the border's width.
#[inline(always)]
pub const fn to_u64(x: usize) -> u64 {
    x as u64
}

/// A count that is known to fit 32 bits (at most [`MAX_ENTRIES`] pages or so).
#[inline(always)]
pub const fn to_u32(x: u64) -> u32 {
    x as u32
}

/// `n` low bits set; `n` up to 64.
#[inline(always)]
pub const fn low_bits(n: u64) -> u64 {
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}

/// An error at the border: a positive errno, returned to C negated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(i32);

impl Errno {
    /// No such thing.
    pub const NOENT: Errno = Errno(2);
    /// Memory has to be lent first; nothing was changed.
    pub const NOMEM: Errno = Errno(12);
    /// Invalid argument; nothing was changed.
    pub const INVAL: Errno = Errno(22);
    /// Some page was free already.
    pub const ALREADY: Errno = Errno(114);

    /// What C sees.
    pub const fn to_c(self) -> i32 {
        -self.0
    }
}

/// The index of a page in its region.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageIndex(pub u64);

impl PageIndex {
    /// The block this page is in.
    #[inline(always)]
    pub const fn block(self) -> Block {
        Block(to_usize(self.0 / BLOCK_PAGES))
    }

    /// The bitmap word this page is in.
    #[inline(always)]
    pub const fn word(self) -> Word {
        Word(to_usize(self.0 / WORD_PAGES))
    }

    /// This page's bit number in its word.
    #[inline(always)]
    pub const fn bit(self) -> u64 {
        self.0 % WORD_PAGES
    }
}

/// The index of a 2 MiB block in its region.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Block(pub usize);

impl Block {
    /// The block's first page.
    #[inline(always)]
    pub const fn first(self) -> PageIndex {
        PageIndex(to_u64(self.0) * BLOCK_PAGES)
    }

    /// The block's first bitmap word.
    #[inline(always)]
    pub const fn word(self) -> Word {
        Word(self.0 * BLOCK_WORDS)
    }

    /// The word of a one-bit-per-block map that holds this block.
    #[inline(always)]
    pub const fn map_word(self) -> usize {
        self.0 / 64
    }

    /// This block's bit in that word.
    #[inline(always)]
    pub const fn map_bit(self) -> u64 {
        1 << (self.0 % 64)
    }
}

/// The index of a 64-frame bitmap word in its region.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Word(pub usize);

impl Word {
    /// The block this word belongs to.
    #[inline(always)]
    pub const fn block(self) -> Block {
        Block(self.0 / BLOCK_WORDS)
    }

    /// The word's first page.
    #[inline(always)]
    pub const fn first(self) -> PageIndex {
        PageIndex(to_u64(self.0) * WORD_PAGES)
    }
}

/// A CPU number as a hint: it picks a slot, nothing depends on it being right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu(pub u32);

/// A migrate entry as the kernel's `migrate_vma` arrays hold it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(pub u64);

/// cbindgen:ignore
impl Entry {
    /// The entry names a page.
    pub const VALID: u64 = 1;
    /// The page can be migrated.
    pub const MIGRATE: u64 = 2;
    /// The page is, or is to be, mapped writable.
    pub const WRITE: u64 = 8;
    /// The entry stands for a whole 2 MiB folio.
    pub const COMPOUND: u64 = 16;
    /// Where the page number starts.
    pub const SHIFT: u32 = 6;

    /// Names a page.
    #[inline(always)]
    pub const fn valid(self) -> bool {
        self.0 & Entry::VALID != 0
    }

    /// Is to be migrated.
    #[inline(always)]
    pub const fn migrate(self) -> bool {
        self.0 & Entry::MIGRATE != 0
    }

    /// Stands for 512 pages.
    #[inline(always)]
    pub const fn compound(self) -> bool {
        self.0 & Entry::COMPOUND != 0
    }

    /// The page number, a system pfn or a page index.
    #[inline(always)]
    pub const fn pfn(self) -> u64 {
        self.0 >> Entry::SHIFT
    }

    /// The destination entry for page `index`, carrying `src`'s WRITE bit.
    #[inline(always)]
    pub const fn to(index: u64, src: Entry) -> Entry {
        Entry((index << Entry::SHIFT) | Entry::VALID | (src.0 & Entry::WRITE))
    }
}

/// struct hmm_segment - one run of pages for one copy or zero command.
/// @src: first source page: a system pfn to device, a page index to RAM, 0 when zeroing
/// @dst: first destination page: a page index to device, a system pfn to RAM
/// @npages: length in pages
/// @entry: index of the first array entry that this segment serves
/// @status: 0 from the core; a driver sets a negative errno for a segment that failed
/// @reserved: 0
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    #[allow(missing_docs)]
    pub src: u64,
    #[allow(missing_docs)]
    pub dst: u64,
    #[allow(missing_docs)]
    pub npages: u32,
    #[allow(missing_docs)]
    pub entry: u32,
    #[allow(missing_docs)]
    pub status: i32,
    #[allow(missing_docs)]
    pub reserved: u32,
}

/// struct hmm_plan - what hmm_core_plan_to_device() made of the entries.
/// @ncopy: copy segments, at the start of the segment array
/// @nzero: zero segments, at the end of the segment array
/// @claimed: pages that got a device frame
/// @wanted: pages that asked for one
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    #[allow(missing_docs)]
    pub ncopy: u32,
    #[allow(missing_docs)]
    pub nzero: u32,
    #[allow(missing_docs)]
    pub claimed: u32,
    #[allow(missing_docs)]
    pub wanted: u32,
}

/// struct hmm_core_stats - the books of a region, in pages unless said otherwise.
/// @total: size of the region
/// @free: frames nobody has, counted in the bitmap
/// @claimed: frames handed out and not yet committed, counted apart from the bitmap
/// @resident: frames committed and not yet released, counted apart from the bitmap
/// @retired: frames taken out of use for good
/// @free_blocks: 2 MiB blocks (not pages) that are free as a whole
///
/// When no call is under way, total == free + claimed + resident + retired.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CoreStats {
    #[allow(missing_docs)]
    pub total: u64,
    #[allow(missing_docs)]
    pub free: u64,
    #[allow(missing_docs)]
    pub claimed: u64,
    #[allow(missing_docs)]
    pub resident: u64,
    #[allow(missing_docs)]
    pub retired: u64,
    #[allow(missing_docs)]
    pub free_blocks: u64,
}

/// struct hmm_window - what a CPU fault should bring back, in virtual page numbers.
/// @first: first virtual page
/// @npages: number of pages
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Window {
    #[allow(missing_docs)]
    pub first: u64,
    #[allow(missing_docs)]
    pub npages: u64,
}

/// struct hmm_map_run - pages of an address space that have one value.
/// @first: first virtual page
/// @npages: number of pages
/// @value: what they have
/// @reserved: 0
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MapRun {
    #[allow(missing_docs)]
    pub first: u64,
    #[allow(missing_docs)]
    pub npages: u64,
    #[allow(missing_docs)]
    pub value: u32,
    #[allow(missing_docs)]
    pub reserved: u32,
}
