// SPDX-License-Identifier: GPL-2.0
//! `hmmtop` in a pseudo-terminal of 80 columns and 24 rows, as over ssh.

mod recorded;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROWS: u16 = 24;
const COLUMNS: u16 = 80;

struct Terminal {
    end: File,
    screen: vt100::Parser,
    child: Child,
}

impl Terminal {
    fn start(arguments: &[&str]) -> Self {
        let size = libc::winsize {
            ws_row: ROWS,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let (mut ours, mut theirs) = (-1, -1);
        // SAFETY: room for two descriptors, a size, and nothing else.
        let opened = unsafe {
            libc::openpty(
                &mut ours,
                &mut theirs,
                std::ptr::null_mut(),
                std::ptr::null(),
                &size,
            )
        };
        assert_eq!(opened, 0, "no pseudo-terminal");
        // SAFETY: both were opened just now and belong to nobody else.
        let (ours, theirs) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        // SAFETY: a flag of a descriptor of our own.
        unsafe { libc::fcntl(ours.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        let end = || Stdio::from(theirs.try_clone().expect("a copy"));
        let child = Command::new(env!("CARGO_BIN_EXE_hmmtop"))
            .args(arguments)
            .env("TERM", "xterm-256color")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("hmmtop");
        Self {
            end: ours,
            screen: vt100::Parser::new(ROWS, COLUMNS, 0),
            child,
        }
    }

    /// Waits until the screen has what is wanted.
    fn until(&mut self, what: &str, wanted: impl Fn(&vt100::Screen) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        let mut piece = [0; 4096];
        while !wanted(self.screen.screen()) {
            let contents = self.screen.screen().contents();
            assert!(Instant::now() < end, "no {what} on the screen:\n{contents}");
            match self.end.read(&mut piece) {
                Ok(n) => self.screen.process(&piece[..n]),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn until_text(&mut self, text: &str) {
        self.until(text, |screen| screen.contents().contains(text));
    }

    fn press(&mut self, keys: &str) {
        self.end.write_all(keys.as_bytes()).expect("a key");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn keys_do_what_they_say() {
    let root = recorded::place("keys");
    recorded::write(&root, 1);
    let mut top = Terminal::start(&["--interval", "0.2", "--root", root.to_str().expect("text")]);
    top.until_text("hmm_dmirror.0");
    let first = top.screen.screen().contents();
    assert!(first.contains("> hmm_dmirror.0"), "{first}");
    assert!(first.contains("resident 95.8M"), "{first}");
    let by_size = "in use 95.8M (80.0M in full 2 MiB)   claimed 96.0K, retired 0B";
    assert!(first.contains(by_size), "{first}");
    assert!(top.screen.screen().alternate_screen());

    // Work goes on: rates, and the busier process first.
    for rounds in 2..5 {
        recorded::write(&root, rounds);
        std::thread::sleep(Duration::from_millis(200));
    }
    top.until("rates", |screen| {
        let text = screen.contents();
        let (busy, calm) = (text.find("(9000128)"), text.find("(9000131)"));
        text.contains("spared 95%") && busy.is_some() && busy < calm
    });

    top.press("r");
    top.until_text("to device, reversed");
    top.press("s");
    top.until_text("to RAM, reversed");
    for order in ["faults", "on device", "total", "process", "to device"] {
        top.press("s");
        top.until_text(&format!("by {order}, reversed"));
    }
    top.press("j");
    top.until_text("> hmm_dmirror.1");
    top.press(" ");
    top.until_text("PAUSED");
    top.press(" +");
    top.until_text("every 0.400 s");
    top.press("h");
    top.until_text("turn the order round");
    top.press("h");
    top.until("end of help", |screen| {
        !screen.contents().contains("turn the order round")
    });

    fs::remove_dir_all(&root).expect("removed");
    top.until_text("next: modprobe hmm_devmem");
    top.press("q");
    let status = top.child.wait().expect("its end");
    assert!(status.success());
    top.until("terminal as it was", |screen| !screen.alternate_screen());
}

#[test]
fn the_last_column_fits() {
    let root = recorded::place("fits");
    recorded::write(&root, 1);
    let mut top = Terminal::start(&["--root", root.to_str().expect("text")]);
    top.until_text("PROCESS");
    let text = top.screen.screen().contents();
    for word in [
        "FLT/s",
        "in 2 MiB)",
        "evicted 0B",
        "copy failed",
        "ON DEV",
        "TO RAM",
    ] {
        assert!(text.contains(word), "{word} is cut off:\n{text}");
    }
    fs::remove_dir_all(&root).expect("removed");
}

fn run(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hmmtop"))
        .args(arguments)
        .output()
        .expect("hmmtop");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn one_table_one_object_one_picture() {
    let root = recorded::place("once");
    recorded::write(&root, 1);
    let place = root.to_str().expect("text");

    let (fine, table, _) = run(&["--once", "-i", "0.1", "--root", place]);
    assert!(
        fine && table.contains("hmm_dmirror.0    private    256M"),
        "{table}"
    );

    let (fine, lines, _) = run(&["--json", "--count", "2", "-i", "0.1", "--root", place]);
    assert!(fine && lines.lines().count() == 2, "{lines}");
    for line in lines.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(object["regions"][0]["frames"]["resident"], 24512);
        assert_eq!(object["processes"][0]["process"], 9_000_128);
        // There is no such process here: what it has on the device cannot be seen.
        assert!(object["processes"][0]["pages_on_device"].is_null());
        assert!(object["regions"][1]["spared_percent"].is_null());
    }

    let file = root.with_extension("svg");
    let (fine, _, said) = run(&[
        "--svg",
        file.to_str().expect("text"),
        "-i",
        "0.1",
        "--root",
        place,
    ]);
    assert!(fine, "{said}");
    let picture = fs::read_to_string(&file).expect("the picture");
    assert!(picture.contains("hmm_dmirror.1") && picture.ends_with("</svg>\n"));

    fs::remove_file(&file).expect("removed");
    fs::remove_dir_all(&root).expect("removed");
    let (fine, _, said) = run(&["--once", "--root", place]);
    assert!(
        !fine && said.contains("next: modprobe hmm_devmem"),
        "{said}"
    );
    let (fine, _, said) = run(&["--interval", "0"]);
    assert!(!fine && said.contains("a number of seconds"), "{said}");
}
