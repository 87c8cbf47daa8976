# SPDX-License-Identifier: GPL-2.0
"""`make matrix`: every kernel of the list is built for and booted in all its machines; one row for each."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

import boot
import cache
import check
import kernel
import sanitizer
from progress import Failure, Step
from results import Results

JSON = cache.TARGET / "matrix.json"
PAGE = cache.TARGET / "matrix.md"


def run(only: list[str], build_only: bool) -> int:
    """All lines without the sanitizer kernels, or those that are named; an exit code of 0 says that every row is good."""
    boot.must_exist()
    results = Results("matrix-tests")
    rows: list[check.Row] = []
    broken: list[str] = []
    lines = [line for line in kernel.lines() if (line.name in only if only else not line.config)]
    with Step("core object", "core") as step:
        step.run(["make", "core"], hint="make core")
    sanitizer.begin(lines)
    if not build_only:
        check.user_programs()
    begin = time.monotonic()
    for line in lines:
        try:
            rows += check.one_kernel(results, line, () if build_only else line.machines(True))
        except Failure as failure:
            failure.show(sys.stdout)
            results.add(f"build {line.name}", failure.what, False)
            broken.append(line.name)
    if build_only:
        print(f"\nbuilt for {len(lines) - len(broken)} of {len(lines)} kernels in {time.monotonic() - begin:.0f} s")
        return results.close()
    JSON.write_text(json.dumps([{**asdict(row), "good": row.good} for row in rows], indent=1) + "\n")
    PAGE.write_text("\n".join(table(rows)) + "\n")
    print("\n".join(["", *table(rows), "", f"written: target/{JSON.name}, target/{PAGE.name}; make readme copies the table"]))
    for row in rows:
        if not row.good:
            print(f"  {row.kernel} {row.machine}: not what the matrix demands")
    return results.close() or int(bool(broken) or not all(row.good for row in rows))


def table(rows: list[check.Row]) -> list[str]:
    """The rows as a page of Markdown."""
    lines = ["| kernel | as built by Debian | offers | machine | build | passed | failed | skipped | seconds |",
             "| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: |"]
    for row in rows:
        words = row.warnings + row.objtool
        build = "clean" if not words else f"{row.warnings} warnings, {row.objtool} of objtool"
        lines.append(f"| {row.kernel} | {row.release} ({row.version}) | {', '.join(row.offers) or '–'} | {row.machine} | {build} | "
                     f"{row.passed} | {row.failed} | {row.skipped} | {row.seconds:.0f} |")
    return lines
