# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import unittest
from pathlib import Path

import yaml
from monai.bundle import ConfigParser

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# what MONAI itself reads: the workflow's steps, the imports, and the settings that `run` and other tools look up
READ_BY_MONAI = {"imports", "initialize", "run", "finalize", "bundle_root"}
READ_BY_SCRIPTS = {"recalibration"}
# a reference inside an item's text: '@name', '%name', '@name::part' or in an expression
REFERENCE = re.compile(r"[@%]([A-Za-z_]\w*(?:::\w+)*)")


def runnable() -> dict[str, dict]:
    return {path.name: yaml.safe_load(path.read_text()) for path in sorted(CONFIGS.glob("args_*.yaml"))}


def merged(arguments: dict) -> dict:
    """Return the layers of a runnable file as MONAI merges them."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS.parent / file) for file in arguments["config_file"]])
    return parser.get()


def references(content: object) -> set[str]:
    """Return every id that a config names, with ``::`` between its parts."""
    if isinstance(content, dict):
        return set().union(*(references(value) for value in content.values()), set())
    if isinstance(content, list):
        return set().union(*(references(value) for value in content), set())
    return set(REFERENCE.findall(content)) if isinstance(content, str) else set()


def reached(content: dict) -> set[str]:
    """Return every id that the steps of a workflow lead to; a family may define slots that a task leaves alone."""
    found, new = set(), references({name: content.get(name) for name in READ_BY_MONAI | READ_BY_SCRIPTS})
    while new:
        found |= new
        new = references([content.get(name.split("::")[0]) for name in new]) - found
    return found


def has(content: object, name: str) -> bool:
    for part in name.split("::"):
        if isinstance(content, dict) and part in content:
            content = content[part]
        elif isinstance(content, list) and part.isdecimal() and int(part) < len(content):
            content = content[int(part)]
        else:
            return False
    return True


class TestRunnableConfigs(unittest.TestCase):
    def test_results_state_the_settings_that_change_them(self):
        # DICOM results of other parameters get other UIDs
        stated = {
            "adfa": {"backbone_precision", "false_alarm_rate"},
            "detector": {
                "sensitivity",
                "specificity",
                "probability_threshold",
                "nms_overlap",
                "boxes_per_finding",
            },
            "msa": {
                "sensitivity",
                "specificity",
                "probability_threshold",
                "max_box_fraction",
                "mining_steps",
                "mining_threshold",
                "box_thresholds",
                "test_time_flip",
                "use_anchors",
            },
            "sna": {"sensitivity", "specificity", "explanation", "explained_class"},
        }
        for family, names in stated.items():
            parameters = merged(runnable()[f"args_{family}_inference.yaml"])["algorithm"]["parameters"]
            self.assertEqual(set(parameters), names)

    def test_they_name_existing_layers_base_first(self):
        for name, arguments in runnable().items():
            with self.subTest(name=name):
                self.assertEqual(set(arguments), {"config_file", "meta_file", "workflow_type", "workflow_name"})
                self.assertEqual(arguments["workflow_name"], "bundle.command.BundleWorkflow")
                self.assertEqual(arguments["config_file"][0], "configs/base.yaml")
                for file in arguments["config_file"] + arguments["meta_file"]:
                    self.assertTrue((CONFIGS.parent / file).is_file(), file)
                    self.assertEqual(Path(file).parent, Path("configs"))  # flat: the first file's folder is the root
                self.assertIn(arguments["workflow_type"], ("train", "infer"))

    def test_every_reference_is_there(self):
        for name, arguments in runnable().items():
            content = merged(arguments)
            for reference in sorted(reached(content)):
                with self.subTest(name=name, reference=reference):
                    self.assertTrue(has(content, reference), f"nothing defines '{reference}'")

    def test_no_layer_sets_what_nothing_reads(self):
        # MONAI ignores an unknown top-level key silently, so a misspelled slot would go unnoticed
        used: dict[str, set[str]] = {}  # file: keys that some runnable combination with it reads
        own = {}
        for arguments in runnable().values():
            content = merged(arguments)
            read = {reference.split("::")[0] for reference in references(content)} | READ_BY_MONAI | READ_BY_SCRIPTS
            for file in arguments["config_file"]:
                layer = yaml.safe_load((CONFIGS.parent / file).read_text())
                own[file] = {key.lstrip("+").split("::")[0].split("#")[0] for key in layer}
                used[file] = used.get(file, set()) | read
        for file, keys in own.items():
            with self.subTest(file=file):
                self.assertEqual(keys - used[file], set())

    def test_families_and_data_set_top_level_slots_only(self):
        for path in CONFIGS.glob("*.yaml"):
            keys = [key for key in yaml.safe_load(path.read_text()) if "::" in key or "#" in key]
            self.assertEqual(keys, [], path.name)


if __name__ == "__main__":
    unittest.main()
