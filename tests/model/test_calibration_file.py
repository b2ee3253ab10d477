# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
import tempfile
import unittest
from pathlib import Path

from bundle.anomaly import read_calibration, write_calibration
from bundle.anomaly.calibration import check_calibration
from bundle.classification import read_classifier_calibration, write_classifier_calibration
from bundle.classification.calibration import check_classifier_calibration
from bundle.model.calibration_file import parse_calibration

SHA = "ab" * 32
ROC = {"positives": 2, "negatives": 4, "thresholds": [0.9, 0.4, 0.1], "tpr": [0.0, 0.5, 1.0], "fpr": [0.0, 0.25, 1.0]}


def anomaly(**changes) -> dict:
    """Return a good calibration with some parts changed: of three scores one may lie above 2 at a rate of 0.5."""
    good = {
        "weights_sha256": SHA,
        "false_alarm_rate": 0.5,
        "threshold": 2.0,
        "heat_low": 0.5,
        "scores": [1.0, 2.0, 3.0],
    }
    return good | changes


def classes(**changes) -> dict:
    good = {
        "weights_sha256": SHA,
        "temperature": 2.0,
        "thresholds": {"a": 0.5, "b": None},
        "roc": {"a": ROC, "b": None},
    }
    return good | changes


class TestAnomalyCalibration(unittest.TestCase):
    def refused(self, content, rule: str) -> None:
        with self.assertRaisesRegex(ValueError, rule) as caught:
            check_calibration(content, "c.json")
        message = str(caught.exception)
        self.assertTrue(message.startswith("'c.json' is no calibration: ") and "\n" not in message, message)
        self.assertLess(len(message), 250)

    def test_good_content_comes_back(self):
        self.assertEqual(check_calibration(anomaly(), "c.json"), anomaly())
        few = check_calibration(anomaly(false_alarm_rate=0.1, threshold=None), "c.json")
        self.assertEqual(few["threshold"], math.inf)

    def test_values_of_no_meaning(self):
        for value in (math.nan, math.inf, True, "5", [2.0], 10**400):
            self.refused(anomaly(threshold=value), "threshold must be a finite number or null, got ")
        for value in (math.nan, True, "0", None):
            self.refused(anomaly(heat_low=value), "heat_low must be a finite number, got ")
        for value in (0, 1, -0.1, math.nan, True, "0.5", None):
            self.refused(anomaly(false_alarm_rate=value), r"false_alarm_rate must be in \(0, 1\), got ")
        for value in ("abc", [], None, 3, {"0": 1.0}):
            self.refused(anomaly(scores=value), "scores must be a list of one or more numbers, got ")
        for value in ([math.nan], [None], ["1"], [True], [1.0, math.inf], [[1.0]]):
            self.refused(anomaly(scores=value), "scores must be finite numbers, got ")
        self.refused(anomaly(scores=[2.0, 1.0, 3.0]), r"scores must ascend, got 1.0 beside 2.0")
        for value in (None, "", "AB" * 32, 5, SHA + "0"):
            self.refused(anomaly(weights_sha256=value), "weights_sha256 must be 64 hexadecimal digits, got ")

    def test_a_threshold_that_the_scores_do_not_give(self):
        # by hand: of 3 scores and a rate of 0.5, floor(0.5 * 4) - 1 = 1 may lie above, so the threshold is the second
        for value in (-1e9, 1.999, 1e9):
            self.refused(anomaly(threshold=value), "threshold must be 2, which its 3 scores give .* of 0.5, got ")
        self.refused(anomaly(threshold=None), "threshold must be 2, .* got None")
        self.refused(anomaly(false_alarm_rate=0.1), "threshold must be null, which its 3 scores give")

    def test_missing_parts_and_other_types(self):
        for name in anomaly():
            self.refused({k: v for k, v in anomaly().items() if k != name}, f"'{name}' is missing")
        for content in (None, [], "text", 3):
            self.refused(content, "it must hold weights_sha256, ")


