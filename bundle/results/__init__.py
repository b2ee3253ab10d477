# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What leaves: tables, overlays, DICOM objects and the report."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    handler=["ResultsHandler"],
    progress=["Progress", "pseudonym_key"],
    records=["Algorithm", "Box", "ImageResult", "NOTICE", "NotWrittenError"],
    writer=["FORMATS", "ResultsWriter"],
)
