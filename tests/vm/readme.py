# SPDX-License-Identifier: GPL-2.0
"""The parts of README.md that are copied from elsewhere, between `<!-- begin X -->` and `<!-- end X -->`.

The driver and the kernels are part of the source and must always be the same; the others are results of the last run on this machine and
are renewed by `make readme`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import cache
import kernel
import matrix

README = cache.TREE / "README.md"
_DRIVER = cache.TREE / "c" / "examples" / "minimal.c"


def _code(text: str, language: str = "") -> str:
    return f"```{language}\n{text.strip(chr(10))}\n```"


def _driver() -> str:
    return _code(_DRIVER.read_text().split("*/\n", 1)[1], "c")


def _kernels() -> str:
    """What the list of kernels demands of each."""
    columns = ["mirror", "private", "coherent", "huge", "exclusive"]
    rows = [["kernel", "from", *columns, "machines of `make test`", "and of `make test-all`"], ["---"] * (len(columns) + 4)]
    for line in kernel.lines():
        source = "built from Debian's linux-source" if line.config else line.suites[0]
        rows.append([line.name, source, *("yes" if word in line.offers else "no" for word in columns),
                     ", ".join(line.machines(False)) or "-", ", ".join(line.machines(True))])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _results() -> dict[str, str]:
    parts = {}
    demo, bench = cache.TARGET / "demo" / "demo.txt", cache.TARGET / "bench-vm.md"
    if demo.exists():
        parts["demo"] = _code(demo.read_text())
    if bench.exists():
        parts["bench"] = bench.read_text().strip()
    trace = cache.TARGET / "bench-trace.md"
    if trace.exists():
        parts["trace"] = trace.read_text().strip()
    core = cache.TARGET / "bench.md"
    if core.exists():
        parts["core"] = core.read_text().strip()
    if matrix.JSON.exists():
        parts["matrix"] = "\n".join(matrix.table())
    return parts


def _fill(text: str, name: str, body: str) -> str:
    whole = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not whole.search(text):
        raise ValueError(f"README.md has no place for '{name}'")
    return whole.sub(lambda match: f"{match[1]}{body}\n{match[2]}", text)


PICTURES = {
    "residency.svg": "programs under hmm-run: how much of each is on the device over time",
    "hmmtop.svg": "hmmtop: devices, and who moves what",
    "timeline.svg": "timeline: what is on the device, and what moved each way, by cause",
    "map.svg": "heat map of a program's memory",
}


def _pictures() -> str:
    """The pictures of the last demo, put where README.md looks for them, and the lines that show those there are."""
    for name in PICTURES:
        for source in sorted((cache.TARGET / "demo").glob(f"*-private-{name}")):
            (cache.TREE / "pictures").mkdir(exist_ok=True)
            shutil.copyfile(source, cache.TREE / "pictures" / name)
    there = [name for name in PICTURES if (cache.TREE / "pictures" / name).is_file()]
    return "\n".join(f"![{PICTURES[name]}](pictures/{name})" for name in there)


def renew() -> int:
    """Write everything there is into README.md."""
    text = README.read_text()
    for name, body in {"driver": _driver(), "kernels": _kernels(), "pictures": _pictures(), **_results()}.items():
        text = _fill(text, name, body)
        print(f"  README.md: {name}")
    README.write_text(text)
    return 0


def stale() -> Iterator[str]:
    """The driver in README.md is the one that is compiled, and the kernels are those of the list."""
    text = README.read_text()
    if _fill(text, "driver", _driver()) != text:
        yield "the driver in README.md is not c/examples/minimal.c; next: make readme"
    if _fill(text, "kernels", _kernels()) != text:
        yield "the kernels in README.md are not those of tests/vm/kernels.toml; next: make readme"
