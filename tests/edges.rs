// SPDX-License-Identifier: GPL-2.0
//! Numbers that no caller should have and parts that are not there: nothing is claimed,
//! nothing is changed, nothing panics. The core has no bounds check that panics, so each
//! of these is a branch of its own.

mod lent;

use hmm_devmem::atomic::{AtomicU64, Ordering::Relaxed};
use hmm_devmem::evict;
use hmm_devmem::frames::{Frames, Released};
use hmm_devmem::map::{Map, Refused};
use hmm_devmem::nodes::{Nodes, WHOLE};
use hmm_devmem::plan;
use hmm_devmem::port::warnings;
use hmm_devmem::retired::Retired;
use hmm_devmem::types::{Block, Cpu, Errno, PageIndex, Segment, Word};
use hmm_devmem::window;
use lent::{COMPOUND, Lent, MIGRATE, VALID, entry};
use std::sync::atomic::Ordering::SeqCst;

const CPU: Cpu = Cpu(0);
const FAR: u64 = 1 << 40;

/// The same region with some parts left out.
fn without<'a>(f: &Frames<'a>, slots: bool, words: bool, maps: bool) -> Frames<'a> {
    Frames {
        npages: f.npages,
        words: if words { f.words } else { &[] },
        whole: if maps { f.whole } else { &[] },
        avail: if maps { f.avail } else { &[] },
        held: if maps { f.held } else { &[] },
        slots: if slots { f.slots } else { &[] },
        moves: f.moves,
        retired: Retired {
            any: f.retired.any,
            some: if maps { f.retired.some } else { &[] },
            all: if maps { f.retired.all } else { &[] },
            table: if maps { f.retired.table } else { &[] },
        },
    }
}

#[test]
fn frames_beyond_the_region() {
    let lent = Lent::new(2000, 2);
    let region = lent.region();
    let frames = region.frames();
    let far = PageIndex(FAR);
    assert_eq!(frames.release_one(CPU, far), Released::default());
    assert_eq!(frames.release_run(CPU, far), Released::default());
    assert_eq!(frames.release_block(far.block()).freed, 0);
    assert_eq!(frames.free_mask(Word(1 << 40)), 0);
    assert_eq!(frames.free_mask(Word(3)), u64::MAX, "a whole block is free");
    assert_eq!(frames.claim_giant(), None, "2000 frames are no 1 GiB");
    // A CPU that nobody counted gets the slot of another.
    let page = frames.claim_one(Cpu(77)).expect("a frame");
    assert_eq!(frames.release_one(Cpu(99), page).freed, 1);
    assert_eq!(frames.release_one(Cpu(99), page).already, 1);
    let run = frames.claim_run(Cpu(77)).expect("a run");
    assert_eq!(frames.release_run(Cpu(5), run).freed, 16);
    assert_eq!(frames.release_run(Cpu(5), run).already, 16);
    assert_eq!(frames.count().free, 2000);
}

#[test]
fn parts_that_are_not_there() {
    let lent = Lent::new(4 * 512, 2);
    let region = lent.region();
    let all = region.frames();
    for (slots, words, maps) in [
        (false, true, true),
        (true, false, false),
        (true, true, false),
    ] {
        let frames = without(all, slots, words, maps);
        assert_eq!(frames.claim(CPU, 5), None);
        assert_eq!(frames.claim_one(CPU), None);
        assert_eq!(frames.claim_run(CPU), None);
        assert_eq!(frames.claim_block(CPU), None);
        assert_eq!(frames.release_run(CPU, PageIndex(FAR)), Released::default());
        assert_eq!(frames.release_block(Block(1 << 30)).freed, 0);
        let (src, mut dst) = ([entry(3, VALID | MIGRATE); 2], [0; 2]);
        let mut seg = [Segment::default(); 2];
        let plan = plan::to_device(&frames, CPU, &src, &mut dst, &mut seg).expect("a plan");
        assert_eq!((plan.claimed, plan.wanted), (0, 2));
        assert_eq!(dst, [0, 0]);
    }
    let bare = without(all, true, false, false);
    assert_eq!(bare.count().free, 0);
    let masks = [1; 8];
    bare.retired.mark(Block(3), &masks);
    assert_eq!(bare.retired.mask(Word(24)), 0);
    // What is not known to be free counts as in use.
    let (marks, hand) = ([], AtomicU64::new(0));
    let clock = evict::Clock {
        marks: &marks,
        hand: &hand,
    };
    clock.touch(PageIndex(0), 100);
    clock.touch(PageIndex(3), 0);
    let victim = clock.victim(&bare, 512).expect("a block");
    assert!(victim.npages >= 1 && victim.first.0 + victim.npages <= bare.npages);
    assert_eq!(evict::next_span(&bare, PageIndex(FAR), 8), None);
    assert_eq!(all.count().free, 2048);
}

