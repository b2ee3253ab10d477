# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The file of a calibration: parsed, checked for what all families share, and written."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bundle.files import atomic_path, file_sha256
from bundle.rules import is_number, shown

__all__ = ["check_order", "checked_calibration", "parse_calibration", "read_calibration_file", "write_calibration_file"]

logger = logging.getLogger(__name__)
_SHA256 = re.compile("[0-9a-f]{64}")


def read_calibration_file(
    path: str | Path, weights_sha256: str | None, check: Callable[[Any, str], dict[str, Any]], without: str
) -> dict[str, Any] | None:
    """
    Read a calibration, or return ``None`` with a warning where there is none.

    Args:
        path: of :py:func:`write_calibration_file`.
        weights_sha256: of the checkpoint in use; ``None`` skips the comparison.
        check: the family's, of the content and the name of the file, see :py:func:`checked_calibration`.
        without: what follows where there is no file, for the warning.

    Raises:
        ValueError: When the file is malformed, or belongs to other weights.
    """
    source = Path(path)
    if not source.is_file():
        logger.warning("no calibration%s: %s", f" '{source.name}'" if source.name else "", without)
        return None
    content = check(parse_calibration(source.read_bytes(), source.name), source.name)
    if weights_sha256 not in (None, content["weights_sha256"]):
        raise ValueError(f"'{source.name}' belongs to other weights than those in use; calibrate again.")
    return content


def write_calibration_file(
    path: str | Path,
    weights: str | Path,
    parts: Mapping[str, Any],
    check: Callable[[Any, str], dict[str, Any]],
) -> dict[str, Any]:
    """
    Save a calibration, a line a part; the file is complete or absent.

    Args:
        path: JSON file to write.
        weights: the checkpoint that it belongs to.
        parts: the family's.
        check: see :py:func:`read_calibration_file`.

    Returns:
        what was written: the parts, and ``weights_sha256``.

    Raises:
        ValueError: When a part is unfit; nothing is written then.
    """
    content = {"weights_sha256": file_sha256(weights), **parts}
    check(content, Path(path).name)
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
    with atomic_path(path) as partial:
        partial.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return content


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


def checked_calibration(
    content: Any, source: str, names: Sequence[str], check: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """
    Return a family's calibration after what all share was checked: every part is there, and whose weights they are of.

    Args:
        content: of a file, or made by a program.
        source: name of the file, for messages.
        names: of the family's parts.
        check: of the content; raises a ``ValueError`` with the rule, else returns the parts.

    Returns:
        ``weights_sha256`` and what ``check`` returned.

    Raises:
        ValueError: When a part is missing or unfit; names the file.
    """
    names = ["weights_sha256", *names]
    try:
        if not isinstance(content, Mapping):
            raise ValueError(f"it must hold {', '.join(names)}, got {shown(content)}.")
        if missing := [name for name in names if name not in content]:
            raise ValueError(f"'{missing[0]}' is missing.")
        sha256 = content["weights_sha256"]
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise ValueError(f"weights_sha256 must be 64 hexadecimal digits, got {shown(sha256)}.")
        return {"weights_sha256": sha256, **check(content)}
    except ValueError as error:
        raise ValueError(f"'{source}' is no calibration: {error}") from None


def check_order(name: str, values: Any, descending: bool = False) -> list[float]:
    """
    Return one or more finite numbers in order; equal neighbors are allowed.

    Args:
        name: for messages.
        values: a list.
        descending: they fall.

    Raises:
        ValueError: When they are no list of finite numbers, or in another order.

    Example:
        >>> check_order("scores", [1, 2, 2])
        [1.0, 2.0, 2.0]
    """
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"{name} must be a list of one or more numbers, got {shown(values)}.")
    for value in values:
        if not is_number(value):
            raise ValueError(f"{name} must be finite numbers, got {shown(value)} among them.")
    for low, high in pairwise(values[::-1] if descending else values):
        if low > high:
            order = "fall" if descending else "ascend"
            raise ValueError(f"{name} must {order}, got {shown(high)} beside {shown(low)}.")
    return [float(value) for value in values]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(n for n in names if names.count(n) > 1)}' is given twice")
    return found
