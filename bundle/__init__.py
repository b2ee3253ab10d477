# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Anomaly detection, classification and weakly supervised localization for X-ray and ultrasound. Research use only."""

from typing import Any

__all__ = ["__version__", "load_model"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import :py:func:`bundle.model.load_model` only when it is asked for, since it loads torch and MONAI."""
    if name == "load_model":
        from bundle.model.predict import load_model

        return load_model
    raise AttributeError(f"module 'bundle' has no attribute '{name}'")
