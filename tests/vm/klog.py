# SPDX-License-Identifier: GPL-2.0
"""Judges a kernel log: which of its lines a clean run does not have."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Words of the kernel's own reports: of any of them, at any level, one line is too many.
_REPORT = re.compile(
    r"\bWARNING:|\bBUG:|kernel BUG at|\bOops\b|Call Trace:|general protection fault|Kernel panic|"
    r"INFO: task .* blocked|detected stalls? on|self-detected stall|soft lockup|hard LOCKUP|hung_task|"
    r"Bad page (state|map)|Bad rss-counter|non-zero pgtables_bytes|refcount_t:|list_(add|del) corruption|"
    r"use-after-free|Out of memory: Killed|unreferenced object|UBSAN:|KASAN:|possible .*deadlock|"
    r"turning off the locking correctness validator|DEBUG_LOCKS_WARN_ON")
# Our modules' names, as they stand in a message.
_OURS = re.compile(r"hmm[_-](devmem|dmirror|core|port|vram)")
# Every module from outside the kernel's tree causes these two, whatever it does.
_ALLOWED = re.compile(r"loading out-of-tree module taints kernel|"
                      r"module verification failed: signature and/or required key missing - tainting kernel")
# A test that provokes an error says so in the log before, and that it is over afterwards (then without a pattern).
_EXPECT = re.compile(r"hmm-vm: expect(?: (.+))?$")
_RAW = re.compile(r"<(\d+)>(.*)")
WARNING = 4

# Bits of /proc/sys/kernel/tainted that an out-of-tree, unsigned module sets.
ALLOWED_TAINT = (1 << 12) | (1 << 13)
_TAINTS = "PFSRMBUDAWCIOELKXTNJ"


def complaints(lines: Iterable[str]) -> list[str]:
    """The lines of a raw kernel log (`<level>[time] text`, or console lines without a level) that fail a run."""
    found = []
    expected: re.Pattern[str] | None = None
    for line in lines:
        match = _RAW.match(line)
        level, text = (int(match[1]) & 7, match[2]) if match else (6, line)
        if _ALLOWED.search(text):
            continue
        if note := _EXPECT.search(text):
            expected = re.compile(note[1]) if note[1] else None
            continue
        if expected and _OURS.search(text) and expected.search(text) and not _REPORT.search(text):
            continue
        if "hmm-vm: " in text and level == 4:  # our own notes from init.sh
            continue
        if _REPORT.search(text) or (level <= WARNING and _OURS.search(text)):
            found.append(line)
    return found


def since_start(lines: list[str]) -> list[str]:
    """The part of a log from the moment our init began to work."""
    for number, line in enumerate(lines):
        if "hmm-vm: start" in line:
            return lines[number:]
    return lines


def taint(number: int) -> str:
    """The letters of the taint flags beyond the allowed ones; empty when there are none."""
    beyond = number & ~ALLOWED_TAINT
    return "".join(_TAINTS[bit] if bit < len(_TAINTS) else f"<{bit}>" for bit in range(64) if beyond >> bit & 1)
