# SPDX-License-Identifier: GPL-2.0
"""Joins what the benches wrote (bench-rows/*.json): one table, one chart, one verdict.

usage: report.py [--begin] [TARGET]

`--begin` forgets the rows of an earlier run. Otherwise TARGET/bench.json, bench.md and bench.svg are written, the table is
printed, and the exit code is 1 when a row is not ok or no row was measured.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

Row = dict[str, Any]


def machine() -> str:
    """What this machine is, in a few words."""
    try:
        model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        model = None
    return f"{model[1].strip() if model else 'unknown processor'}, {os.cpu_count()} CPUs"


def verdict(row: Row) -> str:
    """One word about a row."""
    if row["ok"] is None:
        return "–" if row["ratio"] is not None else "peer absent"
    return "ok" if row["ok"] else "MISSED"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if value >= 1e6:
        return f"{value / 1e6:.2f}M"
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cells(row: Row) -> list[str]:
    """A row as text, a cell for each column."""
    limit = "–" if row["limit"] is None else f"{'≥' if row['least'] else '≤'} {row['limit']:.3f}"
    ratio = "–" if row["ratio"] is None else f"{row['ratio']:.3f}"
    return [row["name"], row["side"], row["peer"], _number(row["ours"]), _number(row["peer_figure"]), row["unit"], ratio,
            limit, verdict(row)]


HEAD = ["what", "ours", "peer", "ours", "peer", "unit", "ratio", "limit", ""]


def table(rows: list[Row]) -> list[str]:
    """The rows for a terminal."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return ["  ".join(cell.ljust(width) if i < 3 or i == 8 else cell.rjust(width)
                      for i, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip() for line in lines]


def markdown(rows: list[Row]) -> str:
    """The rows for README.md."""
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    lines = [f"`make bench` on {today}, {machine()}; load {os.getloadavg()[0]:.0f}; the best of many runs (two threads: the median), "
             "thread CPU time, vectoriser off on all sides", "",
             "| " + " | ".join(HEAD) + " |", "| --- | --- | --- | ---: | ---: | --- | ---: | ---: | --- |"]
    return "\n".join([*lines, *("| " + " | ".join(cells(row)) + " |" for row in rows)]) + "\n"


def chart(rows: list[Row]) -> str:
    """The ratios as bars on a logarithmic scale, each with its limit as a mark."""
    shown = [row for row in rows if row["ratio"]]
    step, left, width = 18, 430, 420
    low = min(-2.0, math.floor(min((math.log10(row["ratio"]) for row in shown), default=-2)))
    high = max(0.5, max((math.log10(row["ratio"]) for row in shown), default=0) + 0.1)

    def x(ratio: float) -> float:
        return left + (math.log10(ratio) - low) / (high - low) * width

    height = 60 + step * len(shown)
    parts = [f'<svg xmlns="http:' '//www.w3.org/2000/svg" width="{left + width + 90}" height="{height}" '
             'font-family="sans-serif" font-size="11">',
             f'<rect width="100%" height="{height}" fill="white"/>',
             f'<text x="10" y="18" font-size="13">ours / peer, logarithmic; the mark is the limit ({escape(machine())})</text>']
    for exponent in range(math.ceil(low), math.floor(high) + 1):
        at = x(10.0 ** exponent)
        parts.append(f'<line x1="{at:.1f}" y1="28" x2="{at:.1f}" y2="{height - 14}" stroke="#ccc"/>'
                     f'<text x="{at:.1f}" y="{height - 3}" text-anchor="middle">{10.0 ** exponent:g}</text>')
    for i, row in enumerate(shown):
        top = 32 + i * step
        colour = {None: "#999", True: "#4a8", False: "#c44"}[row["ok"]]
        end = x(row["ratio"])
        parts.append(f'<text x="{left - 8}" y="{top + 11}" text-anchor="end">{escape(row["name"])}: {escape(row["side"])} / '
                     f'{escape(row["peer"])}</text><rect x="{left}" y="{top}" width="{max(end - left, 1):.1f}" height="13" '
                     f'fill="{colour}"/><text x="{end + 4:.1f}" y="{top + 11}">{row["ratio"]:.3f}</text>')
        if row["limit"] is not None and row["limit"] > 0:
            at = x(row["limit"])
            parts.append(f'<line x1="{at:.1f}" y1="{top - 2}" x2="{at:.1f}" y2="{top + 15}" stroke="black" stroke-width="2"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--begin", action="store_true", help="forget the rows of an earlier run")
    parser.add_argument("target", nargs="?", type=Path, default=Path("target"))
    arguments = parser.parse_args()
    parts = arguments.target / "bench-rows"
    if arguments.begin:
        shutil.rmtree(parts, ignore_errors=True)
        return 0
    rows: list[Row] = [row for part in sorted(parts.glob("*.json")) for row in json.loads(part.read_text())]
    if not rows:
        print(f"no rows in {parts}; next: make bench")
        return 1
    (arguments.target / "bench.json").write_text(json.dumps(rows, indent=1) + "\n")
    (arguments.target / "bench.md").write_text(markdown(rows))
    (arguments.target / "bench.svg").write_text(chart(rows))
    print("\n".join(["", *table(rows), ""]))
    absent = sorted({row["peer"] for row in rows if row["ratio"] is None and row["ours"] is not None})
    if absent:
        print(f"not measured here: {', '.join(absent)}")
    missed = [row for row in rows if row["ok"] is False]
    print(f"{sum(row['ok'] is True for row in rows)} ok, {len(missed)} missed; written: bench.json, bench.md, bench.svg in "
          f"{arguments.target}/")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
