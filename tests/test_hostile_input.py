# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What somebody who means harm could hand over: each is refused in one line, or its text stays text."""

from __future__ import annotations

import csv
import gzip
import json
import os
import resource
import struct
import unittest
import unittest.mock
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from monai.transforms import LoadImaged
from PIL import Image

from bundle.lists import AnomalyDataList, find_images, load_label_table
from bundle.networks import load_pretrained
from bundle.reading import RadiologyReader
from bundle.results import ImageResult, ResultsWriter
from bundle.training import TrainingCheckpoint
from tests.folders import FolderTestCase
from tests.synthetic_dicom import save_dicom

FORMULA = "=HYPERLINK(CONCATENATE(A1))"
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>"


class _Folder(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.inside, self.outside = self.root / "inside", self.root / "outside"
        for path in (self.inside, self.outside):
            path.mkdir()

    def picture(self, path: Path) -> Path:
        Image.new("L", (6, 4), 100 + len(list(self.root.rglob("*.png")))).save(path, format="png")  # no two alike
        return path

    def refused(self, path: Path) -> str:
        """Return why an input gives no image."""
        items, refusals = find_images(path)
        self.assertEqual((items, len(refusals)), ([], 1))
        return refusals[0].reason


class _RunsCode:
    """What a pickle may hold: a call that is made when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


class TestCheckpointWithCode(_Folder):
    def setUp(self):
        super().setUp()
        self.trace, self.file = self.root / "was_here", self.root / "checkpoint.pt"
        torch.save({"weight": _RunsCode(self.trace)}, self.file)

    def test_weights(self):
        with self.assertRaisesRegex(ValueError, "weights must be a state dict without code, 'checkpoint.pt' is not"):
            load_pretrained(torch.nn.Linear(1, 1), self.file)
        self.assertFalse(self.trace.exists())

    def test_the_state_of_a_run(self):
        network = torch.nn.Linear(1, 1)
        handler = TrainingCheckpoint(self.file, self.root / "model.pt", {"network": network}, resume=True)
        with self.assertRaisesRegex(ValueError, "cannot resume from 'checkpoint.pt'"):
            handler.attach(unittest.mock.MagicMock())
        self.assertFalse(self.trace.exists())

    def test_it_would_have_run(self):
        torch.load(self.file, weights_only=False)
        self.assertTrue(self.trace.exists())


class TestListsThatLeaveTheirFolder(_Folder):
    def setUp(self):
        super().setUp()
        for folder in (self.inside, self.outside):
            for i in range(6):
                self.picture(folder / f"{i}.png")
        (self.inside / "x").mkdir()
        (self.inside / "link.png").symlink_to(self.outside / "0.png")

    def names(self) -> dict[str, str]:
        return {
            "dots": "../outside/0.png",
            "dots inside": "x/../../outside/0.png",
            "absolute": str(self.outside / "0.png"),
            "link": "link.png",
            "link with a frame": "link.png#frame=0",
        }

    def anomaly_list(self, kind: str, name: str) -> Path:
        images = [*(f"{i}.png" for i in range(6)), name]
        path = self.inside / f"list.{kind}"
        if kind == "csv":
            path.write_text("\n".join(["image", *images]))
        else:
            path.write_text(json.dumps({"training": [{"image": image} for image in images]}))
        return path

    def test_anomaly_lists(self):
        for kind in ("csv", "json"):
            for case, name in self.names().items():
                with self.subTest(f"{kind}, {case}"):
                    path = self.anomaly_list(kind, name)
                    with self.assertRaisesRegex(ValueError, r"list.*\b[68]\b.*: image '.*png.*' must lie in 'inside'"):
                        AnomalyDataList(path)
                    with self.assertRaisesRegex(ValueError, "must lie in 'inside'; --allow_outside True takes"):
                        AnomalyDataList(path, allow_outside="false")  # type: ignore[arg-type]  # a word is not True
        data = AnomalyDataList(path, held_back=0.5, allow_outside=True)
        self.assertEqual(len(data.training + data.validation), 7)
        (self.inside / "another.png").write_bytes((self.inside / "0.png").read_bytes())
        data = AnomalyDataList(self.anomaly_list("json", str(self.inside / "another.png")), held_back=0.5)
        self.assertEqual(len(data.training + data.validation), 7)  # absolute, and inside

    def test_a_class_folder_that_is_a_link(self):
        (self.inside / "train").mkdir()
        (self.inside / "train" / "good").symlink_to(self.outside)
        with self.assertRaisesRegex(ValueError, "image '.*' must lie in 'inside'"):
            AnomalyDataList(self.inside)
        self.assertEqual(AnomalyDataList(self.inside, allow_outside=True).layout, "good_tree")

    def test_label_tables(self):
        for case, name in self.names().items():
            with self.subTest(case):
                rows = [f"{i}.png,{i % 2}" for i in range(4)]
                table = self.inside / "labels.csv"
                table.write_text("\n".join(["image,finding", *rows, f"{name},1"]))
                with self.assertRaisesRegex(ValueError, "row 6: image '.*' must lie in 'inside'"):
                    load_label_table(table, self.inside, ["finding"])
                self.assertEqual(len(load_label_table(table, self.inside, ["finding"], allow_outside=True)), 5)


class TestLinks(_Folder):
    def test_links_out_of_the_input(self):
        self.picture(self.outside / "secret.png")
        self.picture(self.inside / "a.png")
        (self.inside / "b.png").symlink_to(self.inside / "a.png")
        (self.inside / "c.png").symlink_to(self.outside / "secret.png")
        (self.inside / "d").symlink_to(self.outside)
        (self.inside / "e.png").symlink_to(self.root / "nothing")
        rule = "c.png: must not be a link out of the input folder; --allow_outside True reads it."
        items, refusals = find_images(self.inside)
        self.assertEqual([Path(item["image"]).name for item in items], ["a.png", "b.png"])
        self.assertEqual([r.source.name for r in refusals], ["c.png", "d", "e.png"])
        self.assertEqual(refusals[0].reason, rule)
        self.assertEqual(refusals[1].reason, "d: a link to a folder or to nothing is not followed.")
        items, refusals = find_images(self.inside / "**" / "*.png")
        self.assertEqual([Path(item["image"]).name for item in items], ["a.png", "b.png"])
        self.assertEqual([r.source.name for r in refusals], ["c.png", "secret.png"])
        self.assertEqual(len(find_images(self.inside, allow_outside=True)[0]), 3)
        self.assertEqual(len(find_images(self.inside / "c.png")[0]), 1)  # the user's own word
        link = self.root / "link"
        link.symlink_to(self.inside)
        self.assertEqual(len(find_images(link)[0]), 2)


class TestTextThatIsCode(_Folder):
    def test_formulas_and_markup_stay_text(self):
        name = f"{FORMULA}{MARKUP}".replace("/", "")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of what is written here
            save_dicom(
                self.inside / name,
                np.full((8, 8), 9, np.uint8),
                PatientName=FORMULA,
                PatientID=MARKUP,
                StudyDescription=MARKUP,
                ViewPosition=FORMULA,
                BodyPartExamined=MARKUP,
            )
        (self.inside / f"{name}.txt").write_text("no image")
        items, refusals = find_images(self.inside)
        load = LoadImaged("image", reader=RadiologyReader(), ensure_channel_first=True)
        out = self.root / "out"
        with ResultsWriter(out, input_root=self.inside, title=MARKUP) as writer:
            for refusal in refusals:
                writer.fail(refusal.source, refusal.reason)
            for item in items:
                image = load(item)["image"]
                writer.add(
                    ImageResult(
                        key=item["key"],
                        source=Path(item["image"]),
                        subject=str(image.meta["subject"]),
                        probabilities={FORMULA: 0.5, MARKUP: 0.5},
                        heatmap=image[0].numpy(),
                        image=image[0].numpy(),
                        extra={key: str(image.meta.get(key)) for key in ("modality", "view_position", "laterality")},
                    )
                )
        cells = 0
        for table in out.glob("*.csv"):
            with table.open(newline="") as file:
                for row in csv.reader(file):
                    for cell in row:
                        self.assertNotRegex(cell.strip(), r"^[=+@\t\r]|^-\D")
                        cells += FORMULA in cell
        self.assertGreaterEqual(cells, 3)  # the names of files and the label are told
        page = (out / "report.html").read_text()
        for tag in ("<script>alert", "<img src=x"):
            self.assertNotIn(tag, page)
        self.assertIn("&lt;script&gt;alert", page)
        written = [path.relative_to(out) for path in out.rglob("*") if path.is_file()]
        self.assertFalse([path for path in written if "=" in str(path) or "<" in str(path)])


class TestArchives(_Folder):
    def archive(self) -> Path:
        path = self.inside / "films.zip"
        with zipfile.ZipFile(path, "w") as stream:
            for name in ("../escaped.png", str(self.outside / "escaped.png"), "a.png"):
                stream.write(self.picture(self.root / "any.png"), name)
        return path

    def test_a_zip_is_no_input(self):
        self.assertRegex(self.refused(self.archive()), "^films.zip: this is no DICOM, PNG")
        self.archive().rename(self.inside / "films.dcm")
        self.assertRegex(self.refused(self.inside / "films.dcm"), "^films.dcm: .*DICOM")
        with self.assertRaisesRegex(ValueError, "dataset_dir must be a folder, a CSV or a JSON file, got 'films.zip'"):
            AnomalyDataList(self.archive())
        self.assertEqual(sorted(p.name for p in self.root.rglob("*.png")), ["any.png"])

    def test_the_check_of_a_zoo_bundle_unpacks_within_its_folder(self):
        # scripts/checks/check_zoo.py is the one place that unpacks; zipfile drops what leads out of the folder
        with zipfile.ZipFile(self.archive()) as stream:
            stream.extractall(self.inside / "unpacked")
        self.assertFalse((self.inside / "escaped.png").exists() or (self.outside / "escaped.png").exists())


class TestLiesAboutSize(_Folder):
    def assert_refused(self, path: Path, words: str = "must hold at most [0-9]+ bytes") -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes on Linux
        items, refusals = find_images(path)
        if not items:  # the header tells it already
            self.assertRegex(refusals[0].reason, f"^{path.name}: .*{words}")
        with self.assertRaisesRegex(ValueError, words):
            reader = RadiologyReader()
            reader.get_data(reader.read(path))
        self.assertLess(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, 300_000)

    def test_rows_and_columns_of_ten_gigabytes(self):
        pixels = np.zeros((4, 4), np.uint16)
        self.assert_refused(save_dicom(self.inside / "plain.dcm", pixels, Rows=65535, Columns=65535))
        pixels = np.zeros((4, 4, 3), np.uint8)
        self.assert_refused(save_dicom(self.inside / "color.dcm", pixels, True, Rows=65535, Columns=65535))
        # within the limits, and still more than the file holds
        path = save_dicom(self.inside / "short.dcm", np.zeros((4, 4), np.uint8), Rows=4000, Columns=4000)
        self.assert_refused(path, "16000000")
        frames = save_dicom(self.inside / "loop.dcm", np.zeros((2, 4, 4), np.uint8), NumberOfFrames=2**30)
        self.assert_refused(frames, "NumberOfFrames must fit the file")  # a loop has no limit but its file

    def test_a_picture(self):
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        for side, words in ((12_000, "at most"), (100_000, "DecompressionBombError")):
            head = struct.pack(">2I5B", side, side, 8, 0, 0, 0, 0)
            chunks = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(b"0")), chunk(b"IEND", b""))
            path = self.inside / "a.png"
            path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
            self.assert_refused(path, words)

    def test_a_volume(self):
        header = bytearray(352)
        struct.pack_into("<i", header, 0, 348)
        struct.pack_into("<8h", header, 40, 2, 32767, 32767, 1, 1, 1, 1, 1)
        struct.pack_into("<2h", header, 70, 64, 64)  # float64
        struct.pack_into("<f", header, 108, 352)
        header[344:348] = b"n+1\0"
        path = self.inside / "a.nii.gz"
        path.write_bytes(gzip.compress(bytes(header)))
        self.assert_refused(path)


if __name__ == "__main__":
    unittest.main()
