# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A hash that stands for a patient, by a key that is drawn for each run."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from functools import cache

__all__ = ["pseudonym", "run_secret"]


@cache
def run_secret() -> str:
    """Return a key that is drawn once a process: pseudonyms agree within a run and say nothing after it."""
    return secrets.token_hex(16)


def pseudonym(patient_id: str, secret: str) -> str:
    """
    Return a keyed hash that stands for a patient: the first 16 hexadecimal digits of HMAC-SHA-256.

    Without a key nothing is returned, because a hash without a key can be undone by trying identifiers.

    Args:
        patient_id: identifier as the file gives it.
        secret: key; whoever has it can link pseudonyms to known identifiers, so keep it apart from the results.

    Example:
        >>> pseudonym("4711", ""), len(pseudonym("4711", "key"))
        ('', 16)
    """
    if not patient_id.strip() or not secret:
        return ""
    return hmac.new(secret.encode(), patient_id.strip().encode(), hashlib.sha256).hexdigest()[:16]
