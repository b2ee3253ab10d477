# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What leaves: tables, heatmaps, DICOM objects and the HTML report."""
