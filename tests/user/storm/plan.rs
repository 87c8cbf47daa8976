// SPDX-License-Identifier: GPL-2.0
//! What an actor does, in which order: a function of the seed and of the actor, and of nothing else.

use crate::pattern::{Dice, word};
use std::fmt;
use std::ops::Range;

/// Pages of an actor's memory.
pub const PAGES: usize = 1024;
/// Pages of a huge page.
pub const BLOCK: usize = 512;

/// Declares the kinds of steps with the name and the weight of each.
macro_rules! kinds {
    ($($kind:ident $name:literal $weight:literal $what:literal,)+) => {
        /// A kind of step.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = $what] $kind,)+
        }

        /// Kind, name, how often among the others, and what it is.
        pub const KINDS: &[(Kind, &str, usize, &str)] = &[$((Kind::$kind, $name, $weight, $what),)+];
    };
}

kinds! {
    Write "write" 140 "the CPU writes",
    Verify "verify" 120 "the CPU reads and compares",
    ToDevice "to-device" 160 "migrate to a device",
    ToDeviceHoles "to-device-holes" 40 "the same, with pages never touched",
    ToRam "to-ram" 60 "migrate back on request",
    DeviceWrite "device-write" 50 "the device writes through its page table",
    DeviceRead "device-read" 50 "the device reads, and that is compared",
    Exclusive "exclusive" 20 "the device takes pages for itself alone",
    Snapshot "snapshot" 20 "the device looks where pages are",
    Release "release" 2 "everything on a device comes home, whoever owns it",
    Fail "fail" 20 "a device fails a few times at one leg",
    ReadOnly "read-only" 30 "mprotect: read only, until something writes",
    NoAccess "no-access" 10 "mprotect: nothing allowed, until something writes",
    Discard "discard" 40 "madvise(DONTNEED)",
    Collapse "collapse" 4 "madvise(COLLAPSE) of 2 MiB",
    NoHuge "no-huge" 10 "madvise(NOHUGEPAGE)",
    Huge "huge" 20 "madvise(HUGEPAGE)",
    PageOut "page-out" 40 "madvise(PAGEOUT): to swap",
    Reclaim "reclaim" 2 "the memory cgroup of the process gives up 256 KiB: to swap",
    Move "move" 30 "mremap onto other pages",
    MoveLeaving "move-leaving" 10 "the same with DONTUNMAP",
    Unmap "unmap" 20 "munmap; mapped anew by what writes there",
    Fork "fork" 4 "a child compares, writes, migrates and ends, sometimes by kill -9",
    RemoteRead "remote-read" 40 "process_vm_readv",
    RemoteWrite "remote-write" 30 "process_vm_writev",
    Splice "splice" 30 "vmsplice: pages in a pipe while they are to migrate",
    Direct "direct" 30 "O_DIRECT to a disk and back",
}

/// What the weights add up to.
pub fn total() -> usize {
    KINDS.iter().map(|kind| kind.2).sum()
}

/// What a step is called.
pub fn name(kind: Kind) -> &'static str {
    KINDS[kind as usize].1
}

/// Who acts: a process, how many before it had its number, and a thread of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor {
    pub process: usize,
    pub generation: usize,
    pub thread: usize,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            process,
            generation,
            thread,
        } = self;
        write!(f, "{process}.{generation}.{thread}")
    }
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    pub number: usize,
    pub kind: Kind,
    pub pages: Range<usize>,
    /// 0 or 1.
    pub device: usize,
    /// For whatever else there is to choose.
    pub choice: u64,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.pages;
        write!(
            f,
            "#{} {} of pages {start}..{end}",
            self.number,
            name(self.kind)
        )?;
        write!(
            f,
            " (device {}, choice {:x})",
            self.device,
            self.choice & 0xffff
        )
    }
}

/// The steps of an actor, without end.
pub struct Plan {
    dice: Dice,
    next: usize,
    total: usize,
}

impl Plan {
    pub fn new(seed: u64, actor: Actor) -> Self {
        Self {
            dice: Dice::new(key(seed, actor)),
            next: 0,
            total: total(),
        }
    }

