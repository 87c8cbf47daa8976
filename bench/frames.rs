// SPDX-License-Identifier: GPL-2.0
//! Frames against what drivers do today: an intrusive free list under a
//! spinlock (nouveau_dmem and the kernel's own test driver link free pages
//! through their `struct page`), and against other allocators.
//!
//! Part of `make bench`, which also turns the vectoriser off, as in a kernel.
//! Times are thread CPU times, so that a busy machine shows less; still, compare
//! ratios of one run only.

mod rows;

use std::hint::{black_box, spin_loop};
use std::ptr::NonNull;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use hmm_devmem::region::{self, Region};
use hmm_devmem::types::{Cpu, PageIndex, Segment};
use rows::{Limit, Random, Row, cpu_time, record, row};

/// 4 GiB of 4K frames.
const FRAMES: u64 = 1 << 20;

// --- the peer -----------------------------------------------------------------

/// A device page's `struct page`, as far as its free list needs it: 64 bytes.
#[repr(align(64))]
struct Page {
    next: AtomicU32,
}

/// Free pages linked through the pages, one lock for all. What the lock guards
/// is relaxed atomics, which are plain loads and stores on this machine.
struct FreeList {
    pages: Vec<Page>,
    lock: AtomicBool,
    head: AtomicU32,
}

const NONE: u32 = u32::MAX;

impl FreeList {
    fn new(n: u64) -> FreeList {
        let n = n as u32;
        let next = |i| AtomicU32::new(if i + 1 < n { i + 1 } else { NONE });
        FreeList {
            pages: (0..n).map(|i| Page { next: next(i) }).collect(),
            lock: AtomicBool::new(false),
            head: AtomicU32::new(0),
        }
    }

    #[inline]
    fn locked<R>(&self, work: impl FnOnce() -> R) -> R {
        while self
            .lock
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            while self.lock.load(Ordering::Relaxed) {
                spin_loop();
            }
        }
        let result = work();
        self.lock.store(false, Ordering::Release);
        result
    }

    #[inline]
    fn pop(&self) -> Option<u32> {
        let head = self.head.load(Ordering::Relaxed);
        let next = self.pages.get(head as usize)?.next.load(Ordering::Relaxed);
        self.head.store(next, Ordering::Relaxed);
        Some(head)
    }

    #[inline]
    fn push(&self, page: u32) {
        let head = self.head.load(Ordering::Relaxed);
        self.pages[page as usize]
            .next
            .store(head, Ordering::Relaxed);
        self.head.store(page, Ordering::Relaxed);
    }
}

// --- the two sides of each bench ------------------------------------------------

/// What is measured: the same work on either side.
trait Side: Sync {
    const NAME: &'static str;
    fn new(frames: u64) -> Self;
    fn claim(&self, cpu: u32) -> u32;
    fn release(&self, cpu: u32, page: u32);

    #[inline]
    fn pair(&self, cpu: u32) {
        let page = self.claim(cpu);
        self.release(cpu, black_box(page));
    }

    fn batch(&self, cpu: u32, into: &mut [u32]) {
        into.iter_mut().for_each(|page| *page = self.claim(cpu));
        black_box(&mut *into);
        into.iter().for_each(|page| self.release(cpu, *page));
    }
}

impl Side for FreeList {
    const NAME: &'static str = "free list + spinlock";

    fn new(frames: u64) -> FreeList {
        FreeList::new(frames)
    }

    /// The lock is taken once for the whole batch each way, which is more than
    /// the drivers do.
    fn batch(&self, _: u32, into: &mut [u32]) {
        self.locked(|| {
            into.iter_mut()
                .for_each(|page| *page = self.pop().expect("a page"))
        });
        black_box(&mut *into);
        self.locked(|| into.iter().for_each(|page| self.push(*page)));
    }

    #[inline]
    fn claim(&self, _: u32) -> u32 {
        self.locked(|| self.pop()).expect("a page")
    }

    #[inline]
    fn release(&self, _: u32, page: u32) {
        self.locked(|| self.push(page));
    }
}

/// The same list, used as the drivers use it: the lock is taken for each page.
struct PageByPage(FreeList);

