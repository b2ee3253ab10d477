# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the settings of the service make sense: ranges, names, addresses, and what must not be there twice."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from bundle.service.settings import Node, Settings, Source

__all__ = ["LOOPBACK", "check_meaning", "yaml_content"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
# least value of each number, included; what may be 0 is written so
_LEAST = {
    "quiet_seconds": 0,
    "max_object_bytes": 1,
    "max_associations": 1,
    "max_associations_per_address": 1,
    "instances_per_minute": 1,
    "min_free_bytes": 0,
    "max_attempts": 1,
    "retry_seconds": 0,
    "keep_days": 0,
}


class _OnceLoader(yaml.SafeLoader):
    """A YAML loader that knows no second key of the same name."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem=f"'{key.value}' is there twice", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


def yaml_content(path: Path) -> Any:
    """
    Return what a YAML file holds.

    Args:
        path: the file.

    Raises:
        ValueError: When it is no YAML, or a key is there twice: one line with the place.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)
    except UnicodeDecodeError:
        raise ValueError(f"{path.name}: the file must be text in UTF-8, it is not.") from None
    except RecursionError:
        raise ValueError(f"{path.name}: the file is nested too deep.") from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "it cannot be read"
        place = f" line {mark.line + 1}:" if mark is not None else ""
        raise ValueError(f"{path.name}:{place} the file must be YAML, {' '.join(problem.split())}.") from None


def check_meaning(settings: Settings, where: str) -> None:
    """
    Refuse settings that make no sense, the first of them in one line.

    Args:
        settings: of the right kinds.
        where: they are from.

    Raises:
        ValueError: When a number is out of its range, a name or address is none, or something is there twice.
    """
    for problem in _problems(settings):
        raise ValueError(f"{where}: {problem}")


def _problems(settings: Settings) -> Iterator[str]:
    if not settings.models:
        yield "models must name at least one workflow."
    names = [model.name for model in settings.models]
    for name in names:
        if not re.fullmatch(r"\w{1,40}", name) or names.count(name) > 1:
            yield f"a model's name must be unique letters, digits and _, got '{name}'."
    for key, least in _LEAST.items():
        value = getattr(settings, key)
        if not math.isfinite(value) or value < least:
            yield f"{key} must be {least} or more, got {value}."
    audit = settings.audit
    for key, value in (("audit.max_bytes", audit.max_bytes), ("audit.files", audit.files)):
        if value < 1:
            yield f"{key} must be 1 or more, got {value}."
    yield from _pages(settings)
    yield from _nodes(settings)
    yield from _ports(settings)


def _pages(settings: Settings) -> Iterator[str]:
    page = settings.page
    if page is None:
        return
    if page.host not in LOOPBACK:
        yield f"page.host must be one of {', '.join(LOOPBACK)}, got '{page.host}'."
    yield from _twice("page.readers", page.readers)
    if not all(name.strip() for name in page.readers):
        yield "page.readers must be names, one is empty."


def _nodes(settings: Settings) -> Iterator[str]:
    for source in settings.sources:
        if bool(source.url) == bool(source.ae_title and source.host and source.port):
            yield f"source '{source.name}' must have a url, or ae_title, host and port."
        if source.url and not source.url.startswith(("http://", "https://")):
            yield f"a source's url must begin with http:// or https://, got '{source.url}'."
    called: list[Node | Source] = [*settings.destinations, *(source for source in settings.sources if not source.url)]
    titles = [settings.ae_title, *(node.ae_title for node in called), *(peer.ae_title for peer in settings.peers)]
    for title in titles:
        if not re.fullmatch(r"[ -\[\]-~]{1,16}", title) or not title.strip():  # PS3.5 6.2, AE: no backslash
            yield f"an AE title must have 1 to 16 characters and no backslash, got '{title}'."
    for node in called:
        if not node.host.strip():
            yield f"host of '{node.ae_title}' must not be empty."
    for peer in settings.peers:
        if peer.address and not _is_address(peer.address):
            yield f"address of peer '{peer.ae_title}' must be an IP address, got '{peer.address}'."
    yield from _twice("destinations", [f"{n.ae_title}@{n.host}:{n.port}" for n in settings.destinations])
    yield from _twice("peers", [f"{peer.ae_title}@{peer.address or 'anywhere'}" for peer in settings.peers])
    yield from _twice("sources", [source.name for source in settings.sources])


def _ports(settings: Settings) -> Iterator[str]:
    ours = {"port": settings.port}
    if settings.page is not None:
        ours["page.port"] = settings.page.port
    if settings.health is not None:
        ours["health.port"] = settings.health.port
    called: list[Node | Source] = [*settings.destinations, *settings.sources]
    others = {f"port of '{node.ae_title}'": node.port for node in called if node.ae_title}
    for name, port in (ours | others).items():
        if not 1 <= port <= 65535:
            yield f"{name} must be in 1 to 65535, got {port}."
    yield from _twice("the service's own ports", [str(port) for port in ours.values()])


def _twice(name: str, words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if words.count(word) > 1:
            yield f"{name} must differ, '{word}' is there twice."


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
