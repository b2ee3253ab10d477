# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Anomaly detection, classification and weakly supervised localization for X-ray and ultrasound. Research use only."""

__version__ = "0.1.0"
