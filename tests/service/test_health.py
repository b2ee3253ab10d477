# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import threading
import time
import unittest
import urllib.request
from dataclasses import replace
from pathlib import Path
from unittest import mock

from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import Client

from bundle.service.health import make_health, serve_health
from bundle.service.processes import open_queue
from bundle.service.readiness import intake_problem
from bundle.service.settings import Health, Page
from bundle.service.state_lock import locked_role
from tests.service.helpers import some_settings
from tests.service.orthanc import free_port


class TestHealth(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.settings = some_settings(Path(folder.name) / "state", page=Page())
        self.queue = open_queue(self.settings)
        self.addCleanup(self.queue.close)
        self.client = Client(make_health(self.settings, self.queue))

    def healthz(self) -> tuple[int, str]:
        answer = self.client.get("/healthz")
        return answer.status_code, answer.text

    def metrics(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.client.get("/metrics").text)  # Prometheus's own format
        samples = [sample for family in families for sample in family.samples]
        return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}

    def test_each_process_must_run(self):
        roles = ("listen", "work", "page")
        for dead in (None, *roles):
            with self.subTest(dead), contextlib.ExitStack() as locks:
                for role in roles:
                    if role != dead:
                        locks.enter_context(locked_role(self.settings.state_dir, role))
                expected = (200, "well\n") if dead is None else (503, f"'{dead}' does not run.\n")
                self.assertEqual(self.healthz(), expected)
                self.assertEqual(self.metrics()["bundle_up work"], float(dead != "work"))

    def test_what_keeps_images_out(self):
        self.assertIsNone(intake_problem(self.settings))
        full = replace(self.settings, min_free_bytes=2**60)
        self.assertEqual(intake_problem(full), f"less than {2**60} bytes are free on disk.")
        other = sqlite3.connect(self.settings.state_dir / "queue.sqlite", isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        with mock.patch("bundle.service.readiness._PATIENCE", 0.1):
            self.assertEqual(intake_problem(self.settings), "the queue cannot be written to.")
            self.assertIn("the queue cannot be written to.", self.healthz()[1])
        other.execute("ROLLBACK")
        self.assertIsNone(intake_problem(self.settings))

    def test_metrics(self):
        for number in range(3):
            self.queue.add(f"1.{number}", f"2.{number}", "CR", "a.dcm", "CR1")
        now = time.time()
        with self.queue.transaction() as db:
            db.execute("UPDATE jobs SET last_at = ? WHERE id = 1", (now - 100,))
            db.execute(
                "UPDATE jobs SET state = 'done', started_at = 10, computed_at = 14, finished_at = 1000 WHERE id = 2"
            )
        self.queue.park(3, "a reason")
        metrics = self.metrics()
        by_state = [metrics[f"bundle_jobs {state}"] for state in ("waiting", "running", "sending", "done", "parked")]
        self.assertEqual(by_state, [1, 0, 0, 1, 1])
        self.assertAlmostEqual(metrics["bundle_oldest_open_job_seconds"], 100, delta=30)
        self.assertEqual(metrics["bundle_last_success_timestamp_seconds"], 1000)
        self.assertEqual(metrics["bundle_job_seconds"], 4)
        self.assertGreater(metrics["bundle_disk_free_bytes"], 0)
        self.assertIn("1 jobs are parked.", self.healthz()[1])

    def test_other_questions(self):
        self.assertEqual(self.client.get("/").status_code, 404)
        self.assertEqual(self.client.post("/healthz").status_code, 405)

    def test_serving(self):
        settings = replace(self.settings, health=Health(port=free_port()))
        stop = threading.Event()
        thread = threading.Thread(target=serve_health, args=(settings, self.queue, stop))
        thread.start()
        self.addCleanup(thread.join, 10)
        self.addCleanup(stop.set)
        until = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{settings.health.port}/metrics", timeout=5) as answer:
                    self.assertIn(b'bundle_jobs{state="waiting"} 0.0', answer.read())
                return
            except OSError:
                self.assertLess(time.monotonic(), until)
                time.sleep(0.05)


if __name__ == "__main__":
    unittest.main()
