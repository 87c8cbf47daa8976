# SPDX-License-Identifier: GPL-2.0
"""The sanitizer kernels: built here from Debian's linux-source, with DEVICE_PRIVATE and every checker.

Built at the first use, in the build root of their distribution, and kept in the cache. What is kept is what building
a module and booting need: a tenth of the build.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from pathlib import Path

import cache
import kernel
import klog
import root
from boot import Job
from kernel import Kernel, Line
from progress import Failure, Step
from results import Results

RECIPE = "1"  # changes with what is done here beyond the configuration
_HERE = Path(__file__).parent
# Of no use on this processor, and a third of the source.
_LEFT_OUT = ("arch/[!xK]*.[chS]", "arch/[!xK]*.dts*", "Documentation/[!K]*", "tools/testing/*", "tools/perf/*")

# The planted bugs, in this order: a report of KASAN turns lockdep off. What each makes the kernel say.
PLANTED = {
    "lock": re.compile(r"WARNING: possible circular locking dependency detected"),
    "free": re.compile(r"BUG: KASAN: (slab-)?use-after-free in \S*planted"),
    "leak": re.compile(r"unreferenced object 0x[0-9a-f]+ \(size \d+\)"),
}
_PLANT = "planted-"
# Leaks are looked for twice: an object is young for five seconds, and a pointer may be in a register for once.
_SCAN = "f=/sys/kernel/debug/kmemleak; sleep 6; echo scan >$f; echo scan >$f; cat $f"


def options(entry: Line) -> dict[str, str]:
    """The configuration of a line; a later file has the last word."""
    found: dict[str, str] = {}
    for name in entry.config:
        for line in (_HERE / name).read_text().splitlines():
            if match := re.fullmatch(r"(CONFIG_\w+)=(.*)", line):
                found[match[1]] = match[2]
    return found


def missing(wanted: dict[str, str], text: str) -> list[str]:
    """The options that a kernel's .config does not have as they were wanted."""
    lines = set(text.splitlines())
    return [f"{name}={value}" for name, value in wanted.items()
            if (f"{name}={value}" not in lines if value != "n" else f"{name}=y" in lines)]


def fetch(entry: Line) -> Kernel:
    """The kernel of a line with a configuration, in the cache; built if it is not there, which takes minutes."""
    environment = root.get(entry.root)
    package = kernel.source_package(entry)
    wanted = options(entry)
    release = re.split(r"[-~]", package.version)[0] + wanted["CONFIG_LOCALVERSION"].strip('"')
    facts = cache.digest(RECIPE, entry.root, *(f"{name}={value}" for name, value in wanted.items()))
    found = Kernel(entry, release, package.version, cache.CACHE / "kernels" / f"{release}_{package.version}-{facts}")
    # Its own lock: others need not wait for it.
    with cache.locked(cache.CACHE / "kernels" / f".{entry.name}"):
        if not found.place.exists():
            source = kernel.source(package)
            with Step(f"kernel {release}", f"kernel-{entry.name}") as step, cache.made(found.place) as draft:
                _build(found, draft, environment, source, wanted, step)
        return Kernel(entry, release, f"{package.version}-{facts}", cache.used(found.place))


def _build(found: Kernel, draft: Path, environment: Path, source: Path, wanted: dict[str, str], step: Step) -> None:
    tree = draft / "tree"
    place = tree / "usr/src" / f"linux-headers-{found.release}"
    place.mkdir(parents=True)
    step.run(["tar", "-x", "-C", place, "--strip-components=1", "--anchored",
              *(f"--exclude=linux-source-{found.line.series}/{name}" for name in _LEFT_OUT), "-f", source])
    (place / "wanted.config").write_text("".join(f"{name}={value}\n" for name, value in wanted.items()))
    modules = tree / "usr/lib/modules" / found.release
    modules.mkdir(parents=True)
    (modules / "build").symlink_to(f"/usr/src/{place.name}")

    def make(*words: str) -> None:
        # Others on this machine come first: this is the longest of all steps.
        step.run(["nice", "-n", "10", *root.command(environment, tree, draft, ["make", "-C", f"/usr/src/{place.name}", *words])],
                 shown=["(in", f"{environment.name})", "make", *words],
                 hint=f"make matrix-build KERNEL={found.line.name} builds only this")

    make("-s", "KCONFIG_ALLCONFIG=wanted.config", "allnoconfig")
    if lost := missing(wanted, (place / ".config").read_text()):
        raise Failure(f"{found.release} does not take {', '.join(lost)}", step.log, "correct tests/vm/sanitizer*.config")
    make("-s", "-j2", "bzImage", "modules")
    made = (place / "include/config/kernel.release").read_text().strip()
    if made != found.release:
        raise Failure(f"{found.release} calls itself {made}", step.log)
    (place / "arch/x86/boot/bzImage").rename(draft / "vmlinuz")
    _shrink(place)


