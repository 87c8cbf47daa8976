# SPDX-License-Identifier: GPL-2.0
"""`make test-api`: the HMM API of Linux 4.14 to 5.2. Who of the probe drivers uses which symbol, and their tests."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import boot
import build
import cache
import check
import disk
import kernel
import klog
import ktap
import suite
from initramfs import Tree
from kernel import Kernel, Machine
from progress import Failure, Step
from results import Results

PROBES = cache.TREE / "tests" / "kmod" / "probe"
SYMBOLS = cache.TREE / "tests" / "kmod" / "symbols"
PROGRAM = "api"

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_API = re.compile(r"^#define HMM_API (\d+)$", re.MULTILINE)


def drivers() -> dict[str, tuple[int, set[str]]]:
    """The probe drivers: the version that each was written for, and every word of its source."""
    shared = PROBES.joinpath("probe.c").read_text()
    found = {}
    for source in sorted(PROBES.glob("hmm_probe*.c")):
        text = source.read_text()
        api = _API.search(text)
        assert api, f"{source.name} chooses no HMM_API"
        found[source.stem] = int(api[1]), set(re.findall(r"\w+", _COMMENT.sub(" ", text + shared)))
    return found


def table() -> tuple[list[str], list[str]]:
    """Symbol by driver, and the symbols that a driver should use and does not."""
    users = drivers()
    lines = [f"{'':<34}" + "".join(f"{name.removeprefix('hmm_probe'):>8}" for name in users)]
    missing = []
    for line in SYMBOLS.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        symbol, first, last = line.split()
        cells = []
        for name, (api, words) in users.items():
            has = int(first) <= api <= int(last)
            cells.append("" if not has else "used" if symbol in words else "MISSING")
            if has and symbol not in words:
                missing.append(f"{symbol} is not used by {name}")
        if not any(cells):
            missing.append(f"{symbol}: no driver is written for {first} to {last}")
        lines.append(f"{symbol:<34}" + "".join(f"{cell:>8}" for cell in cells))
    return lines, missing


def alone(only: list[str]) -> int:
    """The table, and the probe drivers in every machine."""
    results = Results()
    lines, missing = table()
    print("\n".join([*lines, ""]))
    results.add("api", "every symbol of 4.14 to 5.2 is used by a probe driver", not missing, missing)
    try:
        boot.must_exist()
        check.user_programs()
        for line in kernel.lines():
            if line.name in only if only else not line.config:
                found = kernel.fetch(line)
                modules = build.build(found)
                results.add(f"build {line.name}", "modules without a complaint", not modules.complaints, modules.complaints)
                for name in line.machines(bool(only)):
                    _machine(results, found, kernel.machine(name), modules.modules)
    except Failure as failure:
        failure.show()
        results.add("machinery", failure.what, False)
    return results.close()


def _machine(results: Results, found: Kernel, machine: Machine, modules: list[Path]) -> None:
    """Boot once, with the probe drivers' test and no other."""
    group = f"{found.line.name} {machine.name}"
    program = next(program for program in suite.programs("test") if program.name == PROGRAM)
    tree = Tree(boot.place_for(found, "api") / "tree")
    tree.add_modules(modules, machine)
    disk.equip(tree, found)
    suite.equip(tree, list(program.files))
    jobs = [boot.Job("modules-load", "/modules/load", 60), program.job(), boot.Job("modules-unload", "/modules/unload", 120)]
    with Step(f"machine {group}"):
        report = boot.boot(found, machine, tree, jobs)
    for job in jobs:
        for test in ktap.parse(job.output) if job.name == PROGRAM and job.ran else []:
            if test.skipped:
                results.skip(group, test.name, test.reason)
            else:
                results.add(group, test.name, test.passed, test.notes)
        results.add(group, f"{job.name} ends well", job.code == 0 and not job.timed_out,
                    [report.trouble or f"exit {job.code}", *job.output[-20:]])
    complaints = klog.complaints(klog.since_start(report.log) if report.finished else boot.console_tail(report, 400))
    results.add(group, "kernel log without a complaint", not complaints, complaints)


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", action="append", default=[], help="only this kernel of the list; may be repeated")
    arguments = parser.parse_args()
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        os.environ.pop(name, None)
    os.chdir(cache.TREE)
    return alone(arguments.kernel)


if __name__ == "__main__":
    sys.exit(main())
