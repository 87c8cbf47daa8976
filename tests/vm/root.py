# SPDX-License-Identifier: GPL-2.0
"""Build roots: a small Debian with a compiler, one per distribution, in the cache.

A kernel's modules are built by the compiler and with the tools of its own distribution. Commands run in a root in a
mount namespace of their own: whatever is mounted there is gone when the command ends, however it ends.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import cache
import kernel
from progress import Failure, Step

RECIPE = "1"  # changes with what a root contains


def need_root() -> None:
    """Build roots are made and entered by root; say so before anything else fails in a less clear way."""
    if os.geteuid() != 0:
        raise Failure("build roots need root", hint="run the same command as root (sudo make ...)")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        raise Failure("this machine forbids a private mount namespace (unshare --mount)",
                      hint="run on a machine or in a container with CAP_SYS_ADMIN")


def get(name: str) -> Path:
    """The root of a distribution, made if it is not there. Its name holds the versions of what is in it."""
    need_root()
    entry = kernel.table()["roots"][name]
    source = kernel.archive()
    with cache.locked():
        source.refresh()
        newest: dict[str, str] = {}
        for package in source.versions(entry["packages"], entry["suites"]):
            newest.setdefault(package.name, package.version)
        key = cache.digest(RECIPE, *(f"{name}={newest.get(name)}" for name in entry["packages"]))
        place = cache.CACHE / "roots" / f"{name}-{key}"
        if not place.exists():
            _make(name, place, entry)
        return cache.used(place)


def _make(name: str, place: Path, entry: dict[str, list[str]]) -> None:
    source = kernel.archive()
    wanted = [text for text in source.sources.splitlines() if text.split()[-2] in entry["suites"]]
    with Step(f"build root {name}", f"root-{name}") as step, cache.made(place) as draft:
        listing = cache.LOGS / f"root-{name}.list"
        listing.write_text("\n".join(wanted) + "\n")
        step.run(["mmdebstrap", "--mode=root", "--variant=minbase", "--architectures=amd64",
                  "--include=" + ",".join(entry["packages"]), "--aptopt=Acquire::Languages \"none\"",
                  # A root that a power cut spoils is made again: no need to wait for the disk after every file.
                  "--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
                  "--dpkgopt=path-exclude=/usr/share/locale/*",
                  entry["suites"][0], draft, listing],
                 hint="make update, then the same again")
        for folder in ("build", "usr/src", "usr/lib/modules"):
            (draft / folder).mkdir(parents=True, exist_ok=True)


def command(place: Path, tree: Path, build: Path, words: list[str]) -> list[str]:
    """The command that runs `words` in a root, with a kernel's tree in its usual places and `build` at /build."""
    binds = [(build, "build")]
    binds += [(tree / folder, folder) for folder in ("usr/src", "usr/lib/modules")]
    binds += [(tools, f"usr/lib/{tools.name}") for tools in sorted((tree / "usr/lib").glob("linux-kbuild-*"))]
    return enter(place, binds, words)


def enter(place: Path, binds: list[tuple[Path, str]], words: list[str]) -> list[str]:
    """The command that runs `words` in a root, with each path of this machine mounted where it is wanted there."""
    script = ["set -e"]
    arguments: list[str] = []
    for source, target in binds:
        if source.exists():
            arguments += [str(source), str(place / target)]
            first = len(arguments) - 1
            script.append(f'mkdir -p "${{{first + 1}}}"; mount --bind "${{{first}}}" "${{{first + 1}}}"')
    arguments.append(str(place))
    at = f'"${{{len(arguments)}}}"'
    script += [f"mount --bind /dev {at}/dev", f"mount -t proc proc {at}/proc", f"root={at}", f"shift {len(arguments)}",
               'exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/build "$@"']
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "; ".join(script), "sh", *arguments, *words]
