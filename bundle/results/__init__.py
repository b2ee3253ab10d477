# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What leaves: tables, heatmaps, DICOM objects and the HTML report."""

from bundle.results.progress import Progress
from bundle.results.records import NOTICE, Algorithm, Box, ImageResult, NotWrittenError
from bundle.results.writer import FORMATS, ResultsWriter

__all__ = ["FORMATS", "NOTICE", "Algorithm", "Box", "ImageResult", "NotWrittenError", "Progress", "ResultsWriter"]
