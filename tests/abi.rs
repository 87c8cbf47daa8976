// SPDX-License-Identifier: GPL-2.0
//! The border: C drives the core through the generated header, and the rules
//! about `unsafe` are counted, not believed.

mod lent;

use std::ffi::c_int;
use std::fs;

use hmm_devmem::ffi::{self, hmm_core_size};
use hmm_devmem::types::{CoreStats, Plan, Segment, Window};
use lent::Lent;
use proptest::prelude::*;

#[link(name = "hmm_abi_test", kind = "static")]
unsafe extern "C" {
    fn hmm_abi_test(done: *mut c_int) -> c_int;
}

#[test]
fn c_drives_the_core() {
    assert!(hmm_core_size(512, 1) > 0, "the core is linked in");
    let mut done = 0;
    // SAFETY: tests/abi.c wants one integer to write to, and is called once.
    let failed = unsafe { hmm_abi_test(&mut done) };
    println!("{done} checks passed, {failed} failed");
    assert_eq!(failed, 0, "checks failed; tests/abi.c says which");
    assert!(done > 150, "only {done} checks were made");
}

/// One call with whatever numbers; pointers are as the header asks.
#[derive(Clone, Debug)]
enum Call {
    ToDevice {
        cpu: u32,
        src: Vec<u64>,
        n: u32,
    },
    ToRam {
        src: Vec<u64>,
        dst: Vec<u64>,
        first: u64,
    },
    Commit {
        cpu: u32,
        npages: u64,
    },
    Rollback {
        cpu: u32,
        index: u64,
        npages: u64,
    },
    Release {
        cpu: u32,
        index: u64,
        npages: u64,
    },
    Retire {
        index: u64,
        npages: u64,
    },
    Span {
        from: u64,
        max: u64,
    },
    Window {
        key: u64,
        page: u64,
        lo: u64,
        hi: u64,
        max: u32,
    },
    Touch {
        index: u64,
        npages: u64,
    },
    Victim {
        max: u64,
    },
}

/// Numbers that are small, at an edge, or anything.
fn number() -> impl Strategy<Value = u64> {
    let edge = prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(1 << 32),
        Just(1 << 63),
        Just(512)
    ];
    prop_oneof![4 => 0..2000u64, 1 => edge, 1 => any::<u64>(), 1 => any::<u64>().prop_map(|x| x >> 12)]
}

/// Entries with every flag, close together or anywhere.
fn entries() -> impl Strategy<Value = Vec<u64>> {
    let one = prop_oneof![
        3 => (0..600u64, 0..64u64).prop_map(|(pfn, flags)| pfn << 6 | flags),
        1 => any::<u64>(),
        1 => Just(0),
    ];
    let runs = prop::collection::vec((one, 1..600usize, any::<bool>()), 1..6);
    runs.prop_map(|runs| {
        let mut all = Vec::new();
        for (first, n, same) in runs {
            let n = if same { n } else { n % 4 + 1 };
            all.extend((0..n as u64).map(|i| first.wrapping_add(i << 6)));
        }
        all
    })
}

