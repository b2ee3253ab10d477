# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The workflow of every file of arguments under ``configs/``: MONAI's, with what was typed read as meant."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.bundle import ConfigWorkflow
from monai.bundle.scripts import create_workflow
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from bundle.command.closing_words import closing_words
from bundle.command.command_line import check_settings, check_whole_run, listed
from bundle.command.layers import located, merged_layers, read_layer
from bundle.command.options import literal, protected, read_option, read_options
from bundle.command.run import command_line_of_this_run, digest_of_given, errors_as_one_line

__all__ = ["BundleWorkflow"]

logger = logging.getLogger(__name__)
# options that name a file that must be there, in any run and where a trained network is used
_READ = ("labels_csv", "boxes_path", "exported", "start_from", "prior_path")
_READ_BY_RESULTS = ("ckpt_path", "calibration_path")


class BundleWorkflow(ConfigWorkflow):
    """
    Read layers and settings, each checked before anything is built, and end with what was written and what comes next.

    ``workflow_name: bundle.command.BundleWorkflow`` in a file of arguments has MONAI use it. Beyond MONAI's own:

    - layers are looked for beside the file of arguments, in the working directory and in this package's bundle;
    - options that name a path or a title are plain values, whatever is in them, and never expressions;
    - each option has a rule (:py:mod:`bundle.command.options`), and each error is one line.

    Args:
        config_file: layers, later over earlier.
        meta_file: of the bundle's metadata.
        logging_file: ``None`` for ``logging.conf`` beside the layers, ``False`` for none.
        init_id: key of what ``initialize`` does.
        run_id: key of what ``run`` does.
        final_id: key of what ``finalize`` does.
        tracking: ``"mlflow"`` or a file of settings, see MONAI.
        workflow_type: ``"train"`` or ``"infer"``.
        properties_path: see MONAI.
        **override: settings by key.

    Raises:
        OSError: When a file that is named does not exist, or is a folder.
        ValueError: When a setting is unknown or breaks its rule, or a layer is no YAML.
    """

    def __init__(
        self,
        config_file: str | Sequence[str],
        meta_file: str | Sequence[str] | None = None,
        logging_file: str | bool | None = None,
        init_id: str = "initialize",
        run_id: str = "run",
        final_id: str = "finalize",
        tracking: str | dict | None = None,
        workflow_type: str | None = "train",
        properties_path: str | None = None,
        **override: Any,
    ) -> None:
        if read_option("debug", override.get("debug", False), False) is False:
            errors_as_one_line()
        command_line = command_line_of_this_run()
        if command_line is not None:
            command_line.check()
            args_file, typed = command_line.args_file, "config_file" in command_line.flags
            layers = command_line.layers
        else:
            args_file, typed = _args_file_of_caller(), False
            layers = {path: read_layer(path) for path in (located(file, args_file) for file in listed(config_file))}
        content = merged_layers(layers.values())
        check_whole_run(layers, content, run_id)
        extra: Any = DEFAULT_EXP_MGMT_SETTINGS.get(tracking, {}) if isinstance(tracking, str) else {}
        for key, value in content.items():
            _check(key, value, layers)
        settings = {**override, **(command_line.given() if command_line is not None else {})}
        check_settings(settings, content, extra.get("configs", {}))
        _check_files(settings, workflow_type in self.supported_infer_type)
        super().__init__(
            config_file=list(layers),
            meta_file=[located(file, args_file, typed) for file in listed(meta_file)] or None,
            logging_file=located(logging_file, args_file) if isinstance(logging_file, str) else logging_file,
            init_id=init_id,
            run_id=run_id,
            final_id=final_id,
            tracking=tracking,
            workflow_type=workflow_type,
            properties_path=properties_path,
            **read_options(settings, content),
        )
        self.args_file, self._given = args_file, frozenset(settings)
        if "progress" in content and command_line is None:  # what was typed, `written_settings` tells
            self.parser["progress::written"] = {"given": digest_of_given(settings)}

    def set_path(self, key: str, path: str | os.PathLike) -> None:
        """
        Set an option that names a path after the workflow was made.

        Args:
            key: name of the option.
            path: its value, whatever is in it.
        """
        self.parser[key] = literal(path)

    def initialize(self) -> Any:
        """
        Read what the model is, where one is used or gone on from, before anything is written; then do as MONAI does.

        Raises:
            ValueError: When the model folder is none, a layer sets the network of the model to what it is not, or a
                setting contradicts the model that a training starts from.
        """
        start = self.parser.get_parsed_content("start") if "start" in self.parser else None
        if start is not None:
            for name, value in start.settings.items():
                if name in self._given:
                    start.check(name, self.parser.get_parsed_content(name))
                elif name in self.parser:
                    self.parser[name] = protected(value)
        if "model" in self.parser:
            model, compared = self.parser.get_parsed_content("model"), self.parser["model_settings"]
            for name in self.parser.get():
                if name in model.settings and name not in compared:  # a setting of the network, which is the model's
                    model.check(name, self.parser.get_parsed_content(name))
        return super().initialize()

    def run(self) -> Any:
        """
        Run, then say what was written where, the main figure, and the next command.

        Raises:
            ValueError: When nothing says which images.
        """
        source = "dataset_dir" if "train" in self.parser else str(self.parser.get("input_root", "")).lstrip("@")
        if source in self.parser and self.parser.get_parsed_content(source) == "":
            raise ValueError(f"{source} must be given, such as --{source} PATH, got nothing.")  # '' is this very folder
        result = super().run()
        if idist.get_rank() == 0:
            for line in closing_words(self.parser, self.args_file):
                logger.info("%s", line)
        return result


def _args_file_of_caller() -> str | None:
    """
    Return the file of arguments that ``monai.bundle.create_workflow`` was given, which it does not hand on.

    Layers are relative to it; to take them from the working directory could run another bundle's.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is create_workflow.__code__:
            args_file = frame.f_locals.get("args_file")
            return args_file if isinstance(args_file, str) else None
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _check(key: str, value: Any, layers: dict[str, dict]) -> None:
    """Refuse a value in a layer that breaks the rule of its option."""
    try:
        read_option(key, value, value) if value is not None else None
    except ValueError as error:
        file = next((file for file, layer in reversed(layers.items()) if key in layer), "")
        raise ValueError(f"'{file}': {error}") from None


def _check_files(settings: dict[str, Any], of_results: bool) -> None:
    """Refuse what must be an existing file, or folder, and is none."""
    for key in (*_READ, *(_READ_BY_RESULTS if of_results else ())):
        path = settings.get(key)
        if path and not str(path).startswith("https://") and not Path(path).is_file():
            kind = f"the folder '{path}'" if Path(path).is_dir() else f"'{path}'"
            raise FileNotFoundError(f"{key} must be an existing file, got {kind}.")
    dataset_dir = settings.get("dataset_dir")
    if dataset_dir and not Path(dataset_dir).exists():
        raise FileNotFoundError(f"dataset_dir must be an existing folder, CSV or JSON file, got '{dataset_dir}'.")
