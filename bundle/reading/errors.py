# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
The two ways in which a file yields no image.

Messages hold the file's name, numbers, and words of the DICOM Standard; never text from inside the file.
"""

from __future__ import annotations

__all__ = ["SkippedFileError", "UnreadableImageError"]


class UnreadableImageError(ValueError):
    """An image that cannot be read as its format means it: one line with the file's name, the rule and the value."""


class SkippedFileError(ValueError):
    """A file that is no image, such as a structured report, a dose grid or a text: one line with name and reason."""
