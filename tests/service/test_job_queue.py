# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import threading
import unittest
from pathlib import Path

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
            before = self.queue.rows("SELECT retry_at FROM jobs")[0]["retry_at"]
            self.queue.postpone(1, 10)
            waits.append(self.queue.rows("SELECT retry_at FROM jobs")[0]["retry_at"] - before)
        self.assertIsNone(self.queue.next_to_send())
        self.assertAlmostEqual(waits[1], 10, delta=1)
        self.assertAlmostEqual(waits[2], 20, delta=1)

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
