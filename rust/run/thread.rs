// SPDX-License-Identifier: GPL-2.0
//! The thread inside the program: its life, and its rounds over the address space.

use crate::maps::{Parser, Span, without};
use crate::state::{HUGE_COLLAPSE, State, now_ns};
use crate::{DONE, PHASE, REGION, RUN, STATE};
use hmm_uapi::{PAGE_SIZE, Place, ioctl, sys};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering, Ordering::Relaxed};

/// The stack; static thread-local storage of the program and its libraries lies in it too.
const STACK: usize = 1 << 20;
/// Never mapped, below the stack.
const GUARD: usize = PAGE_SIZE;
const REGION_BYTES: usize = GUARD + STACK + size_of::<Buffers>().next_multiple_of(PAGE_SIZE);

const PAGE: u64 = PAGE_SIZE as u64;
/// One huge page.
const BLOCK: u64 = 2 << 20;
const BLOCK_PAGES: usize = 512;
/// The unit of work. Each move makes all CPUs do something, so few large ones are better; but the
/// end of the program waits for the one under way.
const WINDOW: u64 = 4 * BLOCK;
const WINDOW_PAGES: usize = 4 * BLOCK_PAGES;
const SPANS: usize = 8192;
const BINS: usize = 32;

const MADV_COLLAPSE: libc::c_int = 25;
const CLOSE_RANGE_UNSHARE: libc::c_uint = 2;
/// The program runs this long before its memory moves for the first time.
const FIRST_PAUSE_NS: u64 = 10_000_000;
/// How often to look whether the program's own threads are all gone.
const LIFE_CHECK_NS: u64 = 500_000_000;

/// Everything the thread needs and will not ask the program's heap for.
struct Buffers {
    spans: [Span; SPANS],
    places: [Place; WINDOW_PAGES],
    text: [u8; 8192],
}

static TID: AtomicI32 = AtomicI32::new(0);

pub fn pid() -> libc::pid_t {
    // SAFETY: no arguments, cannot fail. The system call, as the C library may have cached it.
    unsafe { libc::syscall(libc::SYS_getpid) as libc::pid_t }
}

fn tid() -> libc::pid_t {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as libc::pid_t }
}

/// The caller is the thread itself.
pub fn is_current() -> bool {
    TID.load(Relaxed) == tid()
}

/// Sleeps while `word` is `value`, for `ns` at most; may wake early.
pub fn wait(word: &AtomicU32, value: u32, ns: u64) {
    let time = libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: `word` and `time` live through the call.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            value,
            ptr::from_ref(&time),
        );
    }
}

/// Wakes whoever waits on `word`.
pub fn wake(word: &AtomicU32) {
    // SAFETY: only the address of `word` is used.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            libc::c_int::MAX,
        );
    }
}

/// Guard, stack and buffers in one mapping, so that one comparison keeps them from moving.
pub fn map_region() -> Option<*mut u8> {
    // SAFETY: a new private mapping at a place of the kernel's choice.
    unsafe {
        let region = libc::mmap(
            ptr::null_mut(),
            REGION_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        );
        if region == libc::MAP_FAILED {
            return None;
        }
        libc::mprotect(region, GUARD, libc::PROT_NONE);
        Some(region.cast())
    }
}

/// Starts the thread on `region`, with every signal blocked.
pub fn start(region: *mut u8) -> bool {
    // SAFETY: attributes and masks are initialised by the calls before their first use; the stack
    // is ours alone: one thread per process, and after fork the child's copy has none.
    unsafe {
        let mut attr: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_attr_init(&mut attr) != 0 {
            return false;
        }
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        let mut thread: libc::pthread_t = 0;
        let ok = libc::pthread_attr_setstack(&mut attr, region.add(GUARD).cast(), STACK) == 0
            && libc::pthread_attr_setdetachstate(&mut attr, libc::PTHREAD_CREATE_DETACHED) == 0
            && libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old) == 0
            && {
                let made = libc::pthread_create(&mut thread, &attr, body, ptr::null_mut());
                libc::pthread_sigmask(libc::SIG_SETMASK, &old, ptr::null_mut());
                made == 0
            };
        libc::pthread_attr_destroy(&mut attr);
        ok
    }
}

