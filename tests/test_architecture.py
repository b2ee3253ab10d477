# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Who may import whom; docs/architecture.md gives the reasons.

- A family imports shared folders.
- No family imports another.
- Nothing shared imports a family.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bundle"
FAMILIES = {"anomaly", "classification", "detection", "localization"}
# shared folders, from the ground up: each imports only those before it
SHARED = ["rules", "lazy", "files", "errors", "reading", "lists", "preprocessing", "synthetic", "networks", "training"]
SHARED += ["results", "command", "model", "service"]


def imports_of(path: Path) -> set[str]:
    """Return the dotted names that a source file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def folders_of(path: Path) -> set[str]:
    """Return the folders (or files) right below the package that a source file imports."""
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("bundle.")}


class TestArchitecture(unittest.TestCase):
    def test_families_stand_on_shared_folders_alone(self):
        for path in sorted(PACKAGE.rglob("*.py")):
            own, file = path.relative_to(PACKAGE).parts[0].removesuffix(".py"), str(path.relative_to(ROOT))
            if own == "__init__":
                continue
            with self.subTest(file):
                others = folders_of(path) - {own}
                self.assertEqual(others & FAMILIES, set())
                self.assertIn(own, {*FAMILIES, *SHARED})
                if own in SHARED:
                    self.assertEqual(others - set(SHARED[: SHARED.index(own)]), set())

    def test_no_public_name_is_defined_twice(self):
        places: dict[str, list[str]] = {}
        for path in sorted(PACKAGE.rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
        self.assertEqual({name: where for name, where in places.items() if len(where) > 1}, {})

    def test_tensor_maths_is_pure(self):
        for path in (PACKAGE / "anomaly" / "topk").glob("*.py"):
            for name in imports_of(path):
                self.assertNotIn(name.split(".")[0], {"monai", "ignite", "os", "pathlib", "random"}, path.name)

    def test_package_stays_clear_of_scripts_configs_and_environment(self):
        for path in PACKAGE.rglob("*.py"):
            text = path.read_text()
            self.assertNotIn("os.environ", text, path.name)
            self.assertFalse(any(n.split(".")[0] == "scripts" for n in imports_of(path)), path.name)

    def test_what_must_start_fast_loads_neither_torch_nor_monai(self):
        light = ("bundle", "bundle.anomaly", "bundle.reading.dicom.header", "bundle.reading.formats")
        for module in (*light, "bundle.service.listener"):
            code = f"import sys, {module}; sys.exit(bool({{'torch', 'monai'}} & set(sys.modules)))"
            self.assertEqual(subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode, 0, module)


if __name__ == "__main__":
    unittest.main()
