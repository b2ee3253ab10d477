# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from bundle.results import Progress, pseudonym_key
from bundle.results.spool import Spool

ITEMS = [{"image": f"{name}.png", "key": name} for name in "abcdef"]


class TestSpool(unittest.TestCase):
    def test_grows_and_is_cut(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "list.jsonl"
            spool = Spool(path)
            spool.append({"key": "a"})
            size = spool.size()
            spool.append({"key": "b"})
            self.assertEqual((spool[1], [item["key"] for item in spool], len(spool)), ({"key": "b"}, ["a", "b"], 2))
            spool.close()
            again = Spool(path, size)
            again.append({"key": "c"})
            self.assertEqual([item["key"] for item in again], ["a", "c"])
            again.close()
            with self.assertRaisesRegex(ValueError, "must hold 99 bytes"):
                Spool(path, 99)


class TestProgress(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "unfinished"

    def begun(self) -> Progress:
        """Return the progress of a run that did two items, and two more that it did not mark as done."""
        progress = Progress(self.folder, settings={"batch_size": 2})
        self.assertEqual(progress.remaining(ITEMS), ITEMS)
        for name in "abcd":
            progress.records.append({"key": name})
            if name == "b":
                progress.failures.append(("x.png", "is cut off"))
                progress.counts["not_dicom"] = 2
                progress.commit(2)
        for name in ("records", "pictures", "failures"):
            getattr(progress, name).close()
        return progress

    def test_continues_after_the_last_mark(self):
        before = self.begun()
        self.assertEqual(pseudonym_key(self.folder, resume=True), before.secret)
        self.assertEqual(pseudonym_key(self.folder, resume=True, secret="mine"), "mine")
        self.assertNotEqual(pseudonym_key(self.folder), before.secret)
        after = Progress(self.folder, resume=True, settings={"batch_size": 2})
        self.assertEqual((after.done, after.secret, after.counts), (2, before.secret, {"not_dicom": 2}))
        self.assertEqual(after.remaining(ITEMS), ITEMS[2:])
        self.assertEqual([record["key"] for record in after.records], ["a", "b"])
        self.assertEqual(list(after.failures), [["x.png", "is cut off"]])
        after.commit(4)
        after.finish()
        self.assertFalse(self.folder.exists())

    def test_refuses_what_does_not_fit(self):
        self.begun()
        with self.assertRaisesRegex(ValueError, "cannot resume: batch_size was 2 and is 5; set it as it was"):
            Progress(self.folder, resume=True, settings={"batch_size": 5})
        with self.assertRaisesRegex(ValueError, "cannot resume: top_fraction was None and is 0.1; set it as it was"):
            Progress(self.folder, resume=True, settings={"batch_size": 2}, written={"top_fraction": 0.1})
        with self.assertRaisesRegex(ValueError, "cannot resume: secret is another"):
            Progress(self.folder, resume=True, settings={"batch_size": 2}, secret="other")
        with self.assertRaisesRegex(ValueError, "cannot resume: the images are not those"):
            Progress(self.folder, resume=True, settings={"batch_size": 2}).remaining(ITEMS[1:])
        with self.assertRaisesRegex(ValueError, "resume must be True or False, spelled so, got 'false'"):
            Progress(self.folder, resume="false")
        (self.folder / "state.json").write_text("[")
        with self.assertRaisesRegex(ValueError, "cannot resume from '.*state.json': it is no state of a run"):
            Progress(self.folder, resume=True)

    def test_starts_again_without_resume(self):
        self.begun()
        with self.assertLogs("bundle", "WARNING") as log:
            progress = Progress(self.folder)
        self.assertIn("--resume True would have continued", log.output[0])
        self.assertEqual((progress.done, len(progress.records)), (0, 0))
        progress.finish()


if __name__ == "__main__":
    unittest.main()
