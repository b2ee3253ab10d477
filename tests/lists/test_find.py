# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import unittest
from pathlib import Path

import numpy as np
import pydicom.data
from PIL import Image
from pydicom.dataset import Dataset

from bundle.lists.find import chosen_frames, find_images
from tests.folders import FolderTestCase
from tests.synthetic_dicom import save_dicom


class TestFindImages(FolderTestCase):
    def test_folder_of_mixed_files(self):
        save_dicom(self.folder / "a.dcm", np.zeros((4, 5), np.uint8), PatientID="4711")
        save_dicom(self.folder / "b.dcm", np.zeros((3, 4, 5), np.uint8))
        save_dicom(self.folder / "c.dcm", np.zeros((4, 5), np.uint8), BitsStored=9, HighBit=8)
        (self.folder / "d.txt").write_text("no image")
        Image.new("L", (3, 2)).save(self.folder / "e.png")
        items, refusals = find_images(self.folder, frames="every 2", secret="key")
        self.assertEqual([item["key"] for item in items], ["000000", "000001_f0000", "000001_f0002", "000003"])
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


class TestOneFilter(FolderTestCase):
    """What find_images leaves out by name; the names are those of the data sets as downloaded and of the systems."""

    def picture(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (3, 2)).save(path, format="png")
        return path

    def names(self, path=None) -> list[str]:
        items, _ = find_images(path or self.folder)
        return [Path(item["image"]).relative_to(self.folder).as_posix() for item in items]

    def test_masks_system_files_and_sidecars_are_no_images(self):
        kept = ["benign/benign (1).png", "im_Parabasal/im_Parabasal/001.bmp", "masked lady.png", "unmask.png"]
        left_out = [
            *("benign/benign (1)_mask.png", "benign/benign (1)_mask_1.png", "masks/x.png", "a mask.png", "MASK-2.png"),
            *(
                "ground_truth/000.png",
                "im_Parabasal/im_Parabasal/CROPPED/001_01.bmp",
                "im_Parabasal/im_Parabasal/1.dat",
            ),
            *(".DS_Store", "._film.png", "Thumbs.db", "desktop.ini", ".hidden/film.png", "__MACOSX/film.png"),
            *("film.json", "film.csv", "notes.txt", "DICOMDIR"),
        ]
        for name in kept + left_out:
            self.picture(name)
        self.assertEqual(self.names(), sorted(kept))
        _, refusals = find_images(self.folder)
        self.assertEqual({r.status for r in refusals}, {"skipped"})
        reasons = {r.source.name: r.reason for r in refusals}
        self.assertIn("a mask by its name; to read it as an image, name the file itself", reasons["a mask.png"])
        self.assertEqual(self.names(self.folder / "a mask.png"), ["a mask.png"])
        self.assertEqual(self.names(self.folder / "masks"), ["masks/x.png"])
        self.assertEqual(self.names(str(self.folder / "benign" / "*.png")), ["benign/benign (1).png"])
        cropped = self.folder / "im_Parabasal" / "im_Parabasal" / "CROPPED"
        self.assertEqual(len(find_images(cropped)[0]), 1)

    def test_results_inside_the_input_are_left_out(self):
        before = [self.picture("a.png"), self.picture("z/000001.png"), self.picture("dicom/000001.png")]
        keys = [item["key"] for item in find_images(self.folder)[0]]
        for name in ("out/overlays/000000.png", "out/dicom/000000_sc.dcm", "out/heatmaps/000000.nii.gz", "out/b.png"):
            self.picture(name)
        (self.folder / "out/failures.csv").write_text("image,reason\n")
        self.assertEqual(len(self.names()), 7)  # without run.json nobody knows whose they are
        (self.folder / "out/run.json").write_text('{"written_by": "attention-imaging-bundle"}')
        items, refusals = find_images(self.folder)
        self.assertEqual([Path(i["image"]) for i in items], sorted([*before, self.folder / "out/b.png"]))
        self.assertEqual((refusals, keys), ([], ["000000", "000001", "000002"]))
        # an output folder that is the input folder: films in a folder named dicom stay, what has a key goes
        (self.folder / "out/run.json").rename(self.folder / "run.json")
        (self.folder / "dicom/film.png").write_bytes(before[0].read_bytes())
        self.assertNotIn("dicom/000001.png", self.names())
        self.assertIn("dicom/film.png", self.names())

    def test_the_state_of_a_run_that_has_just_begun_is_left_out(self):
        self.picture("a.png")
        before = len(find_images(self.folder)[1])
        (self.folder / "unfinished").mkdir()
        for name in ("records", "pictures", "failures"):
            (self.folder / "unfinished" / f"{name}.jsonl").touch()
        self.assertEqual(len(find_images(self.folder)[1]), before)

    def test_pointers_say_what_fetches_the_file(self):
        (self.folder / "a.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        (self.folder / "b.png").write_text("/annex/objects/SHA256E-s9--0.png\n")
        (self.folder / "c.png").symlink_to("../.git/annex/objects/aa/bb/SHA256E-s9--0.png")
        (self.folder / "d.png.dvc").write_text("outs:\n- md5: 0\n")
        _, refusals = find_images(self.folder)
        for refusal, word in zip(refusals, ("git lfs pull", "git annex get", "datalad get", "dvc pull"), strict=True):
            self.assertIn(word, refusal.reason)


class TestChosenFrames(unittest.TestCase):
    def test_choices(self):
        self.assertEqual(chosen_frames(3, "all"), [0, 1, 2])
        self.assertEqual(chosen_frames(3, "first"), [0])
        with self.assertRaisesRegex(ValueError, "frames must be 'all'.*got 'every 0'"):
            chosen_frames(3, "every 0")


if __name__ == "__main__":
    unittest.main()
