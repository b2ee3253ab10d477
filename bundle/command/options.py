# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What a person may write for each option of a run, and what it means: read and checked before anything is built."""

from __future__ import annotations

import ast
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
import yaml

__all__ = ["PATHS", "is_switch", "items_of", "literal", "protected", "read_option", "read_options", "typed_value"]

# options that name a file or a folder: always a plain value, never an expression
PATHS = frozenset(
    "input dataset_dir output_dir model_dir ckpt_path calibration_path labels_csv boxes_path exported start_from "
    "prior_path feature_cache weights recalibrate tracking_uri bundle_root input_root".split()
)
_NONE = frozenset({"None", "null", "~"})  # not "none", which is a word of some options
# paths that may also be nothing, which their configurations write as null
_OR_NOTHING = frozenset({"feature_cache", "weights", "recalibrate"})
_TEXTS = frozenset({"title", "secret", "normal_class", "explained_class", "experiment_name", "run_name"})
_EXPRESSIONS = ("$", "@", "%")
_WORD = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^,]*?))\s*(?:,|$)""")

_Rule = Callable[[Any], Any]


class _BrokenRuleError(ValueError):
    """A value that an option cannot have; says what the option must be."""


def literal(text: str | os.PathLike) -> str:
    r"""
    Return the expression of a configuration whose value is exactly this text.

    MONAI rewrites ``#`` in a text of a configuration, and evaluates what begins with ``$``, ``@`` or ``%``; a path may
    hold all of them. Use it wherever a program sets a path of a :py:class:`monai.bundle.ConfigParser`;
    :py:class:`bundle.command.BundleWorkflow` does it for what it is given.

    Args:
        text: any text or path.

    Example:
        >>> literal("/films/@a #1")
        "$'/films/\\U00000040a \\U000000231'"
        >>> from monai.bundle import ConfigParser
        >>> ConfigParser({"input": literal("/films/@a #1")}).get_parsed_content("input")
        '/films/@a #1'
    """
    words = "".join(c if c.isalnum() or c in "/._- " else f"\\U{ord(c):08x}" for c in os.fspath(text))
    return f"$'{words}'"


def protected(value: Any) -> Any:
    """Return a value with every text that MONAI would change replaced by its :py:func:`literal` expression."""
    if isinstance(value, str) and (value.startswith(_EXPRESSIONS) or "#" in value):
        return literal(value)
    if isinstance(value, list):
        return [protected(item) for item in value]
    return value


def typed_value(key: str, text: str, default: Any = None) -> Any:
    """
    Return what a text stands for that was typed for an option, as ``--key text`` or ``key=text``.

    Args:
        key: name of the option.
        text: as it was typed.
        default: value of the configuration, whose kind decides where no rule does.

    Raises:
        ValueError: When it breaks the option's rule.

    Example:
        >>> typed_value("model_dir", "123"), typed_value("batch_size", "123"), typed_value("resize", "null")
        ('123', 123, None)
        >>> typed_value("attention_options", "{rank: 3}")
        {'rank': 3}
    """
    name = key.lstrip("+")
    if name in PATHS | _TEXTS or name in _RULES or is_switch(name, default):
        return read_option(name, text, default)
    a_word = isinstance(default, str) and not default.startswith(_EXPRESSIONS)
    if text.startswith(_EXPRESSIONS) or (a_word and text not in ("null", "~")):
        return text
    if _is_nothing(text):
        return None
    for read in (ast.literal_eval, yaml.safe_load):
        with suppress(ValueError, SyntaxError, yaml.YAMLError, MemoryError, RecursionError):
            value = read(text)
            return text if isinstance(value, str) else value
    return text


def is_switch(key: str, default: Any) -> bool:
    """Return whether an option is true or false."""
    return isinstance(default, bool) or _RULES.get(key) is _boolean


def read_options(settings: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return overriding settings as MONAI takes them, after each was checked.

    Args:
        settings: values by key; a text is read as a person means it, so ``"224x224"`` is an image size.
        content: the merged configuration that they override.

    Raises:
        ValueError: When a value breaks the rule of its option; the message has the name, the rule and the value.
    """
    found = {}
    for key, value in settings.items():
        if "::" in key or "#" in key:  # inside of a component, which refuses what it cannot take
            found[key] = value
            continue
        name = key.lstrip("+")
        read = read_option(name, value, content.get(name))
        if name in PATHS and read is not None:
            found[key] = literal(read)
        elif name == "device" and isinstance(read, str) and not read.startswith(_EXPRESSIONS):
            found[key] = f"$torch.device('{read}')"  # configurations ask it for its type
        else:
            found[key] = protected(read) if name in _TEXTS | {"classes", "notes"} else read
    return found


