# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Anomaly maps of an exported network as a prior for attention mining."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.utils import convert_to_tensor

from bundle.rules import shown, whole_number

__all__ = ["AnomalyPrior"]


class AnomalyPrior:
    """
    Anomaly maps of a TorchScript file, such as an exported ADFA, at the size it was made for.

    It has to have been trained on the same picture that mining sees: with the same framing (``keep_aspect`` and
    ``resize``) and normalization.

    Args:
        path: TorchScript file that gives anomaly maps ``(B, 1, h, w)`` not below 0. It is code: take it from whom you
            trust.
        image_size: rows and columns of the images it takes.

    Raises:
        ValueError: When the file cannot be loaded, or ``image_size`` is not two whole numbers above 0.
    """

    def __init__(self, path: str | Path, image_size: Sequence[int] = (224, 224)) -> None:
        try:
            self.network = torch.jit.load(str(path), map_location="cpu").eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise ValueError(f"'{path}' must be a TorchScript file, it cannot be loaded.") from error
        if isinstance(image_size, str) or len(image_size) != 2:
            raise ValueError(f"image_size must be rows and columns, got {shown(image_size)}.")
        self.image_size = [whole_number("image_size", side) for side in image_size]

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the anomaly maps of images ``(B, 3, H, W)``, shape ``(B, 1, h, w)``, on their device."""
        images = convert_to_tensor(images, dtype=torch.float32, track_meta=False)
        small = F.interpolate(images, size=self.image_size, mode="bilinear", align_corners=False, antialias=True)
        return self.network.to(images.device)(small)
