# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import tempfile
import threading
import time
import unittest
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from ignite.engine import Engine
from monai.data import Dataset, MetaTensor
from monai.transforms import CenterSpatialCropd, Compose, Flipd, Invertd, LoadImaged, SpatialCropd
from PIL import Image

from bundle.anomaly import AnomalyVerdictd, CalibrationWriter
from bundle.preprocessing import ResizeAndPadd
from bundle.preprocessing.picture import Picture
from bundle.reading import ReadableDataLoader
from bundle.reading.reader import RadiologyReader
from bundle.results import ResultsHandler, ResultsWriter
from bundle.results.handler import image_result


def _item(name: str = "a.png", score: float = 1.0, label: int = 0, **more) -> dict:
    image = MetaTensor(torch.zeros(3, 4, 4), meta={"filename_or_obj": f"/data/{name}"})
    heat = torch.full((1, 4, 4), score)
    return {"image": image, "key": Path(name).stem, "label": label, "anomaly_score": score, "heatmap": heat, **more}


class _Writer:
    def __init__(self):
        self.added, self.failures, self.metrics, self.commits = [], [], None, []
        self.progress = SimpleNamespace(done=0, records=[], commit=self.commits.append)

    def add(self, result):
        self.progress.records.append(result.key)
        self.added.append((result.key, result.anomaly_score, result.heatmap.shape, result.image))
        return True

    def fail(self, source, reason):
        self.failures.append((Path(source).name, reason))

    def close(self, metrics, charts):
        self.metrics = metrics


def _loader(*failures: tuple[str, str], total: int = 6) -> ReadableDataLoader:
    """Return a loader of so many items that has left some out."""
    loader = ReadableDataLoader(Dataset([{"image": "a.png"}] * total))
    loader.failures += failures
    return loader


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
        self.assertEqual(result.anomaly_score_raw, 3.0)
        self.assertEqual((result.heatmap.shape, result.heatmap.dtype), ((4, 4), np.float32))

    def test_an_item_with_nothing_but_an_image(self):
        result = image_result({"image": _item()["image"]})
        self.assertEqual((result.key, result.label, result.anomaly_score, result.heatmap), ("a", None, None, None))

    def test_takes_what_qualifies_the_verdict(self):
        item = _item(abnormal=True, not_assessed="values must differ, all are 7.", operating_points={"mass": 0.5})
        item["boxes"] = [{"label": "mass", "x": 0, "y": 0, "width": 2, "height": 2, "map_height": 0.5}]
        item["probabilities"] = {"mass": 0.75}
        item["image"].meta["display_note"] = "window of width 0 not applied."
        result = image_result(item)
        self.assertEqual((result.verdict, result.abnormal, result.boxes), ("not assessed", None, []))
        self.assertEqual(result.not_assessed, "values must differ, all are 7.")
        self.assertIsNone(result.present_findings)
        self.assertEqual(
            (result.operating_points, result.display_note), ({"mass": 0.5}, item["image"].meta["display_note"])
        )
        self.assertIsNone(image_result(_item(not_assessed=None)).not_assessed)


