# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import unittest

from bundle.results.run_record import begin_run, settings_digest
from tests.folders import FolderTestCase


class TestRunRecord(FolderTestCase):
    def test_the_digest_is_that_of_canonical_json(self):
        # printf '{"a":0.1,"b":[1,2]}' | sha256sum
        expected = "deb925af18b3be3ba8b69f7e0f6600e82993b0004c3b605a422709a2a9b17b34"
        self.assertEqual(settings_digest({"b": (1, 2), "a": 0.10}), expected)

    def test_a_run_is_continued_with_the_same_settings_alone(self):
        first = begin_run(self.folder, {"a": 1})
        again = begin_run(self.folder, {"a": 1}, resume=True)
        self.assertEqual((again.identity, again.continued), (first.identity, True))
        self.assertEqual(begin_run(self.folder, {"a": 1}, resume=True).identity, first.identity)
        other = begin_run(self.folder, {"a": 2}, resume=True)
        self.assertNotEqual(other.run, first.run)
        self.assertFalse(other.continued)
        self.assertNotEqual(begin_run(self.folder, {"a": 2}).identity, other.identity)

    def test_a_record_that_is_none_is_not_continued(self):
        first = begin_run(self.folder, {})
        path = self.folder / "run.json"
        known = json.loads(path.read_text())
        for text in (
            "[",
            "[]",
            "{}",
            json.dumps({**known, "written_by": "x"}),
            json.dumps({**known, "started": "noon"}),
        ):
            path.write_text(text)
            found = begin_run(self.folder, {}, resume=True)
            self.assertNotEqual(found.run, first.run, text)

    def test_a_fixed_time_names_the_run(self):
        one, two = (begin_run(self.folder, {"a": 1}, fixed_time="2026-03-04T05:06:07+00:00") for _ in range(2))
        self.assertEqual(one, two)
        self.assertEqual(
            one.identity, begin_run(self.folder, {"a": 1}, fixed_time="2026-03-04T06:06:07+01:00").identity
        )
        # as YAML reads it from a configuration or a command line
        self.assertEqual(one.started, begin_run(self.folder, {}, fixed_time=one.started).started)
        for wrong in ("noon", "2026-13-01", 7):
            with self.assertRaisesRegex(ValueError, f"fixed_time must be a time in ISO 8601, got '{wrong}'"):
                begin_run(self.folder, {}, fixed_time=wrong)


if __name__ == "__main__":
    unittest.main()
