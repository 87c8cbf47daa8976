// SPDX-License-Identifier: GPL-2.0
//! Writes the generated files, or with `--check` compares them with what is
//! checked in and says what differs:
//!  * `c/core.h` from `rust/ffi.rs` and `rust/types.rs` (cbindgen),
//!  * `rust/port_sys.rs` from `c/port.h` (bindgen),
//!  * `rust/uapi/sys.rs` from `c/drivers/dmirror/hmm_dmirror.h`, and `rust/uapi/vram_sys.rs` from
//!    `c/drivers/vram/hmm_vram.h` (bindgen).

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

use hmm_devmem::types::{CoreStats, MapRun, Plan, Segment, Window};

const BORDER: &str = "c/core.h";
const PORT: &str = "rust/port_sys.rs";
/// The headers of the user ABI, and what is made of each.
const UAPI: [(&str, &str); 2] = [
    ("c/drivers/dmirror/hmm_dmirror.h", "rust/uapi/sys.rs"),
    ("c/drivers/vram/hmm_vram.h", "rust/uapi/vram_sys.rs"),
];

const HEAD: &str = "\
/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The Rust core as C sees it. GENERATED from rust/ffi.rs and rust/types.rs by
 * `make gen`; not to be edited.
 */
#ifndef HMM_CORE_H
#define HMM_CORE_H

";

const PREAMBLE: &str = "\
#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/compiler.h>
#include <linux/stddef.h>
#include <linux/types.h>
#else
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
typedef uint64_t u64;
typedef uint32_t u32;
typedef int32_t s32;
#ifndef __must_check
#define __must_check __attribute__((__warn_unused_result__))
#endif
#endif

/* The version of the project, from Cargo.toml. */
#define HMM_VERSION \"@VERSION@\"
";

/// Size and offsets of one structure, as the compiler of the core lays it out.
macro_rules! layout {
    ($text:expr, $name:literal, $ty:ty, $($field:ident),+) => {{
        let size = size_of::<$ty>();
        writeln!($text, "static_assert(sizeof(struct {}) == {size}, \"{}: size\");", $name, $name)
            .expect("a string takes text");
        $(
            let offset = core::mem::offset_of!($ty, $field);
            let field = stringify!($field);
            writeln!(
                $text,
                "static_assert(offsetof(struct {}, {field}) == {offset}, \"{}: {field}\");",
                $name, $name
            )
            .expect("a string takes text");
        )+
    }};
}

fn asserts() -> String {
    let mut text = String::from("/* What both sides rely on, as the core was compiled. */\n");
    layout!(
        text,
        "hmm_segment",
        Segment,
        src,
        dst,
        npages,
        entry,
        status,
        reserved
    );
    layout!(text, "hmm_plan", Plan, ncopy, nzero, claimed, wanted);
    layout!(
        text,
        "hmm_core_stats",
        CoreStats,
        total,
        free,
        claimed,
        resident,
        retired,
        free_blocks
    );
    layout!(text, "hmm_window", Window, first, npages);
    layout!(text, "hmm_map_run", MapRun, first, npages, value, reserved);
    text.push_str("static_assert(sizeof(unsigned long) == 8, \"entries are 64 bits\");");
    text
}

fn border() -> String {
    let mut config = cbindgen::Config {
        language: cbindgen::Language::C,
        style: cbindgen::Style::Tag,
        documentation_style: cbindgen::DocumentationStyle::Doxy,
        no_includes: true,
        usize_is_size_t: true,
        tab_width: 8,
        line_length: 90,
        ..cbindgen::Config::default()
    };
    config.function.must_use = Some("__must_check".into());
    for (rust, c) in [
        ("Core", "hmm_core"),
        ("Segment", "hmm_segment"),
        ("Plan", "hmm_plan"),
        ("CoreStats", "hmm_core_stats"),
        ("Window", "hmm_window"),
        ("MapRun", "hmm_map_run"),
    ] {
        config.export.rename.insert(rust.into(), c.into());
    }
    for inside in [
        "BLOCK_PAGES",
        "WORD_PAGES",
        "BLOCK_WORDS",
        "MAX_PAGES",
        "MAX_CPUS",
        "MAX_ENTRIES",
        "ALIGN",
        "Errno",
    ] {
        config.export.exclude.push(inside.into());
    }
    let mut text = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src("rust/types.rs")
        .with_src("rust/region.rs")
        .with_src("rust/ffi.rs")
        .generate()
        .expect("cbindgen reads rust/ffi.rs")
        .write(&mut text);
    let text = tidy(&String::from_utf8(text).expect("cbindgen writes UTF-8"));
    let preamble = PREAMBLE.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    format!("{HEAD}{preamble}\n{text}\n{}\n\n#endif\n", asserts())
}

