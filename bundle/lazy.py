# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Names of a package that are imported when they are asked for (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

__all__ = ["public"]


def public(package: str, **modules: Sequence[str]) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """
    Return ``__all__``, ``__getattr__`` and ``__dir__`` of a package whose names lie in its modules.

    So ``import bundle.reading`` loads no torch, and ``from bundle.reading import RadiologyReader`` loads its module.

    Args:
        package: its ``__name__``.
        modules: the names that each module adds.

    Example:
        >>> names, get, _ = public("bundle.results", records=["NOTICE"])
        >>> names, "research" in get("NOTICE").lower()
        (['NOTICE'], True)
    """
    home = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(import_module(f"{package}.{home[name]}"), name)

    names = sorted(home)
    return names, get, lambda: names
