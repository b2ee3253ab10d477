# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import string
import unittest
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from bundle.command.options import PATHS, literal, read_option, read_options, typed_value

# the words by which Python Fire, MONAI's references, macros and expressions, YAML and a shell could take a path
HARD = ["a#b", "123", "0x1f", "None", "true", "$1+1", "@seed", "%configs/base.yaml", "a::b", "[1, 2]", "{a: 1}", "a,b"]
HARD += [
    "it's",
    'say "a"',
    "a\\nb",
    "a\nb",
    " a ",
    "-a",
    "(1)",
    "~",
    "1e3",
    "import os",
    "Röntgen/胸部/грудь",
    "a: b",
    "#",
]
HARD += [string.printable, "'''", '"""\\', "\udcff", "{}", "a;b", "*?[x]", "x#frame=1"]


@pytest.mark.parametrize("text", HARD)
def test_a_plain_text_is_its_own_value(text):
    parser = ConfigParser({"a": literal(text), "b": "$@a + '/model.pt'", "c": "@a", "d": ["@a"]})
    values = [parser.get_parsed_content(key) for key in "abc"]
    assert values == [text, text + "/model.pt", text]
    assert parser.get_parsed_content("d") == [text]


@pytest.mark.parametrize("key", sorted(PATHS))
@pytest.mark.parametrize("text", HARD)
def test_every_path_is_taken_as_it_was_typed(key, text):
    or_nothing = key in {"feature_cache", "weights", "recalibrate"}
    typed = typed_value(key, text)
    assert typed == (None if or_nothing and text in ("None", "~") else text)
    if typed is not None:
        for value in (text, Path(text)):
            settings = read_options({key: value}, {key: ""})
            expected = text if isinstance(value, str) else str(value)
            assert ConfigParser(settings).get_parsed_content(key) == expected


@pytest.mark.parametrize(
    ("key", "words", "value"),
    [
        ("classes", ["[a,b]", "a,b", "['a','b']", '["a", "b"]', "(a, b)", " a , b ", "a,'b'", "a,b,"], ["a", "b"]),
        ("classes", ["pleural effusion,it's", "[pleural effusion, it's]"], ["pleural effusion", "it's"]),
        ("classes", ["'a, b',c", '["a, b", c]'], ["a, b", "c"]),
        ("classes", ["mass", "[mass]", "'mass'"], ["mass"]),
        ("classes", ["no,1", "[no, 1]"], ["no", "1"]),
        ("classes", ["$1,@a,%b,a#b"], ["$1", "@a", "%b", "a#b"]),
        ("formats", ["csv", "[csv]", "'csv'"], ["csv"]),
        ("formats", ["csv,json", "['csv','json']"], ["csv", "json"]),
        ("image_size", ["224", "[224,224]", "224,224", "224x224", "224 x 224", "(224, 224)", "[224]"], [224, 224]),
        ("resize", ["256x224", "256,224"], [256, 224]),
        ("resize", ["null", "None"], None),
        ("max_epochs", ["5", "5.0", "5e0"], 5),
        ("learning_rate", ["0.001", "1e-3"], 0.001),
        ("box_thresholds", ["0.8,0.6", "[0.8, 0.6]"], [0.8, 0.6]),
        ("frozen", ["[]", ""], []),
        ("seed", ["null", "None"], None),
        ("amp", ["true", "True", "yes"], True),
        ("progress_bar", ["false", "False", "off"], False),
        ("attention_options", ["{rank: 3}", "{'rank': 3}"], {"rank": 3}),
        ("secret", ["0012"], "0012"),
        ("title", ["ward #3"], "ward #3"),
        ("device", ["cpu"], "cpu"),
    ],
)
def test_the_ways_a_person_writes_it(key, words, value):
    for text in words:
        assert typed_value(key, text) == value, text
        assert typed_value(key, text) == read_option(key, typed_value(key, text)), (
            text
        )  # what is read can be read again


