# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What was typed after ``python -m monai.bundle run``, held against the configurations that it names."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow, run
from monai.bundle.scripts import create_workflow
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from bundle.command.layers import bundle_root, check_in_bundle, located, merged_layers, read_layer
from bundle.command.option_rules import items_of
from bundle.command.options import is_switch, read_options, typed_value

__all__ = ["CommandLine", "check_settings", "listed"]

_OF_MONAI = {name for f in (run, create_workflow, ConfigWorkflow) for name in inspect.signature(f).parameters}
_HINTS = {  # what difflib cannot guess
    "made_abnormal_share": "its name is '--synthetic_anomaly_share' now.",
    "depth": "the backbone's name says it, such as '--backbone resnet50'.",
    "backbone_weights": "its name is '--weights' now.",
    "pretrained": "its name is '--weights' now.",
    "model": "a trained model is given as '--model_dir', by its folder or a shipped one's name.",
    "weights": "training starts from them; a trained model has its own, and is given as '--model_dir'.",
}
_FLAG = re.compile(r"--?[A-Za-z_+%]")
_MACRO = re.compile(r"%(.+\.(?:json|ya?ml))(?:::.*)?$", re.IGNORECASE)


class CommandLine:
    """
    The flags of a run and the configurations that they, or the file of arguments, name.

    MONAI takes any key and says nothing where no configuration knows it, so a misspelled flag would change nothing.

    Args:
        arguments: words after ``python -m monai.bundle run``.

    Raises:
        OSError: When a configuration cannot be read.
        ValueError: When one is no YAML or JSON, or lies outside of the bundle of the file of arguments.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments_given = list(arguments)
        self.flags = {name: text or "" for name, text in _flags(arguments)}
        self.args_file = self.flags.get("args_file")
        self.arguments: dict[str, Any] = read_layer(self.args_file) if self.args_file else {}
        typed = "config_file" in self.flags
        files = listed(self.flags["config_file"] if typed else self.arguments.get("config_file"))
        paths = [located(file, self.args_file, typed) for file in files]
        self.layers: dict[str, dict] = {path: read_layer(path) for path in paths}
        self.content = merged_layers(self.layers.values())

    def check(self) -> None:
        """
        Refuse flags that no configuration defines, and configurations outside of the bundle that names them.

        Raises:
            ValueError: When a flag is unknown; names the nearest known one. When a flag has no value, or a word belongs
                to none. When a configuration that a file of arguments names takes in a file outside of the bundle.
        """
        if "config_file" not in self.flags and self.args_file:
            self._check_macros(self.args_file)
        check_whole_run(self.layers, self.content, self.flags.get("run_id") or self.arguments.get("run_id", "run"))
        tracking: Any = DEFAULT_EXP_MGMT_SETTINGS.get(self.flags.get("tracking", ""), {})
        check_settings(self.flags, self.content, [*self.arguments, *tracking.get("configs", {})])
        for name, text in _flags(self.arguments_given):
            if text is None and not is_switch(name, self.content.get(name)):
                raise ValueError(f"--{name} must have a value, got none; one that begins with - needs --{name}=VALUE.")
        if stray := list(_stray(self.arguments_given)):
            raise ValueError(
                f"'{stray[0]}' belongs to no flag: a value with spaces must stand in quotes, and a list be written "
                'as one word, such as "a,b".'
            )

    def given(self) -> dict[str, Any]:
        """
        Return the settings among the flags as a person means them, without what is MONAI's own.

        Raises:
            ValueError: When a value breaks the rule of its option.
        """
        pairs = ((name, "True" if text is None else text) for name, text in _flags(self.arguments_given))
        return {
            name: typed_value(name, text, self.content.get(name.lstrip("+")))
            for name, text in pairs
            if name not in _OF_MONAI
        }

    def settings(self) -> dict[str, Any]:
        """Return what the run is set to, as it is meant, by top-level key and by flag."""
        return {**self.content, **self.arguments, **self.given()}

    def origin(self, key: str) -> str:
        """
        Return what a key's value comes from: ``the command line``, the file of arguments, a layer's path, or nothing.

        Args:
            key: id of a configuration's item, with ``::`` between its parts.
        """
        top = _parts(key)[0]
        if any(_parts(flag)[0] == top for flag in self.flags):
            return "the command line"
        if self.args_file and top in self.arguments:
            return self.args_file
        return next((file for file, layer in reversed(self.layers.items()) if top in map(_top, layer)), "")

    def _check_macros(self, args_file: str) -> None:
        for file, layer in self.layers.items():
            for key, text in _texts(layer):
                if macro := _MACRO.match(text):
                    check_in_bundle(macro.group(1), bundle_root(args_file), f"{file}: {key}: a file", text)


def check_whole_run(files: Iterable[str], content: Mapping[str, Any], run_id: str) -> None:
    """
    Refuse layers that are a part of a configuration.

    Args:
        files: their names.
        content: what they hold together.
        run_id: key of what is run.

    Raises:
        ValueError: When nothing has that key; says what to start instead.
    """
    if re.split("::|#", run_id)[0] not in content:
        raise ValueError(
            f"'{', '.join(files)}' is a part of a configuration, without '{run_id}': start a whole one, such as "
            "--args_file configs/args_adfa_train.yaml."
        )


def check_settings(settings: Mapping[str, Any], content: dict, others: Iterable[str] = ()) -> None:
    """
    Refuse settings that a configuration does not define, and those that contradict the model that it uses.

    A setting of the model's network is none of the configuration, which takes the network from the model: it may be
    given, with the value that it has.

    Args:
        settings: values, or texts as they were typed, by id of an item, with ``::`` between its parts.
        content: the configuration, merged.
        others: keys that are known besides, as MONAI's own are.

    Raises:
        ValueError: When a key is unknown; names the nearest known one. When the model has another value.
    """
    known = {*content, *others, *_OF_MONAI} - {"model"}  # which is made of model_dir
    model = None
    for key, value in settings.items():
        name = key.lstrip("+")
        if name not in {*known, "model"} and name.isidentifier() and "model" in content:
            model = model or _model(settings, content)
            if model is not None and name in model.settings:
                model.check(name, typed_value(name, value) if isinstance(value, str) else value)
                continue
        _check_key(name, content, known)


def _model(settings: Mapping[str, Any], content: dict) -> Any:
    """Return what the folder that a run names says of its model, ``None`` where it names none."""
    own = read_options({key: value for key, value in settings.items() if key in content}, content)
    try:
        return ConfigParser({**content, **own}).get_parsed_content("model")
    except (RuntimeError, ValueError):  # MONAI's, around ours: the run itself ends with it
        return None


def _check_key(key: str, content: Any, known: set[str]) -> None:
    """Refuse a key whose parts are not found; arguments of a component are its own business, and it refuses them."""
    choices = known
    for part in _parts(key):
        if part not in choices:
            near = difflib.get_close_matches(part, sorted(choices), n=1, cutoff=0.5)
            meant = _HINTS.get(part) or (
                f"did you mean '--{key.replace(part, near[0])}'?" if near else "the configurations define none like it."
            )
            raise ValueError(f"'--{key}' is no setting of this run: {meant}")
        if isinstance(content, dict):
            content = content.get(part)
        elif isinstance(content, list):
            content = content[int(part)]
        if isinstance(content, list):
            choices = {str(index) for index in range(len(content))}
        elif isinstance(content, dict) and "_target_" not in content:
            choices = set(map(str, content))
        else:
            return


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield name and text of each flag as Python Fire reads them, ``--name value`` or ``--name=value``."""
    for word, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        if _FLAG.match(word):
            name, sign, value = word.lstrip("-").partition("=")
            without = _FLAG.match(following) or following == "--"
            yield name.replace("-", "_"), value if sign else None if without else following


def _stray(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the words after the first flag that are neither a flag nor the value of one."""
    first = next((i for i, word in enumerate(arguments) if _FLAG.match(word)), len(arguments))
    for before, word in zip(arguments[first:], arguments[first + 1 :], strict=False):
        takes_next = _FLAG.match(before) and "=" not in before
        if not _FLAG.match(word) and not takes_next and word != "--":
            yield word


def listed(value: Any) -> list[str]:
    """Return the file names of a list, of its text, or of one name."""
    if isinstance(value, str):
        return [value] if Path(value).is_file() else items_of(value)
    return [] if value is None else [str(name) for name in value] if isinstance(value, list | tuple) else [str(value)]


def _parts(key: str) -> list[str]:
    return re.split("::|#", key)


def _top(key: str) -> str:
    return _parts(key.lstrip("+"))[0]


def _texts(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield id and text of every text in a configuration."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in pairs:
        yield from _texts(value, f"{key}::{name}" if key else str(name))
    if isinstance(content, str):
        yield key, content