/// Kernel spelling: u64 for uint64_t, tabs, one-line comments for constants,
/// no runs of blank lines, and no section for Rust readers in the comments.
fn tidy(text: &str) -> String {
    let mut out = String::new();
    let mut rust_only = false;
    let lines: Vec<&str> = text.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        if line.is_empty() && out.ends_with("\n\n") {
            continue;
        }
        let plain =
            line.starts_with("#define") || line.starts_with("struct") && line.ends_with(';');
        if plain && i >= 3 && lines[i - 3] == "/**" {
            // The three lines of the comment before are in `out`: fold them.
            let comment = format!("/**\n{}\n */\n", lines[i - 2]);
            if let Some(head) = out.strip_suffix(&comment) {
                let text = lines[i - 2].trim_start_matches(" *").trim();
                out = format!("{}/* {text} */\n", head.strip_suffix('\n').unwrap_or(head));
            }
        }
        if line.trim_start().starts_with("* # Safety") {
            rust_only = true;
            // The blank comment line before it goes too.
            if out.ends_with(" *\n") {
                out.truncate(out.len() - 3);
            }
            continue;
        }
        rust_only &= !line.contains("*/");
        if rust_only {
            continue;
        }
        let known = line.starts_with("typedef");
        let mut line = (*line).to_owned();
        if !known {
            for (from, to) in [("uint64_t", "u64"), ("uint32_t", "u32"), ("int32_t", "s32")] {
                line = line.replace(from, to);
            }
        }
        let indent = line.len() - line.trim_start_matches(' ').len();
        if indent >= 8 {
            line = format!("{}{}", "\t".repeat(indent / 8), &line[indent / 8 * 8..]);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn builder(header: &str, license: &str) -> bindgen::Builder {
    bindgen::Builder::default()
        .header(header)
        .use_core()
        .layout_tests(true)
        .generate_comments(true)
        .disable_header_comment()
        .rust_edition(bindgen::RustEdition::Edition2024)
        .rust_target(bindgen::RustTarget::stable(85, 0).expect("a known version"))
        .formatter(bindgen::Formatter::Prettyplease)
        .raw_line(format!("// SPDX-License-Identifier: {license}"))
        .raw_line(format!(
            "// GENERATED from {header} by `make gen`; not to be edited."
        ))
}

fn port() -> String {
    let text = builder("c/port.h", "GPL-2.0")
        .raw_line("#![allow(missing_docs)]")
        .allowlist_function("hmm_port_.*")
        .generate()
        .expect("bindgen reads c/port.h")
        .to_string();
    formatted(&text)
}

fn uapi(header: &str) -> String {
    let text = builder(header, "GPL-2.0 WITH Linux-syscall-note")
        .allowlist_file(format!(".*{header}"))
        .derive_default(true)
        .derive_debug(true)
        .prepend_enum_name(false)
        .generate()
        .expect("bindgen reads the user ABI header")
        .to_string();
    formatted(&text)
}

/// bindgen's text as rustfmt would leave it, so that formatting the tree does
/// not make it differ from its source: comments as lines instead of blocks, and
/// short things on one line.
fn formatted(text: &str) -> String {
    let text = text
        .replace("    [\n        \"", "    [\"")
        .replace("\",\n    ][", "\"][")
        .replace("(\n        file: ", "(file: ")
        .replace("c_char,\n        line: ", "c_char, line: ")
        .replace("c_uint,\n    ) -> !", "c_uint) -> !");
    line_docs(&text)
        .lines()
        .map(|line| match line.find("][::core::mem::offset_of!") {
            Some(at) if line.len() > 100 || line.len() - at > 60 => {
                format!("{}]\n        {}\n", &line[..at], &line[at + 1..])
            }
            _ => format!("{line}\n"),
        })
        .collect()
}

/// Comments as lines in place of blocks.
fn line_docs(text: &str) -> String {
    let mut out = String::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        let body = match (&block, line.trim_start().strip_prefix("/**")) {
            (None, Some(body)) => {
                block = Some(line[..line.len() - line.trim_start().len()].to_owned());
                body
            }
            (Some(_), _) => line,
            (None, None) => {
                out.push_str(line);
                out.push('\n');
                continue;
            }
        };
        let (text, end) = match body.strip_suffix("*/") {
            Some(text) => (text, true),
            None => (body, false),
        };
        let indent = block.as_deref().unwrap_or("");
        let text = format!(
            "{indent}/// {}",
            text.strip_prefix(' ').unwrap_or(text).replace('\t', "    ")
        );
        out.push_str(text.trim_end());
        out.push('\n');
        if end {
            block = None;
        }
    }
    out
}

/// Writes or compares one file; false when it differs.
fn settle(path: &str, text: &str, check: bool) -> bool {
    let old = std::fs::read_to_string(path).unwrap_or_default();
    if old == text {
        println!("{path}: up to date");
        return true;
    }
    if !check {
        std::fs::write(path, text).unwrap_or_else(|e| panic!("{path}: {e}"));
        println!("{path}: written");
        return true;
    }
    let dir = std::env::temp_dir().join(format!("hmm-gen-{}", std::process::id()));
    let fresh = dir.join(Path::new(path).file_name().expect("a file"));
    std::fs::create_dir_all(&dir).expect("a place for the fresh text");
    std::fs::write(&fresh, text).expect("room for the fresh text");
    println!("{path}: differs from what its source says now; `make gen` writes it");
    let _ = Command::new("diff")
        .arg("-u")
        .arg(path)
        .arg(&fresh)
        .status();
    let _ = std::fs::remove_dir_all(&dir);
    false
}

fn main() -> ExitCode {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => {
            eprintln!("{other}: unknown; the only option is --check");
            return ExitCode::from(2);
        }
    };
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR")).expect("the clone is where it was");
    let mut same = settle(BORDER, &border(), check);
    same &= settle(PORT, &port(), check);
    for (header, made) in UAPI {
        if Path::new(header).exists() && Path::new("rust/uapi").exists() {
            same &= settle(made, &uapi(header), check);
        }
    }
    if same {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
