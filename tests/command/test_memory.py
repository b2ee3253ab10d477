# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import platform
import subprocess
import sys
import unittest
from unittest import mock

from bundle.command import memory

_FAULTS = """
import resource, runpy, sys
import numpy as np
keep = runpy.run_path(sys.argv[1])["keep_freed_memory"]
if sys.argv[2] == "kept":
    keep()
for _ in range(2):
    np.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(2**24)  # 128 MiB, 32,768 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


class TestKeepFreedMemory(unittest.TestCase):
    @unittest.skipUnless(platform.libc_ver()[0] == "glibc", "needs glibc")
    def test_arrays_come_from_memory_that_was_freed_before(self):
        def faults(how: str) -> int:
            done = subprocess.run(
                [sys.executable, "-c", _FAULTS, memory.__file__, how], capture_output=True, check=True
            )
            return int(done.stdout)

        self.assertLess(10 * faults("kept"), faults("given back"))

    def test_other_systems_are_left_alone(self):
        with mock.patch.object(sys, "platform", "win32"):
            self.assertFalse(memory.keep_freed_memory())


if __name__ == "__main__":
    unittest.main()
