# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime
import errno
import json
import socket
import sqlite3
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from bundle.service.intake import Intake
from bundle.service.job_queue import JobQueue
from bundle.service.listener import Listener
from bundle.service.sender import UnreachableError, send_files
from bundle.service.settings import Audit, Node, Peer, Tls
from bundle.service.watch import scan, watch_folder
from tests.service.helpers import image_file, send, some_settings

OWN = {
    "Manufacturer": "attention-imaging-bundle",
    "SeriesDescription": "AI overlay, research use only, not for diagnosis",
}


class InFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(setattr, tempfile, "tempdir", tempfile.tempdir)
        self.folder = Path(folder.name)

    def listen(self, **changes) -> int:
        settings = some_settings(self.folder / "state", **changes)
        settings.state_dir.mkdir()
        self.queue = JobQueue(settings.state_dir / "queue.sqlite")
        self.addCleanup(self.queue.close)
        self.intake = Intake(settings, self.queue)
        listener = Listener(settings, self.intake)
        port = listener.start()
        self.addCleanup(listener.stop)
        return port

    def uids(self) -> list[str]:
        return [row["uid"] for row in self.queue.rows("SELECT uid FROM instances")]

    def wait_for(self, condition) -> None:
        until = time.monotonic() + 20
        while not (holds := condition()) and time.monotonic() < until:
            time.sleep(0.05)
        self.assertTrue(holds)

    def serves(self, port: int, **tls) -> bool:
        """Return whether a well-behaved caller gets an echo."""
        caller = AE("CALLER")
        caller.acse_timeout = caller.dimse_timeout = 10
        caller.add_requested_context(Verification)
        association = caller.associate("127.0.0.1", port, ae_title="BUNDLE", **tls)
        if not association.is_established:
            return False
        status = association.send_c_echo()
        association.release()
        return status.Status == 0


