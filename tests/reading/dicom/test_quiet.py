# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import unittest
import warnings
from pathlib import Path
from threading import Barrier, Thread

from pydicom.config import settings

from bundle.reading.dicom.quiet import quiet_dicom
from bundle.reading.formats import one_line_errors


def state() -> tuple:
    """Return all that is the process's, not a thread's."""
    levels = [logging.getLogger(name).level for name in ("pydicom", "highdicom")]
    return list(warnings.filters), levels, settings.reading_validation_mode, settings.writing_validation_mode


class TestQuietDicom(unittest.TestCase):
    def test_two_threads_that_overlap(self):
        loud, seen = state(), []
        turn = Barrier(2, timeout=10)

        def read() -> None:
            with one_line_errors(Path("film.dcm")):
                turn.wait()
                turn.wait()
            turn.wait()  # the other one is still within
            turn.wait()

        def write() -> None:
            turn.wait()
            with quiet_dicom():
                seen.append(state())
                turn.wait()
                turn.wait()
                seen.append(state())
            turn.wait()

        threads = [Thread(target=read), Thread(target=write)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(seen[0], seen[1])
        self.assertNotIn(loud, seen)
        self.assertEqual(state(), loud)

    def test_restores_after_an_error_and_when_nested(self):
        loud = state()
        with self.assertRaisesRegex(KeyError, "x"), quiet_dicom(), quiet_dicom():
            with warnings.catch_warnings(record=True) as caught, quiet_dicom():
                warnings.warn("CANARY", stacklevel=1)
            with self.assertNoLogs(level=logging.DEBUG):
                logging.getLogger("highdicom.base").critical("CANARY")
            raise KeyError("x")
        self.assertEqual((caught, state()), ([], loud))


if __name__ == "__main__":
    unittest.main()
