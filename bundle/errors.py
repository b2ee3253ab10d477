# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From an error, however often it was wrapped, to the one line that says why."""

from __future__ import annotations

import os
from pathlib import Path
from traceback import FrameSummary, extract_tb

__all__ = ["cause_of", "is_ours", "kind_and_place", "raised_in", "reason_of"]

_PACKAGE = str(Path(__file__).parent) + os.sep


def cause_of(error: BaseException) -> BaseException:
    """
    Return the error that says why: the innermost that is ours, else the innermost that another was raised from.

    MONAI wraps what a transform or a configuration raises; what we make of another's error is said in our words.

    Args:
        error: as it was caught.
    """
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    # MONAI's look-up lists all that it knows; what asked it says which key is missing
    found = [cause for cause in reversed(chain) if raised_in(cause).name != "look_up_option"] or chain
    return next((cause for cause in found if is_ours(cause)), found[0])


def reason_of(error: BaseException) -> str:
    """
    Return the message of :py:func:`cause_of` an error as one line, the name of its kind where it has no message.

    Args:
        error: as it was caught.

    Example:
        >>> reason_of(ValueError("'a.png' is  cut off.")), reason_of(KeyError())
        ("'a.png' is cut off.", 'KeyError')
    """
    cause = cause_of(error)
    # MONAI quotes a traceback where an optional package is missing
    return " ".join(str(cause).partition("Original traceback:")[0].split()) or type(cause).__name__


def kind_and_place(error: BaseException) -> str:
    """
    Return the kind of an error and where it was raised, for one whose message may quote a file's text.

    Args:
        error: as it was caught.

    Example:
        >>> kind_and_place(KeyError())
        'KeyError (?:0)'
    """
    place = raised_in(error)
    return f"{type(error).__name__} ({Path(place.filename).name}:{place.lineno})"


def is_ours(error: BaseException) -> bool:
    """
    Return whether a line of this package raised an error, so that its message is in our words.

    Args:
        error: as it was caught.
    """
    return raised_in(error).filename.startswith(_PACKAGE)


def raised_in(error: BaseException) -> FrameSummary:
    """
    Return file, line and function that raised an error; the file is ``?`` for one that was not raised.

    Args:
        error: as it was caught.
    """
    return (extract_tb(error.__traceback__, limit=-1) or [FrameSummary("?", 0, "?", lookup_line=False)])[0]
