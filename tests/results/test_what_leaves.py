# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What the inference workflow writes, from a file to its objects; the networks are untrained."""

from __future__ import annotations

import csv
import json
import tempfile
import unittest
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import torch

from bundle.anomaly.calibration import write_calibration
from bundle.model.save import save_start
from tests.service.helpers import image_file, small_adfa
from tests.workflows import START, run_workflow, workflow_of, write_start

FORMATS = ["csv", "json", "nifti", "overlay", "report", "sr", "seg", "heat", "sc"]


class TestWhatLeaves(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        small_adfa(cls.root / "adfa")  # 32 x 32
        cls.input = cls.root / "in"
        image_file(cls.input, 0)  # 48 rows, 40 columns

    def run_adfa(self, name: str, **settings) -> Path:
        usual = {"input": self.input, "model_dir": self.root / "adfa", "formats": FORMATS, "device": "cpu"}
        run_workflow("adfa_inference", output_dir=self.root / name, **{**usual, **settings})
        return self.root / name

    def test_what_was_cut_off_is_marked_everywhere(self):
        folder = self.root / "crop"
        write_start(folder, "adfa", image_size=[32, 32], resize=[36, 36], keep_aspect=False, weights=None)
        out = self.run_adfa("cropped", model_dir=folder)
        (image,) = json.loads((out / "predictions.json").read_text())["images"]
        # by hand: 2 of 36 are cut off at each side, of 40 columns and 48 rows
        np.testing.assert_allclose(image["seen"], [40 / 18, 48 / 18, 40 * 16 / 18, 48 * 16 / 18], atol=1e-4)
        heat = nibabel.load(out / image["files"]["nifti"]).get_fdata()
        # centers of pixels from 2.22 to 37.78 of columns, 2.67 to 45.33 of rows
        expected = np.zeros((48, 40), bool)
        expected[3:45, 2:38] = True
        np.testing.assert_array_equal(np.isfinite(heat), expected)
        words = "Not looked at: what lies outside of columns 2.2 to 37.8 and rows 2.7 to 45.3."
        self.assertIn(words, (out / "report.html").read_text())
        for kind in ("sr", "heat", "sc"):  # no mask without a threshold
            told = pydicom.dcmread(out / image["files"][kind]).iterall()
            self.assertTrue([element for element in told if words in str(element.value)], kind)

    def test_an_image_that_is_seen_as_a_whole_is_not_marked(self):
        out = self.run_adfa("whole")
        (image,) = json.loads((out / "predictions.json").read_text())["images"]
        self.assertIsNone(image["seen"])
        self.assertTrue(np.isfinite(nibabel.load(out / image["files"]["nifti"]).get_fdata()).all())

    def test_a_fixed_time_writes_the_same_bytes_and_each_other_run_its_own(self):
        def run(name: str, **settings) -> dict[str, bytes]:
            out = self.run_adfa(name, **settings)
            return {str(f.relative_to(out)): f.read_bytes() for f in sorted(out.rglob("*")) if f.is_file()}

        fixed = {"fixed_time": "2026-03-04T05:06:07+00:00", "secret": "key"}
        one = run("one", **fixed)
        self.assertEqual(len([name for name in one if name.endswith(".dcm")]), 4)
        self.assertEqual(run("two", **fixed), one)
        # each of them changes the score, the map or both
        others = [{"top_fraction": 0}, {"smoothing": 12}, {"keep_aspect": True}, {"resize": [40, 40]}, {}]
        others = [{"override_model": bool(settings), **settings} for settings in others]
        runs = [one, *(run(f"other_{n}", secret="key", **settings) for n, settings in enumerate(others))]
        uids = [{str(pydicom.dcmread(BytesIO(c)).SOPInstanceUID) for n, c in r.items() if ".dcm" in n} for r in runs]
        self.assertEqual(len(set.union(*uids)), sum(map(len, uids)))

    def test_a_network_of_nan_has_no_verdict(self):
        folder = self.root / "broken"

        settings = {"dataset_dir": "", "output_dir": folder, "image_size": [32, 32], "weights": None}
        parser = workflow_of(START["adfa"], **settings).parser
        network = parser.get_parsed_content("network_def")
        for parameter in network.parameters():
            parameter.data.fill_(torch.nan)
        weights = save_start(parser, folder, network)
        write_calibration(folder / "calibration.json", weights, [0.1 * i for i in range(20)], 0.5, 0.1)
        save_start(parser, folder, network)  # once more, with the calibration
        with self.assertRaises(RuntimeError) as raised:  # MONAI's, of ours
            self.run_adfa("of_nan", model_dir=folder)
        self.assertRegex(str(raised.exception.__cause__), "none of 1 images has a result, first: .* must be finite")
        with (self.root / "of_nan" / "predictions.csv").open() as file:
            self.assertEqual(list(csv.DictReader(file)), [])
        self.assertIn("must be finite", (self.root / "of_nan" / "failures.csv").read_text())
        self.assertEqual(list((self.root / "of_nan").glob("dicom/*")), [])


if __name__ == "__main__":
    unittest.main()
