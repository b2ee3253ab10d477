# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Reliability diagrams for the report."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure

__all__ = ["reliability_png"]

_COLUMNS = 4


def reliability_png(bins: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> bytes:
    """
    Return one small diagram for every class: share of positives over mean probability, a dot's area its images.

    Args:
        bins: by class, what :py:func:`bundle.classification.temperature.reliability_bins` returned: mean probability,
            share of positives and number of images of each bin; empty bins are NaN.

    Returns:
        PNG bytes.
    """
    columns = min(len(bins), _COLUMNS)
    rows = -(-len(bins) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.7 * rows), layout="constrained", dpi=110)
    axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    for axis in axes[len(bins) :]:
        axis.set_visible(False)
    for axis, (name, (mean, share, count)) in zip(axes, bins.items(), strict=False):
        axis.plot([0, 1], [0, 1], "--", color="0.6", linewidth=1)
        axis.plot(mean[count > 0], share[count > 0], color="0.75", linewidth=1)
        axis.scatter(mean, share, s=6 + 160 * count / max(count.sum(), 1), color="#2563eb", zorder=3)
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", title=name)
    figure.supxlabel("mean probability")
    figure.supylabel("share of positives")
    stream = BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
