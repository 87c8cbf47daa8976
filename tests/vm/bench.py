# SPDX-License-Identifier: GPL-2.0
"""`make bench-vm`: what a page costs, ours beside the kernel's own test driver, and how much several threads get done.

Instructions are counted by QEMU and repeat exactly; throughput is real time and wants a machine that does nothing else.
The test driver comes from Debian's linux-source package of the very kernel that is booted and is built without a
change. It hands the contents back with every move to the device; that part is measured alone and taken off.

Every goal is a row with a limit; the exit code is 1 when one is missed.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import boot
import build
import cache
import kernel
import klog
import profile
from archive import Package
from initramfs import Tree
from kernel import Kernel, Machine
from progress import Failure, Step

sys.path.append(str(cache.TREE / "bench"))
import report  # noqa: E402 - the table and the chart of `make bench`

PREFIX = "HMM-BENCH "
PROGRAM = Path(__file__).with_name("pages.c")
OURS, PEER, PLAIN = "hmm_devmem", "test_hmm", "hmm_probe419"
_OPS = ["to device", "to RAM by request", "to RAM by fault, in order", "to RAM by fault, scattered", "first touch"]
# Instructions of the bare copy of a page: 512 words, one at a time (the machine that counts has no fast rep movs).
COPY = 512
_LIMITS = {("4K", "to device"): 0.75, ("4K", "to RAM by request"): 0.80, ("4K", "to RAM by fault, in order"): 0.50,
           ("4K", "to RAM by fault, scattered"): 0.60, **{("2M", op): 0.45 for op in _OPS[:4]}}
PLAIN_LIMIT = 1.05
# Of all instructions of an operation, those in hmm_devmem.ko.
OWN_LIMIT = 0.05
# What others may take of this machine's CPUs before its real time says nothing, and how often one waits for better.
BUSY, TRIES = 0.1, 3

Figures = dict[tuple[str, str, str], float]
Parts = dict[tuple[str, str], dict[str, float]]
# As in pages.c: 64 MiB, and how often each operation is marked for the profile.
PAGES, ROUNDS = 16384, 3


@dataclass(frozen=True)
class Row:
    """One goal. `ok` is None where nothing is asked; `least`: the limit is a lower one."""

    name: str
    side: str
    peer: str
    ours: float
    peer_figure: float | None
    unit: str
    limit: float | None = None
    least: bool = False
    reason: str = ""
    ratio: float | None = None
    ok: bool | None = None

    def judged(self) -> Row:
        """With its ratio and its verdict."""
        ratio = self.ours / self.peer_figure if self.peer_figure else None
        judged = ratio is not None and self.limit is not None and not self.reason
        within = ratio is not None and self.limit is not None and (ratio >= self.limit if self.least else ratio <= self.limit)
        return replace(self, ratio=ratio, ok=within if judged else None)


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
    """Measure everything; the table, target/bench-vm.json, .md and .svg. 1 when a goal is missed."""
    boot.must_exist()
    line = kernel.line(only) if only else next(line for line in kernel.lines() if "private" in line.runs)
    found = kernel.fetch(line)
    machine = kernel.machine(line.runs[0])
    program = cache.TARGET / "user" / "pages"
    program.parent.mkdir(parents=True, exist_ok=True)
    with Step("programs", "bench") as step:
        step.run(["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-I.", "-o", program, PROGRAM])
        step.run(["make", "core", "target/user/api"])
    ours = build.build(found).modules
    count = f"pages /dev/hmm_dmirror0 {OURS} && api --bench"
    figures = _measure(found, machine, ours, "/modules/load", program, OURS, count)
    wall, busy = _timed(found, machine, ours, "/modules/load", program, OURS)
    calm: Figures = {}
    parts = {OURS: _profile(found, machine, ours, "/modules/load", program, OURS)}
    if machine.name == "private":
        theirs = build.build(found, peer(found)).modules
        load = "insmod /modules/test_hmm.ko"
        count = f"pages /dev/hmm_dmirror0 {PEER}"
        figures |= _measure(found, machine, theirs, load, program, PEER, count)
        there, more = _timed(found, machine, theirs, load, program, PEER)
        wall, busy = wall | there, max(busy, more)
        parts[PEER] = _profile(found, machine, theirs, load, program, PEER)
        unzeroed = replace(machine, append=(*machine.append, "init_on_alloc=0"))
        calm = (_measure(found, unzeroed, ours, "/modules/load", program, OURS, f"pages /dev/hmm_dmirror0 {OURS}")
                | _measure(found, unzeroed, theirs, load, program, PEER, count))
    rows = [asdict(row.judged()) for row in [*_pages(figures, calm, parts[OURS]), *_share(parts[OURS]), *_several(wall, busy)]]
    page = _table(found, machine, figures)
    (cache.TARGET / "bench-vm.md").write_text("\n".join([*page, "", *_words(figures, wall, busy), "", *_where(parts)]) + "\n")
    (cache.TARGET / "bench-vm.json").write_text(json.dumps(rows, indent=1) + "\n")
    (cache.TARGET / "bench-vm.svg").write_text(report.chart(rows))
    print("\n".join(["", *report.table(rows), ""]))
    for row in rows:
        if row["reason"]:
            print(f"  {row['name']}: {row['reason']}")
    missed = [row for row in rows if row["ok"] is False]
    print(f"{sum(row['ok'] is True for row in rows)} ok, {len(missed)} missed; written: bench-vm.json, bench-vm.md, bench-vm.svg "
          "in target/")
    return 1 if missed else 0


def _pages(figures: Figures, calm: Figures, parts: Parts) -> list[Row]:
    """The goals in instructions per page; `calm` has those of a kernel that does not zero what it allocates.

    A 2 MiB page on its way to RAM: the copy, and the zeroing of every page that the kernel allocates (init_on_alloc, which
    Debian switches on), are paid by both sides and cannot be left out. The goal is shown as it is, without the zeroing, and
    without the copy as well. Where what nobody can leave out is more than the limit already, that is said, not judged.
    """
    rows = []
    for size, op in ((size, op) for size in ("4K", "2M") for op in _OPS[:4]):
        if (PEER, size, op) not in figures:
            continue
        mine, theirs = figures[OURS, size, op], figures[PEER, size, op]
        row = Row(f"{op}, {size}", OURS, PEER, mine, theirs, "instr/page", _LIMITS.get((size, op)))
        if size == "4K" or op == _OPS[0]:
            rows.append(row)
            continue
        mine_calm, theirs_calm = calm[OURS, size, op], calm[PEER, size, op]
        floor = COPY + parts[size, op]["the kernel"]
        rows += [
            _unless_out_of_reach(row, floor + theirs - theirs_calm, "the copy, the kernel's zeroing of the new page"),
            _unless_out_of_reach(replace(row, name=f"{row.name}, init_on_alloc=0", ours=mine_calm, peer_figure=theirs_calm), floor,
                                 "the copy"),
            replace(row, name=f"{row.name}, init_on_alloc=0, without the copy", ours=mine_calm - COPY,
                    peer_figure=theirs_calm - COPY)]
    rows += [Row(f"{op}, API of 4.19", PLAIN, OURS, figures[PLAIN, "4K", op], figures[OURS, "4K", op], "instr/page", PLAIN_LIMIT)
             for op in _OPS[:2]]
    return rows


def _unless_out_of_reach(row: Row, floor: float, what: str) -> Row:
    """A row that is not judged if `floor` alone, which is the same on both sides, is above its limit."""
    share = floor / (row.peer_figure or 1)
    if row.limit is None or share <= row.limit:
        return row
    return replace(row, reason=f"cannot be reached: {what} and the kernel's own part ({floor:.0f} in all, see the profile) are "
                               f"{share:.2f} of all that {PEER} does")


def _share(parts: Parts) -> list[Row]:
    """The engine's own part of what is executed."""
    return [Row(f"own share, {op}, {size}", "hmm_devmem.ko", "everything", parts[size, op]["the engine"],
                sum(parts[size, op].values()), "instr/page", OWN_LIMIT) for size, op in profile.MARKS]


