# SPDX-License-Identifier: GPL-2.0
"""Rules of the house that a machine can check: each is one test over the files that git knows."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cache
import readme

# Files whose form has no place for a licence line.
_NO_LICENCE_LINE = {"COPYING", "Cargo.lock", ".gitignore"}
_BRANCH = re.compile(r"^\s*#\s*(?:el)?if(?:n?def)?\b")
# The only questions that a source file may ask of the preprocessor: which of the old APIs its client wants, whether it is
# read by a kernel at all, and what it defines or is told by its own Kbuild.
_OWN_WORDS = re.compile(r"HMM_API|__KERNEL__|__cplusplus|__noreturn|TRACE_HEADER_MULTI_READ|HMM_DRAFT_\w+|PROBE_\w+|\w+_H")
# Split, so that this file does not break its own rules.
_OPEN_ENDS = re.compile(r"\b(?:TO" + "DO|FIX" + "ME|XX" + r"X)\b")
_ADDRESS = re.compile(r"\b(?:https?|ftp)://[\w.-]+\.[a-z]{2,}", re.IGNORECASE)
_PLACE = re.compile(r"(?<![\w.])/(?:" + "work|home|root" + r")/\w")


def files() -> list[Path]:
    """Every file that is part of the project: those of git, or all when this is an unpacked archive."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=cache.TREE, capture_output=True, text=True, check=False)
    names = [Path(name) for name in listing.stdout.split("\0") if name]
    if listing.returncode or not names:
        names = [path.relative_to(cache.TREE) for path in cache.TREE.rglob("*")
                 if path.is_file() and path.relative_to(cache.TREE).parts[0] not in ("target", ".git")]
    return sorted(name for name in names if (cache.TREE / name).is_file())


def _version_branches() -> Iterator[str]:
    """Branches on anything that a kernel decides."""
    for hit in _lines(_is_kernel_code, _BRANCH):
        name, number, text = hit.split(":", 2)
        following = (cache.TREE / name).read_text().splitlines()[int(number):][:2]
        if not is_own_question(text.strip(), following):
            yield hit


def is_own_question(text: str, following: list[str]) -> bool:
    """Whether a branch asks nothing of the kernel; `#ifndef X` right before `#define X` is a default, not a branch."""
    default = re.fullmatch(r"#\s*ifndef\s+(\w+)", text)
    if default and any(re.match(rf"\s*#\s*define\s+{default[1]}\b", line) for line in following):
        return True
    words = re.findall(r"[A-Za-z_]\w*", text)[1:]
    return all(word == "defined" or _OWN_WORDS.fullmatch(word) for word in words) and not text.endswith("\\")


def _lines(wanted: Callable[[Path], bool], pattern: re.Pattern[str]) -> Iterator[str]:
    for name in files():
        if wanted(name):
            for number, line in enumerate((cache.TREE / name).read_text(errors="replace").splitlines(), 1):
                if pattern.search(line):
                    yield f"{name}:{number}: {line.strip()}"


def _without_licence() -> Iterator[str]:
    for name in files():
        if name.parts[:3] == ("tests", "fuzz", "corpus"):
            continue  # what a fuzzer feeds to a program is bytes, all of them
        head = (cache.TREE / name).read_text(errors="replace")[:400]
        if name.name not in _NO_LICENCE_LINE and name.suffix != ".md" and "SPDX-License-Identifier: GPL-2.0" not in head:
            yield str(name)


def _missing_links() -> Iterator[str]:
    for page in filter(lambda name: name.suffix == ".md", files()):
        for link in re.findall(r"\]\(([^)#\s]+)", (cache.TREE / page).read_text()):
            if not (cache.TREE / page.parent / link).is_file():
                yield f"{page}: there is no {link}" + ("; next: make demo && make readme" if link.startswith("pictures/") else "")


def _unformatted() -> Iterator[str]:
    # The second workspace is the fuzzers'.
    for place in (cache.TREE, cache.TREE / "tests" / "fuzz"):
        check = subprocess.run(["cargo", "fmt", "--all", "--", "--check", "--color=never"], cwd=place, capture_output=True, text=True,
                               check=False)
        if check.returncode:
            yield from (check.stdout + check.stderr).splitlines()[:40]
            yield "next: cargo fmt --all"


def _uncited() -> Iterator[str]:
    """Compile probes that do not say which change of the kernel they are about, and since which release."""
    for probe in sorted((cache.TREE / "c" / "compat" / "probes").glob("*.c")):
        comment = probe.read_text().partition("*/")[0]
        if "expect:" in comment and not re.search(r'upstream: [^"]*"[^"]+"\)?, \d+\.\d+', comment):
            yield str(probe.relative_to(cache.TREE))


def _is_code(name: Path) -> bool:
    return name.name not in ("Cargo.lock", "COPYING")


def _is_kernel_code(name: Path) -> bool:
    place = name.parts[:2]
    return name.suffix in (".c", ".h", ".S") and (place[0] == "c" and place[1] != "compat" or place == ("tests", "kmod"))


RULES: dict[str, Callable[[], Iterator[str]]] = {
    "every file names its licence": _without_licence,
    "the driver in README.md is the one that is compiled": readme.stale,
    "every picture and link of a page is there": _missing_links,
    "no version or feature #if outside c/compat": _version_branches,
    "every compile probe names the change that it is about, and its release": _uncited,
    "Rust is as rustfmt writes it": _unformatted,
    "nothing is left open": lambda: _lines(_is_code, _OPEN_ENDS),
    # A picture names its name space, which looks like an address.
    "no host is written down": lambda: _lines(lambda name: _is_code(name) and name.suffix != ".svg", _ADDRESS),
    "no path of one machine is written down": lambda: _lines(_is_code, _PLACE),
}
