# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From an evaluator's output to result files, and from held-back normals to a calibration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from bundle.preprocessing.box_frames import boxes_in_source
from bundle.reading.datasets import ReadableDataLoader
from bundle.reading.formats import split_frame
from bundle.reading.header import Header
from bundle.results.pulse import Pulse
from bundle.results.records import Box, ImageResult, pixels_seen

__all__ = ["ResultsHandler", "image_result"]

logger = logging.getLogger(__name__)


def _items(engine: Any) -> Iterator[tuple[dict, dict]]:
    """Yield batch and output of each decollated item."""
    return zip(engine.state.batch, engine.state.output, strict=True)


def image_result(item: Mapping[str, Any]) -> ImageResult:
    """
    Return the result object of one decollated, post-processed item.

    Maps become not-a-number where the network did not look, see :py:func:`seen_region`.

    Args:
        item: ``image`` with its metadata, and what the family's post-processing added of ``heatmap`` (``(1, H, W)`` in
            the source's pixel grid), ``boxes`` (dictionaries of :py:class:`Box`'s arguments) and other fields of
            :py:class:`ImageResult` by their names; ``key`` and ``label`` where the data list has them;
            ``picture`` where it was kept, which overlays are drawn on.
    """
    meta = item["image"].meta
    source, _ = split_frame(str(meta["filename_or_obj"]))
    heat = item.get("heatmap")
    label = item.get("label")
    per_pixel = [float(step) for step in meta.get("spacing", ())]
    spacing = (per_pixel[0], per_pixel[1]) if len(per_pixel) == 2 and np.isfinite(per_pixel).all() else None
    seen = seen_region(item["image"])
    return ImageResult(
        key=str(item.get("key", source.stem)),
        source=source,
        frame=int(meta.get("frame", 0)),
        spacing=spacing,
        subject=str(meta.get("subject", "")) or None,
        label=int(label) if label is not None and torch.as_tensor(label).numel() == 1 else None,
        true_findings=item.get("true_findings"),
        probabilities=dict(item.get("probabilities", {})),
        finding_probability=_number(item.get("finding_probability")),
        anomaly_score=_number(item.get("anomaly_score")),
        anomaly_score_raw=_number(item.get("anomaly_score_raw")),
        p_value=item.get("p_value"),
        abnormal=item.get("abnormal"),
        heatmap_class=item.get("heatmap_class"),
        heatmap=None if heat is None else _where_seen(torch.as_tensor(heat).cpu()[0], seen),
        boxes=[Box(**box) for box in item.get("boxes", [])],
        extra=dict(item.get("extra", {})),
        extra_maps={name: _where_seen(part, seen) for name, part in item.get("extra_maps", {}).items()},
        display_note=str(meta.get("display_note") or ""),
        not_assessed=item.get("not_assessed") or None,
        operating_points=dict(item.get("operating_points", {})),
        seen=seen,
        image=None if (picture := item.get("picture")) is None else picture.array(),
        header=Header.from_metadata(meta),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def seen_region(image: Any) -> tuple[float, float, float, float] | None:
    """
    Return the part of the source frame that became the network's input, by the transforms of the image.

    Args:
        image: the network's input, shape ``(C, H, W)``; the reader's metadata says how large the source frame is.

    Returns:
        x, y, width, height in pixels of the source frame; ``None`` where all of it was looked at (to half a pixel), or
        the image does not say where it comes from.
    """
    meta = getattr(image, "meta", {})
    if "original_affine" not in meta or "spatial_shape" not in meta:
        return None
    rows, columns = (int(n) for n in meta["spatial_shape"][:2])
    whole = torch.tensor([[0, 0, image.shape[-1], image.shape[-2]]], dtype=torch.float64)
    x0, y0, x1, y1 = boxes_in_source(whole, image)[0].tolist()
    if x0 < 0.5 and y0 < 0.5 and x1 > columns - 0.5 and y1 > rows - 0.5:
        return None
    return (x0, y0, x1 - x0, y1 - y0)


def _where_seen(heat: Any, seen: tuple[float, float, float, float] | None) -> np.ndarray:
    """Return a map as float32, not-a-number where the network did not look."""
    values = np.asarray(heat, dtype=np.float32)
    return values if seen is None else np.where(pixels_seen(values.shape, seen), values, np.float32(np.nan))


class ResultsHandler:
    """
    Hand every result of an evaluator to a writer, and at the end the metrics and the failures.

    A thread of its own writes a batch while the network computes the next; never more than one batch is waiting.

    Args:
        writer: a :py:class:`bundle.results.ResultsWriter`.
        loader: of the evaluator, whose ``failures`` are reported; ``None`` for one that leaves nothing out, of which
            no progress is kept.
        refusals: files that gave no item, with ``source`` and ``reason``, see :py:func:`bundle.lists.find_images`.
        summarize: takes the results (without arrays), returns metrics by name; ``None`` for no metrics.
        charts: returns title and picture (PNG or SVG) of what the report draws besides; ``None`` for nothing.
        remarks: takes the rows of the tables, those of a resumed run too, and returns sentences a reader must know;
            they are logged and stand in the report. ``None`` for none.
        log_seconds: log how far the run is every so many seconds, first after five; 0, or a loader that shows
            a bar, for no such lines.

    Raises:
        ValueError: When metrics are wanted of a resumed run, which has not all results at hand.
    """

    def __init__(
        self,
        writer: Any,
        loader: ReadableDataLoader | None = None,
        refusals: Sequence[Any] = (),
        summarize: Callable[[list[ImageResult]], dict[str, Any]] | None = None,
        charts: Callable[[], Sequence[tuple[str, bytes]]] | None = None,
        remarks: Callable[[Sequence[dict[str, Any]]], Iterable[str]] | None = None,
        log_seconds: float = 30.0,
    ) -> None:
        self.writer, self.loader = writer, loader
        self.refusals, self.summarize, self.charts, self.log_seconds = refusals, summarize, charts, log_seconds
        self.remarks = remarks
        self.results: list[ImageResult] = []
        self._noted = 0
        self._thread: ThreadPoolExecutor | None = None
        self._written: Future[None] | None = None
        self._pulse: Pulse | None = None
        self._done = 0
        if self.summarize is not None and writer.progress.done:
            raise ValueError("an evaluation cannot be resumed; start it again with --resume False.")

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator with decollation and post-processing."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._end_pulse)

    def _begin(self, engine: Engine) -> None:
        self.results.clear()
        self._noted, self._written = 0, None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="results")
        self._done = self._before = before = self.writer.progress.done
        total = None if self.loader is None else before + self.loader.total
        seconds = 0 if self.loader is not None and self.loader.progress else self.log_seconds
        self._pulse = Pulse(lambda: self._done, total, every=seconds)
        self._pulse.start()

    def _end_pulse(self, engine: Engine, error: BaseException | None = None) -> None:
        if self._pulse is not None:
            self._pulse.stop()
        if error is not None:
            raise error  # Ignite leaves that to whoever listens

    def __call__(self, engine: Engine) -> None:
        """Have the results of one batch written, and the batch marked as done."""
        assert self._thread is not None
        results = [image_result({**batch, **output}) for batch, output in _items(engine)]
        failures = self._new_failures()
        self._wait()
        self._written = self._thread.submit(self._write, results, failures)

    def _wait(self) -> None:
        """Wait for the batch before, and raise what ended its writing."""
        if self._written is not None:
            self._written.result()

    def _write(self, results: Sequence[ImageResult], failures: Sequence[tuple[str, str]]) -> None:
        for result in results:
            written = self.writer.add(result)
            result.image, result.heatmap, result.extra_maps = None, None, {}
            if written and (self.summarize is not None or self.charts is not None):
                self.results.append(result)
        self._note(failures)
        self._done += len(results) + len(failures)
        if self.loader is not None:
            self.writer.progress.commit(self._done - self._before)

    def _new_failures(self) -> list[tuple[str, str]]:
        """Return the loader's failures since the last call."""
        new = [] if self.loader is None else self.loader.failures[self._noted :]
        self._noted += len(new)
        return new

    def _note(self, failures: Sequence[tuple[str, str]]) -> None:
        for name, reason in failures:
            source, frame = split_frame(str(name))
            self.writer.fail(source, f"frame {frame}: {reason}" if str(name) != str(source) else reason)

    def _remark(self) -> None:
        for sentence in self.remarks(self.writer.progress.records) if self.remarks is not None else ():
            logger.warning("%s", sentence)
            self.writer.notes.append(sentence)

    def finish(self, engine: Engine) -> None:
        """Write failures, metrics and the report."""
        self._end_pulse(engine)
        if self._thread is not None:
            self._thread.shutdown()
        self._wait()
        self._note(self._new_failures())
        for refusal in self.refusals:
            self.writer.fail(refusal.source, refusal.reason)
        count = len(self.writer.progress.records)
        metrics: dict[str, Any] = {}
        charts: Sequence[tuple[str, bytes]] = ()
        failed: Exception | None = None
        try:
            metrics = dict(self.summarize(self.results)) if self.summarize is not None and count else {}
            # the metrics are over all images; whoever reads them must know that some have no verdict
            if self.summarize is not None and (unassessed := sum(r.not_assessed is not None for r in self.results)):
                metrics["images_not_assessed"] = unassessed
            charts = self.charts() if self.charts is not None and count else ()
            self._remark()
        except Exception as error:  # the tables are worth having without metrics
            failed = error
        self.writer.close(metrics=metrics or None, charts=charts)
        if failed is not None:
            raise failed
        if not count:
            failures = self.writer.failures
            first = f", first: {failures[0][1]}" if failures else ""
            raise ValueError(f"none of {len(failures)} images has a result{first}")
