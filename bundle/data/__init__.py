# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Readers, data lists, splits, dataset preparation and synthetic phantoms."""
