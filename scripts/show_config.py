# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Print the configuration of a run as its layers make it, with the layer that each value comes from.

    python scripts/show_config.py --args_file configs/args_adfa_train.yaml
    python scripts/show_config.py --args_file configs/args_adfa_train.yaml --k 5 --only k,network_def

Give the flags of ``python -m monai.bundle run``; nothing is run. ``--only`` shows some keys. The output is YAML.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> None:
    """Print the configuration that the command line asks for."""
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & {*words}:
        print((__doc__ or "").strip())
        return
    from bundle.command.show_config import shown_config  # only now: --help needs no PyTorch
    from bundle.errors import reason_of

    only: list[str] = []
    if "--only" in words:
        at = words.index("--only")
        only, words = words[at + 1 : at + 2], words[:at] + words[at + 2 :]
    try:
        for line in shown_config(words, [key for text in only for key in text.split(",")]):
            print(line)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {reason_of(error)}") from None


if __name__ == "__main__":
    main()
