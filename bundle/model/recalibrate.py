# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Another calibration for a trained model: from images of one's own hospital, or for another operating point."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from monai.utils import CommonKeys

from bundle.files import atomic_path
from bundle.lists.near_copies import near_copies
from bundle.lists.patients import items_digest
from bundle.model.feature_cells import FeatureCells
from bundle.model.predict import Model
from bundle.model.training_set import (
    blank_reason,
    check_one_kind,
    describe_training_set,
    distance_of,
)
from bundle.model.write_file import rewrite_model
from bundle.reading.formats import split_frame
from bundle.rules import number_in

__all__ = ["Recalibrated", "Recalibration", "recalibrate"]

logger = logging.getLogger(__name__)
EXPORTED = (".ts", ".pt2", ".onnx")


class Recalibration(Protocol):
    """
    A family's part of a recalibration, which its configuration names ``recalibration``.

    Attributes:
        wishes: names of what an operating point can be chosen by.
        labelled: images come with a table of labels.
    """

    wishes: tuple[str, ...]
    labelled: bool

    def without_images(self, **wishes: float) -> dict[str, Any] | None:
        """Return what the model's calibration gives for a wish."""

    def items(self, folder: Path, labels_csv: Any, allow_outside: bool) -> tuple[list[dict], list[tuple[str, str]]]:
        """Return images with ``key`` and, where labelled, ``label``; and file and reason of what is left out."""

    def check_number(self, number: int, left_out: Sequence[tuple[str, str]], folder: Path, **wishes: float) -> None:
        """Refuse too few images."""

    def numbers(self, item: dict[str, Any]) -> torch.Tensor:
        """Return what a calibration keeps of an image that the network has seen."""

    def fit(self, numbers: torch.Tensor, items: Sequence[Mapping[str, Any]], **wishes: float) -> dict[str, Any]:
        """Return the calibration."""

    def write(self, path: Path, weights: Path, calibration: Mapping[str, Any]) -> None:
        """Save it for weights."""

    def lines(self, calibration: Mapping[str, Any]) -> list[str]:
        """Return what a person is shown of it."""