/// A bit set in a whole block's word, as only a race of a caller with itself
/// can leave it, is not handed out and is reported by whoever opens the block.
#[test]
fn a_stray_bit_is_found_and_harmless() {
    let lent = Lent::new(512 * 2 + 2, 2);
    let region = lent.region();
    let frames = region.frames();
    frames.words[8].fetch_or(1 << 5, SeqCst);
    frames.avail[0].fetch_or(1 << 1, SeqCst);
    let warned = warnings();
    // The tail's two frames, then block 0; the stray one is in block 1.
    let mut seen = 0;
    while let Some(page) = frames.claim_one(Cpu(1)) {
        if seen < 2 {
            assert!(page.0 >= 1024, "{page:?} is of a whole block");
        }
        seen += 1;
    }
    assert_eq!(seen, frames.npages);
    assert_eq!(warnings(), warned + 1);
}

/// One claim looks into so many blocks and no more; the next goes on where it ended.
#[test]
fn what_a_bounded_search_leaves_the_next_one_finds() {
    let nblocks = 4096 + 300;
    let lent = Lent::new(512 * nblocks, 1);
    let region = lent.region();
    let frames = region.frames();
    // Every other frame is in use: no run, no block.
    frames.whole.iter().for_each(|word| word.store(0, SeqCst));
    let odd = |word: &AtomicU64| word.store(0x5555_5555_5555_5555, SeqCst);
    frames.words.iter().for_each(odd);
    (0..nblocks).for_each(|block| {
        frames.avail[block as usize / 64].fetch_or(1 << (block % 64), SeqCst);
    });
    assert_eq!(frames.claim_run(CPU), None);
    let (run, block) = (PageIndex(512 * 4150 + 48), Block(4250));
    assert_eq!(frames.release_run(CPU, run).already, 8);
    assert_eq!(frames.claim_run(CPU), Some(run));
    frames.words[4250 * 8..4251 * 8]
        .iter()
        .for_each(|word| word.store(u64::MAX, SeqCst));
    let found: Vec<_> = (0..3).filter_map(|_| frames.claim_block(CPU)).collect();
    assert_eq!(found, [block]);
}

/// Somebody was interrupted in the midst of opening a block: nobody waits for him.
#[test]
fn who_is_interrupted_is_not_waited_for() {
    let lent = Lent::new(512, 1);
    let region = lent.region();
    let frames = region.frames();
    assert_eq!(frames.claim_block(CPU), Some(Block(0)));
    frames.moves.fetch_add(1, SeqCst);
    assert_eq!(
        (frames.claim_one(CPU), frames.claim_block(CPU)),
        (None, None)
    );
    frames.moves.fetch_sub(1, SeqCst);
    assert_eq!(frames.release_block(Block(0)).freed, 512);
}

/// A frame of a whole block is marked, and whoever marks it has not yet looked
/// whether the block is whole: others come first.
#[test]
fn a_mark_in_a_block_that_is_still_whole() {
    let mark = |frames: &Frames<'_>, block| frames.retired.mark(block, &[1, 0, 0, 0, 0, 0, 0, 0]);
    let lent = Lent::new(3 * 512, 1);
    let region = lent.region();
    let frames = region.frames();
    assert_eq!(frames.claim_block(CPU), Some(Block(0)));
    mark(frames, Block(1));
    mark(frames, Block(2));
    assert_eq!(frames.claim_block(CPU), None);
    let count = frames.count();
    assert_eq!((count.free, count.retired, count.blocks), (1022, 2, 0));

    let lent = Lent::new(512, 1);
    let region = lent.region();
    mark(region.frames(), Block(0));
    assert_eq!(region.frames().claim_one(CPU), Some(PageIndex(1)));

    let lent = Lent::new(512 * 512, 1);
    let region = lent.region();
    mark(region.frames(), Block(70));
    assert_eq!(region.frames().claim_giant(), None);
    let count = region.frames().count();
    assert_eq!((count.retired, count.blocks), (1, 511));
}

