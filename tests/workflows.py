# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Workflows of configs/ in the process of the test."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import runpy
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import jsonschema
import monai.bundle
import yaml
from torch import nn

from bundle.command import BundleWorkflow
from bundle.model import save_start

ROOT = Path(__file__).resolve().parents[1]
START = {"adfa": "adfa_train", "sna": "sna_train", "msa": "msa_train_end_to_end", "detector": "detector_train"}


def check_names(results: Path) -> None:
    """Fail where tables and metrics of a run do not follow docs/predictions.schema.json and its names."""
    content = json.loads((results / "predictions.json").read_text(encoding="utf-8"))
    jsonschema.validate(content, json.loads((ROOT / "docs" / "predictions.schema.json").read_text()))
    metrics = results / "metrics.json"
    assert content["metrics"] == (json.loads(metrics.read_text()) if metrics.is_file() else None)
    assert content["images"]
    classes = ("probability", "operating_point", "extra")
    for name in ("predictions.csv", "scores.csv"):
        with (results / name).open(newline="", encoding="utf-8") as file:
            columns = next(csv.reader(file))
        fields = [column for column in columns if not column.startswith(tuple(f"{word}_" for word in classes))]
        assert all(re.fullmatch("[a-z]+(_[a-z]+)*", column) for column in columns if column in fields), columns
        assert set(fields) <= {*content["images"][0], "box_count"}, fields


def workflow_of(name: str, layers: Sequence[str] = (), **settings) -> BundleWorkflow:
    """Return the workflow of ``configs/args_NAME.yaml``, with ``configs/LAYER.yaml`` after its own."""
    arguments = yaml.safe_load((ROOT / "configs" / f"args_{name}.yaml").read_text())
    files = (*arguments["config_file"], *(f"configs/{layer}.yaml" for layer in layers))
    hook = sys.excepthook
    try:
        return BundleWorkflow(
            config_file=[str(ROOT / file) for file in files],
            meta_file=[str(ROOT / file) for file in arguments["meta_file"]],
            workflow_type=arguments["workflow_type"],
            logging_file=False,
            **settings,
        )
    finally:
        sys.excepthook = hook


def write_start(folder: Path, family: str, network: nn.Module | None = None, **settings) -> Path:
    """Write a model folder with an untrained network of a family, or the one given; return its weights."""
    settings = {"dataset_dir": "", "output_dir": str(folder), **settings}
    return save_start(workflow_of(START[family], **settings).parser, folder, network)


def run_workflow(name: str, layers: Sequence[str] = (), **settings) -> None:
    """Run it as ``monai.bundle run`` does, without its start-up time."""
    hook = sys.excepthook
    workflow = workflow_of(name, layers, **settings)
    try:
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    finally:
        sys.excepthook = hook


def run_command(*words: str) -> tuple[int, str]:
    """Run ``python -m monai.bundle run`` with these words; return the exit status and what it wrote to stderr."""
    hook, errors = sys.excepthook, io.StringIO()
    arguments = [str(Path(monai.bundle.__file__).with_name("__main__.py")), "run", *words]
    with mock.patch.object(sys, "argv", arguments), contextlib.redirect_stderr(errors), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # runpy's own about a module that is loaded already
        try:
            runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            return int(end.code or 0), errors.getvalue()
        except Exception as error:
            sys.excepthook(type(error), error, error.__traceback__)
            return 1, errors.getvalue()
        finally:
            sys.excepthook = hook
    return 0, errors.getvalue()
