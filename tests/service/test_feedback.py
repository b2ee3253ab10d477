# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import unittest
from pathlib import Path

import torch

from bundle.lists import AnomalyDataList, load_label_table
from bundle.lists.boxes import read_coco_boxes
from bundle.reading import RadiologyReader
from bundle.service.feedback import Feedback, predicted_boxes, predicted_findings
from tests.folders import FolderTestCase
from tests.service.helpers import image_file


def record(image: Path, frame: int = 0, **changes) -> dict:
    usual = {"source": image.name, "frame": frame, "rows": 48, "columns": 40, "probabilities": {}, "abnormal": True}
    return {**usual, "boxes": [], **changes}


def box(label: str, x: float, y: float, width: float, height: float) -> dict:
    return {"label": label, "x": x, "y": y, "width": width, "height": height}


class TestFeedback(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.feedback = Feedback(self.folder / "feedback", "secret")

    def say(self, image: Path, verdict: str, model: str = "adfa", findings=(), boxes=(), **changes) -> None:
        self.feedback.add(1, model, "w", record(image, **changes), image, verdict, findings, boxes)

    def test_the_anomaly_list_trains_on_it(self):
        images = [image_file(self.folder / "in", i) for i in range(7)]
        for image in images[:5]:
            self.say(image, "disagree")  # a false alarm: the model said abnormal
        self.say(images[5], "agree", abnormal=False)
        self.say(images[6], "agree")
        for image in images:
            image.unlink()  # as when the job's files are removed
        found = AnomalyDataList(self.folder / "feedback" / "adfa.csv", min_held_back=1)
        kept = found.training + found.validation
        self.assertEqual(sorted(Path(i["image"]).name for i in kept), [f"{i:04d}.dcm" for i in range(6)])
        self.assertEqual(len({item["patient"] for item in kept}), 6)
        values, _ = RadiologyReader().get_data([kept[0]["image"]])
        self.assertEqual(values.shape, (1, 48, 40))

    def test_label_table_and_boxes(self):
        images = [image_file(self.folder / "in", i) for i in range(4)]
        scores = {"Effusion": 0.9, "Mass": 0.1}
        told = [{**box("Effusion", 1, 2, 30, 20), "score": 0.7}, {**box("Mass", 0, 0, 9, 9), "score": 0.2}]
        for image in images[:2]:
            self.say(image, "agree", "msa", probabilities=scores, boxes=())
        self.feedback.add(1, "msa", "w", record(images[0], probabilities=scores, boxes=told), images[0], "agree")
        words = {"findings": ["Mass"], "probabilities": scores}
        self.say(images[2], "disagree", "msa", boxes=[box("Mass", -5, 40, 20, 20)], **words)
        self.say(images[3], "disagree", "msa", boxes=[box("Effusion", 3, 4, 5, 6)], **words)
        folder = self.folder / "feedback"
        items = load_label_table(folder / "msa.csv", folder, ["Effusion", "Mass"], split="training")
        self.assertEqual([item["label"] for item in items], [[1, 0], [1, 0], [0, 1], [1, 1]])
        boxes = read_coco_boxes(folder / "msa_boxes.json")
        self.assertEqual(sorted(boxes), ["images/0000.dcm", "images/0002.dcm", "images/0003.dcm"])
        torch.testing.assert_close(boxes["0000.dcm"]["Effusion"].long(), torch.tensor([[1, 2, 31, 22]]))
        torch.testing.assert_close(
            boxes["0002.dcm"]["Mass"].long(), torch.tensor([[0, 40, 15, 48]])
        )  # cut at the border

    def test_the_last_word_counts_and_all_are_kept(self):
        image = image_file(self.folder / "in", 0)
        self.say(image, "agree")
        self.say(image, "disagree")
        with (self.folder / "feedback" / "adfa.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        self.assertEqual((row["label"], row["split"]), ("0", "training"))
        self.assertEqual(self.feedback.of_job(1)["adfa", "0000.dcm"]["verdict"], "disagree")
        self.assertEqual(self.feedback.of_job(2), {})

    def test_nothing_identifies_the_patient(self):
        self.say(image_file(self.folder / "in", 0), "agree")
        for path in (self.folder / "feedback").glob("*.*"):
            for word in (b"SYNTHETIC-0", b"Synthetic^0"):
                self.assertNotIn(word, path.read_bytes())
        self.assertEqual((self.folder / "feedback").stat().st_mode & 0o077, 0)

    def test_frames_of_a_loop(self):
        image = image_file(self.folder / "in", 0, NumberOfFrames=2)
        for frame in (0, 1):
            self.say(image, "agree", "msa", frame=frame, probabilities={"Mass": 1.0})
        folder = self.folder / "feedback"
        items = load_label_table(folder / "msa.csv", folder, ["Mass"])
        self.assertEqual([item["image"][-16:] for item in items], ["0000.dcm#frame=0", "0000.dcm#frame=1"])

    def test_what_the_model_says(self):
        said = record(Path("x"), probabilities={"A": 0.5, "B": None}, boxes=[{**box("B", 0, 0, 1, 1), "score": 1.0}])
        self.assertEqual((predicted_findings(said), predicted_boxes(said)), ({"A": 1, "B": 0}, []))
        points = {"A": 0.6, "B": 0.1}
        said = record(Path("x"), probabilities={"A": 0.5, "B": 0.2}, operating_points=points)
        self.assertEqual(predicted_findings(said), {"A": 0, "B": 1})
        self.assertEqual(predicted_findings(record(Path("x"), abnormal=None)), {"abnormal": 0})

    def test_what_is_refused(self):
        image = image_file(self.folder / "in", 0)
        for message, verdict, findings, boxes in (
            ("verdict must be agree or disagree, got 'perhaps'", "perhaps", (), ()),
            ("findings must be some of abnormal, got 'Mass'", "disagree", ["Mass"], ()),
            ("there may be 100 boxes, got 101", "disagree", (), [box("abnormal", 0, 0, 1, 1)] * 101),
            ("must have a label among abnormal", "disagree", (), [box("Mass", 0, 0, 1, 1)]),
            ("must have a label among abnormal", "disagree", (), ["box"]),
            ("must have x, y, width and height", "disagree", (), [box("abnormal", 0, float("nan"), 1, 1)]),
            ("must have x, y, width and height", "disagree", (), [{"label": "abnormal"}]),
            ("must cover a pixel of the image", "disagree", (), [box("abnormal", 50, 0, 10, 10)]),
        ):
            with self.assertRaisesRegex(ValueError, message):
                self.say(image, verdict, findings=findings, boxes=boxes)
        # where the model said nothing, agreeing would make "no verdict" a label of "normal"
        for nothing in ({"abnormal": None}, {"not_assessed": "all values are 7."}):
            with self.assertRaisesRegex(ValueError, "the model gave no verdict on this image, so nobody can agree"):
                self.say(image, "agree", **nothing)
        self.assertEqual(self.feedback.of_job(1), {})


if __name__ == "__main__":
    unittest.main()