def test_lists_of_python_are_read_too():
    assert read_option("classes", ("a", "b")) == ["a", "b"]
    assert read_option("formats", ["csv"]) == ["csv"]
    assert read_option("image_size", 64) == [64, 64]
    assert read_option("device", torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("key", ["resume", "allow_outside", "keep_aspect", "debug", "tensorboard"])
def test_what_is_a_boolean_in_the_configuration_is_one_in_words(key):
    assert [typed_value(key, text, True) for text in ("false", "False", "no", "True")] == [False, False, False, True]
    with pytest.raises(ValueError, match=f"{key} must be True or False, got 'maybe'"):
        typed_value(key, "maybe", False)


@pytest.mark.parametrize(
    ("key", "words", "rule"),
    [
        ("max_epochs", ["abc", "0", "-1", "1.5", "nan", "inf", "", "[1]", "True"], "a whole number of at least 1"),
        ("batch_size", ["0", "x"], "a whole number of at least 1"),
        ("num_workers", ["-1"], "a whole number of at least 0"),
        ("seed", ["-1", "x"], "a whole number of at least 0 or null"),
        ("learning_rate", ["0", "-1", "x", "nan"], "a number above 0"),
        ("epsilon", ["-0.1", "x", "inf"], "a number of at least 0"),
        ("held_back", ["0", "1", "20%"], r"a number in \(0, 1\)"),
        ("false_alarm_rate", ["0", "1", "5"], r"a number in \(0, 1\)"),
        ("top_fraction", ["1.1", "-1"], r"a number in \[0, 1\]"),
        ("label_smoothing", ["1"], r"a number in \[0, 1\)"),
        ("sensitivity", ["0", "95"], r"a number in \(0, 1\) or null"),
        ("box_thresholds", ["0.5,2", "x", "[]"], "a list of"),
        ("image_size", ["0", "224,224,224", "abc", "-3x4", "1.5"], "height and width in pixels"),
        ("std", ["0,1,1"], "a list of which each is a number above 0"),
        ("classes", ["", "[]", "a,,b"], "the names of classes"),
        ("classes", ["a,b,a", "a, a"], "different names of classes"),
        ("formats", ["cvs", "csv,pdf"], "some of csv, json, nifti, overlay, report, sr, seg, heat, sc"),
        ("device", ["cuda", "cuda:99", "gpu", "", "1"], r"one of this machine's \(cpu"),
    ],
)
def test_what_breaks_a_rule_is_named_with_the_rule_and_the_value(key, words, rule):
    if key == "device" and torch.cuda.is_available():
        words = [word for word in words if word not in ("cuda", "1")]
    for text in words:
        with pytest.raises(ValueError, match=f"^{key} must be {rule}.*, got ") as caught:
            typed_value(key, text)
        assert str(caught.value).endswith(f"got {text!r}." if text else "got nothing.")


def test_booleans_that_yaml_made_of_names_are_refused():
    with pytest.raises(ValueError, match="classes must be the names of classes; YAML takes yes, no"):
        read_option("classes", ["normal", False])


def test_expressions_stay_where_an_option_is_no_path():
    assert read_options({"max_epochs": "$2 * 3", "k": "@folds", "held_back": "%held_back"}, {}) == {
        "max_epochs": "$2 * 3",
        "k": "@folds",
        "held_back": "%held_back",
    }


class TestReadOptions(unittest.TestCase):
    def test_names_that_look_like_expressions_are_values(self):
        settings = read_options({"classes": ["$1+1", "@x", "a#b"], "title": "#1 of $2"}, {})
        parser = ConfigParser(settings)
        self.assertEqual(parser.get_parsed_content("classes"), ["$1+1", "@x", "a#b"])
        self.assertEqual(parser.get_parsed_content("title"), "#1 of $2")

    def test_a_device_is_one(self):
        self.assertEqual(ConfigParser(read_options({"device": "cpu"}, {})).get_parsed_content("device").type, "cpu")

    def test_keys_inside_of_components_are_left_alone(self):
        self.assertEqual(read_options({"a::batch_size": 0, "a#k": "x"}, {}), {"a::batch_size": 0, "a#k": "x"})


if __name__ == "__main__":
    unittest.main()
