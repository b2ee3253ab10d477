# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Who may import whom; docs/architecture.md gives the reasons."""

from __future__ import annotations

import ast
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bundle"
LAYERS = {  # layer: what it may import from the package besides itself
    "functional": set(),
    "distributed": set(),
    "networks.blocks": {"functional"},
    "networks.nets": {"functional", "networks.blocks", "networks.arguments"},
    "networks.exported": {"data"},  # an exported file names the checkpoint it was made from by its SHA-256
    "losses": {"functional", "distributed"},
    "transforms": {"functional", "data"},
    "data": {"functional", "transforms"},
    "metrics": {"functional"},
    "inferers": {"functional"},
    "handlers": {"functional", "distributed", "metrics", "data", "results"},
    # what a model says of itself names networks, and reads what readers and handlers noted
    "model": {"functional", "networks", "data", "transforms", "metrics", "handlers", "results", "engines"},
    "engines": {"functional", "distributed", "metrics", "data", "results"},  # the formats that an option may name
    "results": {"functional", "data"},
    # it gets networks only through the configuration it is told to run, whose settings it checks as a command line is
    "service": {"data", "results", "engines"},
}


def layer_of(module: str) -> str:
    """Return ``networks.blocks`` for ``bundle.networks.blocks.backbone``, ``data`` for ``bundle.data.readers``."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2]) if parts[:1] == ["networks"] else ".".join(parts[:1])


def imports_of(path: Path) -> set[str]:
    """Return the dotted names that a source file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


class TestArchitecture(unittest.TestCase):
    def test_layers_import_one_way(self):
        for path in sorted(PACKAGE.rglob("*.py")):
            layer = layer_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
            if layer not in LAYERS:
                continue
            for name in imports_of(path):
                if name.startswith("bundle.") and layer_of(name) != layer:
                    self.assertIn(layer_of(name), LAYERS[layer], f"{path.relative_to(ROOT)} imports {name}")

    def test_no_net_imports_another(self):
        for path in (PACKAGE / "networks" / "nets").glob("*.py"):
            if path.name != "__init__.py":
                nets = {n for n in imports_of(path) if n.startswith("bundle.networks.nets")}
                self.assertEqual(nets, set(), f"{path.name} imports another net")

    def test_functional_is_pure(self):
        for path in (PACKAGE / "functional").glob("*.py"):
            for name in imports_of(path):
                self.assertNotIn(name.split(".")[0], {"monai", "ignite", "os", "pathlib", "random"}, path.name)

    def test_package_stays_clear_of_scripts_configs_and_environment(self):
        for path in PACKAGE.rglob("*.py"):
            text = path.read_text()
            self.assertNotIn("os.environ", text, path.name)
            self.assertFalse(any(n.split(".")[0] == "scripts" for n in imports_of(path)), path.name)

    def test_importing_the_package_imports_no_torch(self):
        code = "import sys, bundle; sys.exit('torch' in sys.modules)"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode, 0)


if __name__ == "__main__":
    unittest.main()
