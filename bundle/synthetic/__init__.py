# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic films, ultrasound images and lesions, marked as synthetic."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    inserted_lesions=["insert_lesion"],
    phantoms=["write_phantom", "write_phantoms"],
)
