# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import math
import tempfile
import unittest
from pathlib import Path

from bundle.anomaly import read_calibration, write_calibration
from bundle.anomaly.calibration import at_false_alarm_rate, check_calibration
from bundle.files import file_sha256


class TestCalibration(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path, self.weights = Path(folder.name) / "calibration.json", Path(folder.name) / "model.pt"
        self.weights.write_bytes(b"weights")

    def test_sha256(self):
        self.assertEqual(file_sha256(self.weights), hashlib.sha256(b"weights").hexdigest())

    def test_round_trip(self):
        write_calibration(self.path, self.weights, [3, 1, 2.5], 0.7, 0.5)
        content = read_calibration(self.path, file_sha256(self.weights))
        self.assertEqual(content["scores"], [1, 2.5, 3])
        self.assertEqual(content["threshold"], 2.5)  # one of three may lie above: p = 2/4
        self.assertEqual((content["heat_low"], content["false_alarm_rate"]), (0.7, 0.5))
        self.assertEqual([p.name for p in self.path.parent.iterdir()].count("calibration.json"), 1)
        self.assertEqual(len(list(self.path.parent.iterdir())), 2)

    def test_too_few_normals_warn_and_give_no_threshold(self):
        with self.assertLogs("bundle.anomaly.calibration", "WARNING") as logs:
            write_calibration(self.path, self.weights, [1.0, 2.0], 0, 0.1)
        self.assertIn("2 held-back normals cannot promise a false-alarm rate of 0.1", logs.output[0])
        self.assertIsNone(json.loads(self.path.read_text())["threshold"])  # valid JSON, not Infinity
        self.assertEqual(read_calibration(self.path)["threshold"], math.inf)

    def test_another_rate_from_the_kept_scores(self):
        write_calibration(self.path, self.weights, range(19), 0, 0.1)
        content = at_false_alarm_rate(read_calibration(self.path), 0.05)
        self.assertEqual((content["false_alarm_rate"], content["threshold"]), (0.05, 18.0))
        check_calibration(content, "c.json")
        with self.assertRaisesRegex(ValueError, "at least 0.05, the least that 19 normals can promise, got 0.04"):
            at_false_alarm_rate(content, 0.04)

    def test_none_where_there_is_none(self):
        with self.assertLogs("bundle.model.calibration_file", "WARNING"):
            self.assertIsNone(read_calibration(self.path, file_sha256(self.weights)))

    def test_belongs_to_other_weights(self):
        write_calibration(self.path, self.weights, [1.0], 0, 0.5)
        self.weights.write_bytes(b"others")
        with self.assertRaisesRegex(ValueError, "'calibration.json' belongs to other weights than those in use"):
            read_calibration(self.path, file_sha256(self.weights))

    def test_malformed(self):
        good = {"threshold": 1, "scores": [1], "weights_sha256": "ab" * 32, "false_alarm_rate": 0.5, "heat_low": 0}
        for text in ("{", "[]", "{}", json.dumps({**good, "scores": []}), json.dumps({**good, "threshold": "high"})):
            self.path.write_text(text)
            with self.assertRaisesRegex(ValueError, "'calibration.json' is no calibration"):
                read_calibration(self.path)

    def test_rejects_bad_arguments(self):
        with self.assertRaisesRegex(ValueError, "at least one score"):
            write_calibration(self.path, self.weights, [], 0, 0.1)
        with self.assertRaisesRegex(ValueError, "false_alarm_rate must be"):
            write_calibration(self.path, self.weights, [1.0], 0, 1.5)


if __name__ == "__main__":
    unittest.main()
