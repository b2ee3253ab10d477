# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the studies that arrive have the scores that a model's calibration promises its false-alarm rate for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bundle.service.job_queue import JobQueue

__all__ = ["ShiftWatch"]

logger = logging.getLogger(__name__)


class ShiftWatch:
    """
    Keep one score of each study until there are enough, and look at them together as at the end of a run.

    One image of a study, since images of a patient are alike; the first that is assessed, so that it is not chosen by
    its score. After a look the scores are dropped: each counts in one look, or the looks would find something by chance
    sooner or later. What was found stands in the queue until a later look finds nothing; the log tells it once.

    Args:
        queue: where the scores are kept, through restarts.
        studies: number of studies of one look.
    """

    def __init__(self, queue: JobQueue, studies: int = 50) -> None:
        self._queue, self._studies = queue, studies

    def add(
        self,
        model: str,
        weights: str,
        study: str,
        images: Sequence[Mapping[str, Any]],
        remarks: Callable[[Sequence[Mapping[str, Any]]], Sequence[str]],
    ) -> None:
        """
        Keep the score of a study, and look where there are enough.

        Args:
            model: its name in the settings.
            weights: SHA-256 of its weights; scores and findings of others are dropped.
            study: Study Instance UID; a study that is computed again has one score.
            images: rows of the tables with ``anomaly_score`` and ``not_assessed``.
            remarks: sentences about rows with ``anomaly_score``, ``label`` and ``not_assessed``, none where all is
                well.
        """
        score = next(
            (i["anomaly_score"] for i in images if i["anomaly_score"] is not None and i["not_assessed"] is None), None
        )
        if score is None:
            return
        with self._queue.transaction() as db:
            for table in ("scores", "shifts"):
                db.execute(f"DELETE FROM {table} WHERE model = ? AND weights != ?", (model, weights))
            db.execute("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", (model, weights, study, score))
            kept = [row["score"] for row in db.execute("SELECT score FROM scores WHERE model = ?", (model,))]
            if len(kept) < self._studies:
                return
            rows = [{"anomaly_score": value, "label": None, "not_assessed": None} for value in kept]
            sentence = " ".join(remarks(rows))
            known = db.execute("SELECT 1 FROM shifts WHERE model = ?", (model,)).fetchone()
            db.execute("DELETE FROM scores WHERE model = ?", (model,))
            db.execute("DELETE FROM shifts WHERE model = ?", (model,))
            if sentence:
                db.execute("INSERT INTO shifts VALUES (?, ?, ?, ?)", (model, weights, sentence, time.time()))
        if sentence and not known:
            logger.warning("%s, the last %d studies: %s", model, len(kept), sentence)
        elif known and not sentence:
            logger.info("%s, the last %d studies: scores are the calibration's again", model, len(kept))
