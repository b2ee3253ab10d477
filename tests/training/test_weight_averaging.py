# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import unittest

from ignite.engine import Engine, Events
from torch import nn

from bundle.training.weight_averaging import WeightAveraging


class TestWeightAveraging(unittest.TestCase):
    def setUp(self):
        self.network = nn.Linear(1, 1, bias=False)
        self.network.weight.data.zero_()

    def trainer(self, momentum: float) -> tuple[Engine, WeightAveraging]:
        def step(engine, batch):
            self.network.weight.data += 1.0

        engine = Engine(step)
        averaging = WeightAveraging(self.network, momentum)
        averaging.attach(engine)
        return engine, averaging

    def test_average_at_the_end_of_epochs_and_training_goes_on_without(self):
        engine, _ = self.trainer(0.5)
        shown, started = [], []
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: shown.append(self.network.weight.item()))
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: started.append(self.network.weight.item()))
        engine.run([0, 0], max_epochs=2)
        # weights 1 2 3 4; averages 0.5, 1.25, 2.125, 3.0625
        self.assertEqual(shown, [1.25, 3.0625])
        self.assertEqual(started, [0.0, 2.0])

    def test_resume(self):
        engine, averaging = self.trainer(0.5)
        engine.run([0, 0], max_epochs=1)
        saved = copy.deepcopy((self.network.state_dict(), averaging.state_dict()))
        resumed, again = self.trainer(0.5)
        self.network.load_state_dict(saved[0])
        again.load_state_dict(saved[1])
        resumed.run([0, 0], max_epochs=1)
        self.assertEqual(self.network.weight.item(), 3.0625)

    def test_zero_leaves_the_weights_alone(self):
        engine, averaging = self.trainer(0)
        engine.run([0], max_epochs=3)
        self.assertEqual(self.network.weight.item(), 3.0)
        averaging.load_state_dict(averaging.state_dict())

    def test_bad_input(self):
        with self.assertRaisesRegex(ValueError, r"momentum must be in \[0, 1\), got 1"):
            WeightAveraging(self.network, 1)
        with self.assertRaisesRegex(ValueError, "momentum must be 0 in both runs or in neither"):
            WeightAveraging(self.network, 0.1).load_state_dict({"other": None, "swapped": False})


if __name__ == "__main__":
    unittest.main()
