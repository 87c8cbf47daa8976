// SPDX-License-Identifier: GPL-2.0
//! All interleavings of small scenes (one of them within a bound that it states):
//! no frame in two hands, none lost, and what was given back can be found again.
//! `make loom` runs them; without `--cfg loom` this file is empty.
#![cfg(loom)]

use hmm_devmem::atomic::AtomicU64;
use hmm_devmem::evict::Clock;
use hmm_devmem::frames::{CpuSlot, Frames, Shape};
use hmm_devmem::retired::{self, Retired};
use hmm_devmem::types::{Block, Cpu, PageIndex};
use loom::sync::Arc;
use loom::thread;

/// A region in ordinary memory.
struct Memory {
    npages: u64,
    words: Vec<AtomicU64>,
    maps: [Vec<AtomicU64>; 5],
    table: Vec<AtomicU64>,
    slots: Vec<CpuSlot>,
    moves: AtomicU64,
    marks: Vec<AtomicU64>,
    hand: AtomicU64,
    any: AtomicU64,
}

const MOST_WORDS: usize = 64;

fn zeroes(n: usize) -> Vec<AtomicU64> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

impl Memory {
    fn new(npages: u64) -> Arc<Memory> {
        let shape = Shape::of(npages);
        let memory = Memory {
            npages,
            // Of the blocks of a giant only the first are looked into.
            words: zeroes(shape.nwords.min(MOST_WORDS)),
            maps: std::array::from_fn(|_| zeroes(shape.nmap)),
            table: zeroes(retired::table_words(npages)),
            slots: (0..2)
                .map(|cpu| CpuSlot::new(cpu, 2, shape.nblocks))
                .collect(),
            moves: AtomicU64::new(0),
            marks: zeroes(shape.nmap),
            hand: AtomicU64::new(0),
            any: AtomicU64::new(0),
        };
        memory.frames().format();
        Arc::new(memory)
    }

    fn frames(&self) -> Frames<'_> {
        Frames {
            npages: self.npages,
            words: &self.words,
            whole: &self.maps[0],
            avail: &self.maps[1],
            held: &self.maps[2],
            slots: &self.slots,
            moves: &self.moves,
            retired: Retired {
                any: &self.any,
                some: &self.maps[3],
                all: &self.maps[4],
                table: &self.table,
            },
        }
    }

    fn clock(&self) -> Clock<'_> {
        Clock {
            marks: &self.marks,
            hand: &self.hand,
        }
    }

    /// The block that has to make room.
    fn victim(&self) -> Option<Block> {
        let span = self.clock().victim(&self.frames(), 512)?;
        assert!(span.npages >= 1 && span.first.0 + span.npages <= self.npages);
        Some(span.first.block())
    }

    /// Everything that is left can be claimed, and with what is out it is all.
    fn settle(&self, out: u64) {
        let frames = self.frames();
        let mut left = 0;
        while frames.claim_block(Cpu(0)).is_some() {
            left += 512;
        }
        while let Some(grant) = frames.claim(Cpu(1), 64) {
            left += u64::from(grant.mask.count_ones());
        }
        assert_eq!(left + out, self.npages, "frames lost or doubled");
    }
}

/// Explores all interleavings, or those in which a thread is interrupted at most
/// `preemptions` times where it need not be.
fn explore(preemptions: Option<usize>, scene: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.max_branches = 100_000;
    model.check(scene);
}

/// Two CPUs and a stranger's CPU number want the same two frames.
#[test]
fn two_claims_of_the_last_frames() {
    explore(None, || {
        let memory = Memory::new(2);
        let other = memory.clone();
        let thread = thread::spawn(move || other.frames().claim_one(Cpu(1)));
        let mine = memory.frames().claim_one(Cpu(0));
        let theirs = thread.join().expect("a thread");
        assert!(mine.is_some() && theirs.is_some(), "there were two");
        assert_ne!(mine, theirs);
        memory.settle(2);
    });
}

