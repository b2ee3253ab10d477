# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Readers, data lists, splits, dataset preparation and synthetic phantoms."""

from bundle.data.calibration import read_calibration, write_calibration
from bundle.data.datalists import AnomalyDataList, with_made_abnormal
from bundle.data.images import ReadableDataLoader, ReadableDataset
from bundle.data.inputs import find_images
from bundle.data.readers import RadiologyReader

__all__ = [
    "AnomalyDataList",
    "RadiologyReader",
    "ReadableDataLoader",
    "ReadableDataset",
    "find_images",
    "read_calibration",
    "with_made_abnormal",
    "write_calibration",
]
