# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import sys
import unittest
from types import SimpleNamespace
from unittest import mock

import torch
from monai.utils import set_determinism

from bundle.anomaly.topk import soft_topk
from bundle.command import prepare_run, run_to_end
from bundle.command.run import digest_of_given
from bundle.networks.pretrained import read_state_dict
from tests.folders import FolderTestCase


class TestSettingsDigest(unittest.TestCase):
    def test_places_do_not_count_and_settings_do(self):
        # a workflow that Python started is identified by what it was given, as a typed one is by its flags
        given = {"top_fraction": 0.1, "reader#window": None}
        same = digest_of_given({**given, "output_dir": "elsewhere", "resume": True})
        self.assertEqual(digest_of_given(given), same)
        self.assertNotEqual(digest_of_given({**given, "reader#window": "first"}), same)


class TestPrepareRun(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(setattr, sys, "excepthook", sys.excepthook)
        self.addCleanup(set_determinism, None)

    def report(self, error: BaseException) -> str:
        stream = io.StringIO()
        with contextlib.redirect_stderr(stream), mock.patch("sys.__excepthook__") as whole:
            sys.excepthook(type(error), error, error.__traceback__)
        return "whole" if whole.called else stream.getvalue()

    def test_makes_the_folder_and_seeds(self):
        draws = []
        for _ in range(2):
            prepare_run(self.root / "a" / "b", seed=3)
            draws.append(torch.rand(()).item())
        self.assertEqual(draws[0], draws[1])
        self.assertEqual(list((self.root / "a" / "b").iterdir()), [])

    def test_a_folder_that_cannot_be_written(self):
        (self.root / "file").touch()
        for path in (self.root / "file", self.root / "file" / "below"):
            with self.assertRaisesRegex(OSError, f"output_dir '{path}' cannot be written: "):
                prepare_run(path)

    def test_errors_of_this_package_are_one_line(self):
        prepare_run(self.root, None)
        for wrap in (False, True):
            try:
                try:
                    soft_topk(torch.zeros(2), 3, 0.1)
                except ValueError as error:
                    if not wrap:
                        raise
                    raise RuntimeError("MONAI says\nmore") from error
            except Exception as error:
                self.assertEqual(self.report(error), "error: k must be in [1, 2] for rows of 2 distances, got 3.\n")

    def test_what_this_package_makes_of_another_error_is_told(self):
        prepare_run(self.root, None)
        (self.root / "weights.pt").write_text("none")
        try:
            read_state_dict(self.root / "weights.pt")
        except ValueError as error:
            expected = (
                "error: weights must be a state dict without code, 'weights.pt' is not: it is no file of torch.save.\n"
            )
            self.assertEqual(self.report(error), expected)

    def test_what_the_system_refuses_names_the_file_and_the_reason(self):
        prepare_run(self.root, None)
        for open_it, reason in (
            (lambda: (self.root / "nothing").open(), f"'{self.root / 'nothing'}': No such file or directory."),
            (lambda: self.root.open(), f"'{self.root}': Is a directory."),
        ):
            try:
                open_it()
            except OSError as error:
                self.assertEqual(self.report(error), f"error: {reason}\n")

    def test_other_errors_keep_their_traceback(self):
        prepare_run(self.root, None)
        try:
            int("x")
        except ValueError as error:
            self.assertEqual(self.report(error), "whole")

    def test_debug_leaves_the_hook_alone(self):
        before = sys.excepthook
        prepare_run(self.root, None, debug=True)
        self.assertIs(sys.excepthook, before)


class TestRunToEnd(unittest.TestCase):
    def test_runs_what_is_left_and_no_more(self):
        for epoch, runs in ((0, 1), (4, 1), (5, 0), (6, 0)):
            trainer = mock.Mock(state=SimpleNamespace(epoch=epoch, max_epochs=5))
            run_to_end(trainer)
            self.assertEqual(trainer.run.call_count, runs, epoch)


if __name__ == "__main__":
    unittest.main()
