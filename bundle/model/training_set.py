# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What a model was trained on: kinds, sizes, views and typical features, and why another image is outside of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from bundle.model.feature_cells import feature_cells
from bundle.model.typicality import cell_means, cross_fitted_distances, typical_distance
from bundle.reading.dicom.pixels import CONTRADICTION
from bundle.reading.formats import split_frame
from bundle.reading.kinds import modality_family
from bundle.rules import shown

__all__ = ["check_one_kind", "describe_training_set", "outside_reason"]

DECODERS = ("pydicom", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "python-gdcm", "Pillow", "nibabel", "itk")
LEAST_SPREAD = 0.02  # of display values 0..1, between the 1st and the 99th percentile
COLOR_SHARE = 0.1  # of the pixels, from which a picture is one in color: marks and a slight tint are none
CODE_STRING = re.compile("[A-Z0-9][A-Z0-9_ ]{0,15}")  # of modality and view, PS3.5 6.2
_WORDS = {"modality": "DX or US", "view": "PA or AP"}
SHRUNK, STRETCHED = 0.5, 2.0  # of the training images' smallest side and range of aspects
# of the features, chosen on brainmri, busi, nih and zhanglab with photographs as the other kind (docs/model.md)
LEAST_LIMIT, MARGIN, LEAST_IMAGES = 1.45, 1.25, 10


def describe_training_set(
    items: Sequence[Mapping[str, Any]],
    digest: str,
    features: torch.Tensor | None = None,
    mixed: bool = False,
    modality: str = "",
    view: str = "",
) -> dict[str, Any]:
    """
    Return what ``model.json`` says of the images a model was trained on; no name and no path is in it.

    Args:
        items: preprocessed, with an ``image`` that still has its metadata.
        digest: of the files, see :py:func:`bundle.lists.patients.items_digest`.
        features: cells of images that the weights were not fitted to, ``(N, 16, C)``, see
            :py:func:`bundle.model.typicality.cell_means`; fewer than ten are not used.
        mixed: more than one kind was allowed.
        modality: of the images whose files state none, such as ``US``.
        view: the same, such as ``PA``.

    Returns:
        counts of modalities, of gray and color, and of views; ranges of rows, columns and aspects; the typical
        features; versions of the decoders.
    """
    facts = [facts_of(item["image"].meta, modality, view) for item in items]
    sizes = [(fact["rows"], fact["columns"]) for fact in facts]
    return {
        "items": len({split_frame(str(item["image"].meta["filename_or_obj"])) for item in items}),
        "digest": digest,
        "mixed_training": mixed,
        "modalities": dict(sorted(Counter(modality_family(fact["modality"]) for fact in facts).items())),
        "colors": dict(sorted(Counter(fact["color"] for fact in facts).items())),
        "views": dict(sorted(Counter(fact["view"] for fact in facts).items())),
        "rows": [min(r for r, _ in sizes), max(r for r, _ in sizes)],
        "columns": [min(c for _, c in sizes), max(c for _, c in sizes)],
        "aspects": [round(min(c / r for r, c in sizes), 3), round(max(c / r for r, c in sizes), 3)],
        "features": _typical(features),
        "decoders": _versions(),
    }


def facts_of(meta: Mapping[str, Any], modality: str = "", view: str = "") -> dict[str, Any]:
    """Return modality and view, those given where the file states none, size, spread and color of an image."""
    rows, columns = (int(side) for side in meta["source_size"])  # noted by fit_to_input, as spread and color are
    return {
        "modality": str(meta.get("modality", "")) or modality,
        "view": str(meta.get("view_position", "")) or view,
        "rows": rows,
        "columns": columns,
        "spread": float(meta["display_spread"]),
        "color": "color" if float(meta["color_share"]) > COLOR_SHARE else "gray",
    }


def check_one_kind(
    items: Iterable[Mapping[str, Any]], mixed_training: bool = False, modality: str = "", view: str = ""
) -> None:
    """
    Refuse a training set of more than one modality, or of gray and color images together.

    Images that state no modality, as PNG files do, count as the one that is given for them, or as neither.

    Args:
        items: preprocessed, with an ``image`` that still has its metadata.
        mixed_training: allow it; the model's file records that.
        modality: of the images whose files state none, a word of DICOM (0008,0060) such as ``DX`` or ``US``.
        view: the same, a word of (0018,5101) such as ``PA``.

    Raises:
        ValueError: When there are several kinds and ``mixed_training`` is not true, or a word is none of DICOM's form.
    """
    for name, word in (("modality", modality), ("view", view)):
        if not isinstance(word, str) or (word and not CODE_STRING.fullmatch(word)):
            raise ValueError(f"{name} must be a word of DICOM such as {_WORDS[name]}, in capitals, got {shown(word)}.")
    if not isinstance(mixed_training, bool):
        raise ValueError(f"mixed_training must be True or False, spelled so, got '{mixed_training}'.")
    facts = [facts_of(item["image"].meta, modality) for item in items]
    for what, kinds in (
        ("modality", Counter(kind for fact in facts if (kind := modality_family(fact["modality"])))),
        ("photometric kind", Counter(fact["color"] for fact in facts)),
    ):
        if len(kinds) > 1 and not mixed_training:
            found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            raise ValueError(
                f"the training images must be of one {what}, found {found}: what is normal in one looks abnormal in "
                "another. Leave the others out, or give --mixed_training True, which the model's file will record."
            )


