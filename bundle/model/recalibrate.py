# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Another calibration for a trained model: from images of one's own hospital, or for another operating point."""

from __future__ import annotations

import logging
import math
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from monai.utils import CommonKeys, convert_to_tensor

from bundle.anomaly.calibration import heat_of_normal, with_false_alarm_rate, write_calibration
from bundle.classification.calibration import write_classifier_calibration
from bundle.classification.operating_points import roc_points, thresholds_of, with_operating_points
from bundle.classification.temperature import fit_temperature
from bundle.files import atomic_path
from bundle.lists.find import find_images
from bundle.lists.known_sets.layouts import not_normal_folders
from bundle.lists.near_copies import near_copies
from bundle.lists.patients import items_digest
from bundle.lists.table import load_label_table
from bundle.localization.erasure import erased_logits
from bundle.model.feature_cells import FeatureCells
from bundle.model.file import rewrite_model
from bundle.model.predict import Model
from bundle.model.training_set import (
    blank_reason,
    check_one_kind,
    describe_training_set,
    distance_of,
)
from bundle.reading.reader import split_frame
from bundle.results.verdicts import findings_of
from bundle.rules import number_in

__all__ = ["Recalibrated", "at_operating_point", "class_calibration", "normals_needed", "recalibrate"]

logger = logging.getLogger(__name__)
DEFAULT_RATE = 0.1
EXPORTED = (".ts", ".pt2", ".onnx")


