# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
import subprocess
import unittest
from pathlib import Path

import numpy as np

from bundle.results.dicom.seg import write_binary_seg
from bundle.results.dicom.source import load_source
from tests.results.dicom.test_dicom_results import ALGORITHM, RUN, InFolder, some_result

ROOT = Path(__file__).resolve().parents[3]
ADAPTERS = ROOT / "node_modules" / "@cornerstonejs" / "adapters"
PLACE = {
    "FrameOfReferenceUID": "1.2.3.4",
    "ImagePositionPatient": [0, 0, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "SliceThickness": 1,
}


@unittest.skipUnless(shutil.which("node") and ADAPTERS.is_dir(), "cornerstone's adapters are not here")
class TestCornerstone(InFolder):
    """What dcmjs and the adapters of OHIF make of our segmentation."""

    def loaded(self, **elements) -> subprocess.CompletedProcess:
        path = self.radiograph(**elements)
        self.result = some_result(path)
        seg = self.folder / "seg.dcm"
        write_binary_seg(seg, self.result, load_source(path, 0, ALGORITHM, RUN), 0.5)
        command = ["node", ROOT / "scripts" / "checks" / "load_seg.mjs", path, seg]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    def test_every_voxel_is_in_its_place_under_its_label(self):
        done = self.loaded(**PLACE)
        self.assertEqual(done.returncode, 0, done.stderr[-500:])
        found = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(found["labels"], [[1, "heat above 0.5"]])
        pixels = np.zeros((found["rows"], found["columns"]), dtype=int)
        for column, row, segment in found["set"]:
            pixels[row, column] = segment
        np.testing.assert_array_equal(pixels, self.result.heatmap > 0.5)

    def test_a_projection_without_orientation_is_refused_as_documented(self):
        done = self.loaded()
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("ImageOrientationPatient", done.stderr)
