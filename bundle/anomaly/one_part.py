# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What the detectors have in common whose map is one kind of distance."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["OnePart"]


class OnePart(nn.Module):
    """A :py:class:`bundle.anomaly.detector.Detector` whose map has but one part, so that nothing is joined."""

    def parts(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map, ``(B, 1, h, w)``, of images ``(B, 3, H, W)``."""
        return self(image)

    def join(self, parts: torch.Tensor) -> torch.Tensor:
        """Return the map as it is."""
        return parts

    def fit_join(self, parts: torch.Tensor) -> None:
        """Do nothing: there is one unit."""
