# SPDX-License-Identifier: GPL-2.0
"""Instructions of the core's hot paths, counted by valgrind and compared with tests/counts.txt: exit 1 when one takes more.

`make counts` runs it, and so does `make test`. A path is done N times and not at all; the difference over N is what one costs, whatever
the machine does beside. `--write` writes the list anew.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tests" / "counts.txt"
# How often each is done: enough that what happens now and then has its share.
TIMES = {
    "pair-4K": 4000, "pair-64K": 4000, "pair-2M": 4000, "churn-95": 40000, "batch-512": 200, "to-ram-contiguous": 400,
    "to-ram-scattered": 400, "to-ram-whole": 4000, "map-insert": 65536, "map-lookup": 65536, "prefetch": 2000, "window-stream": 4000,
    "window-scattered": 4000}
# Compilers differ by some percent; a change worth a look is more than that.
TOLERANCE = 0.10


def counted(program: Path, name: str, n: int) -> int:
    """Instructions of the whole program."""
    run = subprocess.run(["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", program, name, str(n)],
                         capture_output=True, text=True, check=False)
    found = re.search(r"I\s+refs:\s+([\d,]+)", run.stderr)
    if run.returncode or not found:
        sys.exit(f"counts: {name} failed:\n{run.stderr}")
    return int(found[1].replace(",", ""))


def build() -> Path:
    """The program, with optimisation and without the vectoriser, as in a kernel."""
    if not shutil.which("valgrind"):
        sys.exit("counts: no valgrind\nnext: apt-get install valgrind (or make setup)")
    place = ROOT / "target" / "counts"
    built = subprocess.run(["cargo", "rustc", "--quiet", "--locked", "--release", "--example", "counts", "--target-dir", place, "--",
                            "-Cno-vectorize-loops", "-Cno-vectorize-slp"], cwd=ROOT, check=False)
    if built.returncode:
        sys.exit("counts: tests/counts.rs does not build")
    return place / "release" / "examples" / "counts"


def main() -> int:
    """Count, and compare or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write tests/counts.txt anew")
    arguments = parser.parse_args()
    program = build()
    now = {name: (counted(program, name, n) - counted(program, name, 0)) / n for name, n in TIMES.items()}
    if arguments.write:
        LIST.write_text("# SPDX-License-Identifier: GPL-2.0\n# Instructions of one of each; `python3 tests/counts.py --write` writes this.\n"
                        + "".join(f"{name:<18} {count:9.1f}\n" for name, count in now.items()))
        print(f"written: {LIST.relative_to(ROOT)}")
        return 0
    known = {line.split()[0]: float(line.split()[1]) for line in LIST.read_text().splitlines() if not line.startswith("#")}
    wrong = set(known) ^ set(now)
    print(f"  {'instructions of':<18} {'listed':>9} {'now':>9}")
    for name in [name for name in now if name in known]:
        much = now[name] > known[name] * (1 + TOLERANCE) + 1
        wrong |= {name} if much else set()
        little = " (less: python3 tests/counts.py --write)" if now[name] < known[name] * (1 - TOLERANCE) - 1 else ""
        print(f"  {name:<18} {known[name]:9.1f} {now[name]:9.1f}{' MORE' if much else little}")
    if wrong:
        print(f"counts: more than listed, or not listed: {', '.join(sorted(wrong))}\nnext: make it cheaper, or say why and --write")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