def _several(wall: Figures, busy: float) -> list[Row]:
    """The goals in pages per second; `wall` has nanoseconds per page, `busy` is how much of this machine others took."""
    def speed(driver: str, op: str) -> float:
        return 1e9 / wall[driver, "4K", op]

    rows = [Row(f"{count} threads there and back, real time", OURS, PEER, wall[OURS, "4K", f"{count} threads"],
                wall[PEER, "4K", f"{count} threads"], "ns/page") for count in (1, 2, 4) if (PEER, "4K", "1 threads") in wall]
    goals = [Row("two threads", "2 threads", "1 thread", speed(OURS, "2 threads"), speed(OURS, "1 threads"), "pages/s", 1.8, True),
             Row("four processes", "4 processes", "1 process", speed(OURS, "4 processes"), speed(OURS, "1 processes"), "pages/s",
                 1.7, True)]
    if busy > BUSY:
        said = f"this machine was too busy to tell: others took {busy:.0%} of its CPUs; next: make bench-vm when it is idle"
        goals = [row if row.judged().ok else replace(row, reason=said) for row in goals]
    return [*rows, *goals,
            Row("four threads", "4 threads", "1 thread", speed(OURS, "4 threads"), speed(OURS, "1 threads"), "pages/s")]


def _cpu_ticks() -> tuple[float, float]:
    """Seconds of all CPUs so far: spent on anything, or stolen; and spent by children of this process that are over."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _wait, hard, soft, steal = fields
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (user + nice + system + hard + soft + steal) / os.sysconf("SC_CLK_TCK"), used.ru_utime + used.ru_stime


def _timed(found: Kernel, machine: Machine, modules: list[Path], load: str, program: Path, driver: str) -> tuple[Figures, float]:
    """Real time: the best of several runs while others want the CPUs; and what part of them they had in the calmest."""
    best: Figures = {}
    calmest = 1.0
    for _ in range(TRIES):
        begin, (all_before, own_before) = time.monotonic(), _cpu_ticks()
        figures = _measure(found, machine, modules, load, program, driver, f"pages /dev/hmm_dmirror0 {driver} wall", counting=False)
        seconds, (all_after, own_after) = time.monotonic() - begin, _cpu_ticks()
        others = (all_after - all_before) - (own_after - own_before)
        busy = max(0.0, others / seconds / (os.cpu_count() or 1))
        # Figures of one run belong together: their ratios are what is asked for.
        if busy < calmest or not best:
            best, calmest = figures, busy
        if calmest <= BUSY:
            break
        print(f"  others took {busy:.0%} of the CPUs meanwhile")
    return best, calmest


def _profile(found: Kernel, machine: Machine, modules: list[Path], load: str, program: Path, driver: str) -> Parts:
    """Where the instructions are: by size and operation, per page, the parts of profile.PARTS; the tables go to target/."""
    plugin = profile.plugin()
    tree = Tree(boot.place_for(found, "bench") / "tree")
    tree.add_modules(modules, machine)
    tree.add_program(program)
    counts = tree.place.parent / "counts"
    jobs = profile.jobs(load, f"pages /dev/hmm_dmirror0 {driver}")
    with Step(f"profile of {driver} on {found.release}") as step:
        report_ = boot.boot(found, machine, tree, jobs, counting=True, plugin=f"{plugin},out={counts}")
        if report_.trouble or any(job.code != 0 for job in jobs):
            said = " / ".join([*jobs[0].output, *jobs[1].output[-3:]])
            raise Failure(f"{driver}: {report_.trouble or f'a command failed: {said}'}", report_.console)
        measured = profile.read(counts, profile.Symbols(jobs[2].output))
        step.note = f"{sum(sum(functions.values()) for functions in measured.values()) / 1e9:.1f} G instructions"
    pages = PAGES * ROUNDS
    functions = {f"{op}, {size}": {f"{place.module or 'kernel'} {place.name}": round(count / pages, 2)
                                   for place, count in found_.most_common() if count / pages >= 0.1}
                 for (size, op), found_ in measured.items()}
    (cache.TARGET / f"bench-vm-{driver}.json").write_text(json.dumps(functions, indent=1) + "\n")
    return {key: {part: sum(count for place, count in found_.items() if place.part == part) / pages for part in profile.PARTS}
            for key, found_ in measured.items()}


def _measure(found: Kernel, machine: Machine, modules: list[Path], load: str, program: Path, driver: str, command: str, *,
             counting: bool = True) -> Figures:
    tree = Tree(boot.place_for(found, "bench") / "tree")
    tree.add_modules(modules, machine)
    tree.add_program(program)
    tree.add_program(cache.TARGET / "user" / "api")
    jobs = [boot.Job("load", load, 60), boot.Job("pages", command, 600)]
    rounds: dict[tuple[str, str, str], list[float]] = defaultdict(list)

    def hear(_job: boot.Job | None, text: str) -> None:
        if text.startswith(PREFIX):
            event = json.loads(text.removeprefix(PREFIX))
            # The first round fills caches of the kernel and is not counted; a move of nothing has no cost per page.
            if event["round"] and event["pages"]:
                rounds[event["driver"], event["size"], event["op"]].append(event["ns"] / event["pages"])

    with Step(f"{'counting' if counting else 'timing'} {driver} on {found.release}") as step:
        report_ = boot.boot(found, machine, tree, jobs, counting=counting, on_line=hear)
        if report_.trouble or any(job.code != 0 for job in jobs):
            said = " / ".join([*jobs[0].output, *jobs[1].output[-3:]])
            raise Failure(f"{driver}: {report_.trouble or f'a command failed: {said}'}", report_.console)
        step.note = f"{sum(map(len, rounds.values()))} figures"
    for line in klog.complaints(klog.since_start(report_.log)) if driver == OURS else []:
        print(f"  kernel: {line}")
    # In real time whatever else runs can only make it longer.
    figures = {key: statistics.median(values) if counting else min(values) for key, values in rounds.items()}
    for size in {size for name, size, op in figures if (name, op) == (driver, "read")}:
        if (driver, size, "to device") not in figures:
            figures[driver, size, "to device"] = figures[driver, size, "to device and read"] - figures[driver, size, "read"]
    return figures


def _table(found: Kernel, machine: Machine, figures: Figures) -> list[str]:
    drivers = [driver for driver in (OURS, PEER) if any(name == driver for name, _, _ in figures)]
    columns = [(driver, size) for size in ("4K", "2M") for driver in drivers]
    lines = [f"Instructions per page, 64 MiB, Linux {found.release}, {machine.name} memory, counted by QEMU (-icount)", "",
             "| operation | " + " | ".join(f"{size} {driver}" for driver, size in columns) + " |",
             "| --- |" + " ---: |" * len(columns)]
    for op in _OPS:
        cells = [f"{figures[driver, size, op]:.0f}" if (driver, size, op) in figures else "–" for driver, size in columns]
        lines.append(f"| {op} | " + " | ".join(cells) + " |")
    return lines


def _words(figures: Figures, wall: Figures, busy: float) -> list[str]:
    """What else README.md says."""
    cost = [figures[PLAIN, "4K", op] / figures[OURS, "4K", op] * 100 - 100 for op in _OPS[:2]]
    one, two, four = (wall[OURS, "4K", f"{count} threads"] for count in (1, 2, 4))
    said = f" (others took {busy:.0%} of the CPUs meanwhile)" if busy > BUSY else ""
    return [f"A driver written against the API of 4.19 pays {cost[0]:+.1f} % to the device and {cost[1]:+.1f} % back, against the "
            "managed one with the same batch of 512 pages.",
            f"In real time, on two virtual CPUs without KVM, two threads on ranges of their own get {one / two:.2f} times as much "
            f"done as one, four threads {one / four:.2f} times, and four processes "
            f"{wall[OURS, '4K', '1 processes'] / wall[OURS, '4K', '4 processes']:.2f} times as much as one{said}."]


def _where(parts: dict[str, Parts]) -> list[str]:
    """The table that says where the instructions are."""
    lines = ["Where they are (every instruction counted at its address; `bench-vm-*.json` has the functions):", "",
             "| operation | driver | " + " | ".join(profile.PARTS) + " | own share |",
             "| --- | --- |" + " ---: |" * (len(profile.PARTS) + 1)]
    for key in profile.MARKS:
        for driver, of in parts.items():
            if key not in of:
                continue
            share = f"{of[key]['the engine'] / sum(of[key].values()):.1%}" if driver == OURS else "–"
            said = f"{driver}, with its read" if driver == PEER and key[1] == _OPS[0] else driver
            lines.append(f"| {key[1]}, {key[0]} | {said} | " + " | ".join(f"{of[key][part]:.0f}" for part in profile.PARTS)
                         + f" | {share} |")
    return lines
