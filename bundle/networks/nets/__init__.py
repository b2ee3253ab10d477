# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Public networks, one a file."""

from bundle.networks.nets.adfa import ADFA

__all__ = ["ADFA"]
