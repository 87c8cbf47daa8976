# SPDX-License-Identifier: GPL-2.0
"""Tests of the parts of this harness that judge: a judge that is wrong passes everything."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
import unittest.mock
from pathlib import Path

import boot
import build
import cache
import check
import demo
import kernel
import klog
import ktap
import matrix
import outside
import rules
import sanitizer
import soak
import suite
from progress import Failure
from results import Results


class Ktap(unittest.TestCase):
    def verdicts(self, text: str) -> list[tuple[str, bool, bool]]:
        return [(r.name, r.passed, r.skipped) for r in ktap.parse(text.splitlines())]

    def test_flat(self) -> None:
        self.assertEqual(self.verdicts("TAP version 13\n1..3\nok 1 one\nnot ok 2 - two\nok 3 three # SKIP no device"),
                         [("one", True, False), ("two", False, False), ("three", True, True)])

    def test_nested(self) -> None:
        text = "KTAP version 1\n1..2\n  KTAP version 1\n  1..2\n  ok 1 a\n  not ok 2 b\nnot ok 1 suite\nok 2 other"
        self.assertEqual(self.verdicts(text), [("suite: a", True, False), ("suite: b", False, False), ("other", True, False)])

    def test_parent_fails_alone(self) -> None:
        text = "KTAP version 1\n1..1\n  1..1\n  ok 1 a\nnot ok 1 suite"
        self.assertEqual(self.verdicts(text), [("suite: a", True, False), ("suite", False, False)])

    def test_plan_not_kept(self) -> None:
        results = ktap.parse("KTAP version 1\n1..3\nok 1 a".splitlines())
        self.assertEqual([r.passed for r in results], [True, False])

    def test_killed_in_subtest(self) -> None:
        results = ktap.parse("KTAP version 1\n1..2\n  KTAP version 1\n  1..2\n  ok 1 a".splitlines())
        self.assertEqual(sorted(r.passed for r in results), [False, False, True])

    def test_a_soak_counts_kinds(self) -> None:
        text = "1..3\n# 5 times, 9 pages, 70 us each\nok 1 write was done\nok 2 fork was done # SKIP why\n# all went on\nok 3 nobody hangs"
        self.assertEqual(soak.kinds(ktap.parse(text.splitlines())), {"write": (5, 9)})

    def test_silence_fails(self) -> None:
        self.assertEqual(self.verdicts("Segmentation fault"), [("speaks KTAP", False, False)])

    def test_skip_all(self) -> None:
        self.assertEqual(self.verdicts("KTAP version 1\n1..0 # SKIP no private memory"), [("", True, True)])

    def test_notes_belong_to_the_next_result(self) -> None:
        results = ktap.parse("TAP version 13\n1..2\n# why\nnot ok 1 a\nok 2 b".splitlines())
        self.assertEqual((results[0].notes, results[1].notes), (["why"], []))


class Soak(unittest.TestCase):
    def test_an_unfinished_one_goes_on(self) -> None:
        row = {"line": "7.3", "machine": "private", "seed": 4, "operations": 200, "good": True}
        with tempfile.TemporaryDirectory() as place, unittest.mock.patch.object(soak, "JSON", Path(place) / "soak.json"):
            self.assertEqual(soak.before("7.3", "private", 1000, None), [])
            soak.JSON.write_text(json.dumps([row]))
            self.assertEqual(soak.before("7.3", "private", 1000, None), [row])
            for line, machine, operations, seed in [("6.1", "private", 1000, None), ("7.3", "coherent", 1000, None),
                                                    ("7.3", "private", 200, None), ("7.3", "private", 1000, 4)]:
                self.assertEqual(soak.before(line, machine, operations, seed), [])
            soak.JSON.write_text(json.dumps([{**row, "good": False}]))
            self.assertEqual(soak.before("7.3", "private", 1000, None), [])


class Klog(unittest.TestCase):
    def test_clean(self) -> None:
        self.assertEqual(klog.complaints([
            "<4>[    3.1] hmm_devmem: loading out-of-tree module taints kernel.",
            "<4>[    3.1] hmm_devmem: module verification failed: signature and/or required key missing - tainting kernel",
            "<6>[    3.2] hmm_devmem: private yes, coherent yes", "<4>[    2.0] some other driver is unhappy",
            "<12>[    3.0] hmm-vm: begin WARN"]), [])

    def test_expected(self) -> None:
        provoked, other = "<3>[ 1.1] hmm_vram 0000:00:04.0: lost: x", "<3>[ 1.2] hmm_vram 0000:00:04.0: another"
        begin, end = "<5>[ 1.0] hmm-vm: expect lost|reset", "<5>[ 1.3] hmm-vm: expect"
        self.assertEqual(klog.complaints([begin, provoked, end]), [])
        self.assertEqual(klog.complaints([begin, provoked, other, end, provoked]), [other, provoked])
        warning = "<4>[ 1.1] WARNING: hmm_vram lost"
        self.assertEqual(klog.complaints([begin, warning, end]), [warning])

    def test_dirty(self) -> None:
        for line in ("<4>[ 1.0] WARNING: CPU: 0 PID: 1 at mm/memremap.c:158", "<4>[ 1.0] hmm_dmirror: odd size",
                     "<1>[ 1.0] BUG: kernel NULL pointer dereference", "<6>[ 1.0] Call Trace:", "[ 1.0] Oops: 0000 [#1]",
                     "<3>[ 1.0] INFO: task x:1 blocked for more than 120 seconds."):
            self.assertEqual(klog.complaints([line]), [line])

    def test_taint(self) -> None:
        self.assertEqual(klog.taint((1 << 12) | (1 << 13)), "")
        self.assertEqual(klog.taint((1 << 12) | (1 << 9)), "W")


class Build(unittest.TestCase):
    def test_complaints(self) -> None:
        dirty = ["/build/c/x.c:1:2: warning: unused variable 'a' [-Wunused-variable]",
                 "hmm.o: warning: objtool: f+0x1: unreachable instruction", "WARNING: modpost: missing MODULE_DESCRIPTION()",
                 'ERROR: modpost: "x" [y.ko] undefined!']
        clean = ["  CC [M]  x.o", "Skipping BTF generation for x.ko due to unavailability of vmlinux", "$ make W=1 error"]
        self.assertEqual(build.complaints("\n".join([*clean, *dirty])), dirty)

    def test_mirror(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            source, target = Path(name, "a"), Path(name, "b")
            (source / "d").mkdir(parents=True)
            (source / "d/x").write_text("1")
            (source / "y").write_text("2")
            build.mirror(source, target)
            (target / "y.o").write_text("built")
            (source / "y").unlink()
            build.mirror(source, target)
            self.assertEqual(sorted(p.name for p in target.rglob("*") if p.is_file()), [".mirrored", "x", "y.o"])


class List(unittest.TestCase):
    def test_every_line_names_what_exists(self) -> None:
        for line in kernel.lines():
            self.assertIn(line.root, kernel.table()["roots"])
            self.assertTrue(line.machines(True))
            for name in line.machines(True):
                self.assertTrue(kernel.machine(name).modules)
            self.assertTrue(not line.suite or kernel.table()["suite"][line.suite])
            self.assertNotEqual(bool(line.flavour), bool(line.config))
            self.assertTrue(not line.config or sanitizer.options(line))

    def test_the_suite_can_be_read_and_every_machine_has_programs(self) -> None:
        programs = suite.programs("test")
        self.assertTrue(suite.programs("demo"))
        for line in kernel.lines():
            for machine in line.machines(True):
                self.assertTrue([program for program in programs if not program.unfit(line, machine)], (line.name, machine))

    def test_names_are_unique(self) -> None:
        names = [line.name for line in kernel.lines()]
        self.assertEqual(len(names), len(set(names)))


class Matrix(unittest.TestCase):
    def test_a_line_that_is_run_again_replaces_its_own_rows_only(self) -> None:
        def row(name: str, machine: str, passed: int) -> matrix.Row:
            return matrix.Row(name, "r", "v", machine, load=True, passed=passed)
        with tempfile.TemporaryDirectory() as name, unittest.mock.patch.object(matrix, "JSON", Path(name, "matrix.json")):
            old, new = kernel.line("6.1"), kernel.line("7.3")
            self.assertEqual(matrix.rows(), [])
            matrix.replace(old, ("coherent", "gone"), [row("6.1", "coherent", 1), row("6.1", "gone", 1)])
            matrix.replace(new, new.machines(True), [row("7.3", machine, 2) for machine in new.machines(True)])
            matrix.replace(old, ("coherent",), [row("6.1", "coherent", 3)])
            self.assertEqual([(found.kernel, found.machine, found.passed) for found in matrix.rows()],
                             [*(("7.3", machine, 2) for machine in new.machines(True)), ("6.1", "coherent", 3)])
            self.assertEqual(matrix.wrong([new]), [])
            self.assertEqual(matrix.wrong([old]), [f"6.1 {machine}: was not run" for machine in old.machines(True)[1:]])
            for bad in ({"warnings": 1}, {"objtool": 1}, {"load": False}, {"failed": 1}, {"passed": 0}):
                matrix.replace(old, ("coherent",), [dataclasses.replace(row("6.1", "coherent", 3), **bad)])
                self.assertIn("6.1 coherent: not what the matrix demands", matrix.wrong([old]))
            matrix.replace(new, new.machines(True)[:1], [])
            self.assertEqual(matrix.wrong([new]), [f"7.3 {new.machines(True)[0]}: was not run"])
            self.assertEqual(len(matrix.table()), 2 + len(matrix.rows()))


class Lanes(unittest.TestCase):
    def test_who_is_not_ready_lets_others_pass_and_still_has_a_turn(self) -> None:
        order: list[str] = []
        late = check.Task(lambda: order.append("late"), lambda: "second" in order)
        check.lanes([late, check.Task(lambda: order.append("first")), check.Task(lambda: order.append("second")),
                     check.Task(lambda: order.append("last")), check.Task(lambda: order.append("never ready"), lambda: False)], 1)
        self.assertEqual(order, ["first", "second", "late", "last", "never ready"])

    def test_two_go_on_at_once_and_what_breaks_stops_nobody(self) -> None:
        meet = threading.Barrier(2, timeout=60)
        results = Results()

        def broken() -> None:
            meet.wait()
            raise ValueError("on purpose")
        with contextlib.redirect_stdout(io.StringIO()):
            check.lanes([check.Task(lambda: check.guarded(results, broken)), check.Task(meet.wait),
                         check.Task(lambda: results.add("g", "after it", True))])
        self.assertEqual(sorted(test.verdict for test in results.tests), ["failed", "passed"])


class Room(unittest.TestCase):
    def test_a_full_disk_is_told_before_the_work(self) -> None:
        with tempfile.TemporaryDirectory() as place, unittest.mock.patch.multiple(
                cache, TREE=Path(place), TARGET=Path(place) / "target", CACHE=Path(place) / "cache"):
            check.room(0)
            with self.assertRaisesRegex(Failure, "GB are free where .* GB more are needed"):
                check.room(10**6)
            free = shutil.disk_usage(place)._replace(free=0)
            with unittest.mock.patch.object(shutil, "disk_usage", return_value=free), self.assertRaises(Failure):
                check.room(1)


class Rules(unittest.TestCase):
    def test_branches(self) -> None:
        for text in ("#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)", "#ifdef CONFIG_DEVICE_PRIVATE", "#if HMM_HAVE_FOLIO",
                     "#ifdef MIGRATE_PFN_COMPOUND", "#if HMM_KERNEL_PRIVATE", "#elif IS_ENABLED(CONFIG_X)", "#ifndef vma_lookup",
                     "#if defined(HMM_API) && \\"):
            self.assertFalse(rules.is_own_question(text, ["int x;"]), text)
        for text in ("#if HMM_API < 414 || (HMM_API > 420 && HMM_API < 500)", "#ifdef __KERNEL__", "#elif !defined(__noreturn)",
                     "#if !defined(HMM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)"):
            self.assertTrue(rules.is_own_question(text, ["int x;"]), text)
        self.assertTrue(rules.is_own_question("#ifndef MIGRATE_PFN_LOCKED", ["#define MIGRATE_PFN_LOCKED 0"]))


class Sanitizer(unittest.TestCase):
    def test_an_option_that_is_not_taken_is_seen(self) -> None:
        wanted = {"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_C": '"x"'}
        self.assertEqual(sanitizer.missing(wanted, 'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x"'), [])
        self.assertEqual(sanitizer.missing(wanted, "# CONFIG_A is not set\nCONFIG_B=y"),
                         ["CONFIG_A=y", "CONFIG_B=n", 'CONFIG_C="x"'])

    def test_machines_wait_for_the_kernel_that_is_being_built(self) -> None:
        stock, one, two = kernel.line("6.1"), kernel.line("6.12-san"), kernel.line("5.10-san")
        with unittest.mock.patch.object(sanitizer, "_begun", {one.name, two.name}), \
                unittest.mock.patch.object(sanitizer, "_tried", {one.name}) as tried:
            self.assertEqual([sanitizer.is_turn(line) for line in (stock, one, two)], [False, True, False])
            tried.add(two.name)
            self.assertEqual([sanitizer.is_turn(line) for line in (stock, one, two)], [True, True, True])
        with unittest.mock.patch.object(sanitizer, "_begun", set()):
            self.assertTrue(sanitizer.is_turn(stock))

    def test_planted_bugs_are_told_apart(self) -> None:
        log = ["<6>[1.0] hmm-vm: start 6.12", "<4>[2.0] hmm_dmirror: odd", "<12>[3.0] hmm-vm: begin planted-lock",
               "<4>[3.1] WARNING: possible circular locking dependency detected", "<12>[3.2] hmm-vm: end planted-lock",
               "<12>[3.3] hmm-vm: begin planted-free", "<12>[3.4] hmm-vm: end planted-free"]
        self.assertEqual(sanitizer.before_planted(log), log[:2])
        results = Results()
        with contextlib.redirect_stdout(io.StringIO()):
            for name in ("lock", "free"):
                sanitizer.judge(results, "g", boot.Job(f"planted-{name}", "x", 1, code=0), log)
            for output in ([], ["unreferenced object 0xffff888000000000 (size 128):"]):
                sanitizer.judge(results, "g", boot.Job("kmemleak", "x", 1, output, 0), log)
        self.assertEqual([test.verdict for test in results.tests], ["passed", "failed", "passed", "failed"])


class Clean(unittest.TestCase):
    def test_distclean_leaves_nothing_of_ours_and_all_that_is_not(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            clone, home = Path(name, "clone"), Path(name, "home")
            for place in (clone / "target/vm", home / "hmm-devmem/roots/x", home / "other", clone / "rust"):
                place.mkdir(parents=True)
            for file in ("Makefile", "rust/core.mk"):
                shutil.copy(cache.TREE / file, clone / file)
            subprocess.run(["make", "-s", "-C", clone, "distclean", f"XDG_CACHE_HOME={home}"], check=True, capture_output=True)
            self.assertEqual(sorted(path.name for path in clone.iterdir()), ["Makefile", "rust"])
            self.assertEqual([path.name for path in home.iterdir()], ["other"])


    def test_under_sudo_nothing_of_root_is_left_in_the_clone(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            clone = Path(name)
            (clone / "tests/vm").mkdir(parents=True)
            shutil.copy(cache.TREE / "tests/vm/cache.py", clone / "tests/vm")
            (clone / "other").touch()
            script = ("import cache, os; (cache.TARGET / 'a').mkdir(parents=True); (cache.TARGET / 'a/b').touch();"
                      "(cache.TARGET / 'link').symlink_to('/nowhere')")
            for owner in ("0", "12345"):
                shutil.rmtree(clone / "target", ignore_errors=True)
                subprocess.run([sys.executable, "-c", script], cwd=clone / "tests/vm", check=True,
                               env={**os.environ, "SUDO_UID": owner, "SUDO_GID": owner})
                owners = {os.lstat(path).st_uid for path in [clone / "target", *(clone / "target").rglob("*")]}
                self.assertEqual(owners, {int(owner)} if os.geteuid() == 0 else {os.geteuid()})
                self.assertEqual((clone / "other").stat().st_uid, os.geteuid())


class Listener(unittest.TestCase):
    def test_jobs(self) -> None:
        jobs = [boot.Job("a", "x", 1), boot.Job("b", "y", 1)]
        report = boot.Report(jobs, Path("console"))
        listener = boot._Listener(report, None)
        for line in ("noise", "@vm up 3.0", "@vm begin a", "ok 1 one", "", "@vm end a 0", "@vm begin b", "@vm timeout b",
                     "", "@vm end b 137", "@vm tainted 12288", "@vm log", "<6>[ 1.0] x", "@vm done"):
            listener.hear(line)
        self.assertEqual((jobs[0].output, jobs[0].code, jobs[1].timed_out), (["ok 1 one"], 0, True))
        self.assertEqual((report.tainted, report.log, report.finished), (12288, ["<6>[ 1.0] x"], True))


class World(unittest.TestCase):
    def test_files(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            world = outside.Outside(Path(place), kernel.Machine("x", 1, (), (), files=("a=1",)))
            memory = bytearray(1 << 20)
            for at in (0, 8, 4096 * 3 + 16, 4096 * 5 + 3):
                memory[at:at + 8] = (0x1122334455667788).to_bytes(8, "little")
            world.files["a"].write_bytes(memory)
            for request, answer in (("find a 1122334455667788", "ok 2"), ("used a", "ok 3"), ("flip a 1122334455667788", "ok 0"),
                                    ("find a 1122334455667789", "ok 1")):
                self.assertEqual(world.answer(request), answer)
            for request in ("find b 1", "what a 1", "flip a 9999", "find a", ""):
                self.assertTrue(world.answer(request).startswith("error"), request)
            world.stop()
            self.assertFalse(world.files["a"].exists())


class Demo(unittest.TestCase):
    def test_curve(self) -> None:
        self.assertEqual(demo.curve([0, 1, 2, 4, 8], 5), " ▁▂▄█")
        self.assertEqual(len(demo.curve(list(range(1000)), 60)), 60)
        self.assertEqual(demo.curve([], 60), "")

    def test_page(self) -> None:
        page = "\n".join(demo.preview([
            {"kind": "compute", "mib": 64, "to_device": 16384, "to_device_us": 163840, "to_ram": 16384, "to_ram_us": 327680,
             "faults": 32, "wrong_bytes": 0},
            {"kind": "run", "name": "sort", "plain_ms": 900, "device_ms": 2400, "identical": True, "to_device": 120000,
             "to_ram": 118000, "faults": 4000, "peak_resident": 9000},
            {"kind": "picture", "name": "sort", "ms": [0, 50, 100], "resident": [0, 4000, 9000]},
            {"kind": "device", "total": 65536, "free": 65536, "claimed": 0, "resident": 0, "lost": 0, "leaked": 0},
        ], "7.3", "private"))
        for text in ("10.0 µs", "20.0 µs", "2.40 s", "identical", "peak 9,000", "0 pages lost, 0 pages leaked"):
            self.assertIn(text, page)

    def test_a_silent_machine_proves_nothing(self) -> None:
        self.assertIn("nothing can be said", "\n".join(demo.preview([], "7.3", "private")))
