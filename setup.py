# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Put the configurations and the shipped models, which lie beside the package, into the wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

BESIDE = ("configs", "models")


class BuildWithBundle(build_py):
    """Copy them to where an installed package looks for them; an editable installation has them beside it."""

    def run(self) -> None:
        """Build the package, then copy."""
        super().run()
        if not getattr(self, "editable_mode", False):
            for name in BESIDE:
                place = Path(self.build_lib, "bundle", "beside", name)
                shutil.copytree(Path(__file__).parent / name, place, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithBundle})
