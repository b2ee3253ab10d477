# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Readers, data lists, splits, dataset preparation and synthetic phantoms."""

from bundle.data.boxes import has_boxes, items_with_boxes, read_chestxray14_boxes, read_coco_boxes
from bundle.data.calibration import read_calibration, write_calibration
from bundle.data.classifier_calibration import read_classifier_calibration, write_classifier_calibration
from bundle.data.datalists import AnomalyDataList, with_folds, with_made_abnormal
from bundle.data.files import file_sha256
from bundle.data.images import InMemoryDataset, ReadableDataLoader, ReadableDataset
from bundle.data.inputs import find_images
from bundle.data.label_table import load_label_table, write_label_table
from bundle.data.mined_batches import MinedFirstBatchSampler
from bundle.data.readers import RadiologyReader
from bundle.data.splits import cross_validation_splits, patient_folds, patient_splits

__all__ = [
    "AnomalyDataList",
    "InMemoryDataset",
    "MinedFirstBatchSampler",
    "RadiologyReader",
    "ReadableDataLoader",
    "ReadableDataset",
    "cross_validation_splits",
    "file_sha256",
    "find_images",
    "has_boxes",
    "items_with_boxes",
    "load_label_table",
    "patient_folds",
    "patient_splits",
    "read_calibration",
    "read_chestxray14_boxes",
    "read_classifier_calibration",
    "read_coco_boxes",
    "with_folds",
    "with_made_abnormal",
    "write_calibration",
    "write_classifier_calibration",
    "write_label_table",
]
