# SPDX-License-Identifier: GPL-2.0
"""The HMM API of Linux 4.14 to 5.2 is used by the probe drivers, whole."""

import unittest

import api


class Symbols(unittest.TestCase):
    def test_every_symbol_of_4_14_to_5_2_is_used_by_a_probe_driver(self) -> None:
        self.assertEqual(api.table()[1], [])
