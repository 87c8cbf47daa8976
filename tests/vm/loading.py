# SPDX-License-Identifier: GPL-2.0
"""Modules as a user has them, loaded: from the packages, of others, signed or not, GPL or not; and what the log says.

Each of these machines does what makes a kernel complain, so it is a machine apart from those of the other tests.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import boot
import build
import doctor
import install
import kernel
import root
import suite
from initramfs import Tree
from kernel import Kernel, Machine
from progress import Failure, Step
from results import Results

# A line of a stack trace; an address that may be a remnant has a question mark.
_FRAME = re.compile(r"\s*(?P<guess>\? )?(?P<name>\S+)\+(?P<offset>0x\w+)/(?P<size>0x\w+)(?: \[(?P<module>\w+)[^\]]*\])?\s*")

# Uses a symbol that is for GPL modules only, and calls it never.
_CLOSED = """// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
extern void hmm_devmem_add(void);
static bool now;
module_param(now, bool, 0);
static int __init closed_init(void)
{
	if (now)
		hmm_devmem_add();
	return 0;
}
static void __exit closed_exit(void)
{
}
module_init(closed_init);
module_exit(closed_exit);
MODULE_DESCRIPTION("Its licence is put here by the test");
MODULE_LICENSE("LICENCE");
"""


def tests(results: Results) -> None:
    """The kernels whose packages install.py has installed."""
    for name, lines in install.DISTRIBUTIONS.items():
        found = kernel.fetch(kernel.line(lines[0]))
        _machine(results, found, kernel.machine(found.line.runs[0]), _packaged(name))


def _packaged(name: str) -> Path:
    """The modules that DKMS and the installed headers made on a distribution."""
    place = install.PLACE / f"modules-{name}"
    if not (place / "hmm_devmem.ko").exists():
        raise Failure(f"{place} is empty", hint="make test-install")
    return place


def _closed(results: Results, group: str, found: Kernel, symbols: Path) -> list[Path]:
    """A module under another licence is refused when it is built. Under the GPL it builds; then its licence is exchanged."""
    place = install.fresh(f"closed-{found.line.name}")
    shutil.copy(symbols, place / "Module.symvers.hmm")
    (place / "Kbuild").write_text("obj-m := closed.o\n")
    make = ["make", "-C", f"/lib/modules/{found.release}/build", "M=/build", "KBUILD_EXTRA_SYMBOLS=/build/Module.symvers.hmm", "modules"]
    words = root.command(root.get(found.line.root), found.tree, place, make)
    told = {}
    for licence in ("Proprietary", "GPL"):
        (place / "closed.c").write_text(_CLOSED.replace("LICENCE", licence))
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        told[licence] = done.returncode, done.stdout + done.stderr
    code, text = told["Proprietary"]
    results.add(group, "a module that is not under the GPL and uses hmm_devmem_add does not build",
                code != 0 and bool(re.search(r"GPL-incompatible module.*GPL-only symbol '?hmm_devmem_add", text)), text.splitlines())
    code, text = told["GPL"]
    results.add(group, "the same module under the GPL builds", code == 0, text.splitlines())
    opened, closed = place / "open.ko", place / "closed.ko"
    data = closed.read_bytes()
    opened.write_bytes(data)
    closed.write_bytes(data.replace(b"license=GPL\0", b"license=Own\0"))
    return [opened, closed]


def _machine(results: Results, found: Kernel, machine: Machine, packaged: Path) -> None:
    group = f"loading {found.line.name}"
    modules = build.build(found)
    tree = Tree(boot.place_for(found, "loading") / "tree")
    trace = next(path for path in modules.modules if path.name == "hmm_trace.ko")
    tree.add_modules([*sorted(packaged.glob("*.ko")), trace, *_closed(results, group, found, packaged / "Module.symvers")])
    tree.add(modules.place / "hmm_devmem.ko", "/modules/unsigned.ko")
    doctor.equip(tree, found)
    suite.equip(tree, ["target/user/api", "install/doctor.sh"])
    here = f"/lib/modules/{found.release}"
    certificate = "mkdir -p /var/lib/dkms && echo key >/var/lib/dkms/mok.pub"
    private = machine.name == "private"
    # Under load a page may stay where it is, which the program does not take for an answer.
    client = "for i in 1 2 3; do api --bench && exit; rmmod hmm_probe419; done; exit 1" if private else (
        "insmod /modules/hmm_probe419.ko coherent_start=0x100000000 coherent_size_mb=64 && rmmod hmm_probe419")
    jobs = [
        boot.Job("load", "insmod /modules/hmm_devmem.ko" + (" && insmod /modules/minimal.ko && rmmod minimal" if private else ""), 60),
        boot.Job("client", client, 120),
        boot.Job("open", "insmod /modules/open.ko && rmmod closed", 30),
        boot.Job("closed", "insmod /modules/closed.ko", 30),
        boot.Job("closed-says", "dmesg | tail -n 5", 30),
        boot.Job("trace", "insmod /modules/hmm_trace.ko && rmmod hmm_trace; code=$?; dmesg | tail -n 150; exit $code", 60),
        boot.Job("enforce", "rmmod hmm_probe419 2>/dev/null; rmmod hmm_devmem && echo 1 >/sys/module/module/parameters/sig_enforce", 30),
        boot.Job("unsigned", "insmod /modules/unsigned.ko", 30),
        boot.Job("doctor-unsigned", f"mkdir -p {here} && cp /modules/unsigned.ko {here}/hmm_devmem.ko; sh /data/doctor.sh --json", 60),
        boot.Job("doctor-signed", f"{certificate}; cp /modules/hmm_devmem.ko {here}/hmm_devmem.ko; sh /data/doctor.sh --json", 60),
    ]
    with Step(f"machine {group}") as step:
        report = boot.boot(found, machine, tree, jobs)
        step.note = report.trouble
    done = {job.name: job for job in jobs}
    if not report.finished:
        results.add(group, "the machine ran to its end", False, [report.trouble, *boot.console_tail(report)])
        return

    results.add(group, "the modules that DKMS built load", done["load"].code == 0, done["load"].output)
    # With private memory it moves pages there and back, and ends well only if all moved and every byte is right.
    moved = sum(line.count('"to ') for line in done["client"].output)
    results.add(group, "a driver for 4.19, built against the installed headers, " + ("moves memory" if private else "loads"),
                done["client"].code == 0 and (moved > 1 or not private), done["client"].output)
    results.add(group, "a GPL module that uses hmm_devmem_add loads", done["open"].code == 0, done["open"].output)
    results.add(group, "the same module under another licence does not",
                done["closed"].code != 0 and any("Unknown symbol hmm_devmem_add" in line for line in done["closed-says"].output),
                [*done["closed"].output, *done["closed-says"].output])
    judge_trace(results, group, done["trace"])
    _signatures(results, group, done)


def judge_trace(results: Results, group: str, job: boot.Job) -> None:
    """The stack trace that goes through the Rust core: every frame of ours is certain."""
    lines = [re.sub(r"^(<\d+>)?\[[^\]]*\] ?", "", line) for line in job.output]
    begin = next((number for number, line in enumerate(lines) if line.startswith("Call Trace:")), len(lines))
    frames: list[tuple[bool, str, bool]] = []  # a guess, the name, ours
    for line in lines[begin + 1:]:
        if frame := _FRAME.fullmatch(line):
            # The address where a function begins is a pointer to it that lies on the stack; nothing returns to there.
            if not (frame["name"].startswith("__pfx_") and frame["offset"] == frame["size"]):
                frames.append((bool(frame["guess"]), frame["name"], frame["module"] == "hmm_trace"))
        elif "</TASK>" in line or "end trace" in line:
            break
    shown = lines[begin:begin + 24]
    ours = [(guess, name) for guess, name, own in frames if own]
    order = [name for _, name in ours if name in ("hmm_core_plan_to_device", "hmm_trace_claim")]
    results.add(group, "the core finds a frame that was given back twice, and says so",
                job.code == 0 and any("refused at rust/" in line for line in lines), job.output)
    results.add(group, "the stack trace goes through the Rust core, and no frame of ours is a guess",
                order == ["hmm_core_plan_to_device", "hmm_trace_claim"] and not any(guess for guess, _ in ours), shown)
    last = max((number for number, (_, _, own) in enumerate(frames) if own), default=len(frames))
    results.add(group, "and goes on below them", any(not guess for guess, _, _ in frames[last + 1:]), shown)


def _signatures(results: Results, group: str, done: dict[str, boot.Job]) -> None:
    """A kernel that wants signatures: what is not signed is refused, and the doctor names the command."""
    results.add(group, "where signatures are wanted an unsigned module is refused",
                done["enforce"].code == 0 and done["unsigned"].code != 0, done["unsigned"].output)
    for name, signed, command in (("doctor-unsigned", "no", "make sign KEY="), ("doctor-signed", "yes", "mokutil --import /var/lib/dkms/mok.pub")):
        told = json.loads(next((line for line in done[name].output if line.startswith("{")), "{}"))
        results.add(group, f"the doctor sees that a signature is wanted and {'there' if signed == 'yes' else 'missing'}, and says: {command}",
                    told.get("signature_wanted") == "yes" and told.get("signed") == signed
                    and any(command in line for line in told.get("next", [])), done[name].output)
