# SPDX-License-Identifier: GPL-2.0
"""Builds the modules for a kernel of the list, in that kernel's own compiler environment."""

from __future__ import annotations

import filecmp
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import cache
import root
from kernel import Kernel
from progress import Failure, Step

CORE = cache.TARGET / "core" / "hmm_core.o"
CLIENTS = cache.TREE / "tests" / "kmod"
# Bugs on purpose have no business in a kernel that does not tell on them.
CHECKED_ONLY = "planted"

# What a build may not say: compiler, objtool, modpost and kbuild all use one of these words.
_COMPLAINT = re.compile(r"warning|objtool|\berror\b|undefined!", re.IGNORECASE)
# These are about the machine, not about the code.
_HARMLESS = re.compile(r"(the compiler|pahole version) differs from the one used to build the kernel|Clock skew|^\$ ")


@dataclass
class Modules:
    """The result of a build."""

    place: Path
    modules: list[Path]
    complaints: list[str] = field(default_factory=list)
    seconds: float = 0.0


def mirror(source: Path, target: Path) -> None:
    """Make the files of `target` equal to those of `source`; an equal file keeps its date, so kbuild rebuilds little.

    What a build left beside them stays. A file that is gone from the source goes here too, if it was mirrored before.
    """
    listing = target / ".mirrored"
    before = set(listing.read_text().splitlines()) if listing.exists() else set()
    now = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    for name in sorted(before - now):
        (target / name).unlink(missing_ok=True)
    for name in sorted(now):
        copy_if_new(source / name, target / name)
    target.mkdir(parents=True, exist_ok=True)
    listing.write_text("\n".join(sorted(now)) + "\n")


def copy_if_new(source: Path, target: Path) -> None:
    """Copy a file unless the same bytes are there already."""
    if target.exists() and filecmp.cmp(source, target, shallow=False):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def complaints(text: str) -> list[str]:
    """The lines of a build log that a clean build does not have."""
    return [line for line in text.splitlines() if _COMPLAINT.search(line) and not _HARMLESS.search(line)]


def build(kernel: Kernel, source: Path | None = None) -> Modules:
    """Build Kbuild, c/ and the core object, then every test client, for a kernel.

    `source` builds another directory with a Kbuild in it, alone.
    """
    with cache.locked(cache.TARGET / "build"):
        return _build(kernel, source)


def _build(kernel: Kernel, source: Path | None) -> Modules:
    place = cache.TARGET / "build" / (kernel.line.name if source is None else f"{kernel.line.name}-{source.name}")
    environment = root.get(kernel.line.root)
    identity = f"{kernel.key} {environment.name}\n"
    # Objects of another kernel, another compiler or a build with complaints are not built upon.
    marker = place / ".for"
    if place.exists() and not (marker.exists() and marker.read_text() == identity):
        shutil.rmtree(place)
    place.mkdir(parents=True, exist_ok=True)

    clients: list[Path] = []
    if source is None:
        if not CORE.exists():
            raise Failure("the core object is missing", hint="make core")
        copy_if_new(cache.TREE / "Kbuild", place / "Kbuild")
        mirror(cache.TREE / "c", place / "c")
        copy_if_new(CORE, place / "hmm_core.o_shipped")
        if CLIENTS.exists():
            mirror(CLIENTS, place / "tests" / "kmod")
            clients = sorted(kbuild.parent for kbuild in CLIENTS.glob("*/Kbuild")
                             if kernel.checked or kbuild.parent.name != CHECKED_ONLY)
    else:
        mirror(source, place)

    marker.unlink(missing_ok=True)
    with Step(f"modules for {kernel.release}", f"build-{place.name}") as step:
        assert step.log
        _make(step, environment, kernel, place, ["M=/build"])
        for client in clients:
            _make(step, environment, kernel, place,
                  [f"M=/build/{client.relative_to(cache.TREE)}", "KBUILD_EXTRA_SYMBOLS=/build/Module.symvers"])
        found = complaints(step.log.read_text(errors="replace"))
        step.note = f"{len(found)} complaints" if found else ""
    if not found:
        marker.write_text(identity)
    modules = [path for path in sorted(place.rglob("*.ko")) if kernel.checked or path.parent.name != CHECKED_ONLY]
    return Modules(place, modules, found, step.elapsed())


# Debian's headers lack the script that C=2 asks whether there is a sparse, and the sparse of Debian 13 lacks two things
# that its kernels use: a keyword, and the length of a constant string as a constant.
_SPARSE = ["KBUILD_CHECKSRC=2", "CF=-D__typeof_unqual__=__typeof__ '-D__builtin_strlen(s)=(sizeof(s)-1)'"]


def sparse(kernel: Kernel, modules: Modules) -> list[str]:
    """What sparse says about our own files, as they were just built; it has to have looked at each of them."""
    environment = root.get(kernel.line.root)
    with cache.locked(cache.TARGET / "build"), Step(f"sparse for {kernel.release}", f"sparse-{kernel.line.name}") as step:
        assert step.log
        _make(step, environment, kernel, modules.place, ["M=/build", *_SPARSE])
        text = step.log.read_text(errors="replace")
    built = {str(path.relative_to(modules.place).with_suffix(".c")) for path in (modules.place / "c").rglob("*.o")}
    asked = set(re.findall(r"^  CHECK +(?:/build/)?(\S+)$", text, re.MULTILINE))
    unasked = sorted(name for name in built - asked if (modules.place / name).exists())
    return [line for line in complaints(text) if "is not available or not up to date" not in line] + \
           [f"{name} was not looked at" for name in unasked]


def _make(step: Step, environment: Path, kernel: Kernel, place: Path, words: list[str]) -> None:
    make = ["make", "-C", f"/lib/modules/{kernel.release}/build", "-j2", "W=1", *words, "modules"]
    if kernel.line.cc:
        make.insert(-1, f"CC={kernel.line.cc}")
    step.run(root.command(environment, kernel.tree, place, make), shown=["(in", f"{environment.name})", *make],
             hint=f"make matrix-build KERNEL={kernel.line.name} builds only this")
