# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Hook of mkdocs.yml: pages of the site that lie elsewhere in the repository, or are made of the code.

``make docs`` builds the site of docs/, of the cards of the shipped models and of the docstrings into build/site.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "anomaly",
    "classification",
    "localization",
    "detection",
    "model",
    "networks",
    "preprocessing",
    "reading",
    "results",
    "training",
)


class Docstrings(Extension):
    """Read our docstrings as the site's parser wants them: examples as code, and names of others as plain code."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the text of one docstring."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r":py:\w+:`~?([^`]+)`", r"`\1`", text)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the cards of the shipped models with their pictures, and a page of docstrings a package."""
    for card in sorted((ROOT / "models").rglob("README.md")):
        uri = card.relative_to(ROOT).as_posix()
        text = re.sub(r"\]\(((?:\.\./)+)docs/", r"](\1", card.read_text())
        files.append(File.generated(config, uri, content=text))
        for picture in sorted(card.parent.glob("*.jpg")):
            files.append(File.generated(config, picture.relative_to(ROOT).as_posix(), abs_src_path=str(picture)))
    for package in PACKAGES:
        files.append(File.generated(config, f"api/{package}.md", content=api_page(package)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links of docs/ to the cards at their place in the site."""
    return markdown if "/" in page.file.src_uri else markdown.replace("](../models/", "](models/")


def api_page(package: str) -> str:
    """Return the page of a package: every module that names what is public, by its docstrings."""
    parts = [f"# bundle.{package}\n"]
    for file in sorted((ROOT / "bundle" / package).rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if file.name != "__init__.py" and (names := public_names(file)):
            parts.append(f"::: {module}\n    options:\n      members: {names}\n")
    return "\n".join(parts)


def public_names(file: Path) -> list[str]:
    """Return the names of a module's ``__all__``, without importing it."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []
