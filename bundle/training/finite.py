# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Numbers that no metric can be computed from are refused by name: none is left out, and none is averaged over."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

__all__ = ["check_finite", "check_probabilities", "check_targets"]


def check_finite(
    name: str, values: np.ndarray, images: Sequence[Hashable] | None = None, classes: Sequence[str] | None = None
) -> None:
    """
    Refuse values that are not finite.

    Args:
        name: what the values are.
        values: shape ``(N,)`` or ``(N, K)``.
        images: name of every image; ``None`` for its number, from 0.
        classes: name of every class.

    Raises:
        ValueError: When a value is not finite; names the first one's image and class, and says how many there are.

    Example:
        >>> check_finite("logits", np.array([[0.0, 1.0], [np.nan, 2.0]]), classes=["Mass", "Nodule"])
        Traceback (most recent call last):
        ValueError: logits must be finite, 1 of 4 are not, first: nan for image 1, class 'Mass'.
    """
    unfit = np.argwhere(~np.isfinite(values))
    if not len(unfit):
        return
    first = unfit[0]
    image = str(first[0]) if images is None else f"'{images[first[0]]}'"
    where = f"image {image}" + (f", class '{classes[first[1]]}'" if classes is not None and len(first) > 1 else "")
    count = np.asarray(values).size
    raise ValueError(
        f"{name} must be finite, {len(unfit)} of {count} are not, first: {values[tuple(first)]} for {where}."
    )


def check_targets(targets: np.ndarray, images: Sequence[Hashable] | None = None) -> None:
    """
    Refuse targets other than 0 and 1.

    Args:
        targets: any shape, the first axis is that of the images.
        images: name of every image; ``None`` for its number, from 0.

    Raises:
        ValueError: When a target is neither; names the first one's image.
    """
    unfit = np.argwhere(~np.isin(targets, (0, 1)))
    if len(unfit):
        first = unfit[0]
        image = str(first[0]) if images is None else f"'{images[first[0]]}'"
        raise ValueError(f"targets must be 0 or 1, got {targets[tuple(first)]} for image {image}.")


def check_probabilities(
    probabilities: np.ndarray,
    targets: np.ndarray,
    images: Sequence[Hashable] | None = None,
    classes: Sequence[str] | None = None,
) -> None:
    """
    Refuse probabilities that are not in 0..1, and targets other than 0 and 1.

    Args:
        probabilities: shape ``(N,)`` or ``(N, K)``.
        targets: the same shape.
        images: name of every image; ``None`` for its number, from 0.
        classes: name of every class.

    Raises:
        ValueError: When the shapes differ, or a value is out of its range or not finite.
    """
    probabilities, targets = np.asarray(probabilities), np.asarray(targets)
    if probabilities.shape != targets.shape:
        raise ValueError(
            f"probabilities and targets must have one shape, got {probabilities.shape} and {targets.shape}."
        )
    check_finite("probabilities", probabilities, images, classes)
    if len(probabilities) and not 0 <= probabilities.min() <= probabilities.max() <= 1:
        raise ValueError(
            f"probabilities must be in [0, 1], got {probabilities.min():.3g} to {probabilities.max():.3g}."
        )
    check_targets(targets, images)
