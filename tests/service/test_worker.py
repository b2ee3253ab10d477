# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import errno
import json
import sqlite3
import tempfile
import threading
import time
import unittest
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pydicom
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import SecondaryCaptureImageStorage

from bundle.results.dicom.sr import read_boxes_from_sr
from bundle.service.intake import Intake
from bundle.service.job_queue import JobQueue
from bundle.service.sender import send_job
from bundle.service.settings import Node, ServedModel
from bundle.service.worker import Worker
from bundle.service.workflow import WarmWorkflow
from tests.service.helpers import (
    built_bundle,
    image_file,
    quiet_workflow,
    small_adfa,
    small_msa,
    some_settings,
    states,
)


class Archive:
    """A node that keeps headers, and answers with the statuses it is told to; classes: those it takes, or all."""

    def __init__(self, classes: Sequence[str] | None = None) -> None:
        self.objects: list[pydicom.Dataset] = []
        self.statuses: list[int] = []
        node = AE("ARCHIVE")
        every = AllStoragePresentationContexts
        node.supported_contexts = [c for c in every if classes is None or c.abstract_syntax in classes]
        self.server = node.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self.store)])
        self.node = Node("ARCHIVE", "127.0.0.1", self.server.server_address[1])

    def store(self, event: evt.Event) -> int:
        status = self.statuses.pop(0) if self.statuses else 0
        if status == 0:
            self.objects.append(event.dataset)
        return status


