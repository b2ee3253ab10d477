# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the layers of a configuration lie, and what stands in them."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from bundle.files import OWN_ROOT

__all__ = ["bundle_root", "located", "merged_layers", "read_layer"]


class _StrictLoader(yaml.SafeLoader):
    """Refuse a key that comes twice in a mapping, where YAML's own would take the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise yaml.MarkedYAMLError(problem=f"key '{key}' must come once", problem_mark=key_node.start_mark)
            keys.add(key)
        return super().construct_mapping(node, deep)


def read_layer(path: str | Path) -> dict[str, Any]:
    """
    Return the content of a configuration file, YAML or JSON.

    Args:
        path: of the file.

    Raises:
        OSError: When the file cannot be read.
        ValueError: When it is not YAML or JSON, has a key twice, or is no mapping; names file, line and rule.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(f"a configuration must be a file, got the folder '{path}'.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"a configuration must be an existing file, got '{path}'.")
    if Path(path).suffix.lower() not in (".yaml", ".yml", ".json"):
        raise ValueError(f"a configuration's name must end in .yaml, .yml or .json, got '{path}'.")
    try:
        text = Path(path).read_text(encoding="utf-8")
        if Path(path).suffix.lower() == ".json":
            content = json.loads(text, object_pairs_hook=_once)
        else:
            content = yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"'{path}'{line}: must be YAML: {error.problem or error.context}.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"'{path}' must be YAML or JSON in UTF-8: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        kind = "nothing" if content is None else type(content).__name__
        raise ValueError(f"'{path}' must hold keys and values (a mapping), it holds {kind}.")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"key '{twice[0]}' must come once")
    return dict(pairs)


def merged_layers(layers: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return layers merged as MONAI does it: later over earlier, ``+key`` adds to what is there."""
    parser = ConfigParser(config={})
    for layer in layers:
        for key, value in deepcopy(layer).items():
            merge_kv(parser, key, value)
    return parser.get()


def bundle_root(args_file: str | Path) -> Path:
    """
    Return the folder that the names in a file of arguments are relative to: the one above ``configs``, else its own.

    Args:
        args_file: path of the file.
    """
    folder = Path(args_file).parent
    if folder.resolve().name != "configs":
        return folder
    return folder.parent if folder.name == "configs" else folder.resolve().parent


def located(file: str | Path, args_file: str | Path | None = None, typed: bool = False) -> str:
    """
    Return where a configuration lies that a file of arguments, a person or a program names.

    Args:
        file: its name, absolute or relative to the bundle of ``args_file``, the working directory, or this package's
            bundle, of which the first that has it counts.
        args_file: the file of arguments, or ``None`` where there is none.
        typed: a person typed it, so that the working directory comes first.

    Raises:
        OSError: When none has it.
        ValueError: When a file of arguments names one that is neither in its own bundle nor in this package's.
    """
    roots = ([] if args_file is None else [bundle_root(args_file)]) + [Path(), OWN_ROOT]
    if typed:
        roots.insert(0, Path())
    found = next((root / file for root in roots if (root / file).is_file()), None)
    if found is None:
        if Path(file).is_dir():
            raise IsADirectoryError(f"config_file must be a file, got the folder '{file}'.")
        beside = f" ('{args_file}' names it)" if args_file is not None and not typed else ""
        raise FileNotFoundError(f"config_file must be an existing file, got '{file}'{beside}.")
    if args_file is not None and not typed:
        check_in_bundle(found, bundle_root(args_file), f"{args_file}: config_file", str(file))
    return str(found)


def check_in_bundle(path: str | Path, root: Path, what: str, shown: str) -> None:
    """
    Refuse a file outside of a bundle, and of this package's own.

    Args:
        path: of the file.
        root: folder of the bundle.
        what: names it in the message.
        shown: the value for the message.

    Raises:
        ValueError: When it lies outside.
    """
    if not any(Path(path).resolve().is_relative_to(folder) for folder in (root.resolve(), OWN_ROOT)):
        raise ValueError(f"{what} must lie in the bundle '{root.resolve().name}', got '{shown}'.")
