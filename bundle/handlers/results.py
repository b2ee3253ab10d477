# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From an evaluator's output to result files, and from held-back normals to a calibration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events

from bundle.data.calibration import heat_of_normal, write_calibration
from bundle.data.readers import split_frame
from bundle.distributed import gathered
from bundle.results.records import Box, ImageResult

__all__ = ["CalibrationWriter", "ResultsHandler", "image_result"]

logger = logging.getLogger(__name__)


def _items(engine: Any) -> Iterator[tuple[dict, dict]]:
    """Yield batch and output of each decollated item."""
    return zip(engine.state.batch, engine.state.output, strict=True)


def image_result(item: Mapping[str, Any]) -> ImageResult:
    """
    Return the result object of one decollated, post-processed item.

    Args:
        item: ``image`` with its metadata, and what the family's post-processing added of ``heatmap`` (``(1, H, W)`` in
            the source's pixel grid), ``anomaly_score``, ``p_value``, ``abnormal``, ``label_scores``, ``boxes``
            (dictionaries of :py:class:`Box`'s arguments), ``extra_maps``; ``key`` and ``label`` where the data list has
            them.
    """
    meta = item["image"].meta
    source, _ = split_frame(str(meta["filename_or_obj"]))
    heat = item.get("heatmap")
    label = item.get("label")
    score = item.get("anomaly_score")
    raw = item.get("anomaly_score_raw")
    per_pixel = [float(step) for step in meta.get("spacing", ())]
    spacing = (per_pixel[0], per_pixel[1]) if len(per_pixel) == 2 and np.isfinite(per_pixel).all() else None
    return ImageResult(
        key=str(item.get("key", source.stem)),
        source=source,
        frame=int(meta.get("frame", 0)),
        spacing=spacing,
        subject=str(meta.get("subject", "")) or None,
        label=int(label) if label is not None and torch.as_tensor(label).numel() == 1 else None,
        label_scores=dict(item.get("label_scores", {})),
        anomaly_score=None if score is None else float(score),
        p_value=item.get("p_value"),
        abnormal=item.get("abnormal"),
        heatmap=None if heat is None else np.asarray(torch.as_tensor(heat).cpu(), dtype=np.float32)[0],
        boxes=[Box(**box) for box in item.get("boxes", [])],
        extra={**item.get("extra", {}), **({} if raw is None else {"anomaly_score_raw": float(raw)})},
        extra_maps=dict(item.get("extra_maps", {})),
    )


