# SPDX-License-Identifier: GPL-2.0
"""`make test`: the harness itself, generated files, the core on the host, its object, the modules, the machines."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import threading
import time
import traceback
import unittest
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import boot
import build
import cache
import disk
import doctor
import install
import kernel
import klog
import ktap
import loops
import loading
import matrix
import objects
import probes
import rules
import sanitizer
import selftests
import suite
from initramfs import Tree
from kernel import Kernel, Line, Machine
from progress import Failure, Step
from results import Results

# The core's own limit: it has to stay a small thing. A third of it is the range map, which keeps the hints.
CORE_TEXT_BYTES = 40 * 1024
CAPS = "cat /sys/module/hmm_devmem/parameters/caps; dmesg | grep 'hmm_devmem: this kernel offers'"
# The same in the words of the kernel's log.
OFFERS = {"mirror": "mirrors", "private": "private memory", "coherent": "coherent memory", "huge": "whole 2 MiB folios",
          "exclusive": "exclusive access"}


def everything(only: list[str], every: bool = False) -> int:
    """Run all stages. Broken machinery is a failure with its explanation, never a silent skip.

    With `every`, in every machine of the list and not only in those of `make test`.
    """
    results = Results()
    lines = [line for line in kernel.lines() if line.machines(every) and (not only or line.name in only)]
    before = leftovers()
    harness(results)
    house(results)
    if guarded(results, lambda: prepare(lines)):
        stages = (generated, core, install.everything, doctor.tests, host, fuzz, counts, loading.tests)
        lanes([Task(lambda: [guarded(results, functools.partial(stage, results)) for stage in stages]),
               *_tasks(results, lines, lambda line: line.machines(every))])
    after = leftovers() - before
    results.add("harness", "the run leaves no mount, and no file outside target/", not after, sorted(after))
    return results.close()


def grid(only: list[str], build_only: bool) -> int:
    """`make matrix`: all lines without the sanitizer kernels, or those that are named.

    The exit code is 0 when every row is what the list demands: without `only`, those of all lines that were ever run, too.
    """
    results = Results("matrix-tests")
    lines = [line for line in kernel.lines() if (line.name in only if only else not line.config)]
    begin = time.monotonic()
    if guarded(results, lambda: prepare(lines, not build_only)):
        lanes(_tasks(results, lines, lambda line: () if build_only else line.machines(True)))
    spent = f"{time.monotonic() - begin:.0f} s"
    if build_only:
        print(f"\nbuilt for {len(lines)} kernels in {spent}")
        return results.close()
    wrong = matrix.wrong(lines)
    print("\n".join(["", *matrix.table(), "", f"{len(lines)} kernels in {spent}; written: target/{matrix.JSON.name}; make readme copies the table",
                     *(f"  {text}" for text in wrong)]))
    return results.close() or int(bool(wrong))


def room(needed: int) -> None:
    """Gigabytes that the clone's target/ and the cache may grow to have to be on the disk, before an hour's work meets its end."""
    def size(place: Path) -> int:
        told = subprocess.run(["du", "-skx", place], capture_output=True, text=True, check=False).stdout.split()
        return int(told[0]) * 1024 if told else 0
    left = needed * 10**9 - size(cache.TARGET) - size(cache.CACHE)
    for place in (cache.TREE, cache.CACHE):
        place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place).free
        if free < left:
            raise Failure(f"{free / 1e9:.1f} GB are free where {place} is, and up to {left / 1e9:.1f} GB more are needed",
                          hint="make room there: make clean empties target/, make distclean the cache as well")


def prepare(lines: list[Line], machines: bool = True) -> None:
    """What everything else needs: room, QEMU, the core object, the programs for the machines; sanitizer kernels are begun."""
    room(12)
    boot.must_exist()
    sanitizer.begin(lines)
    with Step("core object", "core") as step:
        step.run(["make", "core"], hint="make core")
    if machines:
        user_programs()


def guarded(results: Results, call: Callable[[], object], group: str = "machinery") -> bool:
    """Whether a call came to its end. What broke is a failed test; it does not keep the next from its turn."""
    try:
        call()
        return True
    except Failure as failure:
        failure.show(sys.stdout)
        results.add(group, failure.what, False)
    except Exception as problem:  # noqa: BLE001 - a thread must not take its results with it
        results.add(group, f"the harness broke: {problem!r}", False, traceback.format_exc().splitlines())
    return False


@dataclass
class Task:
    """Something for a lane; `ready` says whether it could begin without waiting for something."""

    call: Callable[[], object]
    ready: Callable[[], bool] = lambda: True


def lanes(tasks: list[Task], count: int = 2) -> None:
    """Run tasks beside each other, in their order; one that is not ready lets others pass.

    A virtual machine does not fill two processors, and neither does a compiler that links.
    """
    left = list(tasks)
    taking = threading.Lock()

    def work() -> None:
        while True:
            with taking:
                if not left:
                    return
                task = next((task for task in left if task.ready()), left[0])
                left.remove(task)
            task.call()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _tasks(results: Results, lines: list[Line], machines: Callable[[Line], tuple[str, ...]]) -> list[Task]:
    """Each kernel of the list: build for it and boot it. The sanitizer kernels take longest and come first."""
    def one(line: Line) -> None:
        matrix.replace(line, machines(line), [])
        guarded(results, lambda: matrix.replace(line, machines(line), one_kernel(results, line, machines(line))), f"build {line.name}")
    return [Task(functools.partial(one, line), functools.partial(sanitizer.is_turn, line))
            for line in sorted(lines, key=lambda line: not line.config)]


def leftovers() -> set[str]:
    """Mounts in the clone or the cache, and what git would call new or changed."""
    places = (str(cache.TREE), str(cache.CACHE))
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    # Without the option git writes its index, as root.
    changed = subprocess.run(["git", "--no-optional-locks", "status", "--porcelain"], cwd=cache.TREE, capture_output=True, text=True,
                             check=False)
    return {place for place in mounts if place.startswith(places)} | set(changed.stdout.splitlines())


def harness(results: Results) -> None:
    """The tests of this harness."""
    loader = unittest.TestLoader()
    for entry in _flat(loader.discover(str(Path(__file__).parent), pattern="test_*.py")):
        outcome = unittest.TestResult()
        entry.run(outcome)
        problems = [text for _, text in [*outcome.failures, *outcome.errors]]
        results.add("harness", entry.id(), not problems, problems[0].splitlines() if problems else [])


def _flat(tests: unittest.TestSuite) -> list[unittest.TestCase]:
    found: list[unittest.TestCase] = []
    for entry in tests:
        found += _flat(entry) if isinstance(entry, unittest.TestSuite) else [entry]
    return found


def house(results: Results) -> None:
    """The rules of the house."""
    for name, rule in rules.RULES.items():
        broken = list(rule())
        results.add("rules", name, not broken, broken)


def generated(results: Results) -> None:
    """Every checked-in generated file is what its source says."""
    trouble: list[str] = []
    with Step("generated files", "gen") as step:
        try:
            step.run(["make", "gen-check"])
        except Failure:
            assert step.log
            trouble = step.log.read_text(errors="replace").splitlines() + ["next: make gen, and commit what changed"]
    results.add("generated", "checked-in files are what make gen writes", not trouble, trouble)


def core(results: Results) -> None:
    """The core's object; its build rule refuses foreign relocations, symbols and panics by itself."""
    results.add("core", "builds, with its checks of relocations, symbols and panics", True)
    with Step("what the object's build must refuse", "core-refusals") as step:
        step.run(["make", "core-refusals"], hint="make core-refusals")
    results.add("core", "its build refuses foreign relocations, symbols, panics and the like", True)
    output = subprocess.run(["size", "-A", build.CORE], capture_output=True, text=True, check=True).stdout
    text = sum(int(words[1]) for words in map(str.split, output.splitlines())
               if len(words) >= 2 and words[0].startswith(".text") and words[1].isdigit())
    with Step("the object driven from C under the sanitizers of gcc", "abi-asan") as step:
        step.run(["make", "abi-asan"], hint="make abi-asan")
    results.add("core", "C drives the very object under AddressSanitizer and UBSan", True)
    strange = list(loops.unexplained(build.CORE))
    results.add("core", "every loop of the object has a bound that rust/core.loops names", not strange, strange)
    results.add("core", f"text of {text} bytes is at most {CORE_TEXT_BYTES}", 0 < text <= CORE_TEXT_BYTES)


