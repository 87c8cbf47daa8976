# SPDX-License-Identifier: GPL-2.0
"""The loops of the kernel object: every function that jumps backwards is on a list that names its bound."""

from __future__ import annotations

import collections
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cache

LIST = cache.TREE / "rust" / "core.loops"


def listed() -> dict[str, int]:
    """Functions of the list, and how many backward jumps each may have."""
    result: dict[str, int] = {}
    for line in LIST.read_text().splitlines():
        if line and not line.startswith("#"):
            name, most, _bound = line.split(None, 2)
            result[name] = int(most)
    return result


def backward(core: Path) -> dict[str, int]:
    """Backward jumps per function, counted in the disassembled object; names without the crate's."""
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", core], capture_output=True, text=True, check=True).stdout
    found: collections.Counter[str] = collections.Counter()
    name, start = "", 0
    for line in text.splitlines():
        if head := re.match(r"([0-9a-f]+) <(.+)>:$", line):
            if not head[2].startswith(".L"):
                start, name = int(head[1], 16), head[2]
        elif jump := re.match(r"\s*([0-9a-f]+):\s+j\w+\s+([0-9a-f]+)\b", line):
            found[name] += start <= int(jump[2], 16) <= int(jump[1], 16)
    names = [name for name, count in found.items() if count]
    plain = subprocess.run(["c++filt", "-s", "rust"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    result: collections.Counter[str] = collections.Counter()
    for name, shown in zip(names, plain.splitlines(), strict=True):
        short = re.sub(r"hmm_core(\[\w+\])?::|[<>]|\{.*\}", "", shown)
        result[short] = max(result[short], found[name])
    return dict(result)


def unexplained(core: Path) -> Iterator[str]:
    """What the list does not explain."""
    known, found = listed(), backward(core)
    if len(found) < 10:
        yield f"only {len(found)} functions with loops were found in {core}: the disassembly was not understood"
    for name, count in sorted(found.items()):
        if count > known.get(name, 0):
            yield (f"{name} jumps backwards at {count} places, rust/core.loops knows {known.get(name, 0)}; "
                   "next: say in rust/core.loops what bounds it")