@dataclass
class Recalibrated:
    """
    What a recalibration did.

    Args:
        calibration: what the new folder's calibration holds, without the SHA-256 of the weights.
        lines: what a person is shown of it.
        images: that it was fitted to; 0 where it came from what the old one keeps.
        left_out: file and reason of each image that was not used.
    """

    calibration: dict[str, Any]
    lines: list[str]
    images: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Seen:
    """What the network gave for the images of a folder."""

    items: list[dict[str, Any]] = field(default_factory=list)  # what their files and the table say, without pixels
    cells: list[torch.Tensor] = field(default_factory=list)
    numbers: list[torch.Tensor] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def recalibrate(
    model: Model,
    output_dir: str | Path,
    images: str | Path | None = None,
    labels_csv: str | Path | None = None,
    mixed_training: bool = False,
    allow_outside: bool = False,
    another_kind: bool = False,
    **wishes: float | None,
) -> Recalibrated:
    """
    Write a model folder with the same weights and another calibration; the old folder stays as it is.

    With images, scores or logits are made anew, as inference makes them, and the folder says that it is for images like
    these. Without images, the operating point is chosen from what the old calibration keeps.

    Args:
        model: to recalibrate.
        output_dir: of the new folder; it must not exist, or be empty.
        images: folder of normal images (ADFA), or of labelled ones (the other families). None may have been trained on.
            Near copies count once; of a file of several normal frames, the middle one counts.
        labels_csv: labels of ``images``, see :py:func:`bundle.lists.load_label_table`, for the other families only;
            rows of the split ``training`` are left out.
        mixed_training: allow images of more than one modality, or gray and color ones.
        allow_outside: take images by links out of the folder too.
        another_kind: allow images of which most are outside of what the model was trained on.
        **wishes: operating point, in (0, 1): ``false_alarm_rate`` of ADFA, of which ``None`` keeps that of the old
            calibration, or takes 0.1; ``sensitivity`` or ``specificity`` that each finding's is to promise, for the
            other families, without which it is the largest sum of both.

    Returns:
        what was done.

    Raises:
        ValueError: When something is asked for that the family has not, there are too few images for what was asked,
            or a folder is refused.

    Example:
        ``recalibrate(bundle.load_model("OUT"), "NEW", "our_normals", false_alarm_rate=0.05)``
    """
    images = None if images is None else Path(images).expanduser()
    wished = {name: wish for name, wish in wishes.items() if wish is not None}
    if model.setting("overridden"):
        name = model.file.folder.name
        raise ValueError(f"'{name}' was loaded with settings that contradict it: no calibration is made for these.")
    part: Recalibration = model.setting("recalibration")
    _check_asked(model, part, images, labels_csv, wished)
    folder = _new_folder(output_dir, model.file.folder)
    training_set = model.file.training_set
    if images is None:
        calibration = part.without_images(**wished) or {}  # a wish without calibration is refused
        done = Recalibrated(calibration, part.lines(calibration))
    else:
        if training_set is None:
            raise ValueError(f"'{model.file.folder.name}' is of a network that was not trained: nothing to calibrate.")
        items, left_out = part.items(images, Path(labels_csv or ""), allow_outside)
        items, copies = _counted_once(items)
        part.check_number(len(items), left_out + copies, images, **wished)
        seen = _seen(model, items, part)
        left_out += copies + seen.left_out
        part.check_number(len(seen.items), left_out, images, **wished)
        calibration = part.fit(torch.stack(seen.numbers), seen.items, **wished)
        done = Recalibrated(calibration, part.lines(calibration), len(seen.items), left_out)
        check_one_kind(seen.items, mixed_training)
        if not another_kind:
            _check_kind(training_set, seen, images)
        training_set = _training_set_of(training_set, seen, mixed_training)
    _write(model, part, folder, done.calibration, training_set)
    return done


def _check_asked(
    model: Model, part: Recalibration, images: Path | None, labels_csv: Any, wishes: Mapping[str, float]
) -> None:
    name, family = model.file.folder.name, model.file.family
    options = [f"--{wish}" for wish in part.wishes]
    if unfit := [wish for wish in wishes if wish not in part.wishes]:
        raise ValueError(
            f"--{unfit[0]} is not for the family {family}, which '{name}' is of: give {' or '.join(options)}."
        )
    if len(wishes) > 1:
        raise ValueError(f"one of {' and '.join(options)} can be wished for, got {list(wishes.values())}.")
    for wish, value in wishes.items():
        number_in(wish, value, 0, 1, without_low=True, without_high=True)
    if labels_csv and not part.labelled:
        raise ValueError(f"--labels_csv is not for the family {family}, whose calibration takes normal images alone.")
    if part.labelled and (images is None) != (not labels_csv):
        raise ValueError("--recalibrate and --labels_csv must be given together for a model of findings.")
    if images is None and not wishes:
        raise ValueError(f"nothing to do for '{name}': give --recalibrate DIR, {' or '.join(options)}, or both.")
    if images is not None and not images.is_dir():
        raise ValueError(f"--recalibrate must be a folder of images, got '{images}'.")


def _new_folder(output_dir: str | Path, old: Path) -> Path:
    folder = Path(output_dir).expanduser()
    if folder.resolve().is_relative_to(old.resolve()):
        raise ValueError(f"output_dir must lie outside of the model's folder '{old.name}', got '{output_dir}'.")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir must be a folder, '{output_dir}' is a file.")
    if folder.is_dir() and (there := sorted(path.name for path in folder.iterdir())):
        raise ValueError(f"output_dir must not exist or be empty, '{output_dir}' holds '{there[0]}'.")
    return folder


