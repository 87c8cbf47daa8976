# SPDX-License-Identifier: GPL-2.0
"""All results of one run: printed as they come, written as JSON, counted in the closing line."""

from __future__ import annotations

import json
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


class Results:
    """The results so far."""

    def __init__(self, name: str = "test", quiet: bool = False) -> None:
        """`quiet`: nothing is printed, for a run beside another one that takes over the results by merge()."""
        self.name = name
        self.quiet = quiet
        self.tests: list[Test] = []
        self._begin = time.monotonic()

    def add(self, group: str, name: str, passed: bool, notes: list[str] | None = None) -> None:
        """A test that was run."""
        self._add(Test(group, name, "passed" if passed else "failed", notes=notes or []))

    def skip(self, group: str, name: str, reason: str) -> None:
        """A test that was not run."""
        self._add(Test(group, name, "skipped", reason or "no reason given"))

    def merge(self, other: Results) -> None:
        """What another run came to, as if it had come to that here and now."""
        for test in other.tests:
            self._add(test)

    def _add(self, test: Test) -> None:
        self.tests.append(test)
        if self.quiet:
            return
        word = "not ok" if test.verdict == "failed" else "ok"
        skip = f" # SKIP {test.reason}" if test.verdict == "skipped" else ""
        print(f"{word} {len(self.tests)} - {test.group}: {test.name}{skip}", flush=True)
        if test.verdict == "failed":
            for note in test.notes[-30:]:
                print(f"  | {note}", flush=True)

    def count(self, verdict: str) -> int:
        """How many have a verdict."""
        return sum(test.verdict == verdict for test in self.tests)

    def write(self, path: Path) -> None:
        """The machine-readable form."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"passed": self.count("passed"), "failed": self.count("failed"),
                                    "skipped": self.count("skipped"), "seconds": round(time.monotonic() - self._begin, 1),
                                    "steps": progress.DONE, "tests": [asdict(test) for test in self.tests]}, indent=1) + "\n")

    def close(self) -> int:
        """Print what failed and the closing line; the exit code."""
        self.write(cache.TARGET / f"{self.name}.json")
        failed = [test for test in self.tests if test.verdict == "failed"]
        if failed:
            print("\nfailed:")
            for test in failed:
                print(f"  {test.group}: {test.name}")
        print(f"\nfinished in {time.monotonic() - self._begin:.0f} s; results: target/{self.name}.json")
        print(f"{self.count('passed')} passed, {self.count('failed')} failed, {self.count('skipped')} skipped", flush=True)
        return 1 if failed or not self.count("passed") else 0
