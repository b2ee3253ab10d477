# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Pure tensor maths: no modules, no MONAI, no input or output."""
