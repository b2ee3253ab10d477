# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Ignite engines beyond MONAI's own."""

from bundle.engines.run import prepare_run, run_to_end, written_settings

__all__ = ["prepare_run", "run_to_end", "written_settings"]
