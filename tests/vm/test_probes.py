# SPDX-License-Identifier: GPL-2.0
"""Tests of c/compat/probe.sh: what becomes of a yes, of an expected no, and of a probe that is broken."""

import subprocess
import tempfile
import unittest
from pathlib import Path

import cache
import kernel
import probes

SCRIPT = cache.TREE / "c" / "compat" / "probe.sh"
YES = "int probe(void);\nint probe(void) { return 0; }\n"
NO = "/*\n * expect: no_such_thing\n */\nint probe(void);\nint probe(void) { return no_such_thing; }\n"


class Probe(unittest.TestCase):
    def ask(self, files: dict[str, str], compiler: str = "cc", symbols: str = "here\nmissing\n") -> tuple[int, str, str]:
        """Exit code, conf.h and what was said."""
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            (place / "probes").mkdir()
            for file, text in {**files, "symbols": symbols}.items():
                (place / "probes" / file).write_text(text)
            (place / "symvers").write_text("0x0\there\tvmlinux\tEXPORT_SYMBOL\t\n0x0\tmissing_too\tvmlinux\tEXPORT_SYMBOL\t\n")
            done = subprocess.run(["sh", SCRIPT, place / "probes", place / "conf.h", place / "symvers", compiler],
                                  capture_output=True, text=True, check=False)
            conf = place / "conf.h"
            return done.returncode, conf.read_text() if conf.exists() else "", done.stderr

    def test_answers(self) -> None:
        code, conf, _ = self.ask({"a-yes.c": YES, "a-no.c": NO})
        self.assertEqual(code, 0)
        for text in ("HMM_HAVE_A_YES 1", "HMM_HAVE_A_NO 0", "HMM_HAVE_SYMBOL_HERE 1", "HMM_HAVE_SYMBOL_MISSING 0"):
            self.assertIn(f"#define {text}\n", conf)

    def test_a_no_for_the_wrong_reason_stops_the_build(self) -> None:
        code, conf, said = self.ask({"a.c": NO.replace("return no_such_thing", "return 0 +")})
        self.assertNotEqual(code, 0)
        self.assertEqual(conf, "")
        self.assertIn("compile probe 'a' is broken", said)
        self.assertIn("error", said)

    def test_a_missing_header_stops_the_build(self) -> None:
        code, _, said = self.ask({"a.c": '#include "no/such/header.h"\n' + NO})
        self.assertNotEqual(code, 0)
        self.assertIn("no/such/header.h", said)

    def test_broken_flags_stop_the_build(self) -> None:
        for compiler in ("false", "no-such-compiler"):
            code, conf, _ = self.ask({"flags.c": YES}, compiler)
            self.assertNotEqual(code, 0)
            self.assertEqual(conf, "")


class Table(unittest.TestCase):
    def test_it_has_every_question_and_every_series(self) -> None:
        columns, rows = probes.table()
        folder = cache.TREE / "c" / "compat" / "probes"
        names = {path.stem for path in folder.glob("*.c")}
        names |= {f"symbol_{line.split()[0]}" for line in (folder / "symbols").read_text().splitlines()
                  if line.split() and not line.startswith("#")}
        self.assertEqual({name.upper().replace("-", "_") for name in names}, set(rows))
        for line in kernel.lines():
            self.assertTrue(not line.config or line.name in columns)

    def test_a_new_series_has_the_answers_of_the_one_before_it(self) -> None:
        columns, _ = probes.table()
        for series, column in (("7.3", "7.3"), ("7.4", "7.3"), ("7.10", "7.3"), ("6.6", "6.1"), ("6.2", "6.1"), ("5.4", "5.10")):
            self.assertEqual(probes.nearest(series, columns), column)

    def test_a_wrong_answer_is_seen(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            conf = Path(name) / "conf.h"
            right = "".join(f"#define HMM_HAVE_{row} {answers['6.1']}\n" for row, answers in probes.table()[1].items())
            conf.write_text(right)
            self.assertEqual(probes.wrong(kernel.line("6.1-rt"), conf), [])
            conf.write_text(right.replace("HMM_HAVE_FLAGS 1", "HMM_HAVE_FLAGS 0") + "#define HMM_HAVE_NEW 1\n")
            self.assertEqual(len(probes.wrong(kernel.line("6.1"), conf)), 2)
