# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run as its layers make it, with the layer that each value comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from bundle.command.command_line import CommandLine

__all__ = ["shown_config"]

WIDTH = 60  # where the names of the layers begin


def shown_config(arguments: Sequence[str], only: Sequence[str] = ()) -> Iterator[str]:
    """
    Yield the lines of a run's configuration, each key with its layer behind it.

    Args:
        arguments: the flags of a run, as words.
        only: keys to show; none shows all.

    Raises:
        OSError: When a configuration cannot be read.
        ValueError: When a flag is unknown or breaks its rule, or ``only`` names a key that is not there.

    Example:
        >>> for line in shown_config("--args_file configs/args_adfa_train.yaml --k 5".split(), ["k", "held_back"]):
        ...     print(line)
        held_back: 0.2                                              # configs/adfa.yaml
        k: 5                                                        # the command line
    """
    line = CommandLine(arguments)
    line.check()
    settings = {name: value for name, value in line.settings().items() if name not in ("config_file", "meta_file")}
    if unknown := [key for key in only if key not in settings]:
        raise ValueError(f"the configuration has no key '{unknown[0]}'.")
    order = {file: number for number, file in enumerate(line.layers)}
    for key in sorted(settings, key=lambda key: order.get(line.origin(key), len(order))):
        if not only or key in only:
            first, *rest = _lines(key, settings[key])
            origin = line.origin(key)
            yield f"{first:<{WIDTH - 2}}  # {Path(origin).as_posix()}" if origin else first
            yield from rest


def _lines(key: str, value: Any) -> list[str]:
    """Return a key and its value as lines of YAML, one line where the value is short."""
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=120)
    lines = text.removesuffix("...\n").splitlines()
    short = len(lines) == 1 and (lines[0][0] in "[{" or not isinstance(value, dict | list))
    return [f"{key}: {lines[0]}"] if short else [f"{key}:", *(f"  {line}" for line in lines)]
