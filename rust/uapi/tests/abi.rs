// SPDX-License-Identifier: GPL-2.0
//! The C compiler and this crate agree on every ioctl number and structure size.

use hmm_uapi::{ioctl, sys, vram_sys};
use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn c_says_the_same() {
    let expected: [(&str, u64); 30] = [
        ("HMM_VRAM_SUBMIT", ioctl::VRAM_SUBMIT.into()),
        ("HMM_VRAM_WAIT", ioctl::VRAM_WAIT.into()),
        ("HMM_VRAM_STATUS", ioctl::VRAM_STATUS.into()),
        (
            "sizeof(struct hmm_vram_command)",
            size_of::<vram_sys::hmm_vram_command>() as u64,
        ),
        ("HMM_DMIRROR_READ", ioctl::READ_NR.into()),
        ("HMM_DMIRROR_WRITE", ioctl::WRITE_NR.into()),
        ("HMM_DMIRROR_MIGRATE_TO_DEV", ioctl::MIGRATE_TO_DEV.into()),
        ("HMM_DMIRROR_MIGRATE_TO_SYS", ioctl::MIGRATE_TO_SYS.into()),
        ("HMM_DMIRROR_SNAPSHOT", ioctl::SNAPSHOT.into()),
        ("HMM_DMIRROR_EXCLUSIVE", ioctl::EXCLUSIVE.into()),
        ("HMM_DMIRROR_CHECK_EXCLUSIVE", ioctl::CHECK_EXCLUSIVE.into()),
        ("HMM_DMIRROR_FLAGS", ioctl::FLAGS.into()),
        ("HMM_DMIRROR_READ_UNLOCKED", ioctl::READ_UNLOCKED.into()),
        ("HMM_DMIRROR_RELEASE", ioctl::RELEASE.into()),
        ("HMM_DMIRROR_INFO", ioctl::INFO.into()),
        ("HMM_DMIRROR_MOVE", ioctl::MOVE.into()),
        ("HMM_DMIRROR_COMPUTE", ioctl::COMPUTE.into()),
        ("HMM_DMIRROR_FAIL", ioctl::FAIL.into()),
        ("HMM_DMIRROR_START", ioctl::START.into()),
        ("HMM_DMIRROR_RESULT", ioctl::RESULT.into()),
        ("HMM_DMIRROR_SET_HINT", ioctl::SET_HINT.into()),
        ("HMM_DMIRROR_GET_HINT", ioctl::GET_HINT.into()),
        (
            "sizeof(struct hmm_dmirror_hint)",
            size_of::<sys::hmm_dmirror_hint>() as u64,
        ),
        (
            "sizeof(struct hmm_dmirror_start)",
            size_of::<sys::hmm_dmirror_start>() as u64,
        ),
        (
            "sizeof(struct hmm_dmirror_result)",
            size_of::<sys::hmm_dmirror_result>() as u64,
        ),
        (
            "sizeof(struct hmm_dmirror_cmd)",
            size_of::<sys::hmm_dmirror_cmd>() as u64,
        ),
        (
            "sizeof(struct hmm_dmirror_info)",
            size_of::<sys::hmm_dmirror_info>() as u64,
        ),
        (
            "sizeof(struct hmm_dmirror_move)",
            size_of::<sys::hmm_dmirror_move>() as u64,
        ),
        (
            "sizeof(struct hmm_dmirror_compute)",
            size_of::<sys::hmm_dmirror_compute>() as u64,
        ),
        (
            "sizeof(struct hmm_dmirror_fail)",
            size_of::<sys::hmm_dmirror_fail>() as u64,
        ),
    ];
    let manifest = env!("CARGO_MANIFEST_DIR");
    let mut source = format!(
        "#include <stdio.h>\n#include \"{manifest}/../../c/drivers/dmirror/hmm_dmirror.h\"\n#include \"{manifest}/../../c/drivers/vram/hmm_vram.h\"\nint main(void)\n{{\n"
    );
    for (what, _) in expected {
        source += &format!("\tprintf(\"%llu\\n\", (unsigned long long)({what}));\n");
    }
    source += "\treturn 0;\n}\n";

    let program = std::env::temp_dir().join(format!("hmm-uapi-abi.{}", std::process::id()));
    let mut cc = Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Werror", "-x", "c", "-", "-o"])
        .arg(&program)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the C compiler starts");
    cc.stdin
        .take()
        .unwrap()
        .write_all(source.as_bytes())
        .unwrap();
    assert!(cc.wait().unwrap().success(), "the header does not compile");
    let output = Command::new(&program).output().unwrap();
    std::fs::remove_file(&program).unwrap();

    let said = String::from_utf8(output.stdout).unwrap();
    let said: Vec<u64> = said.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(said.len(), expected.len());
    for ((what, ours), c) in expected.into_iter().zip(said) {
        assert_eq!(ours, c, "{what}");
    }
}