impl Side for PageByPage {
    const NAME: &'static str = FreeList::NAME;

    fn new(frames: u64) -> PageByPage {
        PageByPage(FreeList::new(frames))
    }

    #[inline]
    fn claim(&self, cpu: u32) -> u32 {
        self.0.claim(cpu)
    }

    #[inline]
    fn release(&self, cpu: u32, page: u32) {
        self.0.release(cpu, page);
    }
}

/// A region in memory of its own.
struct Core {
    mem: *mut u8,
    layout: std::alloc::Layout,
}

// SAFETY: the region in the memory is made to be shared.
unsafe impl Sync for Core {}

impl Core {
    fn region(&self) -> Region<'_> {
        // SAFETY: made by new(), lives as long as self.
        unsafe { Region::at(self.mem.cast()) }.expect("a living region")
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout by new().
        unsafe { std::alloc::dealloc(self.mem, self.layout) }
    }
}

fn core(frames: u64) -> Core {
    let size = region::size(frames, 2);
    let layout = std::alloc::Layout::from_size_align(size, 64).expect("a layout");
    // SAFETY: the size is not 0; the memory is the region's alone.
    let mem = unsafe { std::alloc::alloc(layout) };
    let lent = NonNull::new(mem).expect("memory");
    // SAFETY: as above.
    unsafe { Region::init(lent, size, frames, 2) }.expect("a region");
    Core { mem, layout }
}

/// The allocator itself: `frames.rs`, without the books.
struct Frames(Core);

impl Side for Frames {
    const NAME: &'static str = "frames";

    fn new(n: u64) -> Frames {
        Frames(core(n))
    }

    /// As the planner claims; given back one by one, as the kernel frees.
    fn batch(&self, cpu: u32, into: &mut [u32]) {
        let region = self.0.region();
        let frames = region.frames();
        let want = into.len() as u64;
        let mut n = 0;
        while n < want {
            let mut grant = frames.claim(Cpu(cpu), (want - n).min(64)).expect("frames");
            while grant.mask != 0 {
                into[n as usize] = grant.base.0 as u32 + grant.mask.trailing_zeros();
                grant.mask &= grant.mask - 1;
                n += 1;
            }
        }
        black_box(&mut *into);
        for page in into.iter() {
            frames.release_one(PageIndex(u64::from(*page)));
        }
    }

    #[inline]
    fn claim(&self, cpu: u32) -> u32 {
        self.0
            .region()
            .frames()
            .claim_one(Cpu(cpu))
            .expect("a frame")
            .0 as u32
    }

    #[inline]
    fn release(&self, _: u32, page: u32) {
        self.0
            .region()
            .frames()
            .release_one(PageIndex(u64::from(page)));
    }
}

/// What C calls: checked, booked, through `extern "C"`.
struct Border(Core);

impl Side for Border {
    const NAME: &'static str = "C border";

    fn new(n: u64) -> Border {
        Border(core(n))
    }

    /// A plan of 512 entries, rolled back as one range per segment.
    fn batch(&self, cpu: u32, into: &mut [u32]) {
        let src: [u64; 512] = std::array::from_fn(|i| (i as u64 + 512) << 6 | 3);
        let mut dst = [0u64; 512];
        let mut seg = [Segment::default(); 512];
        let n = into.len();
        let plan = self
            .0
            .region()
            .plan_to_device(Cpu(cpu), &src[..n], &mut dst[..n], &mut seg[..n])
            .expect("a plan");
        black_box(&mut dst);
        for s in &seg[..plan.ncopy as usize] {
            self.0
                .region()
                .rollback(Cpu(cpu), s.dst, u64::from(s.npages))
                .expect("claimed");
        }
    }

    #[inline]
    fn claim(&self, cpu: u32) -> u32 {
        let (mut dst, mut seg, mut plan) = (0, Segment::default(), Default::default());
        // SAFETY: a living region and arrays of one entry.
        let ret = unsafe {
            hmm_devmem::ffi::hmm_core_plan_to_device(
                self.0.mem.cast(),
                cpu,
                &(512 << 6 | 3),
                &mut dst,
                1,
                &mut seg,
                &mut plan,
            )
        };
        assert_eq!(ret, 0);
        (dst >> 6) as u32
    }