class TestWorker(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        open_models = contextlib.ExitStack()
        cls.addClassCleanup(open_models.close)
        cls.models = (small_adfa(cls.root / "adfa"), small_msa(cls.root / "msa"))
        cls.workflows = [open_models.enter_context(quiet_workflow(m, cls.root / "scratch")) for m in cls.models]

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.archive = Archive()
        self.addCleanup(self.archive.server.shutdown)
        self.settings = some_settings(
            self.folder / "state", destinations=(self.archive.node,), retry_seconds=0.0, max_object_bytes=2**20
        )
        self.settings.state_dir.mkdir()
        self.queue = JobQueue(self.settings.state_dir / "queue.sqlite")
        self.addCleanup(self.queue.close)
        self.intake = Intake(self.settings, self.queue)
        self.worker = Worker(self.settings, self.queue, self.workflows)

    def send(self, job: int) -> None:
        send_job(job, self.settings, self.queue)

    def test_a_study_of_two_images_and_its_way_back(self):
        radiograph = image_file(self.folder / "in", 0, study=7)
        self.intake.take(radiograph, "CR1")
        self.intake.take(image_file(self.folder / "in", 1, study=7, ultrasound=True), "US1")
        self.assertTrue(self.worker.step())
        self.assertEqual(states(self.queue), ["sending"])
        self.send(1)
        self.assertEqual(states(self.queue), ["done"])
        kinds = [row["kind"] for row in self.queue.rows("SELECT kind FROM results WHERE model = 'adfa'")]
        self.assertEqual(sorted(kinds), sorted(["sr", "seg", "sc"] * 2))
        self.assertEqual(len(self.archive.objects), 6 + 2)  # boxes are for the radiograph alone, without a threshold
        source = pydicom.dcmread(radiograph)
        self.assertEqual({str(o.StudyInstanceUID) for o in self.archive.objects}, {source.StudyInstanceUID})
        self.assertEqual({str(o.PatientID) for o in self.archive.objects}, {"SYNTHETIC-7"})
        self.assertEqual(len({str(o.SOPInstanceUID) for o in self.archive.objects}), 8)

    def test_boxes_of_the_report_are_those_of_the_table(self):
        self.intake.take(image_file(self.folder / "in", 0), "CR1")
        self.worker.step()
        folder = self.settings.state_dir / "jobs" / "1" / "msa"
        (image,) = json.loads((folder / "predictions.json").read_text())["images"]
        boxes = [vars(box) for box in read_boxes_from_sr(folder / image["files"]["sr"])]
        self.assertGreater(len(boxes), 0)
        for found, told in zip(boxes, image["boxes"], strict=True):
            for side in ("x", "y", "width", "height"):
                self.assertAlmostEqual(found[side], told[side], places=3)

    def test_results_made_again_are_new_objects_and_what_is_sent_again_is_the_same(self):
        self.intake.take(image_file(self.folder / "in", 0), "CR1")
        self.worker.step()
        results = self.queue.rows("SELECT uid, file FROM results")
        files = {row["uid"]: (self.settings.state_dir / row["file"]).read_bytes() for row in results}
        self.archive.statuses = [0xA700] * len(files)  # no room now
        with self.assertLogs("bundle.service.sender", "WARNING"):
            self.send(1)
        self.send(1)
        self.assertEqual({str(o.SOPInstanceUID) for o in self.archive.objects}, set(files))
        for row in results:
            self.assertEqual((self.settings.state_dir / row["file"]).read_bytes(), files[row["uid"]])
        self.archive.objects.clear()
        self.worker._compute(
            1
        )  # as after a change of the model: another content, for which the archive needs another UID
        self.send(1)
        again = {str(o.SOPInstanceUID) for o in self.archive.objects}
        self.assertEqual((len(again), again & set(files)), (len(files), set()))

    def test_a_built_bundle_gives_the_same(self):
        image, fixed = image_file(self.folder / "in", 0), {"fixed_time": "2026-03-04T05:06:07+00:00"}
        model = small_adfa(self.root / "adfa")
        model = replace(model, settings={**model.settings, **fixed})
        built = built_bundle(model, self.folder / "built")
        produced = []
        for each in (ServedModel("given", built / "configs" / "inference.json", fixed), model):
            with quiet_workflow(each, self.folder / "scratch") as workflow:
                produced.append(workflow.run([image], self.folder / f"{each.name}_results").results)
        for (one, _, first), (two, _, second) in zip(*produced, strict=True):
            self.assertEqual((one, first.read_bytes()), (two, second.read_bytes()))

    def test_a_misspelled_setting_is_refused(self):
        meant = "'--top_fractoin' is no setting of this run: did you mean '--top_fraction'"
        model = self.models[0]
        built = built_bundle(model, self.folder / "built") / "configs" / "inference.json"
        for args_file in (model.args_file, built):
            wrong = replace(model, args_file=args_file, settings={**model.settings, "top_fractoin": 0.1})
            with self.assertRaisesRegex(ValueError, f"model 'adfa': {meant}"):
                WarmWorkflow(wrong, self.folder / "scratch")

    def test_the_network_is_kept(self):
        parser = self.workflows[0]._parser
        before = parser.get_parsed_content("network_def")
        self.intake.take(image_file(self.folder / "in", 0), "CR1")
        self.worker.step()
        self.assertIs(parser.get_parsed_content("network_def"), before)
        self.assertIs(parser.get_parsed_content("evaluator").network, before)

    def test_a_broken_image_is_parked_and_a_partly_broken_study_is_answered(self):
        broken = image_file(self.folder / "in", 0, study=0, BitsStored=99)
        self.intake.take(broken, "CR1")
        with self.assertLogs("bundle.service.worker", "WARNING"):
            self.worker.step()
        (job,) = self.queue.rows("SELECT * FROM jobs")
        self.assertEqual(job["state"], "parked")
        self.assertIn("BitsStored within it", job["reason"])
        self.intake.take(image_file(self.folder / "in", 1, study=0), "CR1")
        self.queue.retry()
        self.worker.step()
        (job,) = self.queue.rows("SELECT * FROM jobs")
        self.assertEqual(job["state"], "sending")
        self.assertIn("BitsStored within it", job["reason"])

    def test_no_model_for_the_modality(self):
        self.intake.take(image_file(self.folder / "in", 0, ultrasound=True), "US1")
        with self.assertLogs("bundle.service.worker", "WARNING"):
            Worker(self.settings, self.queue, self.workflows[1:]).step()
        self.assertIn("no model is for images of modality US", self.queue.rows("SELECT reason FROM jobs")[0]["reason"])

    def test_the_archive_is_away_has_no_room_or_refuses(self):
        self.intake.take(image_file(self.folder / "in", 0), "CR1")
        self.worker.step()
        away = replace(self.settings, destinations=(Node("ARCHIVE", "127.0.0.1", 1),))
        with self.assertLogs("bundle.service.sender", "WARNING"):
            send_job(1, away, self.queue)
        self.assertEqual(states(self.queue), ["sending"])
        self.archive.statuses = [0, 0xA700, 0, 0xC000]
        with self.assertLogs("bundle.service.sender", "WARNING"):
            self.send(1)
        self.assertEqual((states(self.queue), len(self.archive.objects)), (["sending"], 3))  # all were tried
        self.archive.statuses = [0, 0xC000]
        with self.assertLogs("bundle.service.sender", "ERROR"):
            self.send(1)
        self.assertEqual((states(self.queue), len(self.archive.objects)), (["parked"], 4))
        self.assertIn("ARCHIVE refused", self.queue.rows("SELECT reason FROM jobs")[0]["reason"])
        self.queue.retry()
        self.send(1)
        self.assertEqual((states(self.queue), len(self.archive.objects)), (["done"], 5))  # none was sent twice

    def test_no_destination_and_no_kind_of_object_holds_up_the_others(self):
        self.intake.take(image_file(self.folder / "in", 0), "CR1")
        self.worker.step()
        picky = Archive([SecondaryCaptureImageStorage])
        self.addCleanup(picky.server.shutdown)
        away = replace(picky.node, port=1)
        every = replace(self.settings, destinations=(away, picky.node, self.archive.node))
        with self.assertLogs("bundle.service.sender", "WARNING"):
            send_job(1, every, self.queue)
        self.assertEqual((states(self.queue), len(self.archive.objects)), (["sending"], 5))
        self.assertEqual([o.SOPClassUID for o in picky.objects], [SecondaryCaptureImageStorage] * 2)
        both = replace(self.settings, destinations=(picky.node, self.archive.node))
        for _ in range(2):  # parked again though none of the objects left is of a kind that is taken
            with self.assertLogs("bundle.service.sender", "ERROR"):
                send_job(1, both, self.queue)
            self.assertEqual(states(self.queue), ["parked"])
            self.queue.retry()
        self.assertEqual((len(self.archive.objects), len(picky.objects)), (5, 2))  # none was sent twice
        self.assertIn("ARCHIVE does not accept", self.queue.rows("SELECT reason FROM jobs")[0]["reason"])

    def test_results_that_are_no_longer_on_disk(self):
        self.intake.take(image_file(self.folder / "in", 0), "CR1")
        self.worker.step()
        next((self.settings.state_dir / "jobs" / "1").rglob("*.dcm")).unlink()
        self.send(1)
        self.assertEqual((states(self.queue), len(self.archive.objects)), (["parked"], 4))
        reason = self.queue.rows("SELECT reason FROM jobs")[0]["reason"]
        self.assertEqual(reason, "1 results for ARCHIVE are no longer on disk.")

    def test_running_until_told_to_stop(self):
        self.intake.take(image_file(self.folder / "in", 0), "CR1")
        stop = threading.Event()
        thread = threading.Thread(target=self.worker.run, args=(stop,))
        thread.start()
        until = time.monotonic() + 30
        while states(self.queue) != ["done"] and time.monotonic() < until:
            time.sleep(0.05)
        stop.set()
        thread.join(30)
        self.assertEqual((states(self.queue), thread.is_alive()), (["done"], False))

    def test_what_passes_parks_nothing(self):
        self.intake.take(image_file(self.folder / "in", 0), "CR1")
        full = OSError(errno.ENOSPC, "No space left on device", "name of a patient")
        locked = sqlite3.OperationalError("database is locked")
        computed = self.queue.computed
        for patch, reason in (
            (mock.patch("bundle.files.os.replace", side_effect=full), "No space left on device"),
            (mock.patch("bundle.service.passing.shutil.disk_usage", return_value=mock.Mock(free=10)), "are free on"),
            (mock.patch.object(self.workflows[0], "run", side_effect=ConnectionResetError()), "the network is away"),
            (mock.patch.object(self.queue, "computed", side_effect=locked), "the database cannot be written to"),
        ):
            with self.subTest(reason), patch, self.assertLogs("bundle.service.worker", "WARNING"):
                self.assertTrue(self.worker.step())
                (row,) = self.queue.rows("SELECT state, attempts, reason FROM jobs")
                self.assertEqual((row["state"], row["attempts"]), ("waiting", 0))
                self.assertIn(reason, row["reason"])
        self.assertEqual(self.queue.computed, computed)
        self.worker.step()
        self.send(1)
        self.assertEqual((states(self.queue), len(self.archive.objects)), (["done"], 5))

    def test_a_queue_that_is_locked_for_a_while(self):
        self.intake.take(image_file(self.folder / "in", 0), "CR1")
        locked = sqlite3.OperationalError("database is locked")
        defer = mock.Mock(side_effect=[locked, locked, None], wraps=self.queue.defer)
        broken = mock.patch.object(self.queue, "computed", side_effect=locked)
        with broken, mock.patch.object(self.queue, "defer", defer), self.assertLogs("bundle.service.worker", "WARNING"):
            self.worker.step()
        self.assertEqual(defer.call_count, 3)

    def test_parked_jobs_raise_an_alarm(self):
        self.worker._alarm()  # says nothing
        self.intake.take(image_file(self.folder / "in", 0), "CR1")
        self.queue.park(1, "a reason")
        with self.assertLogs("bundle.service.worker", "ERROR") as logs:
            self.worker._alarm()
        self.assertIn("1 jobs are parked", logs.output[0])

    def test_an_error_of_the_queue_ends_computing_and_sending(self):
        for method in ("claim", "next_to_send"):
            stop = threading.Event()
            late = threading.Timer(5, stop.set)
            late.start()
            self.addCleanup(late.cancel)
            broken = mock.patch.object(self.queue, method, side_effect=sqlite3.OperationalError("disk I/O error"))
            with self.subTest(method), broken:
                with self.assertRaisesRegex(sqlite3.OperationalError, "disk I/O error"):
                    self.worker.run(stop)
                self.assertTrue(late.is_alive())
                self.assertFalse([thread for thread in threading.enumerate() if "sender" in thread.name])

    def test_old_studies_are_removed_and_still_known(self):
        file = image_file(self.folder / "in", 0)
        self.intake.take(file, "CR1")
        self.worker.step()
        self.send(1)
        self.worker._settings = replace(self.settings, keep_days=-1)
        self.worker._remove_old()
        self.assertEqual(list((self.settings.state_dir / "images").rglob("*.dcm")), [])
        self.assertEqual(list((self.settings.state_dir / "jobs").iterdir()), [])
        self.assertFalse(self.intake.take(file, "CR1"))


if __name__ == "__main__":
    unittest.main()
