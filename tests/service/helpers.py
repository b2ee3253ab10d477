# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Small untrained models, synthetic images and settings for the tests of the service."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from pydicom.uid import generate_uid
from pynetdicom import AE

from bundle.anomaly.calibration import write_calibration
from bundle.service.job_queue import JobQueue
from bundle.service.settings import ServedModel, Settings
from bundle.service.workflow import WarmWorkflow
from tests.synthetic_dicom import save_dicom
from tests.workflows import write_start

ROOT = Path(__file__).resolve().parents[2]
RADIOGRAPH, ULTRASOUND = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.6.1"


def small_adfa(folder: Path) -> ServedModel:
    """Write an untrained ADFA with a made-up calibration."""
    settings = {"image_size": [32, 32], "weights": None}
    torch.manual_seed(0)
    weights = write_start(folder, "adfa", **settings)
    write_calibration(folder / "calibration.json", weights, [0.1 * i for i in range(20)], 0.5, 0.1)
    torch.manual_seed(0)
    write_start(folder, "adfa", **settings)  # once more, with the calibration
    return ServedModel("adfa", ROOT / "configs" / "args_adfa_inference.yaml", {"model_dir": str(folder)})


def small_msa(folder: Path) -> ServedModel:
    """Write an untrained localization network of two classes, for radiographs."""
    torch.manual_seed(0)
    settings = {"image_size": [64, 64], "mining_steps": 1, "classes": ["Effusion", "Mass"]}
    write_start(folder, "msa", weights=None, **settings)
    # it has no calibration, so nothing would be found otherwise
    given = {"model_dir": str(folder), "probability_threshold": 0.001}
    return ServedModel("msa", ROOT / "configs" / "args_msa_inference.yaml", given, ("CR", "DX"))


def built_bundle(model: ServedModel, folder: Path) -> Path:
    """Write a bundle as scripts/build_zoo.py does, of one configuration and its weights; return its folder."""
    parser = ConfigParser()
    parser.read_config([str(ROOT / file) for file in ConfigParser.load_config_file(model.args_file)["config_file"]])
    parser.update({**model.settings, "model_dir": "$@bundle_root + '/models'"})
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(parser.get()))
    shutil.copy(ROOT / "configs" / "metadata.json", folder / "configs")
    shutil.copytree(model.settings["model_dir"], folder / "models")
    return folder


@contextmanager
def quiet_workflow(model: ServedModel, scratch: Path) -> Iterator[WarmWorkflow]:
    """Load a workflow without leaving its exception hook and determinism behind."""
    hook = sys.excepthook
    try:
        yield WarmWorkflow(model, scratch)
    finally:
        sys.excepthook = hook
        torch.use_deterministic_algorithms(False)


def image_file(
    folder: Path, number: int, study: int | None = None, ultrasound: bool = False, **elements: object
) -> Path:
    """Write a synthetic image of its own study, or of the one with a given number."""
    study = number if study is None else study
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (48, 40), dtype=np.uint8)
    kind = "US" if ultrasound else "CR"
    usual = {
        "SOPClassUID": ULTRASOUND if ultrasound else RADIOGRAPH,
        "SOPInstanceUID": generate_uid(entropy_srcs=["image", str(number)]),
        "StudyInstanceUID": generate_uid(entropy_srcs=["study", str(study)]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=["series", str(study), kind]),
        "Modality": kind,
        "PatientName": f"Synthetic^{study}",
        "PatientID": f"SYNTHETIC-{study}",
        "InstanceNumber": number + 1,
    }
    return save_dicom(folder / f"{number:04d}.dcm", pixels, **{**usual, **elements})


def some_settings(folder: Path, **changes: object) -> Settings:
    """Return settings for a free port, with a short silence."""
    usual = {"state_dir": folder, "models": (), "port": 0, "quiet_seconds": 0.0, "min_free_bytes": 0}
    return Settings(**{**usual, **changes})


def send(
    files: list[Path], port: int, title: str = "SENDER", called: str = "BUNDLE", **tls: object
) -> list[int | None]:
    """Send files by C-STORE and return the status of each, ``None`` where there was no association any more."""
    from pydicom.filereader import read_file_meta_info

    caller = AE(title)
    caller.acse_timeout = caller.dimse_timeout = caller.network_timeout = 20
    for meta in {(m.MediaStorageSOPClassUID, m.TransferSyntaxUID) for m in map(read_file_meta_info, files)}:
        caller.add_requested_context(*meta)
    association = caller.associate("127.0.0.1", port, ae_title=called, **tls)
    statuses: list[int | None] = []
    for file in files:
        status = association.send_c_store(file).get("Status") if association.is_established else None
        statuses.append(status)
    if association.is_established:
        association.release()
    return statuses


def states(queue: JobQueue) -> list[str]:
    """Return the state of each job."""
    return [row["state"] for row in queue.rows("SELECT state FROM jobs ORDER BY id")]