def read_option(key: str, value: Any, default: Any = None) -> Any:
    """
    Return the value of an option from what a person wrote for it.

    Args:
        key: name of the option.
        value: a text, or what YAML or Python made of it.
        default: value of the configuration, whose kind decides where no rule does.

    Returns:
        the value itself, which is no expression, where ``key`` is a path, a title or a list of names. Other texts that
        begin as MONAI's expressions do are left alone, and so is what has no rule.

    Raises:
        ValueError: When the value breaks the option's rule.

    Example:
        >>> read_option("classes", "[normal, pleural effusion]"), read_option("image_size", "224x224")
        (['normal', 'pleural effusion'], [224, 224])
        >>> read_option("max_epochs", "0")
        Traceback (most recent call last):
        ValueError: max_epochs must be a whole number of at least 1, got '0'.
    """
    try:
        if key in PATHS:
            return _path(value, key in _OR_NOTHING)
        if key in _TEXTS:
            return _text(value)
        if isinstance(value, str) and value.startswith(_EXPRESSIONS) and key != "classes":
            return value
        if isinstance(value, dict) and "_target_" in value:  # a component that gives the value
            return value
        if isinstance(default, bool):
            return _boolean(value)
        return _RULES[key](value) if key in _RULES else value
    except _BrokenRuleError as error:
        raise ValueError(f"{key} must be {error}, got {_shown(value)}.") from None


def _shown(value: Any) -> str:
    return "nothing" if value is None or value == "" else repr(value)


def _path(value: Any, or_nothing: bool) -> Any:
    if or_nothing and _is_nothing(value):
        return None
    if value is None or not isinstance(value, str | os.PathLike):
        raise _BrokenRuleError("a path")
    return os.fspath(value)


def _text(value: Any) -> Any:
    if _is_nothing(value):
        return None
    if isinstance(value, list | tuple | dict | bool):
        raise _BrokenRuleError("a text")
    return str(value)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip() in _NONE)


