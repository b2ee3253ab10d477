# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import sqlite3
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

from bundle.service.processes import listen, open_queue
from bundle.service.state_lock import locked_role, runs
from tests.service.helpers import some_settings
from tests.service.orthanc import free_port


class TestProcesses(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(setattr, tempfile, "tempdir", tempfile.tempdir)
        self.addCleanup(setattr, threading, "excepthook", threading.excepthook)
        self.folder = Path(folder.name)

    def test_the_state_folder_is_for_its_owner_alone(self):
        for exists in (False, True):
            state = self.folder / str(exists) / "state"
            if exists:
                state.mkdir(parents=True, mode=0o755)
            open_queue(some_settings(state)).close()
            self.assertEqual(state.stat().st_mode & 0o777, 0o700)

    def test_a_state_folder_of_someone_else(self):
        refused = mock.patch.object(Path, "chmod", side_effect=PermissionError(1, "Operation not permitted"))
        state = self.folder / "state"
        state.mkdir(mode=0o755)
        message = f"state_dir must be for its owner alone, '{state}' is not: Operation not permitted"
        with refused, self.assertRaisesRegex(PermissionError, message):
            open_queue(some_settings(state))

    def test_one_listener_for_a_state_folder(self):
        state = self.folder / "state"
        open_queue(some_settings(state)).close()
        self.assertFalse(runs(state, "listen"))
        with locked_role(state, "listen"):
            self.assertTrue(runs(state, "listen"))
            (state / "partial").mkdir()
            (state / "partial" / "coming").touch()
            message = f"state_dir must have one 'listen' only, '{state}' has one already"
            with self.assertRaisesRegex(OSError, message):
                listen(some_settings(state, port=free_port()), threading.Event())
            self.assertTrue((state / "partial" / "coming").exists())
        self.assertFalse(runs(state, "listen"))

    def test_an_error_of_the_watch_ends_listening(self):
        settings = some_settings(self.folder / "state", watch=self.folder / "in", port=free_port())
        broken = mock.patch("bundle.service.watch.scan", side_effect=sqlite3.OperationalError("disk I/O error"))
        with broken, self.assertRaisesRegex(sqlite3.OperationalError, "disk I/O error"):
            listen(settings, threading.Event())
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", settings.port), timeout=5)


if __name__ == "__main__":
    unittest.main()
