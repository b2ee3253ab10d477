# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From a map of distances to a heatmap, scores and a verdict."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.networks.layers import GaussianFilter
from monai.transforms import MapTransform
from monai.utils import TransformBackends

from bundle.anomaly.conformal import conformal_p_values
from bundle.rules import number_in

__all__ = ["AnomalyScored", "AnomalyVerdictd", "anomaly_heatmap", "mean_of_largest"]


def anomaly_heatmap(distances: torch.Tensor, image_size: Sequence[int], sigma: float = 4.0) -> torch.Tensor:
    """
    Return the smoothed map in the pixel grid of the network's input.

    Bilinear upsampling, then a Gaussian, as in the released ADFA code, but without its normalization by the whole test
    set, which makes the score of one image depend on the others.

    Args:
        distances: map of the network, shape ``(1, h, w)``.
        image_size: rows and columns of the network's input.
        sigma: standard deviation of the Gaussian in pixels of the input; 0 leaves it out.

    Returns:
        shape ``(1, H, W)``, in the unit of ``distances``.

    Raises:
        ValueError: When ``sigma`` is negative or not finite.
    """
    number_in("sigma", sigma, 0)
    heat = F.interpolate(distances[None].float(), list(image_size), mode="bilinear", align_corners=False)
    return (GaussianFilter(2, sigma).to(heat.device)(heat) if sigma > 0 else heat)[0]


def mean_of_largest(distances: torch.Tensor, fraction: float) -> torch.Tensor:
    """
    Return the mean of the largest values of a map, at least of one.

    Args:
        distances: any shape.
        fraction: share of the values, in (0, 1]; 1 is the mean of all.

    Returns:
        a scalar on the CPU, in the unit of ``distances``.

    Raises:
        ValueError: When ``fraction`` is not in (0, 1].
    """
    number_in("fraction", fraction, 0, 1, without_low=True)
    values = distances.flatten()
    return values.topk(max(1, round(fraction * values.numel()))).values.mean().cpu()


class AnomalyScored(MapTransform):
    """
    Add a heatmap and the scores of ADFA Eq. 6 to an item.

    ``heatmap`` is the smoothed map as a MetaTensor that carries the transforms of the image, so ``Invertd`` brings it
    to the pixel grid of the file; ``anomaly_score_raw`` is the maximum of the map as the paper has it;
    ``anomaly_score`` is the maximum of the smoothed map, or the mean of the largest distances: the paper's maximum
    depends on one patch of thousands. ``docs/adfa.md`` compares them; they are close.

    Args:
        keys: the map of distances, shape ``(1, h, w)``.
        image_key: the network's input, shape ``(C, H, W)``.
        sigma: smoothing, see :py:func:`anomaly_heatmap`.
        top_fraction: share of the map, in [0, 1], whose mean is the score; 0 is the maximum of the smoothed map.

    Raises:
        ValueError: When ``top_fraction`` is not in [0, 1], or ``sigma`` is negative or not finite.
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self, keys: KeysCollection = "pred", image_key: str = "image", sigma: float = 4.0, top_fraction: float = 0.02
    ) -> None:
        super().__init__(keys)
        self.image_key, self.sigma = image_key, number_in("sigma", sigma, 0)
        self.top_fraction = number_in("top_fraction", top_fraction, 0, 1)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with ``heatmap``, ``anomaly_score`` and ``anomaly_score_raw``."""
        d = dict(data)
        image = d[self.image_key]
        for key in self.key_iterator(d):
            distances = torch.as_tensor(d[key])
            heat = anomaly_heatmap(distances, image.shape[-2:], self.sigma).cpu()
            d["anomaly_score_raw"] = distances.amax().cpu()
            d["anomaly_score"] = mean_of_largest(distances, self.top_fraction) if self.top_fraction else heat.amax()
            if isinstance(image, MetaTensor):
                heat = MetaTensor(heat, meta=image.meta, applied_operations=image.applied_operations)
            d["heatmap"] = heat
        return d


class AnomalyVerdictd(MapTransform):
    """
    Add the conformal p-value and the verdict at a false-alarm rate to an item.

    Args:
        keys: the anomaly score.
        calibration: scores of held-back normal images, and the threshold that was saved with the model:
            ``{"scores": [...], "threshold": t}``, see :py:func:`bundle.anomaly.read_calibration`. ``None`` passes items
            through: a model without calibration gives scores and no verdicts. An infinite threshold, where so few
            normals can promise no rate, gives p-values and no verdicts.

    Raises:
        ValueError: When there is no score, one is not finite, or the threshold is neither a number nor infinity.
    """

    def __init__(self, keys: KeysCollection = "anomaly_score", calibration: Mapping[str, Any] | None = None) -> None:
        super().__init__(keys)
        self.scores: torch.Tensor | None = None
        self.threshold = math.inf
        if calibration is not None:
            self.scores = torch.tensor(calibration["scores"], dtype=torch.float64)
            conformal_p_values(self.scores, self.scores)  # refuses what no score can be compared with
            if calibration["threshold"] != math.inf:
                self.threshold = number_in("threshold", calibration["threshold"], -math.inf)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """
        Return ``data`` with ``p_value`` in (0, 1] and ``abnormal``, true or false.

        A score that is not finite gets neither, but ``not_assessed`` with the reason: NaN is above no threshold and
        would be "not flagged". An item that has ``not_assessed`` already gets its p-value and no verdict.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            score = torch.as_tensor(d[key]).double()
            if not score.isfinite():
                d["not_assessed"] = f"{key} must be finite, got {float(score)}"
                d.pop("abnormal", None)
            elif self.scores is not None:
                d["p_value"] = float(conformal_p_values(score, self.scores))
                if math.isfinite(self.threshold) and not d.get("not_assessed"):
                    d["abnormal"] = bool(score > self.threshold)
        return d
