# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables as people write them: commas, semicolons or tabs, with or without a byte order mark, plain or gzipped."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

__all__ = ["binary_label", "read_rows"]

_YES = {"1", "1.0", "1,0", "true", "yes"}
_NO = {"0", "0.0", "0,0", "false", "no"}


def read_rows(path: str | Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """
    Read a table with a header. Spaces around names and cells are taken off; rows without any text are left out.

    Args:
        path: a CSV, ``.gz`` allowed; separated by commas, semicolons (Excel in Europe) or tabs, as its header is; in
            UTF-8, or in UTF-16 with a byte order mark.

    Returns:
        the names of the columns; and the rows with their numbers, counted as a spreadsheet does: the header is row 1.

    Raises:
        ValueError: When the file is no such text, two columns have one name, or a row has more cells than the header.
    """
    path = Path(path)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError):
        raise ValueError(f"'{path.name}' must be a table in UTF-8, it is not; save it as 'CSV UTF-8'.") from None
    text = text.removeprefix("\ufeff")
    head = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"'{path.name}' must be a CSV, reading ended in: {error}.") from None
    numbered = [(n, [cell.strip() for cell in line]) for n, line in enumerate(lines, start=1)]
    numbered = [(n, line) for n, line in numbered if any(line)]
    if not numbered:
        return [], []
    columns = numbered[0][1]
    while columns and not columns[-1]:
        columns = columns[:-1]  # a header that ends with separators
    named = [name for name in columns if name]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise ValueError(f"{path.name} row 1: every column must have a name of its own, '{twice[0]}' is there twice.")
    rows = []
    for number, line in numbered[1:]:
        if any(line[len(columns) :]):
            raise ValueError(
                f"{path.name} row {number}: must have at most {len(columns)} cells, as the header, got {len(line)}; "
                "a cell with the separator in it needs quotes."
            )
        cells = line[: len(columns)] + [""] * (len(columns) - len(line))
        rows.append((number, {name: cell for name, cell in zip(columns, cells, strict=True) if name}))
    return named, rows


def binary_label(text: str) -> int | None:
    """
    Return a label as 0 or 1, ``None`` for text that is neither.

    Args:
        text: 0, 1, 0.0, 1.0, true, false, yes or no, in any case.

    Example:
        >>> binary_label("1.0"), binary_label("No"), binary_label("nan")
        (1, 0, None)
    """
    word = text.strip().lower()
    return 1 if word in _YES else 0 if word in _NO else None