class TestWhatWasSeen(unittest.TestCase):
    """The part of the file that the network looked at, worked out by hand from the transforms."""

    def item(self, shape: tuple[int, int], *transforms) -> dict:
        with tempfile.TemporaryDirectory() as folder:
            Image.fromarray(np.full(shape, 9, np.uint8)).save(Path(folder) / "a.png")
            load = LoadImaged("image", reader=RadiologyReader(channels=1), ensure_channel_first=True)
            preprocessing = Compose([load, *transforms])
            item = preprocessing({"image": str(Path(folder) / "a.png")})
        heat = MetaTensor(
            torch.ones_like(item["image"]).as_tensor(),
            meta=item["image"].meta,
            applied_operations=item["image"].applied_operations,
        )
        back = Invertd("heatmap", preprocessing, orig_keys="image", nearest_interp=False)
        return back({"image": item["image"], "heatmap": heat})

    def test_a_center_crop(self):
        # 512 x 256 becomes 256 x 256, of which 224 x 224 are cut out: 16 of 256 are lost at each side
        item = self.item(
            (512, 256), ResizeAndPadd("image", (256, 256), keep_aspect=False), CenterSpatialCropd("image", (224, 224))
        )
        result = image_result(item)
        np.testing.assert_allclose(result.seen, (16, 32, 224, 448))
        self.assertEqual(result.heatmap.shape, (512, 256))
        expected = np.zeros((512, 256), bool)
        expected[32:480, 16:240] = True
        np.testing.assert_array_equal(np.isfinite(result.heatmap), expected)

    def test_whole_images(self):
        for keep_aspect in (False, True):  # bars beside the image are no part of it
            item = self.item((50, 90), ResizeAndPadd("image", (64, 64), keep_aspect=keep_aspect))
            result = image_result(item)
            self.assertIsNone(result.seen)
            self.assertTrue(np.isfinite(result.heatmap).all())

    def test_a_crop_of_bars_alone(self):
        # 64 x 128 fits 128 x 128 with bars of 32 above and below; cutting out 64 x 128 takes nothing but them
        crop = CenterSpatialCropd("image", (64, 128))
        self.assertIsNone(
            image_result(self.item((64, 128), ResizeAndPadd("image", (128, 128), keep_aspect=True), crop)).seen
        )

    def test_turned(self):
        # the right half of the file: flipped, it is the left half of the input
        item = self.item((40, 60), Flipd("image", 1), SpatialCropd("image", roi_start=(0, 0), roi_end=(40, 30)))
        self.assertEqual(image_result(item).seen, (30, 0, 30, 40))

    def test_further_maps(self):
        item = self.item((40, 60), SpatialCropd("image", roi_start=(10, 0), roi_end=(40, 60)))
        item["extra_maps"] = {"step_1": np.zeros((40, 60), np.float32)}
        (heat,) = image_result(item).extra_maps.values()
        self.assertEqual(np.isnan(heat).sum(), 10 * 60)


