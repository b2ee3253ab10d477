# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""DICOM: header, pixels, geometry and decoders. The header code loads neither torch nor MONAI."""
