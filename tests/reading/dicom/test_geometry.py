# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
from pydicom.dataset import Dataset

from bundle.reading.dicom.geometry import pixel_spacing, scanned_region


def header(**elements):
    dataset = Dataset()
    dataset.Rows, dataset.Columns = 100, 200
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def region(top, left, bottom, right, **elements):
    item = Dataset()
    item.RegionLocationMinY0, item.RegionLocationMinX0 = top, left
    item.RegionLocationMaxY1, item.RegionLocationMaxX1 = bottom, right
    usual = {"RegionSpatialFormat": 1, "PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3}
    for keyword, value in {**usual, "PhysicalDeltaX": 0.02, "PhysicalDeltaY": -0.03, **elements}.items():
        setattr(item, keyword, value)
    return item


class TestPixelSpacing(unittest.TestCase):
    def assert_spacing(self, elements, expected, source, factor=1.0):
        spacing, name, magnification = pixel_spacing(header(**elements))
        np.testing.assert_allclose(spacing, expected)
        self.assertEqual((name, magnification), (source, factor))

    def test_order(self):
        calibrated, detector = {"PixelSpacing": [0.2, 0.3]}, {"ImagerPixelSpacing": [0.15, 0.15]}
        scan = {"SequenceOfUltrasoundRegions": [region(10, 20, 80, 150)]}
        self.assert_spacing({**scan, **detector, **calibrated}, [0.2, 0.3], "PixelSpacing")
        self.assert_spacing({**scan, **detector}, [0.15, 0.15], "ImagerPixelSpacing")
        self.assert_spacing(scan, [0.3, 0.2], "SequenceOfUltrasoundRegions")
        self.assert_spacing({}, [np.nan, np.nan], "")

    def test_magnification_is_divided_out_and_stated(self):
        elements = {"ImagerPixelSpacing": [0.15, 0.15], "EstimatedRadiographicMagnificationFactor": 1.5}
        self.assert_spacing(elements, [0.1, 0.1], "ImagerPixelSpacing", 1.5)

    def test_no_guess(self):
        self.assert_spacing({"PixelSpacing": [0, 0.3]}, [np.nan, np.nan], "")
        hertz = region(10, 20, 80, 150, PhysicalUnitsYDirection=4)
        self.assert_spacing({"SequenceOfUltrasoundRegions": [hertz]}, [np.nan, np.nan], "")


class TestScannedRegion(unittest.TestCase):
    def test_largest_two_dimensional_region_with_inclusive_corners(self):
        spectrum = region(0, 0, 99, 199, RegionSpatialFormat=3)
        items = [spectrum, region(10, 20, 30, 40), region(10, 20, 80, 150)]
        found = scanned_region(header(SequenceOfUltrasoundRegions=items))
        self.assertEqual(found.tolist(), [10, 20, 81, 151])

    def test_whole_frame_without_a_region_that_fits(self):
        self.assertEqual(scanned_region(header()).tolist(), [0, 0, 100, 200])
        outside = header(SequenceOfUltrasoundRegions=[region(10, 20, 80, 250)])
        self.assertEqual(scanned_region(outside).tolist(), [0, 0, 100, 200])
        self.assertTrue(np.isnan(pixel_spacing(outside)[0]).all())


if __name__ == "__main__":
    unittest.main()
