# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From a file to display values."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    datasets=["InMemoryDataset", "ReadableDataLoader", "ReadableDataset"],
    reader=["RadiologyReader"],
)