    #[inline]
    fn release(&self, cpu: u32, page: u32) {
        // SAFETY: a living region.
        let ret = unsafe {
            hmm_devmem::ffi::hmm_core_rollback(self.0.mem.cast(), cpu, u64::from(page), 1)
        };
        assert_eq!(ret, 0);
    }
}

/// Whole blocks: ours by `claim_block`, the peer's as a list of 2 MiB pages.
struct Blocks(Core);

impl Side for Blocks {
    const NAME: &'static str = "frames";

    fn new(n: u64) -> Blocks {
        Blocks(core(n))
    }

    #[inline]
    fn claim(&self, cpu: u32) -> u32 {
        self.0
            .region()
            .frames()
            .claim_block(Cpu(cpu))
            .expect("a block")
            .first()
            .0 as u32
    }

    #[inline]
    fn release(&self, _: u32, page: u32) {
        self.0
            .region()
            .frames()
            .release(PageIndex(u64::from(page)), 512);
    }
}

// --- measuring ------------------------------------------------------------------

fn pairs<S: Side>(c: &mut Criterion, bench: &str, frames: u64) {
    let side = S::new(frames);
    c.benchmark_group(bench)
        .bench_function(BenchmarkId::from_parameter(S::NAME), |b| {
            b.iter_custom(|n| {
                let start = cpu_time();
                (0..n).for_each(|_| side.pair(0));
                record(bench, S::NAME, n, cpu_time() - start)
            })
        });
}

/// Two threads, each on its CPU; the slower one counts. Only samples in which
/// both really ran at the same time are recorded: on a busy machine they take
/// turns, and nothing is contended.
fn pairs_by_two<S: Side>(c: &mut Criterion, bench: &str, frames: u64) {
    let side = S::new(frames);
    c.benchmark_group(bench)
        .bench_function(BenchmarkId::from_parameter(S::NAME), |b| {
            b.iter_custom(|n| {
                let ready = Barrier::new(2);
                let wall = std::time::Instant::now();
                let times = std::thread::scope(|scope| {
                    let run = |cpu| {
                        let (side, ready) = (&side, &ready);
                        scope.spawn(move || {
                            ready.wait();
                            let start = cpu_time();
                            (0..n).for_each(|_| side.pair(cpu));
                            cpu_time() - start
                        })
                    };
                    [run(0), run(1)].map(|thread| thread.join().expect("a thread"))
                });
                let slower = times[0].max(times[1]);
                if (times[0] + times[1]).as_secs_f64() >= 1.7 * wall.elapsed().as_secs_f64() {
                    record(bench, S::NAME, n, slower);
                }
                slower
            })
        });
}

fn batches<S: Side>(c: &mut Criterion, bench: &str) {
    let side = S::new(FRAMES);
    let mut pages = [0; 512];
    c.benchmark_group(bench)
        .bench_function(BenchmarkId::from_parameter(S::NAME), |b| {
            b.iter_custom(|n| {
                let start = cpu_time();
                (0..n).for_each(|_| side.batch(0, &mut pages));
                let time = cpu_time() - start;
                record(bench, S::NAME, n * 512, time)
            })
        });
}

/// About 95 % in use: claim one or give a random one back, as a coin says.
fn churn<S: Side>(c: &mut Criterion, bench: &str) {
    let side = S::new(FRAMES);
    let full = (FRAMES * 95 / 100) as usize;
    let mut mine: Vec<u32> = (0..full).map(|_| side.claim(0)).collect();
    let mut random = Random(1);
    // An old pool is no longer in order: give back and claim all of it once.
    for _ in 0..full * 2 {
        let at = random.below(mine.len() as u64) as usize;
        side.release(0, mine.swap_remove(at));
        if mine.len() + 20_000 < full {
            mine.extend((mine.len()..full).map(|_| side.claim(0)));
        }
    }
    c.benchmark_group(bench)
        .bench_function(BenchmarkId::from_parameter(S::NAME), |b| {
            b.iter_custom(|n| {
                let start = cpu_time();
                // A pair is one claim and one release, in whatever order.
                for _ in 0..2 * n {
                    let r = random.below(1 << 32);
                    if (r & 1 != 0 || mine.len() + 30_000 < full) && mine.len() < full + 30_000 {
                        mine.push(side.claim(0));
                    } else {
                        let at = ((r * mine.len() as u64) >> 32) as usize;
                        side.release(0, mine.swap_remove(at));
                    }
                }
                record(bench, S::NAME, n, cpu_time() - start)
            })
        });
}

