# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Orthanc as the archive of a test: on free ports of the loopback, everything below one folder."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom

SERVERS = {name: shutil.which(name) for name in ("Orthanc", "dcmsend", "dciodvfy")}
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Orthanc:
    """
    One Orthanc, which survives being killed.

    Args:
        folder: of its storage, configuration and log.
        bundle_port: where the service listens, for C-MOVE.
    """

    def __init__(self, folder: Path, bundle_port: int) -> None:
        self.folder, self.dicom_port, self.http_port = folder, free_port(), free_port()
        folder.mkdir(parents=True)
        settings = {
            "Name": "test archive",
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowMove": True,
            "DicomModalities": {"bundle": ["BUNDLE", "127.0.0.1", bundle_port]},
            "Plugins": [str(DICOMWEB_PLUGIN)] if DICOMWEB_PLUGIN.exists() else [],
            "DicomWeb": {"Enable": True},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log.txt").open("ab") as log:
            command = [str(SERVERS["Orthanc"]), str(self.folder / "orthanc.json")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while True:
            try:
                self.get("/system")
                return
            except OSError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.1)

    def end(self, kill: bool = False) -> None:
        """Stop it, or kill it without warning."""
        if self._process is not None:
            self._process.kill() if kill else self._process.terminate()
            self._process.wait(60)
            self._process = None

    def get(self, path: str, body: Any = None) -> Any:
        """Return the JSON answer of its REST interface."""
        return json.loads(self._ask(path, body))

    def _ask(self, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=data)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def instances(self, study: str) -> list[bytes]:
        """Return the files of a study."""
        found = self.get("/tools/find", {"Level": "Instance", "Query": {"StudyInstanceUID": study}})
        return [self._ask(f"/instances/{identifier}/file") for identifier in found]

    def headers(self, study: str) -> list[pydicom.Dataset]:
        """Return the data sets of a study without their pixels."""
        return [pydicom.dcmread(BytesIO(file), stop_before_pixels=True) for file in self.instances(study)]
