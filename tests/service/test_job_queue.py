# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from bundle.service.job_queue import JobQueue
from tests.service.helpers import states


class TestJobQueue(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "queue.sqlite"
        self.queue = JobQueue(self.path)
        self.addCleanup(self.queue.close)

    def add(self, uid: str, study: str = "1.1") -> bool:
        return self.queue.add(uid, study, "CR", f"{uid}.dcm", "CR1")

    def test_from_first_image_to_last_delivery(self):
        self.assertTrue(self.add("1"))
        self.assertTrue(self.add("2"))
        self.assertFalse(self.add("2"))
        self.assertIsNone(self.queue.claim(quiet_seconds=60))
        self.assertEqual(self.queue.claim(0), 1)
        self.assertIsNone(self.queue.claim(0))
        self.queue.computed(1, [("9.1", "adfa", "sr", "a"), ("9.2", "adfa", "sc", "b")], "a note")
        self.assertEqual(self.queue.next_to_send(), 1)
        self.queue.delivered("9.1", "ARCHIVE")
        self.assertEqual([row["uid"] for row in self.queue.unsent(1, "ARCHIVE")], ["9.2"])
        self.assertEqual(len(self.queue.unsent(1, "OTHER")), 2)
        self.queue.finish(1)
        self.assertEqual(states(self.queue), ["done"])
        self.assertIsNone(self.queue.next_to_send())

    def test_a_late_image_is_a_job_of_its_own_and_a_known_one_is_none(self):
        self.add("1")
        self.queue.claim(0)
        self.assertTrue(self.add("2"))
        self.assertFalse(self.add("1"))
        self.assertEqual(states(self.queue), ["running", "waiting"])
        self.assertEqual(self.queue.rows("SELECT uid FROM instances WHERE job = 2")[0]["uid"], "2")

    def test_a_worker_that_ends_is_recovered_from_and_a_study_that_ends_workers_is_parked(self):
        self.add("1")
        for _ in range(2):
            self.assertEqual(self.queue.claim(0), 1)
            self.queue.recover(max_attempts=3)
            self.assertEqual(states(self.queue), ["waiting"])
        self.queue.claim(0)
        self.queue.recover(max_attempts=3)
        self.assertEqual(states(self.queue), ["parked"])
        self.assertIn("the worker ended 3 times", self.queue.rows("SELECT reason FROM jobs")[0]["reason"])

    def test_recovery_takes_in_what_came_meanwhile(self):
        self.add("1")
        self.queue.claim(0)
        self.add("2")
        self.queue.recover(max_attempts=3)
        self.assertEqual(states(self.queue), ["waiting"])
        self.assertEqual(len(self.queue.rows("SELECT uid FROM instances WHERE job = 1")), 2)

    def test_parked_jobs_start_again_where_they_were(self):
        self.add("1")
        self.add("2", study="1.2")
        first, second = self.queue.claim(0), self.queue.claim(0)
        self.queue.park(first, "no image")
        self.queue.computed(second, [("9", "adfa", "sr", "a")])
        self.queue.park(second, "refused")
        self.assertEqual(self.queue.retry(first), 1)
        self.assertEqual(self.queue.retry(), 1)
        self.assertEqual(states(self.queue), ["waiting", "sending"])

    def test_a_parked_job_joins_the_new_images_of_its_study(self):
        self.add("1")
        self.queue.park(self.queue.claim(0), "no image")
        self.add("2")
        self.queue.retry()
        self.assertEqual(states(self.queue), ["waiting"])
        self.assertEqual(len(self.queue.rows("SELECT uid FROM instances WHERE job = 2")), 2)

    def test_tries_come_later_and_later(self):
        self.add("1")
        self.queue.computed(self.queue.claim(0), [("9", "adfa", "sr", "a")])
        waits = []
        for _ in range(3):
            self.queue.postpone(1, 10)
            waits.append(self.queue.rows("SELECT retry_wait FROM jobs")[0]["retry_wait"])
        self.assertIsNone(self.queue.next_to_send())
        self.assertEqual(waits, [10, 20, 40])

    def test_intervals_do_not_follow_the_clock_on_the_wall(self):
        self.add("1")
        with mock.patch("time.time", return_value=time.time() - 86400):  # set back by a day
            self.assertIsNone(self.queue.claim(30))
            with mock.patch("time.monotonic", return_value=time.monotonic() + 31):
                self.assertEqual(self.queue.claim(30), 1)
        self.queue.computed(1, [("9", "adfa", "sr", "a")])
        self.queue.postpone(1, 10)
        self.assertIsNone(self.queue.next_to_send())
        with mock.patch("time.monotonic", return_value=0.5):  # the machine has started again
            self.assertEqual(self.queue.next_to_send(), 1)

    def test_a_job_that_is_deferred_waits_and_counts_no_start(self):
        self.add("1")
        self.queue.claim(0)
        self.add("2")
        self.queue.defer(1, 10, "No space left on device")
        self.assertIsNone(self.queue.claim(0))
        (row,) = self.queue.rows("SELECT state, attempts, reason, retry_wait FROM jobs")
        self.assertEqual(tuple(row), ("waiting", 0, "No space left on device", 10))
        with mock.patch("time.monotonic", return_value=time.monotonic() + 11):
            self.assertEqual(self.queue.claim(0), 1)
        self.assertEqual(len(self.queue.rows("SELECT uid FROM instances WHERE job = 1")), 2)

    def test_a_queue_of_an_older_version(self):
        self.add("1")
        for column in ("last_tick", "retry_tick", "retry_wait"):
            with self.queue.transaction() as db:
                db.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        self.queue.close()
        self.queue = JobQueue(self.path)
        self.assertEqual(self.queue.claim(0), 1)

    def test_many_threads_and_two_openings_lose_nothing(self):
        other = JobQueue(self.path)
        self.addCleanup(other.close)
        queues = [self.queue, other]

        def add_some(number: int) -> None:
            for i in range(20):
                queues[number % 2].add(f"{number}.{i}", f"1.{i % 4}", "CR", "a", "b")

        threads = [threading.Thread(target=add_some, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(states(self.queue), ["waiting"] * 4)
        self.assertEqual(len(other.rows("SELECT uid FROM instances")), 120)


if __name__ == "__main__":
    unittest.main()
