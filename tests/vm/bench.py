# SPDX-License-Identifier: GPL-2.0
"""`make bench-vm`: instructions per page, ours beside the kernel's own test driver, counted by QEMU.

The test driver comes from Debian's linux-source package of the very kernel that is booted and is built without a
change. It hands the contents back with every move to the device; that part is measured alone and taken off.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path

import boot
import build
import cache
import kernel
import klog
from archive import Package
from initramfs import Tree
from kernel import Kernel, Machine
from progress import Failure, Step

PREFIX = "HMM-BENCH "
PROGRAM = Path(__file__).with_name("pages.c")
_ROWS = ["to device", "to RAM by request", "to RAM by fault, in order", "to RAM by fault, scattered", "first touch"]

Figures = dict[tuple[str, str, str], float]


def peer(found: Kernel) -> Path:
    """The source of the kernel's own test driver, from the package of the very kernel, as a directory with a Kbuild."""
    place = cache.CACHE / "peer" / found.key
    with cache.locked():
        if not place.exists():
            with Step(f"test_hmm of {found.release}", "peer") as step, cache.made(place) as draft:
                name = f"linux-source-{found.line.series}"
                kernel.archive().download([Package(name, found.version, "")], draft, step)
                step.run(["sh", "-c", "dpkg-deb --fsys-tarfile linux-source-*.deb | tar -xO --wildcards '*.tar.xz' |"
                          " xz -T2 -dc | tar -x --strip-components=2 --wildcards '*/lib/test_hmm*'"
                          " && rm -f linux-source-*.deb"], cwd=draft)
                (draft / "Kbuild").write_text("obj-m := test_hmm.o\n")
                if not (draft / "test_hmm.c").exists():
                    raise Failure("the source package has no lib/test_hmm.c", step.log)
    return cache.used(place)


def run(only: str | None) -> int:
    """Measure and print the table; also as target/bench-vm.json and target/bench-vm.md."""
    boot.must_exist()
    line = kernel.line(only) if only else next(line for line in kernel.lines() if "private" in line.runs)
    found = kernel.fetch(line)
    machine = kernel.machine(line.runs[0])
    program = cache.TARGET / "user" / "pages"
    program.parent.mkdir(parents=True, exist_ok=True)
    with Step("programs", "bench") as step:
        step.run(["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-I.", "-o", program, PROGRAM])
        step.run(["make", "core"])
    figures: Figures = {}
    ours = build.build(found)
    # 2 MiB device pages are off by default; the small ones are measured in memory that has no huge pages.
    figures |= _measure(found, machine, ours.modules, "/modules/load && echo 1 >/sys/module/hmm_devmem/parameters/huge",
                        program, "hmm_devmem")
    if machine.name == "private":
        theirs = build.build(found, peer(found))
        figures |= _measure(found, machine, theirs.modules, "insmod /modules/test_hmm.ko", program, "test_hmm")
    page = _table(found, machine, figures)
    (cache.TARGET / "bench-vm.md").write_text("\n".join(page) + "\n")
    rows = [{"driver": driver, "size": size, "op": op, "instructions_per_page": round(value)}
            for (driver, size, op), value in figures.items()]
    (cache.TARGET / "bench-vm.json").write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(["", *page, "", "written: target/bench-vm.md, target/bench-vm.json"]))
    return 0


def _measure(found: Kernel, machine: Machine, modules: list[Path], load: str, program: Path, driver: str) -> Figures:
    tree = Tree(boot.place_for(found, "bench") / "tree")
    tree.add_modules(modules, machine)
    tree.add_program(program)
    jobs = [boot.Job("load", load, 60), boot.Job("pages", f"pages /dev/hmm_dmirror0 {driver}", 600)]
    rounds: dict[tuple[str, str, str], list[float]] = defaultdict(list)

    def hear(_job: boot.Job | None, text: str) -> None:
        if text.startswith(PREFIX):
            event = json.loads(text.removeprefix(PREFIX))
            # The first round fills caches of the kernel and is not counted; a move of nothing has no cost per page.
            if event["round"] and event["pages"]:
                rounds[event["driver"], event["size"], event["op"]].append(event["ns"] / event["pages"])

    with Step(f"counting {driver} on {found.release}") as step:
        report = boot.boot(found, machine, tree, jobs, counting=True, on_line=hear)
        if report.trouble or any(job.code != 0 for job in jobs):
            said = " / ".join([*jobs[0].output, *jobs[1].output[-3:]])
            raise Failure(f"{driver}: {report.trouble or f'a command failed: {said}'}", report.console)
        step.note = f"{sum(map(len, rounds.values()))} figures"
    for line in klog.complaints(klog.since_start(report.log)) if driver == "hmm_devmem" else []:
        print(f"  kernel: {line}")
    figures = {key: statistics.median(values) for key, values in rounds.items()}
    for size in {size for _, size, _ in figures}:
        if (driver, size, "to device") not in figures:
            figures[driver, size, "to device"] = figures[driver, size, "to device and read"] - figures[driver, size, "read"]
    return figures


def _table(found: Kernel, machine: Machine, figures: Figures) -> list[str]:
    drivers = list(dict.fromkeys(driver for driver, _, _ in figures))
    columns = [(driver, size) for size in ("4K", "2M") for driver in drivers]
    lines = [f"Instructions per page, 64 MiB, Linux {found.release}, {machine.name} memory, counted by QEMU (-icount)", "",
             "| operation | " + " | ".join(f"{size} {driver}" for driver, size in columns) + " |",
             "| --- |" + " ---: |" * len(columns)]
    for op in _ROWS:
        cells = [f"{figures[driver, size, op]:.0f}" if (driver, size, op) in figures else "–" for driver, size in columns]
        lines.append(f"| {op} | " + " | ".join(cells) + " |")
    return lines
