# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What a person may write for each option of a run, and what it means: read and checked before anything is built."""

from __future__ import annotations

import ast
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import yaml

from bundle.command.option_rules import (
    BrokenRuleError,
    Rule,
    between,
    boolean_rule,
    device_rule,
    is_nothing,
    list_of_names,
    list_of_numbers,
    path_rule,
    size_rule,
    some_or_no_names,
    text_rule,
    whole,
)

__all__ = ["PATHS", "is_switch", "literal", "protected", "read_option", "read_options", "typed_value"]

# options that name a file or a folder: always a plain value, never an expression
PATHS = frozenset(
    "input dataset_dir output_dir model_dir ckpt_path calibration_path labels_csv boxes_path exported start_from "
    "init_from prior_path feature_cache weights recalibrate tracking_uri bundle_root input_root".split()
)
# paths that may also be nothing, which their configurations write as null
_OR_NOTHING = frozenset({"feature_cache", "weights", "recalibrate"})
_TEXTS = frozenset({"title", "secret", "normal_class", "explained_class", "experiment_name", "run_name"})
_EXPRESSIONS = ("$", "@", "%")


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
    if is_nothing(text):
        return None
    for read in (ast.literal_eval, yaml.safe_load):
        with suppress(ValueError, SyntaxError, yaml.YAMLError, MemoryError, RecursionError):
            value = read(text)
            return text if isinstance(value, str) else value
    return text


def is_switch(key: str, default: Any) -> bool:
    """Return whether an option is true or false."""
    return isinstance(default, bool) or _RULES.get(key) is boolean_rule


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
            return path_rule(value, key in _OR_NOTHING)
        if key in _TEXTS:
            return text_rule(value)
        if isinstance(value, str) and value.startswith(_EXPRESSIONS) and key != "classes":
            return value
        if isinstance(value, dict) and "_target_" in value:  # a component that gives the value
            return value
        if isinstance(default, bool):
            return boolean_rule(value)
        return _RULES[key](value) if key in _RULES else value
    except BrokenRuleError as error:
        raise ValueError(f"{key} must be {error}, got {_shown(value)}.") from None


def _shown(value: Any) -> str:
    return "nothing" if value is None or value == "" else repr(value)


def _formats() -> Iterable[str]:
    from bundle.results.writer import FORMATS  # only a run with results needs what draws and writes them

    return FORMATS


def _adjustments() -> Iterable[str]:
    from bundle.preprocessing.adjustments import ADJUSTMENTS  # loads what filters images

    return ADJUSTMENTS


_SHARE = between(0, 1)
_RULES: dict[str, Rule] = {
    # every run
    "amp": boolean_rule,
    "progress_bar": boolean_rule,
    "device": device_rule,
    "seed": whole(0, or_nothing=True),
    "image_size": size_rule,
    "resize": size_rule,
    "adjustments": some_or_no_names("adjustments", _adjustments),
    "mean": list_of_numbers(between(-math.inf, math.inf)),
    "std": list_of_numbers(between(0, ends="(]")),
    "batch_size": whole(1),
    "num_workers": whole(0),
    "formats": list_of_names("formats", _formats),
    "notes": lambda value: [value] if isinstance(value, str) else value,
    # training
    "max_epochs": whole(1),
    "val_interval": whole(1),
    "learning_rate": between(0, ends="(]"),
    # ADFA
    "descriptor_channels": whole(0, or_nothing=True),
    "attention_weight": between(0),
    "k": whole(1),
    "epsilon": between(0),
    "map_stride": whole(1),
    "kept_channels": whole(0),
    "memory_size": whole(1),
    "smoothing": between(0),
    "top_fraction": _SHARE,
    "held_back": between(0, 1, "()"),
    "false_alarm_rate": between(0, 1, "()", or_nothing=True),
    "shrinkage": _SHARE,
    "folds": whole(2),
    "synthetic_anomaly_share": _SHARE,
    # SNA
    "classes": list_of_names("classes"),
    "frozen_stages": whole(1, or_nothing=True),
    "label_smoothing": between(0, 1, "[)"),
    "mixup_alpha": between(0),
    "averaging": between(0, 1, "[)"),
    "warmup_epochs": between(0),
    "sensitivity": between(0, 1, "()", or_nothing=True),
    "specificity": between(0, 1, "()", or_nothing=True),
    "bootstrap_samples": whole(1),
    # MSA
    "frozen": some_or_no_names("stages"),
    "preserved_layers": some_or_no_names("layers"),
    "mining_steps": whole(1),
    "mining_threshold": between(0, 1, "()"),
    "epochs_per_step": whole(1),
    "box_thresholds": list_of_numbers(between(0, 1, "()")),
    "probability_threshold": _SHARE,
    "mined_fraction": between(0, 1, "(]"),
    "preservation_weight": between(0),
    "boxes_weight": between(0),
    # detector
    "nms_overlap": between(0, 1, "(]"),
    "boxes_per_finding": whole(1),
    "pyramid_channels": whole(16),
    "box_weight": between(0),
}
