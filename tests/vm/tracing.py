# SPDX-License-Identifier: GPL-2.0
"""`make bench-trace`: what a page costs without tracepoints in the build, with nobody listening to them, and traced.

Counted by QEMU as in `make bench-vm`, and with the same program. The modules without tracepoints are ours, compiled
with NOTRACE, which the kernel's headers know for that purpose.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path

import bench
import boot
import build
import cache
import kernel
from initramfs import Tree
from kernel import Kernel, Machine
from progress import Failure, Step

WITHOUT, OFF, ON = "without", "off", "on"
_HEADS = {WITHOUT: "not compiled in", OFF: "nobody traces", ON: "all events traced"}
_EVENTS = "/sys/kernel/debug/tracing/events/hmm_devmem/enable"
# Scattered faults are left out: what they cost differs by some percent from one boot to the next, traced or not.
_OPS = ("to device", "to RAM by request", "to RAM by fault, in order")
# Instructions for a page in a build that has the tracepoints, beside one that has not.
LIMIT = 1.002

Figures = dict[str, dict[str, float]]


def run(only: str | None) -> int:
    """Measure; the table, also in target/bench-trace.md. 1 when tracepoints that nobody uses cost something."""
    boot.must_exist()
    line = kernel.line(only) if only else next(line for line in kernel.lines() if "private" in line.runs)
    found, machine = kernel.fetch(line), kernel.machine(line.runs[0])
    program = cache.TARGET / "user" / "pages"
    program.parent.mkdir(parents=True, exist_ok=True)
    with Step("programs", "bench") as step:
        step.run(["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-I.", "-o", program, bench.PROGRAM])
        step.run(["make", "core"])
    pages = "pages /dev/hmm_dmirror0"
    figures = _count(found, machine, build.build(found, _untraced()).modules, program, f"{pages} {WITHOUT}")
    figures |= _count(found, machine, build.build(found).modules, program,
                      f"{pages} {OFF} && echo 1 >{_EVENTS} && {pages} {ON}; code=$?; echo 0 >{_EVENTS}; exit $code")
    page = _table(found, machine, figures)
    (cache.TARGET / "bench-trace.md").write_text("\n".join(page) + "\n")
    print("\n".join(["", *page, ""]))
    missed = [op for op in _OPS if figures[OFF][op] > figures[WITHOUT][op] * LIMIT]
    for op in missed:
        print(f"  missed: {op} costs more than {LIMIT} times what it costs without tracepoints")
    print("written: target/bench-trace.md")
    return 1 if missed else 0


def _untraced() -> Path:
    """Our sources as a directory of their own, to be compiled without tracepoints."""
    place = cache.TARGET / "untraced"
    place.mkdir(parents=True, exist_ok=True)
    kbuild = (cache.TREE / "Kbuild").read_text()
    build.copy_if_new(build.CORE, place / "hmm_core.o_shipped")
    build.mirror(cache.TREE / "c", place / "c")
    (place / "Kbuild").write_text(f"{kbuild}\nccflags-y += -DNOTRACE\n")
    return place


def _count(found: Kernel, machine: Machine, modules: list[Path], program: Path, command: str) -> Figures:
    """Instructions per page of 4 KiB, by the word that the command has given to `pages`, and by operation."""
    tree = Tree(boot.place_for(found, "bench-trace") / "tree")
    tree.add_modules(modules, machine)
    tree.add_program(program)
    jobs = [boot.Job("load", "/modules/load", 60), boot.Job("pages", command, 900)]
    with Step(f"counting on {found.release}"):
        report = boot.boot(found, machine, tree, jobs, counting=True)
        if report.trouble or any(job.code for job in jobs):
            raise Failure(f"pages: {report.trouble or jobs[1].output[-3:]}", report.console)
    rounds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for text in jobs[1].output:
        if text.startswith(bench.PREFIX):
            event = json.loads(text.removeprefix(bench.PREFIX))
            # The first round fills caches of the kernel; huge pages move by 2 MiB, and an event for each is nothing.
            if event["round"] and event["pages"] and event["size"] == "4K":
                rounds[event["driver"], event["op"]].append(event["ns"] / event["pages"])
    figures: Figures = defaultdict(dict)
    for (word, op), values in rounds.items():
        if op in _OPS:
            figures[word][op] = statistics.median(values)
    return dict(figures)


def _table(found: Kernel, machine: Machine, figures: Figures) -> list[str]:
    lines = [f"Instructions per 4 KiB page, Linux {found.release}, {machine.name} memory, counted by QEMU (-icount)", "",
             "| tracepoints | " + " | ".join(_HEADS[word] for word in figures) + " |", "| --- |" + " ---: |" * len(figures)]
    return lines + [f"| {op} | " + " | ".join(f"{figures[word][op]:.0f}" for word in figures) + " |" for op in _OPS]
