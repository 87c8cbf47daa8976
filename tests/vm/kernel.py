# SPDX-License-Identifier: GPL-2.0
"""The kernels of kernels.toml: which packages they are today, and their files in the cache."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cache
from archive import Archive, Package
from progress import Failure, Step, say

LIST = Path(__file__).with_name("kernels.toml")


@dataclass(frozen=True)
class Line:
    """One line of the list."""

    name: str
    series: str
    suites: tuple[str, ...]
    root: str
    flavour: str = ""
    config: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    offers: tuple[str, ...] = ("mirror",)
    suite: str = ""
    sparse: bool = False
    selftests: str = ""
    cc: str = ""

    @property
    def append(self) -> tuple[str, ...]:
        """What its command line has besides: a report of all that is wrong and none for being slow, and disks as disk.py makes.

        And page tables of four levels: a timer that rings in 7.3's identify_cpu(), which forgets the five for a moment,
        has KASAN find every address wild, and the machine never comes up.
        """
        return ("kasan_multi_shot", "watchdog_thresh=60", "brd.rd_nr=2", "brd.rd_size=65536", "no5lvl") if self.config else ()

    @property
    def slow(self) -> int:
        """How many times longer everything may take than alone on a fast machine: lanes share the processors (check.py)."""
        return 4 if self.config else 2

    def machines(self, every: bool) -> tuple[str, ...]:
        """Those that `make test` boots it in, or all."""
        return self.runs + self.more if every else self.runs


@dataclass(frozen=True)
class Machine:
    """What a kernel is booted in."""

    name: str
    memory: int
    append: tuple[str, ...]
    modules: tuple[str, ...]
    files: tuple[str, ...] = ()
    bind: tuple[str, ...] = ()
    own: bool = False
    qemu: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kernel:
    """A kernel whose files are in the cache."""

    line: Line
    release: str
    version: str
    place: Path

    @property
    def checked(self) -> bool:
        """A sanitizer kernel."""
        return bool(self.line.config)

    @property
    def key(self) -> str:
        """Names exactly this build of the kernel."""
        return f"{self.release}_{self.version}"

    @property
    def image(self) -> Path:
        """The unmodified boot image."""
        return self.place / "vmlinuz"

    @property
    def tree(self) -> Path:
        """The headers and the build tools, laid out as on an installed system."""
        return self.place / "tree"


@functools.cache
def table() -> Mapping[str, Any]:
    """The list as it stands in the file."""
    return tomllib.loads(LIST.read_text())


def frozen(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of a TOML file as the fields of a frozen class."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def lines() -> list[Line]:
    """All lines of the list, in its order."""
    return [Line(**frozen(entry)) for entry in table()["kernels"]]


def line(name: str) -> Line:
    """The line that KERNEL= names."""
    for entry in lines():
        if entry.name == name:
            return entry
    raise Failure(f"there is no kernel '{name}' in the list", hint="KERNEL= one of: " + " ".join(k.name for k in lines()))


def machine(name: str) -> Machine:
    """A machine of the list."""
    entry = table()["machines"].get(name)
    if entry is None:
        raise Failure(f"there is no machine '{name}' in the list", hint="one of: " + " ".join(table()["machines"]))
    # One may be like another but for some fields.
    entry = table()["machines"].get(entry.get("like"), {}) | entry
    return Machine(name, **frozen({key: value for key, value in entry.items() if key != "like"}))


@functools.cache
def archive() -> Archive:
    """One archive with every suite that the list mentions."""
    suites: dict[str, None] = {}
    for entry in [*table()["kernels"], *table()["roots"].values()]:
        suites.update(dict.fromkeys(entry["suites"]))
    return Archive(list(suites))


def _sets(entry: Line) -> list[list[Package]]:
    """The complete sets of packages for a line, the newest first; headers are the first of each set."""
    source = archive()
    release = re.compile(rf"linux-headers-({re.escape(entry.series)}\.\d+[0-9a-zA-Z.+~]*(?:-\d+)?-{re.escape(entry.flavour)})")
    headers = [name for name in source.names(f"linux-headers-{entry.series}") if release.fullmatch(name)]
    result = []
    for head in source.versions(headers, list(entry.suites)):
        match = release.fullmatch(head.name)
        assert match
        parts = [head]
        # From 7.x on the image lies in linux-binary-*, before that in linux-image-*.
        images = source.versions([f"linux-binary-{match[1]}", f"linux-image-{match[1]}"], list(entry.suites))
        images = sorted((p for p in images if p.version == head.version), key=lambda p: p.name)
        tools = {name: version for name, version in source.depends(head).items()
                 if name.startswith(("linux-headers-", "linux-kbuild-"))}
        for name, version in tools.items():
            fitting = source.versions([name], list(entry.suites))
            exact = [p for p in fitting if p.version == (version or head.version)]
            parts += (exact or fitting)[:1]
        if images and len(parts) == 1 + len(tools) and len(tools) >= 2:
            result.append([*parts, images[0]])
    return result


def resolve(entry: Line) -> list[list[Package]]:
    """The candidates for a line, computed once per state of the package lists."""
    source = archive()
    source.refresh()
    memory = source.place / f"line-{cache.digest(repr(entry), Path(__file__).read_text())}.json"
    if memory.exists() and memory.stat().st_mtime >= source.stamp.stat().st_mtime:
        return [[Package(**fields) for fields in parts] for parts in json.loads(memory.read_text())]
    sets = _sets(entry)
    if not sets:
        raise Failure(f"no complete set of packages for kernel {entry.name} in {', '.join(entry.suites)}",
                      hint="make update; if it stays so, the line in tests/vm/kernels.toml needs other suites")
    memory.write_text(json.dumps([[vars(part) for part in parts] for parts in sets[:3]]))
    return sets


def source_package(entry: Line, series: str = "") -> Package:
    """The newest source package for a line, or of another series from wherever the list has it."""
    wanted = series or entry.series
    suites = [name for line in [entry, *lines()] if line is entry or line.series == wanted for name in line.suites]
    found = archive().versions([f"linux-source-{wanted}"], suites)
    own = [package for package in found if package.suite in entry.suites]
    if not found:
        raise Failure(f"no linux-source-{wanted} in {', '.join(dict.fromkeys(suites))}", hint="make update")
    return (own or found)[0]


def source(package: Package) -> Path:
    """The source archive (.tar.xz) of a source package, in the cache."""
    place = cache.CACHE / "source" / str(package)
    with cache.locked():
        if not place.exists():
            with Step(f"source of Linux {package.version}", "source") as step, cache.made(place) as draft:
                archive().download([package], draft, step)
                step.run(["sh", "-c", "dpkg-deb --fsys-tarfile *.deb | tar -xO --wildcards '*.tar.xz' >source.tar.xz && rm -f *.deb"],
                         cwd=draft)
    return cache.used(place) / "source.tar.xz"


def fetch(entry: Line) -> Kernel:
    """The newest kernel of a line, in the cache. A package may be missing on a mirror that lists it: then the next older."""
    if entry.config:
        import sanitizer  # it needs this module, too
        return sanitizer.fetch(entry)
    with cache.locked():
        last: Failure | None = None
        for parts in resolve(entry):
            head = parts[0]
            release = head.name.removeprefix("linux-headers-")
            kernel = Kernel(entry, release, head.version, cache.CACHE / "kernels" / f"{release}_{head.version}")
            if kernel.place.exists():
                cache.used(kernel.place)
                return kernel
            if last:
                say(f"  (taking the next older one: {release} {head.version})")
            try:
                _unpack(kernel, parts)
                return kernel
            except Failure as failure:
                last = failure
                say(f"  (kernel {release} {head.version} could not be fetched whole)")
        assert last
        raise last


def _unpack(kernel: Kernel, parts: list[Package]) -> None:
    with Step(f"kernel {kernel.release}", f"fetch-{kernel.line.name}") as step, cache.made(kernel.place) as draft:
        debs = draft / "deb"
        debs.mkdir()
        archive().download(parts, debs, step)
        tree = draft / "tree"
        (tree / "usr/lib").mkdir(parents=True)
        (tree / "lib").symlink_to("usr/lib")
        for deb in sorted(debs.iterdir()):
            boots = deb.name.startswith(("linux-binary-", "linux-image-"))
            # Of the image package only the image is wanted, not the hundreds of megabytes of modules.
            only = ["--wildcards", "--no-anchored", "vmlinuz*"] if boots else []
            folder = draft / "image" if boots else tree
            folder.mkdir(exist_ok=True)
            step.run(["sh", "-c", 'set -e; dpkg-deb --fsys-tarfile "$1" >"$1.tar"; shift; exec "$@"', "sh", deb,
                      "tar", "-x", "--keep-directory-symlink", "-C", folder, "-f", f"{deb}.tar", *only])
        images = [path for path in (draft / "image").rglob("vmlinuz*") if path.is_file()]
        if len(images) != 1:
            raise Failure(f"kernel {kernel.release}: the image package holds {len(images)} images", step.log)
        images[0].rename(draft / "vmlinuz")
        subprocess.run(["rm", "-rf", debs, draft / "image"], check=True)
        step.note = kernel.version
