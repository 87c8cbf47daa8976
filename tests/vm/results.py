# SPDX-License-Identifier: GPL-2.0
"""All results of one run: printed as they come, written as JSON, counted in the closing line."""

from __future__ import annotations

import json
import resource
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cache
import progress


@dataclass
class Test:
    """One test that was run, or was not and says why."""

    group: str
    name: str
    verdict: str  # passed, failed or skipped
    reason: str = ""
    notes: list[str] = field(default_factory=list)


def _processor() -> float:
    """Seconds of processor time that the programs took that were started, as far as they have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Results:
    """The results so far; any thread may add to them."""

    def __init__(self, name: str = "test") -> None:
        self.name = name
        self.tests: list[Test] = []
        self._begin = time.monotonic()
        self._adding = threading.Lock()

    def add(self, group: str, name: str, passed: bool, notes: list[str] | None = None) -> None:
        """A test that was run."""
        self._add(Test(group, name, "passed" if passed else "failed", notes=notes or []))

    def skip(self, group: str, name: str, reason: str) -> None:
        """A test that was not run."""
        self._add(Test(group, name, "skipped", reason or "no reason given"))

    def _add(self, test: Test) -> None:
        word = "not ok" if test.verdict == "failed" else "ok"
        skip = f" # SKIP {test.reason}" if test.verdict == "skipped" else ""
        notes = [f"  | {note}" for note in test.notes[-30:]] if test.verdict == "failed" else []
        # Lanes (check.py) share these results.
        with self._adding:
            self.tests.append(test)
            progress.say("\n".join([f"{word} {len(self.tests)} - {test.group}: {test.name}{skip}", *notes]))

    def count(self, verdict: str, group: str | None = None) -> int:
        """How many have a verdict, of one group or of all."""
        return sum(test.verdict == verdict and group in (None, test.group) for test in self.tests)

    def write(self, path: Path) -> None:
        """The machine-readable form."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"passed": self.count("passed"), "failed": self.count("failed"),
                                    "skipped": self.count("skipped"), "seconds": round(time.monotonic() - self._begin, 1),
                                    "steps": [dict(zip(("step", "after", "seconds"), step, strict=True)) for step in progress.DONE],
                                    "tests": [asdict(test) for test in self.tests]}, indent=1) + "\n")

    def close(self) -> int:
        """Print what failed and the closing line; the exit code."""
        self.write(cache.TARGET / f"{self.name}.json")
        failed = [test for test in self.tests if test.verdict == "failed"]
        if failed:
            print("\nfailed:")
            for test in failed:
                print(f"  {test.group}: {test.name}")
        print(f"\n{progress.table()}\n\nfinished in {time.monotonic() - self._begin:.0f} s, {_processor():.0f} s of processor time; "
              f"results: target/{self.name}.json")
        print(f"{self.count('passed')} passed, {self.count('failed')} failed, {self.count('skipped')} skipped", flush=True)
        return 1 if failed or not self.count("passed") else 0
