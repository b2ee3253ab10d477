# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
import unittest

from bundle.results.pulse import Pulse, progress_line


class TestProgressLine(unittest.TestCase):
    def test_words(self):
        # by hand: 30 images in 60 s is one in 2 s, and 70 are left
        self.assertEqual(progress_line(30, 100, 60.0), "30 of 100 images done, 0.5 a second, 2 min left")
        # 20 of the 50 were done before
        self.assertEqual(progress_line(50, 100, 10.0, before=20), "50 of 100 images done, 3 a second, 17 s left")
        self.assertEqual(progress_line(3, 100, 60.0), "3 of 100 images done, 20 s an image, 32 min left")
        self.assertEqual(progress_line(7, None, 7.0), "7 images done, 1 a second")
        self.assertEqual(progress_line(1000, 100_000, 100.0), "1000 of 100000 images done, 10 a second, 2.8 h left")


class TestPulse(unittest.TestCase):
    def test_first_soon_then_every_so_often_and_not_after_the_end(self):
        done = [0]
        pulse = Pulse(lambda: done[0], 10, first=0.05, every=0.2)
        with self.assertLogs("bundle.results.pulse", "INFO") as log:
            pulse.start()
            done[0] = 4
            time.sleep(0.4)
            pulse.stop()
            count = len(log.records)
            time.sleep(0.3)
        self.assertIn(count, (2, 3))
        self.assertEqual(len(log.records), count)
        self.assertRegex(log.records[0].getMessage(), r"^4 of 10 images done, \d+(\.\d+)? a second, \d+ s left$")

    def test_none_when_asked_for_none(self):
        pulse = Pulse(lambda: 0, 10, first=0.0, every=0)
        with self.assertNoLogs("bundle.results.pulse", "INFO"):
            pulse.start()
            time.sleep(0.1)
            pulse.stop()


if __name__ == "__main__":
    unittest.main()
