// SPDX-License-Identifier: GPL-2.0
//! Where the pages of a process are, out of `/proc/PID/maps` and `/proc/PID/pagemap`.
//!
//! The kernel shows a page in private device memory as swapped out, with a type of swap that no
//! disk has; its place is a page frame number in the range of some region, which the counters tell.
//! A page in coherent memory is present, with such a number. Both are shown to who has
//! `CAP_SYS_ADMIN` only.

use crate::counters::Region;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// Where one page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere: never touched, or the page of zeroes.
    None,
    /// In RAM; part of a huge page or not.
    Ram(bool),
    /// In the memory of the region of that index; huge or not.
    Device(usize, bool),
    /// In RAM, for a device alone.
    Exclusive,
    /// On its way.
    Moving,
    /// On a disk.
    Swapped,
    /// In a device that hmm_devmem does not know.
    Foreign,
}

/// Devices that have a letter of their own.
const LETTERS: usize = 8;

impl Place {
    /// A letter: the device's, in capitals for huge pages.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::None => '.',
            Self::Ram(false) => 'r',
            Self::Ram(true) => 'R',
            Self::Device(index, huge) => {
                let first = if huge { b'A' } else { b'a' };
                char::from(first + u8::try_from(index.min(LETTERS - 1)).unwrap_or(0))
            }
            Self::Exclusive => 'x',
            Self::Moving => 'm',
            Self::Swapped => 's',
            Self::Foreign => 'o',
        }
    }

    /// What to call it.
    #[must_use]
    pub fn name(self, regions: &[Region]) -> String {
        let huge = |name: &str, huge: bool| match huge {
            true => format!("{name}, huge"),
            false => name.to_owned(),
        };
        match self {
            Self::None => "never touched".into(),
            Self::Ram(big) => huge("RAM", big),
            Self::Device(index, big) => huge(
                regions
                    .get(index)
                    .map_or("a device", |region| &region.device),
                big,
            ),
            Self::Exclusive => "RAM, for a device alone".into(),
            Self::Moving => "on its way".into(),
            Self::Swapped => "swapped out".into(),
            Self::Foreign => "another device".into(),
        }
    }

    /// A colour that can be told from the others.
    #[must_use]
    pub fn colour(self) -> (u8, u8, u8) {
        const DEVICES: [(u8, u8, u8); LETTERS] = [
            (14, 124, 134),
            (217, 119, 6),
            (124, 58, 237),
            (190, 24, 93),
            (63, 98, 18),
            (3, 105, 161),
            (146, 64, 14),
            (71, 85, 105),
        ];
        let light = |(r, g, b): (u8, u8, u8)| {
            let up = |c: u8| c + (255 - c) / 5 * 2;
            (up(r), up(g), up(b))
        };
        match self {
            Self::None => (228, 231, 236),
            Self::Ram(false) => (147, 180, 235),
            Self::Ram(true) => (59, 108, 200),
            Self::Device(index, huge) => {
                let own = DEVICES[index.min(LETTERS - 1)];
                if huge { own } else { light(own) }
            }
            Self::Exclusive => (220, 38, 38),
            Self::Moving => (250, 204, 21),
            Self::Swapped => (120, 113, 108),
            Self::Foreign => (15, 23, 42),
        }
    }
}

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// The one behind the last.
    pub end: u64,
    /// Private memory without a file: what can move to a device.
    pub anonymous: bool,
    /// Its name; the permissions if it has none.
    pub name: String,
}

impl Mapping {
    /// Pages in it.
    #[must_use]
    pub fn pages(&self) -> u64 {
        (self.end - self.start) / crate::PAGE
    }

    /// A line of `/proc/PID/maps`.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let perms = words.next()?;
        let inode = words.nth(2)?;
        let name = words.next().unwrap_or("").trim();
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        (start < end).then(|| Self {
            start,
            end,
            anonymous: inode == "0" && perms.ends_with('p') && !name.starts_with("[v"),
            name: if name.is_empty() { perms } else { name }.to_owned(),
        })
    }
}

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const PFN: u64 = (1 << 55) - 1;

