# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import tempfile
import unittest
from pathlib import Path

import jsonschema
import numpy as np

from bundle.results.records import NOTICE, Algorithm, Box, ImageResult
from bundle.results.tables import (
    SCHEMA_VERSION,
    read_predictions,
    record_of,
    safe_cell,
    write_failures,
    write_metrics,
    write_predictions_csv,
    write_predictions_json,
    write_scores,
)

ROOT = Path(__file__).resolve().parents[2]


def some_results() -> list[ImageResult]:
    return [
        ImageResult(
            key="000000_a",
            source=Path("/data/in/ward/a.dcm"),
            subject="5f3a",
            label=1,
            true_findings=["effusion"],
            probabilities={"effusion": np.float32(0.25), "edema": 0.125},
            finding_probability=0.25,
            operating_points={"effusion": 0.25, "edema": None},
            heatmap_class="effusion",
            abnormal=True,
            heatmap=np.zeros((4, 6), dtype=np.float32),
            boxes=[Box("effusion", 1.0, 2.0, 3.0, 1.0, 0.5)],
        ),
        ImageResult(key="000001_b", source=Path("/data/in/b.png"), anomaly_score=float("nan"), extra={"view": "=PA"}),
        ImageResult("000002_c", Path("c.png"), anomaly_score=1.5, anomaly_score_raw=2.5, p_value=0.01, abnormal=True),
    ]


