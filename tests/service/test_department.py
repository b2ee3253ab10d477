# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
The service among real parts: Orthanc as the archive, dcmsend as the modalities, dciodvfy as the judge.

``make department`` runs it; ``DEPARTMENT_STUDIES`` says how many studies.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

import pytest

from bundle.results.dicom.sr import read_boxes_from_sr
from tests.service.department import Department, Study
from tests.service.orthanc import SERVERS

STUDIES = int(os.environ.get("DEPARTMENT_STUDIES", "50"))
SR, SEG, SC = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.7"
logger = logging.getLogger(__name__)


def validator_errors(path: Path) -> set[str]:
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}


@pytest.mark.servers
@unittest.skipUnless(all(SERVERS.values()), f"servers are missing: {SERVERS}")
class TestDepartment(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        self.department = Department(Path(folder.name))
        self.addCleanup(self.department.archive.end)
        self.addCleanup(self.department.end)
        self.department.archive.start()
        self.department.start()

    def wait_until_answered(self, studies: int, seconds: float) -> None:
        def all_answered() -> bool:
            queue = self.department.queue()
            (row,) = queue.rows("SELECT COUNT(DISTINCT study) AS n FROM jobs")
            queue.close()
            return row["n"] == studies and self.department.open_jobs() == 0

        self.department.wait(all_answered, seconds)
        queue = self.department.queue()
        self.assertEqual([dict(row) for row in queue.rows("SELECT id, reason FROM jobs WHERE state = 'parked'")], [])
        queue.close()

    def check_answers(self, studies: list[Study], validate: bool = True) -> None:
        """Check that each study has each result once, in the right study, where the tables say, and valid."""
        predictions = self.predictions()
        boxes, validated = 0, 0
        for study in studies:
            files = self.department.archive.instances(study.study)
            source_errors = validator_errors(study.file) if validate else set()
            kinds = []
            for number, content in enumerate(files):
                path = study.file.with_name(f"result_{number}.dcm")
                path.write_bytes(content)
                result = self.header(path)
                self.assertEqual((result.StudyInstanceUID, result.PatientID), (study.study, study.patient))
                self.assertIn(study.instance, result.to_json(bulk_data_threshold=2**30), "refers to another image")
                model = self.model_of(result)
                kinds.append((model, str(result.SOPClassUID), str(result.SeriesNumber)))
                if result.SOPClassUID == SR:
                    told = predictions[model, hashlib.sha256(study.instance.encode()).hexdigest()[:32]]["boxes"]
                    found = [vars(box) for box in read_boxes_from_sr(path)]
                    self.assertEqual(len(found), len(told))
                    for one, other in zip(found, told, strict=True):
                        for side in ("x", "y", "width", "height"):
                            self.assertAlmostEqual(one[side], other[side], delta=0.01)
                    boxes += len(found)
                if validate:
                    self.assertLessEqual(validator_errors(path), source_errors, f"{kinds[-1]} of {study.file.name}")
                    validated += 1
                path.unlink()
            segmentations = [("adfa", SEG, "9002")]  # boxes have no threshold, so no mask
            expected = [("adfa", SR, "9001"), ("adfa", SC, "9004"), ("msa", SR, "9001"), ("msa", SC, "9004")]
            # a frame of a loop cannot be named by a segmentation (docs/results-format.md)
            self.assertEqual(sorted(kinds), sorted(expected + (segmentations if study.frames == 1 else [])))
        logger.info("%d studies, %d boxes compared, %d results validated", len(studies), boxes, validated)

    def header(self, path: Path):
        import pydicom

        return pydicom.dcmread(path, stop_before_pixels=True)

    def model_of(self, result) -> str:
        return "adfa" if "ADFA" in result.to_json(bulk_data_threshold=2**30) else "msa"

    def predictions(self) -> dict[tuple[str, str], dict]:
        """Return what the tables say of each model and image."""
        found = {}
        for path in (self.department.state / "jobs").glob("*/*/predictions.json"):
            for image in json.loads(path.read_text())["images"]:
                found[path.parent.name, Path(image["source"]).stem] = image
        return found

    def test_every_study_is_answered(self):
        studies = self.department.make_studies(STUDIES)
        self.department.push(studies, peers=4, seconds=60 + 10 * STUDIES)
        self.wait_until_answered(STUDIES, 60 + 10 * STUDIES)
        logger.info("%s", self.department.figures())
        self.check_answers(studies)
        log = self.department.log()
        for study in studies:
            for word in (study.study, study.instance, study.patient):
                self.assertNotIn(word, log)

    def test_kills_at_random_moments(self):
        studies = self.department.make_studies(STUDIES)
        pushing = threading.Thread(target=self.department.push, args=(studies, 4, 900))
        pushing.start()
        chance = random.Random()
        kills = 0
        while pushing.is_alive() or (kills < 6 and self.department.open_jobs()):
            time.sleep(chance.uniform(1, 6))
            victim = chance.choice(["archive", "service", "listen", "work"])
            logger.info("killing %s", victim)
            kills += 1
            if victim == "archive":
                self.department.archive.end(kill=True)
                time.sleep(chance.uniform(0, 2))
                self.department.archive.start()
            elif victim == "service":
                self.department.end(kill=True)
                self.department.start()
            else:
                self.department.kill_one(victim)
        self.wait_until_answered(STUDIES, 60 + 10 * STUDIES)
        logger.info("%d kills, %s", kills, self.department.figures())
        self.check_answers(studies, validate=False)


if __name__ == "__main__":
    unittest.main()
