# SPDX-License-Identifier: GPL-2.0
"""A disk for the machines: the kernel's own RAM disk driver, brd.ko, from the packages of the very kernel.

Of all modules of a kernel this is the only one that is wanted: for a swap device and for O_DIRECT. Debian does not build
it in; a kernel of ours does, and then there is nothing to fetch.
"""

from __future__ import annotations

import lzma
import subprocess
from pathlib import Path

import cache
import kernel
from archive import Package
from initramfs import Tree
from kernel import Kernel
from progress import Failure, Step

_SCRIPT = """#!/bin/sh -e
# /dev/ram0 becomes swap, /dev/ram1 is free for tests.
[ -e /dev/ram1 ] || insmod /modules/disk/brd.ko rd_nr=2 rd_size=65536
grep -q ram0 /proc/swaps || { mkswap /dev/ram0 >/dev/null; swapon /dev/ram0; }
"""


def module(found: Kernel) -> Path | None:
    """brd.ko of a kernel, in the cache; None if its packages have none."""
    place = cache.CACHE / "peer" / f"{found.key}-disk"
    with cache.locked():
        if not place.exists():
            archive = kernel.archive()
            # From 7.x on modules lie in linux-modules-*, before that beside the image.
            names = [f"linux-modules-{found.release}", f"linux-image-{found.release}"]
            packages = [p for p in archive.versions(names, list(found.line.suites)) if p.version == found.version]
            packages.sort(key=lambda package: names.index(package.name))
            if not packages:
                return None
            with Step(f"RAM disk of {found.release}", "disk") as step, cache.made(place) as draft:
                _take(packages[0], draft, step)
    brd = cache.used(place) / "brd.ko"
    return brd if brd.exists() else None


def _take(package: Package, draft: Path, step: Step) -> None:
    [deb] = kernel.archive().download([package], draft, step)
    step.run(["sh", "-c", 'set -e; dpkg-deb --fsys-tarfile "$1" | tar -x --wildcards --no-anchored "brd.ko*"', "sh", deb],
             cwd=draft)
    deb.unlink()
    found = list(draft.rglob("brd.ko*"))
    if len(found) != 1:
        raise Failure(f"{package} has {len(found)} files called brd.ko*", step.log)
    data = found[0].read_bytes()
    (draft / "brd.ko").write_bytes(lzma.decompress(data) if found[0].suffix == ".xz" else data)
    for entry in draft.iterdir():
        if entry.name != "brd.ko":
            subprocess.run(["rm", "-rf", entry], check=True)


def equip(tree: Tree, found: Kernel) -> None:
    """Put it into a machine, with /modules/disk/on, which makes the disks."""
    brd = module(found)
    if brd:
        tree.add(brd, "/modules/disk/brd.ko")
    else:
        (tree.place / "modules/disk").mkdir()
    script = tree.place / "modules/disk/on"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
