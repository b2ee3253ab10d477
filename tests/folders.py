# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What tests with files start from."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path


class FolderTestCase(unittest.TestCase):
    """A test with an empty folder of its own, ``root`` or ``folder``, which is gone afterwards."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = self.folder = Path(folder.name)
