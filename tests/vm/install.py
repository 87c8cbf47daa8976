# SPDX-License-Identifier: GPL-2.0
"""`make test-install`: what reaches other machines. The release archive, the packages, DKMS, signatures."""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path

import build
import cache
import kernel
import root
import rules
from progress import Failure, Step
from results import Results

PLACE = cache.TARGET / "install"
GROUP = "install"
# Any date will do for what must not depend on the date.
EPOCH = "1750000000"


def version() -> str:
    """The version of this tree."""
    for line in (cache.TREE / "Cargo.toml").read_text().splitlines():
        if line.startswith("version = "):
            return line.split('"')[1]
    raise Failure("Cargo.toml names no version")


def fresh(name: str) -> Path:
    """An empty directory for one test."""
    place = PLACE / name
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    return place


def archive(results: Results) -> Path:
    """The release archive: two clones make the same bytes of it, and modules come from it without Rust. Returns it."""
    made = []
    with Step("release archive, made twice", "install-dist") as step:
        # The path, the dates of the files and the umask differ; the bytes must not.
        for number, name in enumerate(("one", "another-clone/of-the-same")):
            clone = fresh(name) / "hmm"
            for file in rules.files():
                (clone / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(cache.TREE / file, clone / file)
                os.utime(clone / file, (1_600_000_000 + number * 1_000_000,) * 2)
            step.run(["sh", "-c", f"umask 0{number * 5}2; exec make dist"], cwd=clone,
                     env={"SOURCE_DATE_EPOCH": EPOCH, "TZ": f"UTC{number}"}, hint="make dist")
            made.append(clone)
    name = f"hmm-devmem-{version()}.tar.xz"
    for what, path in (("core object", "target/core/hmm_core.o"), ("release archive", f"target/dist/{name}")):
        files = [clone / path for clone in made]
        results.add(GROUP, f"two clones make the same {what}, byte by byte", filecmp.cmp(*files, shallow=False),
                    [f"compare {files[0]} and {files[1]}"])
    _unpacked(results, made[0] / "target/dist" / name)
    return made[0] / "target/dist" / name


def _unpacked(results: Results, tarball: Path) -> None:
    """Build from an archive in a root that has no Rust, and make the archive again from itself."""
    found = kernel.fetch(kernel.line("6.1"))
    environment = root.get(found.line.root)
    place = fresh("unpacked")
    source = place / tarball.name.removesuffix(".tar.xz")
    with Step("modules from the archive, without Rust", "install-unpacked") as step:
        step.run(["tar", "-xf", tarball, "-C", place])
        bare = subprocess.run(root.command(environment, found.tree, place, ["sh", "-c", "command -v rustc cargo python3"]),
                              capture_output=True, text=True, check=False)
        results.add(GROUP, "the build root has neither Rust nor Python", not bare.stdout, [bare.stdout])
        step.run(root.command(environment, found.tree, place,
                              ["make", "-C", f"/build/{source.name}", f"KVER={found.release}"]),
                 shown=["make", f"KVER={found.release}"])
        assert step.log
        told = build.complaints(step.log.read_text(errors="replace"))
    results.add(GROUP, "the archive builds without a complaint", not told, told)
    modules = {path.name for path in source.rglob("*.ko")}
    results.add(GROUP, "it builds every module", modules >= {"hmm_devmem.ko", "hmm_dmirror.ko"}, sorted(modules))
    with Step("the archive of the archive", "install-again") as step:
        step.run(["make", "-C", source, "dist"], env={"SOURCE_DATE_EPOCH": EPOCH})
    results.add(GROUP, "an unpacked archive makes itself again",
                filecmp.cmp(tarball, source / "target/dist" / tarball.name, shallow=False))
    with Step("a newer source asks for Rust", "install-newer") as step:
        os.utime(source / "rust/lib.rs")
        try:
            step.run(root.command(environment, found.tree, place, ["make", "-C", f"/build/{source.name}", "core"]))
            told = ["the old object was taken although a source is newer"]
        except Failure:
            assert step.log
            text = step.log.read_text(errors="replace")
            told = [] if "no Rust compiler that can build kernel code" in text else text.splitlines()
    results.add(GROUP, "a changed core is not silently the old one", not told, told)


def everything(results: Results) -> None:
    """All of them, in the order in which one needs the other."""
    archive(results)


def main() -> int:
    """Parse the command line."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        os.environ.pop(name, None)
    os.chdir(cache.TREE)
    results = Results()
    try:
        everything(results)
    except Failure as failure:
        failure.show()
        results.add("machinery", failure.what, False)
    return results.close()


if __name__ == "__main__":
    sys.exit(main())