def _seen(model: Model, items: Sequence[dict[str, Any]], part: Recalibration) -> _Seen:
    """Run the network as inference does, and keep numbers alone."""
    seen = _Seen()

    def collect(item: dict[str, Any]) -> None:
        meta = item[CommonKeys.IMAGE].meta
        finite = bool(item["numbers"].isfinite().all())
        reason = blank_reason(meta) or ("" if finite else "what the network gives for it must be finite, it is not")
        if reason:
            seen.left_out.append((str(meta["filename_or_obj"]), reason))
            return
        seen.items.append({"image": SimpleNamespace(meta=meta), "key": item["key"], "label": labels[item["key"]]})
        seen.numbers.append(item["numbers"])
        if item.get("feature_cells") is not None:
            seen.cells.append(torch.as_tensor(item["feature_cells"]).cpu())

    labels = {item["key"]: item.get("label") for item in items}
    read = [{"image": item["image"], "key": item["key"]} for item in items]
    numbered = lambda item: {**item, "numbers": part.numbers(item)}  # noqa: E731
    seen.left_out += model.evaluate(read, collect, numbered, handlers=[FeatureCells(model.network)])
    return seen


def _counted_once(
    items: Sequence[dict[str, Any]],
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Return one item of each picture (and label), and the others with the reason why they are left out."""
    first = list(range(len(items)))

    def root(i: int) -> int:
        while first[i] != i:
            i = first[i]
        return i

    for one, other, _ in near_copies([item["image"] for item in items]):
        a, b = sorted((root(one), root(other)))
        first[b] = a
    kept: dict[tuple[int, str], dict[str, Any]] = {}
    copies = []
    for number, item in enumerate(items):
        original = kept.setdefault((root(number), str(item.get("label"))), item)
        if original is not item:
            name = split_frame(str(original["image"]))[0].name
            copies.append((str(item["image"]), f"shows the same picture as '{name}', which counts once"))
    return list(kept.values()), copies


def _check_kind(training_set: Mapping[str, Any], seen: _Seen, images: Path) -> None:
    """Refuse another kind of picture by its features: a model of films would learn to call ultrasound normal."""
    features = training_set["features"]
    if features is None or not seen.cells or len(seen.cells) < len(seen.items):
        return
    distances = distance_of(training_set, torch.stack(seen.cells))
    far = 0 if distances is None else int((distances > features["limit"]).sum())
    if 2 * far > len(seen.items):
        raise ValueError(
            f"{far} of {len(seen.items)} images of '{images.name}' are another kind of picture by their features than "
            "the model was trained on. Give images of the same kind; --another_kind True takes these."
        )


def _training_set_of(old: Mapping[str, Any], seen: _Seen, mixed: bool) -> dict[str, Any]:
    """Return what the new calibration is for: kinds, sizes and features of its images, and what the weights are of."""
    cells = torch.stack(seen.cells) if len(seen.cells) == len(seen.items) else None
    new = describe_training_set(seen.items, old["digest"], cells, mixed or bool(old["mixed_training"]))
    named = [{**item, "image": item["image"].meta["filename_or_obj"]} for item in seen.items]
    return {**new, "items": old["items"], "recalibrated": {"items": new["items"], "digest": items_digest(named)}}


def _write(
    model: Model,
    part: Recalibration,
    folder: Path,
    calibration: Mapping[str, Any],
    training_set: Mapping[str, Any] | None,
) -> None:
    """Write weights, calibration and, last, ``model.json``; all of them or none."""
    old, made = Path(model.file.weights), not folder.exists()
    weights, path = folder / old.name, folder / "calibration.json"
    try:
        with atomic_path(weights) as partial:
            shutil.copyfile(old, partial)
        part.write(path, weights, calibration)
        rewrite_model(model.file, folder, path, training_set)
    except BaseException:
        for file in (weights, path):
            file.unlink(missing_ok=True)
        if made:
            with suppress(OSError):
                folder.rmdir()
        raise
    if exported := sorted(file.name for file in model.file.folder.iterdir() if file.suffix in EXPORTED):
        logger.info("exported files are not copied (%s): scripts/export.py makes them again", ", ".join(exported))
