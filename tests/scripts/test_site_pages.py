# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import site_pages  # noqa: E402


def pages_of(nav: Any) -> Iterator[str]:
    """Walk through the navigation of mkdocs.yml."""
    for entry in nav if isinstance(nav, list) else nav.values():
        if isinstance(entry, str):
            yield entry
        else:
            yield from pages_of(entry)


class TestSite(unittest.TestCase):
    def test_every_page_card_and_package_stands_in_the_navigation_once(self):
        nav = list(pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
        wanted = [path.name for path in (ROOT / "docs").glob("*.md")]
        wanted += [path.relative_to(ROOT).as_posix() for path in (ROOT / "models").rglob("README.md")]
        wanted += [f"api/{package}.md" for package in site_pages.PACKAGES]
        self.assertEqual(sorted(nav), sorted(wanted))

    def test_a_page_of_the_api_names_the_public_names(self):
        file = ROOT / "bundle" / "networks" / "arguments.py"
        self.assertEqual(site_pages.public_names(file), ["keeps_arguments"])
        self.assertIn("::: bundle.networks.arguments\n", site_pages.api_page("networks"))


if __name__ == "__main__":
    unittest.main()
