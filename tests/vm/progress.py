# SPDX-License-Identifier: GPL-2.0
"""What the person in front of the terminal sees: one line per step, and on failure what to do next."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import cache

TAIL = 30
# Every step that ended, and how many seconds it took.
DONE: list[tuple[str, float]] = []


class Failure(Exception):
    """Something a person has to know: what went wrong, where the log is, what to try next."""

    def __init__(self, what: str, log: Path | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.log = log
        self.hint = hint

    def show(self, out: TextIO = sys.stderr) -> None:
        """Print it, with the last lines of the log."""
        if self.log and self.log.exists():
            lines = self.log.read_text(errors="replace").splitlines()
            print(f"\n--- last lines of {short(self.log)}", file=out)
            for line in lines[-TAIL:]:
                print(f"  | {line}", file=out)
        print(f"\nfailed: {self.what}", file=out)
        if self.log:
            print(f"log:    {short(self.log)}", file=out)
        if self.hint:
            print(f"next:   {self.hint}", file=out)
        out.flush()


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
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Step:
        self._start = time.monotonic()
        # What goes on beside the main thread says only that it ended.
        if sys.stdout.isatty() and threading.current_thread() is threading.main_thread():
            self._thread = threading.Thread(target=self._spin, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if self._thread:
            self._stop.set()
            self._thread.join()
        if sys.stdout.isatty():
            sys.stdout.write("\r\x1b[K")
        mark = "FAILED" if kind else "ok"
        DONE.append((self.title, round(self.elapsed(), 1)))
        note = f"  {self.note}" if self.note else ""
        print(f"  {self.title:<44} {self.elapsed():7.1f} s  {mark}{note}", flush=True)

    def elapsed(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._start

    def _spin(self) -> None:
        wheel = "|/-\\"
        turn = 0
        while not self._stop.wait(0.2):
            turn += 1
            sys.stdout.write(f"\r\x1b[K{wheel[turn % 4]} {self.title:<44} {self.elapsed():7.1f} s  {self.note}")
            sys.stdout.flush()

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
