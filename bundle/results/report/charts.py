# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The report's two charts as inline SVG, colored by the page's style so that they follow light and dark."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

__all__ = ["histogram_svg", "roc_svg"]

_WIDTH, _HEIGHT = 480, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 468, 14, 274  # the frame that the axes span
_BINS = 32


def roc_svg(
    labels: Sequence[int], scores: Sequence[float], operating_point: tuple[float, float] | None = None
) -> Markup:
    """
    Return the ROC curve of anomaly scores.

    Args:
        labels: 0 normal, 1 abnormal; both present.
        scores: larger is more abnormal.
        operating_point: false positive rate and sensitivity of the verdicts, drawn as a dot.

    Raises:
        ValueError: When only one of the two classes is present.
    """
    from sklearn.metrics import roc_curve  # a second that a report without labels need not wait

    if set(labels) != {0, 1}:
        raise ValueError(f"labels must hold both 0 and 1, got {sorted(set(labels))}.")
    fpr, tpr, _ = roc_curve(labels, scores)
    points = " ".join(f"{_x(f):.1f},{_y(t):.1f}" for f, t in zip(fpr, tpr, strict=True))
    parts = [
        *_axes(
            "false positive rate (1 - specificity)", "sensitivity", (0, 0.25, 0.5, 0.75, 1), (0, 0.25, 0.5, 0.75, 1)
        ),
        f'<line class="chance" x1="{_LEFT}" y1="{_BOTTOM}" x2="{_RIGHT}" y2="{_TOP}"/>',
        f'<polygon class="area" points="{_LEFT},{_BOTTOM} {points} {_RIGHT},{_BOTTOM}"/>',
        f'<polyline class="curve" points="{points}"/>',
    ]
    if operating_point is not None:
        f, t = operating_point
        words = (f"sensitivity {t:.2f}", f"specificity {1 - f:.2f}")
        left = f < 0.6  # the words go to the side that has space
        x, y = _x(f) + (12 if left else -12), min(_y(t) + 20, _BOTTOM - 26)
        parts.append(
            f'<circle class="dot" cx="{_x(f):.1f}" cy="{_y(t):.1f}" r="6"><title>at the threshold</title></circle>'
        )
        parts += [
            f'<text x="{x:.1f}" y="{y + 17 * line:.1f}" text-anchor="{"start" if left else "end"}">{word}</text>'
            for line, word in enumerate(words)
        ]
    return _svg("ROC curve", parts)


def histogram_svg(scores: Sequence[float], labels: Sequence[int | None], threshold: float | None = None) -> Markup:
    """
    Return the distribution of scores, one color each for normal, abnormal and unlabeled images.

    Args:
        scores: at least one finite number.
        labels: 0 normal, 1 abnormal, ``None`` unknown; one a score.
        threshold: drawn as a line.
    """
    marks = [*scores] if threshold is None else [*scores, threshold]
    low, high = min(marks), max(marks)
    pad = (high - low) * 0.02 or 0.5
    edges = np.linspace(low - pad, high + pad, _BINS + 1)
    groups = {
        name: np.histogram([s for s, known in zip(scores, labels, strict=True) if known == value], bins=edges)[0]
        for name, value in (("normal", 0), ("abnormal", 1), ("unlabeled", None))
    }
    top = max(int(counts.max()) for counts in groups.values()) or 1
    headroom = 1.15  # for the words at the threshold
    span = edges[-1] - edges[0]

    def across(value: float) -> float:
        return float((value - edges[0]) / span)

    ticks = [float(tick) for tick in np.linspace(edges[0], edges[-1], 5)]
    parts = _axes(
        "score",
        "images",
        [across(t) for t in ticks],
        (0, 0.5 / headroom, 1 / headroom),
        [f"{t:.3g}" for t in ticks],
        ["0", f"{top / 2:g}", str(top)],
    )
    for name, counts in groups.items():
        for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True):
            if count:
                x, width = _x(across(start)), _x(across(end)) - _x(across(start))
                y = _y(count / top / headroom)
                parts.append(
                    f'<rect class="bar {name}" x="{x + 0.5:.1f}" y="{y:.1f}" width="{width - 1:.1f}" '
                    f'height="{_BOTTOM - y:.1f}"><title>{count} {name}, {start:.3g} to {end:.3g}</title></rect>'
                )
    if threshold is not None:
        x = _x(across(threshold))
        side = "end" if across(threshold) > 0.6 else "start"
        parts += [
            f'<line class="threshold" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_BOTTOM}"/>',
            f'<text x="{x + (-6 if side == "end" else 6):.1f}" y="{_TOP + 12}" text-anchor="{side}">'
            f"threshold {threshold:.4g}</text>",
        ]
    return _svg("Histogram of scores", parts)


def _x(fraction: float) -> float:
    return _LEFT + fraction * (_RIGHT - _LEFT)


def _y(fraction: float) -> float:
    return _BOTTOM - fraction * (_BOTTOM - _TOP)


def _axes(
    x_name: str,
    y_name: str,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_words: Sequence[str] | None = None,
    y_words: Sequence[str] | None = None,
) -> list[str]:
    """Return grid, tick labels and names of the axes; ticks are fractions of the frame."""
    parts = []
    for tick, word in zip(y_ticks, y_words or [f"{t:g}" for t in y_ticks], strict=True):
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{_y(tick):.1f}" x2="{_RIGHT}" y2="{_y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{_y(tick) + 4:.1f}" text-anchor="end">{word}</text>')
    for tick, word in zip(x_ticks, x_words or [f"{t:g}" for t in x_ticks], strict=True):
        parts.append(f'<text class="tick" x="{_x(tick):.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{word}</text>')
    middle = (_TOP + _BOTTOM) / 2
    return [
        *parts,
        f'<text class="name" x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{x_name}</text>',
        f'<text class="name" text-anchor="middle" transform="translate(14 {middle}) rotate(-90)">{y_name}</text>',
    ]


def _svg(title: str, parts: Sequence[str]) -> Markup:
    # everything inside is a number of ours or a fixed word
    return Markup(
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
    )
