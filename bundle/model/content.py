# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The parts of ``model.json``: plain values, the network's description, and the seal over all of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from torch import nn

__all__ = [
    "COMPACT_VERSION",
    "FAMILIES",
    "FORMAT",
    "FORMAT_VERSION",
    "MODEL_FILE",
    "PACKAGES",
    "WHOLE_VERSION",
    "described",
    "json_value",
    "sealed",
    "setting_text",
    "without_start",
]

MODEL_FILE = "model.json"
FORMAT = "attention-imaging-bundle model"
WHOLE_VERSION = 1
COMPACT_VERSION = 2  # weights that borrow from a package, which readers of the first do not understand
FORMAT_VERSION = COMPACT_VERSION  # up to which this version reads
FAMILIES = ("adfa", "sna", "msa", "detector")
PACKAGES = {
    "adfa": "bundle.anomaly",
    "sna": "bundle.classification",
    "msa": "bundle.localization",
    "detector": "bundle.detection",
}
# arguments that name where training started, of no use later: today's, and two of files of before, where they are null
_STARTS = ("weights", "backbone_weights", "pretrained")


def json_value(value: Any, name: str) -> Any:
    """
    Return a value as JSON holds it: tuples as lists, numbers of NumPy and torch as Python's.

    Args:
        value: of plain kinds, nested.
        name: for the error.

    Raises:
        ValueError: When something is not finite or not plain.
    """
    if isinstance(value, Mapping):
        return {str(key): json_value(item, f"{name}::{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item, f"{name}::{i}") for i, item in enumerate(value)]
    if hasattr(value, "tolist"):
        return json_value(value.tolist(), name)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}.")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"{name} must be a plain value, got {type(value).__name__}.")


def setting_text(value: Any) -> str:
    """Return the value of a setting as a person writes it."""
    return value if isinstance(value, str) else json.dumps(json_value(value, "value"))


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the content of a model's file with the SHA-256 of all its other parts, so that an edit is noticed.

    Args:
        content: with or without an older ``content_sha256``.
    """
    parts = {key: value for key, value in content.items() if key != "content_sha256"}
    words = json.dumps(parts, sort_keys=True, allow_nan=False)
    return {**parts, "content_sha256": hashlib.sha256(words.encode()).hexdigest()}


def described(network: nn.Module) -> dict[str, Any]:
    """Return the class and the arguments of a network; a network of one's own is only named."""
    kind, arguments = type(network), getattr(network, "arguments", None)
    if not kind.__module__.startswith(tuple(f"{package}." for package in PACKAGES.values())) or arguments is None:
        return {"name": f"{kind.__module__}.{kind.__qualname__}", "arguments": None}
    return {"name": kind.__name__, "arguments": json_value(without_start(arguments), "network")}


def without_start(arguments: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the arguments of a network without the one that names where its training started."""
    return None if arguments is None else {name: value for name, value in arguments.items() if name not in _STARTS}
