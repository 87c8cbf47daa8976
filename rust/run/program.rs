// SPDX-License-Identifier: GPL-2.0
//! Finds the program as `execvp` would and tells why the library could not be loaded into it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why a program cannot be run under `hmm-run`; each with the exit status that shells use.
#[derive(Debug)]
pub enum Problem {
    NotFound(OsString),
    NotExecutable(PathBuf, io::Error),
    Static(PathBuf),
    Foreign(PathBuf, &'static str),
}

impl Problem {
    pub fn status(&self) -> u8 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotExecutable(..) => 126,
            Self::Static(_) | Self::Foreign(..) => 125,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(name) => write!(f, "{}: command not found", name.to_string_lossy()),
            Self::NotExecutable(path, why) => write!(f, "{}: {why}", path.display()),
            Self::Static(path) => write!(
                f,
                "{}: statically linked. hmm-run works by preloading a library, which only the \
                 dynamic linker can do; use a dynamically linked build of this program",
                path.display()
            ),
            Self::Foreign(path, what) => write!(
                f,
                "{}: {what}. hmm-run preloads a library for x86-64 glibc programs",
                path.display()
            ),
        }
    }
}

fn executable(path: &Path) -> io::Result<()> {
    let meta = path.metadata()?;
    if meta.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(())
}

fn find(name: &OsStr) -> Result<PathBuf, Problem> {
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                Err(Problem::NotFound(name.to_owned()))
            }
            Err(why) => Err(Problem::NotExecutable(path, why)),
        };
    }
    let dirs = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    std::env::split_paths(&dirs)
        .map(|dir| dir.join(name))
        .find(|path| executable(path).is_ok())
        .ok_or_else(|| Problem::NotFound(name.to_owned()))
}

/// Finds `name` and makes sure that a library can be preloaded into it.
pub fn check(name: &OsStr) -> Result<(), Problem> {
    let mut path = find(name)?;
    // A script is run by its interpreter, which may be a script again; the kernel allows five.
    for _ in 0..5 {
        let file = File::open(&path).map_err(|why| Problem::NotExecutable(path.clone(), why))?;
        let mut head = Vec::new();
        (&file)
            .take(4096)
            .read_to_end(&mut head)
            .map_err(|why| Problem::NotExecutable(path.clone(), why))?;
        if head.starts_with(b"\x7fELF") {
            return check_elf(&path, &file, &head);
        }
        match interpreter(&head) {
            Some(next) => path = next,
            // Neither: let exec say what it thinks of it.
            None => return Ok(()),
        }
    }
    Ok(())
}

fn interpreter(head: &[u8]) -> Option<PathBuf> {
    let line = head
        .strip_prefix(b"#!")?
        .split(|&byte| byte == b'\n')
        .next()?;
    let word = line
        .split(|byte| byte.is_ascii_whitespace())
        .find(|word| !word.is_empty())?;
    Some(OsString::from_vec(word.to_vec()).into())
}

fn number(head: &[u8], at: usize, bytes: usize) -> Option<u64> {
    let field = head.get(at..at + bytes)?;
    Some(
        field
            .iter()
            .rev()
            .fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
    )
}

fn check_elf(path: &Path, file: &File, head: &[u8]) -> Result<(), Problem> {
    const ELF64: u8 = 2;
    const X86_64: u64 = 62;
    const PT_INTERP: u64 = 3;

    let foreign = |what| Err(Problem::Foreign(path.to_owned(), what));
    if head.get(4) != Some(&ELF64) || number(head, 18, 2) != Some(X86_64) {
        return foreign("not an x86-64 program");
    }
    let (Some(offset), Some(size), Some(count)) = (
        number(head, 32, 8),
        number(head, 54, 2),
        number(head, 56, 2),
    ) else {
        return foreign("a cut-off file");
    };
    for i in 0..count {
        let mut entry = [0; 56];
        let at = offset.saturating_add(i * size);
        if file.read_exact_at(&mut entry, at).is_err() {
            return foreign("a cut-off file");
        }
        if number(&entry, 0, 4) != Some(PT_INTERP) {
            continue;
        }
        let (at, len) = (
            number(&entry, 8, 8).unwrap_or(0),
            number(&entry, 32, 8).unwrap_or(0),
        );
        let mut linker = vec![0; usize::try_from(len.min(4096)).unwrap_or(0)];
        if file.read_exact_at(&mut linker, at).is_err() {
            return foreign("a cut-off file");
        }
        if linker.windows(8).any(|part| part == b"ld-linux") {
            return Ok(());
        }
        return foreign("linked against another C library than glibc");
    }
    Err(Problem::Static(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_will_do() {
        check("sh".as_ref()).unwrap();
        check("/bin/sh".as_ref()).unwrap();
    }

    #[test]
    fn missing_programs_are_127() {
        for name in ["no-such-program", "/no/such/program", "./no-such"] {
            assert_eq!(check(name.as_ref()).unwrap_err().status(), 127, "{name}");
        }
        assert_eq!(check("/etc/passwd".as_ref()).unwrap_err().status(), 126);
        assert_eq!(check("/etc/".as_ref()).unwrap_err().status(), 126);
    }

    #[test]
    fn an_interpreter_is_found_behind_its_mark() {
        assert_eq!(interpreter(b"#! /bin/sh -e\n..."), Some("/bin/sh".into()));
        assert_eq!(
            interpreter(b"#!/usr/bin/env python3\n"),
            Some("/usr/bin/env".into())
        );
        assert_eq!(interpreter(b"#!\n"), None);
        assert_eq!(interpreter(b"echo"), None);
    }

    #[test]
    fn static_and_foreign_programs_are_told_apart() {
        let elf = |machine: u8, types: &[(u8, &[u8])]| {
            let mut file = vec![0; 64];
            file[..5].copy_from_slice(b"\x7fELF\x02");
            file[18] = machine;
            file[32] = 64;
            file[54] = 56;
            file[56] = u8::try_from(types.len()).unwrap();
            let mut data_at = 64 + 56 * types.len();
            for &(kind, data) in types {
                let mut entry = [0; 56];
                entry[0] = kind;
                entry[8] = u8::try_from(data_at).unwrap();
                entry[32] = u8::try_from(data.len()).unwrap();
                file.extend(entry);
                data_at += data.len();
            }
            for (_, data) in types {
                file.extend(*data);
            }
            file
        };
        let path = std::env::temp_dir().join(format!("hmm-run-elf.{}", std::process::id()));
        let try_it = |bytes: Vec<u8>| {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            check(path.as_os_str())
        };
        assert!(try_it(elf(62, &[(1, b""), (3, b"/lib64/ld-linux-x86-64.so.2\0")])).is_ok());
        assert!(matches!(
            try_it(elf(62, &[(1, b"")])),
            Err(Problem::Static(_))
        ));
        assert!(matches!(
            try_it(elf(183, &[(3, b"ld-linux")])),
            Err(Problem::Foreign(..))
        ));
        assert!(matches!(
            try_it(elf(62, &[(3, b"/lib/ld-musl\0")])),
            Err(Problem::Foreign(..))
        ));
        assert!(matches!(
            try_it(b"\x7fELF\x02".to_vec()),
            Err(Problem::Foreign(..))
        ));
        std::fs::remove_file(&path).unwrap();
    }
}
