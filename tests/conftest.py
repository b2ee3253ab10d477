# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch

# tensors here are tiny: on a busy machine several threads wait for each other up to ten times longer than they work
torch.set_num_threads(1)