_CARGO_TEST = re.compile(
    r"^test (?P<name>.+?)(?: - should panic)? \.\.\. (?P<verdict>ok|FAILED|ignored)(?:, (?P<reason>.*))?$")
_CARGO_BINARY = re.compile(
    r"^\s+(?:Running (?:unittests )?(?P<path>\S+) \(.*/(?P<name>\w+)-[0-9a-f]+\)|Doc-tests (?P<doc>\S+))")


def host(results: Results) -> None:
    """Every cargo test of the workspace, counted one by one."""
    trouble: Failure | None = None
    with Step("host tests", "cargo-test") as step:
        try:
            step.run(["cargo", "test", "--workspace", "--locked", "--no-fail-fast", "--color=never"],
                     hint="cargo test --workspace")
        except Failure as failure:
            trouble = failure
    assert step.log
    failed = passed = 0
    where = "host"
    for line in step.log.read_text(errors="replace").splitlines():
        if binary := _CARGO_BINARY.match(line):
            where = f"host {binary['name']} {binary['path']}" if binary["path"] else f"host {binary['doc']} doc"
        elif match := _CARGO_TEST.match(line):
            if match["verdict"] == "ignored":
                results.skip(where, match["name"], match["reason"] or "marked as ignored")
                continue
            results.add(where, match["name"], match["verdict"] == "ok")
            passed += match["verdict"] == "ok"
            failed += match["verdict"] != "ok"
    # An exit code that no failed test explains is a build failure or a crash.
    if trouble and not failed:
        raise trouble
    if not passed:
        raise Failure("cargo test ran no test", step.log)


