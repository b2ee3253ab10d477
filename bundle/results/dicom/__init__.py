# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Results as DICOM objects: structured report, segmentation, secondary capture."""
