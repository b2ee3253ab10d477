# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path

from bundle.command.layers import located, merged_layers, read_layer

ROOT = Path(__file__).resolve().parents[2]


class TestLayerFiles(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name).resolve() / "b"
        (self.root / "configs").mkdir(parents=True)

    def write(self, name: str, text: str) -> str:
        path = self.root / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def test_what_is_no_configuration_is_one_line_with_file_and_line(self):
        for name, text, message in (
            ("a.yaml", "a: [1, 2\nb: 3\n", r"'.*a.yaml', line 2: must be YAML: "),
            ("a.yaml", "a: 1\nb:\n  c: 2\n  c: 3\n", r"'.*a.yaml', line 4: must be YAML: key 'c' must come once\."),
            ("a.yaml", "a:\tb: 1", r"'.*a.yaml', line 1: must be YAML: "),
            ("a.yaml", "- a\n", "must hold keys and values .a mapping., it holds list"),
            ("a.yaml", "", "it holds nothing"),
            ("a.yaml", "a: \0", "must be YAML"),
            ("a.json", '{"a": 1, "a": 2}', "key 'a' must come once"),
            ("a.json", '{"a": 1', "'.*a.json' must be YAML or JSON in UTF-8: Expecting"),
            ("a.txt", "a: 1", "must end in .yaml, .yml or .json, got '.*a.txt'"),
        ):
            with self.subTest(name=name, text=text), self.assertRaisesRegex(ValueError, message) as caught:
                read_layer(self.write(name, text))
            self.assertNotIn("\n", str(caught.exception))
        with self.assertRaisesRegex(FileNotFoundError, "must be an existing file, got 'nothing.yaml'"):
            read_layer("nothing.yaml")
        with self.assertRaisesRegex(IsADirectoryError, "must be a file, got the folder"):
            read_layer(self.root)
        (self.root / "latin.yaml").write_bytes("a: ü".encode("latin-1"))
        with self.assertRaisesRegex(ValueError, "in UTF-8"):
            read_layer(self.root / "latin.yaml")

    def test_later_over_earlier_and_plus_adds(self):
        # by hand, from MONAI's rule: a later key replaces, `+key` extends
        layers = [{"a": 1, "b": [1]}, {"a": 2, "+b": [2]}]
        self.assertEqual(merged_layers(layers), {"a": 2, "b": [1, 2]})
        self.assertEqual(layers[0], {"a": 1, "b": [1]})

    def test_layers_lie_beside_the_arguments_then_here_then_in_this_package(self):
        self.addCleanup(os.chdir, os.getcwd())
        beside = self.write("configs/base.yaml", "own: 1")
        args = self.root / "configs" / "args.yaml"
        for folder, file, args_file, expected in (
            ("/", "configs/base.yaml", args, beside),
            ("/", "configs/adfa.yaml", args, str(ROOT / "configs" / "adfa.yaml")),
            ("/", "configs/base.yaml", None, str(ROOT / "configs" / "base.yaml")),
            (self.root / "configs", "configs/base.yaml", "args.yaml", beside),
            (self.root, "configs/base.yaml", None, os.path.join("configs", "base.yaml")),
            (self.root, "configs/base.yaml", "configs/args.yaml", os.path.join("configs", "base.yaml")),
        ):
            os.chdir(folder)
            self.assertEqual(located(file, args_file), expected)
        with self.assertRaisesRegex(FileNotFoundError, "got 'configs/no.yaml' .'.*args.yaml' names it"):
            located("configs/no.yaml", args)
        with self.assertRaisesRegex(IsADirectoryError, "got the folder 'configs'"):
            located("configs", args)

    def test_a_file_of_arguments_names_nothing_outside(self):
        outside = self.root.parent / "elsewhere.yaml"
        outside.write_text("secret: 1")
        args = self.root / "configs" / "args.yaml"
        for name in (str(outside), "../elsewhere.yaml"):
            with self.assertRaisesRegex(ValueError, "args.yaml: config_file must lie in the bundle 'b', got"):
                located(name, args)
        self.assertEqual(located(outside, args, typed=True), str(outside))


if __name__ == "__main__":
    unittest.main()
