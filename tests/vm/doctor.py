# SPDX-License-Identifier: GPL-2.0
"""The doctor, on this machine: every kernel's headers with the answers known, and with pieces missing.

Inside the machines tests/user/doctor-test.sh compares it with the loaded module.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cache
import kernel
from initramfs import Tree
from progress import Failure, Step
from results import Results

SCRIPT = cache.TREE / "install" / "doctor.sh"
NAMES = ("mirror", "private", "coherent", "huge", "exclusive", "p2p")
SHELLS = (("dash", ["dash"]), ("busybox", ["busybox", "sh"]))


def ask(words: list[str], shell: list[str] | None = None) -> tuple[int, dict[str, Any]]:
    """The doctor's exit code and its answer."""
    done = subprocess.run([*(shell or ["sh"]), str(SCRIPT), "--json", *words], capture_output=True, text=True, check=False)
    try:
        return done.returncode, json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise Failure(f"the doctor's JSON cannot be read: {error}: {done.stdout[:200]} {done.stderr[:200]}") from error


def tests(results: Results) -> None:
    """All of them; needs nothing but the kernels' headers."""
    with Step("the doctor and the headers of all kernels"):
        for line in kernel.lines():
            if line.runs and not line.config:
                _line(results, line)
        _missing(results)
        _called(results)


def equip(tree: Tree, found: kernel.Kernel) -> None:
    """Give a machine the file in which an installed kernel has its configuration."""
    for config in [headers(found) / ".config", *found.tree.glob("usr/src/*/.config")][:1]:
        tree.add(config, f"/boot/config-{found.release}")


def headers(found: kernel.Kernel) -> Path:
    """What /lib/modules/RELEASE/build points to."""
    return found.tree / "usr/src" / f"linux-headers-{found.release}"


def _line(results: Results, line: kernel.Line) -> None:
    found = kernel.fetch(line)
    expected = set(line.offers)
    if "CONFIG_PCI_P2PDMA=y" in (headers(found) / ".config").read_text().splitlines():
        expected.add("p2p")
    for name, shell in SHELLS:
        _, told = ask(["--kdir", str(headers(found))], shell)
        can = {what for what in NAMES if told["can"][what]["works"] == "yes"}
        cannot = [what for what in NAMES if told["can"][what]["works"] == "no"]
        results.add("doctor", f"{line.name}: what works, and a reason for what does not ({name})",
                    can == expected and len(can) + len(cannot) == len(NAMES)
                    and all(told["can"][what]["why"] for what in cannot) and told["kernel"] == found.release,
                    [f"works: {sorted(can)}, expected: {sorted(expected)}", json.dumps(told)])


def _missing(results: Results) -> None:
    """A tree with pieces missing: unknown is said to be unknown, never no."""
    place = cache.TARGET / "doctor"
    shutil.rmtree(place, ignore_errors=True)
    found = kernel.fetch(kernel.line("6.1"))
    whole = headers(found)

    def tree(name: str, *without: str) -> str:
        (place / name).mkdir(parents=True)
        for path in whole.iterdir():
            if path.name not in without:
                (place / name / path.name).symlink_to(path)
        return str(place / name)

    _, told = ask(["--kdir", tree("no-symbols", "Module.symvers")])
    results.add("doctor", "without a list of symbols it does not know about migration",
                told["can"]["coherent"]["works"] == "unknown" and told["can"]["private"]["works"] == "no", [json.dumps(told["can"])])
    _, told = ask(["--kdir", tree("no-config", ".config", "include")])
    results.add("doctor", "without a configuration it does not know about private memory",
                told["can"]["private"]["works"] == "unknown" and told["config_from"] is None, [json.dumps(told)])
    code, told = ask(["--kver", "9.9.9-nowhere"])
    results.add("doctor", "of a kernel that is not there it knows nothing, and says what to install",
                code == 1 and all(told["can"][name]["works"] == "unknown" for name in NAMES)
                and "apt-get install linux-headers-9.9.9-nowhere" in told["next"], [json.dumps(told)])
    config = place / "poor"
    tree("poor", ".config", "include")
    (config / ".config").write_text((whole / ".config").read_text().replace("CONFIG_HMM_MIRROR=y\n", ""))
    code, told = ask(["--kdir", str(config)])
    results.add("doctor", "a kernel without HMM_MIRROR is named as such",
                code == 1 and "CONFIG_HMM_MIRROR" in (told["can"]["mirror"]["why"] or "") and len(told["next"]) == 1, [json.dumps(told)])


def _called(results: Results) -> None:
    """How it may be called, and what a person sees."""
    wrong = [subprocess.run(["sh", SCRIPT, *words], capture_output=True, text=True, check=False)
             for words in (["--nonsense"], ["--kver"], ["--kdir", "/does/not/exist"])]
    results.add("doctor", "called wrongly it exits with 2 and a word", all(done.returncode == 2 and done.stderr for done in wrong),
                [f"{done.args}: {done.returncode} {done.stderr}" for done in wrong])
    helped = subprocess.run(["sh", SCRIPT, "--help"], capture_output=True, text=True, check=False)
    results.add("doctor", "--help names every option", helped.returncode == 0
                and all(word in helped.stdout for word in ("--kver", "--kdir", "--json", "Exit:")), [helped.stdout])
    shown = subprocess.run(["sh", SCRIPT], capture_output=True, text=True, check=False)
    results.add("doctor", "the table of this machine has all that it should", not shown.stderr and all(
        word in shown.stdout for word in ("private memory", "Secure Boot", "free addresses", "signature", "CONFIG_DEVICE_PRIVATE")),
        [shown.stdout, shown.stderr])