/// The same slot for both: its place is swapped under their feet.
#[test]
fn two_callers_on_one_slot() {
    explore(None, || {
        let memory = Memory::new(512 + 1);
        let other = memory.clone();
        let thread = thread::spawn(move || other.frames().claim_one(Cpu(0)));
        let mine = memory.frames().claim_one(Cpu(0));
        let theirs = thread.join().expect("a thread");
        assert!(mine.is_some() && theirs.is_some() && mine != theirs);
        memory.settle(2);
    });
}

/// A CPU leaves a block that has run dry while a frame of it comes back: the
/// frame must be found afterwards.
#[test]
fn leaving_while_a_frame_comes_back() {
    explore(None, || {
        let memory = Memory::new(512 + 2);
        let frames = memory.frames();
        // CPU 0 holds the tail block, both frames of it are out.
        let a = frames.claim_one(Cpu(0)).expect("a frame");
        let b = frames.claim_one(Cpu(0)).expect("a frame");
        assert_eq!((a, b), (PageIndex(512), PageIndex(513)));
        let other = memory.clone();
        let thread = thread::spawn(move || {
            let got = other.frames().release_one(Cpu(1), a);
            assert_eq!((got.freed, got.already), (1, 0));
        });
        // Dry: goes on to the other block, or finds the frame that came back.
        let c = frames.claim_one(Cpu(0)).expect("a frame");
        thread.join().expect("a thread");
        assert_ne!(c, b);
        memory.settle(2);
    });
}

/// The last frame of a block comes back, which closes the block, while another
/// CPU claims from it.
#[test]
fn closing_while_another_claims() {
    explore(Some(4), || {
        let memory = Memory::new(512);
        let frames = memory.frames();
        let block = frames.claim_block(Cpu(0)).expect("the block");
        assert_eq!(frames.release(PageIndex(1), 511).freed, 511);
        let other = memory.clone();
        let thread = thread::spawn(move || {
            let got = other.frames().release_one(Cpu(1), block.first());
            assert_eq!((got.freed, got.already), (1, 0));
        });
        let mine = frames.claim_one(Cpu(1));
        thread.join().expect("a thread");
        assert!(mine.is_some(), "511 were free all the time");
        memory.settle(1);
    });
}

/// Two CPUs give back the last two frames of a block: it is whole afterwards,
/// whoever was last.
#[test]
fn two_last_releases_make_a_block() {
    explore(None, || {
        let memory = Memory::new(512);
        let frames = memory.frames();
        assert_eq!(frames.claim_block(Cpu(0)), Some(Block(0)));
        assert_eq!(frames.release(PageIndex(0), 100).freed, 100);
        assert_eq!(frames.release(PageIndex(102), 410).freed, 410);
        let other = memory.clone();
        let thread =
            thread::spawn(move || other.frames().release_one(Cpu(1), PageIndex(100)).freed);
        assert_eq!(frames.release_one(Cpu(0), PageIndex(101)).freed, 1);
        assert_eq!(thread.join().expect("a thread"), 1);
        assert_eq!(
            frames.claim_block(Cpu(1)),
            Some(Block(0)),
            "not whole again"
        );
        memory.settle(512);
    });
}

/// One wants the block, the other a single frame of it.
#[test]
fn a_block_or_a_frame_of_it() {
    explore(None, || {
        let memory = Memory::new(512);
        let other = memory.clone();
        let thread = thread::spawn(move || other.frames().claim_one(Cpu(1)).is_some());
        let block = memory.frames().claim_block(Cpu(0)).is_some();
        let frame = thread.join().expect("a thread");
        assert!(block != frame, "block {block}, frame {frame}");
        memory.settle(if block { 512 } else { 1 });
    });
}

/// The same frame is given back twice at once: one of the two is told.
#[test]
fn a_double_release_is_told() {
    explore(None, || {
        let memory = Memory::new(3);
        let frames = memory.frames();
        let page = frames.claim_one(Cpu(0)).expect("a frame");
        let other = memory.clone();
        let thread = thread::spawn(move || other.frames().release_one(Cpu(1), page).freed);
        let mine = frames.release_one(Cpu(0), page).freed;
        let theirs = thread.join().expect("a thread");
        assert_eq!(mine + theirs, 1);
        memory.settle(0);
    });
}

