# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What a classifier's evaluator adds up to: a calibration on validation images, metrics on test images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys, convert_to_tensor

from bundle.classification.calibration import write_classifier_calibration
from bundle.classification.metrics import compute_classification_metrics
from bundle.classification.operating_points import choose_threshold, roc_points
from bundle.classification.reliability import reliability_png
from bundle.classification.targets import multi_hot
from bundle.classification.temperature import fit_temperature, reliability_bins
from bundle.rules import class_names, number_in, true_or_false, whole_number
from bundle.training.finite import check_finite
from bundle.training.processes.reduction import gathered

__all__ = ["ClassifierCalibrator", "ClassifierMetrics"]

logger = logging.getLogger(__name__)


class _Collector:
    """Logits, targets, patients and names of all images of an evaluator, in all processes, before its post-processing.

    Args:
        classes: names in the order of the logits.
        exclusive: exactly one class holds for an image.
        logits: makes logits ``(B, K)`` of the network's output, where it returns something else, such as class
            activation maps; ``None`` takes the output as it is.
    """

    def __init__(
        self,
        classes: Sequence[str],
        exclusive: bool,
        logits: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.classes, self.exclusive = list(class_names(classes)), true_or_false("exclusive", exclusive)
        self.logits = logits

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: MONAI evaluator whose network returns logits, or what ``logits`` makes them of.
        """
        engine.add_event_handler(Events.STARTED, self._clear)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._join)  # before what others do at the end

    def _clear(self, engine: Engine) -> None:
        self._logits: list[torch.Tensor] = []
        self._targets: list[torch.Tensor] = []
        self._patients: list[str | None] = []
        self._names: list[str | None] = []

    def _collect(self, engine: Engine) -> None:
        output: dict = engine.state.output  # type: ignore[assignment]
        batch: dict = engine.state.batch  # type: ignore[assignment]
        pred = convert_to_tensor(output[CommonKeys.PRED]).detach()
        logits = (pred if self.logits is None else self.logits(pred)).cpu().float()
        self._logits.append(logits)
        self._targets.append(multi_hot(torch.as_tensor(output[CommonKeys.LABEL]).cpu(), len(self.classes)))
        self._patients += batch.get("patient") or [None] * len(logits)
        self._names += batch.get("key") or [None] * len(logits)

    def _join(self, engine: Engine) -> None:
        """Bring together what all processes have, in the order of the images."""
        images = chain.from_iterable(self._logits), chain.from_iterable(self._targets), self._patients, self._names
        logits, targets, patients, names = zip(*gathered(list(zip(*images, strict=True))), strict=True)
        self._logits, self._targets = [torch.stack(logits)], [torch.stack(targets)]
        self._patients = [f"image {i}" if patient is None else patient for i, patient in enumerate(patients)]
        self._names = [str(i) if name is None else str(name) for i, name in enumerate(names)]

    def _check(self) -> None:
        """Refuse logits that are not finite, by the image's key and the class."""
        check_finite("logits", torch.cat(self._logits).numpy(), self._names, self.classes)

    def _probabilities(self, temperature: float) -> np.ndarray:
        logits = torch.cat(self._logits).double() / temperature
        return (logits.softmax(dim=1) if self.exclusive else logits.sigmoid()).numpy()


class ClassifierCalibrator(_Collector):
    """
    Fit temperature and operating points on the images of an evaluator, and save them for one checkpoint.

    Args:
        path: file to write.
        weights: checkpoint that the evaluator runs with.
        classes: names in the order of the logits.
        exclusive: exactly one class holds for an image.
        sensitivity: that every class's operating point is to promise, see
            :py:func:`bundle.classification.operating_points.threshold_of`; ``None`` for the largest sum of sensitivity
            and specificity.
        logits: makes logits ``(B, K)`` of the network's output; ``None`` takes the output as it is.

    Raises:
        ValueError: When a setting is out of range; when a logit is not finite. A class whose images cannot promise the
            sensitivity, or have no positive or no negative, gets no operating point, with a warning.
    """

    def __init__(
        self,
        path: str | Path,
        weights: str | Path,
        classes: Sequence[str],
        exclusive: bool = True,
        sensitivity: float | None = None,
        logits: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(classes, exclusive, logits)
        if sensitivity is not None:
            number_in("sensitivity", sensitivity, 0, 1, without_low=True, without_high=True)
        self.path, self.weights, self.sensitivity = path, weights, sensitivity

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: MONAI evaluator over validation images.
        """
        super().attach(engine)
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the calibration, in the first process."""
        if idist.get_rank() > 0:
            return
        logits, targets = torch.cat(self._logits), torch.cat(self._targets)
        temperature = fit_temperature(logits, targets, self.exclusive, self._names, self.classes)
        p = self._probabilities(temperature)
        thresholds: dict[str, float | None] = {}
        roc: dict[str, dict[str, Any] | None] = {}
        for k, name in enumerate(self.classes):
            truth = targets[:, k].numpy()
            roc[name] = roc_points(p[:, k], truth)
            try:
                thresholds[name] = choose_threshold(p[:, k], truth, self.sensitivity, f"'{name}'")
                reason = "" if roc[name] else f"{int(truth.sum())} of {len(truth)} validation images are positive"
            except ValueError as error:  # too few images for the sensitivity; the others have what they need
                thresholds[name], reason = None, str(error)
            if reason:
                logger.warning("no operating point, and no verdict, for '%s': %s", name, reason)
        write_classifier_calibration(self.path, self.weights, temperature, thresholds, roc)
        logger.info("calibrated on %d images: temperature %.3f", len(p), temperature)


class ClassifierMetrics(_Collector):
    """
    Collect an evaluator's logits and compute metrics and reliability diagrams.

    Args:
        classes: names in the order of the logits.
        exclusive: exactly one class holds for an image.
        calibration: from :py:class:`ClassifierCalibrator`; ``None`` for raw probabilities without operating points.
        num_samples: bootstrap samples.
        logits: makes logits ``(B, K)`` of the network's output; ``None`` takes the output as it is.

    Raises:
        ValueError: When a setting is out of range.
    """

    def __init__(
        self,
        classes: Sequence[str],
        exclusive: bool = True,
        calibration: dict[str, Any] | None = None,
        num_samples: int = 1000,
        logits: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(classes, exclusive, logits)
        self.calibration, self.num_samples = calibration, whole_number("num_samples", num_samples)

    def summarize(self, results: Sequence[Any] = ()) -> dict[str, Any]:
        """
        Return what :py:func:`bundle.classification.compute_classification_metrics` does, for a results writer.

        With a calibration there are also its ``temperature`` and ``mean_calibration_error_raw``, the mean calibration
        error of the probabilities before the division by the temperature.

        Args:
            results: ignored; the collected logits say more.

        Raises:
            ValueError: When a logit is not finite; names the image and the class.
        """
        self._check()
        targets = torch.cat(self._targets).numpy()
        if not self.calibration:
            return self._metrics(1.0, targets, None, self.num_samples)
        temperature = self.calibration["temperature"]
        thresholds = [self.calibration["thresholds"][name] for name in self.classes]
        metrics = self._metrics(temperature, targets, thresholds, self.num_samples)
        raw = self._metrics(1.0, targets, None, 1)["mean_calibration_error"]
        classes = metrics.pop("classes")
        return {**metrics, "mean_calibration_error_raw": raw, "temperature": temperature, "classes": classes}

    def charts(self) -> list[tuple[str, bytes]]:
        """
        Return title and picture of the reliability diagrams.

        Raises:
            ValueError: When a logit is not finite; names the image and the class.
        """
        self._check()
        p = self._probabilities(self.calibration["temperature"] if self.calibration else 1.0)
        targets = torch.cat(self._targets).numpy()
        bins = {name: reliability_bins(p[:, k], targets[:, k]) for k, name in enumerate(self.classes)}
        return [("Reliability", reliability_png(bins))]

    def _metrics(
        self, temperature: float, targets: np.ndarray, thresholds: list[float | None] | None, num_samples: int
    ) -> dict[str, Any]:
        p = self._probabilities(temperature)
        return compute_classification_metrics(
            p, targets, self.classes, self._patients, thresholds, num_samples, self._names
        )
