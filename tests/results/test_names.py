# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest
from pathlib import Path

from bundle.results.names import relative_source, safe_name


class TestSafeName(unittest.TestCase):
    def test_good_names_stay(self):
        for name in ("000012_normal_10", "a-b.c"):
            self.assertEqual(safe_name(name), name)

    def test_stays_in_the_folder(self):
        for key in ("../../x", "/x", "a/b", "a\\b", "..", "", ".hidden", "x\0y", "nul", "con.txt", "n\n", "é" * 300):
            name = safe_name(key)
            self.assertEqual(Path(name).name, name, key)
            self.assertRegex(name, r"^[A-Za-z0-9][A-Za-z0-9._-]*-[0-9a-f]{8}$", key)
            self.assertEqual((Path("/out") / name).resolve().parent, Path("/out"), key)

    def test_different_keys_have_different_names(self):
        self.assertEqual(len({safe_name(key) for key in ("a b", "a/b", "a\\b", "a_b")}), 4)


class TestRelativeSource(unittest.TestCase):
    def test_no_absolute_path(self):
        self.assertEqual(relative_source("/data/in/a/b.dcm", "/data/in"), "a/b.dcm")
        self.assertEqual(relative_source("/elsewhere/b.dcm", "/data/in"), "b.dcm")
        self.assertEqual(relative_source("/data/in/../secret/b.dcm", "/data/in"), "b.dcm")
        self.assertEqual(relative_source("/data/in/b.dcm", "/data/in/b.dcm"), "b.dcm")  # one file as the input
        self.assertEqual(relative_source("/data/in/b.dcm", None), "b.dcm")
