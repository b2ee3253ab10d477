# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Decode in a process of its own.

GDCM, the only permissive decoder of JPEG Lossless, ends its process on some damaged files instead of raising an error.
A run over a large archive must outlive that. One helper process serves each process that reads, and is replaced when it
dies. Run as a script, this file is the helper.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
from functools import cache
from typing import IO, Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

__all__ = ["DecoderEndedError", "decode_isolated"]

_SECONDS = 60  # that the helper may take for a frame
_lock = threading.Lock()


class DecoderEndedError(RuntimeError):
    """The helper process died, ran out of time, or reported an error."""


def decode_isolated(syntax: str, plugin: str, frame: bytes, options: dict[str, Any]) -> tuple[np.ndarray, str]:
    """
    Return one decoded frame and the photometric interpretation that now holds.

    Args:
        syntax: transfer syntax UID.
        plugin: pydicom's name of the decoder.
        frame: compressed frame.
        options: pydicom's description of the pixels, of one frame.

    Returns:
        stored values, shape ``(H, W)`` or ``(H, W, 3)``; photometric interpretation.

    Raises:
        DecoderEndedError: When the helper dies, exceeds the time limit or reports an error.
    """
    with _lock:
        if _helper(os.getpid()).poll() is not None:
            _helper.cache_clear()
        helper = _helper(os.getpid())
        timer = threading.Timer(_SECONDS, helper.kill)
        timer.start()
        try:
            _send(helper.stdin, {"syntax": syntax, "plugin": plugin, "options": options}, frame)
            answer, data = _receive(helper.stdout)
        except (OSError, EOFError):
            helper.kill()
            helper.communicate()
            _helper.cache_clear()
            raise DecoderEndedError("the decoder's process died.") from None
        finally:
            timer.cancel()
    if "error" in answer:
        raise DecoderEndedError(answer["error"])
    return np.frombuffer(data, answer["dtype"]).reshape(answer["shape"]).copy(), answer["photometric"]


@cache
def _helper(process_id: int) -> subprocess.Popen:
    """Return the helper of a process; a forked process must not share its parent's."""
    command = [sys.executable, __file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _send(stream: IO[bytes] | None, head: dict[str, Any], body: bytes) -> None:
    if stream is None:
        raise EOFError
    words = json.dumps(head).encode()
    stream.write(struct.pack(">2Q", len(words), len(body)) + words + body)
    stream.flush()


def _receive(stream: IO[bytes] | None) -> tuple[dict[str, Any], bytes]:
    if stream is None:
        raise EOFError
    sizes = stream.read(16)
    if len(sizes) < 16:
        raise EOFError
    head, body = struct.unpack(">2Q", sizes)
    return json.loads(stream.read(head)), stream.read(body)


def _serve() -> None:
    """Decode what comes in until the other side is gone."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get among the answers
    while True:
        try:
            request, frame = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            decoder = get_decoder(request["syntax"])
            stored, properties = decoder.as_array(
                encapsulate([frame]), index=0, decoding_plugin=request["plugin"], **request["options"]
            )
            photometric = str(properties["photometric_interpretation"])
            answer = {"dtype": stored.dtype.str, "shape": stored.shape, "photometric": photometric}
            _send(answers, answer, np.ascontiguousarray(stored).tobytes())
        except Exception as error:
            _send(answers, {"error": type(error).__name__}, b"")


if __name__ == "__main__":
    _serve()