class TestTables(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "table"
        self.records = [record_of(result, "/data/in") for result in some_results()]

    def rows(self) -> list[dict[str, str]]:
        with self.path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def test_csv(self):
        write_predictions_csv(self.path, self.records)
        first, second, third = self.rows()
        expected = {
            "key": "000000_a",
            "source": "ward/a.dcm",
            "frame": "0",
            "subject": "5f3a",
            "label": "1",
            "anomaly_score": "",
            "finding_probability": "0.25",
            "p_value": "",
            "abnormal": "1",
            "verdict": "abnormal",
            "not_assessed": "",
            "anomaly_score_raw": "",
            "true_findings": "effusion",
            "present_findings": "effusion",
            "heatmap_class": "effusion",
            "display_note": "",
            "seen": "",
            "box_count": "1",
            "probability_effusion": "0.25",
            "probability_edema": "0.125",
            "operating_point_effusion": "0.25",
            "operating_point_edema": "",
            "extra_view": "",
        }
        self.assertEqual(first, expected)
        self.assertEqual((second["anomaly_score"], second["abnormal"], second["extra_view"]), ("", "", "'=PA"))
        numbers = ("anomaly_score", "anomaly_score_raw", "p_value", "finding_probability")
        self.assertEqual([third[name] for name in numbers], ["1.5", "2.5", "0.01", ""])

    def test_verdicts_in_words(self):
        results = [
            ImageResult("a", Path("a"), abnormal=True),
            ImageResult("b", Path("b"), abnormal=False),
            # whatever else was given, an image that is not assessed has no verdict and no box
            ImageResult(
                "c",
                Path("c"),
                anomaly_score=2.0,
                abnormal=True,
                boxes=[Box("mass", 1, 2, 3, 4, 0.5)],
                not_assessed="values must differ, all are 7.",
                display_note="window of width 0 not applied.",
                seen=(8.0, 6.5, 64.0, 48.0),
            ),
            ImageResult("d", Path("d")),
        ]
        records = [record_of(result) for result in results]
        write_predictions_csv(self.path, records)
        rows = self.rows()
        expected = [("1", "abnormal"), ("0", "not flagged"), ("", "not assessed"), ("", "")]
        self.assertEqual([(row["abnormal"], row["verdict"]) for row in rows], expected)
        shown = {name: rows[2][name] for name in ("anomaly_score", "not_assessed", "display_note", "seen", "box_count")}
        self.assertEqual(
            shown,
            {
                "anomaly_score": "2.0",
                "not_assessed": "values must differ, all are 7.",
                "display_note": "window of width 0 not applied.",
                "seen": "8 6.5 64 48",
                "box_count": "0",
            },
        )
        write_predictions_json(self.path, records)
        content = json.loads(self.path.read_text())
        jsonschema.validate(content, json.loads((ROOT / "docs" / "predictions.schema.json").read_text()))
        self.assertEqual(content["images"][2]["seen"], [8.0, 6.5, 64.0, 48.0])

    def test_csv_needs_two_passes(self):
        with self.assertRaisesRegex(ValueError, "gone through twice, got an iterator"):
            write_predictions_csv(self.path, iter(self.records))
        self.assertFalse(self.path.exists())

    def test_json(self):
        algorithm = Algorithm("ADFA", "0.1.0", "ab" * 32, {"k": 3})
        write_predictions_json(
            self.path,
            iter(self.records),
            algorithm,
            1.0,
            {"auroc": 0.9, "auroc_interval": (0.8, 1.0)},
            [("x", "cut off")],
        )
        found = json.loads(self.path.read_text())
        self.assertEqual((found["schema_version"], found["notice"], found["threshold"]), ("3.2", NOTICE, 1.0))
        self.assertEqual(found["algorithm"]["weights_sha256"], "ab" * 32)
        self.assertEqual(found["failures"], [{"file": "x", "reason": "cut off"}])
        first, second, _ = found["images"]
        box = {"label": "effusion", "x": 1.0, "y": 2.0, "width": 3.0, "height": 1.0, "map_height": 0.5, "score": None}
        self.assertEqual((first["boxes"], first["rows"], first["columns"]), ([box], 4, 6))
        self.assertIsNone(second["anomaly_score"])  # JSON has no NaN

    def test_json_follows_its_schema(self):
        schema = json.loads((ROOT / "docs" / "predictions.schema.json").read_text())
        self.assertEqual(schema["properties"]["schema_version"]["const"], SCHEMA_VERSION)
        write_predictions_json(
            self.path, self.records, Algorithm("ADFA", weights_sha256="ab" * 32), failures=[("x", "y")]
        )
        jsonschema.validate(json.loads(self.path.read_text()), schema)

    def test_a_probability_in_the_place_of_an_anomaly_score_breaks_the_schema(self):
        schema = json.loads((ROOT / "docs" / "predictions.schema.json").read_text())
        write_predictions_json(self.path, self.records, metrics={"mean_auroc": 0.5})
        content = json.loads(self.path.read_text())
        for change in (
            {"images": [content["images"][0] | {"anomaly_score": 0.25}]},
            {"images": [content["images"][2] | {"finding_probability": 0.25}]},
            {"metrics": {"mean AUROC": 0.5}},
            {"metrics": {"auroc": [0.5, 0.25, 0.75]}},
            {"metrics": {"classes": {"Mass": {"accuracy at 0.1": 0.5}}}},
        ):
            with self.subTest(change=change), self.assertRaises(jsonschema.ValidationError):
                jsonschema.validate(content | change, schema)

    def test_the_names_of_an_older_version_are_understood(self):
        schema = json.loads((ROOT / "docs" / "predictions.schema.json").read_text())
        write_predictions_json(self.path, self.records)
        content = json.loads(self.path.read_text())
        renamed = ("probabilities", "true_findings", "present_findings", "finding_probability", "heatmap_class")
        for image in content["images"]:
            probabilities, score = image["probabilities"], image["finding_probability"] or image["anomaly_score"]
            for name in (*renamed, "anomaly_score_raw"):
                image.pop(name)
            image |= {"label_scores": probabilities, "anomaly_score": score}
        self.path.write_text(json.dumps(content | {"schema_version": "2.0"}))
        found = read_predictions(self.path)
        jsonschema.validate(found | {"schema_version": SCHEMA_VERSION}, schema)
        scores = [(image["anomaly_score"], image["finding_probability"]) for image in found["images"]]
        self.assertEqual(scores, [(None, 0.25), (None, None), (1.5, None)])

    def test_json_without_images(self):
        write_predictions_json(self.path, [])
        self.assertEqual(json.loads(self.path.read_text())["images"], [])

    def test_scores_failures_metrics(self):
        write_scores(self.path, self.records)
        columns = "key subject label anomaly_score finding_probability p_value abnormal verdict not_assessed"
        self.assertEqual(list(self.rows()[0]), columns.split())
        write_failures(self.path, [("+a.dcm", "@reason")])
        self.assertEqual(self.rows(), [{"file": "'+a.dcm", "reason": "'@reason"}])
        write_metrics(self.path, {"auroc": np.float64(0.5), "auroc_interval": (0.25, float("nan"))})
        self.assertEqual(json.loads(self.path.read_text()), {"auroc": 0.5, "auroc_interval": [0.25, None]})

    def test_safe_cell(self):
        for text in ("=1+1", "+1", "-x", "@x", "\tx", "\rx", "\n=1", " =1"):
            self.assertEqual(safe_cell(text), "'" + text)
        for value in ("normal", "a=b", -1, 0.5):
            self.assertEqual(safe_cell(value), value)