extern "C" fn body(_: *mut libc::c_void) -> *mut libc::c_void {
    TID.store(tid(), Relaxed);
    // SAFETY: a name of less than 16 bytes; names the calling thread only.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"hmm-run".as_ptr()) };
    // SAFETY: both were mapped before the thread was started and stay; only this thread uses the
    // buffers, whose fields are integers.
    let (state, buffers) = unsafe {
        let region = REGION.load(Relaxed);
        (
            STATE.load(Relaxed).as_ref(),
            region.add(GUARD + STACK).cast::<Buffers>().as_mut(),
        )
    };
    if let (Some(state), Some(buffers)) = (state, buffers) {
        let mut walker = Walker::new(state);
        // Even a bug in here must not take the program down.
        let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| walker.live(buffers)));
        if lived.is_err() {
            state.totals.errors.fetch_add(1, Relaxed);
        }
    }
    PHASE.store(DONE, Ordering::Release);
    wake(&PHASE);
    ptr::null_mut()
}

fn stopping() -> bool {
    PHASE.load(Ordering::Acquire) != RUN
}

fn errno() -> i32 {
    // SAFETY: the thread's own errno.
    unsafe { *libc::__errno_location() }
}

/// Reads `/proc/self/...`; with its own descriptor table the thread may open what it likes.
fn read_file(path: &core::ffi::CStr, text: &mut [u8], mut piece: impl FnMut(&[u8])) -> bool {
    // SAFETY: a C string.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return false;
    }
    loop {
        // SAFETY: `text` has room for its length.
        let got = unsafe { libc::read(fd, text.as_mut_ptr().cast(), text.len()) };
        match usize::try_from(got).ok().and_then(|got| text.get(..got)) {
            Some([]) | None => break,
            Some(read) => piece(read),
        }
    }
    // SAFETY: opened above.
    unsafe { libc::close(fd) };
    true
}

/// The main thread has left and nobody but us is there any more.
fn alone(text: &mut [u8]) -> bool {
    let mut leader_gone = false;
    let mut threads = 0;
    read_file(c"/proc/self/stat", text, |stat| {
        // "pid (name) S ppid ..."; the name may hold anything, the last ')' ends it.
        let Some(end) = stat.iter().rposition(|&byte| byte == b')') else {
            return;
        };
        let mut words = stat
            .get(end + 2..)
            .unwrap_or(&[])
            .split(|&byte| byte == b' ');
        leader_gone = words.next() == Some(b"Z");
        threads = words
            .nth(16)
            .and_then(|word| std::str::from_utf8(word).ok()?.parse().ok())
            .unwrap_or(0);
    });
    leader_gone && threads == 2
}

/// What one round does and saw.
#[derive(Default)]
struct Round {
    direction: u32,
    present: u64,
    before: u64,
    after: u64,
    bins: [(u32, u32); BINS],
}

/// Walks the address space; owns the thread's descriptors.
struct Walker<'a> {
    state: &'a State,
    device: libc::c_int,
    residency: libc::c_int,
    last: sys::hmm_dmirror_info,
    collapse: bool,
    /// Rounds so far.
    rounds: u32,
}

impl<'a> Walker<'a> {
    fn new(state: &'a State) -> Self {
        let collapse = state.settings.huge == HUGE_COLLAPSE;
        Self {
            state,
            device: -1,
            residency: -1,
            last: Default::default(),
            collapse,
            rounds: 0,
        }
    }

    fn live(&mut self, buffers: &mut Buffers) {
        // The first pause gives short-lived children a life without a device.
        wait(
            &PHASE,
            RUN,
            FIRST_PAUSE_NS.min(self.state.settings.interval_ns.max(1)),
        );
        if stopping() {
            return;
        }
        let totals = &self.state.totals;
        if let Err(errno) = self.open() {
            totals.not_started.fetch_add(1, Relaxed);
            totals.last_errno.store(errno.unsigned_abs(), Relaxed);
            return;
        }
        totals.processes.fetch_add(1, Relaxed);

        let mut checked = now_ns();
        while !stopping() {
            let begin = now_ns();
            if !self.round(buffers, begin) {
                break;
            }
            if begin - checked > LIFE_CHECK_NS {
                checked = begin;
                if alone(&mut buffers.text) {
                    self.account();
                    // What the C library does when the last thread leaves.
                    // SAFETY: there is no other thread that could be in the way.
                    unsafe { libc::exit(0) };
                }
            }
            // At least half of the time belongs to the program, however large it is.
            let pause = self
                .state
                .settings
                .interval_ns
                .max(now_ns().saturating_sub(begin));
            let end = now_ns().saturating_add(pause);
            while !stopping() && now_ns() < end {
                wait(&PHASE, RUN, end.saturating_sub(now_ns()));
            }
        }
        self.account();
    }

