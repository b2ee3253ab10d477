# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Workflows of configs/ in the process of the test."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from monai.bundle import ConfigWorkflow
from torch import nn

from bundle.model import save_start

ROOT = Path(__file__).resolve().parents[1]
START = {"adfa": "adfa_train", "sna": "sna_train", "msa": "msa_train_end_to_end"}


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


def write_start(folder: Path, family: str, network: nn.Module | None = None, **settings) -> Path:
    """Write a model folder with an untrained network of a family, or the one given; return its weights."""
    settings = {"dataset_dir": "", "output_dir": str(folder), **settings}
    return save_start(workflow_of(START[family], **settings).parser, folder, network)


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