def fuzz(results: Results) -> None:
    """A minute of anything for the C ABI, the planner and the range map."""
    with Step("fuzzing, a minute each", "fuzz") as step:
        step.run(["make", "fuzz", "FUZZ_SECONDS=60"], hint="make fuzz")
    results.add("core", "nothing that a minute of fuzzing found breaks it", True)


def counts(results: Results) -> None:
    """Instructions of the hot paths, which do not depend on what the machine does beside."""
    with Step("instructions of the core's hot paths", "counts") as step:
        step.run(["make", "counts"], hint="make counts")
    results.add("core", "no hot path takes more instructions than tests/counts.txt says", True)


def user_programs() -> None:
    """The programs that run inside the machines."""
    with Step("programs for the machines", "user") as step:
        step.run(["make", "user"], hint="make user")


def one_kernel(results: Results, line: Line, machines: tuple[str, ...]) -> list[matrix.Row]:
    """Build for one kernel and boot it in some of its machines."""
    found = kernel.fetch(line)
    modules = build.build(found)
    objtool = sum("objtool" in text for text in modules.complaints)
    results.add(f"build {line.name}", f"modules for {found.release} {found.version} without a complaint",
                not modules.complaints, modules.complaints)
    objects.tests(results, found, modules)
    wrong = probes.wrong(line, modules.place / "c" / "compat" / "conf.h")
    results.add(f"build {line.name}", "every compile probe is answered as in tests/vm/probes.table", not wrong, wrong)
    if line.sparse:
        said = build.sparse(found, modules)
        results.add(f"build {line.name}", "sparse finds nothing in our files", not said, said)
    rows, tree = [], matrix.tree()
    for name in machines:
        row = matrix.Row(line.name, found.release, found.version, name, round(modules.seconds, 1),
                         len(modules.complaints) - objtool, objtool, tree=tree)
        one_machine(results, found, kernel.machine(name), modules.modules, row)
        group = f"{line.name} {name}"
        for verdict in ("passed", "failed", "skipped"):
            setattr(row, verdict, results.count(verdict, group))
        row.reasons = dict(Counter(test.reason for test in results.tests if test.group == group and test.verdict == "skipped"))
        rows.append(row)
    return rows


