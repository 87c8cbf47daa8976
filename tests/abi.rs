// SPDX-License-Identifier: GPL-2.0
//! The border: C drives the core through the generated header, and the rules
//! about `unsafe` are counted, not believed.

use std::ffi::c_int;
use std::fs;

use hmm_devmem::ffi::hmm_core_size;

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
