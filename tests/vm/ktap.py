# SPDX-License-Identifier: GPL-2.0
"""Reads KTAP, the kernel's form of the Test Anything Protocol, with its nested subtests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_RESULT = re.compile(r"(?P<indent>\s*)(?P<verdict>ok|not ok)\b\s*(?P<number>\d+)?\s*(?:-\s*)?(?P<rest>.*)")
_PLAN = re.compile(r"(?P<indent>\s*)1\.\.(?P<count>\d+)\s*(?:#\s*SKIP\b\s*(?P<reason>.*))?$", re.IGNORECASE)
_VERSION = re.compile(r"\s*(KTAP|TAP) version \d+")
_DIRECTIVE = re.compile(r"\s+#\s*(SKIP|XFAIL)\b\s*(.*)$", re.IGNORECASE)


@dataclass
class Result:
    """One test of the lowest level."""

    name: str
    passed: bool
    skipped: bool = False
    reason: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass
class _Level:
    indent: int
    planned: int | None = None
    seen: int = 0
    results: list[Result] = field(default_factory=list)


def parse(lines: Iterable[str]) -> list[Result]:
    """The results of the lowest level. A plan that was not kept, or an output without any plan, is a failed result."""
    levels = [_Level(0)]
    notes: list[str] = []
    spoke = False
    for line in lines:
        if _VERSION.match(line):
            spoke = True
            indent = len(line) - len(line.lstrip())
            if indent > levels[-1].indent:
                levels.append(_Level(indent))
            continue
        if plan := _PLAN.match(line):
            spoke = True
            indent = len(plan["indent"])
            if indent > levels[-1].indent:
                levels.append(_Level(indent))
            levels[-1].planned = int(plan["count"])
            if plan["reason"] is not None and not int(plan["count"]):
                levels[-1].results.append(Result("", True, True, plan["reason"]))
            continue
        if match := _RESULT.match(line):
            spoke = True
            indent = len(match["indent"])
            if indent > levels[-1].indent:
                levels.append(_Level(indent))
            children: list[Result] = []
            while len(levels) > 1 and levels[-1].indent > indent:
                children = _close(levels.pop()) + children
            level = levels[-1]
            level.seen += 1
            rest = match["rest"]
            directive = _DIRECTIVE.search(" " + rest)
            name = rest[:directive.start() - 1 if directive else None].strip() or f"test {level.seen}"
            kind = directive[1].upper() if directive else ""
            own = Result(name, match["verdict"] == "ok" or kind == "XFAIL", kind == "SKIP",
                         directive[2] if directive else "", notes)
            notes = []
            if children:
                for child in children:
                    child.name = f"{name}: {child.name}" if child.name else name
                level.results += children
                if not own.passed and all(child.passed for child in children):
                    level.results.append(own)
            else:
                level.results.append(own)
            continue
        if line.strip():
            notes.append(line.strip().removeprefix("# "))
    results: list[Result] = []
    while levels:
        results = _close(levels.pop()) + results
    if not spoke:
        results.append(Result("speaks KTAP", False, notes=notes))
    elif notes and results and not results[-1].passed:
        results[-1].notes += notes
    return results


def _close(level: _Level) -> list[Result]:
    """The results of a level that ended; what its plan promised and never came is a failure."""
    if level.planned is not None and level.planned not in (0, level.seen):
        level.results.append(Result(f"plan of {level.planned} tests (ran {level.seen})", False))
    return level.results
