# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Crops and the fit into the network's grid, each with an exact way back to the source frame; values stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor, get_track_meta
from monai.data.utils import to_affine_nd
from monai.transforms import Crop, InvertibleTransform
from monai.transforms.utils import create_translate, scale_affine
from monai.utils import TraceKeys, TransformBackends, convert_to_tensor, ensure_tuple_rep

from bundle.preprocessing.dictionary import InvertibleDictTransform

__all__ = [
    "CropToRegion",
    "CropUniformBorder",
    "ResizeAndPad",
    "ResizeAndPadd",
]


class CropToRegion(Crop):
    """
    Crop to the scanned region that the reader found (DICOM PS3.3 C.8.5.5), which leaves burned-in text behind.

    The inverse pads with zeros.
    """

    def __call__(self, img: torch.Tensor, lazy: bool | None = None) -> torch.Tensor:  # type: ignore[override]
        """
        Return the region, or the whole image where none is known.

        Args:
            img: image whose metadata has ``region``, shape ``(C, H, W)``.
            lazy: whether MONAI may delay the crop.
        """
        region = img.meta.get("region") if isinstance(img, MetaTensor) else None
        if region is None:
            region = (0, 0, *img.shape[1:])
        top, left, bottom, right = (int(edge) for edge in region)
        slices = self.compute_slices(roi_start=(top, left), roi_end=(bottom, right))
        return super().__call__(img, slices, lazy)


class CropUniformBorder(Crop):
    """
    Crop away outer rows and columns that show nothing: film borders, collimator blades, black margins.

    A line shows nothing while the spread between its 5th and 95th percentile stays within the tolerance, so that a
    marker on the blades does not keep them. The inverse pads with zeros.

    Args:
        tolerance: largest spread of a uniform line, in display values 0..1.
        smallest: least part of each side that is kept, 0..1; an image that would lose more is returned whole.

    Raises:
        ValueError: When ``tolerance`` is negative or ``smallest`` is not in (0, 1].
    """

    def __init__(self, tolerance: float = 0.02, smallest: float = 0.3) -> None:
        super().__init__()
        if tolerance < 0 or not 0 < smallest <= 1:
            raise ValueError(f"tolerance must not be negative and smallest in (0, 1], got {tolerance} and {smallest}.")
        self.tolerance, self.smallest = tolerance, smallest

    def __call__(self, img: torch.Tensor, lazy: bool | None = None) -> torch.Tensor:  # type: ignore[override]
        """
        Return the image without its uniform border.

        Args:
            img: display values, shape ``(C, H, W)``.
            lazy: whether MONAI may delay the crop.
        """
        luminance = convert_to_tensor(img, track_meta=False).mean(dim=0)
        bounds = []
        for axis in (1, 0):
            low, high = np.percentile(luminance.numpy(), (5, 95), axis=axis)
            kept = np.flatnonzero(high - low > self.tolerance)
            first, last = (int(kept[0]), int(kept[-1]) + 1) if len(kept) else (0, 0)
            whole = len(low)
            bounds.append((first, last) if last - first >= self.smallest * whole else (0, whole))
        slices = self.compute_slices(roi_start=[b[0] for b in bounds], roi_end=[b[1] for b in bounds])
        return super().__call__(img, slices, lazy)


class ResizeAndPad(InvertibleTransform):
    """
    Fit an image into a fixed grid: resize with its aspect kept, then center it between zeros.

    Pixels are areas, so the outer edges of the image meet (``align_corners=False``), and shrinking averages
    (``antialias``). The inverse cuts the padding off and resizes back to the exact source size, bilinearly: use it for
    heatmaps in the network's grid.

    Args:
        spatial_size: rows and columns of the result; one number for both.
        keep_aspect: if not, the image is stretched to the whole grid, as the ADFA paper does.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, spatial_size: Sequence[int] | int, keep_aspect: bool = True) -> None:
        self.spatial_size: tuple[int, ...] = ensure_tuple_rep(spatial_size, 2)
        self.keep_aspect = keep_aspect

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """
        Return the image in the fixed grid.

        Args:
            img: image, shape ``(C, H, W)``.
        """
        image = convert_to_tensor(img, track_meta=get_track_meta())
        source = tuple(image.shape[1:])
        scale = min(target / side for target, side in zip(self.spatial_size, source, strict=True))
        inner = tuple(
            min(max(round(side * scale), 1), target) if self.keep_aspect else target
            for target, side in zip(self.spatial_size, source, strict=True)
        )
        before = tuple((target - side) // 2 for target, side in zip(self.spatial_size, inner, strict=True))
        after = tuple(t - s - b for t, s, b in zip(self.spatial_size, inner, before, strict=True))
        pixels = _interpolate(convert_to_tensor(image, track_meta=False), inner)
        pixels = F.pad(pixels, (before[1], after[1], before[0], after[0]))
        # from new indices to old ones: first off the padding, then to the source's scale
        affine = scale_affine(source, inner) @ create_translate(2, [-float(b) for b in before])
        meta = self.track_transform_meta(
            image,
            sp_size=self.spatial_size,
            affine=affine,
            extra_info={"inner": inner, "before": before},
            orig_size=source,
            transform_info=self.get_transform_info(),
        )
        return MetaTensor(pixels).copy_meta_from(meta) if isinstance(image, MetaTensor) else pixels

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """
        Return the image in the grid it came from.

        Args:
            data: image in the fixed grid with the record of this transform, shape ``(C, *spatial_size)``.
        """
        done = self.pop_transform(data)
        source = tuple(int(side) for side in done[TraceKeys.ORIG_SIZE])
        (top, left), (rows, columns) = (done[TraceKeys.EXTRA_INFO][name] for name in ("before", "inner"))
        plain = convert_to_tensor(data, track_meta=False)
        pixels = _interpolate(plain[:, top : top + rows, left : left + columns], source)
        if not isinstance(data, MetaTensor):
            return pixels
        affine = scale_affine(source, (rows, columns)) @ create_translate(2, [-float(top), -float(left)])
        result = MetaTensor(pixels).copy_meta_from(data)
        back = to_affine_nd(len(data.affine) - 1, np.linalg.inv(affine))
        result.affine = data.affine @ convert_to_tensor(back, dtype=data.affine.dtype)
        return result


def _interpolate(image: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    if tuple(image.shape[1:]) == tuple(size):
        return image.float()
    resized = F.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=False, antialias=True)
    return resized[0]


class ResizeAndPadd(InvertibleDictTransform):
    """Dictionary-based wrapper of :py:class:`ResizeAndPad`."""

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: Sequence[int] | int,
        keep_aspect: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, ResizeAndPad(spatial_size, keep_aspect), allow_missing_keys)