    /// Mostly few pages, now and then many, sometimes all of a huge page: five on average.
    fn pages(&mut self) -> Range<usize> {
        let most = [1, 1, 2, 2, 4, 4, 8, 32][self.dice.below(8)];
        let start = self.dice.below(PAGES);
        if self.dice.below(400) == 0 {
            let block = start / BLOCK * BLOCK;
            return block..block + BLOCK;
        }
        start..(start + 1 + self.dice.below(most)).min(PAGES)
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let mut point = self.dice.below(self.total);
        let kind = KINDS.iter().find(|kind| {
            let here = point < kind.2;
            point = point.wrapping_sub(kind.2);
            here
        })?;
        let number = self.next;
        self.next += 1;
        Some(Step {
            number,
            kind: kind.0,
            pages: self.pages(),
            device: self.dice.below(2),
            choice: self.dice.any(),
        })
    }
}

/// A number for an actor.
fn key(seed: u64, actor: Actor) -> u64 {
    let who = actor.process << 48 | actor.thread << 40 | actor.generation;
    word(seed, who)
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every thread has done its steps and found its memory right.
    Exit,
    /// By kill -9, when every thread has done its steps.
    KilledAtRest,
    /// By kill -9 of its first thread, whatever the others are doing.
    KilledInFlight,
}

/// What goes wrong on purpose, to show that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A page loses its contents.
    Lost,
    /// A page is another one's.
    Foreign,
    /// The device changes one word.
    Word,
}

/// How each is called.
pub const PLANTS: &[(Plant, &str)] = &[
    (Plant::Lost, "lost"),
    (Plant::Foreign, "foreign"),
    (Plant::Word, "word"),
];
/// One in so many steps is followed by it.
pub const PLANT_EVERY: usize = 20;

/// Whether the threads of a process share a processor. Most do: a page that leaves has to be taken from
/// every processor that may have it, and on a busy host the other one answers after milliseconds.
pub fn at_home(seed: u64, process: usize, generation: usize) -> bool {
    !word(seed, 1 << 60 | process << 32 | generation).is_multiple_of(3)
}

/// How many steps each thread of a process takes, and how it ends.
pub fn life(seed: u64, process: usize, generation: usize) -> (usize, End) {
    let mut dice = Dice::new(word(!seed, process << 32 | generation));
    let end = [
        End::Exit,
        End::KilledAtRest,
        End::KilledInFlight,
        End::KilledInFlight,
    ][dice.below(4)];
    let most = [200, 1000, 4000][dice.below(3)];
    (20 + dice.below(most), end)
}

/// The contents of a page that a step has written. Never 0, which stands for zeroes.
pub fn contents(seed: u64, actor: Actor, step: usize, page: usize) -> u64 {
    word(key(seed, actor), (1 << 50) | step << 12 | page) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTOR: Actor = Actor {
        process: 1,
        generation: 2,
        thread: 0,
    };

    fn text(seed: u64, actor: Actor) -> Vec<String> {
        let steps = Plan::new(seed, actor).take(300);
        steps.map(|step| step.to_string()).collect()
    }

    #[test]
    fn a_plan_follows_from_seed_and_actor() {
        assert_eq!(text(7, ACTOR), text(7, ACTOR));
        assert_ne!(text(7, ACTOR), text(8, ACTOR));
        let other = Actor { thread: 1, ..ACTOR };
        assert_ne!(text(7, ACTOR), text(7, other));
        assert_eq!(life(7, 1, 2), life(7, 1, 2));
    }

    #[test]
    fn every_kind_comes_and_has_its_name() {
        let mut seen = vec![0; KINDS.len()];
        for step in Plan::new(3, ACTOR).take(100_000) {
            assert!(!step.pages.is_empty() && step.pages.end <= PAGES, "{step}");
            seen[step.kind as usize] += 1;
        }
        for (i, (kind, name, weight, _)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, i, "{name}");
            assert!(seen[i] > weight * 50, "{name}: {}", seen[i]);
        }
    }

    #[test]
    fn contents_tell_steps_and_pages_apart() {
        let mut all: Vec<_> = (0..50)
            .flat_map(|step| (0..PAGES).map(move |page| contents(9, ACTOR, step, page)))
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 50 * PAGES);
        assert!(!all.contains(&0));
    }
}
