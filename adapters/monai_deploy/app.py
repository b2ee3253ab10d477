# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
A MONAI Deploy application around a built bundle: DICOM files in; SR, SEG, secondary capture, tables and report out.

    AIB_BUNDLE=/path/to/adfa_anomaly_detection python adapters/monai_deploy/app.py --input DIR --output DIR

Images are read by the bundle's own reader, not by the SDK's volume converter, which knows no MONOCHROME1 and no window.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from monai.deploy.conditions import CountCondition
from monai.deploy.core import (
    AppContext,
    Application,
    ConditionType,
    ExecutionContext,
    Fragment,
    InputContext,
    Operator,
    OperatorSpec,
    OutputContext,
)

from bundle.service.settings import ServedModel
from bundle.service.workflow import WarmWorkflow

logger = logging.getLogger(__name__)


class StudyOperator(Operator):
    """
    Write the results of all DICOM files below a folder.

    Output port ``output_folder``: the folder, for operators that come after.

    Args:
        fragment: the application.
        bundle: folder of a built bundle.
        input_folder: DICOM files, at any depth.
        output_folder: emptied before.
    """

    def __init__(self, fragment: Fragment, *args, bundle: Path, input_folder: Path, output_folder: Path, **kwargs):
        self._bundle, self._input, self._output = bundle, input_folder, output_folder
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the one output."""
        spec.output("output_folder").condition(ConditionType.NONE)  # runs also when nobody listens

    def start(self) -> None:
        """Load the network, once."""
        self._scratch = tempfile.TemporaryDirectory()
        model = ServedModel("deploy", self._bundle / "configs" / "inference.json")
        self._workflow = WarmWorkflow(model, Path(self._scratch.name))

    def compute(self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext) -> None:
        """Run the workflow of the command line."""
        files = sorted(path for path in self._input.rglob("*") if path.is_file())
        produced = self._workflow.run(files, self._output)
        logger.info("%d images, %d DICOM results", len(produced.images), len(produced.results))
        op_output.emit(str(self._output), "output_folder")

    def stop(self) -> None:
        """Remove what was written on the way."""
        self._scratch.cleanup()


class StudyApplication(Application):
    """One operator between the input and the output folder that the SDK was given."""

    def compose(self) -> None:
        """Add the operator."""
        context: AppContext = Application.init_app_context(self.argv)
        folders = {"input_folder": Path(context.input_path), "output_folder": Path(context.output_path)}
        once = CountCondition(self, 1)  # or an operator without inputs runs for ever
        self.add_operator(StudyOperator(self, once, name="study", bundle=Path(os.environ["AIB_BUNDLE"]), **folders))


if __name__ == "__main__":
    StudyApplication().run()