def _boolean(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(value, str):
        value = words.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise _BrokenRuleError("True or False")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _whole(low: int, or_nothing: bool = False) -> _Rule:
    """Return the rule of a whole number."""

    def rule(value: Any) -> int | None:
        if or_nothing and _is_nothing(value):
            return None
        number = _number(value)
        if not (math.isfinite(number) and number.is_integer() and number >= low):
            raise _BrokenRuleError(f"a whole number of at least {low}" + (" or null" if or_nothing else ""))
        return int(number)

    return rule


def _between(low: float, high: float = math.inf, ends: str = "[]", or_nothing: bool = False) -> _Rule:
    """Return the rule of a number in an interval; a round bracket leaves out that end."""
    words = f"in {ends[0]}{low:g}, {high:g}{ends[1]}"
    if high == math.inf:
        words = f"above {low:g}" if ends[0] == "(" else f"of at least {low:g}"

    def rule(value: Any) -> float | None:
        if or_nothing and _is_nothing(value):
            return None
        number = _number(value)
        above = number > low if ends[0] == "(" else number >= low
        below = number < high if ends[1] == ")" else number <= high
        if not (math.isfinite(number) and above and below):
            raise _BrokenRuleError(f"a number {words}" + (" or null" if or_nothing else ""))
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


def _names(of: str, choices: Callable[[], Iterable[str]] | None = None) -> _Rule:
    """Return the rule of a list of names, no two alike."""

    def rule(value: Any) -> list[str]:
        items = items_of(value)
        if any(isinstance(item, bool) for item in items):
            raise _BrokenRuleError(
                f"the names of {of}; YAML takes yes, no, on and off for booleans unless they are in quotes"
            )
        names = [str(item).strip() for item in items]
        known = list(choices()) if choices else []
        if known and set(names) - set(known):
            raise _BrokenRuleError(f"some of {', '.join(known)}")
        if not names or not all(names) or isinstance(value, Mapping) or value is None:
            raise _BrokenRuleError(f'the names of {of}, such as "a,b" or [a, b]')
        if len(set(names)) < len(names):
            raise _BrokenRuleError(f"different names of {of}")
        return names

    return rule


def _some_or_no_names(of: str, choices: Callable[[], Iterable[str]] | None = None) -> _Rule:
    names = _names(of, choices)
    return lambda value: [] if items_of(value) == [] else names(value)


def _numbers(rule_of_each: _Rule) -> _Rule:
    def rule(value: Any) -> list[float]:
        items = items_of(value)
        try:
            if not items:
                raise _BrokenRuleError("")
            return [rule_of_each(item) for item in items]
        except _BrokenRuleError as error:
            raise _BrokenRuleError(f"a list of which each is {error}" if str(error) else "a list of numbers") from None

    return rule


def _size(value: Any) -> list[int] | None:
    """Read height and width; one number is a square."""
    if _is_nothing(value):
        return None
    items = re.split(r"\s*x\s*", value.strip()) if isinstance(value, str) and "x" in value else value
    try:
        sides = [_whole(1)(side) for side in items_of(items)]
    except _BrokenRuleError:
        sides = []
    if len(sides) not in (1, 2):
        raise _BrokenRuleError("height and width in pixels, such as 224, 224x224 or [224, 224]")
    return [side for side in (sides * 2)[:2] if side is not None]


def _device(value: Any) -> Any:
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
        raise _BrokenRuleError(f"one of this machine's ({', '.join(here)})")
    return str(device)


def _formats() -> Iterable[str]:
    from bundle.results.writer import FORMATS  # only a run with results needs what draws and writes them

    return FORMATS


def _adjustments() -> Iterable[str]:
    from bundle.preprocessing.adjustments import ADJUSTMENTS  # loads what filters images

    return ADJUSTMENTS


_SHARE = _between(0, 1)
_RULES: dict[str, _Rule] = {
    # every run
    "amp": _boolean,
    "progress_bar": _boolean,
    "device": _device,
    "seed": _whole(0, or_nothing=True),
    "image_size": _size,
    "resize": _size,
    "adjustments": _some_or_no_names("adjustments", _adjustments),
    "mean": _numbers(_between(-math.inf, math.inf)),
    "std": _numbers(_between(0, ends="(]")),
    "batch_size": _whole(1),
    "num_workers": _whole(0),
    "formats": _names("formats", _formats),
    "notes": lambda value: [value] if isinstance(value, str) else value,
    # training
    "max_epochs": _whole(1),
    "val_interval": _whole(1),
    "learning_rate": _between(0, ends="(]"),
    # ADFA
    "descriptor_channels": _whole(0, or_nothing=True),
    "attention_weight": _between(0),
    "k": _whole(1),
    "epsilon": _between(0),
    "map_stride": _whole(1),
    "kept_channels": _whole(0),
    "memory_size": _whole(1),
    "smoothing": _between(0),
    "top_fraction": _SHARE,
    "held_back": _between(0, 1, "()"),
    "false_alarm_rate": _between(0, 1, "()", or_nothing=True),
    "shrinkage": _SHARE,
    "folds": _whole(2),
    "synthetic_anomaly_share": _SHARE,
    # SNA
    "classes": _names("classes"),
    "frozen_stages": _whole(1),
    "depth": _whole(1),
    "label_smoothing": _between(0, 1, "[)"),
    "mixup_alpha": _between(0),
    "averaging": _between(0, 1, "[)"),
    "warmup_epochs": _between(0),
    "sensitivity": _between(0, 1, "()", or_nothing=True),
    "specificity": _between(0, 1, "()", or_nothing=True),
    "bootstrap_samples": _whole(1),
    # MSA
    "frozen": _some_or_no_names("stages"),
    "preserved_layers": _some_or_no_names("layers"),
    "mining_steps": _whole(1),
    "mining_threshold": _between(0, 1, "()"),
    "epochs_per_step": _whole(1),
    "box_thresholds": _numbers(_between(0, 1, "()")),
    "probability_threshold": _SHARE,
    "mined_fraction": _between(0, 1, "(]"),
    "preservation_weight": _between(0),
    "boxes_weight": _between(0),
}