/// Types of swap that are no disk, counted from the end as Linux does where it has device memory
/// (`include/linux/swap.h`, 6.16 to 7.3): markers 31, exclusive 30, device 28 and 29, migration 25
/// to 27, and poison 24.
const FIRST_SPECIAL: u64 = 24;
const MIGRATION: std::ops::RangeInclusive<u64> = 25..=27;
const DEVICE: std::ops::RangeInclusive<u64> = 28..=29;
const EXCLUSIVE: u64 = 30;

/// An entry of pagemap, read with the right to see frame numbers.
#[must_use]
pub fn place(entry: u64, huge: bool, regions: &[Region]) -> Place {
    let owner = |pfn: u64| {
        regions.iter().position(|region| {
            let first = region.first_pfn;
            pfn >= first && pfn - first < region.frames.get("total")
        })
    };
    if entry & PRESENT != 0 {
        return match owner(entry & PFN) {
            Some(index) => Place::Device(index, huge),
            None => Place::Ram(huge),
        };
    }
    if entry & SWAPPED == 0 {
        return Place::None;
    }
    let (kind, offset) = (entry & 31, (entry & PFN) >> 5);
    if kind < FIRST_SPECIAL {
        return Place::Swapped;
    }
    match owner(offset) {
        Some(index) => Place::Device(index, huge),
        None if kind == EXCLUSIVE => Place::Exclusive,
        None if MIGRATION.contains(&kind) => Place::Moving,
        None if DEVICE.contains(&kind) => Place::Foreign,
        None => Place::None,
    }
}

/// A stretch of pages that may be somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Stretch {
    start: u64,
    end: u64,
    categories: u64,
}

const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
const IS_ZERO: u64 = 1 << 5;
const IS_HUGE: u64 = 1 << 6;

/// The argument of the kernel's PAGEMAP_SCAN.
#[repr(C)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `_IOWR('f', 16, struct pm_scan_arg)`
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;

/// The address space of a process.
pub struct Space {
    pagemap: File,
    /// Whether the kernel tells huge pages (PAGEMAP_SCAN, since 6.7).
    pub huge_known: bool,
    mappings: Vec<Mapping>,
}

