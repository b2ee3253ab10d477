# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What was typed after ``python -m monai.bundle run``, held against the configurations that it names."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser, ConfigWorkflow, run
from monai.bundle.scripts import create_workflow
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

__all__ = ["CommandLine", "check_settings"]

_OF_MONAI = {name for f in (run, create_workflow, ConfigWorkflow) for name in inspect.signature(f).parameters}
_FLAG = re.compile(r"--?[A-Za-z_+%]")
_MACRO = re.compile(r"%(.+\.(?:json|ya?ml))(?:::.*)?$", re.IGNORECASE)


class CommandLine:
    """
    The flags of a run and the configurations that they, or the file of arguments, name.

    MONAI takes any key and says nothing where no configuration knows it, so a misspelled flag would change nothing.

    Args:
        arguments: words after ``python -m monai.bundle run``.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.flags = dict(_flags(arguments))
        self.args_file = self.flags.get("args_file")
        self.arguments: dict[str, Any] = ConfigParser.load_config_file(self.args_file) if self.args_file else {}
        files = _words(self.flags.get("config_file", self.arguments.get("config_file")))
        self.layers: dict[str, dict] = {str(file): ConfigParser.load_config_file(file) for file in files}

    def check(self) -> None:
        """
        Refuse flags that no configuration defines, and configurations outside of the bundle that names them.

        Raises:
            ValueError: When a flag is unknown; names the nearest known one. When a file of arguments names a
                configuration, or such a configuration takes in a file, outside of the bundle.
        """
        if "config_file" not in self.flags and self.args_file:
            self._check_roots(Path(self.args_file))
        content = ConfigParser.load_config_files(list(self.layers))
        tracking: Any = DEFAULT_EXP_MGMT_SETTINGS.get(self.flags.get("tracking", ""), {})
        check_settings(self.flags, content, [*self.arguments, *tracking.get("configs", {})])

    def settings(self) -> dict[str, Any]:
        """Return what the run is set to, as it is written, by top-level key and by flag."""
        flags = {name: _value(text) for name, text in self.flags.items()}
        return {**ConfigParser.load_config_files(list(self.layers)), **self.arguments, **flags}

    def origin(self, key: str) -> str:
        """
        Return what a key's value comes from: ``the command line``, a configuration's path, or nothing.

        Args:
            key: id of a configuration's item, with ``::`` between its parts.
        """
        top = _parts(key)[0]
        if any(_parts(flag)[0] == top for flag in self.flags):
            return "the command line"
        return next((file for file, layer in reversed(self.layers.items()) if top in map(_top, layer)), "")

    def _check_roots(self, args_file: Path) -> None:
        folder = args_file.resolve().parent
        root = folder.parent if folder.name == "configs" else folder
        for file, layer in self.layers.items():
            if not Path(file).resolve().is_relative_to(root):
                raise ValueError(f"{args_file}: config_file must lie in the bundle '{root.name}', got '{file}'.")
            for key, text in _texts(layer):
                macro = _MACRO.match(text)
                if macro and not Path(macro.group(1)).resolve().is_relative_to(root):
                    raise ValueError(f"{file}: {key}: a file must lie in the bundle '{root.name}', got '{text}'.")


def check_settings(keys: Iterable[str], content: dict, others: Iterable[str] = ()) -> None:
    """
    Refuse keys that a configuration does not define.

    Args:
        keys: ids of items, with ``::`` between their parts.
        content: the configuration, merged.
        others: keys that are known besides, as MONAI's own are.

    Raises:
        ValueError: When a key is unknown; names the nearest known one.
    """
    known = {*content, *others, *_OF_MONAI}
    for key in keys:
        _check_key(key.lstrip("+"), content, known)


def _check_key(key: str, content: Any, known: set[str]) -> None:
    """Refuse a key whose parts are not found; arguments of a component are its own business, and it refuses them."""
    choices = known
    for part in _parts(key):
        if part not in choices:
            near = difflib.get_close_matches(part, sorted(choices), n=1, cutoff=0.5)
            meant = (
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


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield name and text of each flag as Python Fire reads them: ``--name value`` or ``--name=value``."""
    for word, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        if _FLAG.match(word):
            name, sign, value = word.lstrip("-").partition("=")
            yield name.replace("-", "_"), value if sign or _FLAG.match(following) or following == "--" else following


def _value(text: str) -> Any:
    """Return a flag's text as a configuration file would hold it."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _words(value: Any) -> list[str]:
    """Return the file names of a list, of its text, or of one name."""
    value = yaml.safe_load(value) if isinstance(value, str) else value
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
