# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What a calibration must hold to be believed; anything else is refused with file, key, rule and value."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from bundle.anomaly.conformal import conformal_threshold
from bundle.rules import is_number, number_in, shown

__all__ = ["check_anomaly_calibration", "check_class_calibration", "parse_calibration"]

_SHA256 = re.compile("[0-9a-f]{64}")
_MOST_POINTS = 1000  # of one class's curve


def parse_calibration(text: bytes, source: str) -> Any:
    """
    Return the content of a JSON file.

    Args:
        text: the file's bytes.
        source: name of the file, for messages.

    Raises:
        ValueError: When it is no JSON, is nested without end, or names a key twice in one object.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError(f"'{source}' is no calibration: it is nested too deeply.") from None
    except ValueError as error:
        raise ValueError(f"'{source}' is no calibration: {str(error).rstrip('.')}.") from None


def check_anomaly_calibration(content: Any, source: str) -> dict[str, Any]:
    """
    Return the calibration of an anomaly score, after checking every part of it.

    The threshold must be the one that the scores and the rate give, so a threshold that was changed by hand, or scores
    that were lost, are noticed.

    Args:
        content: of a file, or made by a program: ``weights_sha256``, ``scores``, ``threshold`` (``None`` where so few
            scores promise none), ``false_alarm_rate`` and ``heat_low``.
        source: name of the file, for messages.

    Returns:
        the same with ``threshold`` infinite in place of ``None``.

    Raises:
        ValueError: When a part is missing, of another type, not finite or out of range.
    """

    def refuse(error: str) -> ValueError:
        return ValueError(f"'{source}' is no calibration: {error}")

    parts = _parts(content, ("weights_sha256", "scores", "threshold", "false_alarm_rate", "heat_low"), refuse)
    try:
        _check_sha256(parts["weights_sha256"])
        rate = number_in("false_alarm_rate", parts["false_alarm_rate"], 0, 1, without_low=True, without_high=True)
        number_in("heat_low", parts["heat_low"], -math.inf)
        scores = _ascending("scores", parts["scores"])
        if parts["threshold"] is not None and not is_number(parts["threshold"]):
            raise ValueError(f"threshold must be a finite number or null, got {shown(parts['threshold'])}.")
        expected = conformal_threshold(torch.tensor(scores, dtype=torch.float64), rate)
        given = math.inf if parts["threshold"] is None else float(parts["threshold"])
        if given != expected and not math.isclose(given, expected, rel_tol=1e-9):
            wanted = "null" if math.isinf(expected) else f"{expected:g}"
            raise ValueError(
                f"threshold must be {wanted}, which its {len(scores)} scores give for a false_alarm_rate of {rate:g}, "
                f"got {shown(parts['threshold'])}."
            )
    except ValueError as error:
        raise refuse(str(error)) from None
    return {**parts, "threshold": given}


def check_class_calibration(content: Any, source: str, classes: Sequence[str]) -> dict[str, Any]:
    """
    Return the calibration of a classifier, after checking every part of it.

    Args:
        content: of a file, or made by a program: ``weights_sha256``, ``temperature``, ``thresholds`` (operating point
            by class, ``None`` for a class without one) and, where it was kept, ``roc`` (by class what
            :py:func:`bundle.classification.operating_points.roc_points` returns, or ``None``).
        source: name of the file, for messages.
        classes: names of the classes in use.

    Returns:
        ``weights_sha256``, ``temperature``, ``thresholds`` in the order of ``classes``, and ``roc``, empty where it was
        not kept.

    Raises:
        ValueError: When a part is missing, of another type, not finite or out of range, or the classes are others.
    """

    def refuse(error: str) -> ValueError:
        return ValueError(f"'{source}' is no classifier calibration: {error}")

    parts = _parts(content, ("weights_sha256", "temperature", "thresholds"), refuse)
    thresholds, roc = parts["thresholds"], {} if content.get("roc") is None else content["roc"]
    try:
        _check_sha256(parts["weights_sha256"])
        temperature = number_in("temperature", parts["temperature"], 0.01, 100)
        for name, value in (("thresholds", thresholds), ("roc", roc)):
            if not isinstance(value, Mapping):
                raise ValueError(f"{name} must be given by class, got {shown(value)}.")
    except ValueError as error:
        raise refuse(str(error)) from None
    for name, value in (("thresholds", thresholds), ("roc", roc)):
        if set(value) != set(classes) and (value or name == "thresholds"):
            rule = f"holds the classes {sorted(map(str, value))}, not {sorted(classes)}"
            raise ValueError(f"'{source}' {rule}" + (f", in '{name}'." if name == "roc" else "."))
    try:
        for label in classes:
            if thresholds[label] is not None:
                number_in(f"thresholds of '{label}'", thresholds[label], 0, 1)
            if roc and roc[label] is not None:
                _check_roc(f"roc of '{label}'", roc[label])
    except ValueError as error:
        raise refuse(str(error)) from None
    return {
        "weights_sha256": parts["weights_sha256"],
        "temperature": temperature,
        "thresholds": {label: None if thresholds[label] is None else float(thresholds[label]) for label in classes},
        "roc": {label: roc[label] for label in classes} if roc else {},
    }


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(n for n in names if names.count(n) > 1)}' is given twice")
    return found


def _parts(content: Any, names: Sequence[str], refuse: Any) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise refuse(f"it must hold {', '.join(names)}, got {shown(content)}.")
    if missing := [name for name in names if name not in content]:
        raise refuse(f"'{missing[0]}' is missing.")
    return {name: content[name] for name in names}


def _check_sha256(value: Any) -> None:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError(f"weights_sha256 must be 64 hexadecimal digits, got {shown(value)}.")


def _ascending(name: str, values: Any, descending: bool = False) -> list[float]:
    """Return one or more finite numbers in order; equal neighbors are allowed."""
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"{name} must be a list of one or more numbers, got {shown(values)}.")
    for value in values:
        if not is_number(value):
            raise ValueError(f"{name} must be finite numbers, got {shown(value)} among them.")
    way = values[::-1] if descending else values
    for low, high in pairwise(way):
        if low > high:
            order = "fall" if descending else "ascend"
            raise ValueError(f"{name} must {order}, got {shown(high)} beside {shown(low)}.")
    return [float(value) for value in values]


def _check_roc(name: str, roc: Any) -> None:
    """Refuse what is no curve of :py:func:`bundle.classification.operating_points.roc_points`."""
    lists = ("thresholds", "tpr", "fpr")
    if not isinstance(roc, Mapping) or any(part not in roc for part in ("positives", "negatives", *lists)):
        raise ValueError(f"{name} must hold positives, negatives, {', '.join(lists)}, got {shown(roc)}.")
    for part in ("positives", "negatives"):
        if isinstance(roc[part], bool) or not isinstance(roc[part], int) or roc[part] < 1:
            raise ValueError(f"{name}: {part} must be a whole number of at least 1, got {shown(roc[part])}.")
    values = {part: _ascending(f"{name}: {part}", roc[part], descending=part == "thresholds") for part in lists}
    if len({len(v) for v in values.values()}) > 1 or len(values["tpr"]) > _MOST_POINTS:
        lengths = [len(v) for v in values.values()]
        raise ValueError(f"{name} must have lists of one length, at most {_MOST_POINTS}, got {lengths}.")
    for part in lists:
        for end in (values[part][0], values[part][-1]):
            number_in(f"{name}: {part}", end, 0, 1)