impl Space {
    /// Looks at a process; all of its mappings, or only those that can move to a device.
    ///
    /// # Errors
    /// There is none, or it may not be looked at.
    pub fn open(process: u32, all: bool) -> io::Result<Self> {
        let place = |name: &str| format!("/proc/{process}/{name}");
        let explain = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                io::Error::new(error.kind(), format!("there is no process {process}"))
            }
            _ => io::Error::other(format!("process {process}: {error}\nnext: run it as root")),
        };
        let maps = std::fs::read_to_string(place("maps")).map_err(explain)?;
        if maps.is_empty() {
            let why = format!("process {process} has no memory, or has ended");
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        let mappings = maps.lines().filter_map(Mapping::parse);
        let mut space = Self {
            pagemap: File::open(place("pagemap")).map_err(explain)?,
            huge_known: true,
            mappings: mappings
                .filter(|mapping| all || mapping.anonymous)
                .collect(),
        };
        space.huge_known = space.scan(0, crate::PAGE).is_ok();
        Ok(space)
    }

    /// Its mappings.
    #[must_use]
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// What of a range is anywhere; and from where on that is not known yet.
    fn scan(&self, start: u64, end: u64) -> io::Result<(Vec<Stretch>, u64)> {
        const ROOM: usize = 1024;
        let mut found = Vec::<Stretch>::with_capacity(ROOM);
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            flags: 0,
            start,
            end,
            walk_end: 0,
            vec: found.as_mut_ptr().addr() as u64,
            vec_len: ROOM as u64,
            max_pages: 0,
            category_inverted: 0,
            category_mask: 0,
            category_anyof_mask: IS_PRESENT | IS_SWAPPED,
            return_mask: IS_PRESENT | IS_SWAPPED | IS_ZERO | IS_HUGE,
        };
        // SAFETY: the structure is the kernel's, and there is room for as many stretches as it says.
        let got = unsafe { libc::ioctl(self.pagemap.as_raw_fd(), PAGEMAP_SCAN, &mut arg) };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: the kernel has filled so many.
        unsafe { found.set_len(got.min(ROOM)) };
        Ok((found, arg.walk_end))
    }

    /// Calls back for every page of a mapping that is somewhere, with its index in the mapping.
    ///
    /// # Errors
    /// The process went, or the kernel shows no frame numbers.
    pub fn visit(
        &self,
        mapping: &Mapping,
        regions: &[Region],
        mut each: impl FnMut(u64, Place),
    ) -> io::Result<()> {
        let mut at = mapping.start;
        while at < mapping.end {
            let (found, end) = if self.huge_known {
                self.scan(at, mapping.end)?
            } else {
                let all = Stretch {
                    start: at,
                    end: mapping.end,
                    categories: 0,
                };
                (vec![all], mapping.end)
            };
            for stretch in found {
                if stretch.categories & IS_ZERO == 0 {
                    self.read(mapping, stretch, regions, &mut each)?;
                }
            }
            if end <= at {
                break;
            }
            at = end;
        }
        Ok(())
    }

    fn read(
        &self,
        mapping: &Mapping,
        stretch: Stretch,
        regions: &[Region],
        each: &mut impl FnMut(u64, Place),
    ) -> io::Result<()> {
        const PIECE: u64 = 8192;
        let huge = stretch.categories & IS_HUGE != 0;
        let mut bytes = vec![0; PIECE as usize * 8];
        let (mut page, last) = (stretch.start / crate::PAGE, stretch.end / crate::PAGE);
        while page < last {
            let room = &mut bytes[..(last - page).min(PIECE) as usize * 8];
            let got = self.pagemap.read_at(room, page * 8)?;
            if got < 8 {
                return Ok(());
            }
            for entry in room[..got].chunks_exact(8) {
                let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
                if entry & PRESENT != 0 && entry & PFN == 0 {
                    return Err(io::Error::other(
                        "the kernel does not say where pages are\nnext: run it as root \
                         (CAP_SYS_ADMIN)",
                    ));
                }
                match place(entry, huge, regions) {
                    Place::None => {}
                    somewhere => each(page - mapping.start / crate::PAGE, somewhere),
                }
                page += 1;
            }
        }
        Ok(())
    }
}

/// Pages of a process in the memory of one region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// In pages of 4 KiB.
    pub small: u64,
    /// In huge pages, counted as pages of 4 KiB; 0 where the kernel does not tell.
    pub huge: u64,
}

/// Without PAGEMAP_SCAN every page has to be read: what to read at most for [`shares`].
const READABLE: u64 = (4 << 30) / crate::PAGE;