class TestClassCalibration(unittest.TestCase):
    def refused(self, content, rule: str) -> None:
        with self.assertRaisesRegex(ValueError, rule) as caught:
            check_classifier_calibration(content, "c.json", ["a", "b"])
        self.assertTrue(str(caught.exception).startswith("'c.json' "), str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def test_good_content_comes_back_in_the_order_of_the_classes(self):
        content = check_classifier_calibration(classes(thresholds={"b": None, "a": 1}), "c.json", ["a", "b"])
        self.assertEqual(list(content["thresholds"].items()), [("a", 1.0), ("b", None)])
        without = {k: v for k, v in classes().items() if k != "roc"}
        self.assertEqual(check_classifier_calibration(without, "c.json", ["a", "b"])["roc"], {})

    def test_values_of_no_meaning(self):
        for value in (0, -1, math.nan, math.inf, True, "1", None, 1e9):
            self.refused(classes(temperature=value), r"temperature must be in \[0.01, 100\], got ")
        for value in (-0.1, 1.1, math.nan, True, "0.5", [0.5]):
            self.refused(classes(thresholds={"a": value, "b": 0.5}), r"thresholds of 'a' must be in \[0, 1\], got ")
        for value in (None, [0.5, 0.5], 0.5, "a"):
            self.refused(classes(thresholds=value), "thresholds must be given by class, got ")
        self.refused(classes(thresholds={"a": 0.5}), r"holds the classes \['a'\], not \['a', 'b'\]")
        for name in ("weights_sha256", "temperature", "thresholds"):
            self.refused({k: v for k, v in classes().items() if k != name}, f"'{name}' is missing")

    def test_curves_of_no_meaning(self):
        def curve(**changes):
            return classes(roc={"a": ROC | changes, "b": None})

        self.refused(classes(roc=[1]), "roc must be given by class")
        self.refused(classes(roc=0), "roc must be given by class")
        self.refused(classes(roc={"a": ROC}), "'roc' holds the classes")
        self.refused(
            classes(roc={"a": [1], "b": None}), "roc of 'a' must hold positives, negatives, thresholds, tpr, fpr"
        )
        self.refused(curve(positives=0), "roc of 'a': positives must be a whole number")
        self.refused(curve(negatives=True), "roc of 'a': negatives must be a whole number")
        self.refused(curve(thresholds=[0.1, 0.4, 0.9]), "roc of 'a': thresholds must fall")
        self.refused(curve(tpr=[1.0, 0.5, 0.0]), "roc of 'a': tpr must ascend")
        self.refused(curve(fpr=[0.0, math.nan, 1.0]), "roc of 'a': fpr must be finite numbers, got nan")
        self.refused(curve(fpr=[0.0, 1.0, 1.5]), r"roc of 'a': fpr must be in \[0, 1\], got 1.5")
        self.refused(curve(fpr=[0.0, 1.0]), r"lists of one length, at most 1000, got \[3, 3, 2\]")


class TestFiles(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path, self.weights = Path(folder.name) / "calibration.json", Path(folder.name) / "model.pt"
        self.weights.write_bytes(b"weights")

    def test_what_is_no_json(self):
        for text in (b"[" * 10_000, b'{"a":' * 10_000, b"{", b"", b"\xff\xfe\x00", b'{"scores": [1], "scores": [2]}'):
            with self.assertRaisesRegex(ValueError, "^'c.json' is no calibration: [^\n]+$"):
                parse_calibration(text, "c.json")
        self.path.write_bytes(b"[" * 10_000)
        for read in (read_calibration, lambda path: read_classifier_calibration(path, None, ["a"])):
            with self.assertRaisesRegex(ValueError, "'calibration.json' is no calibration: it is nested too deeply"):
                read(self.path)

    def test_readers_check(self):
        self.path.write_text(json.dumps(anomaly(threshold=math.nan)))  # Python writes and reads NaN
        with self.assertRaisesRegex(ValueError, "'calibration.json' is no calibration: threshold must be .* got nan"):
            read_calibration(self.path)
        self.path.write_text(json.dumps(classes(temperature=math.inf)))
        with self.assertRaisesRegex(ValueError, "'calibration.json' is no calibration: temperature must"):
            read_classifier_calibration(self.path, None, ["a", "b"])

    def test_nothing_unfit_is_written(self):
        with self.assertRaisesRegex(ValueError, "calibration must hold finite scores, 1 of 2 are not"):
            write_calibration(self.path, self.weights, [1.0, math.nan], 0, 0.5)
        with self.assertRaisesRegex(ValueError, "heat_low must be a finite number, got nan"):
            write_calibration(self.path, self.weights, [1.0, 2.0], math.nan, 0.5)
        with self.assertRaisesRegex(ValueError, r"thresholds of 'a' must be in \[0, 1\], got nan"):
            write_classifier_calibration(self.path, self.weights, 1.0, {"a": math.nan})
        self.assertFalse(self.path.exists())

    def test_a_class_without_operating_point_is_told(self):
        write_classifier_calibration(self.path, self.weights, 1.5, {"a": 0.25, "b": None}, {"a": ROC, "b": None})
        with self.assertLogs("bundle.classification.calibration", "WARNING") as logs:
            content = read_classifier_calibration(self.path, None, ["a", "b"])
        self.assertIn("no operating point for b: no verdict on it", logs.output[0])
        self.assertEqual(content["roc"]["a"], ROC)


if __name__ == "__main__":
    unittest.main()
