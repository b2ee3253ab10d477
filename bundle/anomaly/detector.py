# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The methods that detect what is abnormal, by name."""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import torch

from bundle.anomaly.adfa import ADFA
from bundle.anomaly.normals import Normals
from bundle.anomaly.padim import PaDiM
from bundle.anomaly.patch_memory import PatchMemory

__all__ = ["METHODS", "Detector", "make_detector"]


class Detector(Protocol):
    """
    What a method is: an ``nn.Module`` decorated with :py:func:`bundle.networks.arguments.keeps_arguments`.

    An image-level distance is a map of one position.

    All that it learns is in parameters and buffers of a shape known at construction. One without a parameter that takes
    a gradient is not trained, only fitted. Its class is in ``METHODS`` here and in ``NETWORKS`` of this package, and a
    setting that is new has its lines in ``configs/adfa_train.yaml``.

    Attributes:
        backbone: a frozen :py:class:`bundle.networks.FeatureBackbone`, whose maps training may look up.
        feature_layer: name of the layer whose last map says what kind of picture an image is.
    """

    backbone: Any
    feature_layer: str

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map of distances to normal, ``(B, 1, h, w)``, not below 0, of images ``(B, 3, H, W)``."""

    def parts(self, image: torch.Tensor) -> torch.Tensor:
        """Return the distances that the map is made of, ``(B, P, h, w)``; the map itself where there is but one."""

    def join(self, parts: torch.Tensor) -> torch.Tensor:
        """Return the map ``(B, 1, h, w)`` of the parts."""

    def fit_join(self, parts: torch.Tensor) -> None:
        """Bring the parts to one unit, from those ``(N, P, h, w)`` of normal images that nothing was fitted to."""

    def fit(self, normals: Normals, **settings: Any) -> None:
        """
        Estimate from normal images all that takes no gradient; whatever was estimated before is replaced.

        Args:
            normals: as the network takes them.
            **settings: of the fit, of which each method takes its own.
        """


METHODS: dict[str, Any] = {"adfa": ADFA, "padim": PaDiM, "patch_memory": PatchMemory}


def make_detector(method: str = "adfa", **settings: Any) -> Any:
    """
    Return the network of a method, before it is fitted.

    Args:
        method: one of ``METHODS``.
        **settings: arguments of the methods; another method's may be there with their default.

    Returns:
        a :py:class:`Detector`.

    Raises:
        ValueError: When the method is unknown, or a setting was changed that only another method has.

    Example:
        >>> make_detector("padim", image_size=(32, 32), weights=None, k=3).map_size
        [4, 4]
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got '{method}'.")
    own = inspect.signature(METHODS[method]).parameters
    for name, value in settings.items():
        owners = {} if name in own else {m: inspect.signature(made).parameters for m, made in METHODS.items()}
        for owner, parameters in owners.items():
            if name in parameters and value != parameters[name].default:
                raise ValueError(f"{name} {value} is a setting of method {owner}, {method} has none of this name.")
    return METHODS[method](**{name: value for name, value in settings.items() if name in own})
