# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tests.workflows import ROOT, write_start

LOAD = """
import sys, pathlib, bundle
assert pathlib.Path(bundle.__file__).is_relative_to(sys.argv[1]), bundle.__file__
model = bundle.load_model("of_test", "cpu")
print(model.file.folder.relative_to(sys.argv[1]).as_posix(), type(model.network).__name__)
"""


class TestWheel(unittest.TestCase):
    def test_an_installed_wheel_loads_a_model_by_its_name_from_any_folder(self):
        with tempfile.TemporaryDirectory() as folder:
            source, target, elsewhere = (Path(folder).resolve() / name for name in ("source", "target", "elsewhere"))
            elsewhere.mkdir()
            unwanted = shutil.ignore_patterns("__pycache__")
            for name in ("bundle", "configs", "models"):
                shutil.copytree(ROOT / name, source / name, ignore=unwanted)
            for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
                shutil.copy(ROOT / name, source)
            write_start(source / "models/of_test", "adfa", image_size=[32, 32])
            offline = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
            pip = [sys.executable, "-m", "pip"]
            build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", folder, str(source)]
            subprocess.run(build, check=True, capture_output=True)
            wheels = list(Path(folder).glob("*.whl"))
            self.assertEqual(len(wheels), 1)
            subprocess.run([*pip, "install", *offline, "--target", str(target), str(wheels[0])], check=True)
            done = subprocess.run(
                [sys.executable, "-c", LOAD, str(target)],
                cwd=elsewhere,
                env={"PYTHONPATH": str(target), "PATH": "/usr/bin:/bin"},
                capture_output=True,
                text=True,
            )
            self.assertEqual(done.returncode, 0, done.stderr[-2000:])
            self.assertEqual(done.stdout.strip().splitlines()[-1], "bundle/beside/models/of_test ADFA")


if __name__ == "__main__":
    unittest.main()
