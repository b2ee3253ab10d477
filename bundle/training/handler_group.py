# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Several handlers in one place of a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ignite.engine import Engine

__all__ = ["HandlerGroup"]


class HandlerGroup:
    """
    Attach several handlers as one, so that a family fills a slot in the middle of a task's list.

    Args:
        handlers: objects with ``attach(engine)``, attached in this order; ``None``, which is what a disabled component
            of a configuration becomes, is left out.
    """

    def __init__(self, handlers: Sequence[Any]) -> None:
        self.handlers = [handler for handler in handlers if handler is not None]

    def attach(self, engine: Engine) -> None:
        """Attach all of them."""
        for handler in self.handlers:
            handler.attach(engine)