class TestListener(InFolder):
    def test_echo_store_and_duplicates(self):
        port = self.listen()
        self.assertTrue(self.serves(port))
        files = [image_file(self.folder / "in", i, study=i // 2) for i in range(4)]
        self.assertEqual(send(files, port), [0] * 4)
        self.assertEqual(send(files[:2], port), [0] * 2)
        self.assertEqual(len(self.uids()), 4)
        self.assertEqual(len(self.queue.rows("SELECT id FROM jobs")), 2)
        stored = self.folder / "state" / "images" / self.queue.rows("SELECT file FROM instances")[0]["file"]
        self.assertIn(b"Synthetic^0", stored.read_bytes())
        self.assertNotIn("SYNTHETIC", stored.name)
        self.assertEqual(list(self.intake.partial.iterdir()), [])

    def test_callers_with_the_wrong_title_are_refused(self):
        port = self.listen()
        with self.assertLogs("bundle.service.listener", "WARNING") as logs:
            self.assertEqual(send([image_file(self.folder / "in", 0)], port, called="SOMEONE"), [None])
            self.wait_for(lambda: logs.output)  # the caller hears of it first
        self.assertEqual(self.uids(), [])

    def test_only_named_peers(self):
        port = self.listen(peers=(Peer("CR1", "127.0.0.1"), Peer("CR2", "10.9.9.9")))
        file = image_file(self.folder / "in", 0)
        with self.assertLogs("bundle.service.listener", "WARNING"):
            self.assertEqual(send([file], port, title="CR2"), [None])
            self.assertEqual(send([file], port, title="STRANGER"), [None])
        self.assertEqual(self.uids(), [])
        self.assertEqual(send([file], port, title="CR1"), [0])

    def lines(self) -> list[dict]:
        file = self.folder / "state" / "audit" / "listen.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def test_the_audit_log_has_a_line_for_each_connection(self):
        port = self.listen(peers=(Peer("CR1", "127.0.0.1"),))
        first, second = (image_file(self.folder / "in", i) for i in range(2))
        wrong = image_file(self.folder / "in", 2, Rows=49)
        other = image_file(self.folder / "in", 3, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
        with self.assertLogs("bundle.service", "WARNING"):
            send([first, first, second, wrong], port, title="CR1")
            send([first], port, title="STRANGER")
            send([first], port, title="CR1", called="SOMEONE")
            send([other], port, title="CR1")
            socket.create_connection(("127.0.0.1", port), timeout=10).close()
            self.wait_for(lambda: len(self.lines()) == 5)
        usual, stranger, called, kind, silent = sorted(self.lines(), key=lambda line: line["at"])
        self.assertEqual((usual["ae_title"], usual["called"], usual["address"]), ("CR1", "BUNDLE", "127.0.0.1"))
        self.assertEqual((usual["outcome"], usual["taken"], usual["known"]), ("accepted", 2, 1))
        self.assertEqual(usual["refused"], {"PixelData must hold 1960 bytes, got 1920.": 1})
        self.assertEqual((stranger["outcome"], stranger["reason"]), ("rejected", "no named peer"))
        self.assertEqual((called["outcome"], called["reason"]), ("rejected", "our AE title was not used"))
        self.assertEqual((kind["not_negotiated"]), ["1.2.840.10008.5.1.4.1.1.2"])
        self.assertIn("the caller left", silent["outcome"])
        whole = (self.folder / "state" / "audit" / "listen.jsonl").read_text()
        for uid in self.uids():
            self.assertNotIn(uid, whole)

    def test_the_audit_log_names_objects_where_that_is_wanted_and_begins_new_files(self):
        port = self.listen(audit=Audit(max_bytes=1500, files=3, identities=True))
        file = image_file(self.folder / "in", 0)
        for _ in range(20):
            send([file], port)
        self.wait_for(lambda: len(list((self.folder / "state" / "audit").iterdir())) == 3)
        self.assertEqual(self.lines()[-1]["objects"], self.uids())

    def test_one_address_leaves_places_for_others(self):
        port = self.listen(max_associations_per_address=2)
        held = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(2)]
        time.sleep(0.5)
        with self.assertLogs("bundle.service.listener", "WARNING") as logs:
            self.assertFalse(self.serves(port))
        self.assertIn("too many from one address", logs.output[0])
        for one in held:
            one.close()
        self.wait_for(lambda: self.serves(port))

    def test_an_address_that_is_no_peers_is_not_listened_to(self):
        port = self.listen(peers=(Peer("CR1", "10.9.9.9"),))
        with self.assertLogs("bundle.service.listener", "WARNING"):
            self.assertEqual(send([image_file(self.folder / "in", 0)], port, title="CR1"), [None])
            self.wait_for(self.lines)
        self.assertEqual(self.lines()[0]["reason"], "the address is no named peer's")

    def test_objects_that_are_no_images_of_an_accepted_class(self):
        port = self.listen()
        own = image_file(self.folder / "in", 0, **OWN)
        phantom = image_file(self.folder / "in", 3, Manufacturer="attention-imaging-bundle")
        unnamed = image_file(self.folder / "in", 1, StudyInstanceUID=None)
        other = image_file(self.folder / "in", 2, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
        with self.assertLogs("bundle.service", "INFO") as logs:
            self.assertEqual(send([own, unnamed], port), [0, 0xC000])
        self.assertIn("StudyInstanceUID must be a UID", "".join(logs.output))
        self.assertEqual(send([other], port), [None])  # no presentation context is accepted
        self.assertEqual(self.uids(), [])
        self.assertEqual(send([phantom], port), [0])  # our synthetic phantoms are images
        self.assertEqual(len(self.uids()), 1)

    def test_an_oversized_object_ends_its_association_and_leaves_nothing(self):
        port = self.listen(max_object_bytes=2**21)
        large = image_file(self.folder / "in", 0)
        with large.open("ab") as file:  # more behind the pixels
            file.write(struct.pack("<HH2sHI", 0x7FE1, 0x0010, b"OB", 0, 2**22) + bytes(2**22))
        with self.assertLogs("bundle.service.listener", "WARNING"):
            self.assertEqual(send([large], port), [None])
        self.assertEqual(send([image_file(self.folder / "in", 1)], port), [0])
        self.wait_for(lambda: not list(self.intake.partial.iterdir()))

    def test_a_known_uid_with_other_content(self):
        port = self.listen()
        folder, uids = self.folder / "in", {}
        first = image_file(folder, 0)
        for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            uids[name] = str(dcmread(first)[name].value)
        self.assertEqual(send([first], port), [0])
        (kept,) = (self.folder / "state" / "images").rglob("*.dcm")
        before = kept.read_bytes()
        other_pixels = image_file(folder, 1, **uids, PatientID="SYNTHETIC-0")
        other_patient = image_file(folder, 2, **uids)
        for file, words in ((other_pixels, "with other pixels"), (other_patient, "of another patient or study")):
            with self.subTest(words), self.assertLogs("bundle.service.listener", "WARNING") as logs:
                self.assertEqual(send([file], port), [0xC000])
                self.assertIn(f"an image with this SOP Instance UID is known, {words}", logs.output[0])
        renamed = image_file(folder, 0, PatientName="Corrected^Name")
        with self.assertLogs("bundle.service.intake", "WARNING") as logs:
            self.assertEqual(send([renamed], port), [0])
        self.assertIn("known with another header; the first is kept", logs.output[0])
        self.assertEqual((kept.read_bytes(), len(self.uids())), (before, 1))

    def test_pixels_that_cannot_hold_the_frames(self):
        port = self.listen()
        with self.assertLogs("bundle.service.listener", "WARNING") as logs:
            self.assertEqual(send([image_file(self.folder / "in", 0, Rows=49)], port), [0xC000])
        # 49 x 40 bytes
        self.assertIn("refused an object from SENDER: PixelData must hold 1960 bytes, got 1920.", logs.output[0])
        self.assertEqual(self.uids(), [])

    def test_a_command_without_end_ends_its_association(self):
        port = self.listen()
        piece = bytes([1, 1]) + bytes(8000)  # context 1; of a command, not the last
        message = struct.pack(">BBL", 4, 0, len(piece) + 4) + struct.pack(">L", len(piece)) + piece
        caller = AE("SENDER")
        caller.add_requested_context(Verification)
        with self.assertLogs("bundle.service.listener", "WARNING") as logs:
            association = caller.associate("127.0.0.1", port, ae_title="BUNDLE")
            for _ in range(20):
                association.dul.socket.send(message)
            self.wait_for(lambda: logs.output)
        self.assertIn("more than 65536 bytes in one message", logs.output[0])
        association.abort()
        self.assertTrue(self.serves(port))

    def test_rate_and_disk(self):
        port = self.listen(instances_per_minute=2)
        files = [image_file(self.folder / "in", i) for i in range(3)]
        with self.assertLogs("bundle.service.listener", "WARNING"):
            self.assertEqual(send(files, port), [0, 0, 0xA700])

    def test_no_room(self):
        port = self.listen(min_free_bytes=2**60)
        with self.assertLogs("bundle.service.listener", "ERROR"):
            self.assertFalse(self.serves(port))
        with self.assertLogs("bundle.service.listener", "ERROR"):
            self.assertEqual(send([image_file(self.folder / "in", 0)], port), [0xA700])

    def test_garbage_and_silence_stop_nobody(self):
        port = self.listen()
        silent = []
        for words in (
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            bytes(100),
            b"\x01\x00\xff\xff\xff\xff" + bytes(1000),  # an association request of 4 GB
            b"\x04\x00\x00\x00\x00\x10" + bytes(16),  # data before any association
            b"\x01\x00\x00\x00\x00\x44" + bytes(68),
        ):
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            self.addCleanup(connection.close)
            connection.sendall(words)
            silent.append(connection)
        self.assertTrue(self.serves(port))

    def test_callers_that_break_the_protocol_leave_their_places(self):
        with mock.patch("bundle.service.listener._GREETING", 60):  # places that are not left stay taken for so long
            port = self.listen(max_associations=2)
        request = b"\x01\x00\x00\x00\x00\x44\x00\x01" + bytes(66)
        for words in (request, request[:20], b"\x07" + request[1:], b"\x99" + request[1:]) * 2:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(words)
        self.wait_for(lambda: self.serves(port))  # the system may still hold some of them for the listener

    def test_parallel_senders(self):
        port = self.listen()
        files = [image_file(self.folder / "in", i) for i in range(20)]
        answers: list[list] = [[] for _ in files]
        threads = [
            threading.Thread(target=lambda i=i: answers[i].extend(send([files[i]], port, title=f"S{i}")))
            for i in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, [[0]] * 20)
        self.assertEqual(len(self.uids()), 20)


class TestTls(InFolder):
    def setUp(self):
        super().setUp()
        certificate, key = self.folder / "c.pem", self.folder / "k.pem"
        words = (
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=synthetic -addext subjectAltName=IP:127.0.0.1"
        )
        subprocess.run([*words.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
        self.tls = Tls(certificate, key, certificate)
        self.port = self.listen(tls=self.tls)

    def test_named_certificates_only_and_a_silent_caller_stops_nobody(self):
        silent = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        self.addCleanup(silent.close)
        context = ssl.create_default_context(cafile=self.tls.certificate)
        self.assertFalse(self.serves(self.port, tls_args=(context, "127.0.0.1")))  # no certificate of its own
        self.assertFalse(self.serves(self.port))
        audit = self.folder / "state" / "audit" / "listen.jsonl"
        self.wait_for(lambda: audit.exists() and audit.read_text().count("TLS failed") == 2)
        context.load_cert_chain(self.tls.certificate, self.tls.key)
        self.assertTrue(self.serves(self.port, tls_args=(context, "127.0.0.1")))
        file = image_file(self.folder / "in", 0, StudyDate=datetime.date(2026, 1, 1).strftime("%Y%m%d"))
        self.assertEqual(send([file], self.port, tls_args=(context, "127.0.0.1")), [0])

    def test_results_leave_over_tls(self):
        file = image_file(self.folder / "in", 0)
        node = Node("BUNDLE", "127.0.0.1", self.port, tls=True)
        calling = some_settings(self.folder, tls=self.tls)
        self.assertEqual(list(send_files([file], node, calling)), [file])
        self.assertEqual(len(self.uids()), 1)
        with self.assertRaisesRegex(UnreachableError, "BUNDLE cannot be reached"):
            list(send_files([file], node, some_settings(self.folder)))  # trusts the system's authorities only
        elsewhere = Node("BUNDLE", "localhost", self.port, tls=True)  # the certificate is for the address
        with self.assertRaisesRegex(UnreachableError, "BUNDLE cannot be reached"):
            list(send_files([file], elsewhere, calling))


class TestWatch(InFolder):
    def test_a_folder_is_taken_in_once_and_left_as_it_is(self):
        self.listen()
        files = [image_file(self.folder / "in" / "deeper", i) for i in range(2)]
        (self.folder / "in" / "notes.txt").write_text("no image")
        seen: dict = {}
        with self.assertLogs("bundle.service.watch", "WARNING") as logs:
            scan(self.folder / "in", self.intake, 0, seen)
            scan(self.folder / "in", self.intake, 0, seen)
        self.assertEqual(len(logs.output), 1)
        self.assertEqual((len(self.uids()), [file.is_file() for file in files]), (2, [True, True]))
        image_file(self.folder / "in", 2)
        scan(self.folder / "in", self.intake, 3600, seen)  # it may still be growing
        self.assertEqual(len(self.uids()), 2)
        files[0].write_bytes(b"")  # what was taken is a copy
        stored = [self.folder / "state" / "images" / r["file"] for r in self.queue.rows("SELECT file FROM instances")]
        self.assertTrue(all(path.stat().st_size for path in stored))

    def test_many_files_that_are_none_and_links_out_are_a_line_each(self):
        self.listen()
        folder = self.folder / "in"
        outside = image_file(self.folder / "elsewhere", 0)
        inside = image_file(folder, 1)
        for number in range(1000):
            (folder / f"{number}.txt").write_text("no image")
        (folder / "out.dcm").symlink_to(outside)
        (folder / "within.dcm").symlink_to(inside)
        (folder / "itself.dcm").symlink_to(folder / "itself.dcm")
        with self.assertLogs("bundle.service.watch", "WARNING") as logs:
            scan(folder, self.intake, 0, {})
        self.assertEqual(len(logs.output), 2)
        self.assertIn("refused 1000 files", logs.output[0])
        self.assertIn("refused 1 files of the watched folder: a link must not lead out of the folder", logs.output[1])
        self.assertEqual(self.uids(), [str(dcmread(inside).SOPInstanceUID)])

    def test_a_file_that_could_not_be_taken_is_tried_again(self):
        self.listen()
        image_file(self.folder / "in", 0)
        seen: dict = {}
        full = OSError(errno.ENOSPC, "No space left on device", "name of a patient")
        with self.assertLogs("bundle.service.watch", "ERROR") as logs, mock.patch("os.replace", side_effect=full):
            for _ in range(2):
                scan(self.folder / "in", self.intake, 0, seen)
        place = "ERROR:bundle.service.watch:"
        self.assertEqual(logs.output, [f"{place}a file of the watched folder is tried again later: {full.strerror}"])
        self.assertEqual(list(self.intake.partial.iterdir()), [])
        locked = sqlite3.OperationalError("database is locked")
        with self.assertRaises(sqlite3.OperationalError), mock.patch.object(self.queue, "add", side_effect=locked):
            scan(self.folder / "in", self.intake, 0, seen)
        self.assertEqual(self.uids(), [])
        scan(self.folder / "in", self.intake, 0, seen)
        self.assertEqual(len(self.uids()), 1)

    def test_watching(self):
        self.listen()
        stop = threading.Event()
        thread = threading.Thread(target=watch_folder, args=(self.folder / "in", self.intake, 0, stop))
        thread.start()
        self.addCleanup(thread.join, 10)
        self.addCleanup(stop.set)
        image_file(self.folder / "in", 0)
        self.wait_for(lambda: len(self.uids()) == 1)


if __name__ == "__main__":
    unittest.main()