def outside_reason(training_set: Mapping[str, Any], meta: Mapping[str, Any], distance: float | None = None) -> str:
    """
    Return why an image is outside of what a model was trained on, or nothing.

    Only what both sides state is compared: a PNG has no modality.

    Args:
        training_set: from :py:func:`describe_training_set`.
        meta: of the image.
        distance: of its features, see :py:func:`bundle.model.typicality.typical_distance`; ``None`` where the
            network gives none.

    Returns:
        one line with the rule and the value, or ``""``.
    """
    fact = facts_of(meta)
    if reason := blank_reason(meta):
        return reason
    for what, counts, value in (
        ("modality", training_set["modalities"], modality_family(fact["modality"])),
        ("view", training_set["views"], fact["view"]),
        ("photometric kind", training_set["colors"], fact["color"]),
    ):
        known = sum(count for name, count in counts.items() if name)
        if value and value not in counts and known > counts.get("", 0):
            trained = ", ".join(name for name in counts if name)
            return f"{what} must be one the model was trained on ({trained}), got {value}"
    least, side = min(training_set["rows"][0], training_set["columns"][0]) * SHRUNK, min(fact["rows"], fact["columns"])
    if side < least:
        return f"rows and columns must be at least {least:.0f}, half of the smallest training image's, got {side}"
    aspect, (low, high) = fact["columns"] / fact["rows"], training_set["aspects"]
    if not low / STRETCHED <= aspect <= high * STRETCHED:
        return (
            f"columns / rows must be in [{low / STRETCHED:.2f}, {high * STRETCHED:.2f}], "
            f"twice the training images' range, got {aspect:.2f}"
        )
    features = training_set["features"]
    if features is not None and distance is not None and not distance <= features["limit"]:
        return (
            f"features must be within {features['limit']:.2f} of the training images', got {distance:.2f}: "
            "another kind of picture"
        )
    return ""


def blank_reason(meta: Mapping[str, Any]) -> str:
    """Return why an image of almost one value, or one that may be a negative, cannot be assessed, or nothing."""
    if CONTRADICTION in str(meta.get("display_note", "")):
        return f"what is bright must be stated without a contradiction, got: {meta['display_note']}"
    spread = float(meta["display_spread"])
    if spread < LEAST_SPREAD:
        return f"display values must spread over at least {LEAST_SPREAD}, got {spread:.3f}: almost one value"
    return ""


def gathered_cells(network: nn.Module, batches: Iterable[Mapping[str, Any]]) -> torch.Tensor | None:
    """
    Return the feature cells of all images of a loader, ``(N, 16, C)``, or ``None`` for a network that names no layer.

    Args:
        network: with a ``feature_layer``, on its device.
        batches: with an ``image`` ``(B, 3, H, W)``.
    """
    found = [cells.cpu() for batch in batches if (cells := feature_cells(network, batch["image"])) is not None]
    return torch.cat(found) if found else None


def _typical(cells: torch.Tensor | None) -> dict[str, Any] | None:
    if cells is None or len(cells) < LEAST_IMAGES:
        return None
    mean, deviation = cell_means(cells)
    held_back = cross_fitted_distances(cells)
    limit = max(LEAST_LIMIT, MARGIN * float(held_back.max()))
    return {
        "images": len(cells),
        "limit": round(limit, 4),
        "mean": [[float(f"{value:.4g}") for value in row] for row in mean.tolist()],
        "deviation": [[float(f"{value:.4g}") for value in row] for row in deviation.tolist()],
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in DECODERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def typical_features(training_set: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """
    Return mean and deviation of the training images' features, ``(16, C)`` each; ``None`` where the file has none.

    Args:
        training_set: from :py:func:`describe_training_set`.
    """
    features = training_set["features"]
    return None if features is None else (torch.tensor(features["mean"]), torch.tensor(features["deviation"]))


def distance_of(training_set: Mapping[str, Any], cells: torch.Tensor) -> torch.Tensor | None:
    """
    Return the distance of images from the training images' typical features, ``(B,)``.

    Args:
        training_set: from :py:func:`describe_training_set`.
        cells: of the images, ``(B, 16, C)``.
    """
    typical = typical_features(training_set)
    return None if typical is None else typical_distance(cells, *typical)
