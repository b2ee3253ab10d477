# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Networks that remember what they were made with, so that a file can say it."""

from __future__ import annotations

import functools
import inspect
from typing import Any, TypeVar

__all__ = ["keeps_arguments"]

T = TypeVar("T", bound=type)


def keeps_arguments(network: T) -> T:
    """
    Have each instance of a network's class keep the arguments it was made with, defaults included.

    They are under ``arguments``, by name; :py:func:`bundle.model.write_model` writes them beside the weights.

    Args:
        network: the class; its ``__init__`` takes arguments by name.

    Example:
        >>> from torch import nn
        >>> @keeps_arguments
        ... class Half(nn.Module):
        ...     def __init__(self, channels: int, bias: bool = True) -> None:
        ...         super().__init__()
        >>> Half(8).arguments
        {'channels': 8, 'bias': True}
    """
    init = network.__init__  # type: ignore[misc]
    signature = inspect.signature(init)

    @functools.wraps(init)
    def remembering(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        self.arguments = dict(list(bound.arguments.items())[1:])

    network.__init__ = remembering  # type: ignore[misc]
    return network
