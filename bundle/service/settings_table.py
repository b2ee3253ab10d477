# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Every setting of the service as a table in Markdown, made of the classes that hold them."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import MISSING, Field, fields, is_dataclass

from bundle.service import settings as parts

__all__ = ["settings_table"]

_NAMES = {
    "Settings": "The file",
    "ServedModel": "`models`, each",
    "Node": "`destinations`, each",
    "Peer": "`peers`, each",
    "Source": "`sources`, each",
    "Tls": "`tls`",
    "Page": "`page`",
    "Health": "`health`",
    "Audit": "`audit`",
}


def settings_table() -> str:
    """Return a heading and a table for each part of the settings file."""
    return "\n".join(_part(name, title) for name, title in _NAMES.items())


def _part(name: str, title: str) -> str:
    kind = getattr(parts, name)
    words = _argument_words(inspect.getdoc(kind) or "")
    lines = [f"### {title}", "", "| key | default | meaning |", "| --- | --- | --- |"]
    for slot in fields(kind):
        lines.append(f"| `{slot.name}` | {_default(slot)} | {words[slot.name].replace('|', chr(92) + '|')} |")
    return "\n".join([*lines, ""])


def _argument_words(text: str) -> dict[str, str]:
    """Return what a docstring says of each argument."""
    found: dict[str, str] = {}
    name = ""
    for line in text.partition("Args:\n")[2].splitlines():
        if match := re.match(r"    (\w+): (.*)", line):
            name, found[match[1]] = match[1], match[2]
        elif name and line.strip():
            found[name] += " " + line.strip()
    return {key: value.replace("``", "`") for key, value in found.items()}


def _default(slot: Field) -> str:
    if slot.default_factory is not MISSING:
        return "its own" if is_dataclass(slot.default_factory) else "none"
    if slot.default is MISSING:
        return "must be given"
    return "none" if slot.default in (None, (), "") else f"`{json.dumps(slot.default)}`"