    /// Leaves the program's descriptors and opens our own.
    fn open(&mut self) -> Result<(), i32> {
        // SAFETY: no memory is passed; the flag gives this thread a table of its own, emptied.
        let unshared =
            unsafe { libc::syscall(libc::SYS_close_range, 0_u32, u32::MAX, CLOSE_RANGE_UNSHARE) };
        if unshared != 0 {
            return Err(errno());
        }
        let settings = &self.state.settings;
        // SAFETY: the paths end with a zero byte, as hmm-run wrote them.
        unsafe {
            // Nothing of ours may ever become descriptor 0, 1 or 2: a message that somebody prints
            // there belongs nowhere.
            libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            libc::dup(0);
            libc::dup(0);
            self.device = libc::open(
                settings.device.as_ptr().cast(),
                libc::O_RDWR | libc::O_CLOEXEC,
            );
            if self.device < 0 {
                return Err(errno());
            }
            if settings.residency[0] != 0 {
                let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC;
                self.residency = libc::open(settings.residency.as_ptr().cast(), flags);
            }
        }
        Ok(())
    }

    fn call<T>(&self, nr: u32, arg: &mut T) -> Result<(), i32> {
        // SAFETY: callers pass the structure that belongs to `nr`.
        let result = unsafe { hmm_uapi::raw(self.device, nr, ptr::from_mut(arg).cast()) };
        if let Err(errno) = result {
            self.state.totals.errors.fetch_add(1, Relaxed);
            self.state
                .totals
                .last_errno
                .store(errno.unsigned_abs(), Relaxed);
        }
        result
    }

    /// Adds what happened to this address space since the last call to the sums.
    fn account(&mut self) -> bool {
        let mut info = sys::hmm_dmirror_info {
            size: size_of::<sys::hmm_dmirror_info>() as u32,
            ..Default::default()
        };
        if self.call(ioctl::INFO, &mut info).is_err() {
            return false;
        }
        let (totals, last) = (&self.state.totals, &self.last);
        for (sum, new, old) in [
            (&totals.to_device, info.to_device, last.to_device),
            (
                &totals.to_ram_request,
                info.to_ram_request,
                last.to_ram_request,
            ),
            (&totals.to_ram_fault, info.to_ram_fault, last.to_ram_fault),
            (&totals.cpu_faults, info.cpu_faults, last.cpu_faults),
            (&totals.ns_to_device, info.ns_to_device, last.ns_to_device),
            (&totals.ns_to_ram, info.ns_to_ram, last.ns_to_ram),
        ] {
            sum.fetch_add(new.saturating_sub(old), Relaxed);
        }
        self.last = info;
        true
    }

