# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""How often a run opens a film, from the search to its SR, and what it makes of a film that changes meanwhile."""

from __future__ import annotations

import csv
import ctypes
import os
import shutil
import struct
import subprocess
import sys
import unittest
from collections import Counter
from pathlib import Path

import numpy as np
from monai.data import Dataset, decollate_batch
from monai.transforms import LoadImaged
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from bundle.lists.find import find_images
from bundle.reading import RadiologyReader, ReadableDataLoader
from bundle.results import ResultsWriter
from bundle.results.handler import image_result
from tests.folders import FolderTestCase
from tests.synthetic_dicom import save_dicom
from tests.workflows import ROOT, write_start

# Python runs it at the start of every process whose PYTHONPATH names its folder, so also of the decoder's
HOOK = """
import os, sys
log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def opened(event, arguments):
    if event == "open" and str(arguments[0]).startswith({films!r}):
        os.write(log, os.path.basename(str(arguments[0])).encode() + b"\\n")
sys.addaudithook(opened)
"""
IN_ACCESS, IN_CLOSE, IN_OPEN = 0x01, 0x08 | 0x10, 0x20  # inotify(7)


def film(path: Path, pixels: np.ndarray) -> Path:
    uids = {name: generate_uid() for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")}
    return save_dicom(path, pixels, **uids)


class KernelCount:
    """
    Count the opens of files by whatever opens them, native libraries too, as Linux tells it.

    Equal events in a row are told once; closing, and the reading between one open and the next, keep them apart.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._queue = self._libc.inotify_init1(os.O_NONBLOCK)
        mask = IN_ACCESS | IN_CLOSE | IN_OPEN
        self._names = {self._libc.inotify_add_watch(self._queue, bytes(path), mask): path.name for path in paths}

    def read(self) -> Counter[str]:
        events, found = os.read(self._queue, 2**20), Counter[str]()
        for place in range(0, len(events), 16):  # an event of a file that is watched itself has no name
            watch, mask = struct.unpack_from("iI", events, place)
            found[self._names[watch]] += bool(mask & IN_OPEN)
        os.close(self._queue)
        return found


class TestFileOpens(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.films = self.root / "films"
        self.films.mkdir()
        film(self.films / "plain.dcm", np.arange(4096, dtype=np.uint16).reshape(64, 64))

    @unittest.skipUnless(sys.platform == "linux", "inotify is Linux's")
    def test_three_opens_from_the_search_to_the_sr_in_all_processes(self):
        # JPEG Lossless, which GDCM decodes in a process of its own
        shutil.copy(get_testdata_file("SC_rgb_jpeg_gdcm.dcm", download=False), self.films / "lossless.dcm")
        write_start(self.root / "model", "adfa", image_size=[32, 32], backbone="resnet18", weights="random")
        log, hook = self.root / "opened.txt", self.root / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(HOOK.format(log=str(log), films=str(self.films)))
        kernel = KernelCount(sorted(self.films.iterdir()))
        flags = {"input": self.films, "model_dir": self.root / "model", "output_dir": self.root / "out"}
        flags |= {"formats": "[csv,sr]", "num_workers": 1, "progress_bar": False, "device": "cpu"}
        command = [sys.executable, "-m", "monai.bundle", "run", "--args_file", "configs/args_adfa_inference.yaml"]
        command += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        path = os.pathsep.join([str(hook), str(ROOT)])
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(list((self.root / "out/dicom").glob("*_sr.dcm"))), 2)
        # the search, the reader and the writer, once each
        self.assertEqual(Counter(log.read_text().split()), {"plain.dcm": 3, "lossless.dcm": 3})
        self.assertEqual(kernel.read(), {"plain.dcm": 3, "lossless.dcm": 3})  # so nothing native opens them

    def test_all_frames_of_a_loop_share_one_open_of_the_writer(self):
        path = film(self.films / "loop.dcm", np.arange(3 * 64, dtype=np.uint16).reshape(3, 8, 8))
        results = [self.read(f"{path}#frame={frame}") for frame in range(3)]
        kernel = KernelCount([path])
        with ResultsWriter(self.root / "out", formats=("sr",)) as writer:
            for result in results:
                writer.add(result)
        self.assertEqual(writer.failures, [])
        self.assertEqual(kernel.read(), {"loop.dcm": 1})

    def test_a_film_that_changes_after_the_search_is_read_as_it_is(self):
        ((item,), _) = find_images(self.films)
        film(self.films / "plain.dcm", np.full((32, 16), 7, dtype=np.uint16))
        result = self.read(item["image"])
        self.assertEqual(result.header, self.read(str(self.films / "plain.dcm")).header)
        with ResultsWriter(self.root / "out", formats=("csv", "sr")) as writer:
            self.assertTrue(writer.add(result))
        self.assertEqual(writer.failures, [])

    def test_a_film_that_changes_after_it_was_read_gets_no_dicom_result(self):
        result = self.read(str(self.films / "plain.dcm"))
        film(self.films / "plain.dcm", np.full((64, 64), 7, dtype=np.uint16))
        with ResultsWriter(self.root / "out", formats=("csv", "sr")) as writer:
            writer.add(result)
        with (self.root / "out/failures.csv").open(newline="") as file:
            ((name, reason),) = list(csv.reader(file))[1:]
        self.assertEqual(name, "plain.dcm")
        self.assertRegex(reason, "^dicom: .* its source, which has changed since its image was read.$")
        self.assertFalse((self.root / "out/dicom").exists())

    def read(self, name: str):
        read = LoadImaged("image", reader=RadiologyReader(channels=3), image_only=True, ensure_channel_first=True)
        items = Dataset([{"image": name, "key": Path(name).name.replace("#", "_"), "anomaly_score": 1.0}], read)
        (batch,) = ReadableDataLoader(items, batch_size=1)
        return image_result(decollate_batch(batch)[0])


if __name__ == "__main__":
    unittest.main()
