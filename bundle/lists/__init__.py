# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Which images, whose, and in which part of a split; labels and boxes."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    label_lists=["LabelDataList"],
    boxes=["has_boxes", "items_with_boxes", "read_boxes", "read_chestxray14_boxes", "read_coco_boxes"],
    find=["find_images"],
    normals=["AnomalyDataList"],
    splits=["cross_validation_splits", "patient_folds", "patient_splits", "with_folds"],
    table=["load_label_table", "write_label_table"],
)