fn call() -> impl Strategy<Value = Call> {
    let cpu = prop_oneof![3 => 0..4u32, 1 => any::<u32>()];
    prop_oneof![
        3 => (cpu.clone(), entries(), number())
            .prop_map(|(cpu, src, n)| Call::ToDevice { cpu, src, n: n as u32 }),
        2 => (entries(), entries(), number())
            .prop_map(|(src, dst, first)| Call::ToRam { src, dst, first }),
        1 => (cpu.clone(), number()).prop_map(|(cpu, npages)| Call::Commit { cpu, npages }),
        2 => (cpu.clone(), number(), number())
            .prop_map(|(cpu, index, npages)| Call::Rollback { cpu, index, npages }),
        2 => (cpu, number(), number())
            .prop_map(|(cpu, index, npages)| Call::Release { cpu, index, npages }),
        1 => (number(), number()).prop_map(|(index, npages)| Call::Retire { index, npages }),
        1 => (number(), number()).prop_map(|(from, max)| Call::Span { from, max }),
        2 => (number(), number(), number(), number(), any::<u32>())
            .prop_map(|(key, page, lo, hi, max)| Call::Window { key, page, lo, hi, max }),
        1 => (number(), number()).prop_map(|(index, npages)| Call::Touch { index, npages }),
        1 => number().prop_map(|max| Call::Victim { max }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    /// Any sequence of calls with any numbers, most of them a caller's mistake:
    /// no panic (overflow checks are on here), errors are known ones, and the
    /// region never believes in more free frames than it has.
    #[test]
    fn any_calls_with_any_numbers(npages in 1..3000u64, calls in prop::collection::vec(call(), 1..25)) {
        let lent = Lent::new(npages, 2);
        let core = lent.core();
        for call in calls {
            let ret = garbage(core, &call, npages);
            prop_assert!([0, -2, -22, -114].contains(&ret), "{call:?}: {ret}");
            let mut stats = CoreStats::default();
            // SAFETY: a living region and a structure to fill.
            unsafe { ffi::hmm_core_stats(core, &mut stats) };
            prop_assert_eq!(stats.total, npages);
            prop_assert!(stats.free <= npages && stats.free_blocks <= npages / 512, "{:?}", stats);
        }
    }
}

fn garbage(core: *const hmm_devmem::region::Core, call: &Call, total: u64) -> c_int {
    let mut seg = vec![Segment::default(); 4000];
    let (mut first, mut npages) = (u64::MAX, 0);
    // SAFETY: a living region; every array is as long as it is said to be, or
    // its length is one that is refused before it is looked at.
    unsafe {
        match call {
            Call::ToDevice { cpu, src, n } => {
                let n = if *n > 65536 { *n } else { src.len() as u32 };
                let mut dst = vec![0; src.len()];
                let mut plan = Plan::default();
                let (src, dst) = (src.as_ptr(), dst.as_mut_ptr());
                let seg = seg.as_mut_ptr();
                ffi::hmm_core_plan_to_device(core, *cpu, src, dst, n, seg, &mut plan)
            }
            Call::ToRam { src, dst, first } => {
                let n = src.len().min(dst.len()) as u32;
                let mut nseg = 0;
                let (src, dst) = (src.as_ptr(), dst.as_ptr());
                let ret =
                    ffi::hmm_core_plan_to_ram(src, dst, n, *first, seg.as_mut_ptr(), &mut nseg);
                assert!(nseg <= n);
                ret
            }
            Call::Commit { cpu, npages } => {
                ffi::hmm_core_commit(core, *cpu, *npages);
                0
            }
            Call::Rollback { cpu, index, npages } => {
                ffi::hmm_core_rollback(core, *cpu, *index, *npages)
            }
            Call::Release { cpu, index, npages } => {
                ffi::hmm_core_release(core, *cpu, *index, *npages)
            }
            Call::Retire { index, npages } => ffi::hmm_core_retire(core, *index, *npages),
            Call::Span { from, max } => {
                let ret = ffi::hmm_core_next_span(core, *from, *max, &mut first, &mut npages);
                assert!(ret != 0 || first + npages <= total && npages >= 1 && npages <= *max);
                ret
            }
            Call::Touch { index, npages } => {
                ffi::hmm_core_touch(core, *index, *npages);
                0
            }
            Call::Victim { max } => {
                let ret = ffi::hmm_core_victim(core, *max, &mut first, &mut npages);
                assert!(ret != 0 || first + npages <= total && npages >= 1 && npages <= *max);
                ret
            }
            Call::Window {
                key,
                page,
                lo,
                hi,
                max,
            } => {
                let mut w = Window::default();
                ffi::hmm_core_window(core, *key, *page, *lo, *hi, *max, &mut w);
                assert!(w.first <= *page && *page - w.first < w.npages, "{w:?}");
                assert!(w.npages <= 512, "{w:?}");
                ffi::hmm_core_went(core, *key, *lo);
                0
            }
        }
    }
}

/// Where `unsafe` may stand.
const BORDER: [&str; 3] = ["ffi.rs", "port.rs", "region.rs"];
/// Host only, or generated.
const APART: [&str; 2] = ["gen.rs", "port_sys.rs"];

/// Lines of code that use `unsafe`, with their numbers, comments left out.
fn uses(text: &str) -> Vec<(usize, &str)> {
    let code = |line: &str| !line.trim_start().starts_with("//");
    let unsafe_word = |line: &str| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|word| word == "unsafe")
            && !line.contains("#[unsafe(no_mangle)]")
    };
    text.lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.split(" // ").next().unwrap_or(line)))
        .filter(|(_, line)| code(line) && unsafe_word(line))
        .collect()
}

