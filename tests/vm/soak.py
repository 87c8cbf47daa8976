# SPDX-License-Identifier: GPL-2.0
"""`make soak`: hmm-storm for as long as it takes, one machine after the other until enough operations are done.

A machine is booted anew every few hundred thousand operations, each time with the next seed, so a kernel that crashes
names the seed that did it. What it said is kept in target/soak.log, the figures in target/soak.json. A soak that was ended
goes on when it is asked for again without a seed: what was done without a failure counts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import time
from typing import Any

import boot
import build
import cache
import disk
import kernel
import klog
import ktap
import matrix
import suite
from initramfs import Tree
from progress import Failure

PROGRAM = "target/release/hmm-storm"
JSON = cache.TARGET / "soak.json"
Row = dict[str, Any]
_PER_BOOT = 200_000
# Fewer do not meet every kind of operation, which hmm-storm says is a failure.
_LEAST = 10_000
_DONE = re.compile(r"# (\d+) operations in ([\d.]+) s")
_KIND = re.compile(r"(\d+) times, (\d+) pages")


def kinds(tests: list[ktap.Result]) -> dict[str, tuple[int, int]]:
    """For each kind of operation how often it was done, and to how many pages."""
    said = {test.name.removesuffix(" was done"): _KIND.search(" ".join(test.notes)) for test in tests}
    return {name: (int(match[1]), int(match[2])) for name, match in said.items() if match}


def before(kernel_line: str, machine: str, operations: int, seed: int | None) -> list[Row]:
    """What an earlier run has done of this soak: nothing, if a seed is asked for, if it failed or came to its end."""
    if seed is not None or not JSON.exists():
        return []
    rows: list[Row] = json.loads(JSON.read_text())
    fits = all(row["line"] == kernel_line and row["machine"] == machine and row["good"] for row in rows)
    return rows if fits and sum(row["operations"] for row in rows) < operations else []


def soak(only: str | None, machine_name: str | None, operations: int, seed: int | None) -> int:
    """Run until so many operations are done or something fails."""
    boot.must_exist()
    found = kernel.fetch(kernel.line(only) if only else kernel.lines()[0])
    machine = kernel.machine(machine_name or found.line.runs[0])
    modules = build.build(found)
    rows = before(found.line.name, machine.name, operations, seed)
    begin, done = time.monotonic(), sum(row["operations"] for row in rows)
    if rows:
        print(f"  goes on after {done} operations, seeds {rows[0]['seed']} to {rows[-1]['seed']}; make soak SEED= begins anew", flush=True)
    seed = rows[-1]["seed"] + 1 if rows else random.randrange(1 << 20) if seed is None else seed
    cache.LOGS.mkdir(parents=True, exist_ok=True)
    with open(cache.TARGET / "soak.log", "a" if rows else "w", encoding="utf-8") as record:
        while done < operations:
            step = max(min(_PER_BOOT, operations - done), min(_LEAST, operations))
            tree = Tree(boot.place_for(found, "soak") / "tree")
            tree.add_modules(modules.modules, machine)
            disk.equip(tree, found)
            suite.equip(tree, [PROGRAM])
            # No machine does fewer than twenty a second.
            jobs = [boot.Job("load", "/modules/load && /modules/disk/on", 60),
                    boot.Job("storm", f"hmm-storm --ops {step} --seed {seed}", 300 + step // 20)]
            counted = 0

            def hear(_job: boot.Job | None, text: str) -> None:
                record.write(text + "\n")
                record.flush()
                if match := _DONE.match(text):
                    nonlocal counted
                    counted = int(match[1])
            report = boot.boot(found, machine, tree, jobs, on_line=hear)
            tests = ktap.parse(jobs[1].output)
            failed = [test for test in tests if not test.passed]
            lines = klog.complaints(klog.since_start(report.log) if report.finished else boot.console_tail(report, 400))
            good = bool(counted) and not (failed or lines or report.trouble or jobs[1].code)
            rows.append({"line": found.line.name, "kernel": found.release, "machine": machine.name, "tree": matrix.tree(), "seed": seed,
                         "operations": counted, "seconds": round(jobs[1].took, 1), "good": good, "kinds": kinds(tests),
                         "failed": [test.name for test in failed], "kernel_log": lines, "trouble": report.trouble})
            done += counted
            hours = (time.monotonic() - begin) / 3600
            print(f"  seed {seed}: {counted} operations, {counted / max(jobs[1].took, 1):.0f} a second; "
                  f"{done} of {operations} in {hours:.2f} h", flush=True)
            JSON.write_text(json.dumps(rows, indent=1) + "\n")
            if not good:
                for text in [*(note for test in failed for note in test.notes), *lines, report.trouble]:
                    print(f"  | {text}")
                print(f"failed: seed {seed}; console: {report.console}; output: target/soak.log\n"
                      f"next: make soak KERNEL={found.line.name} MACHINE={machine.name} SEED={seed} OPS={step}")
                return 1
            seed += 1
    print(f"{done} operations without a failure on {found.release}, {machine.name} memory; written: target/soak.json")
    return 0


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", help="one kernel of the list")
    parser.add_argument("--machine", help="private or coherent; the first of the kernel's machines if not given")
    parser.add_argument("--ops", type=int, default=10_000_000, help="operations in all")
    parser.add_argument("--seed", type=int, help="the first seed, of a new soak; without it an unfinished one goes on")
    arguments = parser.parse_args()
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        os.environ.pop(name, None)
    os.chdir(cache.TREE)
    try:
        return soak(arguments.kernel, arguments.machine, arguments.ops, arguments.seed)
    except Failure as failure:
        failure.show()
        return 1


if __name__ == "__main__":
    sys.exit(main())