/// How much of a process is in each region, in their order.
///
/// # Errors
/// The process is gone or may not be looked at, or it is too large for this kernel's pagemap.
pub fn shares(process: u32, regions: &[Region]) -> io::Result<Vec<Share>> {
    let space = Space::open(process, false)?;
    let pages: u64 = space.mappings().iter().map(Mapping::pages).sum();
    if !space.huge_known && pages > READABLE {
        return Err(io::Error::other("too large for a kernel before 6.7"));
    }
    let mut shares = vec![Share::default(); regions.len()];
    for mapping in space.mappings() {
        space.visit(mapping, regions, |_, place| {
            if let Place::Device(index, huge) = place {
                let share = &mut shares[index];
                *(if huge {
                    &mut share.huge
                } else {
                    &mut share.small
                }) += 1;
            }
        })?;
    }
    Ok(shares)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::counters::Counters;

    /// Two regions, of 1000 and 2000 pages.
    pub fn regions() -> Vec<Region> {
        let region = |number, first_pfn, total| Region {
            number,
            device: format!("hmm_dmirror.{}", number - 1),
            kind: "private".into(),
            first_pfn,
            frames: Counters([("total".to_owned(), total)].into()),
            stats: Counters::default(),
            processes: Vec::new(),
        };
        vec![region(1, 0x10_0000, 1000), region(2, 0x20_0000, 2000)]
    }

    #[test]
    fn entries_of_pagemap() {
        let swap = |kind: u64, offset: u64| SWAPPED | offset << 5 | kind;
        for (entry, huge, want) in [
            (0, false, Place::None),
            (PRESENT | 77, false, Place::Ram(false)),
            (PRESENT | 77, true, Place::Ram(true)),
            (PRESENT | 0x10_03e7, false, Place::Device(0, false)),
            (PRESENT | 0x10_03e8, false, Place::Ram(false)),
            (PRESENT | 0xf_ffff, false, Place::Ram(false)),
            (swap(0, 0x10_0000), false, Place::Swapped),
            (swap(28, 0x10_0000), false, Place::Device(0, false)),
            (swap(29, 0x20_0000), true, Place::Device(1, true)),
            (swap(28, 5), false, Place::Foreign),
            (swap(30, 5), false, Place::Exclusive),
            (swap(30, 0x20_0001), false, Place::Device(1, false)),
            (swap(26, 5), false, Place::Moving),
            (swap(31, 0), false, Place::None),
        ] {
            assert_eq!(place(entry, huge, &regions()), want, "{entry:#x}");
        }
    }

    #[test]
    fn letters_and_names_differ() {
        let all = [
            Place::None,
            Place::Ram(false),
            Place::Ram(true),
            Place::Device(0, false),
            Place::Device(0, true),
            Place::Device(1, false),
            Place::Device(1, true),
            Place::Exclusive,
            Place::Moving,
            Place::Swapped,
            Place::Foreign,
        ];
        let all = || all.iter();
        for (at, one) in all().enumerate() {
            for other in all().skip(at + 1) {
                assert_ne!(one.letter(), other.letter());
                assert_ne!(one.colour(), other.colour());
                assert_ne!(one.name(&regions()), other.name(&regions()));
            }
        }
        assert_eq!(Place::Device(99, true).letter(), 'H');
    }

    #[test]
    fn lines_of_maps() {
        let line = "7f0000000000-7f0000021000 rw-p 00000000 00:00 0 ";
        let mapping = Mapping::parse(line).expect("a mapping");
        assert_eq!((mapping.pages(), mapping.anonymous), (0x21, true));
        assert_eq!(mapping.name, "rw-p");
        let line = "55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0                [heap]";
        assert_eq!(Mapping::parse(line).expect("a mapping").name, "[heap]");
        let line = "7f00-8f00 r--p 00000000 08:01 1234     /usr/bin/a name";
        let mapping = Mapping::parse(line).expect("a mapping");
        assert_eq!(
            (mapping.anonymous, mapping.name.as_str()),
            (false, "/usr/bin/a name")
        );
        for line in ["", "x", "2000-1000 rw-p 0 0 0", "1-2 rw-p"] {
            assert_eq!(Mapping::parse(line), None, "{line}");
        }
    }

    #[test]
    fn nothing_of_this_process_is_on_a_device() {
        let shares = shares(std::process::id(), &regions()).expect("this process");
        assert_eq!(shares, [Share::default(); 2]);
        assert!(super::shares(u32::MAX, &regions()).is_err());
    }

    #[test]
    fn a_process_that_is_none() {
        let error = Space::open(u32::MAX, false).err().expect("no such process");
        assert!(error.to_string().contains("no process"), "{error}");
    }
}
