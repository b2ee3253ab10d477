# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import tempfile
import unittest
from pathlib import Path

import numpy as np
import pydicom.data
from PIL import Image
from pydicom.dataset import Dataset

from bundle.data.inputs import chosen_frames, find_images
from tests.synthetic_dicom import save_dicom


class TestFindImages(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_folder_of_mixed_files(self):
        save_dicom(self.folder / "a.dcm", np.zeros((4, 5), np.uint8), PatientID="4711")
        save_dicom(self.folder / "b.dcm", np.zeros((3, 4, 5), np.uint8))
        save_dicom(self.folder / "c.dcm", np.zeros((4, 5), np.uint8), BitsStored=9, HighBit=8)
        (self.folder / "d.txt").write_text("no image")
        Image.new("L", (3, 2)).save(self.folder / "e.png")
        items, refusals = find_images(self.folder, frames="every 2", secret="key")
        self.assertEqual([item["key"] for item in items], ["000000", "000001_f0000", "000001_f0002", "000004"])
        self.assertEqual(items[2]["image"], f"{self.folder / 'b.dcm'}#frame=2")
        self.assertEqual(len(items[0]["patient"]), 16)
        self.assertEqual([(r.source.name, r.status) for r in refusals], [("c.dcm", "failed"), ("d.txt", "skipped")])
        self.assertRegex(refusals[0].reason, "c.dcm: BitsAllocated must be .* got 8 and 9")

    def test_pattern_and_single_file(self):
        for name in ("x.png", "y.png", "z.txt"):
            Image.new("L", (3, 2)).save(self.folder / name, format="png")
        self.assertEqual(len(find_images(self.folder / "*.png")[0]), 2)
        self.assertEqual(len(find_images(self.folder / "x.png")[0]), 1)
        with self.assertRaisesRegex(FileNotFoundError, r"must be a file, a folder .* got '.*\*\.nii'"):
            find_images(self.folder / "*.nii")
        (self.folder / "empty").mkdir()
        with self.assertRaisesRegex(FileNotFoundError, "must hold files, the folder '.*empty' holds none"):
            find_images(self.folder / "empty")

    def test_dicomdir_lists_its_files_and_none_outside(self):
        source = Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests"
        self.assertEqual(len(find_images(source / "DICOMDIR")[0]), 31)
        inside = self.folder / "disc"
        inside.mkdir()
        shutil.copy(save_dicom(self.folder / "OUT", np.zeros((4, 5), np.uint8)), inside / "IN")
        records = [Dataset(), Dataset()]
        records[0].ReferencedFileID, records[1].ReferencedFileID = ["..", "OUT"], "IN"
        directory = Dataset()
        directory.DirectoryRecordSequence = records
        directory.save_as(inside / "DICOMDIR", implicit_vr=False, little_endian=True)
        self.assertEqual([Path(item["image"]).name for item in find_images(inside / "DICOMDIR")[0]], ["IN"])


class TestChosenFrames(unittest.TestCase):
    def test_choices(self):
        self.assertEqual(chosen_frames(3, "all"), [0, 1, 2])
        self.assertEqual(chosen_frames(3, "first"), [0])
        with self.assertRaisesRegex(ValueError, "frames must be 'all'.*got 'every 0'"):
            chosen_frames(3, "every 0")


if __name__ == "__main__":
    unittest.main()