const LIST: &str = FreeList::NAME;
const LLFREE: &str = "LLFree (75/19 of the list)";

const ROWS: [Row; 13] = [
    row("pair 4K, 1 thread", "frames", LIST, Limit::Most(1.0)),
    Row {
        known: Some((LIST, 75.0 / 19.0)),
        ..row("pair 4K, 1 thread", "frames", LLFREE, Limit::Most(0.25))
    },
    row("pair 4K, 1 thread", "C border", LIST, Limit::None),
    row(
        "pair 4K, 2 threads",
        "frames",
        LIST,
        Limit::Most(1.0 / 15.0),
    ),
    row("pair 4K, 2 threads", "C border", LIST, Limit::None),
    row("pair 2M, 1 thread", "frames", LIST, Limit::None),
    row("pair 2M, 2 threads", "frames", LIST, Limit::None),
    row("batch of 512, per frame", "frames", LIST, Limit::None),
    row(
        "batch of 512, per frame",
        "C border",
        LIST,
        Limit::Most(1.0 / 3.0),
    ),
    row("batch of 512, one lock", "C border", LIST, Limit::None),
    row("single claims, per frame", "frames", LIST, Limit::None),
    row(
        "churn 4K at 95 % full",
        "frames",
        LIST,
        Limit::Most(1.0 / 3.0),
    ),
    row("churn 4K at 95 % full", "C border", LIST, Limit::None),
];

/// Claims one by one until half is gone, then all back.
fn singles<S: Side>(c: &mut Criterion, bench: &str) {
    let side = S::new(FRAMES);
    let mut mine = vec![0; FRAMES as usize / 2];
    c.benchmark_group(bench)
        .bench_function(BenchmarkId::from_parameter(S::NAME), |b| {
            b.iter_custom(|n| {
                let mut time = Duration::ZERO;
                for _ in 0..n {
                    let start = cpu_time();
                    mine.iter_mut().for_each(|page| *page = side.claim(0));
                    time += cpu_time() - start;
                    mine.iter().for_each(|page| side.release(0, *page));
                }
                record(bench, S::NAME, n * mine.len() as u64, time);
                time
            })
        });
}

fn main() {
    let mut c = rows::criterion();
    let one = "pair 4K, 1 thread";
    pairs::<Frames>(&mut c, one, FRAMES);
    pairs::<Border>(&mut c, one, FRAMES);
    pairs::<FreeList>(&mut c, one, FRAMES);
    let two = "pair 4K, 2 threads";
    pairs_by_two::<Frames>(&mut c, two, FRAMES);
    pairs_by_two::<Border>(&mut c, two, FRAMES);
    pairs_by_two::<FreeList>(&mut c, two, FRAMES);
    pairs::<Blocks>(&mut c, "pair 2M, 1 thread", FRAMES);
    pairs::<FreeList>(&mut c, "pair 2M, 1 thread", FRAMES / 512);
    pairs_by_two::<Blocks>(&mut c, "pair 2M, 2 threads", FRAMES);
    pairs_by_two::<FreeList>(&mut c, "pair 2M, 2 threads", FRAMES / 512);
    let batch = "batch of 512, per frame";
    batches::<Frames>(&mut c, batch);
    batches::<Border>(&mut c, batch);
    batches::<PageByPage>(&mut c, batch);
    let once = "batch of 512, one lock";
    batches::<Border>(&mut c, once);
    batches::<FreeList>(&mut c, once);
    singles::<Frames>(&mut c, "single claims, per frame");
    singles::<FreeList>(&mut c, "single claims, per frame");
    let full = "churn 4K at 95 % full";
    churn::<Frames>(&mut c, full);
    churn::<Border>(&mut c, full);
    churn::<FreeList>(&mut c, full);
    c.final_summary();
    rows::finish("frames", &ROWS);
}