class TestResultsHandler(unittest.TestCase):
    def test_a_number_that_is_not_finite_fails_its_image(self):
        """With a threshold, not-a-number compares as false: the image would pass as not flagged."""
        nan, verdict = float("nan"), AnomalyVerdictd(calibration={"scores": [1.0, 2.0], "threshold": 1.5})
        items = [_item(f"{n}.png", score) for n, score in enumerate((1.0, nan, float("inf"), 2.0))]
        items = [verdict({**item, "heatmap": torch.zeros(1, 4, 4)}) for item in items]
        items.append(_item("4.png", probabilities={"mass": nan}, abnormal=False))
        items.append({**_item("5.png", abnormal=False), "heatmap": torch.full((1, 4, 4), nan)})
        with tempfile.TemporaryDirectory() as folder:
            writer = ResultsWriter(folder, ("csv", "json"), threshold=1.5)
            counted = []
            _evaluate(ResultsHandler(writer, summarize=lambda results: counted.extend(results) or {}), [items])
            images = json.loads((Path(folder) / "predictions.json").read_text())["images"]
            failures = (Path(folder) / "failures.csv").read_text().splitlines()[1:]
        self.assertEqual([(i["key"], i["verdict"]) for i in images], [("0", "not flagged"), ("3", "abnormal")])
        self.assertEqual([line.split(",")[0] for line in failures], ["1.png", "2.png", "4.png", "5.png"])
        self.assertEqual([result.key for result in counted], ["0", "3"])  # nor is it averaged over

    def test_metrics_say_how_many_images_have_no_verdict(self):
        for rule, expected in ((None, {"images": 2}), ("all values are 7.", {"images": 2, "images_not_assessed": 1})):
            writer = _Writer()
            handler = ResultsHandler(writer, summarize=lambda results: {"images": len(results)})
            _evaluate(handler, [[_item("a.png", label=1), _item("b.png", not_assessed=rule)]])
            self.assertEqual(writer.metrics, expected)

    def test_remarks_on_all_rows_stand_in_log_and_report(self):
        with tempfile.TemporaryDirectory() as folder:
            handler = ResultsHandler(
                ResultsWriter(folder, ("csv", "report")),
                remarks=lambda rows: [f"scores {[row['anomaly_score'] for row in rows]} are <high>"],
            )
            with self.assertLogs("bundle.results.handler", "WARNING") as log:
                _evaluate(handler, [[_item("a.png", 1.0)], [_item("b.png", 2.0)]])
            report = (Path(folder) / "report.html").read_text()
        self.assertIn("scores [1.0, 2.0] are <high>", log.output[0])
        self.assertIn("scores [1.0, 2.0] are &lt;high&gt;", report)

    def test_says_how_far_it_is(self):
        writer, begun = _Writer(), threading.Event()

        loader = _loader(total=8)
        with self.assertLogs("bundle.results.pulse", "INFO") as log:
            handler = ResultsHandler(writer, loader, log_seconds=0.05)

            def step(engine, name):
                begun.wait(0.2)
                engine.state.batch = [_item(f"{name}.png")]
                return engine.state.batch

            engine = Engine(step)
            handler.attach(engine)
            engine.run(list("abcd"))
        self.assertGreater(len(log.records), 4)
        self.assertRegex(log.records[-1].getMessage(), "^[34] of 8 images done, .* a second, .* left$")

    def test_is_silent_after_an_error(self):
        def step(engine, name):
            raise RuntimeError("gone")

        engine = Engine(step)
        engine.logger.setLevel("CRITICAL")
        ResultsHandler(_Writer(), log_seconds=0.05).attach(engine)
        with self.assertRaisesRegex(RuntimeError, "gone"):
            engine.run([1])
        with self.assertNoLogs("bundle.results.pulse", "INFO"):
            time.sleep(0.2)

    def test_metrics_that_cannot_be_made_cost_no_table(self):
        def summarize(results):
            raise ValueError("no bound")

        writer = _Writer()
        with self.assertRaisesRegex(ValueError, "no bound"):
            _evaluate(ResultsHandler(writer, summarize=summarize), [[_item("a.png", 1.0)]])
        self.assertEqual((len(writer.added), writer.metrics), (1, None))

    def test_hands_over_results_failures_and_metrics(self):
        writer = _Writer()
        loader = _loader(("/data/cut.png#frame=3", "is cut off"))
        refusals = [SimpleNamespace(source=Path("/data/notes.txt"), reason="is no image")]
        handler = ResultsHandler(
            writer, loader=loader, refusals=refusals, summarize=lambda results: {"images": len(results)}
        )
        _evaluate(handler, [[_item("a.png"), _item("b.png", 2.0)], [_item("c.png", 3.0)]])
        self.assertEqual([(key, score) for key, score, *_ in writer.added], [("a", 1), ("b", 2), ("c", 3)])
        self.assertEqual(writer.added[0][2], (4, 4))
        self.assertEqual(writer.failures, [("cut.png", "frame 3: is cut off"), ("notes.txt", "is no image")])
        self.assertEqual(writer.commits, [3, 4])  # two images and the one that was left out, then the third
        self.assertEqual(writer.metrics, {"images": 3})
        self.assertTrue(all(result.heatmap is None for result in handler.results))  # memory stays flat

    def test_pictures_come_with_their_items(self):
        writer, picture = _Writer(), np.arange(20, dtype=np.uint8).reshape(4, 5)
        _evaluate(ResultsHandler(writer), [[_item("a.png", picture=Picture.of(picture)), _item("b.png")]])
        np.testing.assert_array_equal(writer.added[0][3], picture)
        self.assertIsNone(writer.added[1][3])
        self.assertEqual(writer.commits, [])  # without a loader nobody knows what was left out

    def test_batches_are_written_in_order_beside_the_next_and_errors_end_the_run(self):
        second_begun = threading.Event()

        class Slow(_Writer):
            def add(self, result):
                second_begun.wait(20)
                if result.key == "d":
                    raise OSError("the disk is full")
                super().add(result)

        writer, loader = Slow(), _loader()
        names, computed = "abcdef", []

        def step(engine, name):
            computed.append((name, len(writer.added)))
            if name == "b":
                second_begun.set()
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
        writer, loader = _Writer(), _loader(("a", "is empty"), ("b", "is cut off"))
        with self.assertRaisesRegex(ValueError, "none of 2 images has a result, first: is empty"):
            ResultsHandler(writer, loader=loader).finish(Engine(lambda *_: None))
        self.assertEqual((len(writer.failures), writer.metrics), (2, None))


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
