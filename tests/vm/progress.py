# SPDX-License-Identifier: GPL-2.0
"""What the person in front of the terminal sees: one line per step, and on failure what to do next."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import cache

TAIL = 30
BEGIN = time.monotonic()
# Every step that ended: its title, after how many seconds of the run it began, and how many it took.
DONE: list[tuple[str, float, float]] = []
# Steps go on beside each other; on a terminal the last line shows all of them.
_running: list[Step] = []
_speaking = threading.RLock()


def say(text: str, out: TextIO | None = None) -> None:
    """Print lines as a whole; any thread may."""
    with _speaking:
        if sys.stdout.isatty():
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()
        print(text, file=out or sys.stdout, flush=True)


def table() -> str:
    """Where the time went: the steps of at least five seconds, in the order in which they began."""
    rows = [f"{begin:7.0f} {seconds:8.0f}  {title}" for title, begin, seconds in sorted(DONE, key=lambda step: step[1]) if seconds >= 5]
    return "\n".join(["  after  seconds  step", *rows])


class Failure(Exception):
    """Something a person has to know: what went wrong, where the log is, what to try next."""

    def __init__(self, what: str, log: Path | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.log = log
        self.hint = hint

    def show(self, out: TextIO = sys.stderr) -> None:
        """Print it, with the last lines of the log."""
        lines: list[str] = []
        if self.log and self.log.exists():
            tail = self.log.read_text(errors="replace").splitlines()[-TAIL:]
            lines += ["", f"--- last lines of {short(self.log)}", *(f"  | {line}" for line in tail)]
        lines += ["", f"failed: {self.what}"]
        if self.log:
            lines.append(f"log:    {short(self.log)}")
        if self.hint:
            lines.append(f"next:   {self.hint}")
        say("\n".join(lines), out)


def short(path: Path) -> str:
    """The path as a person in the clone would type it."""
    with_tree = os.path.relpath(path, cache.TREE)
    return with_tree if not with_tree.startswith("..") else str(path)


class Step:
    """One line of progress. On a terminal it lives while the step runs, elsewhere it is printed at its end."""

    def __init__(self, title: str, log: str | None = None) -> None:
        self.title = title
        self.note = ""
        self.log: Path | None = None
        if log:
            cache.LOGS.mkdir(parents=True, exist_ok=True)
            self.log = cache.LOGS / f"{log}.log"
            self.log.write_text("")
        self._start = 0.0

    def __enter__(self) -> Step:
        self._start = time.monotonic()
        with _speaking:
            _running.append(self)
            if sys.stdout.isatty() and len(_running) == 1:
                threading.Thread(target=_show, daemon=True).start()
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        with _speaking:
            _running.remove(self)
        mark = "FAILED" if kind else "ok"
        DONE.append((self.title, round(self._start - BEGIN, 1), round(self.elapsed(), 1)))
        note = f"  {self.note}" if self.note else ""
        say(f"  {self.title:<44} {self.elapsed():7.1f} s  {mark}{note}")

    def elapsed(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._start

    def run(self, command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None,
            hint: str | None = None, shown: Sequence[str] | None = None) -> None:
        """Run a command into the step's log, where it is written as `shown`; a Failure when it does not exit with 0."""
        assert self.log, "a step that runs commands has a log"
        words = [str(word) for word in command]
        with open(self.log, "a") as out:
            print("$ " + " ".join(shown or words), file=out, flush=True)
            done = subprocess.run(words, cwd=cwd or cache.TREE, env={**os.environ, **(env or {})},
                                  stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise Failure(f"{self.title} (exit {done.returncode})", self.log, hint)


def _show() -> None:
    """Keep the last line of the terminal up to date, as long as there is a step."""
    turn = 0
    while True:
        with _speaking:
            if not _running:
                return
            turn += 1
            text = " · ".join(f"{step.title} {step.elapsed():.0f} s{', ' if step.note else ''}{step.note}" for step in _running)
            sys.stdout.write("\r\x1b[K" + f"{'|/-'[turn % 3]} {text}"[:shutil.get_terminal_size().columns - 1])
            sys.stdout.flush()
        time.sleep(0.2)