#[test]
fn unsafe_only_at_the_border_and_explained() {
    let mut blocks = 0;
    let mut wrong = Vec::new();
    let mut files: Vec<_> = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/rust"))
        .expect("rust/")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    for path in files {
        let name = path
            .file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        if APART.contains(&name.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&path).expect("readable");
        let lines: Vec<&str> = text.lines().collect();
        if !BORDER.contains(&name.as_str()) {
            for (n, line) in uses(&text) {
                wrong.push(format!(
                    "rust/{name}:{n}: unsafe outside the border: {line}"
                ));
            }
            let forbids = text.contains("#![forbid(unsafe_code)]");
            if name != "lib.rs" && !forbids {
                wrong.push(format!("rust/{name}: does not forbid unsafe code"));
            }
            continue;
        }
        for (n, line) in uses(&text) {
            // Upwards from the use: the comment right above it, attributes and
            // the first lines of the same statement between.
            let above: Vec<&str> = lines[..n - 1].iter().rev().take(40).copied().collect();
            let explained = if line.contains("unsafe fn") || line.contains("unsafe extern") {
                above
                    .iter()
                    .take_while(|l| !l.trim().is_empty())
                    .any(|l| l.contains("# Safety"))
            } else {
                blocks += 1;
                above
                    .iter()
                    .skip_while(|l| !l.trim_start().starts_with("//"))
                    .take_while(|l| l.trim_start().starts_with("//"))
                    .any(|l| l.contains("SAFETY:"))
                    && above
                        .iter()
                        .take_while(|l| !l.trim_start().starts_with("//"))
                        .count()
                        <= 3
            };
            if !explained {
                wrong.push(format!(
                    "rust/{name}:{n}: unsafe without its reason: {line}"
                ));
            }
        }
        let said = text.matches("// SAFETY:").count();
        let used = uses(&text)
            .iter()
            .filter(|(_, l)| !l.contains("fn "))
            .count();
        if said != used {
            wrong.push(format!(
                "rust/{name}: {used} unsafe blocks, {said} SAFETY comments"
            ));
        }
    }
    println!("{blocks} unsafe blocks, all at the border");
    assert!(blocks > 0, "the test finds no unsafe block at all");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Each `while` and `loop` of the core says what bounds it, right above or at the
/// head of the loops around it.
#[test]
fn every_loop_says_its_bound() {
    let mut silent = Vec::new();
    let mut loops = 0;
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/rust")).expect("rust/") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a file").to_string_lossy();
        if !name.ends_with(".rs") || APART.contains(&&*name) {
            continue;
        }
        let text = fs::read_to_string(&path).expect("readable");
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
        let lines: Vec<&str> = code.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let word = line.trim_start().split(' ').next().unwrap_or("");
            if !["while", "loop"].contains(&word) {
                continue;
            }
            loops += 1;
            let above = &lines[i.saturating_sub(5)..i];
            if !above.iter().any(|l| l.contains("Bounded:")) {
                silent.push(format!("rust/{name}:{}: {}", i + 1, line.trim()));
            }
        }
    }
    assert!(loops > 20, "only {loops} loops found");
    assert!(silent.is_empty(), "\n{}", silent.join("\n"));
}
