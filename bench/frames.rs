// SPDX-License-Identifier: GPL-2.0
//! Frames against what drivers do today: an intrusive free list under a
//! spinlock (nouveau_dmem and the kernel's own test driver link free pages
//! through their `struct page`), and against other allocators.
//!
//! Part of `make bench`, which also turns the vectoriser off, as in a kernel.
//! Times are thread CPU times, so that a busy machine shows less; still, compare
//! ratios of one run only.

mod kernel;
mod rows;

use std::hint::{black_box, spin_loop};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use hmm_devmem::region::{self, Region};
use hmm_devmem::types::{Cpu, PageIndex, Segment};
use rows::random::Random;
use rows::{Limit, Row, cpu_time, record, row};

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
            frames.release_one(Cpu(cpu), PageIndex(u64::from(*page)));
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
    fn release(&self, cpu: u32, page: u32) {
        self.0
            .region()
            .frames()
            .release_one(Cpu(cpu), PageIndex(u64::from(page)));
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

/// What no allocator with a bitmap and without a lock can be faster than: one atomic
/// operation for a frame that comes back and one for it to go out again, and nothing
/// else. It gives out what came back last.
struct Bare {
    words: Vec<AtomicU64>,
    last: AtomicU32,
}

impl Side for Bare {
    const NAME: &'static str = "two bare atomics";

    fn new(frames: u64) -> Bare {
        Bare {
            words: (0..frames / 64).map(|_| AtomicU64::new(!0)).collect(),
            last: AtomicU32::new(0),
        }
    }

    #[inline]
    fn claim(&self, _: u32) -> u32 {
        let page = self.last.load(Ordering::Relaxed);
        self.last.store(page + 1, Ordering::Relaxed);
        self.words[page as usize / 64].fetch_and(!(1 << (page % 64)), Ordering::SeqCst);
        page
    }

    #[inline]
    fn release(&self, _: u32, page: u32) {
        self.words[page as usize / 64].fetch_or(1 << (page % 64), Ordering::SeqCst);
        self.last.store(page, Ordering::Relaxed);
    }
}

// --- measuring ------------------------------------------------------------------

/// Runs of 64K.
struct Runs(Core);

impl Side for Runs {
    const NAME: &'static str = "frames, 64K";

    fn new(n: u64) -> Runs {
        Runs(core(n))
    }

    #[inline]
    fn claim(&self, cpu: u32) -> u32 {
        let run = self.0.region().frames().claim_run(Cpu(cpu));
        run.expect("a run").0 as u32
    }

    #[inline]
    fn release(&self, cpu: u32, page: u32) {
        let first = PageIndex(u64::from(page));
        self.0.region().frames().release_run(Cpu(cpu), first);
    }
}

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

/// The calling thread goes before all others that are not of this kind, on `cpu`, if the
/// machine lets it: a busy one then has two processors for as long as a sample takes.
fn first_on(cpu: u32) {
    // SAFETY: plain numbers and structures of this thread; a refusal changes nothing.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu as usize, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
        let param = libc::sched_param { sched_priority: 1 };
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &param);
    }
}

