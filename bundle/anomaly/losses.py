# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The loss of the ADFA paper, and the default's with a term against collapse."""

from __future__ import annotations

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from torch import nn

from bundle.anomaly.resizing import resized_map
from bundle.training.processes.reduction import shared_mean, summed

__all__ = ["AdaptationLoss", "MeanDistanceLoss"]


class AdaptationLoss(nn.Module):
    r"""
    Pull normal patches to the centers (ADFA Eq. 5) and keep those of synthetic anomalies away.

    Eq. 5 alone is least when every patch, abnormal ones included, lies on a center. With synthetic anomalies in some of
    the normals (:py:class:`bundle.anomaly.RandSyntheticAnomalyd`) the loss is

    .. math:: \frac{\bar d}{s} + w\,\mathrm{mean}\,\mathrm{softplus}\Big(\frac{m\,s - d_a}{\tau\,s}\Big), \qquad
        s = \mathrm{stopgrad}(\bar d),

    with :math:`\bar d` the mean distance of the patches of unchanged images and :math:`d_a` the distances inside the
    changed regions. Dividing by :math:`s` makes it independent of the features' scale. This is a departure from the
    paper, which trains on normal images only.

    With several processes the means are those over the images of all of them, and each returns its part of the loss, so
    that the mean of their gradients is the gradient of the whole.

    Args:
        margin: wanted distance inside the regions as a multiple of the normal one, above 1.
        push: weight ``w`` of the second term; 0 leaves the first, Eq. 5 but for its scale.
        temperature: softness of the margin, above 0.

    Raises:
        ValueError: When an argument is out of range.
    """

    def __init__(self, margin: float = 2.0, push: float = 1.0, temperature: float = 0.25) -> None:
        super().__init__()
        if not margin > 1:
            raise ValueError(f"margin must be above 1, got {margin}.")
        if not push >= 0:
            raise ValueError(f"push must be at least 0, got {push}.")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        self.margin, self.push, self.temperature = margin, push, temperature

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: map of distances, shape ``(B, 1, h, w)``.
            target: 1 inside a synthetic anomaly, 0 elsewhere, shape ``(B, 1, H, W)``.

        Returns:
            the loss, a scalar.
        """
        region = resized_map(target.to(input.dtype), [input.shape[-2], input.shape[-1]])
        unchanged = region.amax(dim=(1, 2, 3)) == 0
        # a small batch may hold changed images only: then what lies outside the regions stands for normal
        images, changed = summed(unchanged.sum(), (region > 0.5).sum())
        normal = shared_mean(input[unchanged] if images > 0 else input[region == 0])
        scale = (summed(normal)[0] / idist.get_world_size()).to(normal.dtype)
        loss = normal / scale
        if self.push > 0 and changed > 0:
            short = (self.margin * scale - input[region > 0.5]) / (self.temperature * scale)
            loss = loss + self.push * shared_mean(F.softplus(short))
        return loss


class MeanDistanceLoss(nn.Module):
    """Mean of the soft top-k distances over patches and images (ADFA Eq. 5); normal images need no target."""

    def forward(self, input: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            input: map of distances, shape ``(B, 1, H, W)``.
            target: ignored; it is here so that stock trainers accept the loss.

        Returns:
            the mean, a scalar.
        """
        return input.mean()