def _shrink(place: Path) -> None:
    """Leave of a built tree what a module's build reads: headers, makefiles, built tools, the list of symbols."""
    for entry in place.iterdir():
        if entry.is_dir() and entry.name not in ("arch", "include", "scripts", "tools"):
            shutil.rmtree(entry)
        elif entry.name.startswith(("vmlinux", "built-in")):
            entry.unlink()
    for path in [path for part in ("arch", "scripts", "tools") for path in (place / part).rglob("*") if path.is_file()]:
        inside = path.relative_to(place)
        if path.suffix in (".o", ".a", ".cmd") or path.suffix == ".c" and inside.parts[0] != "scripts" or inside.parts[0] == "tools" and inside != Path("tools/objtool/objtool"):
            path.unlink()


def jobs() -> list[Job]:
    """The jobs that come after all others on a sanitizer kernel."""
    plant = [Job(f"{_PLANT}{name}", f"insmod /modules/planted.ko bug={name} && rmmod planted" +
                 (f" && {{ {_SCAN}; }}" if name == "leak" else ""), 240) for name in PLANTED]
    return [Job("kmemleak", _SCAN, 240), Job("taint", "cat /proc/sys/kernel/tainted", 10), *plant]


def before_planted(log: list[str]) -> list[str]:
    """The part of a kernel log before the first bug on purpose."""
    for number, line in enumerate(log):
        if f"hmm-vm: begin {_PLANT}" in line:
            return log[:number]
    return log


def _leaks(output: list[str]) -> list[str]:
    """What kmemleak found, but for what 5.10 loses by itself: the format that a reader of trace_pipe was shown."""
    found: list[list[str]] = []
    for line in output:
        if line.startswith("unreferenced object") or not found:
            found.append([])
        found[-1].append(line)
    return [line for lines in found if not any("trace_event_format+" in line for line in lines) for line in lines]


def judge(results: Results, group: str, job: Job, log: list[str]) -> None:
    """Add what one of these jobs said to the results."""
    if job.name == "kmemleak":
        leaks = _leaks(job.output)
        results.add(group, "kmemleak finds nothing", not leaks and job.code == 0, leaks)
    elif job.name == "taint":
        taint = klog.taint(int(job.output[0])) if job.output else "?"
        results.add(group, "no taint beyond out-of-tree and unsigned", not taint, [f"tainted: {taint}"])
    else:
        name = job.name.removeprefix(_PLANT)
        begin = next((number for number, line in enumerate(log) if f"hmm-vm: begin {job.name}" in line), len(log))
        end = next((number for number, line in enumerate(log) if f"hmm-vm: end {job.name}" in line), len(log))
        said = [*log[begin:end], *job.output]
        results.add(group, f"this kernel tells on a planted bug: {name}",
                    any(PLANTED[name].search(line) for line in said), said or ["the kernel said nothing"])


_begun: set[str] = set()
_tried: set[str] = set()


def begin(lines: list[Line]) -> None:
    """Build the sanitizer kernels of these lines beside everything else; fetch() waits for them."""
    wanted = [line for line in lines if line.config]
    _begun.update(line.name for line in wanted)
    threading.Thread(target=lambda: [_try(line) for line in wanted], daemon=True).start()


def _try(line: Line) -> None:
    try:
        fetch(line)
    except Failure:
        pass  # whoever runs the line meets it again, and tells
    finally:
        _tried.add(line.name)


def is_turn(line: Line) -> bool:
    """Whether a line should be run now: its kernel is built, and, if it needs no building, no other is being built.

    A compiler beside a machine takes the processors from tests that have limits in seconds.
    """
    return line.name in _tried if line.config else _tried >= _begun
