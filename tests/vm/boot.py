# SPDX-License-Identifier: GPL-2.0
"""Boots a kernel in QEMU, runs a plan of commands in it and says what happened.

The first serial port carries the kernel's console into a file, the second one what the commands print. KVM is used
only when HMM_ACCEL=kvm asks for it: a /dev/kvm that exists may hang.
"""

from __future__ import annotations

import functools
import json
import os
import re
import selectors
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import cache
import initramfs
import outside
from kernel import Kernel, Machine
from progress import Failure, say

BOOT_SECONDS = 120
ACCELERATOR = os.environ.get("HMM_ACCEL", "tcg,thread=multi")
# Where BARs come and go, both processors of the machine take turns in one thread. With two, one that maps or unmaps a BAR
# swaps the table of all memory at once, and the other finds a place in the new table by its number in the old one: after
# some thousand changes a register reads as 0, or QEMU 7.2 ends with SIGSEGV, and no module of ours need be loaded.
ONE_THREAD = "tcg,thread=single"


@dataclass
class Job:
    """One command of the plan, and what became of it."""

    name: str
    command: str
    seconds: int
    output: list[str] = field(default_factory=list)
    code: int | None = None
    timed_out: bool = False
    took: float = 0.0

    @property
    def ran(self) -> bool:
        """It came to an end, whatever that was."""
        return self.code is not None


@dataclass
class Report:
    """What a run of a machine left behind."""

    jobs: list[Job]
    console: Path
    log: list[str] = field(default_factory=list)
    tainted: int | None = None
    finished: bool = False
    boot_seconds: float = 0.0
    trouble: str = ""


def _command(kernel: Kernel, machine: Machine, image: Path, console: Path, counting: bool, more: list[str]) -> list[str]:
    append = ["console=ttyS0", "panic=-1", "oops=panic", "log_buf_len=4M", "printk.devkmsg=on", "ignore_loglevel",
              # The first event that is traced would have the kernel record the names of tasks, and for that rewrite a jump in
              # the scheduler. QEMU's emulator with a thread per processor now and then goes on with the breakpoint that stood
              # there meanwhile: "Oops: int3" in try_to_wake_up(), without any module loaded, within a minute of doing just that.
              "trace_options=norecord-cmd", *machine.append, *kernel.line.append]
    words = ["qemu-system-x86_64", "-machine", "pc", "-m", str(machine.memory)]
    if counting:
        # One virtual nanosecond is one guest instruction; without rep-movs each repetition would count.
        words += ["-smp", "1", "-cpu", "max,-erms,-fsrm", "-accel", ONE_THREAD, "-icount", "shift=0,sleep=off"]
        append.append("tsc=reliable")
    else:
        moving = machine.qemu and ACCELERATOR.startswith("tcg")
        words += ["-smp", "2", "-cpu", "max", "-accel", ONE_THREAD if moving else ACCELERATOR]
    return [*words, "-display", "none", "-nodefaults", "-no-user-config", "-no-reboot", "-nic", "none",
            "-serial", f"file:{console}", "-serial", "stdio", *more,
            "-kernel", str(kernel.image), "-initrd", str(image), "-append", " ".join(append)]


def boot(kernel: Kernel, machine: Machine, tree: initramfs.Tree, jobs: list[Job], *, counting: bool = False,
         on_line: Callable[[Job | None, str], None] | None = None, plugin: str = "") -> Report:
    """Run the jobs one after the other in a fresh machine. Returns also when the machine crashed or hung.

    A machine that dies before its first process exists is booted once more: nothing of ours has run by then. Seen on
    7.3.4 with QEMU 7.2, once in some hundred boots: an int3 of the kernel's text patching is executed after it is gone.
    """
    report = _boot(kernel, machine, tree, jobs, counting, on_line, plugin)
    if report.trouble and not report.boot_seconds:
        say(f"  (booting once more: {report.trouble})")
        report.console.rename(report.console.with_name("console-first.log"))
        report = _boot(kernel, machine, tree, jobs, counting, on_line, plugin)
    return report


