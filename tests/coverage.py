# SPDX-License-Identifier: GPL-2.0
"""Line and branch coverage of the core by its host tests: a table, target/coverage.json, exit 1 below the limits.

`make coverage` runs it. The tests are built once more with the compiler's own instrumentation, and read with the LLVM tools
of the same version (package llvm-NN; make setup installs it).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "target" / "coverage"
TESTS = ["--lib", "--test", "model", "--test", "journey", "--test", "abi", "--test", "map", "--test", "policy",
         "--test", "edges"]
# Not the core: a generator of the host, and what bindgen writes.
APART = {"gen.rs", "port_sys.rs"}
LINES, BRANCHES = 95.0, 90.0


def tool(name: str) -> str:
    """The LLVM tool of the compiler's version, or a newer one."""
    text = subprocess.run(["rustc", "-Vv"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"LLVM version: (\d+)", text)
    major = int(found[1]) if found else 0
    for number in range(major, major + 6):
        if path := shutil.which(f"{name}-{number}"):
            return path
    sys.exit(f"coverage: no {name} of LLVM {major}\nnext: apt-get install llvm-{major} (or make setup)")


def measure() -> dict[str, Any]:
    """Run the tests, and return what llvm-cov says about each file."""
    shutil.rmtree(PLACE / "raw", ignore_errors=True)
    environment = os.environ | {
        "RUSTC_BOOTSTRAP": "1",
        "RUSTFLAGS": "-Cinstrument-coverage -Zcoverage-options=branch",
        "LLVM_PROFILE_FILE": str(PLACE / "raw" / "%p-%m.profraw"),
        "CARGO_TARGET_DIR": str(PLACE),
    }
    # One build, then the programs by themselves: cargo names them.
    build = subprocess.run(["cargo", "test", "--locked", "--no-run", "--message-format=json", *TESTS], cwd=ROOT, env=environment,
                           stdout=subprocess.PIPE, text=True, check=False)
    if build.returncode:
        sys.exit("coverage: the tests do not build\nnext: cargo test --no-run")
    messages = [json.loads(line) for line in build.stdout.splitlines() if line.startswith("{")]
    tests = [m for m in messages if m.get("profile", {}).get("test") and m.get("executable")]
    # The first that has a function speaks for it: the library with its own tests comes last, in whatever order they were built.
    programs = [m["executable"] for m in sorted(tests, key=lambda m: (m["target"]["kind"] == ["lib"], m["target"]["name"]))]
    for program in programs:
        if subprocess.run([program, "--quiet"], cwd=ROOT, env=environment, check=False).returncode:
            sys.exit(f"coverage: {Path(program).name} failed\nnext: cargo test")
    data = PLACE / "all.profdata"
    raw = [str(path) for path in (PLACE / "raw").glob("*.profraw")]
    subprocess.run([tool("llvm-profdata"), "merge", "-sparse", "-o", str(data), *raw], check=True)
    objects = [word for program in programs[1:] for word in ("-object", program)]
    export = subprocess.run([tool("llvm-cov"), "export", "-summary-only", f"-instr-profile={data}", programs[0], *objects],
                            stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(export.stdout)["data"][0]


def main() -> int:
    """Measure and judge."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows: list[dict[str, Any]] = []
    for entry in measure()["files"]:
        path = Path(entry["filename"])
        if path.parent == ROOT / "rust" and path.name not in APART:
            rows.append({"file": f"rust/{path.name}"} | {
                kind: {key: entry["summary"][kind][key] for key in ("count", "covered")} for kind in ("lines", "branches")})
    rows.sort(key=lambda row: row["file"])
    total = {"file": "all"} | {kind: {key: sum(row[kind][key] for row in rows) for key in ("count", "covered")}
                               for kind in ("lines", "branches")}

    def share(row: dict[str, Any], kind: str) -> float:
        return 100.0 * row[kind]["covered"] / row[kind]["count"] if row[kind]["count"] else 100.0

    print(f"\n  {'file':<18} {'lines':>14} {'branches':>18}")
    for row in [*rows, total]:
        cells = [f"{row[kind]['covered']}/{row[kind]['count']} {share(row, kind):5.1f} %" for kind in ("lines", "branches")]
        print(f"  {row['file']:<18} {cells[0]:>14} {cells[1]:>18}")
    missed = [f"{kind} {share(total, kind):.1f} % < {limit} %" for kind, limit in (("lines", LINES), ("branches", BRANCHES))
              if not total[kind]["count"] or share(total, kind) < limit]
    result = {"files": rows, "all": total, "limits": {"lines": LINES, "branches": BRANCHES}, "ok": not missed}
    (ROOT / "target" / "coverage.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n  {'MISSED: ' + ', '.join(missed) if missed else 'ok'}; written: target/coverage.json")
    print(f"  lines that no test reached: {tool('llvm-cov')} show ... -instr-profile=target/coverage/all.profdata")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
