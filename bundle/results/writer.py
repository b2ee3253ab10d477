# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""One front for all that a run writes; it takes results one at a time and keeps none of their arrays."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from bundle.errors import kind_and_place
from bundle.files import CannotWriteError
from bundle.reading.formats import file_format
from bundle.results.earlier import files_of_earlier, remove_earlier
from bundle.results.names import plain_text, relative_source, safe_name
from bundle.results.nifti import write_nifti
from bundle.results.overlays import check_heat_range, write_overlay
from bundle.results.progress import Progress
from bundle.results.records import VERDICTS, Algorithm, ImageResult, NotWrittenError, not_finite
from bundle.results.report.page import ReportFacts, pictures_of, render_report
from bundle.results.run_record import begin_run
from bundle.results.tables import (
    record_of,
    write_failures,
    write_metrics,
    write_predictions_csv,
    write_predictions_json,
    write_scores,
)

__all__ = ["FORMATS", "ResultsWriter"]

FORMATS = ("csv", "json", "nifti", "overlay", "report", "sr", "seg", "heat", "sc")
_DICOM = ("sr", "seg", "heat", "sc")

logger = logging.getLogger(__name__)


class ResultsWriter:
    """
    Write results as they come; the tables and the report follow at the end.

    Under ``output_dir``: ``run.json``, ``predictions.csv``, ``scores.csv``, ``predictions.json``, ``failures.csv``,
    ``metrics.json`` (if there are metrics), ``report.html``, ``overlays/``, ``heatmaps/`` and ``dicom/``. A file that
    cannot be written for an image goes to ``failures.csv``, and the run goes on. Sources that are not DICOM get no
    DICOM results. Pictures, maps and objects of an earlier run, which its ``predictions.json`` names, are removed when
    that file is replaced by one with results.

    Use it as a context manager, so that what was found before an error is not lost. A disk that is full or a folder
    that has become read-only ends the run, since it would fail for every image.

    Args:
        output_dir: folder to write to, made if missing.
        formats: some of ``csv``, ``json``, ``nifti``, ``overlay``, ``report``, ``sr``, ``seg``, ``heat``, ``sc``.
        title: of the report.
        algorithm: what made the results, or the arguments of :py:class:`Algorithm`.
        calibration: of an anomaly detector, see :py:func:`bundle.anomaly.read_calibration`; gives ``threshold``,
            ``heat_range`` and the weights' SHA-256 where they are not given.
        threshold: score from which an image is called abnormal, and heat above which a pixel belongs to the mask.
        heat_range: values shown as no heat and as full heat, for all images; 0 to 1 if nothing says otherwise.
        input_root: folder that sources are named relative to; outside of it they are named by their bare file name.
        notes: sentences that a reader of the report must know, or one sentence; empty ones are left out.
        fixed_time: time of the run in ISO 8601: two runs with the same one, settings and sources write the same bytes.
            For tests; ``None`` takes the present moment, and every run has its own times and DICOM UIDs.
        strict: an image that is not assessed is a failure, and gets no result.
        progress: what an earlier, killed run has done already, and where this one notes its own; nowhere if ``None``.

    Raises:
        ValueError: When a format is unknown, or ``output_dir`` cannot be written to.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        formats: Sequence[str] = ("csv", "json", "nifti", "overlay", "report"),
        title: str = "Results",
        algorithm: Algorithm | Mapping[str, Any] | None = None,
        calibration: Mapping[str, Any] | None = None,
        threshold: float | None = None,
        heat_range: tuple[float, float] | None = None,
        input_root: str | os.PathLike | None = None,
        notes: Sequence[str] | str = (),
        fixed_time: str | None = None,
        strict: bool = False,
        progress: Progress | None = None,
    ) -> None:
        if unknown := sorted(set(formats) - set(FORMATS)):
            raise ValueError(f"formats must be some of {', '.join(FORMATS)}, got {', '.join(unknown)}.")
        calibration = calibration or {}
        self.output_dir, self.formats, self.title = Path(output_dir), tuple(formats), title
        self.algorithm = _algorithm(algorithm, calibration.get("weights_sha256"))
        self.threshold = _finite(calibration.get("threshold") if threshold is None else threshold)
        self.heat_range = check_heat_range(heat_range or heat_range_of(calibration, self.threshold))
        self.input_root = input_root
        self.notes = [note for note in ([notes] if isinstance(notes, str) else notes) if note]
        if not isinstance(strict, bool):  # the command line takes `false` for a word, which would count as true
            raise ValueError(f"strict must be True or False, spelled so, got '{strict}'.")
        self.strict = strict
        self.progress = progress or Progress()
        # dictionaries without values are sets that keep their order
        self._failures = dict.fromkeys((file, reason) for file, reason in self.progress.failures)
        self._names = {safe_name(record["key"]) for record in self.progress.records}
        self._closed = False
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            write_failures(self.output_dir / "failures.csv", [])
            made = self.algorithm
            model = None if made.model is None else {"name": made.model, "weights_sha256": made.weights_sha256}
            self.run = begin_run(self.output_dir, self._settings(), self.progress.resume, fixed_time, model)
        except OSError as error:
            raise ValueError(f"output_dir must be a folder that can be written to: {error.strerror}.") from None

    def _settings(self) -> dict[str, Any]:
        """Return what can change the content of a result; an archive would keep the first object of a UID."""
        return {
            "algorithm": {**vars(self.algorithm), "model": None},  # a folder that was moved is the same model
            "threshold": self.threshold,
            "heat_range": self.heat_range,
            "strict": self.strict,
            "run": dict(self.progress.settings),
        }

    @property
    def failures(self) -> list[tuple[str, str]]:
        """File and reason of all that has no result, or lacks a part of it, so far."""
        return list(self._failures)

    def add(self, result: ImageResult) -> bool:
        """
        Write what belongs to one image, and remember its numbers and thumbnails.

        An image with a number that is not finite fails: it has no verdict, and would read as not flagged.

        Args:
            result: what was found; its arrays are not kept.

        Returns:
            whether the image has a result now.
        """
        name = safe_name(result.key)
        refused = not_finite(result)
        if name in self._names:
            refused = f"key must be unique within a run, got '{name}' again."
        elif self.strict and result.not_assessed is not None:
            refused = f"not assessed, which is a failure in a strict run: {result.not_assessed}"
        if refused:
            self.fail(result.source, refused if not result.frame else f"frame {result.frame}: {refused}")
            return False
        self._names.add(name)
        files: dict[str, str] = {}
        for kind, path, write in self._jobs(result, name, files):
            if self._guarded(kind, result, partial(write, self.output_dir / path)):
                files[kind] = path
        if "report" in self.formats:
            pictures: list[dict] = []
            self._guarded("report", result, lambda: pictures.append(pictures_of(result, self.heat_range)))
            self.progress.pictures.append(pictures[0] if pictures else {"image": None, "maps": []})
        self.progress.records.append(record_of(result, self.input_root, files))
        return True

    def fail(self, source: str | os.PathLike, reason: str) -> None:
        """
        Note that a file has no result, or lacks a part of it.

        Args:
            source: the input file.
            reason: one line; the folder of the source is taken out of it.
        """
        full, name = os.fspath(source), relative_source(source, self.input_root)
        for path in (full, os.path.abspath(full)):
            reason = reason.replace(path, name)
        failure = plain_text(name), plain_text(" ".join(reason.split())[:300])
        if failure not in self._failures:
            self._failures[failure] = None
            self.progress.failures.append(failure)

    def close(
        self,
        metrics: Mapping[str, Any] | None = None,
        threshold: float | None = None,
        charts: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """
        Write the tables and the report; a second call does nothing.

        Args:
            metrics: of an evaluation, see :py:func:`bundle.results.tables.write_metrics`.
            threshold: score from which an image is called abnormal, if it was not known before.
            charts: further pictures for the report as title and SVG or PNG bytes.
        """
        if self._closed:
            return
        self._closed = True
        threshold = self.threshold if threshold is None else _finite(threshold)
        failures, folder, records = self.failures, self.output_dir, self.progress.records
        write_failures(folder / "failures.csv", failures)
        if metrics:
            write_metrics(folder / "metrics.json", metrics)
        if "csv" in self.formats:
            write_predictions_csv(folder / "predictions.csv", records)
            write_scores(folder / "scores.csv", records)
        if "json" in self.formats:
            earlier = files_of_earlier(folder)
            write_predictions_json(folder / "predictions.json", records, self.algorithm, threshold, metrics, failures)
            written = {path for record in records for path in record["files"].values()}
            if records and (removed := remove_earlier(folder, earlier, written)):
                logger.info("%s of an earlier run in this folder removed", _count(removed, "file"))
        if "report" in self.formats:
            facts = ReportFacts(
                title=self.title,
                algorithm=self.algorithm,
                threshold=threshold,
                metrics=metrics,
                started=self.run.started.strftime("%Y-%m-%d %H:%M UTC"),
                notes=[*self.notes, *self._remarks()],
                failures=failures,
                charts=charts,
            )
            render_report(records, self.progress.pictures.__getitem__, folder / "report.html", facts)
        self._count_verdicts()
        self.progress.finish()

    def _count_verdicts(self) -> None:
        verdicts = Counter(record["verdict"] for record in self.progress.records)
        counted = ", ".join(f"{verdicts[word]} {word}" for word in VERDICTS if verdicts[word])
        images = _count(verdicts.total(), "image") + (f" ({counted})" if counted else "")
        logger.info("%s, %s", images, _count(len(self._failures), "failure"))

    def __enter__(self) -> ResultsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _jobs(
        self, result: ImageResult, name: str, done: Mapping[str, str]
    ) -> list[tuple[str, str, Callable[[Path], None]]]:
        """Return kind, path below the output folder and writing function; ``done`` grows as they are called."""
        jobs: list[tuple[str, str, Callable[[Path], None]]] = []
        if "overlay" in self.formats and (result.image is not None or result.heatmap is not None):
            jobs.append(
                ("overlay", f"overlays/{name}.png", partial(write_overlay, result=result, heat_range=self.heat_range))
            )
        if "nifti" in self.formats:
            maps = {"": result.heatmap} if result.heatmap is not None else {}
            for title, heat in (maps | result.extra_maps).items():
                stem = f"{name}_{safe_name(title)}" if title else name
                write = partial(write_nifti, heatmap=heat, spacing=result.spacing)
                jobs.append((f"nifti_{title}".strip("_"), f"heatmaps/{stem}.nii.gz", write))
        if wanted := set(self.formats) & set(_DICOM):
            if _is_dicom(result):
                jobs += self._dicom_jobs(result, name, wanted, done)
            else:
                self.progress.counts["not_dicom"] = self.progress.counts.get("not_dicom", 0) + 1
        return jobs

    def _dicom_jobs(self, result: ImageResult, name: str, wanted: set[str], done: Mapping[str, str]) -> list[tuple]:
        # a second that a run without DICOM results need not wait
        from bundle.results.dicom.sc import write_sc
        from bundle.results.dicom.seg import write_binary_seg, write_heat_seg
        from bundle.results.dicom.source import load_source
        from bundle.results.dicom.sr import write_sr

        found: list = []
        state = None if result.header is None else result.header.file_state

        def load() -> None:
            found.append(load_source(result.source, result.frame, self.algorithm, self.run, state))

        if not self._guarded("dicom", result, load):
            return []
        source = found[0]
        writers: dict[str, Callable[[Path], None]] = {}
        if "seg" in wanted and result.heatmap is not None and self.threshold is not None:
            writers["seg"] = partial(write_binary_seg, result=result, source=source, map_threshold=self.threshold)
        if "heat" in wanted and result.heatmap is not None:
            writers["heat"] = partial(write_heat_seg, result=result, source=source, heat_range=self.heat_range)
        if "sr" in wanted:  # after the mask, which it refers to where that could be written

            def write_report(path: Path) -> None:
                write_sr(path, result, source, self.threshold, segmented="seg" in done)

            writers["sr"] = write_report
        if "sc" in wanted and result.image is not None:
            writers["sc"] = partial(write_sc, result=result, source=source, heat_range=self.heat_range)
        return [(kind, f"dicom/{name}_{kind}.dcm", write) for kind, write in writers.items()]

    def _guarded(self, kind: str, result: ImageResult, action: Callable[[], None]) -> bool:
        """Return whether the action ended well; what went wrong is noted without text from inside the source."""
        try:
            action()
        except CannotWriteError:  # the next image would fare no better
            raise
        except NotWrittenError as error:
            self.fail(result.source, f"{kind}: {error}")
        except Exception as error:  # another library's message may quote the source's text, so only its kind is given
            self.fail(result.source, f"{kind}: writing ended in {kind_and_place(error)}.")
        else:
            return True
        return False

    def _remarks(self) -> list[str]:
        if not (count := self.progress.counts.get("not_dicom", 0)):
            return []
        return [f"{count} images do not come from DICOM files and have no DICOM results."]


def _is_dicom(result: ImageResult) -> bool:
    if result.header is not None:
        return result.header.format == "dicom"
    try:
        return file_format(Path(result.source)) == "dicom"
    except (OSError, ValueError):
        return False


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def _algorithm(given: Algorithm | Mapping[str, Any] | None, weights_sha256: str | None) -> Algorithm:
    arguments = vars(given) if isinstance(given, Algorithm) else dict(given or {})
    if weights_sha256 and not arguments.get("weights_sha256"):
        arguments = {**arguments, "weights_sha256": weights_sha256}
    parameters = arguments.get("parameters", {}).items()
    words = {name: value if isinstance(value, str | int | float) else str(value) for name, value in parameters}
    return Algorithm(**{**arguments, "parameters": words})


def heat_range_of(calibration: Mapping[str, Any], threshold: float | None) -> tuple[float, float]:
    """Return a range from the usual heat of normals, with the threshold (or their highest score) at a quarter of it."""
    low, scores = calibration.get("heat_low"), calibration.get("scores")
    quarter = max(scores) if threshold is None and scores else threshold
    if low is None or quarter is None or not low < quarter:
        return (0.0, 1.0)
    return (low, low + 4 * (quarter - low))  # heat of abnormal images goes far beyond, and should not look all the same


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