/// Two blocks in use, two that look for a victim, and the device uses one of the
/// blocks meanwhile: each gets one, and not both the same.
#[test]
fn two_victims_are_two_blocks() {
    explore(Some(3), || {
        let memory = Memory::new(1024);
        let frames = memory.frames();
        assert!(frames.claim_block(Cpu(0)).is_some() && frames.claim_block(Cpu(0)).is_some());
        let other = memory.clone();
        let thread = thread::spawn(move || other.victim());
        let mine = memory.victim();
        let theirs = thread.join().expect("a thread");
        assert!(mine.is_some() && theirs.is_some(), "both are in use");
        assert_ne!(mine, theirs);
    });
}

/// However often a block is used meanwhile: there is a victim.
#[test]
fn use_does_not_hide_a_victim() {
    explore(Some(3), || {
        let memory = Memory::new(512);
        assert!(memory.frames().claim_block(Cpu(0)).is_some());
        memory.clock().touch(PageIndex(0), 512);
        let other = memory.clone();
        let thread = thread::spawn(move || {
            other.clock().touch(PageIndex(5), 1);
            other.clock().touch(PageIndex(5), 1);
        });
        assert_eq!(memory.victim(), Some(Block(0)));
        thread.join().expect("a thread");
    });
}

/// The last frame in use comes back while a victim is looked for: the answer is
/// that frame or none, and afterwards none.
#[test]
fn a_victim_goes_meanwhile() {
    explore(Some(3), || {
        let memory = Memory::new(2);
        let page = memory.frames().claim_one(Cpu(0)).expect("a frame");
        let other = memory.clone();
        let thread = thread::spawn(move || other.frames().release_one(Cpu(1), page).freed);
        let span = memory.clock().victim(&memory.frames(), 512);
        assert!(span.is_none_or(|span| span.first == page && span.npages == 1));
        assert_eq!(thread.join().expect("a thread"), 1);
        assert_eq!(memory.victim(), None);
    });
}

/// A free frame goes out of use while another CPU claims: whoever comes first.
/// Afterwards it is not handed out, however it is asked for.
#[test]
fn retiring_while_another_claims() {
    explore(None, || {
        let memory = Memory::new(2);
        let other = memory.clone();
        let thread = thread::spawn(move || other.frames().claim_one(Cpu(1)));
        let frames = memory.frames();
        frames.retire(PageIndex(0), 1);
        let late = frames.claim_one(Cpu(0));
        let theirs = thread.join().expect("a thread");
        assert_ne!(late, Some(PageIndex(0)), "handed out after it was retired");
        assert!(
            late.is_some() || theirs == Some(PageIndex(1)),
            "{late:?} {theirs:?}"
        );
        let out = u64::from(late.is_some()) + u64::from(theirs.is_some());
        if theirs == Some(PageIndex(0)) {
            assert_eq!(frames.release_one(Cpu(0), PageIndex(0)).freed, 1);
            memory.settle(out);
        } else {
            assert_eq!(frames.release_one(Cpu(0), PageIndex(0)).already, 1);
            memory.settle(out + 1);
        }
    });
}

/// A frame that is out goes out of use while it is given back.
#[test]
fn retiring_while_it_comes_back() {
    explore(None, || {
        let memory = Memory::new(3);
        let frames = memory.frames();
        let page = frames.claim_one(Cpu(0)).expect("a frame");
        let other = memory.clone();
        let thread = thread::spawn(move || other.frames().release_one(Cpu(1), page).freed);
        frames.retire(page, 1);
        assert_ne!(frames.claim_one(Cpu(1)), Some(page));
        assert_eq!(thread.join().expect("a thread"), 1);
        assert_eq!(frames.count().retired, 1);
        memory.settle(2);
    });
}

