# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The inference workflow of the command line, with its network loaded once for all studies."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from monai.bundle import ConfigParser

from bundle.command.workflow import BundleWorkflow
from bundle.errors import cause_of, is_ours, kind_and_place, reason_of
from bundle.service.passing import PassingError, passing_cause
from bundle.service.settings import ServedModel

__all__ = ["Produced", "WarmWorkflow", "WorkflowError"]

FORMATS = ["csv", "json", "overlay", "report", "sr", "seg", "sc"]


class WorkflowError(ValueError):
    """A workflow gave no results: why, in one line without text from inside a file."""


@dataclass(frozen=True)
class Produced:
    """
    What a workflow made of the images of one job.

    Args:
        results: SOP Instance UID, kind (``sr``, ``seg``, ``heat``, ``sc``) and file of each DICOM result.
        failures: one line for each image without a result, and for each result that could not be written.
        images: rows of the tables, one for each image with results, see :py:func:`bundle.results.tables.record_of`.
        weights: SHA-256 of the weights, empty where it is not known.
    """

    results: list[tuple[str, str, Path]]
    failures: list[str]
    images: list[dict[str, Any]]
    weights: str = ""


class WarmWorkflow:
    """
    Run the same configuration for one set of images after another.

    Everything is built anew for each set, as ``monai.bundle run`` builds it, but for the network and the calibration.

    Args:
        model: which configuration, with which settings.
        scratch: folder for what the configuration writes before it has images.

    Raises:
        ValueError: When the model's settings name what the configuration does not define, or no ``model_dir``.
    """

    def __init__(self, model: ServedModel, scratch: Path) -> None:
        arguments = ConfigParser.load_config_file(model.args_file)
        root = model.args_file.resolve().parents[1]
        self.name, self.modalities = model.name, model.modalities
        # the links in its input folder are its own
        settings = {"formats": FORMATS, "output_dir": str(scratch), "allow_outside": True, **model.settings}
        if "config_file" not in arguments:  # a built bundle, whose one configuration holds everything
            one = str(model.args_file.resolve().relative_to(root))
            arguments = {"config_file": [one], "meta_file": ["configs/metadata.json"], "workflow_type": "inference"}
            settings = {"bundle_root": str(root), "model_dir": str(root / "models"), **settings}
        files = [str(root / file) for file in arguments["config_file"]]
        if "model_dir" not in settings:
            raise ValueError(f"model '{model.name}': settings must name model_dir, the folder with its weights.")
        try:
            workflow = BundleWorkflow(
                config_file=files,
                meta_file=[str(root / file) for file in arguments["meta_file"]],
                workflow_type=arguments["workflow_type"],
                logging_file=False,
                **settings,
            )
        except (ValueError, OSError) as error:
            raise ValueError(f"model '{model.name}': {error}") from None
        workflow.initialize()
        self._workflow, self._parser = workflow, workflow.parser
        kept = {slot: self._parser.get_parsed_content(slot) for slot in ("model", "network_def", "calibration")}
        for slot, value in kept.items():  # setting one forgets what was built, so all are built before
            self._parser[slot] = value

    def takes(self, modality: str) -> bool:
        """Return whether this model is for images of a modality."""
        return not self.modalities or modality in self.modalities

    def run(self, files: Sequence[Path], output_dir: Path) -> Produced:
        """
        Write the results of some images.

        Args:
            files: DICOM files, named without identity, since tables and reports name them.
            output_dir: folder, emptied before.

        Raises:
            PassingError: When something ends the run that may be over later, such as a full disk.
            WorkflowError: When none of the images can be read, or anything else ends the run.
        """
        shutil.rmtree(output_dir, ignore_errors=True)
        inputs = output_dir / "input"
        inputs.mkdir(parents=True)
        for file in files:
            (inputs / file.name).symlink_to(file.resolve())
        self._workflow.set_path("input", inputs)
        self._workflow.set_path("output_dir", output_dir)
        try:
            self._parser.get_parsed_content("run")
        except Exception as error:
            if passes := passing_cause(error):
                raise PassingError(passes) from None
            raise WorkflowError(_reason(error)) from None
        finally:
            shutil.rmtree(inputs)
        predictions = json.loads((output_dir / "predictions.json").read_text(encoding="utf-8"))
        results = []
        for image in predictions["images"]:
            for kind, name in image["files"].items():
                if name.endswith(".dcm"):
                    uid = pydicom.dcmread(output_dir / name, specific_tags=["SOPInstanceUID"]).SOPInstanceUID
                    results.append((str(uid), kind, output_dir / name))
        with (output_dir / "failures.csv").open(newline="", encoding="utf-8") as stream:
            failures = [row["reason"] for row in csv.DictReader(stream)]
        weights = predictions["algorithm"].get("weights_sha256") or ""
        return Produced(results, failures, predictions["images"], weights)

    def remarks(self, images: Sequence[Mapping[str, Any]]) -> list[str]:
        """
        Return the sentences that a run over some images would end with, such as that they are not the calibration's.

        Args:
            images: rows with ``anomaly_score``, ``label`` and ``not_assessed``.
        """
        remarks = self._parser.get_parsed_content("remarks") if "remarks" in self._parser else None
        return [] if remarks is None else list(remarks(images))


def _reason(error: BaseException) -> str:
    """Return our own message; another library's may quote a file's text, so only its kind and place are told."""
    cause = cause_of(error)
    if isinstance(cause, (ValueError, OSError)) and is_ours(cause):
        return reason_of(cause)[:300]
    return f"the run ended in {kind_and_place(cause)}."
