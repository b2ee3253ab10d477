# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest
from types import SimpleNamespace

from ignite.engine import Engine

from bundle.training import HandlerGroup


class TestHandlerGroup(unittest.TestCase):
    def test_attaches_all_in_order(self):
        seen = []
        engine = Engine(lambda *_: None)
        handlers = [SimpleNamespace(attach=lambda e, i=i: seen.append((i, e))) for i in range(3)]
        HandlerGroup(handlers).attach(engine)
        self.assertEqual(seen, [(i, engine) for i in range(3)])
        HandlerGroup([]).attach(engine)


if __name__ == "__main__":
    unittest.main()
