# SPDX-License-Identifier: GPL-2.0
"""Prints where the parts of the kernel's source are that the benches compile as peers: `make bench` runs it.

They come from Debian's newest linux-source package of the list of kernels, through apt, and are kept in the cache. When
there is none, nothing is printed and the reason goes to stderr: the benches then run without these peers, and say so.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "vm"))

import cache
import kernel
from progress import Failure, Step

# Directories and files below the root of the source.
_PARTS = ["include", "lib", "tools/include", "tools/lib", "tools/testing/shared", "tools/arch/x86/include",
          "drivers/gpu/buddy.c", "drivers/gpu/drm/drm_buddy.c"]


def parts() -> Path:
    """The directory with the parts, made when it is missing."""
    package = kernel.source_package(kernel.lines()[0])
    place = cache.CACHE / "bench-source" / f"{package}-{cache.digest(*_PARTS)}"
    source = None if place.exists() else kernel.source(package)
    with cache.locked():
        if source and not place.exists():
            with Step(f"parts of the source of Linux {package.version}", "bench-source") as step, cache.made(place) as draft:
                wanted = [f"linux-source-*/{part}" for part in _PARTS]
                # A series may lack one of them, which is not an error here: what compiles without it is measured.
                step.run(["sh", "-c", 'tar -x -C "$0" --strip-components=1 --wildcards -f "$@" || test -d "$0/lib"',
                          draft, source, *wanted])
    return cache.used(place)


def main() -> int:
    """Print the directory, or say why there is none."""
    os.chdir(cache.TREE)
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        print(parts(), file=out)
    except Failure as failure:
        failure.show(sys.stderr)
        print("the benches run without the kernel's structures as peers", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
