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
import os
from pathlib import Path
from typing import Any

import monai.bundle
import yaml

ROOT = Path(__file__).resolve().parents[1]
PHASES = ("backbone", "head", "end_to_end", "mining")


def overrides_of(arguments: list[str], phase: str) -> dict[str, Any]:
    """Return the configuration keys among the arguments that hold for a phase, parsed as YAML."""
    if len(arguments) % 2 or not all(name.startswith("--") for name in arguments[::2]):
        raise SystemExit(f"further arguments must be pairs of --key and value, got {' '.join(arguments)}")
    values = {name[2:]: yaml.safe_load(value) for name, value in zip(arguments[::2], arguments[1::2], strict=True)}
    common = {k: v for k, v in values.items() if not k.startswith(tuple(f"{name}_" for name in PHASES)) or k in SHARED}
    return common | {k[len(phase) + 1 :]: v for k, v in values.items() if k.startswith(f"{phase}_") and k not in SHARED}


SHARED = ("backbone_weights", "mining_steps", "mining_threshold")  # keys of every phase that begin like one's own


def main() -> None:
    """Parse the command line and run the phases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    args, rest = parser.parse_known_args()
    dataset_dir, output_dir = args.dataset_dir.resolve(), args.output_dir.resolve()
    os.chdir(ROOT)  # the configurations are named from here
    start_from = ""
    for phase in PHASES:
        print(f"phase {phase}", flush=True)
        monai.bundle.run(
            args_file=f"configs/args_msa_train_{phase}.yaml",
            dataset_dir=str(dataset_dir),
            output_dir=str(output_dir / phase),
            start_from=start_from,
            resume=True,
            **overrides_of(rest, phase),
        )
        start_from = str(output_dir / phase / "model.pt")


if __name__ == "__main__":
    main()
