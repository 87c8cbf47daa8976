# SPDX-License-Identifier: GPL-2.0
"""`make demo`: real, unmodified programs whose memory lives in device memory, on unmodified kernels.

The programs in the machine print lines `HMM-DEMO {json}`; this file turns them into a page that a person reads.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import boot
import build
import cache
import check
import kernel
import klog
import suite
from initramfs import Tree
from kernel import Kernel, Machine
from progress import Failure, Step

PREFIX = "HMM-DEMO "
WIDTH = 100
_BARS = " ▁▂▃▄▅▆▇█"

Event = dict[str, Any]


@dataclass
class Act:
    """One machine of the demo."""

    kernel: Kernel
    machine: Machine
    events: list[Event] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    def of(self, kind: str) -> list[Event]:
        """The events of a kind."""
        return [event for event in self.events if event.get("kind") == kind]


def show(only: str | None) -> int:
    """Build everything, boot the machines, print the page; 0 when nothing was lost and nothing complained."""
    begin = time.monotonic()
    boot.must_exist()
    if not suite.programs("demo"):
        raise Failure("tests/user/suite.toml has no [[demo]]")
    with Step("core object", "core") as step:
        step.run(["make", "core"], hint="make core")
    check.user_programs()
    folder = cache.TARGET / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    acts = [_perform(line.name, machine) for line, machine in _bill(only)]
    page: list[str] = []
    for act in acts:
        name = f"{act.kernel.line.name}-{act.machine.name}"
        pictures = act.of("file")
        for picture in pictures:
            (folder / f"{name}-{picture['name']}").write_text(picture.pop("text", ""))
        (folder / f"{name}.json").write_text(json.dumps(act.events, indent=1) + "\n")
        page += _page(act)
        if pictures:
            names = ", ".join(picture["name"] for picture in pictures)
            page += ["", f"  Pictures: target/demo/{name}-* ({names})"]
    page += _verdict(acts)
    (folder / "demo.txt").write_text("\n".join(page) + "\n")
    print("\n".join(_coloured(line) for line in page))
    print(f"\n  {time.monotonic() - begin:.0f} s; this page: target/demo/demo.txt, raw figures: target/demo/*.json", flush=True)
    return 1 if any(act.trouble for act in acts) else 0


def _bill(only: str | None) -> list[tuple[kernel.Line, str]]:
    """Which machines are shown: the newest kernel with private memory, then with a PCI card, and one that has coherent memory only."""
    if only:
        line = kernel.line(only)
        return [(line, line.machines(True)[0])]
    lines = kernel.lines()
    private = [(line, "private") for line in lines if "private" in line.runs][:1]
    coherent = [(line, "coherent") for line in lines if "coherent" in line.runs and "private" not in line.runs][-1:]
    card = [(line, "vram") for line in lines if "vram" in line.runs][:1]
    return private + card + coherent


def _perform(name: str, machine_name: str) -> Act:
    found = kernel.fetch(kernel.line(name))
    machine = kernel.machine(machine_name)
    modules = build.build(found)
    chosen = [program for program in suite.programs("demo") if program.fits(machine.name)]
    tree = Tree(boot.place_for(found, "demo") / "tree")
    tree.add_modules(modules.modules, machine)
    suite.equip(tree, suite.needs(chosen))
    jobs = [boot.Job("load", "/modules/load", 60), *(program.job() for program in chosen),
            boot.Job("unload", "/modules/unload", 120)]
    act = Act(found, machine)
    with Step(f"machine {name} {machine.name}") as step:
        def hear(job: boot.Job | None, line: str) -> None:
            step.note = job.name if job else ""
            if line.startswith(PREFIX):
                try:
                    act.events.append(json.loads(line.removeprefix(PREFIX)))
                except ValueError:
                    act.trouble.append(f"not a figure: {line}")
        report = boot.boot(found, machine, tree, jobs, on_line=hear)
        step.note = f"up after {report.boot_seconds:.0f} s"
    for job in jobs:
        if job.timed_out or job.code != 0:
            how = "took too long" if job.timed_out else "was not run to its end" if not job.ran else f"exited with {job.code}"
            act.trouble += [f"{job.name} {how}", *(f"  | {line}" for line in job.output[-12:] if not line.startswith(PREFIX))]
    if report.trouble:
        act.trouble += [report.trouble, *(f"  | {line}" for line in boot.console_tail(report, 30))]
    act.trouble += [f"kernel: {line}" for line in klog.complaints(klog.since_start(report.log))]
    for event in act.events:
        for key in ("wrong_bytes", "wrong_sums", "lost", "leaked", "claimed"):
            if event.get(key):
                act.trouble.append(f"{event.get('name', event.get('kind'))}: {key} is {event[key]}")
        if event.get("identical") is False:
            act.trouble.append(f"{event.get('name')}: the output differs under hmm-run")
    return act


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)


def _milliseconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.0f} ms"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Columns as wide as they need to be; the first one to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    def line(row: list[str]) -> str:
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths, strict=True))]
        return "  " + "   ".join(cells).rstrip()
    return [line(head), "  " + "─" * (sum(widths) + 3 * (len(widths) - 1)), *map(line, rows)]


def curve(values: list[float], width: int) -> str:
    """A one-line picture of a series, from 0 to its highest value."""
    if not values:
        return ""
    count = min(width, len(values))
    cells = [max(values[len(values) * cell // count:max(len(values) * (cell + 1) // count, len(values) * cell // count + 1)])
             for cell in range(count)]
    top = max(cells) or 1
    return "".join(_BARS[round(cell * (len(_BARS) - 1) / top)] for cell in cells)


def _per_page(event: Event, spent: str, pages: str) -> str:
    """Microseconds per page, from a time in _us or in ns_."""
    if not event.get(spent) or not event.get(pages):
        return ""
    unit = 1000 if spent.startswith("ns_") else 1
    return f"{event[spent] / unit / event[pages]:.1f} µs"


def _program_row(event: Event) -> list[str]:
    return [str(event.get("name")), _number(event.get("to_device")), _per_page(event, "ns_to_device", "to_device"),
            _number(event.get("to_ram")), _per_page(event, "ns_to_ram", "to_ram"), _number(event.get("faults")),
            _number(event.get("peak_resident")), _milliseconds(event.get("plain_ms")), _milliseconds(event.get("device_ms")),
            "identical" if event.get("identical") else "DIFFERENT"]


def _page(act: Act) -> list[str]:
    release = act.kernel.release
    lines = ["", f"── Linux {release}, unmodified ({act.kernel.version}) · {act.machine.name} device memory ".ljust(WIDTH, "─")]
    for event in act.of("compute"):
        lines += ["", f"  A C program fills {event.get('mib', '?')} MiB from malloc,"
                      " the device works on it in place, the CPU checks every byte"]
        rows = [["moved to the device", _number(event.get("to_device")), _per_page(event, "to_device_us", "to_device")],
                ["the device worked on, in its own memory", _number(event.get("computed_on_device")),
                 _per_page(event, "compute_us", "computed_on_device")],
                ["came back when the CPU touched them", _number(event.get("to_ram")), _per_page(event, "to_ram_us", "to_ram")],
                ["CPU faults for that", _number(event.get("faults")), ""],
                ["wrong bytes", _number(event.get("wrong_bytes")), ""]]
        if act.machine.name == "coherent":
            rows[2:4] = [["came back (the CPU uses them where they are)", _number(event.get("to_ram")), ""]]
        lines += _table(["", "pages", "per page"], rows)
    runs = act.of("run")
    if runs:
        lines += ["", "  Unmodified programs of this machine, their memory moved under them all the time by hmm-run"]
        head = ["program", "→ device", "per page", "→ RAM", "per page", "CPU faults", "peak", "plain", "hmm-run", "output"]
        lines += _table(head, [_program_row(event) for event in runs])
    if act.of("svm"):
        lines += ["", "  malloc, fill, y += a * x on a PCI device with a DMA engine, read: no copy in sight (c/examples/svm.c, rust/examples/svm.rs)"]
        lines += [f"  {event.get('name')}: {event.get('said')}" for event in act.of("svm")]
    pictures = [event for event in act.of("picture") if event.get("resident")]
    if pictures:
        lines += ["", "  Pages on the device over time"]
        wide = max(len(str(event.get("name"))) for event in pictures)
        for event in pictures:
            seconds = (event.get("ms") or [0])[-1] / 1000
            lines.append(f"  {str(event.get('name')).ljust(wide)}  {curve(event['resident'], 60)}  "
                         f"peak {max(event['resident']):,} in {seconds:.1f} s")
    for event in act.of("device")[-1:]:
        lines += ["", f"  Device memory afterwards: {_number(event.get('total'))} frames, {_number(event.get('free'))} free, "
                      f"{_number(event.get('claimed'))} claimed, {_number(event.get('resident'))} resident"]
    return lines


def _verdict(acts: list[Act]) -> list[str]:
    lines = ["", "─" * WIDTH]
    for act in acts:
        lines += [f"  ! {act.kernel.line.name} {act.machine.name}: {text}" for text in act.trouble]
    moved = sum(event.get("to_device") or 0 for act in acts for event in act.events)
    ends = [event for act in acts for event in act.of("device")]
    lost, leaked = (sum(event.get(key) or 0 for event in ends) for key in ("lost", "leaked"))
    if len(ends) < len(acts):
        lines.append("  a machine did not report its device memory: nothing can be said about lost or leaked pages")
    else:
        runs = [event for act in acts for event in act.of("run")]
        same = sum(event.get("identical") is True for event in runs)
        lines.append(f"  {moved:,} pages moved to device memory · {same} of {len(runs)} outputs identical byte for byte"
                     f" · {lost} pages lost, {leaked} pages leaked")
    return lines


def _coloured(line: str) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return line
    if line.startswith("── "):
        return f"\x1b[1;36m{line}\x1b[0m"
    if line.startswith("  ! ") or "DIFFERENT" in line:
        return f"\x1b[1;31m{line}\x1b[0m"
    if "pages lost" in line:
        return f"\x1b[1;32m{line}\x1b[0m"
    return line


def preview(events: list[Event], kernel_name: str, machine_name: str) -> list[str]:
    """The page for figures that are there already; for tests."""
    line = kernel.line(kernel_name)
    found = Kernel(line, f"{line.series}.0-test", "0", cache.TARGET)
    act = Act(found, kernel.machine(machine_name), events)
    return _page(act) + _verdict([act])

