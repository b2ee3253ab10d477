# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Heatmaps for a named class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from bundle.classification.class_activation import class_activation_map, grad_cam, grad_cam_plus_plus
from bundle.networks.maps import normalized_maps

__all__ = ["EXPLANATION_NAMES", "ClassExplainer"]

EXPLANATION_NAMES = ("cam", "grad_cam", "grad_cam_plus_plus")


class ClassExplainer:
    """
    Show where a network sees a class, by CAM, Grad-CAM or Grad-CAM++.

    MONAI's Grad-CAM++ is wrong for batches, and its class of ``None`` explains a mixture of the batch's classes; here
    every image has its class and its own gradient.

    Args:
        network: classifier in evaluation mode; its attributes ``cam_layer`` and ``classifier_layer``, where it has
            them, name the defaults of the next two.
        layer: module whose output is explained, by its dotted name.
        classifier: linear layer behind the global average pooling of that output; only ``"cam"`` needs it.
        method: one of ``EXPLANATION_NAMES``.

    Raises:
        ValueError: When the method or the layer is unknown.
    """

    def __init__(
        self, network: nn.Module, layer: str | None = None, classifier: str | None = None, method: str = "grad_cam"
    ) -> None:
        if method not in EXPLANATION_NAMES:
            raise ValueError(f"method must be one of {list(EXPLANATION_NAMES)}, got '{method}'.")
        self.network, self.method = network, method
        self.layer = self._module(layer or getattr(network, "cam_layer", None))
        self.classifier = (
            self._module(classifier or getattr(network, "classifier_layer", None)) if method == "cam" else None
        )

    def _module(self, name: str | None) -> nn.Module:
        modules = dict(self.network.named_modules())
        if name not in modules:
            raise ValueError(f"layer must name a module of {type(self.network).__name__}, got '{name}'.")
        return modules[name]

    def __call__(self, image: torch.Tensor, class_index: int | torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape ``(B, C, H, W)``, as the network takes it.
            class_index: class to explain, for all images or one for each, shape ``(B,)``.

        Returns:
            heat 0..1 of every image on its own scale, shape ``(B, 1, H, W)``; 0 everywhere where nothing speaks for the
            class.
        """
        kept: list[torch.Tensor] = []

        def keep(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
            kept.append(output if output.requires_grad else output.detach().requires_grad_())
            return kept[0].clone()  # the next layer may be a ReLU that works in place

        handle = self.layer.register_forward_hook(keep)
        try:
            with torch.enable_grad():
                logits = self.network(image)
                index = torch.as_tensor(class_index, device=logits.device).expand(len(logits))
                chosen = logits.gather(1, index[:, None]).sum()
                (gradients,) = torch.autograd.grad(chosen, kept[0])
        finally:
            handle.remove()
        features = kept[0].detach()
        if self.method == "cam":
            assert isinstance(self.classifier, nn.Linear)
            maps = class_activation_map(features, self.classifier.weight.detach()[index])
        else:
            maps = (grad_cam if self.method == "grad_cam" else grad_cam_plus_plus)(features, gradients)
        maps = F.interpolate(maps.float(), size=image.shape[2:], mode="bilinear", align_corners=False)
        return normalized_maps(maps)
