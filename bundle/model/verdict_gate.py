# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""No verdict for an image that a model knows nothing of."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Transform
from monai.utils import CommonKeys

from bundle.model.training_set import blank_reason, outside_reason, typical_features
from bundle.model.typicality import typical_distance

__all__ = ["VerdictGated"]


class VerdictGated(Transform):
    """
    Take the verdict from an item whose image is almost of one value, or outside of what the model was trained on.

    Score and map stay; ``abnormal``, ``p_value`` and ``boxes`` go, and ``not_assessed`` says why, with the rule and the
    value, so that no finding is called present. It comes last in a post-processing.

    Args:
        training_set: of the model's file, see :py:func:`bundle.model.describe_training_set`; ``None`` for a model that
            was not trained, where only an image of almost one value is found.
    """

    def __init__(self, training_set: Mapping[str, Any] | None = None) -> None:
        self.training_set = training_set
        self.typical = None if training_set is None else typical_features(training_set)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item; ``feature_cells``, where a handler added them, are taken out."""
        item = dict(data)
        cells, meta = item.pop("feature_cells", None), item[CommonKeys.IMAGE].meta
        if self.training_set is None:
            reason = blank_reason(meta)
        else:
            distance = None
            if cells is not None and self.typical is not None:
                distance = float(typical_distance(torch.as_tensor(cells)[None].cpu(), *self.typical))
            reason = outside_reason(self.training_set, meta, distance)
        if reason:
            item["not_assessed"] = reason
            item["abnormal"] = item["p_value"] = None
            item["boxes"] = []
        return item
