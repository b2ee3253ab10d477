# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from bundle.service.settings import Node, Peer, ServedModel, Tls, load_settings

GOOD = """
state_dir: state
models:
- {name: adfa, args_file: ../args.yaml, settings: {model_dir: weights}, modalities: [CR, DX]}
destinations: [{ae_title: ARCHIVE, host: 127.0.0.1, port: 4242}]
peers: [{ae_title: CR1, address: 10.0.0.5}]
quiet_seconds: 5
"""


class TestSettings(unittest.TestCase):
    def load(self, text: str):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "service.yaml"
            path.write_text(text)
            return load_settings(path), path.parent

    def test_parts_and_paths(self):
        settings, folder = self.load(GOOD)
        self.assertEqual(settings.state_dir, folder.resolve() / "state")
        args_file = folder.resolve() / "../args.yaml"
        self.assertEqual(settings.models, (ServedModel("adfa", args_file, {"model_dir": "weights"}, ("CR", "DX")),))
        self.assertEqual(settings.destinations, (Node("ARCHIVE", "127.0.0.1", 4242),))
        self.assertEqual(settings.peers, (Peer("CR1", "10.0.0.5"),))
        self.assertEqual(settings.quiet_seconds, 5)

    def test_tls_of_this_node_and_of_those_it_calls(self):
        settings, folder = self.load(
            GOOD.replace("port: 4242", "port: 4242, tls: true")
            + "tls: {certificate: c.pem, key: k.pem}\n"
            + "sources: [{name: pacs, ae_title: ARCHIVE, host: a, port: 1, tls: true}, {name: web, url: 'https://a'}]\n"
        )
        self.assertEqual(settings.tls, Tls(folder.resolve() / "c.pem", folder.resolve() / "k.pem"))
        self.assertEqual([node.tls for node in (*settings.destinations, *settings.sources)], [True, True, False])

    def test_refused(self):
        for change, message in (
            ("porrt: 1", "'porrt' is unknown, known are state_dir"),
            ("port: eleven", "port must be of type int, got 'eleven'"),
            ("peers: {}", "peers must be a list"),
            ("tls: {certificate: a}", "tls: 'key' is missing"),
            ("destinations: [{ae_title: A, host: a, port: 1, tls: {key: k}}]", r"\[0\]: tls must be of type bool, got"),
            ("tls: true", "tls: a mapping is needed, got bool"),
            ("ae_title: WAY_TOO_LONG_A_TITLE", "1 to 16 characters and no backslash, got 'WAY_TOO_LONG_A_TITLE'"),
            ("models: []", "models must name at least one workflow"),
            ("models: [{name: a/b, args_file: x}]", "unique letters, digits and _, got 'a/b'"),
            ("page: {host: 0.0.0.0}", "page.host must be one of 127.0.0.1, ::1, localhost, got '0.0.0.0'"),
            ("sources: [{name: a}]", "source 'a' must have a url, or ae_title, host and port"),
            ("sources: [{name: a, url: 'file:///x'}]", "must begin with http:// or https://, got 'file:///x'"),
            ("state_dir:", "state_dir must have a value"),
        ):
            with self.subTest(change), self.assertRaisesRegex(ValueError, message):
                self.load(GOOD + change + "\n")


if __name__ == "__main__":
    unittest.main()
