// SPDX-License-Identifier: GPL-2.0
//! A `Vec` worked on by a device: y += 3 * x, then sorted backwards and summed. No copy in sight.
//!
//! Usage: hmm-svm [NODE] (default: /dev/hmm_vram0)

use hmm_uapi::vram::{axpy, sort, sum};
use hmm_uapi::{Device, Range};

/// The bytes of a slice, for the device.
fn range(words: &[u64]) -> Range {
    Range {
        addr: words.as_ptr() as u64,
        len: 8 * words.len() as u64,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = std::env::args().nth(1);
    let gpu = Device::open(node.as_deref().unwrap_or("/dev/hmm_vram0"))?;

    let count = 1 << 20;
    let x: Vec<u64> = (0..count).collect();
    let mut y = vec![1; x.len()];
    let mut total = vec![0];

    let a = 3_u64.wrapping_neg();
    let (y_at, total_at) = (y.as_mut_ptr() as u64, total.as_mut_ptr() as u64);
    let commands = [
        axpy(y_at, a, range(&x)),
        sort(range(&y)),
        sum(total_at, range(&y)),
    ];
    // SAFETY: nobody looks at `y` and `total` until the device is done.
    let done = unsafe { gpu.run(&commands) }?;

    let mut expected: Vec<u64> = x.iter().map(|x| 1_u64.wrapping_sub(3 * x)).collect();
    expected.sort_unstable();
    let right =
        y == expected && total[0] == expected.iter().fold(0, |a: u64, b| a.wrapping_add(*b));
    println!(
        "{count} words of a Vec, {} pages moved on {} device faults, {}",
        done.moved,
        done.faults,
        if right { "all right" } else { "WRONG" }
    );
    std::process::exit(i32::from(!right))
}