class ResultsHandler:
    """
    Hand every result of an evaluator to a writer, and at the end the figures and the failures.

    A thread of its own writes a batch while the network computes the next; never more than one batch is waiting.

    Args:
        writer: a :py:class:`bundle.results.ResultsWriter`.
        loader: a :py:class:`bundle.data.ReadableDataLoader`, whose ``failures`` are reported and whose ``pictures``
            overlays are drawn on; ``None`` for another one.
        refusals: files that gave no item, with ``source`` and ``reason``, see :py:func:`bundle.data.find_images`.
        summarize: takes the results (without arrays), returns figures by name; ``None`` for no figures.
        figures: returns title and picture (PNG or SVG) of what the report draws besides; ``None`` for nothing.
        log_every: log a line every so many images; 0 for none.

    Raises:
        ValueError: When figures are wanted of a resumed run, which has not all results at hand.
    """

    def __init__(
        self,
        writer: Any,
        loader: Any = None,
        refusals: Sequence[Any] = (),
        summarize: Callable[[list[ImageResult]], dict[str, Any]] | None = None,
        figures: Callable[[], Sequence[tuple[str, bytes]]] | None = None,
        log_every: int = 100,
    ) -> None:
        self.writer, self.loader = writer, loader
        self.refusals, self.summarize, self.figures, self.log_every = refusals, summarize, figures, log_every
        self.results: list[ImageResult] = []
        self._noted = 0
        self._thread: ThreadPoolExecutor | None = None
        self._written: Future[None] | None = None
        if self.summarize is not None and writer.progress.done:
            raise ValueError("an evaluation cannot be resumed; start it again with --resume False.")

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator with decollation and post-processing."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def _begin(self, engine: Engine) -> None:
        self.results.clear()
        self._noted, self._written = 0, None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="results")

    def __call__(self, engine: Engine) -> None:
        """Have the results of one batch written, and the batch marked as done."""
        assert self._thread is not None
        results = [image_result({**batch, **output}) for batch, output in _items(engine)]
        for result, picture in zip(results, getattr(self.loader, "pictures", []), strict=False):
            result.image = picture
        seen, failures = (None, []) if self.loader is None else (self.loader.seen, self._new_failures())
        self._wait()
        self._written = self._thread.submit(self._write, results, failures, seen)

    def _wait(self) -> None:
        """Wait for the batch before, and raise what ended its writing."""
        if self._written is not None:
            self._written.result()

    def _write(self, results: Sequence[ImageResult], failures: Sequence[tuple[str, str]], seen: int | None) -> None:
        for result in results:
            self.writer.add(result)
            result.image, result.heatmap, result.extra_maps = None, None, {}
            if self.summarize is not None or self.figures is not None:
                self.results.append(result)
            done = len(self.writer.progress.records)
            if self.log_every and done % self.log_every == 0:
                logger.info("%d images done", done)
        self._note(failures)
        if seen is not None:
            self.writer.progress.commit(seen)

    def _new_failures(self) -> list[tuple[str, str]]:
        """Return the loader's failures since the last call."""
        new = getattr(self.loader, "failures", [])[self._noted :]
        self._noted += len(new)
        return new

    def _note(self, failures: Sequence[tuple[str, str]]) -> None:
        for name, reason in failures:
            source, frame = split_frame(str(name))
            self.writer.fail(source, f"frame {frame}: {reason}" if str(name) != str(source) else reason)

    def finish(self, engine: Engine) -> None:
        """Write failures, figures and the report."""
        if self._thread is not None:
            self._thread.shutdown()
        self._wait()
        self._note(self._new_failures())
        for refusal in self.refusals:
            self.writer.fail(refusal.source, refusal.reason)
        reasons = [reason for _, reason in getattr(self.loader, "failures", [])]
        reasons += [refusal.reason for refusal in self.refusals]
        count = len(self.writer.progress.records)
        metrics: dict[str, Any] = {}
        pictures: Sequence[tuple[str, bytes]] = ()
        failed: Exception | None = None
        try:
            metrics = self.summarize(self.results) if self.summarize is not None and count else {}
            pictures = self.figures() if self.figures is not None and count else ()
        except Exception as error:  # the tables are worth having without figures
            failed = error
        self.writer.close(metrics=metrics, figures=pictures)
        if failed is not None:
            raise failed
        if not count:
            raise ValueError(f"none of {len(reasons)} images can be read, first: {reasons[0] if reasons else '-'}")


class CalibrationWriter:
    """
    Save the scores of the normal images of an evaluator, in all processes, as the calibration of a checkpoint.

    Args:
        path: file to write.
        weights: checkpoint that the evaluator runs with.
        false_alarm_rate: wanted share of false alarms among normal images, in (0, 1).
    """

    def __init__(self, path: str | Path, weights: str | Path, false_alarm_rate: float = 0.1) -> None:
        self.path, self.weights, self.rate = path, weights, false_alarm_rate
        self._scores: list[float] = []
        self._heat: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator with decollation and post-processing."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def __call__(self, engine: Engine) -> None:
        """Collect the normals of one batch."""
        for batch, output in _items(engine):
            if not int(batch["label"]):
                self._scores.append(float(output["anomaly_score"]))
                self._heat.append(heat_of_normal(output["heatmap"]))

    def finish(self, engine: Engine) -> None:
        """Write the file, in the first process."""
        scores, heat = gathered(self._scores), gathered(self._heat)
        if idist.get_rank() > 0:
            return
        saved = write_calibration(self.path, self.weights, scores, float(np.median(heat)), self.rate)
        logger.info("calibrated on %d normals: threshold %s", len(scores), saved["threshold"])
