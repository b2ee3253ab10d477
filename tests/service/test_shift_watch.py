# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from functools import partial
from pathlib import Path

from bundle.anomaly.shift import score_shift
from bundle.service.intake import Intake
from bundle.service.job_queue import JobQueue
from bundle.service.page import make_page, page_address
from bundle.service.settings import Page
from bundle.service.shift_watch import ShiftWatch
from bundle.service.worker import Worker
from tests.service.helpers import image_file, quiet_workflow, small_adfa, some_settings

LOG = "bundle.service.shift_watch"


class TestShiftWatch(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.settings = some_settings(Path(folder.name) / "state", page=Page())
        self.settings.state_dir.mkdir()
        self.queue = JobQueue(self.settings.state_dir / "queue.sqlite")
        self.addCleanup(self.queue.close)
        calibration = {"scores": [float(i) for i in range(99)], "false_alarm_rate": 0.1}  # their median is 49
        self.remarks = lambda rows: list(partial(score_shift, calibration=calibration)(rows))
        self.watch, self.count = ShiftWatch(self.queue), 0

    def add(self, score, count=50, weights="a", study=None, model="adfa", **fields):
        for _ in range(count):
            self.count += 1
            first = {"anomaly_score": score, "not_assessed": None, **fields}
            images = [{"anomaly_score": 0.0, "not_assessed": "too small"}, first]
            self.watch.add(model, weights, study or f"study {self.count}", images, self.remarks)

    def sentences(self):
        return [row["sentence"] for row in self.queue.rows("SELECT sentence FROM shifts")]

    def test_higher_scores_are_told_once_and_no_longer_when_they_are_over(self):
        self.add(200.0, 49)
        self.assertEqual(self.sentences(), [])
        self.watch = ShiftWatch(self.queue)  # a restart
        with self.assertLogs(LOG, "WARNING") as log:
            self.add(200.0, 1)
        (line,) = log.output
        self.assertIn("adfa, the last 50 studies: Scores are higher than the calibration's: 0 of 50 images", line)
        with self.assertNoLogs(LOG):
            self.add(200.0)
        self.assertEqual(len(self.sentences()), 1)
        self.add(49.0, 25)
        self.add(50.0, 24)
        with self.assertLogs(LOG, "INFO") as log:
            self.add(50.0, 1)
        self.assertIn("scores are the calibration's again", log.output[0])
        self.assertEqual(self.sentences(), [])

    def test_a_study_has_one_score_and_other_weights_start_anew(self):
        with self.assertNoLogs(LOG):
            self.add(200.0, 60, study="the same")
            self.add(200.0, 48)
            self.add(200.0, 49, weights="b")
            self.add(None, 50)
            self.add(200.0, 50, not_assessed="all pixels are 0", model="other")
        with self.assertLogs(LOG, "WARNING"):
            self.add(200.0, 1, weights="b")
        self.add(200.0, 1, weights="c")
        self.assertEqual(self.sentences(), [])  # it was of other weights

    def test_the_worker_asks_the_configuration_and_the_page_tells(self):
        folder = self.settings.state_dir.parent
        with quiet_workflow(small_adfa(folder / "adfa"), folder / "scratch") as workflow:
            worker = Worker(self.settings, self.queue, [workflow])
            for number in range(2):
                Intake(self.settings, self.queue).take(image_file(folder / "in", number), "CR1")
            worker.step()
            (kept,) = self.queue.rows("SELECT * FROM scores")
            with self.queue.transaction() as db:  # as if 48 more had come
                rows = [(kept["model"], kept["weights"], f"study {i}", kept["score"]) for i in range(48)]
                db.executemany("INSERT INTO scores VALUES (?, ?, ?, ?)", rows)
            with self.assertLogs(LOG, "WARNING"):  # the calibration was made up, its scores are 0 to 1.9
                worker.step()
        client = make_page(self.settings, self.queue).test_client()
        client.get("/" + page_address(self.settings).rpartition("/")[2])
        self.assertIn("Scores are ", client.get("/").text)


if __name__ == "__main__":
    unittest.main()
