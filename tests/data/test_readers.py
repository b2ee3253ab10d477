# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import numpy as np
from monai.transforms import LoadImage
from PIL import Image
from pydicom.data import get_testdata_file

from bundle.data.errors import SkippedFileError
from bundle.data.readers import RadiologyReader


def load(path, **options):
    return LoadImage(reader=RadiologyReader(**options), image_only=True, ensure_channel_first=True)(path)


class TestRadiologyReader(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_picture_is_rows_first_and_scaled(self):
        Image.fromarray(np.array([[0, 51, 255]], dtype=np.uint8)).save(self.folder / "wide.png")
        image = load(self.folder / "wide.png")
        np.testing.assert_allclose(image.numpy(), [[[0, 0.2, 1]]], atol=1e-6)
        self.assertEqual(image.meta["num_frames"], 1)

    def test_frames_of_a_color_loop(self):
        path = get_testdata_file("examples_ybr_color.dcm", download=False)
        self.assertEqual(tuple(load(path).shape), (3, 240, 320))
        last = load(f"{path}#frame=29")
        self.assertEqual((last.meta["frame"], last.meta["num_frames"]), (29, 30))
        self.assertEqual(tuple(load(path, channels=1).shape), (1, 240, 320))

    def test_not_an_image_is_skipped_with_a_reason(self):
        (self.folder / "notes.txt").write_text("hello")
        with self.assertRaisesRegex(SkippedFileError, "notes.txt: this is no DICOM"):
            load(self.folder / "notes.txt")
        with self.assertRaisesRegex(SkippedFileError, "RT Dose is not an image"):
            load(get_testdata_file("rtdose.dcm", download=False))


if __name__ == "__main__":
    unittest.main()