/// What a CPU believes to be free goes out of use, or is claimed and given back
/// in another form, before it claims there again.
#[test]
fn what_a_cpu_believes_may_be_wrong() {
    let lent = Lent::new(512, 1);
    let region = lent.region();
    let frames = region.frames();
    let run = frames.claim_run(CPU).expect("a run");
    assert_eq!(frames.release_run(CPU, run).freed, 16);
    assert_eq!(frames.claim_block(CPU), Some(Block(0)), "all came back");
    assert_eq!(frames.release_block(Block(0)).freed, 512);
    assert_eq!(frames.release_run(CPU, run).already, 16);
    assert_eq!(frames.claim_run(CPU), Some(PageIndex(0)));
    frames.retire(PageIndex(20), 1);
    assert_eq!(frames.claim_run(CPU), Some(PageIndex(32)));

    let lent = Lent::new(512, 1);
    let region = lent.region();
    let frames = region.frames();
    assert_eq!(frames.claim_one(CPU), Some(PageIndex(0)));
    frames.retire(PageIndex(1), 1);
    assert_eq!(frames.claim_one(CPU), Some(PageIndex(2)));
}

#[test]
fn a_table_of_no_streams() {
    window::format(&[]);
    let w = window::fault(&[], 1, 100, 0, 1000, 64);
    assert!(w.first <= 100 && 100 - w.first < w.npages);
    window::went(&[], 1, 100);
    let table: Vec<AtomicU64> = (0..64).map(|_| AtomicU64::new(0)).collect();
    // Outside of its own bounds, beyond all pages, and with no pages wanted.
    for (page, lo, hi, max) in [
        (5, 6, 10, 64),
        (10, 6, 10, 64),
        (u64::MAX, 0, u64::MAX, 64),
        (8, 6, 10, 0),
    ] {
        let w = window::fault(&table, 1, page, lo, hi, max);
        assert_eq!((w.first, w.npages), (page, 1));
        window::went(&table, 1, page);
    }
    assert!(table.iter().all(|word| word.load(Relaxed) == 0));
}

#[test]
fn plans_of_arrays_that_do_not_fit() {
    let lent = Lent::new(1024, 1);
    let region = lent.region();
    let frames = region.frames();
    let mut seg = [Segment::default(); 600];
    let on = VALID | MIGRATE;
    let long = vec![entry(3, on); 70_000];
    for (src, n) in [(&long[..], 70_000), (&long[..0], 0), (&long[..3], 2)] {
        let mut dst = vec![0; n];
        let got = plan::to_device(frames, CPU, src, &mut dst, &mut seg);
        assert_eq!(got, Err(Errno::INVAL));
        assert_eq!(plan::to_ram(src, &dst, 0, &mut seg), Err(Errno::INVAL));
    }
    // A compound at the very end: the pages behind it are missing.
    let short = [entry(512, on | COMPOUND), 0, 0];
    let mut dst = [0; 3];
    let got = plan::to_device(frames, CPU, &short, &mut dst, &mut seg);
    assert!(got.is_err() || got.is_ok_and(|plan| plan.claimed <= 512));
    let dst = [entry(9, VALID), 0, entry(11, VALID)];
    let n = plan::to_ram(&short, &dst, 512, &mut seg);
    assert_eq!(n, Err(Errno::INVAL));
}

#[test]
fn nodes_outside_of_the_memory() {
    let mut words = vec![0u64; 3 * 512];
    let mut nodes = Nodes::new(&mut words);
    nodes.format();
    nodes.put(FAR, 7);
    assert_eq!(nodes.word(FAR), 0);
    assert!(nodes.piece(FAR, 4).is_empty() && nodes.piece_mut(FAR, 4).is_empty());
    nodes.copy(FAR, 0, 4);
    nodes.copy(0, FAR, 4);
    assert!(nodes.take(WHOLE).is_some());
    assert_eq!((nodes.take(WHOLE), nodes.pages()), (None, 0));
    let mut small = vec![0u64; 512];
    assert!(!Nodes::new(&mut small).extend(), "a page is no memory");
    assert!(Map::format(&mut small).is_none() && Map::at(&mut small).is_none());
    // The memory became smaller than what the map was told.
    let mut words = vec![0u64; 8 * 512];
    assert!(Map::format(&mut words).is_some());
    assert!(Map::at(&mut words[..4 * 512]).is_none());
    let mut map = Map::at(&mut words).expect("a map");
    assert_eq!(map.set(u64::MAX, 2, 1), Err(Refused::Invalid));
    assert_eq!(map.set(0, 0, 1), Err(Refused::Invalid));
    assert_eq!(map.set(0, 1, u32::MAX), Err(Refused::Invalid));
    assert_eq!(
        (map.get(u64::MAX), map.run(5, 5), map.next(9, 3, 1)),
        (0, None, None)
    );
}
