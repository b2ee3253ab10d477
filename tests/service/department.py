# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A small department for tests: an archive, the service in its processes, and modalities that send studies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import yaml
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from bundle.service.job_queue import JobQueue
from bundle.synthetic.phantoms import write_phantom
from tests.service.helpers import ROOT, small_adfa, small_msa
from tests.service.orthanc import SERVERS, Orthanc, free_port

SAMPLES = ROOT.parent / "shared" / "data" / "cxr_samples"
ULTRASOUND = ("examples_palette.dcm", "examples_rgb_color.dcm", "examples_jpeg2k.dcm", "examples_ybr_color.dcm")


@dataclass(frozen=True)
class Study:
    """A study that is sent: its image, and what results must refer to."""

    file: Path
    study: str
    instance: str
    patient: str
    frames: int


class Department:
    """
    Archive and service below one folder; nothing runs before ``start``.

    Args:
        folder: of everything.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.archive = Orthanc(folder / "orthanc", self.port)
        models = [small_adfa(folder / "adfa"), small_msa(folder / "msa")]
        self.settings = {
            "state_dir": "state",
            "port": self.port,
            "quiet_seconds": 2,
            "retry_seconds": 1,
            "max_attempts": 100,  # the tests kill workers on purpose
            "min_free_bytes": 0,
            "destinations": [{"ae_title": "ORTHANC", "host": "127.0.0.1", "port": self.archive.dicom_port}],
            "models": [
                {"name": m.name, "args_file": str(m.args_file), "settings": {**m.settings, "frames": "middle"}}
                for m in models
            ],
        }
        self.config = folder / "service.yaml"
        self._service: subprocess.Popen | None = None

    @property
    def state(self) -> Path:
        """Return the folder of queue, images and results."""
        return self.folder / "state"

    def start(self) -> None:
        """Start the service and wait until it listens."""
        self.config.write_text(yaml.safe_dump(self.settings))
        command = [sys.executable, "-m", "bundle.service", "run", "--config", str(self.config)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with (self.folder / "service.log").open("ab") as log:
            self._service = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        self.wait(self.listens, 120)

    def end(self, kill: bool = False) -> None:
        """Stop all processes of the service, or kill them without warning."""
        if self._service is not None:
            if kill:
                os.killpg(self._service.pid, signal.SIGKILL)
            else:
                self._service.terminate()
            self._service.wait(90)
            self._service = None

    def kill_one(self, role: str) -> None:
        """Kill one process of the service without warning; the others find out."""
        assert self._service is not None
        listing = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(self._service.pid)], capture_output=True)
        for line in listing.stdout.decode().splitlines():
            if f"bundle.service {role} " in line:
                os.kill(int(line.split()[0]), signal.SIGKILL)

    def listens(self) -> bool:
        """Return whether the service answers an echo."""
        done = subprocess.run(["echoscu", "-aec", "BUNDLE", "127.0.0.1", str(self.port)], capture_output=True)
        return done.returncode == 0

    def wait(self, condition, seconds: float) -> None:
        """Wait until something holds."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError(f"{condition} did not hold within {seconds} s\n{self.log()[-2000:]}")
            time.sleep(0.2)

    def log(self) -> str:
        """Return what the service wrote."""
        return (self.folder / "service.log").read_text()

    def queue(self) -> JobQueue:
        """Return the service's queue."""
        return JobQueue(self.state / "queue.sqlite")

    def make_studies(self, count: int, folder: str = "studies") -> list[Study]:
        """
        Write studies of one image each, in turn from each kind there is, with UIDs and patients of their own.

        Real are the radiographs of ``shared/data`` where they lie beside the repository, and pydicom's ultrasound
        images; the others are synthetic phantoms, and say so.
        """
        sources = [*sorted(SAMPLES.glob("*.dcm")), *(Path(get_testdata_file(name)) for name in ULTRASOUND)]
        (self.folder / folder).mkdir()
        for kind in ("cr", "us"):
            phantom = self.folder / folder / f"phantom_{kind}.dcm"
            write_phantom(phantom, kind, 1, None, 0)
            sources.append(phantom)
        return [self._study(sources[i % len(sources)], i, self.folder / folder) for i in range(count)]

    def _study(self, source: Path, number: int, folder: Path) -> Study:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(source)
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            dataset.PatientID, dataset.PatientName = f"TEST-{number:04d}", f"Test^{number:04d}"
            path = folder / f"{number:04d}.dcm"
            dataset.save_as(path)
        frames = int(dataset.get("NumberOfFrames") or 1)
        return Study(path, dataset.StudyInstanceUID, dataset.SOPInstanceUID, dataset.PatientID, frames)

    def push(self, studies: Sequence[Study], peers: int, seconds: float = 300) -> None:
        """Send studies with dcmsend, from several modalities at once, each trying until its study is taken."""
        until = time.monotonic() + seconds

        def send(title: str, mine: Sequence[Study]) -> None:
            for study in mine:
                while not self.send_once(study, title) and time.monotonic() < until:
                    time.sleep(1)

        threads = [threading.Thread(target=send, args=(f"MOD{i}", studies[i::peers])) for i in range(peers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def send_once(self, study: Study, title: str, called: str = "BUNDLE", port: int | None = None) -> bool:
        """Return whether dcmsend says that a study was taken."""
        command = [str(SERVERS["dcmsend"]), "-aet", title, "-aec", called, "127.0.0.1", str(port or self.port)]
        return subprocess.run([*command, str(study.file)], capture_output=True).returncode == 0

    def open_jobs(self) -> int:
        """Return how many jobs are neither done nor parked."""
        queue = self.queue()
        (row,) = queue.rows("SELECT COUNT(*) AS n FROM jobs WHERE state NOT IN ('done', 'parked')")
        queue.close()
        return row["n"]

    def figures(self) -> dict[str, float]:
        """Return studies per minute, and the time from the last image of a study to its last result in the archive."""
        queue = self.queue()
        rows = queue.rows("SELECT first_at, last_at, finished_at FROM jobs WHERE state = 'done'")
        queue.close()
        waits = np.array([row["finished_at"] - row["last_at"] for row in rows])
        minutes = (max(r["finished_at"] for r in rows) - min(r["first_at"] for r in rows)) / 60
        return {
            "studies": len(rows),
            "studies per minute": round(len(rows) / minutes, 1),
            "seconds from last image to last result, median": round(float(np.median(waits)), 1),
            "95th percentile": round(float(np.percentile(waits, 95)), 1),
        }
