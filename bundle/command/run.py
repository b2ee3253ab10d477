# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What surrounds a run: flags that exist, a writable output folder, seeds, and errors as one line."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import ignite.distributed as idist
import monai
from monai.engines import Trainer
from monai.utils import set_determinism

from bundle.command.command_line import CommandLine
from bundle.command.memory import keep_freed_memory
from bundle.errors import cause_of, is_ours, raised_in, reason_of
from bundle.files import remove_partial_files
from bundle.training.processes.parallel import start_processes

__all__ = ["command_line_of_this_run", "errors_as_one_line", "prepare_run", "run_to_end", "written_settings"]

logger = logging.getLogger(__name__)
_MONAI = Path(monai.__file__).parent
# what reads and builds a configuration; "<string>" is the text of an expression
_CONFIG_CODE = (str(_MONAI / "bundle"), str(_MONAI / "utils" / "module.py"), "<string>")
# settings that may differ when a run is continued: places, whose content is compared, and the way a run goes
_WITHOUT_EFFECT = frozenset(
    "args_file config_file meta_file logging_file run_id init_id final_id workflow workflow_type tracking bundle_root "
    "input dataset_dir output_dir model_dir ckpt_path calibration_path labels_csv exported resume secret debug "
    "progress_bar num_workers keep_memory allow_outside device backend tracking_uri experiment_name run_name "
    "save_execute_config".split()
)
_PROBE = 4096
_STEPS = ("prepare", "initialize", "run", "finalize", "after_training")


def prepare_run(
    output_dir: str | Path,
    seed: int | None = 0,
    debug: bool = False,
    backend: str | None = None,
    keep_memory: bool = True,
) -> None:
    """
    Check the flags, join the other processes, make the output folder and clear it of half-written files, seed, keep
    freed memory for the next image, and have our errors as one line.

    Args:
        output_dir: created where it does not exist.
        seed: of Python, NumPy and PyTorch, and cuDNN takes its deterministic kernels; ``None`` leaves them alone. Other
            kernels of a GPU, such as the gradient of bilinear upsampling, may still sum in any order.
        debug: print errors with their traceback instead.
        backend: of several processes, see :py:func:`bundle.training.processes.start_processes`.
        keep_memory: see :py:func:`bundle.command.memory.keep_freed_memory`.

    Raises:
        OSError: When the folder cannot be written.
        ValueError: When a flag of ``python -m monai.bundle run`` is unknown, see :py:class:`CommandLine`.
    """
    if not debug:
        errors_as_one_line()
    # MONAI's LoadImage tries all its readers, also those that need what is not installed
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    if command_line := command_line_of_this_run():
        command_line.check()
    start_processes(backend)
    if keep_memory:
        keep_freed_memory()
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE))  # an empty file fits on a full disk
        remove_partial_files(folder)
    except OSError as error:
        raise OSError(f"output_dir '{output_dir}' cannot be written: {error.strerror}.") from None
    if seed is not None:
        set_determinism(seed=seed)


def errors_as_one_line() -> None:
    """Have an error that ends this process and is ours, or the configuration's, printed as one line."""
    sys.excepthook = _one_line


def digest_of_given(settings: Mapping[str, Any]) -> str:
    """
    Return a digest of the settings of a run that its results depend on, for a workflow that was not typed.

    Args:
        settings: by name, as they were given.
    """
    words = {name: str(value) for name, value in sorted(settings.items()) if name not in _WITHOUT_EFFECT}
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def written_settings() -> dict[str, Any]:
    """
    Return the settings of this run that its results depend on, as they are meant, by top-level key and by flag.

    Left out are places and what only changes how a run goes; nothing is returned outside of
    ``python -m monai.bundle run``.
    """
    command_line = command_line_of_this_run()
    settings = command_line.settings() if command_line else {}
    return {name: value for name, value in settings.items() if name not in _WITHOUT_EFFECT}


def command_line_of_this_run() -> CommandLine | None:
    """Return the command line, or ``None`` where this is no ``python -m monai.bundle run``."""
    if Path(sys.argv[0]) != _MONAI / "bundle" / "__main__.py" or sys.argv[1:2] != ["run"]:
        return None
    return _read_command_line(tuple(sys.argv[2:]))


@functools.lru_cache(maxsize=1)
def _read_command_line(words: tuple[str, ...]) -> CommandLine:
    return CommandLine(words)


def run_to_end(trainer: Trainer | None) -> None:
    """
    Run a trainer unless its last epoch is done, where Ignite would start again from the first.

    Args:
        trainer: MONAI trainer, perhaps restored from a checkpoint; ``None`` where nothing takes a gradient.
    """
    if trainer is None:
        return
    if trainer.state.epoch >= trainer.state.max_epochs:
        logger.info("nothing to train: epoch %d of %d is done", trainer.state.epoch, trainer.state.max_epochs)
        return
    trainer.run()
    idist.barrier()  # what the first process has just saved, all read next


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error that this package or the configuration raised as one line, and others with their traceback."""
    cause, text, place = cause_of(error), reason_of(error), _place(trace)
    ours, of_config = is_ours(cause), bool(place) and raised_in(cause).filename.startswith(_CONFIG_CODE)
    if isinstance(cause, OSError) and (ours or cause.errno is not None):
        if cause.filename is not None and cause.strerror:
            text = f"'{cause.filename}': {cause.strerror}."
        sys.stderr.write(f"error: {text}\n")
    elif of_config or (ours and isinstance(cause, ValueError)):
        sys.stderr.write(f"error: {text}{place and f' ({place})'}\n")
    else:
        sys.__excepthook__(kind, error, trace)
        if place:
            sys.stderr.write(f"error: see {place}\n")


def _frames(trace: TracebackType | None) -> Iterator[FrameType]:
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _place(trace: TracebackType | None) -> str:
    """Return key and file of the configuration's item that was being built, nothing while the built ones run."""
    keys = [frame.f_locals["id"] for frame in _frames(trace) if frame.f_code.co_name == "_resolve_one_item"]
    if not keys or keys[-1].split("::")[0] in _STEPS:
        return ""
    command_line = command_line_of_this_run()
    origin = command_line.origin(keys[-1]) if command_line else ""
    return f"'{keys[-1]}'" + (f" in {origin}" if origin else "")
