# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Pulls from Orthanc, by C-FIND and C-MOVE and by DICOMweb."""

from __future__ import annotations

import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bundle.service.intake import Intake
from bundle.service.job_queue import JobQueue
from bundle.service.listener import Listener
from bundle.service.pull import Pulled, Wanted, pull
from bundle.service.settings import Source
from tests.service.helpers import image_file, send, some_settings
from tests.service.orthanc import DICOMWEB_PLUGIN, SERVERS, Orthanc, free_port


class InFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(setattr, tempfile, "tempdir", tempfile.tempdir)
        self.folder = Path(folder.name)

    def prepare(self, *sources: Source, port: int = 0) -> None:
        self.settings = some_settings(self.folder / "state", sources=sources, port=port)
        self.settings.state_dir.mkdir()
        self.queue = JobQueue(self.settings.state_dir / "queue.sqlite")
        self.addCleanup(self.queue.close)

    def pull(self, source: str, **wanted) -> Pulled:
        return pull(self.settings, self.queue, source, Wanted(**wanted))

    def images(self) -> int:
        return self.queue.rows("SELECT COUNT(*) AS n FROM instances")[0]["n"]


@pytest.mark.servers
@unittest.skipUnless(all(SERVERS.values()), f"servers are missing: {SERVERS}")
class TestOrthanc(InFolder):
    def setUp(self):
        super().setUp()
        port = free_port()
        self.archive = Orthanc(self.folder / "orthanc", port)
        self.addCleanup(self.archive.end)
        self.archive.start()
        files = [image_file(self.folder / "in", i, study=i // 2, StudyDate=f"2026110{i // 2}") for i in range(6)]
        files.append(image_file(self.folder / "in", 6, study=0, ultrasound=True, StudyDate="20261100"))
        self.assertEqual(send(files, self.archive.dicom_port, called="ORTHANC"), [0] * 7)
        node = Source("node", ae_title="ORTHANC", host="127.0.0.1", port=self.archive.dicom_port)
        web = Source("web", url=f"http://127.0.0.1:{self.archive.http_port}/dicom-web")
        self.prepare(node, web, port=port)

    def listen(self) -> None:
        listener = Listener(self.settings, Intake(self.settings, self.queue))
        listener.start()
        self.addCleanup(listener.stop)

    def check(self, source: str) -> None:
        self.assertEqual(self.pull(source, dates="20261101-20261102"), Pulled(new=4))
        self.assertEqual(self.images(), 4)
        self.assertEqual(self.pull(source, dates="20261101-20261102"), Pulled(known=4))
        (study,) = self.queue.rows("SELECT study FROM jobs ORDER BY id LIMIT 1")
        self.assertEqual(self.pull(source, study=study["study"]), Pulled(known=2))
        self.assertEqual(self.pull(source, dates="20261100", modalities=["US"]), Pulled(new=1))
        self.assertEqual(self.pull(source, dates="20260101"), Pulled())
        self.assertEqual(self.images(), 5)

    def test_find_and_move(self):
        self.listen()
        self.check("node")

    @unittest.skipUnless(DICOMWEB_PLUGIN.exists(), "Orthanc's DICOMweb plugin is missing")
    def test_dicomweb(self):
        Intake(self.settings, self.queue)
        self.check("web")
        self.assertEqual(list((self.settings.state_dir / "partial").iterdir()), [])

    def test_nobody_listens(self):
        pulled = None
        try:
            pulled = self.pull("node", dates="20261101")
        except OSError as error:
            self.assertRegex(str(error), "ORTHANC did not send what it has, status 0x....; does it know BUNDLE")
        if pulled is not None:
            self.assertEqual(pulled, Pulled(refused=2))
        self.assertEqual(self.images(), 0)


class TestPull(InFolder):
    def test_unknown_source_and_everything(self):
        self.prepare(Source("web", url="http://127.0.0.1:1"))
        with self.assertRaisesRegex(ValueError, "source must be one of web"):
            self.pull("pacs", dates="20261101")
        with self.assertRaisesRegex(ValueError, "dates or a study must be given"):
            self.pull("web")

    def test_sources_that_are_away(self):
        self.prepare(
            Source("web", url=f"http://127.0.0.1:{free_port()}"),
            Source("node", ae_title="AWAY", host="127.0.0.1", port=free_port()),
        )
        with self.assertRaisesRegex(OSError, "web does not answer as DICOMweb should: ConnectionError"):
            self.pull("web", dates="20261101")
        with self.assertRaisesRegex(OSError, "AWAY cannot be reached"):
            self.pull("node", dates="20261101")

    def test_authorization_is_sent_and_a_refusal_is_told_without_the_address(self):
        seen = []

        class Refuses(BaseHTTPRequestHandler):
            def do_GET(self):
                seen.append(self.headers["Authorization"])
                self.send_error(401)

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Refuses)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        (self.folder / "token").write_text("Bearer secret\n")
        self.prepare(Source("web", f"http://127.0.0.1:{server.server_port}", self.folder / "token"))
        with self.assertRaises(OSError) as caught:
            self.pull("web", study="1.2.3.4")
        self.assertNotIn("1.2.3.4", str(caught.exception))
        self.assertEqual(set(seen), {"Bearer secret"})


if __name__ == "__main__":
    unittest.main()
