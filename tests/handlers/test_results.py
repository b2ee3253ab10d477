# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import tempfile
import threading
import unittest
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from bundle.handlers import CalibrationWriter, ResultsHandler
from bundle.handlers.results import image_result


def _item(name: str = "a.png", score: float = 1.0, label: int = 0, **more) -> dict:
    image = MetaTensor(torch.zeros(3, 4, 4), meta={"filename_or_obj": f"/data/{name}"})
    heat = torch.full((1, 4, 4), score)
    return {"image": image, "key": Path(name).stem, "label": label, "anomaly_score": score, "heatmap": heat, **more}


class _Writer:
    def __init__(self):
        self.added, self.failed, self.metrics, self.commits = [], [], None, []
        self.progress = SimpleNamespace(done=0, records=[], commit=self.commits.append)

    def add(self, result):
        self.progress.records.append(result.key)
        self.added.append((result.key, result.anomaly_score, result.heatmap.shape, result.image))

    def fail(self, source, reason):
        self.failed.append((Path(source).name, reason))

    def close(self, metrics, figures):
        self.metrics = metrics


def _evaluate(handler, batches: list[list[dict]]) -> Engine:
    """Run an engine whose output is what post-processing leaves: lists of items."""

    def step(engine, batch):
        engine.state.batch = batch
        return batch

    engine = Engine(step)
    handler.attach(engine)
    engine.run(batches)
    return engine


class TestImageResult(unittest.TestCase):
    def test_takes_what_is_there(self):
        item = _item("x.y.png", 2.0, torch.tensor(1), p_value=0.1, abnormal=True, anomaly_score_raw=torch.tensor(3.0))
        result = image_result(item)
        self.assertEqual((result.key, result.source, result.frame), ("x.y", Path("/data/x.y.png"), 0))
        self.assertEqual((result.label, result.anomaly_score, result.p_value, result.abnormal), (1, 2.0, 0.1, True))
        self.assertEqual(result.extra, {"anomaly_score_raw": 3.0})
        self.assertEqual((result.heatmap.shape, result.heatmap.dtype), ((4, 4), np.float32))

    def test_an_item_with_nothing_but_an_image(self):
        result = image_result({"image": _item()["image"]})
        self.assertEqual((result.key, result.label, result.anomaly_score, result.heatmap), ("a", None, None, None))


class TestResultsHandler(unittest.TestCase):
    def test_figures_that_cannot_be_made_cost_no_table(self):
        def summarize(results):
            raise ValueError("no bound")

        writer = _Writer()
        with self.assertRaisesRegex(ValueError, "no bound"):
            _evaluate(ResultsHandler(writer, summarize=summarize), [[_item("a.png", 1.0)]])
        self.assertEqual((len(writer.added), writer.metrics), (1, {}))

    def test_hands_over_results_failures_and_figures(self):
        writer = _Writer()
        loader = SimpleNamespace(failures=[("/data/cut.png#frame=3", "is cut off")], seen=4)
        refusals = [SimpleNamespace(source=Path("/data/notes.txt"), reason="is no image")]
        handler = ResultsHandler(
            writer, loader=loader, refusals=refusals, summarize=lambda results: {"images": len(results)}
        )
        _evaluate(handler, [[_item("a.png"), _item("b.png", 2.0)], [_item("c.png", 3.0)]])
        self.assertEqual([(key, score) for key, score, *_ in writer.added], [("a", 1), ("b", 2), ("c", 3)])
        self.assertEqual(writer.added[0][2], (4, 4))
        self.assertEqual(writer.failed, [("cut.png", "frame 3: is cut off"), ("notes.txt", "is no image")])
        self.assertEqual(writer.metrics, {"images": 3})
        self.assertTrue(all(result.heatmap is None for result in handler.results))  # memory stays flat

    def test_pictures_come_from_the_loader(self):
        writer, pictures = _Writer(), [np.zeros((4, 5), np.uint8), None]
        loader = SimpleNamespace(failures=[], seen=2, pictures=pictures)
        _evaluate(ResultsHandler(writer, loader), [[_item("a.png"), _item("b.png")]])
        self.assertIs(writer.added[0][3], pictures[0])
        self.assertIsNone(writer.added[1][3])

    def test_batches_are_written_in_order_beside_the_next_and_errors_end_the_run(self):
        second_begun = threading.Event()

        class Slow(_Writer):
            def add(self, result):
                second_begun.wait(20)
                if result.key == "d":
                    raise OSError("the disk is full")
                super().add(result)

        writer, loader = Slow(), SimpleNamespace(failures=[], seen=1)
        names, computed = "abcdef", []

        def step(engine, name):
            computed.append((name, len(writer.added)))
            if name == "b":
                second_begun.set()
            loader.seen = len(computed)
            engine.state.batch = [_item(f"{name}.png")]
            return engine.state.batch

        engine = Engine(step)
        engine.logger.setLevel("CRITICAL")
        ResultsHandler(writer, loader).attach(engine)
        with self.assertRaisesRegex(OSError, "the disk is full"):
            engine.run(list(names))
        self.assertEqual([key for key, *_ in writer.added], ["a", "b", "c"])
        self.assertEqual(writer.commits, [1, 2, 3])  # what was not written is not marked as done
        self.assertIsNone(writer.metrics)  # not closed, so that the run can be resumed
        self.assertEqual(computed[1], ("b", 0))  # computed while the first was being written
        self.assertLessEqual(len(computed), 5)

    def test_nothing_readable_is_an_error_after_the_files_are_written(self):
        writer, loader = _Writer(), SimpleNamespace(failures=[("a", "is empty"), ("b", "is cut off")])
        with self.assertRaisesRegex(ValueError, "none of 2 images can be read, first: is empty"):
            ResultsHandler(writer, loader=loader).finish(Engine(lambda *_: None))
        self.assertEqual((len(writer.failed), writer.metrics), (2, {}))


class TestCalibrationWriter(unittest.TestCase):
    def test_only_normals_calibrate(self):
        with tempfile.TemporaryDirectory() as folder:
            path, weights = Path(folder) / "calibration.json", Path(folder) / "model.pt"
            weights.write_bytes(b"")
            items = [[_item(score=1.0), _item(score=9.0, label=1)], [_item(score=3.0), _item(score=2.0)]]
            writer = CalibrationWriter(path, weights, 0.5)
            _evaluate(writer, items)
            content = json.loads(path.read_text())
        self.assertEqual((content["scores"], content["threshold"], content["heat_low"]), ([1, 2, 3], 2, 2))


if __name__ == "__main__":
    unittest.main()
