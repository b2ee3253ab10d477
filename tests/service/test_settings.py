# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from dataclasses import fields
from pathlib import Path

from bundle.service.settings import (
    Audit,
    Health,
    Node,
    Page,
    Peer,
    ServedModel,
    Settings,
    Source,
    Tls,
    load_settings,
)
from bundle.service.settings_table import settings_table

GOOD = """
state_dir: state
models: [{name: adfa, args_file: ../args.yaml, settings: {model_dir: weights}, modalities: [CR, DX]}]
destinations: [{ae_title: ARCHIVE, host: 127.0.0.1, port: 4242}]
peers: [{ae_title: CR1, address: 10.0.0.5}]
quiet_seconds: 5
"""


def _key(line: str) -> str:
    return line.partition(":")[0] or line


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
            ("port: 0", "port must be in 1 to 65535, got 0"),
            ("health: {port: 70000}", "health.port must be in 1 to 65535, got 70000"),
            ("page: {port: 8091}\nhealth: {}", "the service's own ports must differ, '8091' is there twice"),
            ("max_attempts: 0", "max_attempts must be 1 or more, got 0"),
            ("keep_days: .nan", "keep_days must be 0 or more, got nan"),
            ("retry_seconds: -1", "retry_seconds must be 0 or more, got -1"),
            ("audit: {files: 0}", "audit.files must be 1 or more, got 0"),
            ("peers: [{ae_title: A, address: cr1}]", "address of peer 'A' must be an IP address, got 'cr1'"),
            ("peers: [{ae_title: A}, {ae_title: A}]", "peers must differ, 'A@anywhere' is there twice"),
            ("page: {readers: [Ada, Ada]}", "page.readers must differ, 'Ada' is there twice"),
            ("destinations: [{ae_title: A, host: '', port: 1}]", "host of 'A' must not be empty"),
            ("port: 1\nport: 2", "the file must be YAML, 'port' is there twice"),
            ("port: [1", "the file must be YAML, "),
            ("a: " + "[" * 2000, "nested too deep|must be YAML"),
            ("state_dir:", "state_dir must have a value"),
        ):
            with self.subTest(change), self.assertRaisesRegex(ValueError, message):
                self.load(
                    "".join(
                        f"{line}\n" for line in GOOD.splitlines() if _key(line) not in map(_key, change.split("\n"))
                    )
                    + f"{change}\n"
                )

    def test_the_place_of_an_error(self):
        with self.assertRaisesRegex(ValueError, r"^service.yaml: line 8: the file must be YAML, 'port' is there twice"):
            self.load(GOOD + "port: 1\nport: 2\n")

    def test_the_table_in_the_documentation(self):
        page = (Path(__file__).resolve().parents[2] / "docs" / "service-settings.md").read_text()
        self.assertIn(settings_table(), page)
        for kind in (Settings, ServedModel, Node, Peer, Source, Tls, Page, Health, Audit):
            for slot in fields(kind):
                self.assertIn(f"| `{slot.name}` |", settings_table())


if __name__ == "__main__":
    unittest.main()
