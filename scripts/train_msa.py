# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Train the localization family, phase after phase: backbone, aggregation head, end to end, attention mining.

    python scripts/train_msa.py --dataset_dir DIR --output_dir OUT --classes "[Mass,Nodule]" [--config_key VALUE ...]

Each phase is one ``monai.bundle run`` into its own folder under the output folder and starts from the checkpoint of
the phase before. Run again after an interruption, the command goes on where it was. ``--phase_KEY VALUE``, such as
``--backbone_max_epochs 5``, sets a key for one phase only.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PHASES = ("backbone", "head", "end_to_end", "mining")


def overrides_of(arguments: list[str], phase: str) -> dict[str, Any]:
    """Return the configuration keys among the arguments that hold for a phase, as a command line means them."""
    from bundle.command import typed_value
    from bundle.command.options import PATHS

    words: list[str] = []
    for argument in arguments:
        words += argument.split("=", 1) if argument.startswith("--") else [argument]
    if len(words) % 2 or not all(name.startswith("--") for name in words[::2]):
        raise SystemExit(f"error: further arguments must be pairs of --key and value, got {shlex.join(arguments)}")
    texts = {name[2:]: text for name, text in zip(words[::2], words[1::2], strict=True)}
    common = {k: v for k, v in texts.items() if not k.startswith(tuple(f"{name}_" for name in PHASES)) or k in SHARED}
    own = {k[len(phase) + 1 :]: v for k, v in texts.items() if k.startswith(f"{phase}_") and k not in SHARED}
    values = {key: typed_value(key, text) for key, text in (common | own).items()}
    # MONAI leaves out a setting that is None
    return {k: v if v is not None else "null" if k in PATHS else "$None" for k, v in values.items()}


SHARED = ("mining_steps", "mining_threshold")  # keys of every phase that begin like one's own


def main() -> None:
    """Parse the command line and run the phases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    args, rest = parser.parse_known_args()
    import monai.bundle  # only now: --help needs no PyTorch

    from bundle.command.run import errors_as_one_line

    errors_as_one_line()
    overrides = {phase: overrides_of(rest, phase) for phase in PHASES}  # what is wrong is said before the first phase
    start_from = ""
    for phase in PHASES:
        print(f"phase {phase}", flush=True)
        monai.bundle.run(
            args_file=str(ROOT / "configs" / f"args_msa_train_{phase}.yaml"),
            dataset_dir=str(args.dataset_dir),
            output_dir=str(args.output_dir / phase),
            start_from=start_from,
            resume=True,
            **overrides[phase],
        )
        start_from = str(args.output_dir / phase / "model.pt")
    last = args.output_dir / PHASES[-1]
    command = ["python", "-m", "monai.bundle", "run", "--args_file", str(ROOT / "configs" / "args_msa_inference.yaml")]
    command += ["--input", "PATH", "--model_dir", str(last), "--output_dir", str(last / "results")]
    print(f"next: {shlex.join(command)}")


if __name__ == "__main__":
    main()
