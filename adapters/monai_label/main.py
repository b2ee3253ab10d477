# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
A MONAI Label app for built bundles: the heat above the threshold, or the boxes, come back as a label.

    monailabel start_server --app adapters/monai_label --studies DIR --conf bundle /path/to/adfa_anomaly_detection

MONAI Label's own bundle task would read the image with its own transforms and has no place for scores and boxes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from bundle.service.settings import ServedModel
from bundle.service.workflow import WarmWorkflow


class BundleTask(InferTask):
    """
    Answer one image.

    Args:
        bundle: folder of a built bundle.
    """

    def __init__(self, bundle: Path) -> None:
        metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
        (outputs,) = metadata["network_data_format"]["outputs"].values()
        names = list(outputs["channel_def"].values())
        super().__init__(InferType.SEGMENTATION, {name: i for i, name in enumerate(names, 1)}, 2, metadata["task"])
        self._scratch = tempfile.TemporaryDirectory()
        model = ServedModel("label", bundle / "configs" / "inference.json", {"formats": ["json", "nifti"]})
        self._workflow = WarmWorkflow(model, Path(self._scratch.name))

    def is_valid(self) -> bool:
        """Return whether the network is loaded; it always is."""
        return True

    def __call__(self, request: dict) -> tuple[str, dict]:
        """
        Return a label file on the pixel grid of the heatmap, and what ``predictions.json`` says of the image.

        Args:
            request: with ``image``, a file.
        """
        folder = Path(tempfile.mkdtemp())
        try:
            self._workflow.run([Path(request["image"])], folder)
            predictions = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
            record = predictions["images"][0]
            heat = nibabel.load(folder / record["files"]["nifti"])
            label = mask_of(np.asarray(heat.dataobj), record, predictions["threshold"], self.labels)
            with tempfile.NamedTemporaryFile(suffix=".nii.gz", delete=False) as file:
                nibabel.save(nibabel.Nifti1Image(label, heat.affine), file.name)
            names = ("anomaly_score", "p_value", "probabilities", "finding_probability", "present_findings")
            said = {name: record[name] for name in (*names, "abnormal", "verdict", "not_assessed", "boxes")}
            return file.name, {"label_names": self.labels, **said}
        finally:
            shutil.rmtree(folder)


def mask_of(heat: np.ndarray, record: dict, threshold: float | None, labels: dict[str, int]) -> np.ndarray:
    """
    Return 1 where the heat reaches the threshold; without a threshold each box filled with the number of its label.

    Args:
        heat: shape ``(rows, columns)``.
        record: what ``predictions.json`` says of the image.
        threshold: of the score, or ``None``.
        labels: number of each label.
    """
    if threshold is not None:
        return (heat >= threshold).astype(np.uint8)
    mask = np.zeros(heat.shape, np.uint8)
    for box in reversed(record["boxes"]):  # the best last, on top
        left, top = round(box["x"]), round(box["y"])
        mask[top : top + round(box["height"]), left : left + round(box["width"])] = labels.get(box["label"], 1)
    return mask


class BundleApp(MONAILabelApp):
    """
    Serve the bundle that ``--conf bundle DIR`` names.

    Args:
        app_dir: folder of this file.
        studies: folder or archive of the images.
        conf: what the command line gave as ``--conf``.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self._bundle = Path(conf["bundle"]).resolve()
        super().__init__(app_dir, studies, conf, self._bundle.name, "Research use only. Not for diagnosis.")

    def init_infers(self) -> dict[str, InferTask]:
        """Return the one task, named after the bundle."""
        return {self._bundle.name: BundleTask(self._bundle)}
