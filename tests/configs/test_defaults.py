# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A class that is called without arguments is the one that its configuration makes."""

from __future__ import annotations

import inspect
import pydoc
import unittest
from collections.abc import Iterator
from typing import Any

import yaml

from bundle.anomaly import ADFA
from bundle.anomaly.adfa import PAPER_SETTING
from tests.configs.test_layers import CONFIGS, merged, runnable

LAYERS = {  # run layers that hold components, and what they are added to
    "msa_boxes": "args_msa_train_end_to_end.yaml",
    "msa_prior": "args_msa_inference.yaml",
}
# settings of one data set, and of the paper, depart from the defaults on purpose
DEPARTING = {"args_adfa_paper_train.yaml", "args_msa_train_mining_chestxray14.yaml"}
# what a configuration tells a component about this run, which a default cannot know
OF_THE_RUN = {
    ("RadiologyReader", "channels"): "a file's own channels, unless a network asks for 3",
    ("load_pretrained", "ignore"): "a classifier's layer may differ, unless it is a checkpoint of our own",
    ("LabelDataList", "exclusive"): "one table serves both families, and MSA's findings occur together",
    ("read_model", "family"): "what the model has to be",
    ("ToSourceGridd", "allow_missing_keys"): "a network without an attention map has none",
    ("ResultsWriter", "title"): "text",
    ("auroc_metric", "classes"): "names of the classes",
    ("process_loader", "shuffle"): "training alone draws the order",
    ("ResultsWriter", "input_root"): "a path",
    ("CenterBankUpdater", "name"): "of a logger",
    ("AttentionMiningHandler", "name"): "of a logger",
    ("TrainingLog", "name"): "of a logger",
}


def contents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every combination of layers that a class's defaults are to follow, merged as MONAI does."""
    found = runnable()
    for name, arguments in found.items():
        if name not in DEPARTING:
            yield name, merged(arguments)
    for layer, name in LAYERS.items():
        files = [*found[name]["config_file"], f"configs/{layer}.yaml"]
        yield f"{name} and {layer}", merged({**found[name], "config_file": files})


def components(content: Any) -> Iterator[dict[str, Any]]:
    """Yield every component of ours in a configuration."""
    if isinstance(content, dict):
        if str(content.get("_target_", "")).startswith("bundle."):
            yield content
        for value in content.values():
            yield from components(value)
    elif isinstance(content, list):
        for value in content:
            yield from components(value)


def resolved(value: Any, content: dict[str, Any]) -> Any:
    """Return what a slot holds; an expression or another component stays as it is written."""
    while isinstance(value, str) and value.startswith("@") and value[1:] in content:
        value = content[value[1:]]
    return value


def is_plain(value: Any) -> bool:
    """Return whether a value is written in the configuration, and not computed or made."""
    if isinstance(value, list):
        return all(map(is_plain, value))
    return not isinstance(value, dict) and not str(value).startswith(("@", "$", "%"))


def same(default: Any, value: Any) -> bool:
    """Return whether two values mean the same: a list is a tuple, nothing at all is ``None``."""
    if isinstance(default, tuple):
        default = list(default)
    if value in ({}, []) and default in (None, []):
        return True
    return default == value and isinstance(default, bool) == isinstance(value, bool)


def compared() -> dict[tuple[str, str], tuple[Any, list[Any]]]:
    """Return, for each class and argument with a default, the default and what the configurations give it."""
    found: dict[tuple[str, str], tuple[Any, list[Any]]] = {}
    for _, content in contents():
        for item in components(content):
            target = pydoc.locate(item["_target_"])
            assert target is not None, item["_target_"]
            for name, parameter in inspect.signature(target).parameters.items():
                if name not in item or parameter.default is inspect.Parameter.empty:
                    continue
                value = resolved(item[name], content)
                if is_plain(value) or value == {}:
                    key = item["_target_"].rpartition(".")[2], name
                    found.setdefault(key, (parameter.default, []))[1].append(value)
    return found


class TestDefaults(unittest.TestCase):
    def test_every_default_is_the_value_of_a_configuration(self):
        # of a family's tasks the one that makes a component anew decides: results load what training saved
        found = compared()
        self.assertGreater(len(found), 80)
        for (component, argument), (default, values) in found.items():
            if (component, argument) not in OF_THE_RUN:
                with self.subTest(component=component, argument=argument):
                    self.assertTrue(any(same(default, value) for value in values), f"{default!r}, not {values[0]!r}")

    def test_every_exception_is_one(self):
        found = compared()
        for key in OF_THE_RUN:
            self.assertIn(key, found.keys())
            default, values = found[key]
            self.assertFalse(all(same(default, value) for value in values), key)

    def test_every_argument_that_a_configuration_gives_exists(self):
        for name, content in contents():
            for item in components(content):
                parameters = inspect.signature(pydoc.locate(item["_target_"])).parameters  # type: ignore[arg-type]
                if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
                    continue
                given = {key for key in item if not key.startswith("_")}
                self.assertEqual(given - set(parameters), set(), f"{item['_target_']} in {name}")


class TestThePapersSetting(unittest.TestCase):
    def test_the_layer_is_the_named_setting(self):
        layer = yaml.safe_load((CONFIGS / "adfa_paper.yaml").read_text())
        network = {key: layer[key] for key in layer if key in inspect.signature(ADFA).parameters}
        self.assertEqual(network, PAPER_SETTING)

    def test_the_class_makes_what_the_configuration_makes(self):
        content = merged(runnable()["args_adfa_paper_train.yaml"])
        own = content["network_def"]
        given = {key: resolved(own[key], content) for key in own if key != "_target_"}
        defaults = {name: p.default for name, p in inspect.signature(ADFA).parameters.items()}
        for name, value in {**defaults, **PAPER_SETTING}.items():
            if name in given:
                self.assertTrue(same(value, given[name]), name)


if __name__ == "__main__":
    unittest.main()
