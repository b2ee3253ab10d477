# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What a setting must be, in one line that names the setting, the rule and the value."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

__all__ = ["class_names", "is_number", "number_in", "shown", "true_or_false", "whole_number"]


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number: no boolean, no text, no NaN, and no integer beyond floating point."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def number_in(
    name: str, value: Any, low: float, high: float = math.inf, *, without_low: bool = False, without_high: bool = False
) -> float:
    """
    Return a setting that is a finite number in an interval.

    Args:
        name: of the setting.
        value: what was given.
        low: smallest value.
        high: largest value; infinity for none.
        without_low: ``low`` itself is not allowed.
        without_high: ``high`` itself is not allowed.

    Raises:
        ValueError: When it is no such number.

    Example:
        >>> number_in("rate", 1.5, 0, 1)
        Traceback (most recent call last):
        ValueError: rate must be in [0, 1], got 1.5.
    """
    inside = is_number(value) and low <= value <= high
    if not inside or (without_low and value == low) or (without_high and value == high):
        if math.isinf(high):
            least = "" if math.isinf(low) else f" {'above' if without_low else 'of at least'} {low:g}"
            rule = f"a finite number{least}"
        else:
            rule = f"in {'(' if without_low else '['}{low:g}, {high:g}{')' if without_high else ']'}"
        raise ValueError(f"{name} must be {rule}, got {shown(value)}.")
    return float(value)


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """
    Return a setting that is a whole number of at least ``least``.

    Raises:
        ValueError: When it is none; ``3.0`` is none either.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {shown(value)}.")
    return int(value)


def true_or_false(name: str, value: Any) -> bool:
    """
    Return a setting that is a boolean; a command line that says ``false`` hands over a word, which would be true.

    Raises:
        ValueError: When it is none.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got '{value}'.")
    return value


def class_names(classes: Any, name: str = "classes") -> tuple[str, ...]:
    """
    Return names of classes: one or more, each a word or words, no two alike, none with a comma or a line break.

    Tables and messages join names by commas, and YAML takes ``no`` and ``on`` without quotes for booleans.

    Args:
        classes: a list of words; one word is not taken for a list of letters.
        name: of the setting.

    Raises:
        ValueError: When they are none.

    Example:
        >>> class_names(["Mass", "Mass"])
        Traceback (most recent call last):
        ValueError: classes must all be different, got 'Mass' twice.
    """
    if isinstance(classes, str) or not isinstance(classes, Sequence) or not classes:
        raise ValueError(f"{name} must be a list of one or more names, got {shown(classes)}.")
    seen: set[str] = set()
    for label in classes:
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"{name} must be words (in YAML, quote what is none), got {shown(label)}.")
        if label != label.strip() or any(c == "," or not c.isprintable() for c in label):
            raise ValueError(f"{name} must have no comma, line break or outer space in a name, got {shown(label)}.")
        if label in seen:
            raise ValueError(f"{name} must all be different, got '{label}' twice.")
        seen.add(label)
    return tuple(classes)


def shown(value: Any) -> str:
    """Return a value as a message shows it: short, on one line, and at a bounded depth."""
    return reprlib.repr(value)