def _boot(kernel: Kernel, machine: Machine, tree: initramfs.Tree, jobs: list[Job], counting: bool,
          on_line: Callable[[Job | None, str], None] | None, plugin: str) -> Report:
    place = tree.place.parent
    console = place / "console.log"
    console.write_bytes(b"")
    (tree.place / "plan").write_text("".join(f"{job.name}\t{job.seconds * kernel.line.slow}\t{job.command}\n" for job in jobs))
    image = tree.pack(place / "initramfs.cpio")
    report = Report(jobs, console)
    budget = BOOT_SECONDS + sum(job.seconds for job in jobs) + 30
    # A plugin that looks at every instruction takes its time.
    factor = (4 if counting else 1) * (4 if plugin else 1) * kernel.line.slow
    world = outside.Outside(place, machine)
    with open(place / "qemu.log", "wb") as errors:
        more = [*world.words(), *(["-plugin", plugin] if plugin else [])]
        qemu = subprocess.Popen(_command(kernel, machine, image, console, counting, more),
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
    assert qemu.stdout
    world.start()
    listener = _Listener(report, on_line)
    try:
        with open(place / "output.log", "wb") as record:
            for line in _lines(qemu.stdout, factor, budget, lambda: report.boot_seconds > 0):
                record.write(line.encode() + b"\n")
                listener.hear(line)
    except TimeoutError as late:
        report.trouble = str(late)
    finally:
        if qemu.poll() is None:
            try:
                qemu.wait(0 if report.trouble else 10)
            except subprocess.TimeoutExpired:
                qemu.kill()
        qemu.wait()
        world.stop()
    if not report.finished and not report.trouble:
        last = f", during '{listener.current.name}'" if listener.current else ""
        early = f"QEMU ended before the kernel was up (exit {qemu.returncode}); see {place}/qemu.log"
        stopped = f"the kernel stopped{last}, and QEMU with exit code {qemu.returncode}; see {place}/qemu.log"
        report.trouble = stopped if report.boot_seconds else early
    return report


def _lines(pipe: IO[bytes], factor: int, budget: int, is_up: Callable[[], bool]) -> Iterable[str]:
    """The lines of a pipe until it closes; TimeoutError when the machine takes too long."""
    descriptor = pipe.fileno()
    begin = time.monotonic()
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            ready = selector.select(1.0)
            spent = time.monotonic() - begin
            if not is_up() and spent > BOOT_SECONDS * factor:
                raise TimeoutError(f"the kernel did not start within {BOOT_SECONDS * factor} s")
            if spent > budget * factor:
                raise TimeoutError(f"the machine was not done within {budget * factor} s")
            if not ready:
                continue
            data = os.read(descriptor, 65536)
            if not data:
                break
            rest += data
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield line.rstrip(b"\r").decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


class _Listener:
    """Understands what init.sh says."""

    def __init__(self, report: Report, on_line: Callable[[Job | None, str], None] | None) -> None:
        self.report = report
        self.on_line = on_line
        self.current: Job | None = None
        self._jobs = {job.name: job for job in report.jobs}
        self._in_log = False
        self._begin = time.monotonic()
        self._since = 0.0

    def hear(self, line: str) -> None:
        """Take one line."""
        if line.startswith("@vm "):
            self._marker(line.split())
        elif self._in_log:
            self.report.log.append(line)
        else:
            if self.current is not None:
                self.current.output.append(line)
            if self.on_line:
                self.on_line(self.current, line)

    def _marker(self, words: list[str]) -> None:
        match words[1:]:
            case ["up", *_]:
                self.report.boot_seconds = time.monotonic() - self._begin
            case ["begin", name]:
                self.current = self._jobs.get(name)
                self._since = time.monotonic()
            case ["timeout", name] if name in self._jobs:
                self._jobs[name].timed_out = True
            case ["end", name, code] if name in self._jobs:
                job = self._jobs[name]
                job.code = int(code)
                job.took = time.monotonic() - self._since
                if job.output and not job.output[-1]:
                    job.output.pop()
                self.current = None
            case ["tainted", number]:
                self.report.tainted = int(number)
            case ["log"]:
                self._in_log = True
            case ["done"]:
                self._in_log = False
                self.report.finished = True


def place_for(kernel: Kernel, name: str) -> Path:
    """Where the files of one run are kept."""
    return cache.own(cache.TARGET / "vm" / f"{kernel.line.name}-{name}")


def must_exist() -> None:
    """QEMU, before much else is done."""
    if subprocess.run(["sh", "-c", "command -v qemu-system-x86_64"], capture_output=True, check=False).returncode:
        raise Failure("there is no QEMU", hint="apt-get install --no-install-recommends qemu-system-x86")


@functools.cache
def without_ibt() -> str:
    """Why the machines' processor cannot track indirect branches, as QEMU itself has it; empty if it can."""
    words = ["qemu-system-x86_64", "-machine", "pc", "-accel", ACCELERATOR, "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"]
    ask = [{"execute": "qmp_capabilities"}, {"execute": "quit"}]
    ask.insert(1, {"execute": "query-cpu-model-expansion", "arguments": {"type": "full", "model": {"name": "max"}}})
    told = subprocess.run(words, input="\n".join(map(json.dumps, ask)), capture_output=True, text=True, check=False, timeout=60)
    answers = [json.loads(line) for line in told.stdout.splitlines() if line.startswith("{")]
    models = [answer["return"]["model"]["props"] for answer in answers if "model" in answer.get("return", {})]
    if not models or not models[0].get("smep"):
        raise Failure(f"QEMU does not say what its processor can: {told.stdout[:200]} {told.stderr[:200]}")
    # Newer QEMU knows the flag, and may still not emulate it.
    named = {name: models[0][name] for name in ("ibt", "cet-ibt") if name in models[0]}
    if any(named.values()):
        return ""
    version = answers[0]["QMP"]["version"]["qemu"]
    return (f"QEMU {version['major']}.{version['minor']} has no CET: of the {len(models[0])} properties of its processor 'max' "
            + ("none is called ibt" if not named else f"{', '.join(named)} is off"))


def console_tail(report: Report, lines: int = 40) -> list[str]:
    """The last words of the kernel."""
    text = report.console.read_text(errors="replace") if report.console.exists() else ""
    return re.sub(r"\r", "", text).splitlines()[-lines:]
