# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import tempfile
import unittest
from io import StringIO
from pathlib import Path

from bundle.service.__main__ import main
from bundle.service.intake import Intake
from bundle.service.processes import open_queue
from bundle.service.upkeep import chosen_jobs, purge, reprocess
from tests.service.helpers import image_file, some_settings, states


class TestUpkeep(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.settings = some_settings(self.folder / "state")
        self.queue = open_queue(self.settings)
        self.addCleanup(self.queue.close)
        self.intake = Intake(self.settings, self.queue)

    def take(self, number: int, study: int | None = None) -> bool:
        return self.intake.take(image_file(self.folder / "in", number, study), "CR1")

    def answer(self, uid: str) -> int:
        """Compute and deliver one result of the next job."""
        job = self.queue.claim(0)
        (self.settings.state_dir / "jobs" / str(job)).mkdir(parents=True)
        self.queue.computed(job, [(uid, "adfa", "sr", f"jobs/{job}/a.dcm")])
        self.queue.delivered(uid, "ARCHIVE")
        self.queue.finish(job)
        return job

    def test_reprocess(self):
        self.take(0)
        self.take(1)
        done, running = self.answer("9.1"), self.queue.claim(0)
        self.assertEqual(reprocess(self.settings, self.queue, [done, running, 99]), 1)
        self.assertEqual(states(self.queue), ["waiting", "running"])
        self.assertEqual(self.queue.rows("SELECT * FROM results"), [])
        self.assertFalse((self.settings.state_dir / "jobs" / "1").exists())
        self.assertEqual(self.answer("9.2"), done)
        self.queue.removed(done)
        self.assertEqual(reprocess(self.settings, self.queue, [done]), 0)  # its images are gone

    def test_jobs_of_one_study_become_one(self):
        self.take(0, study=7)
        first = self.answer("9.1")
        self.take(1, study=7)
        second = self.answer("9.2")
        reprocess(self.settings, self.queue, [first, second])
        self.assertEqual(states(self.queue), ["waiting"])
        self.assertEqual(len(self.queue.rows("SELECT uid FROM instances WHERE job = ?", second)), 2)

    def test_purge(self):
        for number in range(3):
            self.take(number)
        done, running = self.answer("9.1"), self.queue.claim(0)
        parked = self.queue.claim(0)
        self.queue.park(parked, "a reason")
        self.assertEqual(purge(self.settings, self.queue, [done, running, parked]), 2)
        self.assertEqual(states(self.queue), ["running"])
        (left,) = self.queue.rows("SELECT file FROM instances")
        (image,) = (self.settings.state_dir / "images").rglob("*.dcm")
        self.assertTrue(str(image).endswith(left["file"]))
        self.assertEqual(list((self.settings.state_dir / "jobs").iterdir()), [])
        for table in ("results", "deliveries"):
            self.assertEqual(self.queue.rows(f"SELECT * FROM {table}"), [])
        self.assertTrue(self.take(0))  # it is new again

    def test_which_jobs(self):
        for number in range(2):
            self.take(number)
        with self.queue.transaction() as db:
            db.execute("UPDATE jobs SET last_at = last_at - 3 * 86400 WHERE id = 1")
        study = self.queue.rows("SELECT study FROM jobs WHERE id = 2")[0]["study"]
        for words, jobs in (
            ({"jobs": [1, 7]}, [1]),
            ({"study": study}, [2]),
            ({"older_than": 2}, [1]),
            ({"newer_than": 2}, [2]),
            ({"state": "waiting", "newer_than": 4}, [1, 2]),
            ({"state": "parked"}, []),
        ):
            with self.subTest(words):
                self.assertEqual(chosen_jobs(self.queue, **words), jobs)
        with self.assertRaisesRegex(ValueError, "every study is too much"):
            chosen_jobs(self.queue)

    def test_commands(self):
        self.take(0)
        config = self.folder / "service.yaml"
        config.write_text("state_dir: state\nmodels: [{name: a, args_file: a.yaml}]\n")
        for command, said in (
            (["reprocess", "1"], "0 of 1 jobs start again"),
            (["purge", "--older-than", "1"], "0 of 0 jobs are removed"),
            (["purge", "--state", "waiting"], "1 of 1 jobs are removed"),
        ):
            with contextlib.redirect_stdout(StringIO()) as out:
                main([command[0], "--config", str(config), *command[1:]])
            self.assertIn(said, out.getvalue())
        with self.assertRaisesRegex(SystemExit, "error: jobs, a study, a state or an age must be given"):
            main(["purge", "--config", str(config)])


if __name__ == "__main__":
    unittest.main()