    /// Once over the whole address space; `false` when the device is of no more use.
    fn round(&mut self, buffers: &mut Buffers, begin: u64) -> bool {
        let count = self.spans(buffers);
        let Buffers {
            spans,
            places,
            text,
        } = buffers;
        let spans = spans.get(..count).unwrap_or(&[]);
        let total: u64 = spans.iter().map(|span| span.end - span.start).sum();
        self.rounds = self.rounds.wrapping_add(1);
        let every = self.state.settings.return_every;
        let homeward = every != 0 && self.rounds.is_multiple_of(every);
        let mut round = Round {
            direction: if homeward {
                sys::HMM_DMIRROR_TO_RAM
            } else {
                sys::HMM_DMIRROR_TO_DEVICE
            },
            ..Default::default()
        };
        let mut passed = 0;
        let mut usable = true;
        'walk: for span in spans {
            let mut start = span.start;
            while start < span.end {
                if stopping() {
                    break 'walk;
                }
                let end = span.end.min((start / WINDOW + 1) * WINDOW);
                let bin = |offset| (offset * BINS as u64 / total.max(1)) as usize;
                let window = Span { start, end };
                let result = self.window(window, places, &mut round, |offset| bin(passed + offset));
                passed += end - start;
                match result {
                    // A mapping that went away meanwhile is no reason to stop, a device is.
                    Err(libc::ENODEV | libc::EPERM | libc::EBADF | libc::ENOTTY) => {
                        usable = false;
                        break 'walk;
                    }
                    Ok(()) | Err(_) => start = end,
                }
            }
        }
        let state = self.state;
        state.totals.rounds.fetch_add(1, Relaxed);
        state.totals.peak_resident.fetch_max(round.after, Relaxed);
        state.sample(begin, round.before, round.present);
        state.sample(now_ns(), round.after, round.present);
        self.write_residency(text, begin, &round);
        self.account() && usable
    }

    /// Collects what may move into `buffers.spans`; says how many there are.
    fn spans(&self, buffers: &mut Buffers) -> usize {
        let own = REGION.load(Relaxed).addr() as u64;
        let own = Span {
            start: own,
            end: own + REGION_BYTES as u64,
        };
        let Buffers { spans, text, .. } = buffers;
        let mut parser = Parser::new();
        let mut count = 0;
        // Of this thread: when the main thread has left, "self" has no memory any more.
        read_file(c"/proc/thread-self/maps", text, |piece| {
            parser.feed(piece, |span| {
                for part in without(span, own) {
                    if part.start < part.end {
                        // What does not fit is left alone.
                        if let Some(place) = spans.get_mut(count) {
                            *place = part;
                            count += 1;
                        }
                    }
                }
            });
        });
        count
    }

    /// Looks where the pages of a window are, and moves those that are on the other side.
    fn window(
        &mut self,
        span: Span,
        places: &mut [Place; WINDOW_PAGES],
        round: &mut Round,
        bin: impl Fn(u64) -> usize,
    ) -> Result<(), i32> {
        let pages = ((span.end - span.start) / PAGE) as usize;
        let places = &mut places[..pages];
        let mut cmd = sys::hmm_dmirror_cmd {
            addr: span.start,
            ptr: places.as_mut_ptr().addr() as u64,
            npages: pages as u64,
            ..Default::default()
        };
        self.call(ioctl::SNAPSHOT, &mut cmd)?;

        // Up to the first boundary of a huge page, then one huge page after the other.
        let mut rest = &*places;
        let mut start = span.start;
        while !rest.is_empty() {
            let to_boundary = ((BLOCK - start % BLOCK) / PAGE) as usize;
            let (block, behind) = rest.split_at(to_boundary.min(rest.len()));
            self.look(start, block, round, bin(start - span.start));
            start += block.len() as u64 * PAGE;
            rest = behind;
        }

        let homeward = round.direction == sys::HMM_DMIRROR_TO_RAM;
        let goes = |place: &Place| {
            if homeward {
                place.is_local()
            } else {
                place.is_ram()
            }
        };
        let Some(run) = extent(places, goes) else {
            return Ok(());
        };
        let mut arg = sys::hmm_dmirror_move {
            size: size_of::<sys::hmm_dmirror_move>() as u32,
            direction: round.direction,
            addr: span.start + run.start as u64 * PAGE,
            len: run.len() as u64 * PAGE,
            ..Default::default()
        };
        self.call(ioctl::MOVE, &mut arg)?;
        if homeward {
            round.after = round.after.saturating_sub(arg.moved);
        } else {
            round.after += arg.moved;
        }
        // What was there already, or never touched, is no news.
        let there = places[run].iter().filter(|place| !goes(place)).count() as u64;
        let busy = &mut arg.skipped[sys::HMM_DMIRROR_SKIP_BUSY as usize];
        *busy = busy.saturating_sub(there);
        arg.skipped[sys::HMM_DMIRROR_SKIP_HOLE as usize] = 0;
        for (sum, pages) in self.state.totals.skipped.iter().zip(arg.skipped) {
            sum.fetch_add(pages, Relaxed);
        }
        // Not only at the end of a round, which may be far away: a killed program has figures too.
        if self.account() {
            Ok(())
        } else {
            Err(libc::ENODEV)
        }
    }

    /// Counts the pages of one huge page's worth of addresses, and collapses them if asked to.
    fn look(&self, start: u64, places: &[Place], round: &mut Round, bin: usize) {
        let local = places.iter().filter(|place| place.is_local()).count();
        let ram = places.iter().filter(|place| place.is_ram()).count();
        round.present += (local + ram) as u64;
        round.before += local as u64;
        round.after += local as u64;
        if let Some(bin) = round.bins.get_mut(bin) {
            bin.0 += local as u32;
            bin.1 += (local + ram) as u32;
        }
        if self.collapse
            && round.direction == sys::HMM_DMIRROR_TO_DEVICE
            && ram == BLOCK_PAGES
            && !places.iter().all(|place| place.is_pmd())
        {
            // SAFETY: the contents of memory stay as they are; a refusal is fine.
            if unsafe { libc::madvise(start as *mut _, BLOCK as usize, MADV_COLLAPSE) } == 0 {
                self.state.totals.collapsed.fetch_add(1, Relaxed);
            }
        }
    }

    /// One line of JSON for those who asked for it.
    fn write_residency(&self, text: &mut [u8], begin: u64, round: &Round) {
        if self.residency < 0 {
            return;
        }
        let mut line = Line { text, len: 0 };
        let ms = self.state.since_start(begin) / 1_000_000;
        line.field("{\"ms\":", ms);
        line.field(",\"end_ms\":", self.state.since_start(now_ns()) / 1_000_000);
        line.field(",\"pid\":", pid().unsigned_abs().into());
        line.field(",\"pages\":", round.present);
        line.field(",\"on_device\":", round.before);
        line.field(",\"on_device_after\":", round.after);
        for (i, &(local, present)) in round.bins.iter().enumerate() {
            let percent = u64::from(local) * 100 / u64::from(present.max(1));
            line.field(if i == 0 { ",\"map\":[" } else { "," }, percent);
        }
        line.put(b"]}\n");
        // One write of a short line to a file opened for appending does not mix with others.
        // SAFETY: `len` bytes of `text` were filled.
        unsafe { libc::write(self.residency, line.text.as_ptr().cast(), line.len) };
    }
}