/// Two threads, each on its CPU; the slower one counts. In many short samples,
/// of which only those count in which both really ran all the time: on a busy
/// machine they take turns otherwise, and nothing is contended. Goes on until there
/// are enough of them, for some seconds at most. The median of them: the best of a
/// contended lock is the one in which it was not.
fn pairs_by_two<S: Side>(_: &mut Criterion, bench: &str, frames: u64) {
    const ENOUGH: u32 = 50;
    const PATIENCE: Duration = Duration::from_secs(6);
    let side = S::new(frames);
    // A fifth of a millisecond, more when they get in each other's way.
    let start = Instant::now();
    (0..1000).for_each(|_| side.pair(0));
    let each = 200_000_000 / start.elapsed().as_nanos().max(1) as u64;
    let each = each.clamp(1000, 20_000);
    // Both spin until both do: that is when both are on a CPU.
    let (ready, good) = (AtomicU32::new(0), AtomicU32::new(0));
    let ends = [const { std::sync::Mutex::new(None) }; 2];
    let began = Instant::now();
    let (side, ready, good, ends) = (&side, &ready, &good, &ends);
    let meet = |n: u32| {
        ready.fetch_add(1, Ordering::SeqCst);
        while ready.load(Ordering::SeqCst) < n {
            spin_loop();
        }
    };
    let run = move |cpu: u32| {
        first_on(cpu);
        let mut met = 0;
        let mut samples = Vec::new();
        loop {
            met += 2;
            meet(met);
            let (start, wall) = (cpu_time(), Instant::now());
            (0..each).for_each(|_| side.pair(cpu));
            let end = (wall, Instant::now(), cpu_time() - start);
            *ends[cpu as usize].lock().expect("no panic") = Some(end);
            met += 2;
            meet(met);
            if cpu == 0 {
                let end = |i: usize| ends[i].lock().expect("no panic").expect("a sample");
                let (a, b) = (end(0), end(1));
                let whole = a.1.max(b.1).duration_since(a.0.min(b.0));
                let both = a.1.min(b.1).saturating_duration_since(a.0.max(b.0));
                let slower = a.2.max(b.2);
                if both.as_secs_f64() >= 0.8 * whole.as_secs_f64()
                    && slower.as_secs_f64() >= 0.9 * whole.as_secs_f64()
                {
                    samples.push(slower);
                    good.fetch_add(1, Ordering::SeqCst);
                }
                if began.elapsed() > PATIENCE {
                    good.fetch_max(ENOUGH, Ordering::SeqCst);
                }
                // Others want the processors, too.
                std::thread::sleep(Duration::from_millis(1));
            }
            met += 2;
            meet(met);
            if good.load(Ordering::SeqCst) >= ENOUGH {
                return samples;
            }
        }
    };
    let [mut samples, _] = std::thread::scope(|scope| {
        [0, 1]
            .map(|cpu| scope.spawn(move || run(cpu)))
            .map(|thread| thread.join().expect("a thread"))
    });
    samples.sort_unstable();
    if let Some(median) = samples.get(samples.len() / 2) {
        record(bench, S::NAME, each, *median);
    }
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

/// A device that is 95 % full: a frame at random comes back and one is claimed, again
/// and again. The list hands out what it has just got, in its cache; any that sets and
/// clears a bit for it takes two atomic operations, which is more than a third of what the
/// list takes ([`Bare`] is measured beside it), so a third is asked of [`bursts`]. Which
/// frames come back is drawn before, a thousand at a time, so that the
/// allocator's calls are all that is timed.
fn churn<S: Side>(c: &mut Criterion, bench: &str) {
    const TURNS: usize = 1000;
    let side = S::new(FRAMES);
    let full = FRAMES as usize * 95 / 100;
    let mut mine: Vec<u32> = (0..full).map(|_| side.claim(0)).collect();
    let mut random = Random(1);
    let mut out = Vec::with_capacity(TURNS);
    let mut turns = move || {
        out.clear();
        for _ in 0..TURNS {
            let at = random.below(mine.len() as u64) as usize;
            out.push(mine.swap_remove(at));
        }
        let start = cpu_time();
        for page in &mut out {
            side.release(0, *page);
            *page = side.claim(0);
        }
        let time = cpu_time() - start;
        mine.extend(&out);
        time
    };
    // An old device is no longer in order.
    (0..FRAMES as usize / TURNS).for_each(|_| _ = turns());
    c.benchmark_group(bench)
        .bench_function(BenchmarkId::from_parameter(S::NAME), |b| {
            b.iter_custom(|n| {
                let time = (0..n).map(|_| turns()).sum();
                record(bench, S::NAME, n * TURNS as u64, time)
            })
        });
}

/// Frames that come and go together in [`bursts`]: 6 % of all.
const BURST: usize = FRAMES as usize * 6 / 100;

/// The same in bursts: frames at random come back one by one, and as many are then
/// claimed one by one; the level goes from 98 % to 92 % and back.
fn bursts<S: Side>(c: &mut Criterion, bench: &str) {
    let side = S::new(FRAMES);
    let full = FRAMES as usize * 98 / 100;
    let mut mine: Vec<u32> = (0..full).map(|_| side.claim(0)).collect();
    let mut random = Random(1);
    let mut out = Vec::with_capacity(BURST);
    let mut burst = move || {
        out.clear();
        for _ in 0..BURST {
            let at = random.below(mine.len() as u64) as usize;
            out.push(mine.swap_remove(at));
        }
        let start = cpu_time();
        out.iter().for_each(|page| side.release(0, *page));
        mine.extend((0..BURST).map(|_| side.claim(0)));
        cpu_time() - start
    };
    (0..30).for_each(|_| _ = burst());
    c.benchmark_group(bench)
        .bench_function(BenchmarkId::from_parameter(S::NAME), |b| {
            b.iter_custom(|n| {
                (0..n)
                    .map(|_| record(bench, S::NAME, BURST as u64, burst()))
                    .sum()
            })
        });
}

/// 2 MiB blocks that can still be claimed when half of the region is in use as
/// small frames that came and went at random: 1024 would be all.
fn blocks_after_churn(what: &'static str) {
    let side = Frames::new(FRAMES);
    let half = FRAMES as usize / 2;
    let mut mine: Vec<u32> = (0..half).map(|_| side.claim(0)).collect();
    let mut random = Random(3);
    for _ in 0..2 * FRAMES {
        let at = random.below(mine.len() as u64) as usize;
        side.release(0, mine.swap_remove(at));
        mine.push(side.claim(0));
    }
    let region = side.0.region();
    let mut blocks = 0;
    while region.frames().claim_block(Cpu(1)).is_some() {
        blocks += 1;
    }
    rows::note(what, "frames", f64::from(blocks));
    rows::note(what, "1024 possible", 1024.0);
}

/// A region of 1 TiB made in memory that was never touched.
fn init(what: &'static str) {
    for _ in 0..5 {
        let start = cpu_time();
        let side = core(1 << 28);
        let time = cpu_time() - start;
        drop(side);
        record(what, "region", 1000, time * 1000);
    }
    rows::note(what, "50 ms", 50e6);
    let bits = Region::metadata(1 << 28) as f64 * 8.0 / f64::from(1 << 28);
    rows::note(METADATA, "region", bits);
    rows::note(METADATA, "1.2 bits", 1.2);
}

/// Other allocators behind one lock, as a driver would have to use them.
struct Locked<T> {
    lock: std::sync::Mutex<T>,
}

impl Side for Locked<buddy_system_allocator::FrameAllocator<32>> {
    const NAME: &'static str = "buddy_system_allocator";

    fn new(frames: u64) -> Self {
        let mut buddy = buddy_system_allocator::FrameAllocator::new();
        buddy.add_frame(0, frames as usize);
        Locked { lock: buddy.into() }
    }

    fn claim(&self, _: u32) -> u32 {
        let mut buddy = self.lock.lock().expect("no panic");
        buddy.alloc(1).expect("a frame") as u32
    }

    fn release(&self, _: u32, page: u32) {
        let mut buddy = self.lock.lock().expect("no panic");
        buddy.dealloc(page as usize, 1);
    }
}

impl Side for Locked<Box<bitmap_allocator::BitAlloc1M>> {
    const NAME: &'static str = "bitmap-allocator";

    fn new(frames: u64) -> Self {
        use bitmap_allocator::BitAlloc;
        let mut bitmap = Box::new(bitmap_allocator::BitAlloc1M::DEFAULT);
        bitmap.insert(0..frames as usize);
        Locked {
            lock: bitmap.into(),
        }
    }

    fn claim(&self, _: u32) -> u32 {
        use bitmap_allocator::BitAlloc;
        let mut bitmap = self.lock.lock().expect("no panic");
        bitmap.alloc().expect("a frame") as u32
    }

    fn release(&self, _: u32, page: u32) {
        use bitmap_allocator::BitAlloc;
        let mut bitmap = self.lock.lock().expect("no panic");
        bitmap.dealloc(page as usize);
    }
}

/// The kernel's allocator under a spinlock, for frames or for blocks of `N`.
#[cfg(gpu_buddy)]
struct GpuBuddy<const N: u64> {
    list: FreeList,
    buddy: std::cell::UnsafeCell<kernel::GpuBuddy>,
}

// SAFETY: the buddy is used with the list's lock held only.
#[cfg(gpu_buddy)]
unsafe impl<const N: u64> Sync for GpuBuddy<N> {}

#[cfg(gpu_buddy)]
impl<const N: u64> Side for GpuBuddy<N> {
    const NAME: &'static str = GPU_BUDDY;

    fn new(frames: u64) -> Self {
        GpuBuddy {
            // Of the list only the lock is wanted.
            list: FreeList::new(1),
            buddy: kernel::GpuBuddy::new(frames).into(),
        }
    }

    fn claim(&self, _: u32) -> u32 {
        // SAFETY: the lock is held.
        let got = self.list.locked(|| unsafe { (*self.buddy.get()).claim(N) });
        got.expect("frames") as u32
    }

    fn release(&self, _: u32, page: u32) {
        // SAFETY: the lock is held.
        self.list
            .locked(|| unsafe { (*self.buddy.get()).release(u64::from(page)) });
    }
}

/// The kernel's gen_pool, for frames or for blocks of `N`; it wants no lock.
#[cfg(linux_source)]
struct GenPool<const N: u64>(kernel::GenPool);

#[cfg(linux_source)]
impl<const N: u64> Side for GenPool<N> {
    const NAME: &'static str = GEN_POOL;

    fn new(frames: u64) -> Self {
        GenPool(kernel::GenPool::new(frames))
    }

    fn claim(&self, _: u32) -> u32 {
        self.0.claim(N).expect("frames") as u32
    }

    fn release(&self, _: u32, page: u32) {
        self.0.release(u64::from(page), N);
    }
}

/// Everything that comes from the kernel, when it is there.
#[cfg(linux_source)]
fn kernel_peers(c: &mut Criterion) {
    pairs::<GenPool<1>>(c, ONE, FRAMES);
    pairs_by_two::<GenPool<1>>(c, TWO, FRAMES);
    pairs::<GenPool<512>>(c, "pair 2M, 1 thread", FRAMES);
    batches::<GenPool<1>>(c, BATCH);
    churn::<GenPool<1>>(c, CHURN);
    buddy_peers(c);
}

#[cfg(gpu_buddy)]
fn buddy_peers(c: &mut Criterion) {
    pairs::<GpuBuddy<1>>(c, ONE, FRAMES);
    pairs_by_two::<GpuBuddy<1>>(c, TWO, FRAMES);
    pairs::<GpuBuddy<512>>(c, "pair 2M, 1 thread", FRAMES);
    pairs_by_two::<GpuBuddy<512>>(c, "pair 2M, 2 threads", FRAMES);
    batches::<GpuBuddy<1>>(c, BATCH);
    churn::<GpuBuddy<1>>(c, CHURN);
}

#[cfg(all(linux_source, not(gpu_buddy)))]
fn buddy_peers(_: &mut Criterion) {}

#[cfg(not(linux_source))]
fn kernel_peers(_: &mut Criterion) {}

type Buddy = Locked<buddy_system_allocator::FrameAllocator<32>>;
type Bitmap = Locked<Box<bitmap_allocator::BitAlloc1M>>;

const LIST: &str = FreeList::NAME;
const LLFREE: &str = "LLFree (75/19 of the list)";

const ONE: &str = "pair 4K, 1 thread";
const TWO: &str = "pair 4K, 2 threads";
const RUN: &str = "pair 64K, 1 thread";
const BATCH: &str = "batch of 512, per frame";
const ONCE: &str = "batch of 512, one lock";
const SINGLES: &str = "single claims, per frame";
const CHURN: &str = "churn 4K at 95 % full";
const BURSTS: &str = "churn 4K, bursts at 95 %";
const LEFT: &str = "2M blocks after churn at 50 %";
const INIT: &str = "init of 1 TiB";
const METADATA: &str = "metadata per frame";
const BUDDY: &str = "buddy_system_allocator";
const BITMAP: &str = "bitmap-allocator";

const GEN_POOL: &str = "gen_pool (kernel)";
const GPU_BUDDY: &str = "gpu_buddy (kernel)";

const ROWS: [Row; 40] = [
    row(ONE, "frames", GPU_BUDDY, Limit::None),
    row(TWO, "frames", GPU_BUDDY, Limit::Most(1.0 / 100.0)),
    row(
        "pair 2M, 1 thread",
        "frames",
        GPU_BUDDY,
        Limit::Most(1.0 / 15.0),
    ),
    row("pair 2M, 2 threads", "frames", GPU_BUDDY, Limit::None),
    row(BATCH, "C border", GPU_BUDDY, Limit::None),
    row(CHURN, "frames", GPU_BUDDY, Limit::None),
    row(ONE, "frames", GEN_POOL, Limit::None),
    row(TWO, "frames", GEN_POOL, Limit::None),
    row("pair 2M, 1 thread", "frames", GEN_POOL, Limit::None),
    row(BATCH, "C border", GEN_POOL, Limit::None),
    row(CHURN, "frames", GEN_POOL, Limit::None),
    row(ONE, "frames", LIST, Limit::Most(1.0)),
    Row {
        known: Some((ONE, LIST, 75.0 / 19.0)),
        ..row(ONE, "frames", LLFREE, Limit::Most(0.25))
    },
    row(ONE, "frames", BUDDY, Limit::None),
    row(ONE, "frames", BITMAP, Limit::None),
    row(ONE, "C border", LIST, Limit::None),
    row(TWO, "frames", LIST, Limit::Most(1.0 / 15.0)),
    row(TWO, "frames", BUDDY, Limit::None),
    row(TWO, "frames", BITMAP, Limit::None),
    row(TWO, "C border", LIST, Limit::None),
    Row {
        known: Some((ONE, "frames", 1.0)),
        ..row(RUN, "frames, 64K", "frames, 4K", Limit::Most(1.5))
    },
    row("pair 2M, 1 thread", "frames", LIST, Limit::None),
    row("pair 2M, 2 threads", "frames", LIST, Limit::None),
    row(BATCH, "frames", LIST, Limit::None),
    row(BATCH, "C border", LIST, Limit::Most(1.0 / 3.0)),
    row(BATCH, "C border", BUDDY, Limit::None),
    row(BATCH, "C border", BITMAP, Limit::None),
    row(ONCE, "C border", LIST, Limit::None),
    row(SINGLES, "frames", LIST, Limit::None),
    row(CHURN, "frames", Bare::NAME, Limit::Most(2.5)),
    row(CHURN, "frames", LIST, Limit::Most(1.0)),
    row(CHURN, Bare::NAME, LIST, Limit::None),
    row(CHURN, "C border", LIST, Limit::None),
    row(CHURN, "frames", BUDDY, Limit::None),
    row(CHURN, "frames", BITMAP, Limit::None),
    row(BURSTS, "frames", LIST, Limit::Most(1.0 / 3.0)),
    row(BURSTS, "frames", BUDDY, Limit::None),
    Row {
        unit: "blocks",
        ..row(
            LEFT,
            "frames",
            "1024 possible",
            Limit::Least(1000.0 / 1024.0),
        )
    },
    row(INIT, "region", "50 ms", Limit::Most(1.0)),
    Row {
        unit: "bits",
        ..row(METADATA, "region", "1.2 bits", Limit::Most(1.0))
    },
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
    pairs::<Frames>(&mut c, ONE, FRAMES);
    pairs::<FreeList>(&mut c, ONE, FRAMES);
    pairs::<Border>(&mut c, ONE, FRAMES);
    pairs::<Buddy>(&mut c, ONE, FRAMES);
    pairs::<Bitmap>(&mut c, ONE, FRAMES);
    pairs::<Runs>(&mut c, RUN, FRAMES);
    pairs_by_two::<Frames>(&mut c, TWO, FRAMES);
    pairs_by_two::<FreeList>(&mut c, TWO, FRAMES);
    pairs_by_two::<Border>(&mut c, TWO, FRAMES);
    pairs_by_two::<Buddy>(&mut c, TWO, FRAMES);
    pairs_by_two::<Bitmap>(&mut c, TWO, FRAMES);
    pairs::<Blocks>(&mut c, "pair 2M, 1 thread", FRAMES);
    pairs::<FreeList>(&mut c, "pair 2M, 1 thread", FRAMES / 512);
    pairs_by_two::<Blocks>(&mut c, "pair 2M, 2 threads", FRAMES);
    pairs_by_two::<FreeList>(&mut c, "pair 2M, 2 threads", FRAMES / 512);
    batches::<Frames>(&mut c, BATCH);
    batches::<Border>(&mut c, BATCH);
    batches::<PageByPage>(&mut c, BATCH);
    batches::<Buddy>(&mut c, BATCH);
    batches::<Bitmap>(&mut c, BATCH);
    batches::<Border>(&mut c, ONCE);
    batches::<FreeList>(&mut c, ONCE);
    singles::<Frames>(&mut c, SINGLES);
    singles::<FreeList>(&mut c, SINGLES);
    churn::<Frames>(&mut c, CHURN);
    churn::<FreeList>(&mut c, CHURN);
    churn::<Border>(&mut c, CHURN);
    churn::<Buddy>(&mut c, CHURN);
    churn::<Bitmap>(&mut c, CHURN);
    churn::<Bare>(&mut c, CHURN);
    bursts::<Frames>(&mut c, BURSTS);
    bursts::<FreeList>(&mut c, BURSTS);
    bursts::<Buddy>(&mut c, BURSTS);
    kernel_peers(&mut c);
    blocks_after_churn(LEFT);
    init(INIT);
    c.final_summary();
    rows::finish("frames", &ROWS);
}
