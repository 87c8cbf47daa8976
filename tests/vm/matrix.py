# SPDX-License-Identifier: GPL-2.0
"""The matrix: for every kernel and machine what became of it when it was last run, by whichever command did."""

from __future__ import annotations

import json
import subprocess
import threading
from dataclasses import asdict, dataclass, field

import cache
import kernel
from kernel import Line

JSON = cache.TARGET / "matrix.json"
_saving = threading.Lock()


@dataclass
class Row:
    """What became of one kernel in one machine; `tree` is the commit that was tested."""

    kernel: str
    release: str
    version: str
    machine: str
    build_seconds: float = 0.0
    warnings: int = 0
    objtool: int = 0
    load: bool = False
    offers: list[str] = field(default_factory=list)
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    tree: str = ""

    @property
    def good(self) -> bool:
        """What every row has to be: built without a word, loaded, and nothing failed of what was run."""
        return not self.warnings and not self.objtool and self.load and not self.failed and self.passed > 0


def rows() -> list[Row]:
    """What is known, in the order of the list; machines that are no longer in it are forgotten."""
    known = json.loads(JSON.read_text()) if JSON.exists() else []
    found = {(entry["kernel"], entry["machine"]): entry for entry in known}
    return [Row(**{key: value for key, value in found[line.name, name].items() if key != "good"})
            for line in kernel.lines() for name in line.machines(True) if (line.name, name) in found]


def tree() -> str:
    """The commit of this clone, with a word more when files differ from it; empty outside of git."""
    return subprocess.run(["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=cache.TREE, capture_output=True, text=True,
                          check=False).stdout.strip()


def replace(line: Line, machines: tuple[str, ...], new: list[Row]) -> None:
    """Put rows of a kernel in the place of those that it has for these machines; without rows, forget those."""
    with _saving:
        kept = [row for row in rows() if row.kernel != line.name or row.machine not in machines]
        cache.TARGET.mkdir(exist_ok=True)
        JSON.write_text(json.dumps([{**asdict(row), "good": row.good} for row in [*kept, *new]], indent=1) + "\n")


def wrong(lines: list[Line]) -> list[str]:
    """Where these kernels are not what the list demands: one row for each machine, and each good."""
    found = {(row.kernel, row.machine): row for row in rows()}
    return [f"{line.name} {name}: " + ("was not run" if (line.name, name) not in found else "not what the matrix demands")
            for line in lines for name in line.machines(True) if not ((line.name, name) in found and found[line.name, name].good)]


def table() -> list[str]:
    """The rows as lines of Markdown."""
    lines = ["| kernel | release (version) | offers | machine | build | passed | failed | skipped | seconds |",
             "| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: |"]
    for row in rows():
        words = row.warnings + row.objtool
        build = "clean" if not words else f"{row.warnings} warnings, {row.objtool} of objtool"
        lines.append(f"| {row.kernel} | {row.release} ({row.version}) | {', '.join(row.offers) or '–'} | {row.machine} | {build} | "
                     f"{row.passed} | {row.failed} | {row.skipped} | {row.seconds:.0f} |")
    return lines
