# SPDX-License-Identifier: GPL-2.0
"""The kernel's own HMM selftests (hmm-tests.c of Debian's linux-source package) against our device.

They were written for lib/test_hmm.c, and are built here as they come. A kernel line may name another series whose
selftests it takes: those of 6.1 never end once an assertion fails, 6.12 has them mended, for the same ABI.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import boot
import build
import cache
import kernel
import klog
import ktap
from initramfs import Tree
from kernel import Kernel
from progress import Failure, Step
from results import Results

_SOURCES = ("*/tools/testing/selftests/mm/*.[ch]", "*/tools/testing/selftests/*.h", "*/tools/include/*", "*/tools/arch/x86/include/*", "*/lib/test_hmm_uapi.h",
            "*/mm/gup_test.h")
# Without these two flags a test passes although it does not test: the library has to replace calls of libc's.
_HUGETLBFS = ["-Wl,--whole-archive", "-lhugetlbfs", "-Wl,--no-whole-archive"]
# The test driver has its private devices first, then the coherent ones; a machine of ours has only one kind.
_SCRIPT = """#!/bin/sh
kind=$1
shift
if [ "$kind" = coherent ]; then
	for n in 0 1; do ln -sf hmm_dmirror$n /dev/hmm_dmirror$((n + 2)); done
fi
echo 64 >/proc/sys/vm/nr_hugepages
mkdir -p /mnt/huge && mount -t hugetlbfs none /mnt/huge
grep -q exclusive /sys/module/hmm_devmem/parameters/caps || set -- "$@" -T exclusive -T exclusive_mprotect -T exclusive_cow
hmm-tests "$@" -v "hmm_device_$kind" -v "hmm2_device_$kind"
"""
_BENCHMARK = "benchmark_thp_migration"
_NEEDS_EXCLUSIVE = ("exclusive", "exclusive_mprotect", "exclusive_cow")


def program(found: Kernel) -> Path:
    """hmm-tests for a kernel, built from the newest source package of its series (or of the one it names instead)."""
    series = found.line.selftests or found.line.series
    package = kernel.source_package(found.line, series)
    place = cache.CACHE / "selftests" / f"{package.version}-{cache.digest(*_SOURCES, *_HUGETLBFS)}"
    with cache.locked():
        if not place.exists():
            with Step(f"hmm-tests of {package.version}", "selftests") as step, cache.made(place) as draft:
                kernel.archive().download([package], draft, step)
                step.run(["sh", "-c", "dpkg-deb --fsys-tarfile linux-source-*.deb | tar -xO --wildcards '*.tar.xz' |"
                          " xz -T2 -dc | tar -x --strip-components=1 --wildcards \"$@\" && rm -f linux-source-*.deb",
                          "sh", *_SOURCES], cwd=draft)
                tests = draft / "tools/testing/selftests/mm"
                more = [name for name in ("vm_util.c", "hugepage_settings.c") if (tests / name).exists()]
                step.run(["cc", "-O2", "-w", "-static", "-pthread", "-U_FORTIFY_SOURCE", "-D_GNU_SOURCE=", "-I.", "-I..", f"-I{draft}",
                          "-isystem", draft / "tools/include/uapi", f"-I{draft}/tools/testing/selftests",
                          "hmm-tests.c", *more, *_HUGETLBFS, "-o", draft / "hmm-tests"], cwd=tests)
    return cache.used(place) / "hmm-tests"


def equip(tree: Tree, found: Kernel, machine: str, benchmark: bool = False) -> boot.Job:
    """Put them into a machine; the job that runs them. The benchmark has a limit in seconds, which a busy host breaks."""
    tree.add_program(program(found))
    script = tree.place / "modules" / "hmm-tests"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    without = "" if benchmark else f" -T {_BENCHMARK}"
    return boot.Job("hmm-tests", f"/modules/hmm-tests {machine}{without}", 400)


def judge(results: Results, group: str, job: boot.Job, machine: str) -> None:
    """Add what the job said to the results."""
    seen = set()
    # Two harness runs follow each other in one output, one a fixture; each test says `ok N name`.
    for test in ktap.parse(line for line in job.output if re.match(r"(not )?ok \d+ |KTAP|TAP|# .*(Expected|SKIP)", line)):
        short = test.name.rpartition(".")[2]
        seen.add(short)
        name = f"hmm-tests: {test.name}"
        if test.skipped:
            results.skip(group, name, test.reason)
        else:
            results.add(group, name, test.passed, test.notes)
    for short in _NEEDS_EXCLUSIVE:
        if seen and short not in seen:
            results.skip(group, f"hmm-tests: hmm.hmm_device_{machine}.{short}",
                         "this kernel does not export make_device_exclusive()")
    if not seen or job.timed_out:
        results.add(group, "hmm-tests come to an end", False, job.output[-20:])


def run(only: str | None, variant: str | None) -> int:
    """`make hmm-tests`: all of them on one kernel; target/hmm-tests.json keeps what was said of other kernels."""
    boot.must_exist()
    found = kernel.fetch(kernel.line(only) if only else kernel.lines()[0])
    modules = build.build(found)
    results = Results()
    rows = []
    for name in found.line.machines(True):
        if name == "mirror" or variant and name != variant:
            continue
        machine = kernel.machine(name)
        tree = Tree(boot.place_for(found, f"hmm-tests-{name}") / "tree")
        tree.add_modules(modules.modules, machine)
        job = equip(tree, found, name, benchmark=True)
        first = len(results.tests)
        with Step(f"hmm-tests on {found.release}, {name} memory"):
            report = boot.boot(found, machine, tree, [boot.Job("load", "/modules/load", 60), job])
        judge(results, f"{found.line.name} {name}", job, name)
        lines = klog.complaints(klog.since_start(report.log))
        results.add(f"{found.line.name} {name}", "kernel log without a complaint", not lines and report.finished,
                    lines or [report.trouble])
        rows += [{"kernel": found.release, "variant": name, "test": test.name, "result": test.verdict, "reason": test.reason}
                 for test in results.tests[first:]]
    if not rows:
        raise Failure(f"{found.line.name} has no {variant or 'device'} memory to test",
                      hint=f"one of its machines: {' '.join(found.line.machines(True))}")
    record = cache.TARGET / "hmm-tests.json"
    new = {(row["kernel"], row["variant"]) for row in rows}
    old = json.loads(record.read_text()) if record.exists() else []
    rows = [row for row in old if (row["kernel"], row["variant"]) not in new] + rows
    record.write_text(json.dumps(rows, indent=1) + "\n")
    print("written: target/hmm-tests.json")
    return results.close()
