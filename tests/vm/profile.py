# SPDX-License-Identifier: GPL-2.0
"""Where the instructions of a page's way are: every one that is executed, counted at its address and given to its function.

instructions.c, a plugin for QEMU, counts; /proc/kallsyms of the machine names the addresses. Nothing is sampled, and the
counts are those of `-icount`: they repeat exactly, whatever else the host does.
"""

from __future__ import annotations

import base64
import bisect
import gzip
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import boot
import cache
from progress import Step

SOURCE = Path(__file__).with_name("instructions.c")
# The marks that pages.c sets, from 1 on.
MARKS = [(size, op) for size in ("4K", "2M")
         for op in ("to device", "to RAM by request", "to RAM by fault, in order", "to RAM by fault, scattered")]
SYMBOLS = "grep -i ' [tw] ' /proc/kallsyms | gzip -c | base64"
# What copies and what clears a page, in whatever kernel.
_COPY = re.compile(r"copy_(page|mc|highpage)|memcpy")
_ZERO = re.compile(r"clear_page|memset|kernel_init_pages")


def plugin() -> Path:
    """The plugin, compiled."""
    made = cache.TARGET / "user" / "instructions.so"
    made.parent.mkdir(parents=True, exist_ok=True)
    with Step("plugin for QEMU", "bench") as step:
        step.run(["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o", made, SOURCE])
    return made


@dataclass(frozen=True)
class Place:
    """A function; `module` is empty for the kernel itself."""

    module: str
    name: str

    @property
    def part(self) -> str:
        """What it is counted as."""
        if self.name == "program":
            return "the program"
        if self.module == "hmm_devmem":
            return "the engine"
        if _COPY.match(self.name):
            return "the copy"
        if _ZERO.match(self.name):
            return "zeroing"
        return "the driver" if self.module else "the kernel"


PARTS = ["the engine", "the driver", "the copy", "zeroing", "the kernel", "the program"]


class Symbols:
    """Functions by address, as a machine said them."""

    def __init__(self, lines: list[str]) -> None:
        text = gzip.decompress(base64.b64decode("".join(lines))).decode()
        found = sorted((int(words[0], 16), words[2], words[3].strip("[]") if len(words) > 3 else "")
                       for line in text.splitlines() if len(words := line.split()) >= 3)
        self._at = [address for address, _, _ in found]
        self._places = [Place(module, name) for _, name, module in found]

    def place(self, address: int) -> Place:
        """The function that an address is in; 0 is the program."""
        if not address:
            return Place("", "program")
        at = bisect.bisect_right(self._at, address) - 1
        return self._places[at] if at >= 0 else Place("", "?")


def read(counts: Path, symbols: Symbols) -> dict[tuple[str, str], Counter[Place]]:
    """What the plugin wrote, by size, operation and function."""
    found: dict[tuple[str, str], Counter[Place]] = {}
    for line in counts.read_text().splitlines():
        mark, address, count = line.split()
        found.setdefault(MARKS[int(mark) - 1], Counter())[symbols.place(int(address, 16))] += int(count)
    return found


def jobs(load: str, command: str) -> list[boot.Job]:
    """What is run in the machine; the last one's output is for Symbols."""
    return [boot.Job("load", load, 60), boot.Job("pages", command, 600), boot.Job("symbols", SYMBOLS, 300)]