def one_machine(results: Results, found: Kernel, machine: Machine, modules: list[Path], row: matrix.Row) -> None:
    """Boot once: load, every program that fits, unload, load and unload again; then read the kernel's log.

    On a sanitizer kernel a search for leaks follows, and at the very end the bugs on purpose that it has to find.
    """
    group = f"{found.line.name} {machine.name}"
    chosen = []
    for program in suite.programs("test"):
        if why := program.unfit(found.line, machine.name):
            results.skip(group, program.name, why)
        else:
            chosen.append(program)
    tree = Tree(boot.place_for(found, machine.name) / "tree")
    tree.add_modules(modules, machine)
    disk.equip(tree, found)
    doctor.equip(tree, found)
    suite.equip(tree, suite.needs(chosen))
    load, caps = boot.Job("modules-load", "/modules/load", 60), boot.Job("capabilities", CAPS, 10)
    last = [boot.Job("modules-unload", "/modules/unload", 120),
            boot.Job("modules-load-and-unload-again", "/modules/load && /modules/unload", 120)]
    programs = [program.job() for program in chosen]
    own_tests = [selftests.equip(tree, found, machine.name)] if suite.wants(found.line, "hmm-tests", machine.name) \
        and not machine.own else []
    checks = sanitizer.jobs() if found.checked else []
    ibt = boot.Job("ibt", "grep -om1 '\\bibt\\b' /proc/cpuinfo; dmesg | grep -o 'CET detected: Indirect Branch Tracking enabled'", 20)
    jobs = [load, caps, ibt, *programs, *own_tests, *last, *checks]
    with Step(f"machine {group}") as step:
        done = 0

        def tell(job: boot.Job | None, text: str) -> None:
            nonlocal done
            done += text.lstrip().startswith(("ok ", "not ok "))
            step.note = f"{job.name}, {done} tests" if job else ""
        report = boot.boot(found, machine, tree, jobs, on_line=tell)
        step.note = f"up after {report.boot_seconds:.0f} s" + (f"; {report.trouble}" if report.trouble else "")
    row.seconds, row.load = round(step.elapsed(), 1), load.code == 0

    for job in jobs:
        if not job.ran:
            why = ["timed out"] if job.timed_out else [report.trouble or "was not run"]
            results.add(group, f"{job.name} came to an end", False, [*job.output[-20:], *why])
        elif job in programs:
            _program(results, group, job)
        elif job in own_tests:
            selftests.judge(results, group, job, machine.name)
        elif job is caps:
            row.offers = " ".join(job.output[:1]).split()
            said = {name for line in job.output[1:] for name, text in OFFERS.items() if text in line}
            results.add(group, "one line of the kernel's log says what it offers", len(job.output) == 2 and said == set(row.offers), job.output)
            wanted = set(found.line.offers)
            results.add(group, f"offers {', '.join(found.line.offers)}", wanted <= set(row.offers), job.output)
        elif job is ibt:
            _ibt(results, group, job, found)
        elif job in checks:
            sanitizer.judge(results, group, job, report.log)
        else:
            results.add(group, job.name, job.code == 0, [*job.output, f"exit {job.code}"])
    if not report.finished:
        results.add(group, "the machine ran to its end", False,
                    [report.trouble, f"console: {report.console}", *boot.console_tail(report, 28)])
    log = klog.since_start(report.log) if report.finished else boot.console_tail(report, 2000)
    found_lines = klog.complaints(sanitizer.before_planted(log))
    results.add(group, "kernel log without a complaint", not found_lines, found_lines)
    if report.tainted is not None and not found.checked:
        taint = klog.taint(report.tainted)
        results.add(group, "no taint beyond out-of-tree and unsigned", not taint, [f"tainted: {taint}"])


def _ibt(results: Results, group: str, job: boot.Job, found: Kernel) -> None:
    """Our objects run with indirect branches tracked, on kernels of Debian that do so and where the emulator can."""
    if found.checked or "private" not in found.line.offers:
        return
    if "ibt" in job.output:
        results.add(group, "indirect branches are tracked", len(job.output) > 1, job.output)
    elif fact := boot.without_ibt():
        results.skip(group, "indirect branches are tracked", fact)
    else:
        results.add(group, "indirect branches are tracked", False, ["QEMU's processor has ibt, and /proc/cpuinfo does not", *job.output])


def _program(results: Results, group: str, job: boot.Job) -> None:
    tests = ktap.parse(job.output)
    for test in tests:
        name = test.name if test.name.startswith(job.name) else f"{job.name}: {test.name}".removesuffix(": ")
        if test.skipped:
            results.skip(group, name, test.reason)
        else:
            results.add(group, name, test.passed, test.notes)
    if job.timed_out:
        results.add(group, f"{job.name}: ends within {job.seconds} s", False, job.output[-20:])
    elif job.code and all(test.passed for test in tests):
        results.add(group, f"{job.name}: exits with 0", False, [f"exit {job.code}", *job.output[-20:]])