@dataclass
class Recalibrated:
    """
    What a recalibration did.

    Args:
        calibration: what the new folder's calibration holds, without the SHA-256 of the weights.
        images: that it was fitted to; 0 where it came from what the old one keeps.
        left_out: file and reason of each image that was not used.
    """

    calibration: dict[str, Any]
    images: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Seen:
    """What the network gave for the images of a folder."""

    items: list[dict[str, Any]] = field(default_factory=list)  # what their files say, without pixels
    cells: list[torch.Tensor] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)  # score and heat of normal, or logits
    keys: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def recalibrate(
    model: Model,
    output_dir: str | Path,
    images: str | Path | None = None,
    labels_csv: str | Path | None = None,
    false_alarm_rate: float | None = None,
    sensitivity: float | None = None,
    specificity: float | None = None,
    mixed_training: bool = False,
    allow_outside: bool = False,
    another_kind: bool = False,
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
        labels_csv: labels of ``images``, see :py:func:`bundle.lists.load_label_table`; rows of the split ``train`` are
            left out. For the other families only.
        false_alarm_rate: of ADFA, in (0, 1); ``None`` keeps that of the old calibration, or takes 0.1.
        sensitivity: that the operating point of each finding is to promise, in (0, 1); for the other families.
        specificity: the same; one of them, or none for the largest sum of both.
        mixed_training: allow images of more than one modality, or gray and color ones.
        allow_outside: take images by links out of the folder too.
        another_kind: allow images of which most are outside of what the model was trained on.

    Returns:
        what was done.

    Raises:
        ValueError: When something is asked for that the family has not, there are too few images for what was asked,
            or a folder is refused.

    Example:
        ``recalibrate(bundle.load_model("OUT"), "NEW", "our_normals", false_alarm_rate=0.05)``
    """
    images = None if images is None else Path(images).expanduser()
    wishes = {"false_alarm_rate": false_alarm_rate, "sensitivity": sensitivity, "specificity": specificity}
    _check_asked(model, images, labels_csv, {name: wish for name, wish in wishes.items() if wish is not None})
    folder = _new_folder(output_dir, model.file.folder)
    training_set, saved = model.file.training_set, model.setting("saved_calibration")
    if images is None:
        chosen = at_operating_point(saved, false_alarm_rate, sensitivity, specificity, *_classes_of(model))
        done = Recalibrated(chosen or {})  # a wish without calibration is refused
    else:
        if training_set is None:
            raise ValueError(f"'{model.file.folder.name}' is of a network that was not trained: nothing to calibrate.")
        if model.file.family == "adfa":
            rate = false_alarm_rate or (saved or {}).get("false_alarm_rate", DEFAULT_RATE)
            done, seen = _of_normals(model, images, rate, allow_outside)
        else:
            rows = _labelled(model, images, Path(labels_csv or ""), allow_outside)
            done, seen = _of_labelled(model, rows, sensitivity, specificity)
        check_one_kind(seen.items, mixed_training)
        if not another_kind:
            _check_kind(training_set, seen, images)
        training_set = _training_set_of(training_set, seen, mixed_training)
    _write(model, folder, done.calibration, training_set)
    return done


def at_operating_point(
    calibration: Mapping[str, Any] | None,
    false_alarm_rate: float | None = None,
    sensitivity: float | None = None,
    specificity: float | None = None,
    classes: Sequence[str] = (),
    normal_class: str | None = None,
    probability_threshold: float | None = None,
) -> dict[str, Any] | None:
    """
    Return a calibration at another operating point, from the scores or the curves that it keeps.

    Args:
        calibration: what :py:func:`bundle.anomaly.read_calibration` or
            :py:func:`bundle.classification.read_classifier_calibration` returned.
        false_alarm_rate: of ADFA, in (0, 1).
        sensitivity: of each finding, in (0, 1).
        specificity: the same; one of them.
        classes: of the model; none for ADFA.
        normal_class: class that is no finding, which keeps the largest sum of both.
        probability_threshold: of a run, in place of all operating points.

    Returns:
        the calibration; as it is where nothing is wished for.

    Raises:
        ValueError: When there is no calibration, it cannot promise what is wished for, or two wishes contradict.

    Example:
        >>> at_operating_point({"scores": [1.0, 2.0, 3.0], "threshold": 3.0}, false_alarm_rate=0.5)["threshold"]
        2.0
    """
    given = {"false_alarm_rate": false_alarm_rate, "sensitivity": sensitivity, "specificity": specificity}
    wishes = [f"{name} {wish}" for name, wish in given.items() if wish is not None]
    if not wishes:
        return None if calibration is None else dict(calibration)
    if calibration is None:
        raise ValueError(f"{wishes[0]} needs a calibration to choose from, this model has none that applies.")
    if probability_threshold is not None:
        raise ValueError(f"{wishes[0]} contradicts probability_threshold {probability_threshold}: give one of them.")
    if false_alarm_rate is not None:
        return with_false_alarm_rate(calibration, false_alarm_rate)
    return with_operating_points(calibration, sensitivity, specificity, findings_of(classes, normal_class))


def class_calibration(
    logits: torch.Tensor,
    targets: torch.Tensor,
    classes: Sequence[str],
    exclusive: bool,
    sensitivity: float | None = None,
    specificity: float | None = None,
    normal_class: str | None = None,
    images: Sequence[str] | None = None,
) -> dict[str, Any]:
    """
    Return temperature, operating points and curves of a classifier for labelled images.

    Args:
        logits: shape ``(N, K)``.
        targets: zeros and ones, shape ``(N, K)``.
        classes: ``K`` names.
        exclusive: exactly one class holds for an image.
        sensitivity: that each finding's operating point is to promise, in (0, 1).
        specificity: the same; one of them, or none for the largest sum of both.
        normal_class: class that is no finding, which gets the largest sum of both.
        images: names, for messages.

    Returns:
        ``temperature``, ``thresholds`` and ``roc`` by class, both ``None`` for a class without images of both kinds.

    Raises:
        ValueError: When no class has images with and without it, they are too few for what is wished for, or a logit
            is not finite.
    """
    temperature = fit_temperature(logits, targets, exclusive, images, classes)
    scaled = logits.double() / temperature
    p, truth = (scaled.softmax(dim=1) if exclusive else scaled.sigmoid()).numpy(), targets.numpy()
    curves = {name: roc_points(p[:, k], truth[:, k], most=None) for k, name in enumerate(classes)}
    if not any(curves.values()):
        raise ValueError(f"a class must have images with and without it, none of {', '.join(classes)} has both.")
    return {
        "temperature": temperature,
        "thresholds": thresholds_of(curves, sensitivity, specificity, findings_of(classes, normal_class)),
        "roc": {name: roc_points(p[:, k], truth[:, k]) for k, name in enumerate(classes)},
    }


def normals_needed(false_alarm_rate: float) -> int:
    """
    Return how many normal images a false-alarm rate needs: ``n >= 1 / rate - 1`` (Vovk et al., 2005).

    Args:
        false_alarm_rate: in (0, 1).

    Raises:
        ValueError: When it is out of range.

    Example:
        >>> normals_needed(0.05), normals_needed(0.1)
        (19, 9)
    """
    number_in("false_alarm_rate", false_alarm_rate, 0, 1, without_low=True, without_high=True)
    return math.ceil((1 - 1e-9) / false_alarm_rate - 1)


def _check_asked(model: Model, images: Path | None, labels_csv: Any, wishes: Mapping[str, float]) -> None:
    name, family = model.file.folder.name, model.file.family
    if model.setting("overridden"):
        raise ValueError(f"'{name}' was loaded with settings that contradict it: no calibration is made for these.")
    other = ("sensitivity", "specificity") if family == "adfa" else ("false_alarm_rate",)
    if unfit := [wish for wish in wishes if wish in other]:
        right = "--false_alarm_rate" if family == "adfa" else "--sensitivity or --specificity"
        raise ValueError(f"--{unfit[0]} is not for the family {family}, which '{name}' is of: give {right}.")
    if len(wishes) > 1:
        raise ValueError(f"one of --sensitivity and --specificity can be wished for, got {list(wishes.values())}.")
    for wish, value in wishes.items():
        number_in(wish, value, 0, 1, without_low=True, without_high=True)
    if family == "adfa" and labels_csv:
        raise ValueError("--labels_csv is not for the family adfa, whose calibration takes normal images alone.")
    if family != "adfa" and (images is None) != (not labels_csv):
        raise ValueError("--recalibrate and --labels_csv must be given together for a model of findings.")
    if images is None and not wishes:
        options = "--false_alarm_rate" if family == "adfa" else "--sensitivity or --specificity"
        raise ValueError(f"nothing to do for '{name}': give --recalibrate DIR, {options}, or both.")
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


def _classes_of(model: Model) -> tuple[list[str], str | None]:
    return ([], None) if model.file.family == "adfa" else (model.file["classes"], model.file["normal_class"])


def _of_normals(model: Model, folder: Path, rate: float, allow_outside: bool) -> tuple[Recalibrated, _Seen]:
    # the secret only groups the images of one patient within this list, it is never written
    secret = secrets.token_hex(16)
    # the frames of a loop are much alike: all of them would promise what so many films promise
    found, refusals = find_images(folder, "middle", secret, allow_outside=allow_outside)
    if names := not_normal_folders(folder, found):
        raise ValueError(
            f"not all of '{folder.name}' can be taken for normal, it has folders named {', '.join(names[:5])}: "
            "give the folder of the normal images alone."
        )
    items, copies = _counted_once(found)
    left_out = [(str(refusal.source), refusal.reason) for refusal in refusals] + copies
    _check_number(len(items), rate, folder, left_out)
    score = model.setting("score")

    def scored(item: dict[str, Any]) -> dict[str, Any]:
        item = score(item)
        return {**item, "found": (float(item["anomaly_score"]), heat_of_normal(item["heatmap"]))}

    seen = _seen(model, items, scored)
    left_out += seen.left_out
    _check_number(len(seen.items), rate, folder, left_out)
    scores, heat = zip(*seen.outputs, strict=True)
    content = {"scores": sorted(scores), "heat_low": float(np.median(heat)), "threshold": math.inf}
    return Recalibrated(with_false_alarm_rate(content, rate), len(seen.items), left_out), seen


def _labelled(model: Model, folder: Path, labels_csv: Path, allow_outside: bool) -> list[dict[str, Any]]:
    exclusive = bool(model.file.settings.get("exclusive", False))
    rows = load_label_table(labels_csv, folder, model.file["classes"], exclusive=exclusive, allow_outside=allow_outside)
    kept = [row for row in rows if row.get("split") != "train"]
    if not kept:
        raise ValueError(f"'{labels_csv.name}' must have rows of another split than train to calibrate on.")
    return kept


def _of_labelled(
    model: Model, rows: Sequence[dict[str, Any]], sensitivity: float | None, specificity: float | None
) -> tuple[Recalibrated, _Seen]:
    labels = {row["key"]: row["label"] for row in rows}
    items, copies = _counted_once([{"image": row["image"], "key": row["key"]} for row in rows], labels)

    def logits_of(item: dict[str, Any]) -> dict[str, Any]:
        out = convert_to_tensor(item[CommonKeys.PRED]).cpu().float()
        return {**item, "found": out if out.ndim == 1 else erased_logits(out[None])[0]}

    seen = _seen(model, items, logits_of)
    if not seen.items:
        raise ValueError(f"none of {len(rows)} images can be used, first: {(copies + seen.left_out)[0][1]}")
    for item, key in zip(seen.items, seen.keys, strict=True):
        item["label"] = labels[key]
    targets = torch.tensor([item["label"] for item in seen.items], dtype=torch.float32)
    exclusive, (classes, normal_class) = bool(model.file.settings.get("exclusive", False)), _classes_of(model)
    wishes = (sensitivity, specificity, normal_class)
    calibration = class_calibration(torch.stack(seen.outputs), targets, classes, exclusive, *wishes, seen.keys)
    return Recalibrated(calibration, len(seen.items), copies + seen.left_out), seen


def _seen(model: Model, items: Sequence[dict[str, Any]], postprocessing: Any) -> _Seen:
    """Run the network as inference does, and keep numbers alone; ``found`` is what post-processing adds."""
    seen = _Seen()

    def collect(item: dict[str, Any], picture: Any) -> None:
        meta = item[CommonKeys.IMAGE].meta
        found = item["found"]
        finite = bool(torch.as_tensor(found).isfinite().all())
        reason = blank_reason(meta) or ("" if finite else "what the network gives for it must be finite, it is not")
        if reason:
            seen.left_out.append((str(meta["filename_or_obj"]), reason))
            return
        seen.items.append({"image": SimpleNamespace(meta=meta)})
        seen.outputs.append(found)
        seen.keys.append(str(item["key"]))
        if item.get("feature_cells") is not None:
            seen.cells.append(torch.as_tensor(item["feature_cells"]).cpu())

    unread = model.evaluate(items, collect, postprocessing, handlers=[FeatureCells(model.network)])
    seen.left_out += unread
    return seen


def _counted_once(
    items: Sequence[dict[str, Any]], labels: Mapping[str, Any] | None = None
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
        original = kept.setdefault((root(number), str(labels and labels[item["key"]])), item)
        if original is not item:
            name = split_frame(str(original["image"]))[0].name
            copies.append((str(item["image"]), f"shows the same picture as '{name}', which counts once"))
    return list(kept.values()), copies


def _check_number(number: int, rate: float, folder: Path, left_out: Sequence[Any]) -> None:
    needed = normals_needed(rate)
    if number < needed:
        first = f", first: {left_out[0][1].rstrip('.')}" if left_out else ""
        raise ValueError(
            f"false_alarm_rate {rate:g} needs at least {needed} normal images, '{folder.name}' has {number} "
            f"({len(left_out)} left out{first}); {number} can promise {1 / (number + 1):.3g}."
        )


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


def _write(model: Model, folder: Path, calibration: Mapping[str, Any], training_set: Mapping[str, Any] | None) -> None:
    """Write weights, calibration and, last, ``model.json``; all of them or none."""
    old, made = Path(model.file.weights), not folder.exists()
    weights, path = folder / old.name, folder / "calibration.json"
    try:
        with atomic_path(weights) as partial:
            shutil.copyfile(old, partial)
        if model.file.family == "adfa":
            heat, rate = calibration["heat_low"], calibration["false_alarm_rate"]
            write_calibration(path, weights, calibration["scores"], heat, rate)
        else:
            parts = (calibration[name] for name in ("temperature", "thresholds", "roc"))
            write_classifier_calibration(path, weights, *parts)
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
