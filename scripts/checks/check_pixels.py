#!/usr/bin/env python3
# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Hold what the reader shows of DICOM files against independent programs, with the same window on both sides.

dcm2pnm, dcmj2pnm and dcml2pnm of dcmtk show uncompressed and RLE, JPEG, and JPEG-LS files. JPEG 2000 is decoded by
ffmpeg's own decoder, which shares no code with OpenJPEG, and shown by dcm2pnm. The first and the last frame of each
file are compared, once with the file's first VOI LUT or window and, if gray, once over the full range of its values.

Every file is counted: equal, different with a reason that is known and checked, different, or not compared, with the
reason. A difference without a known reason makes the exit status 1.

Usage: python scripts/checks/check_pixels.py [DIR or FILE ...] [--output docs/pixels.md]
Without DIR it looks at the files that pydicom ships. Needs dcmtk and ffmpeg (Debian packages of these names).
"""

from __future__ import annotations

import argparse
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame

from bundle.reading.errors import SkippedFileError, UnreadableImageError
from bundle.reading.formats import file_format
from bundle.reading.reader import RadiologyReader

BEGIN, END = "<!-- check: begin -->", "<!-- check: end -->"
WINDOWS: dict[str | None, str] = {"first": "window", None: "full range"}
LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEG2000, uid.HTJ2K)
# in levels of 255: by rounding to 16 bits, by dcmtk's color, which is cut to 8 bits, by two decoders of a lossy frame;
# entries of a table are shifted into 16 bits by dcmtk, so that the largest of k bits is 2^-k short of white
EXACT, COLOR, DECODERS = 0.1, 1.01, 3.0


@dataclass(frozen=True)
class Outcome:
    """
    What became of one file.

    Args:
        name: of the file.
        word: ``equal``, ``explained``, ``different`` or ``not compared``.
        levels: largest difference, in levels of 255.
        reason: what is known of it.
    """

    name: str
    word: str
    levels: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Pair:
    """
    Two displays of one frame.

    Args:
        path: of the file.
        frame: from 0.
        window: as the reader takes it.
        header: of the file.
        ours: the reader's display values, shape ``(C, H, W)``.
        theirs: dcmtk's.
        note: the reader's display note.
        syntax: transfer syntax.
        source: what dcmtk was given, file and number of the frame.
    """

    path: Path
    frame: int
    window: str | None
    header: Dataset
    ours: np.ndarray
    theirs: np.ndarray
    note: str
    syntax: str
    source: tuple[Path, int]

    @property
    def tolerance(self) -> float:
        """Return the levels of 255 that mean nothing."""
        if self.syntax in LOSSY:
            return DECODERS
        luts = self.header.get("VOILUTSequence") or self.header.get("ModalityLUTSequence") or []
        bits = [int(lut.LUTDescriptor[2]) for lut in luts if lut.get("LUTDescriptor")]
        return COLOR if len(self.ours) == 3 else EXACT + (255 / 2 ** min(bits) if bits else 0)


class NotComparedError(Exception):
    """A file that one of the two sides does not show, with the reason."""


def main() -> None:
    """Compare, print, and exit with 1 where something differs without a known reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="DIR or FILE", help="default: the files of pydicom")
    parser.add_argument("--output", type=Path, help="document with the marks of the table, to put it there")
    args = parser.parse_args()
    missing = [name for name in ("dcm2pnm", "dcmj2pnm", "dcml2pnm", "ffmpeg") if not shutil.which(name)]
    if missing:
        sys.exit(f"the programs to compare with must be installed (dcmtk, ffmpeg), missing: {', '.join(missing)}.")
    for path in args.paths:
        if not path.exists():
            sys.exit(f"'{path}' must be a file or a folder, it does not exist.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes = [outcome(path) for path in files(args.paths or [shipped()])]
    print(report(outcomes))
    if args.output:
        document = args.output.read_text()
        text = f"{document.split(BEGIN)[0]}{BEGIN}\n{table(outcomes)}\n{END}{document.split(END)[1]}"
        args.output.write_text(text)
    sys.exit(any(found.word == "different" for found in outcomes))


def shipped() -> Path:
    """Return the folder of the files inside the installed pydicom."""
    return Path(pydicom.data.__file__).parent / "test_files"


def files(paths: list[Path]) -> list[Path]:
    """Return every DICOM file at or below the paths, by name."""
    found = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return sorted((file for file in found if is_dicom(file)), key=lambda file: (file.name.lower(), file))


def is_dicom(path: Path) -> bool:
    """Return whether the reader takes a file for DICOM."""
    try:
        return file_format(path) == "dicom"
    except SkippedFileError:
        return False


def outcome(path: Path) -> Outcome:
    """Return what the comparison of one file gives, the worst of its frames and windows."""
    found = []
    try:
        for pair in pairs(path):
            levels = difference(pair.ours, pair.theirs)
            if levels <= pair.tolerance:
                found.append(Outcome(path.name, "equal", levels))
            elif reason := explanation(pair):
                found.append(Outcome(path.name, "explained", levels, reason))
            else:
                found.append(Outcome(path.name, "different", levels, f"frame {pair.frame}, {WINDOWS[pair.window]}"))
    except NotComparedError as error:
        if not found:
            return Outcome(path.name, "not compared", reason=str(error))
    return max(found, key=lambda one: (("equal", "explained", "different").index(one.word), one.levels))


def pairs(path: Path) -> Iterator[Pair]:
    """Yield both displays of each frame and window of a file."""
    first, meta = shown_by_reader(path, 0, "first")
    header = pydicom.dcmread(path, force=True)
    syntax = str(getattr(header, "file_meta", {}).get("TransferSyntaxUID", ""))
    gray = len(first) == 1
    for frame in sorted({0, meta["num_frames"] - 1}):
        with tempfile.TemporaryDirectory() as folder:
            source, number = source_for_dcmtk(path, header, frame, syntax, Path(folder))
            for window in list(WINDOWS)[: 2 if gray else 1]:
                ours, meta = shown_by_reader(path, frame, window)
                theirs = shown_by_dcmtk(source, number, header, syntax, window)
                if ours.shape != theirs.shape:
                    raise NotComparedError(f"dcmtk shows {theirs.shape}, the reader {ours.shape}.")
                note = meta["display_note"]
                yield Pair(path, frame, window, header, ours, theirs, note, syntax, (source, number))


def shown_by_reader(path: Path, frame: int, window: str | None) -> tuple[np.ndarray, dict]:
    """Return the reader's display values and metadata."""
    try:
        return RadiologyReader(window=window, secret="").get_data([f"{path}#frame={frame}"])
    except SkippedFileError as error:
        raise NotComparedError(f"no image: {without_name(error, path)}") from None
    except UnreadableImageError as error:
        raise NotComparedError(f"refused: {without_name(error, path)}") from None


def without_name(error: Exception, path: Path) -> str:
    """Return a message without the file's name."""
    return str(error).removeprefix(f"{path.name}: ")


def source_for_dcmtk(path: Path, header: Dataset, frame: int, syntax: str, folder: Path) -> tuple[Path, int]:
    """Return the file that dcmtk is to show and the number of the frame in it, from 1; JPEG 2000 is decoded for it."""
    if syntax in uid.JPEG2000TransferSyntaxes and syntax not in (uid.JPEG2000Lossless, uid.JPEG2000):
        raise NotComparedError("ffmpeg 5.1 decodes no HTJ2K.")
    if syntax not in (uid.JPEG2000Lossless, uid.JPEG2000):
        return flattened(path, header, frame, folder), frame + 1
    codestream = get_frame(header.PixelData, frame, number_of_frames=int(header.get("NumberOfFrames") or 1))
    pixels = decoded_by_ffmpeg(codestream[codestream.find(b"\xff\x4f\xff\x51") :], header)
    copy = pydicom.dcmread(path)
    copy.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    copy.pop("NumberOfFrames", None)
    if copy.SamplesPerPixel == 3:
        copy.PlanarConfiguration, copy.PhotometricInterpretation = 0, "RGB"
    copy.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    copy["PixelData"].VR, copy["PixelData"].is_undefined_length = "OW", False
    copy.save_as(folder / "decoded.dcm")
    return folder / "decoded.dcm", 1


def flattened(path: Path, header: Dataset, frame: int, folder: Path) -> Path:
    """Return a file with the frame's functional groups among the common elements, where dcmtk looks for them."""
    groups = [*header.get("SharedFunctionalGroupsSequence", [])[:1]]
    groups += header.get("PerFrameFunctionalGroupsSequence", [])[frame : frame + 1]
    if not groups:
        return path
    copy = pydicom.dcmread(path)
    for group in groups:
        for macro in group:
            if macro.VR == "SQ" and macro.value:
                copy.update(macro.value[0])
    copy.save_as(folder / "flattened.dcm")
    return folder / "flattened.dcm"


def decoded_by_ffmpeg(codestream: bytes, header: Dataset) -> np.ndarray:
    """Return the samples of a JPEG 2000 codestream by ffmpeg's native decoder, in the header's width and sign."""
    command = ["ffmpeg", "-hide_banner", "-f", "j2k_pipe", "-c:v", "jpeg2000", "-i", "-", "-f", "rawvideo", "-"]
    done = subprocess.run(command, input=codestream, capture_output=True, timeout=60, check=False)
    kind = re.search(r"Video: jpeg2000.*?, (gray|rgb|gbr)(\w*?)[(,]", done.stderr.decode(errors="replace"))
    if done.returncode or kind is None or not done.stdout:
        raise NotComparedError("ffmpeg decodes no such JPEG 2000 codestream.")
    depth, (precision,) = int(re.sub(r"\D", "", kind[2]) or 8), struct.unpack_from("B", codestream, 42)
    depth = {24: 8, 48: 16}.get(depth, depth)
    values = np.frombuffer(done.stdout, np.uint8 if depth == 8 else "<u2").astype(np.int64)
    values >>= depth - ((precision & 127) + 1)
    if precision & 128 or header.PixelRepresentation == 1:  # ffmpeg adds the level shift to signed samples as well
        values -= 2 ** (precision & 127) if precision & 128 else 0
    size = (header.Rows, header.Columns) + ((3,) if header.SamplesPerPixel == 3 else ())
    return values.astype(f"<{'i' if header.PixelRepresentation else 'u'}{header.BitsAllocated // 8}").reshape(size)


def shown_by_dcmtk(path: Path, number: int, header: Dataset, syntax: str, window: str | None) -> np.ndarray:
    """Return dcmtk's display values 0..1, shape ``(C, H, W)``, by the first VOI LUT or window that it accepts."""
    program = "dcmj2pnm" if syntax in uid.JPEGTransferSyntaxes else "dcml2pnm" if "1.2.4.8" in syntax else "dcm2pnm"
    said, gray = "", str(header.PhotometricInterpretation).strip().startswith("MONOCHROME")
    choices = [["+Wl", "1"], ["+Wi", "1"]] if window else []
    for choice in [*choices, full_range(header)] if gray else [["-W"]]:
        command = [program, "-O", "+F", str(number), *choice, "+opw", str(path)]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        said = done.stderr.decode(errors="replace").strip().splitlines()[0][3:] if done.stderr.strip() else ""
        if done.returncode == 0 and done.stdout and not re.search(rb"cannot select", done.stderr):
            return netpbm(done.stdout)
    raise NotComparedError(f"{program} shows nothing: {said[:80]}.")


def netpbm(content: bytes) -> np.ndarray:
    """Return the values of a PGM or PPM file in text, 0..1, shape ``(C, H, W)``."""
    kind, *numbers = content.split()
    width, height, top = (int(number) for number in numbers[:3])
    values = np.array(numbers[3:], dtype=np.float64)
    shape = (height, width, 3 if kind == b"P3" else 1)
    return np.moveaxis(values.reshape(shape), -1, 0) / top


def full_range(header: Dataset) -> list[str]:
    """Return dcmtk's options to show all values that a gray file can hold, as a window if it can be said as one."""
    if header.get("ModalityLUTSequence") and header.ModalityLUTSequence[0].get("LUTData"):
        return ["-W"]
    bits, slope, intercept = header.BitsStored, header.get("RescaleSlope") or 1, header.get("RescaleIntercept") or 0
    low = -(2 ** (bits - 1)) if header.PixelRepresentation else 0
    low, high = sorted(float(slope) * value + float(intercept) for value in (low, low + 2**bits - 1))
    # the linear function of PS3.3 C.11.2.1.2.1 is 0 at c - 0.5 - (w - 1) / 2 and 1 at c - 0.5 + (w - 1) / 2
    return ["+Wfl", "+Ww", f"{(low + high + 1) / 2:.10g}", f"{high - low + 1:.10g}"]


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference in levels of 255."""
    return float(np.abs(ours - theirs).max() * 255)


def explanation(pair: Pair) -> str:
    """Return why a difference is right, empty where it is not known; each reason is held against the pixels."""
    header, theirs = pair.header, pair.theirs
    if pair.note.startswith("window not applied"):
        source, number = pair.source
        if difference(pair.ours, shown_by_dcmtk(source, number, header, pair.syntax, None)) <= pair.tolerance:
            return (
                f"{pair.note}. dcmtk takes the window (PS3.3 C.11.2 does not allow it); over the full range they agree."
            )
    if header.get("PixelPaddingValue") is not None:
        padding = padded(pair)
        kept = np.where(padding, pair.ours, theirs)
        if difference(pair.ours, kept) <= pair.tolerance and not pair.ours[padding].any():
            return (
                'dcmtk shows padding by its value; PS3.3 C.7.5.1.1.2: "pixels to be excluded from the normal grayscale '
                'rendering pipeline" are black here. The other pixels agree.'
            )
    if header.get("ModalityLUTSequence") and np.ptp(theirs):
        slope, offset = np.polyfit(theirs.ravel(), pair.ours.ravel(), 1)
        if slope > 0 and difference(pair.ours, slope * theirs + offset) <= pair.tolerance:
            return (
                "without a window dcmtk spans the bits that the LUT Descriptor states, the reader the entries that the "
                "Modality LUT holds (PS3.3 C.11.1 gives no display range). They are in a straight line."
            )
    if unit := rounded_unit(pair):
        full = pair.window is None or pair.note.startswith("window not applied")
        agree = full and difference(pair.ours, shown_without_rescale(pair)) <= pair.tolerance
        if agree or (unit <= 0.02 and difference(pair.ours, theirs) <= 255 * unit + pair.tolerance):
            return "dcmtk rounds modality values to whole numbers; PS3.3 C.11.1 does not: Output units = m*SV + b. " + (
                "Over the full range of the stored values they agree." if agree else "They differ by less than one."
            )
    return ""


def padded(pair: Pair) -> np.ndarray:
    """Return where a frame holds padding, by pydicom, shape ``(1, H, W)``."""
    stored = pydicom.pixels.pixel_array(pair.path, index=pair.frame)
    first = int(pair.header.PixelPaddingValue)
    last = int(pair.header.get("PixelPaddingRangeLimit", first))
    return ((stored >= min(first, last)) & (stored <= max(first, last)))[None]


def rounded_unit(pair: Pair) -> float:
    """Return one modality unit as a part of what is shown, 0 where modality values are whole numbers."""
    slope, intercept = float(pair.header.get("RescaleSlope") or 1), float(pair.header.get("RescaleIntercept") or 0)
    if slope.is_integer() and intercept.is_integer():
        return 0.0
    width = pair.header.get("WindowWidth") if pair.window else None
    width = float(width[0] if isinstance(width, pydicom.multival.MultiValue) else width or 0)
    return 1 / max(width - 1, 1) if width > 1 else 1 / max(abs(slope) * 2.0**pair.header.BitsStored, 1)


def shown_without_rescale(pair: Pair) -> np.ndarray:
    """Return dcmtk's display over the full range without Rescale Slope, which changes nothing of it but the sign."""
    source, number = pair.source
    with tempfile.TemporaryDirectory() as folder:
        copy = pydicom.dcmread(source)
        copy.RescaleSlope, copy.RescaleIntercept = (1 if float(copy.RescaleSlope) > 0 else -1), 0
        copy.save_as(Path(folder) / "copy.dcm")
        return shown_by_dcmtk(Path(folder) / "copy.dcm", number, copy, pair.syntax, None)


def report(outcomes: list[Outcome]) -> str:
    """Return what to print: what differs, what was not compared, and the counts."""
    lines = []
    for word in ("different", "explained", "not compared"):
        for one in outcomes:
            if one.word == word:
                size = f" by up to {one.levels:.2f} of 255 levels" if one.levels else ""
                lines.append(f"{word}{size}: {one.name}: {one.reason}")
    counts = Counter(one.word for one in outcomes)
    words = ", ".join(f"{counts[word]} {word}" for word in ("equal", "explained", "different", "not compared"))
    return "\n".join([*lines, f"{len(outcomes)} files: {words}."])


def table(outcomes: list[Outcome]) -> str:
    """Return the Markdown table of a document: a row a reason, with the number of files and some of their names."""
    rows: dict[tuple[str, str], list[Outcome]] = {}
    for word in ("equal", "explained", "different", "not compared"):
        for one in outcomes:
            if one.word == word:
                rows.setdefault((word, one.reason), []).append(one)
    lines = ["| outcome | files | largest difference, levels of 255 | reason |", "|---|---|---|---|"]
    for (word, reason), members in rows.items():
        largest = "" if word == "not compared" else f"{max(one.levels for one in members):.2f}"
        names = ", ".join(sorted({one.name for one in members})[:3])
        who = "" if word == "equal" else f": {names}{', ...' if len(members) > 3 else ''}"
        lines.append(f"| {word} | {len(members)}{who} | {largest} | {reason} |")
    return "\n".join([*lines, "", report(outcomes).splitlines()[-1]])


if __name__ == "__main__":
    main()
