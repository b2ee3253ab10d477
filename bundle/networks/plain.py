# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Tensors without what a subclass adds, and products without autocast."""

from __future__ import annotations

import contextlib

import torch

__all__ = ["full_precision", "network_input", "plain_tensor"]


def plain_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """
    Return a tensor of a subclass, such as MONAI's ``MetaTensor``, as a ``torch.Tensor`` with the same memory.

    A subclass may change what a method means (``MetaTensor.new_empty`` takes its sizes as one argument) and adds time
    to every operation. The gradient flows on to the tensor given. What the compiler traces is returned as it is.

    Args:
        tensor: of any shape and type.

    Returns:
        the same values, not copied.

    Example:
        >>> type(plain_tensor(torch.nn.Parameter(torch.zeros(2)))).__name__
        'Tensor'
    """
    if not torch.jit.is_scripting():  # TorchScript knows no subclass
        if type(tensor) is not torch.Tensor and not torch.compiler.is_compiling():
            return tensor.as_subclass(torch.Tensor)
    return tensor


def network_input(images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """
    Return images as a network takes them: plain, see :py:func:`plain_tensor`, and in the number type of its weights.

    Args:
        images: shape ``(B, C, H, W)``; whole numbers stay as they are, since they are no normalized image.
        weight: of the network's first or last layer.
    """
    images = plain_tensor(images)
    return images.to(weight.dtype) if images.is_floating_point() else images


def full_precision(tensor: torch.Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a context in which products of float32 on the tensor's device stay in float32 where autocast is on."""
    kind = tensor.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()
