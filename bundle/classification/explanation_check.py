# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Does a heatmap depend on what the network has learned?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from bundle.training.finite import check_finite

__all__ = ["randomization_check"]


def randomization_check(
    network: nn.Module,
    explain: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    layers: Sequence[str],
    seed: int = 0,
) -> dict[str, float]:
    """
    Return how alike the heatmaps stay while the network is randomized from its output downwards.

    The cascading randomization of Adebayo et al., 2018 (arXiv:1810.03292). A heatmap that stays the same shows the
    image, not the model.

    Args:
        network: trained classifier; a copy is randomized.
        explain: takes a network and images, returns maps of shape ``(B, 1, H, W)``.
        image: shape ``(B, C, H, W)``.
        layers: modules to randomize one after the other, by dotted name, the output layer first.
        seed: of the random weights.

    Returns:
        for every layer, once it and those before it are random: the mean over the images of the absolute rank
        correlation with the original map, 0..1; a constant map counts 0.

    Raises:
        ValueError: When a layer is unknown or has nothing to randomize, or a map is not finite.
    """
    trial = copy.deepcopy(network)
    original = explain(trial, image).flatten(1).cpu().numpy()
    check_finite("maps of the trained network", original)
    alike = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in layers:
            modules = dict(trial.named_modules())
            inner = [m for m in modules[name].modules() if hasattr(m, "reset_parameters")] if name in modules else []
            if not inner:
                raise ValueError(f"layer must name a module with parameters to randomize, got '{name}'.")
            for module in inner:
                module.reset_parameters()
            maps = explain(trial, image).flatten(1).cpu().numpy()
            check_finite(f"maps once '{name}' is random", maps)
            alike[name] = float(np.mean([_correlation(a, b) for a, b in zip(original, maps, strict=True)]))
    return alike


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else abs(float(spearmanr(a, b).statistic))
