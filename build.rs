// SPDX-License-Identifier: GPL-2.0
//! Host only: compiles the C side of the border test, tests/abi.c, against the
//! generated header. Only tests/abi.rs links it.

fn main() {
    for file in ["build.rs", "tests/abi.c", "c/core.h", "c/port.h"] {
        println!("cargo::rerun-if-changed={file}");
    }
    // The generators make the header that the test wants: they come first.
    if std::env::var_os("CARGO_FEATURE_GEN").is_some() {
        return;
    }
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    println!("cargo::rustc-link-search=native={out}");
    cc::Build::new()
        .file("tests/abi.c")
        .include("c")
        .std("gnu11")
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true)
        .cargo_metadata(false)
        .compile("hmm_abi_test");
}
