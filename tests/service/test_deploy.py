# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import yaml

from bundle.reading.dicom.decoders import DECODERS
from bundle.service.__main__ import main
from bundle.service.intake import IMAGE_CLASSES
from tests.service.helpers import ROOT

UNITS = sorted((ROOT / "deploy").glob("*.service"))
ROLES = ["health", "listen", "page", "work"]


class TestDeploy(unittest.TestCase):
    def test_a_unit_and_a_container_for_each_process(self):
        self.assertEqual([unit.stem for unit in UNITS], [f"bundle-{role}" for role in ROLES])
        compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
        commands = [service["command"][0] for service in compose["services"].values() if "command" in service]
        self.assertEqual(sorted(commands), ROLES)
        for name in ROLES:
            self.assertTrue(compose["services"][name]["read_only"])
            with self.assertRaises(SystemExit) as ended:  # a command of that name is known
                main([name, "--help"])
            self.assertEqual(ended.exception.code, 0)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is missing")
    def test_what_systemd_says(self):
        with tempfile.TemporaryDirectory() as folder:
            for unit in UNITS:
                copy = Path(folder) / unit.name
                copy.write_text(unit.read_text().replace("/opt/bundle/bin/python", sys.executable))
                done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
                self.assertEqual((done.returncode, done.stderr), (0, ""), unit.name)
                command = ["systemd-analyze", "security", "--offline=true", str(copy)]
                said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
                exposure = float(re.search(r"exposure level for .*: ([0-9.]+)", said)[1])
                self.assertLess(exposure, 2, unit.name)  # of 10; docs/service.md says 1.1 to 1.3

    def test_the_conformance_statement_names_what_is_taken(self):
        text = (ROOT / "docs" / "dicom-conformance.md").read_text()
        found = set(re.findall(r"\| (1\.2\.840\.10008\.(?:5\.1\.4\.1\.1|1\.2)[0-9.]*) \|", text))
        self.assertEqual(
            found - {"1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.66.4"}, {*IMAGE_CLASSES, *DECODERS}
        )


if __name__ == "__main__":
    unittest.main()
