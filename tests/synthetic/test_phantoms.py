# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import numpy as np
import pydicom

from bundle.reading.reader import RadiologyReader
from bundle.synthetic.phantoms import write_phantom, write_phantoms
from bundle.synthetic.radiograph_phantoms import make_radiograph
from bundle.synthetic.ultrasound_phantoms import make_ultrasound


class TestPixels(unittest.TestCase):
    def test_a_lesion_changes_its_box_and_little_else(self):
        for make, lesion in ((make_radiograph, "mass"), (make_ultrasound, "hypoechoic mass")):
            plain, nothing = make(np.random.default_rng(3))
            image, box = make(np.random.default_rng(3), lesion)
            self.assertIsNone(nothing)
            left, upper, right, lower = box.astype(int)
            self.assertTrue(0 <= left < right <= image.shape[1] and 0 <= upper < lower <= image.shape[0])
            inside = np.zeros(image.shape, bool)
            inside[upper:lower, left:right] = True
            self.assertLessEqual(image.max(), 1)
            self.assertGreaterEqual(image.min(), 0)
            if lesion == "mass":  # the inserted lesion leaves the rest alone; the ultrasound has other noise then
                change = np.abs(image - plain)
                self.assertGreater(change[inside].mean(), 0.05)
                self.assertLess(change[~inside].mean(), 0.005)
            else:
                self.assertLess(image[inside].mean(), plain[inside].mean() - 0.1)

    def test_lungs_are_darker_than_heart_and_abdomen(self):
        image, _ = make_radiograph(np.random.default_rng(0))
        lung, heart, abdomen = image[230:330, 120:200], image[400:460, 300:370], image[600:680, 150:250]
        self.assertLess(lung.mean() + 0.15, min(heart.mean(), abdomen.mean()))

    def test_unknown_lesion(self):
        for make in (make_radiograph, make_ultrasound):
            with self.assertRaisesRegex(ValueError, "got 'wart'"):
                make(np.random.default_rng(0), "wart")


class TestFiles(unittest.TestCase):
    def test_layout_boxes_names_and_tags(self):
        with tempfile.TemporaryDirectory() as folder:
            write_phantoms(folder, training=3, normal=0, lesion=1)
            names = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*.dcm"))
            good = [f"train/good/synthetic_{kind}_000{number}.dcm" for kind in ("cr", "us") for number in (1, 2, 3)]
            lesions = [f"test/lesion/synthetic_{kind}_0004.dcm" for kind in ("cr", "us")]
            self.assertEqual(names, sorted(good + lesions))
            with (Path(folder) / "lesion_boxes.csv").open() as file:
                self.assertEqual([row["file"] for row in csv.DictReader(file)], lesions)
            datasets = [pydicom.dcmread(Path(folder) / name) for name in names]
            self.assertEqual(len({dataset.SOPInstanceUID for dataset in datasets}), 8)
            for dataset in datasets:
                self.assertEqual(dataset.PatientName, "SYNTHETIC^PHANTOM")
                for keyword in ("SeriesDescription", "ImageComments", "DerivationDescription"):
                    self.assertIn("synthetic", dataset[keyword].value.lower())
            inverted = [d.PhotometricInterpretation for d in datasets if d.Modality == "CR"].count("MONOCHROME1")
            self.assertEqual(inverted, 1)
            self.assertEqual({d.BitsStored for d in datasets if d.Modality == "CR"}, {12})
            reader = RadiologyReader()
            upright = [reader.get_data([str(Path(folder) / name)])[0][0] for name in [*good[:3], lesions[0]]]
            # the abdomen is bright in every film, whichever way round it is stored
            self.assertTrue(all(film[600:680, 150:250].mean() > film[230:330, 120:200].mean() for film in upright))
            if shutil.which("dciodvfy"):
                for name in (good[0], *lesions):
                    done = subprocess.run(["dciodvfy", "-new", Path(folder) / name], capture_output=True, text=True)
                    self.assertNotIn("Error", done.stderr + done.stdout, name)

    def test_the_same_seed_gives_the_same_file(self):
        with tempfile.TemporaryDirectory() as folder:
            first, second, other = (Path(folder) / f"{name}.dcm" for name in "abc")
            for path, seed in ((first, 0), (second, 0), (other, 1)):
                write_phantom(path, "us", 1, "hypoechoic mass", seed)
            self.assertEqual(first.read_bytes(), second.read_bytes())
            self.assertNotEqual(first.read_bytes(), other.read_bytes())

    def test_unknown_kind(self):
        with self.assertRaisesRegex(ValueError, "got \\['mr'\\]"):
            write_phantoms("nowhere", kinds=["mr"])


if __name__ == "__main__":
    unittest.main()
