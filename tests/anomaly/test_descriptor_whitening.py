# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
from ignite.engine import Engine

from bundle.anomaly.adfa import ADFA
from bundle.anomaly.descriptor_whitening import DescriptorWhitening
from bundle.training.handler_group import HandlerGroup


class TestDescriptorWhitening(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.net = ADFA((64, 64), weights=None, descriptor_channels=0, attention_weight=0, map_stride=8)
        self.loader = [{"image": torch.rand(n, 3, 64, 64)} for n in (3, 2)]

    def patches(self):
        images = torch.cat([batch["image"] for batch in self.loader])
        return self.net.describe(images).flatten(0, 1).detach()

    def run_once(self, epoch=0):
        engine = Engine(lambda *_: None)
        HandlerGroup([None, DescriptorWhitening(self.net, self.loader, 1e-3, within_positions=False)]).attach(engine)
        engine.load_state_dict({"epoch": epoch, "epoch_length": 1, "max_epochs": 2}) if epoch else None
        engine.run([0], max_epochs=2)

    def test_projection_equals_whitening_of_the_stacked_features(self):
        self.run_once()
        patches = self.patches()
        torch.testing.assert_close(patches.mean(dim=0), torch.zeros(176), atol=1e-3, rtol=0)
        variance = patches.var(dim=0)
        self.assertLess(float(variance.max()), 1.1)  # shrinkage keeps what hardly varies below 1

    def test_narrow_descriptor_keeps_the_size_of_distances(self):
        self.run_once()
        wide = torch.pdist(self.patches()[:50]).mean()
        self.net = ADFA((64, 64), weights=None, descriptor_channels=44, attention_weight=0, map_stride=8)
        self.run_once()
        self.assertLess(abs(float(torch.pdist(self.patches()[:50]).mean() / wide) - 1), 0.5)

    def test_resumed_run_keeps_its_descriptor(self):
        before = self.net.descriptor.projection.weight.clone()
        self.run_once(epoch=1)
        torch.testing.assert_close(self.net.descriptor.projection.weight, before)

    def test_too_wide(self):
        net = ADFA((64, 64), weights=None, descriptor_channels=177)
        with self.assertRaisesRegex(ValueError, "descriptor_channels must be at most 176"):
            net.descriptor.start_whitened(torch.zeros(176), torch.eye(176))
