# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Plants a canary in every text element of DICOM files and searches all that is not DICOM for them."""

from __future__ import annotations

import contextlib
import gzip
import io
import logging
import re
import warnings
from pathlib import Path

import numpy as np
import pydicom
from monai.transforms import LoadImaged
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from bundle.lists.find import find_images
from bundle.reading.reader import RadiologyReader
from bundle.results import FORMATS, ImageResult, ResultsWriter
from tests.folders import FolderTestCase
from tests.synthetic_dicom import save_dicom

CANARY = "QXCANARY"
# text of any kind; codes (CS), numbers and UIDs say nothing of who it is and must be valid for a file to be read
TEXT = {"AE", "AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"}
BIRTH_DATE = "19181111"


def plant_canaries(path: Path) -> int:
    """Fill every text element that the dictionary knows, at the top and in a sequence, and return their number."""
    dataset = pydicom.dcmread(path)
    nested = Dataset()
    planted = 0
    for tag, (vr, _, name, retired, _) in DicomDictionary.items():
        if vr not in TEXT or retired or tag >> 16 in (0x0002, 0x0004) or tag >> 16 < 0x0008:
            continue
        text = f"{CANARY}{planted:04d}" if name != "Patient's Birth Date" else BIRTH_DATE
        dataset.add_new(tag, vr, text)
        nested.add_new(tag, vr, text)
        planted += 1
    dataset.OtherPatientIDsSequence = [nested]
    dataset.RequestAttributesSequence = [nested]
    block = dataset.private_block(0x0011, f"{CANARY} CREATOR", create=True)
    block.add_new(0x01, "LO", f"{CANARY}PRIVATE")
    dataset.save_as(path)
    return planted


class TestPrivacy(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.input, self.out = self.folder / f"{CANARY}_in", self.folder / "out"
        self.input.mkdir()
        pixels = np.random.default_rng(0).integers(0, 255, (40, 60), dtype=np.uint8)
        # the zeros in front are wrong, and pydicom warns of them with the whole value
        self.uids = {"StudyInstanceUID": "1.2.826.0.19650312.007", "SeriesInstanceUID": generate_uid()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, elements in {
                "whole": {},
                "no_series": {"SeriesInstanceUID": None},
                "loop": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.3.1", "Modality": "US"},
            }.items():
                path = self.input / f"{name}.dcm"
                frames = np.stack([pixels] * 3) if name == "loop" else pixels
                save_dicom(path, frames, **{**self.uids, **elements})
                self.assertGreater(plant_canaries(path), 500)
        whole = (self.input / "whole.dcm").read_bytes()
        (self.input / "cut.dcm").write_bytes(whole[:-1000])
        (self.input / "cut_earlier.dcm").write_bytes(whole[: len(whole) // 2])
        (self.input / "notes.txt").write_text(f"{CANARY} in a text")

    def run_all(self) -> None:
        """Read every file and write every format, as the inference workflow does."""
        load = LoadImaged("image", reader=RadiologyReader(secret="key"), ensure_channel_first=True)
        items, refusals = find_images(self.input, secret="key")
        with ResultsWriter(self.out, FORMATS, threshold=0.5, input_root=self.input) as writer:
            for refusal in refusals:
                writer.fail(refusal.source, refusal.reason)
            for item in items:
                try:
                    image = load(item)["image"]
                except Exception as error:
                    writer.fail(item["image"], str(error))
                    continue
                writer.add(
                    ImageResult(
                        key=item["key"],
                        source=Path(item["image"].split("#")[0]),
                        frame=int(image.meta["frame"]),
                        subject=image.meta["subject"],
                        anomaly_score=0.75,
                        abnormal=True,
                        heatmap=image[0].numpy(),
                        image=image[0].numpy(),
                        extra={name: str(image.meta[name]) for name in ("modality", "view_position", "laterality")},
                    )
                )

    def test_no_canary_leaves(self):
        spoken, log = io.StringIO(), io.StringIO()
        handler = logging.StreamHandler(log)
        root = logging.getLogger()
        before = root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            with contextlib.redirect_stdout(spoken), contextlib.redirect_stderr(spoken), warnings.catch_warnings():
                warnings.simplefilter("always")
                logging.captureWarnings(True)
                self.run_all()
        finally:
            logging.captureWarnings(False)
            root.removeHandler(handler)
            root.setLevel(before)

        outputs = {"stdout and stderr": spoken.getvalue().encode(), "log": log.getvalue().encode()}
        for path in self.out.rglob("*"):
            if path.is_file() and path.suffix != ".dcm":
                content = path.read_bytes()
                outputs[path.name] = gzip.decompress(content) if path.suffix == ".gz" else content
        self.assertGreaterEqual(len(outputs), 5 + 2 * 5)
        for name, content in outputs.items():
            for canary in (CANARY, BIRTH_DATE, str(self.folder), *self.uids.values()):
                found = re.search(re.escape(canary.encode()), content, re.IGNORECASE)
                around = found and content[max(0, found.start() - 80) : found.end() + 40]
                self.assertIsNone(found, f"{canary} in {name}: {around!r}")
        names = [path.relative_to(self.out).as_posix() for path in self.out.rglob("*")]
        self.assertFalse([name for name in names if CANARY.lower() in name.lower()])

        # every file is accounted for, and those with pixels have results
        failures = (self.out / "failures.csv").read_text()
        for name in ("cut.dcm", "cut_earlier.dcm", "notes.txt"):
            self.assertIn(name, failures)
        self.assertIn("SeriesInstanceUID, the source has none", failures)
        pictures = [name for name in names if name.startswith("overlays/")]
        self.assertEqual(len(pictures), 5)

    def test_dicom_results_keep_the_patient(self):
        self.run_all()
        results = [pydicom.dcmread(path) for path in (self.out / "dicom").iterdir()]
        source = pydicom.dcmread(self.input / "whole.dcm")
        self.assertGreaterEqual(len(results), 4)
        for result in results:
            self.assertEqual(result.PatientBirthDate, BIRTH_DATE)
        self.assertIn(str(source.PatientName), {str(result.PatientName) for result in results})

    def test_the_hash_stands_for_the_patient(self):
        self.run_all()
        page = (self.out / "predictions.csv").read_text()
        items, _ = find_images(self.input, secret="key")
        others, _ = find_images(self.input, secret="another key")
        self.assertRegex(items[0]["patient"], "^[0-9a-f]{16}$")
        self.assertNotEqual(items[0]["patient"], others[0]["patient"])
        self.assertIn(items[0]["patient"], page)
