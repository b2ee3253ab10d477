# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""How large an image may be; asked before anything is decoded, since a few kilobytes can unpack to gigabytes."""

from __future__ import annotations

from dataclasses import dataclass

from bundle.reading.errors import UnreadableImageError

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """
    The most that is unpacked of one file at once, in bytes of stored pixels.

    The default frame holds 32 million pixels of 16 bits, which is more than the largest mammography detector.

    Args:
        frame: Rows x Columns x Samples x bytes of one frame.
        file: the same for all frames together, where they are unpacked together: the slices of a volume, and a DICOM
            file that is deflated as a whole. Frames of other DICOM files and pages of a TIFF are unpacked one by one.
    """

    frame: int = 2**26
    file: int = 2**29

    def check(self, frame_bytes: float, frames: int = 1) -> None:
        """
        Refuse what is too large.

        Args:
            frame_bytes: size of one frame.
            frames: how many there are.

        Raises:
            UnreadableImageError: When one of the two limits is exceeded.
        """
        if frame_bytes > self.frame or frame_bytes * frames > self.file:
            raise UnreadableImageError(
                f"a frame must hold at most {self.frame} bytes and all frames {self.file}, "
                f"got {frames} of {frame_bytes:.0f} bytes."
            )
