# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import tempfile
import unittest
import warnings
from pathlib import Path

import itk
import nibabel
import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import LoadImage, LoadImaged
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.datadict import DicomDictionary, keyword_for_tag

from bundle.reading.errors import SkippedFileError, UnreadableImageError
from bundle.reading.formats import file_format, split_frame
from bundle.reading.limits import Limits
from bundle.reading.reader import RadiologyReader, planar_affine
from tests.folders import FolderTestCase
from tests.synthetic_dicom import save_dicom

TEXT = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}
NEEDED = {"PhotometricInterpretation", "Modality", "VOILUTFunction", "PresentationLUTShape"}


def load(path, **options):
    return LoadImage(reader=RadiologyReader(**options), image_only=True, ensure_channel_first=True)(path)


class TestRadiologyReader(FolderTestCase):
    def test_every_format_is_upright_and_rows_first(self):
        picture = np.zeros((20, 30), dtype=np.uint8)
        picture[2:5, 3:9] = 255  # a mark at the upper left, wider than high
        Image.fromarray(picture).save(self.folder / "film.png")
        Image.fromarray(picture).save(self.folder / "film.tif")
        save_dicom(self.folder / "film.dcm", picture, PixelSpacing=[0.5, 0.25])
        affine = planar_affine(np.array([0.5, 0.25]))
        nibabel.Nifti1Image(picture[..., None], affine).to_filename(self.folder / "film.nii.gz")
        volume = itk.image_from_array(picture)
        volume.SetSpacing([0.25, 0.5])  # x, y
        for suffix in (".mha", ".nrrd"):
            itk.imwrite(volume, self.folder / f"film{suffix}")
        for path in sorted(self.folder.iterdir()):
            with self.subTest(path.name):
                image = load(path)
                np.testing.assert_array_equal(image[0].numpy(), picture / 255)
                if path.suffix not in (".png", ".tif"):
                    np.testing.assert_allclose(image.meta["spacing"], [0.5, 0.25])
                    torch.testing.assert_close(image.affine, torch.as_tensor(affine))

    def test_slices_of_a_volume_are_frames(self):
        volume = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
        nibabel.Nifti1Image(volume, np.eye(4)).to_filename(self.folder / "volume.nii.gz")
        image = load(f"{self.folder / 'volume.nii.gz'}#frame=2")
        # RAS: x grows to the patient's right, shown at the left; y grows to anterior, shown at the top
        np.testing.assert_allclose(image[0].numpy() * 255, volume[::-1, ::-1, 2].T, atol=1e-4)
        self.assertEqual(image.meta["num_frames"], 3)

    def test_a_header_cannot_point_at_another_file(self):
        volume = itk.image_from_array(np.zeros((4, 5), np.uint8))
        for name in ("film.mha", "film.nrrd"):
            itk.imwrite(volume, self.folder / name)
        mha = (self.folder / "film.mha").read_bytes().replace(b"= LOCAL", b"= other.raw")
        nrrd = (self.folder / "film.nrrd").read_bytes().replace(b"\n\n", b"\ndata file: other.raw\n\n", 1)
        for name, content in (("film.mha", mha), ("film.nrrd", nrrd)):
            (self.folder / name).write_bytes(content)
            with self.assertRaisesRegex(UnreadableImageError, f"^{name}: the data must be attached"):
                load(self.folder / name)

    def test_one_file_at_a_time(self):
        with self.assertRaisesRegex(ValueError, "one file must be read at a time, got 2"):
            RadiologyReader().get_data(["a.dcm", "b.dcm"])

    def test_pictures_of_every_mode(self):
        color = Image.new("RGBA", (3, 2), (255, 0, 51, 9))
        for name, picture, expected in (
            ("alpha.png", color, [1, 0, 0.2]),
            ("palette.png", color.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE), [1, 0, 0.2]),
            ("bilevel.png", Image.new("1", (3, 2), 1), [1]),
            ("sixteen.png", Image.fromarray(np.full((2, 3), 13107, np.uint16)), [0.2]),
        ):
            picture.save(self.folder / name)
            image = load(self.folder / name)
            torch.testing.assert_close(image[:, 0, 0].as_tensor(), torch.tensor(expected, dtype=torch.float32))

    def test_either_byte_order_keeps_the_full_range(self):
        pixels = np.array([[0, 13107, 26214]], np.uint16)
        for order, mark in (("<", b"II"), (">", b"MM")):
            swapped = pixels.astype(f"{order}u2")
            Image.fromarray(swapped).save(self.folder / "film.tif")
            self.assertTrue((self.folder / "film.tif").read_bytes().startswith(mark))
            affine, header = planar_affine(np.ones(2)), nibabel.Nifti1Header(endianness=order)
            header.set_data_dtype(swapped.dtype)
            nibabel.Nifti1Image(swapped[..., None], affine, header).to_filename(self.folder / "film.nii")
            for name in ("film.tif", "film.nii"):
                with self.subTest(name, order=order):
                    np.testing.assert_allclose(load(self.folder / name)[0].numpy(), [[0, 0.2, 0.4]], rtol=1e-6)

    def test_each_page_is_held_against_the_limit(self):
        pages = [Image.new("L", (10, 10)), Image.new("L", (40, 40), 51)]
        pages[0].save(self.folder / "scan.tif", save_all=True, append_images=pages[1:])
        limits = Limits(frame=1000, file=1000)
        self.assertEqual(load(self.folder / "scan.tif", limits=limits).shape, (1, 10, 10))
        self.assertEqual(load(f"{self.folder / 'scan.tif'}#frame=1", limits=Limits(frame=1600)).shape, (1, 40, 40))
        with self.assertRaisesRegex(UnreadableImageError, "a frame must hold at most 1000 bytes"):
            load(f"{self.folder / 'scan.tif'}#frame=1", limits=limits)

    def test_white_is_zero_at_every_depth(self):
        # Pillow's writer turns the stored values of 8 bits for this tag, so that they show as they were, and no others
        for dtype, white, shown in ((np.uint8, 255, [0, 1]), (np.uint16, 65535, [1, 0]), (np.float32, 1, [1, 0])):
            with self.subTest(dtype.__name__):
                Image.fromarray(np.array([[0, white]], dtype)).save(self.folder / "film.tif", tiffinfo={262: 0})
                np.testing.assert_array_equal(load(self.folder / "film.tif")[0, 0].numpy(), shown)

    def test_exif_orientation_is_applied(self):
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera lay on its side
        Image.new("L", (30, 20)).save(self.folder / "turned.jpg", exif=exif)
        self.assertEqual(tuple(load(self.folder / "turned.jpg").shape), (1, 30, 20))

    def test_frames_of_a_color_loop(self):
        path = get_testdata_file("examples_ybr_color.dcm", download=False)
        frames = [load(f"{path}#frame={i}") for i in range(30)]
        self.assertEqual({tuple(frame.shape) for frame in frames}, {(3, 240, 320)})
        self.assertEqual([frame.meta["frame"] for frame in frames], list(range(30)))
        self.assertFalse(torch.equal(frames[0][0], frames[0][2]))  # color, not gray in three channels
        gray = load(path, channels=1)
        red, green, blue = load(path)
        torch.testing.assert_close(gray[0], 0.299 * red + 0.587 * green + 0.114 * blue)
        with self.assertRaisesRegex(UnreadableImageError, r"frame must be in \[0, 29\], got 30"):
            load(f"{path}#frame=30")

    def test_refusals_do_not_fall_back_to_other_readers(self):
        (self.folder / "notes.txt").write_text("hello")
        with self.assertRaisesRegex(SkippedFileError, "^notes.txt: this is no DICOM"):
            load(self.folder / "notes.txt")
        path = get_testdata_file("MR_truncated.dcm", download=False)
        with self.assertRaisesRegex(UnreadableImageError, "^MR_truncated.dcm: PixelData must hold 8192 bytes"):
            load(path)
        with self.assertRaisesRegex(UnreadableImageError, "^none.dcm: the file must exist"):
            load(self.folder / "none.dcm")
        broken = self.folder / "broken.png"
        broken.write_bytes(b"\x89PNG\r\n\x1a\n but no more")
        with self.assertRaisesRegex(UnreadableImageError, "^broken.png: the file must be whole, .* Unidentified"):
            load(broken)

    def test_batches_collate_across_formats(self):
        Image.new("L", (3, 2)).save(self.folder / "a.png")
        save_dicom(self.folder / "b.dcm", np.zeros((2, 3), np.uint8), PatientID="4711", ViewPosition="PA")
        items = [{"image": str(path)} for path in sorted(self.folder.iterdir())]
        reader = LoadImaged("image", reader=RadiologyReader(secret="key"), image_only=True, ensure_channel_first=True)
        batch = next(iter(DataLoader(Dataset(items, reader), batch_size=2)))["image"]
        self.assertEqual(tuple(batch.shape), (2, 1, 2, 3))
        self.assertEqual(batch.meta["view_position"], ["", "PA"])
        self.assertEqual([len(subject) for subject in batch.meta["subject"]], [0, 16])

    def test_a_display_note_comes_along_with_the_image(self):
        save_dicom(self.folder / "a.dcm", np.zeros((2, 3), np.uint8), WindowCenter=5, WindowWidth=0)
        save_dicom(self.folder / "b.dcm", np.zeros((2, 3), np.uint8))
        Image.new("L", (3, 2)).save(self.folder / "c.png")
        notes = [load(path).meta["display_note"] for path in sorted(self.folder.iterdir())]
        self.assertRegex(
            notes[0], "^window not applied, shown over the full range: WindowWidth must be at least 1, got 0$"
        )
        self.assertEqual(notes[1:], ["", ""])

    def test_no_text_of_the_file_reaches_metadata_errors_logs_or_warnings(self):
        canary = "CANARY^JANE"
        elements = {
            keyword_for_tag(tag): canary
            for tag, entry in DicomDictionary.items()
            if entry[0] in TEXT and entry[1] == "1" and 0x0008 <= tag >> 16 < 0x6000
        }
        elements = {keyword: value for keyword, value in elements.items() if keyword and keyword not in NEEDED}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            save_dicom(self.folder / "film.dcm", np.zeros((2, 3), np.uint8), **elements)
        self.assertGreater((self.folder / "film.dcm").read_bytes().count(b"CANARY"), 1000)
        with warnings.catch_warnings(record=True) as caught, self.assertNoLogs(level=logging.DEBUG):
            warnings.simplefilter("always")
            _, meta = RadiologyReader(secret="key").get_data([str(self.folder / "film.dcm")])
        self.assertNotIn("CANARY", f"{meta}{[str(w.message) for w in caught]}")
        with self.assertRaises(UnreadableImageError) as refused:
            save_dicom(self.folder / "bad.dcm", np.zeros((2, 3), np.uint8), PhotometricInterpretation="CANARY")
            RadiologyReader().get_data([str(self.folder / "bad.dcm")])
        self.assertNotIn("CANARY", str(refused.exception))


class TestNames(unittest.TestCase):
    def test_a_file_whose_name_looks_like_a_frame(self):
        with tempfile.TemporaryDirectory() as folder:
            odd = Path(folder) / "film#frame=3"
            odd.write_bytes(b"")
            self.assertEqual(split_frame(str(odd)), (odd, 0))
            self.assertEqual(split_frame(f"{odd}#frame=4"), (odd, 4))

    def test_format_by_content(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "IM0001"
            save_dicom(path, np.zeros((2, 2), np.uint8))
            self.assertEqual(file_format(path), "dicom")
            path.write_bytes(path.read_bytes()[132:])  # no preamble
            self.assertEqual(file_format(path), "dicom")


if __name__ == "__main__":
    unittest.main()
