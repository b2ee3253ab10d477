# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

from monai.utils import look_up_option

from bundle.errors import cause_of, is_ours, kind_and_place, raised_in, reason_of
from bundle.reading.dicom.header import frame_count


def caught(action) -> Exception:
    """Return what an action raises."""
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def ours() -> None:
    """Raise an error of this package."""
    frame_count({"NumberOfFrames": "-1"})


class TestReasonOf(unittest.TestCase):
    def test_the_innermost_error_without_what_wraps_it(self):
        def wrapped() -> None:
            try:
                int("x")
            except ValueError as error:
                raise RuntimeError("applying transform") from error

        error = caught(wrapped)
        self.assertIs(cause_of(error), error.__cause__)
        self.assertEqual(reason_of(error), "invalid literal for int() with base 10: 'x'")

    def test_our_words_about_the_error_of_another(self):
        error = caught(ours)
        error.__cause__ = caught(lambda: int("x"))  # as `raise ... from` does
        outer = RuntimeError("applying transform")
        outer.__cause__ = error
        self.assertEqual(reason_of(outer), "NumberOfFrames must be a positive whole number, got -1.")

    def test_one_line_without_a_quoted_traceback(self):
        error = ImportError("needs 'x'.\n\nInstall it.\n\nOriginal traceback:\nLine 1")
        self.assertEqual(reason_of(error), "needs 'x'. Install it.")
        self.assertEqual(reason_of(KeyError()), "KeyError")

    def test_what_asked_a_look_up_and_not_its_list(self):
        error = RuntimeError("mode is none of ours")
        error.__cause__ = caught(lambda: look_up_option("a", ["b", "c"]))
        self.assertEqual(raised_in(error.__cause__).name, "look_up_option")
        self.assertEqual(reason_of(error), "mode is none of ours")


class TestPlace(unittest.TestCase):
    def test_kind_and_place(self):
        error = caught(lambda: int("x"))
        self.assertRegex(kind_and_place(error), r"^ValueError \(test_errors.py:\d+\)$")
        self.assertFalse(is_ours(error))
        self.assertRegex(kind_and_place(caught(ours)), r"^UnreadableImageError \(header.py:\d+\)$")
        self.assertTrue(is_ours(caught(ours)))
        self.assertFalse(is_ours(ValueError("never raised")))


if __name__ == "__main__":
    unittest.main()
