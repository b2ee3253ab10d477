# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Ignite engines beyond MONAI's own, and the workflow that a command line starts."""

from bundle.engines.options import plain, typed_value
from bundle.engines.run import prepare_run, run_to_end, written_settings
from bundle.engines.workflow import BundleWorkflow

__all__ = ["BundleWorkflow", "plain", "prepare_run", "run_to_end", "typed_value", "written_settings"]
