// SPDX-License-Identifier: GPL-2.0
//! Compiles structures of the kernel as peers, when HMM_LINUX_SOURCE names its source
//! (bench/source.py finds it). Without, the benches run and say that these are absent.

use std::path::{Path, PathBuf};

/// What the headers of the kernel's own tests expect from their makefile.
const GENERATED: [(&str, &str); 2] = [
    ("map-shift.h", "#define XA_CHUNK_SHIFT 6\n"),
    (
        "bit-length.h",
        "#define CONFIG_64BIT 1\n#define CONFIG_PHYS_ADDR_T_64BIT 1\n",
    ),
];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(linux_source, gpu_buddy)");
    println!("cargo::rerun-if-env-changed=HMM_LINUX_SOURCE");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernel");
    let source = match std::env::var_os("HMM_LINUX_SOURCE") {
        Some(source) if !source.is_empty() => PathBuf::from(source),
        _ => return,
    };
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let shared = source.join("tools/testing/shared");
    let generated = out.join("generated");
    std::fs::create_dir_all(&generated).expect("room for headers");
    for (name, text) in GENERATED {
        std::fs::write(generated.join(name), text).expect("room for a header");
    }
    std::fs::copy(shared.join("autoconf.h"), generated.join("autoconf.h"))
        .expect("the kernel's source has the headers of its tests");
    let mut cc = cc::Build::new();
    cc.define("_GNU_SOURCE", None)
        .opt_level(2)
        .warnings(false)
        .inherit_rustflags(false)
        .flag("-fno-tree-vectorize")
        .include("kernel")
        .include(&out);
    for part in [
        "tools/testing/shared",
        "tools/include",
        "tools/arch/x86/include",
        "lib",
    ] {
        cc.include(source.join(part));
    }
    // gen_pool without its part about devices, and the headers that only that part wants.
    let text = std::fs::read_to_string(source.join("lib/genalloc.c")).unwrap_or_default();
    let pool = text.split("static void devm_gen_pool_release").next();
    std::fs::write(out.join("genalloc-pool.c"), pool.unwrap_or_default()).expect("room for it");
    let header = std::fs::read(source.join("include/linux/genalloc.h")).unwrap_or_default();
    std::fs::create_dir_all(out.join("linux")).expect("room for headers");
    std::fs::write(out.join("linux/genalloc.h"), header).expect("room for a header");
    for name in [
        "of",
        "of_platform",
        "platform_device",
        "vmalloc",
        "rculist",
        "spinlock_types",
    ] {
        std::fs::write(out.join(format!("linux/{name}.h")), "").expect("room for a header");
    }
    for file in ["maple.c", "interval.c", "pool.c", "slab.c"] {
        cc.file(Path::new("kernel").join(file));
    }
    for shim in ["rbtree-shim.c", "interval_tree-shim.c"] {
        cc.file(shared.join(shim));
    }
    cc.file(source.join("tools/lib/find_bit.c"));
    if source.join("drivers/gpu/buddy.c").exists() {
        // Its own headers, without all the others that lie beside them.
        let extra = [
            (
                "linux/gpu_buddy.h",
                source.join("include/linux/gpu_buddy.h"),
            ),
            ("kunit/test-bug.h", PathBuf::new()),
        ];
        for (name, from) in extra {
            let text = std::fs::read(from).unwrap_or_default();
            let to = out.join(name);
            std::fs::create_dir_all(to.parent().expect("a directory")).expect("room for headers");
            std::fs::write(to, text).expect("room for a header");
        }
        cc.include(&source).file("kernel/buddy.c");
        println!("cargo::rustc-cfg=gpu_buddy");
    }
    cc.compile("bench_kernel");
    println!("cargo::rustc-cfg=linux_source");
}
