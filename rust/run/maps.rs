// SPDX-License-Identifier: GPL-2.0
//! Picks what may move out of `/proc/self/maps`, without allocating and whatever the pieces in
//! which the file is read.

/// A run of pages: `[start, end)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Span {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
}

/// What decides about a line stands in its first bytes; a long path is cut here.
const KEEP: usize = 128;

/// Takes the file in pieces of any size; calls back for each mapping that may move.
pub struct Parser {
    line: [u8; KEEP],
    len: usize,
}

impl Parser {
    /// At the start of a file.
    pub const fn new() -> Self {
        Self {
            line: [0; KEEP],
            len: 0,
        }
    }

    /// The next piece.
    pub fn feed(&mut self, piece: &[u8], mut found: impl FnMut(Span)) {
        for &byte in piece {
            if byte == b'\n' {
                let line = self.line.get(..self.len).unwrap_or(&[]);
                if let Some(span) = anonymous(line) {
                    found(span);
                }
                self.len = 0;
            } else if let Some(place) = self.line.get_mut(self.len) {
                *place = byte;
                self.len += 1;
            }
        }
    }
}

fn hex(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    text.iter().try_fold(0, |sum: u64, &digit| {
        let digit = (digit as char).to_digit(16)?;
        Some(sum << 4 | u64::from(digit))
    })
}

/// The span of a line that describes private, readable, writable memory without a file behind it:
/// the heap and anonymous mappings, but not the main stack and nothing the kernel put there.
fn anonymous(line: &[u8]) -> Option<Span> {
    let mut words = line
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty());
    let range = words.next()?;
    let perms = words.next()?;
    let _offset = words.next()?;
    let _device = words.next()?;
    let inode = words.next()?;
    let name = words.next().unwrap_or(b"");

    if !matches!(perms, [b'r', b'w', _, b'p']) || inode != b"0" {
        return None;
    }
    if !(name.is_empty() || name == b"[heap]" || name.starts_with(b"[anon:")) {
        return None;
    }
    let dash = range.iter().position(|&byte| byte == b'-')?;
    let (start, end) = (hex(range.get(..dash)?)?, hex(range.get(dash + 1..)?)?);
    (start < end).then_some(Span { start, end })
}

/// `span` without `hole`: the parts before and behind it, either of which may be empty.
pub fn without(span: Span, hole: Span) -> [Span; 2] {
    [
        Span {
            start: span.start,
            end: span.end.min(hole.start).max(span.start),
        },
        Span {
            start: span.start.max(hole.end).min(span.end),
            end: span.end,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c0000000-55d0c0002000 r--p 00000000 08:01 1234                       /usr/bin/cat
55d0c0008000-55d0c0009000 rw-p 00008000 08:01 1234                       /usr/bin/cat
55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000021000 rw-p 00000000 00:00 0 
7f0000021000-7f0004000000 ---p 00000000 00:00 0 
7f0010000000-7f0010001000 rw-s 00000000 00:01 77                         /dev/zero (deleted)
7f0020000000-7f0020400000 rwxp 00000000 00:00 0                          [anon:jit code]
7f0030000000-7f0030001000 r--p 00000000 00:00 0 
7f0040000000-7f0040001000 rw-p 00000000 00:00 0                          [anon_shmem:x]
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
7ffd00100000-7ffd00104000 r--p 00000000 00:00 0                          [vvar]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    fn parse(pieces: usize) -> Vec<Span> {
        let mut parser = Parser::new();
        let mut spans = Vec::new();
        for piece in MAPS.as_bytes().chunks(pieces) {
            parser.feed(piece, |span| spans.push(span));
        }
        spans
    }

    #[test]
    fn only_private_writable_memory_without_a_file() {
        let want = [
            Span {
                start: 0x55d0_c100_0000,
                end: 0x55d0_c102_1000,
            },
            Span {
                start: 0x7f00_0000_0000,
                end: 0x7f00_0002_1000,
            },
            Span {
                start: 0x7f00_2000_0000,
                end: 0x7f00_2040_0000,
            },
        ];
        for pieces in [1, 2, 7, 64, 4096] {
            assert_eq!(parse(pieces), want, "read {pieces} bytes at a time");
        }
    }

    #[test]
    fn a_long_path_is_cut_and_the_next_line_is_read() {
        let path = "x".repeat(5000);
        let text = format!("1000-2000 rw-p 0 00:00 12 /{path}\n3000-4000 rw-p 0 00:00 0 \n");
        let mut spans = Vec::new();
        Parser::new().feed(text.as_bytes(), |span| spans.push(span));
        assert_eq!(
            spans,
            [Span {
                start: 0x3000,
                end: 0x4000
            }]
        );
    }

    #[test]
    fn garbage_is_no_span() {
        for line in [
            "",
            "-",
            "1-",
            "zz-1 rw-p 0 0 0",
            "2000-1000 rw-p 0 0 0",
            "1000-2000 rw-p",
        ] {
            assert_eq!(anonymous(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_hole_splits_a_span() {
        let span = |start, end| Span { start, end };
        assert_eq!(
            without(span(10, 20), span(12, 15)),
            [span(10, 12), span(15, 20)]
        );
        assert_eq!(
            without(span(10, 20), span(0, 5)),
            [span(10, 10), span(10, 20)]
        );
        assert_eq!(
            without(span(10, 20), span(30, 35)),
            [span(10, 20), span(20, 20)]
        );
        assert_eq!(
            without(span(10, 20), span(5, 35)),
            [span(10, 10), span(20, 20)]
        );
    }

    #[test]
    fn this_process_has_a_heap() {
        let text = std::fs::read("/proc/self/maps").unwrap();
        let here = Box::new(1_u8);
        let address = u64::try_from(std::ptr::from_ref(&*here).addr()).unwrap();
        let mut hit = false;
        Parser::new().feed(&text, |span| {
            hit |= span.start <= address && address < span.end
        });
        assert!(hit);
    }
}