/// Formats into a lent buffer; `core::fmt` would do, but is not needed for numbers.
struct Line<'a> {
    text: &'a mut [u8],
    len: usize,
}

impl Line<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.text.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    fn field(&mut self, name: &str, value: u64) {
        self.put(name.as_bytes());
        let mut digits = [0; 20];
        let mut first = digits.len();
        let mut rest = value;
        loop {
            first -= 1;
            digits[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.put(&digits[first..]);
    }
}

/// From the first to the last page that goes; the device passes over what lies between.
fn extent(places: &[Place], goes: impl Fn(&Place) -> bool) -> Option<std::ops::Range<usize>> {
    let first = places.iter().position(&goes)?;
    let last = places.iter().rposition(&goes)?;
    Some(first..last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: Place = Place(2);
    const HOLE: Place = Place(0);
    const ZERO: Place = Place(0x11);
    const HERE: Place = Place(0x22);
    const BAD: Place = Place(0xff);

    #[test]
    fn a_move_begins_and_ends_with_a_page_that_goes() {
        let ram = |places: &[Place]| extent(places, |place| place.is_ram());
        assert_eq!(ram(&[]), None);
        assert_eq!(ram(&[HOLE, ZERO, HERE, BAD]), None);
        assert_eq!(ram(&[RAM, RAM]), Some(0..2));
        assert_eq!(ram(&[HERE, RAM, HOLE, RAM, HERE]), Some(1..4));
        assert_eq!(ram(&[HOLE, RAM]), Some(1..2));
        assert_eq!(
            extent(&[RAM, HERE, RAM, HERE], |place| place.is_local()),
            Some(1..4)
        );
    }

    #[test]
    fn a_line_is_json() {
        let mut text = [0; 64];
        let mut line = Line {
            text: &mut text,
            len: 0,
        };
        line.field("{\"a\":", 0);
        line.field(",\"b\":", u64::MAX);
        line.put(b"}");
        let len = line.len;
        assert_eq!(&text[..len], b"{\"a\":0,\"b\":18446744073709551615}");
    }

    #[test]
    fn a_line_never_outgrows_its_buffer() {
        let mut text = [0; 8];
        let mut line = Line {
            text: &mut text,
            len: 0,
        };
        line.field("12345", 678_910);
        assert!(line.len <= 8);
    }

    #[test]
    fn this_process_is_not_alone_with_us() {
        assert!(!alone(&mut [0; 8192]));
    }
}
