# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What an image looks like before it is fitted to a network: its size, its spread of values, its color."""

from __future__ import annotations

from typing import Any

import numpy as np
from monai.utils import convert_to_numpy

__all__ = ["display_facts"]

_PIXELS = 65536  # looked at, evenly spaced
_TINT = 0.1  # difference between channels from which a pixel is colored


def display_facts(image: Any) -> dict[str, Any]:
    """
    Return size, spread and share of color of an image.

    Args:
        image: display values 0..1, shape ``(C, rows, columns)``.

    Returns:
        ``source_size``, rows and columns; ``display_spread``, from the 1st to the 99th percentile of the values, 0..1;
        ``color_share``, the part of the pixels whose channels differ by more than a tenth.

    Example:
        >>> facts = display_facts(np.full((3, 8, 8), 0.5))
        >>> facts["display_spread"], facts["color_share"]
        (0.0, 0.0)
    """
    values = convert_to_numpy(image)
    step = max(1, int((values.shape[1] * values.shape[2] / _PIXELS) ** 0.5))
    seen = values[:, ::step, ::step]
    low, high = np.percentile(seen, (1, 99))
    return {
        "source_size": np.array(values.shape[1:]),
        "display_spread": float(high - low),
        "color_share": float((seen.max(axis=0) - seen.min(axis=0) > _TINT).mean()),
    }
