# SPDX-License-Identifier: GPL-2.0
"""The compile probes: the answers that a build was given, against probes.table."""

from __future__ import annotations

import re
from pathlib import Path

from kernel import Line

TABLE = Path(__file__).with_name("probes.table")


def table() -> tuple[list[str], dict[str, dict[str, str]]]:
    """The columns, and for each question its answer in each of them."""
    rows = [line.split() for line in TABLE.read_text().splitlines() if line and not line.startswith("#")]
    return rows[0][1:], {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[1:]}


def wrong(line: Line, conf: Path) -> list[str]:
    """What in a build's conf.h is not as the table has it; a question that only one of the two knows is wrong as well."""
    columns, expected = table()
    column = line.name if line.name in columns else nearest(line.series, columns)
    given = dict(re.findall(r"^#define HMM_HAVE_(\w+) ([01])$", conf.read_text(), re.MULTILINE))
    return [f"{name}: answered {given.get(name, 'nothing')}, probes.table says {expected.get(name, {}).get(column, 'nothing')}"
            for name in sorted({*given, *expected}) if given.get(name) != expected.get(name, {}).get(column)]


def nearest(series: str, columns: list[str]) -> str:
    """The column of a series, or of the newest before it: a new kernel has the answers of the last one until it turns out otherwise."""
    def order(name: str) -> list[int]:
        return [int(number) for number in name.split(".")]
    known = sorted((name for name in columns if "-" not in name), key=order)
    return next((name for name in reversed(known) if order(name) <= order(series)), known[0])