/// A frame of a block goes out of use while the block is given back as a whole,
/// and while it is claimed as a whole.
#[test]
fn retiring_in_a_block_that_comes_and_goes() {
    explore(Some(3), || {
        let memory = Memory::new(512);
        let frames = memory.frames();
        let block = frames.claim_block(Cpu(0)).expect("the block");
        let other = memory.clone();
        let thread = thread::spawn(move || {
            let frames = other.frames();
            assert_eq!(frames.release_block(block).freed, 512);
            frames.claim_block(Cpu(1)).is_some()
        });
        frames.retire(PageIndex(7), 1);
        assert!(
            frames.claim_block(Cpu(0)).is_none(),
            "a block with a frame out of use"
        );
        if thread.join().expect("a thread") {
            assert_eq!(frames.release_block(block).freed, 512);
        }
        let count = frames.count();
        assert_eq!((count.free, count.retired, count.blocks), (511, 1, 0));
        memory.settle(1);
    });
}

/// Two at once retire frames of one block, for which one record serves both.
#[test]
fn two_retire_in_one_block() {
    explore(Some(3), || {
        let memory = Memory::new(100);
        let other = memory.clone();
        let thread = thread::spawn(move || {
            other.frames().retire(PageIndex(1), 1);
            assert_eq!(other.frames().release_one(Cpu(1), PageIndex(1)).already, 1);
        });
        memory.frames().retire(PageIndex(70), 2);
        thread.join().expect("a thread");
        assert_eq!(memory.frames().count().retired, 3);
        memory.settle(3);
    });
}

/// Two CPUs want the only run; a frame of it is claimed at the same time.
#[test]
fn a_run_or_a_frame_of_it() {
    explore(Some(3), || {
        let memory = Memory::new(16);
        let other = memory.clone();
        let thread = thread::spawn(move || other.frames().claim_run(Cpu(1)).is_some());
        let frame = memory.frames().claim_one(Cpu(0));
        let run = thread.join().expect("a thread");
        assert!(!run || frame.is_none(), "the run and a frame of it");
        memory.settle(if run { 16 } else { u64::from(frame.is_some()) });
    });
}

/// A run comes back while another CPU looks for one.
#[test]
fn a_run_comes_back() {
    explore(Some(3), || {
        let memory = Memory::new(32);
        let frames = memory.frames();
        let run = frames.claim_run(Cpu(0)).expect("a run");
        let other = memory.clone();
        let thread = thread::spawn(move || other.frames().claim_run(Cpu(1)));
        assert_eq!(frames.release_run(Cpu(0), run).freed, 16);
        assert!(
            thread.join().expect("a thread").is_some(),
            "one was free all the time"
        );
        memory.settle(16);
    });
}

/// One wants 1 GiB, another `less` of it, which says how many frames it got.
fn a_giant_or(less: fn(&Frames<'_>) -> Option<u64>) {
    explore(Some(3), move || {
        let memory = Memory::new(512 * 512);
        let other = memory.clone();
        let thread = thread::spawn(move || less(&other.frames()));
        let giant = memory.frames().claim_giant();
        let part = thread.join().expect("a thread");
        assert!(giant.is_some() != part.is_some(), "{giant:?} and {part:?}");
        let out = part.unwrap_or(512 * 512);
        assert_eq!(memory.frames().count().free + out, memory.npages);
    });
}

/// 1 GiB together, or one frame of it; whoever comes second gets nothing or, when the
/// giant finds that a block is gone, gives back what it had taken.
#[test]
fn a_giant_or_a_frame_of_it() {
    a_giant_or(|frames| {
        let page = frames.claim_one(Cpu(0))?;
        // A block whose words are not in this memory counts as gone.
        let gone = page.block().0 >= MOST_WORDS / 8;
        Some(if gone { 512 } else { 1 })
    });
}

/// 1 GiB together, or a block of it.
#[test]
fn a_giant_or_a_block_of_it() {
    a_giant_or(|frames| frames.claim_block(Cpu(1)).map(|_| 512));
}
