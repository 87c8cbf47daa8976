# SPDX-License-Identifier: GPL-2.0
"""Tests of the judge of stack traces."""

import contextlib
import io
import unittest

import boot
import loading
from results import Results

GOOD = """[    3.1] ------------[ cut here ]------------
[    3.1] hmm_devmem: refused at rust/frames.rs:515
[    3.1] WARNING: CPU: 0 PID: 99 at c/port.c:25 hmm_port_warn+0x10/0x20 [hmm_trace]
[    3.1] Call Trace:
[    3.1]  <TASK>
[    3.1]  hmm_core_plan_to_device+0x123/0x180 [hmm_trace]
[    3.1]  hmm_trace_claim+0x12/0x30 [hmm_trace]
[    3.1]  init_module+0x12/0xff0 [hmm_trace]
[    3.1]  ? 0xffffffffc0000000
[    3.1]  ? __pfx_init_module+0x10/0x10 [hmm_trace]
[    3.1]  do_one_initcall+0x56/0x230
[    3.1]  ? kmalloc_trace+0x26/0x90
[    3.1]  </TASK>
[    3.1] ---[ end trace 0000000000000000 ]---"""


class Trace(unittest.TestCase):
    def failed(self, text: str, code: int = 0) -> int:
        """How many of the verdicts on a log are bad ones."""
        results = Results()
        with contextlib.redirect_stdout(io.StringIO()):
            loading.judge_trace(results, "test", boot.Job("trace", "", 1, output=text.splitlines(), code=code))
        return results.count("failed")

    def test_good(self) -> None:
        self.assertEqual(self.failed(GOOD), 0)

    def test_a_guess(self) -> None:
        self.assertEqual(self.failed(GOOD.replace(" hmm_core_plan_to_device", " ? hmm_core_plan_to_device")), 1)
        self.assertEqual(self.failed(GOOD.replace(" init_module", " ? init_module")), 1)

    def test_no_way_down(self) -> None:
        self.assertEqual(self.failed(GOOD.replace(" do_one", " ? do_one")), 1)
        self.assertEqual(self.failed(GOOD.replace(" hmm_trace_claim", " other")), 1)

    def test_silence(self) -> None:
        self.assertEqual(self.failed(""), 3)
        self.assertEqual(self.failed(GOOD, code=1), 1)


if __name__ == "__main__":
    unittest.main()
