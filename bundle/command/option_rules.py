# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Rules of options: each takes what a person wrote and returns what it means.

A value that breaks a rule raises a ``BrokenRuleError``, which says what the option must be.

Example:
    >>> whole(1)("3"), between(0, 1)("0.5"), list_of_names("classes")("[a, b]"), size_rule("224x160")
    (3, 0.5, ['a', 'b'], [224, 160])
    >>> between(0, 1)("2")
    Traceback (most recent call last):
    bundle.command.option_rules.BrokenRuleError: a number in [0, 1]
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

__all__ = [
    "BrokenRuleError",
    "Rule",
    "between",
    "boolean_rule",
    "device_rule",
    "is_nothing",
    "items_of",
    "list_of_names",
    "list_of_numbers",
    "path_rule",
    "size_rule",
    "some_or_no_names",
    "text_rule",
    "whole",
]

_NONE = frozenset({"None", "null", "~"})  # not "none", which is a word of some options
_WORD = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^,]*?))\s*(?:,|$)""")

Rule = Callable[[Any], Any]


class BrokenRuleError(ValueError):
    """A value that an option cannot have; says what the option must be."""


def is_nothing(value: Any) -> bool:
    """Return whether a value, or the word for it, is none."""
    return value is None or (isinstance(value, str) and value.strip() in _NONE)


def path_rule(value: Any, or_nothing: bool) -> Any:
    """Return a path as text; ``None`` where it may be nothing and is."""
    if or_nothing and is_nothing(value):
        return None
    if value is None or not isinstance(value, str | os.PathLike):
        raise BrokenRuleError("a path")
    return os.fspath(value)


def text_rule(value: Any) -> Any:
    """Return a text, or ``None`` for nothing."""
    if is_nothing(value):
        return None
    if isinstance(value, list | tuple | dict | bool):
        raise BrokenRuleError("a text")
    return str(value)


def boolean_rule(value: Any) -> bool:
    """Return what one of the words for true and false means."""
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(value, str):
        value = words.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise BrokenRuleError("True or False")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def whole(low: int, or_nothing: bool = False) -> Rule:
    """Return the rule of a whole number."""

    def rule(value: Any) -> int | None:
        if or_nothing and is_nothing(value):
            return None
        number = _number(value)
        if not (math.isfinite(number) and number.is_integer() and number >= low):
            raise BrokenRuleError(f"a whole number of at least {low}" + (" or null" if or_nothing else ""))
        return int(number)

    return rule


def between(low: float, high: float = math.inf, ends: str = "[]", or_nothing: bool = False) -> Rule:
    """Return the rule of a number in an interval; a round bracket leaves out that end."""
    words = f"in {ends[0]}{low:g}, {high:g}{ends[1]}"
    if high == math.inf:
        words = f"above {low:g}" if ends[0] == "(" else f"of at least {low:g}"

    def rule(value: Any) -> float | None:
        if or_nothing and is_nothing(value):
            return None
        number = _number(value)
        above = number > low if ends[0] == "(" else number >= low
        below = number < high if ends[1] == ")" else number <= high
        if not (math.isfinite(number) and above and below):
            raise BrokenRuleError(f"a number {words}" + (" or null" if or_nothing else ""))
        return int(value) if isinstance(value, int) else number

    return rule


def items_of(value: Any) -> list[Any]:
    """Return the items of a list or of a text in any of the ways a list is written."""
    if not isinstance(value, str):
        return list(value) if isinstance(value, Iterable) and not isinstance(value, Mapping) else [value]
    text = value.strip()
    if text[:1] + text[-1:] in ("[]", "()"):
        text = text[1:-1].strip()
    items, place = [], 0
    while place < len(text):
        word = _WORD.match(text, place)
        assert word is not None  # its last part takes anything
        items.append(next((part for part in word.groups() if part is not None), ""))
        place = word.end()
    return items


def list_of_names(of: str, choices: Callable[[], Iterable[str]] | None = None) -> Rule:
    """Return the rule of a list of names, no two alike."""

    def rule(value: Any) -> list[str]:
        items = items_of(value)
        if any(isinstance(item, bool) for item in items):
            raise BrokenRuleError(
                f"the names of {of}; YAML takes yes, no, on and off for booleans unless they are in quotes"
            )
        names = [str(item).strip() for item in items]
        known = list(choices()) if choices else []
        if known and set(names) - set(known):
            raise BrokenRuleError(f"some of {', '.join(known)}")
        if not names or not all(names) or isinstance(value, Mapping) or value is None:
            raise BrokenRuleError(f'the names of {of}, such as "a,b" or [a, b]')
        if len(set(names)) < len(names):
            raise BrokenRuleError(f"different names of {of}")
        return names

    return rule


def some_or_no_names(of: str, choices: Callable[[], Iterable[str]] | None = None) -> Rule:
    """Return the rule of a list of names that may be empty."""
    rule = list_of_names(of, choices)
    return lambda value: [] if items_of(value) == [] else rule(value)


def list_of_numbers(rule_of_each: Rule) -> Rule:
    """Return the rule of a list of numbers, one at least."""

    def rule(value: Any) -> list[float]:
        items = items_of(value)
        try:
            if not items:
                raise BrokenRuleError("")
            return [rule_of_each(item) for item in items]
        except BrokenRuleError as error:
            raise BrokenRuleError(f"a list of which each is {error}" if str(error) else "a list of numbers") from None

    return rule


def size_rule(value: Any) -> list[int] | None:
    """Read height and width; one number is a square."""
    if is_nothing(value):
        return None
    items = re.split(r"\s*x\s*", value.strip()) if isinstance(value, str) and "x" in value else value
    try:
        sides = [whole(1)(side) for side in items_of(items)]
    except BrokenRuleError:
        sides = []
    if len(sides) not in (1, 2):
        raise BrokenRuleError("height and width in pixels, such as 224, 224x224 or [224, 224]")
    return [side for side in (sides * 2)[:2] if side is not None]


def device_rule(value: Any) -> Any:
    """Return the name of a device that is there; what is no text is a device already."""
    if isinstance(value, torch.device):
        return value
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError):
        device = None
    here = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    here += ["mps"] if torch.backends.mps.is_available() else []
    if device is None or not any(str(device) in (name, name.partition(":")[0]) for name in here):
        raise BrokenRuleError(f"one of this machine's ({', '.join(here)})")
    return str(device)
