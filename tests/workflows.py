# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Workflows of configs/ in the process of the test."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from monai.bundle import ConfigWorkflow

ROOT = Path(__file__).resolve().parents[1]


def workflow_of(name: str, **settings) -> ConfigWorkflow:
    """Return the workflow of ``configs/args_NAME.yaml``."""
    arguments = yaml.safe_load((ROOT / "configs" / f"args_{name}.yaml").read_text())
    return ConfigWorkflow(
        config_file=[str(ROOT / file) for file in arguments["config_file"]],
        meta_file=[str(ROOT / file) for file in arguments["meta_file"]],
        workflow_type=arguments["workflow_type"],
        logging_file=False,
        **{key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
    )


def run_workflow(name: str, **settings) -> None:
    """Run it as ``monai.bundle run`` does, without its start-up time."""
    hook = sys.excepthook
    workflow = workflow_of(name, **settings)
    try:
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    finally:
        sys.excepthook = hook
