# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import unittest
from unittest import mock

import torch

from bundle.lists import read_boxes
from bundle.lists.known_sets.vindr_boxes import fused_boxes, is_vindr_boxes
from tests.folders import FolderTestCase

INSTALLED = importlib.util.find_spec("ensemble_boxes") is not None
TABLE = """image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max
a,Cardiomegaly,3,R1,0,0,100,100
a,Cardiomegaly,3,R2,10,0,110,100
a,Nodule/Mass,8,R2,300,300,320,330
a,No finding,14,R3,,,,
b,No finding,14,R1,,,,
"""


class TestVinDrBoxes(FolderTestCase):
    @unittest.skipUnless(INSTALLED, "ensemble-boxes is not installed (extra 'vindr')")
    def test_what_two_readers_agree_on_is_one_box(self):
        path = self.root / "train.csv"
        path.write_text(TABLE)
        boxes = read_boxes(path)
        # intersection over union 90 / 110; the mean of both. One reader's nodule is none
        self.assertEqual(list(boxes), ["a.dicom"])
        self.assertEqual(list(boxes["a.dicom"]), ["Cardiomegaly"])
        torch.testing.assert_close(boxes["a.dicom"]["Cardiomegaly"], torch.tensor([[5.0, 0.0, 105.0, 100.0]]))

    @unittest.skipUnless(INSTALLED, "ensemble-boxes is not installed (extra 'vindr')")
    def test_by_hand(self):
        one, other, far = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 6.0], [50.0, 50.0, 60.0, 60.0]
        self.assertEqual(fused_boxes([[one], [other], [far]]), [[0.0, 0.0, 10.0, 8.0]])
        self.assertEqual(fused_boxes([[one], [other], [far]], 1), [[0.0, 0.0, 10.0, 8.0], far])
        self.assertEqual(fused_boxes([[one], [other], [far]], 3), [])
        self.assertEqual(fused_boxes([[one], [other], []], 2, overlap=0.7), [])  # they share 60 of 100 pixels
        self.assertEqual(fused_boxes([[], [], []]), [])

    def test_refused(self):
        path = self.root / "train.csv"
        path.write_text(TABLE.replace("0,0,100,100", "100,0,0,100"))
        self.assertTrue(is_vindr_boxes(path))
        with self.assertRaisesRegex(ValueError, "train.csv row 2: edges must be x_min < x_max"):
            read_boxes(path)
        path.write_text(TABLE.replace("Cardiomegaly", "Heart"))
        with self.assertRaisesRegex(ValueError, "train.csv row 2: class must be one of VinDr's"):
            read_boxes(path)
        path.write_text(TABLE)
        with (
            mock.patch("bundle.lists.known_sets.vindr_boxes.optional_import", return_value=(None, False)),
            self.assertRaisesRegex(ValueError, r"need ensemble-boxes: pip install"),
        ):
            read_boxes(path)


if __name__ == "__main__":
    unittest.main()
