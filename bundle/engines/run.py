# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What surrounds a run: a writable output folder, seeds, and errors as one line."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from monai.engines import Trainer
from monai.utils import set_determinism

__all__ = ["prepare_run", "run_to_end"]

logger = logging.getLogger(__name__)
_PACKAGE = str(Path(__file__).resolve().parents[1])


def prepare_run(output_dir: str | Path, seed: int | None = 0, debug: bool = False) -> None:
    """
    Create the output folder, seed everything, and have errors of this package printed as one line.

    Args:
        output_dir: created where it does not exist.
        seed: of Python, NumPy and PyTorch, which then use deterministic algorithms; ``None`` leaves them alone.

        debug: print errors with their traceback instead.

    Raises:
        OSError: When the folder cannot be written.
    """
    if not debug:
        sys.excepthook = _one_line
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"output_dir '{output_dir}' cannot be written: {error.strerror}.") from None
    if seed is not None:
        set_determinism(seed=seed)


def run_to_end(trainer: Trainer) -> None:
    """
    Run a trainer unless its last epoch is done, where Ignite would start again from the first.

    Args:
        trainer: MONAI trainer, perhaps restored from a checkpoint.
    """
    if trainer.state.epoch >= trainer.state.max_epochs:
        logger.info("nothing to train: epoch %d of %d is done", trainer.state.epoch, trainer.state.max_epochs)
        return
    trainer.run()


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error that this package raised as one line, and every other one with its traceback."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    last = cause.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    ours = last is not None and last.tb_frame.f_code.co_filename.startswith(_PACKAGE)
    if isinstance(cause, (ValueError, OSError)) and ours:
        sys.stderr.write(f"error: {' '.join(str(cause).split())}\n")
    else:
        sys.__excepthook__(kind, error, trace)
