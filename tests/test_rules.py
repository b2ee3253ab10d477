# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest

import numpy as np

from bundle.rules import class_names, is_number, number_in, shown, true_or_false, whole_number


class TestRules(unittest.TestCase):
    def test_numbers(self):
        self.assertEqual([is_number(v) for v in (1, 0.5, -2, np.float32(1), np.int64(1))], [True] * 5)
        self.assertFalse(any(map(is_number, (True, "1", None, math.nan, math.inf, 10**400, [1]))))
        self.assertEqual(number_in("rate", 1, 0, 1), 1.0)
        for value in (0, True, "0.5", None, math.nan, 1.1):
            with self.assertRaisesRegex(ValueError, r"^rate must be in \(0, 1\], got "):
                number_in("rate", value, 0, 1, without_low=True)
        with self.assertRaisesRegex(ValueError, "^sigma must be a finite number of at least 0, got nan"):
            number_in("sigma", math.nan, 0)
        with self.assertRaisesRegex(ValueError, "^weight must be a finite number above 0, got 0"):
            number_in("weight", 0, 0, without_low=True)

    def test_whole_numbers_and_booleans(self):
        self.assertEqual(whole_number("steps", 3), 3)
        for value in (0, 3.0, True, "3", None):
            with self.assertRaisesRegex(ValueError, "^steps must be a whole number of at least 1, got "):
                whole_number("steps", value)
        with self.assertRaisesRegex(ValueError, "^flip must be True or False, got 'false'"):
            true_or_false("flip", "false")

    def test_class_names(self):
        self.assertEqual(class_names(["Mass", "Pleural thickening"]), ("Mass", "Pleural thickening"))
        for value in ("[Mass,Nodule]", [], None, 3):
            with self.assertRaisesRegex(ValueError, "^classes must be a list of one or more names, got "):
                class_names(value)
        for value in (["Mass", False], ["", "Mass"], [" "], [3]):
            with self.assertRaisesRegex(ValueError, "^classes must be words"):
                class_names(value)
        for value in (["Mass, left"], ["a\nb"], [" Mass"]):
            with self.assertRaisesRegex(ValueError, "^classes must have no comma, line break or outer space in a name"):
                class_names(value)
        with self.assertRaisesRegex(ValueError, "^classes must all be different, got 'Mass' twice"):
            class_names(["Mass", "Nodule", "Mass"])

    def test_values_are_shown_short(self):
        nested: list = []
        for _ in range(10_000):
            nested = [nested]
        self.assertLess(len(shown(nested)), 60)
        self.assertLess(len(shown("x" * 10_000)), 60)


if __name__ == "__main__":
    unittest.main()
