# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from ignite.engine import Engine

from bundle.training import LossCurves, TrainingLog


class TestTrainingLog(unittest.TestCase):
    def test_one_line_an_epoch(self):
        trainer, evaluator = Engine(lambda engine, batch: batch), Engine(lambda *_: None)
        evaluator.state.metrics["auroc"] = 0.75
        TrainingLog(float, evaluator, name="training_log_test").attach(trainer)
        with self.assertLogs("training_log_test", "INFO") as logs:
            trainer.run([1.0, 2.0, 6.0], max_epochs=2)
        messages = [record.getMessage() for record in logs.records]
        self.assertEqual(messages[1], "epoch 2/2: loss 3.0000, auroc 0.7500, 0:00 left")
        self.assertEqual(len(messages), 2)
        self.assertEqual(trainer.state.metrics["auroc"], 0.75)

    def test_without_metrics_and_in_a_resumed_run(self):
        trainer = Engine(lambda engine, batch: batch)
        TrainingLog(float, name="training_log_test").attach(trainer)
        trainer.load_state_dict({"epoch_length": 1, "max_epochs": 5, "iteration": 4})
        with self.assertLogs("training_log_test", "INFO") as logs:
            trainer.run([4.0])
        self.assertEqual(logs.records[0].getMessage(), "epoch 5/5: loss 4.0000, no metrics, 0:00 left")

    def test_curves_are_monais_of_the_loss_under_its_key(self):
        with tempfile.TemporaryDirectory() as folder:
            trainer = Engine(lambda engine, batch: [{"loss": batch}])
            LossCurves(folder).attach(trainer)
            trainer.run([1.0, 3.0])
            self.assertEqual(len(list(Path(folder).iterdir())), 1)


if __name__ == "__main__":
    unittest.main()
