# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Make a model folder with the same weights and another calibration, without training; the old folder stays as it is.

    python scripts/recalibrate.py --model_dir OUT --output_dir NEW --recalibrate DIR [--false_alarm_rate 0.05]
    python scripts/recalibrate.py --model_dir OUT --output_dir NEW --false_alarm_rate 0.05
    python scripts/recalibrate.py --model_dir OUT --output_dir NEW --sensitivity 0.95
    python scripts/recalibrate.py --model_dir OUT --output_dir NEW --recalibrate DIR --labels_csv FILE

DIR holds normal images of one's own that were not trained on (ADFA), or labelled ones (SNA, MSA). Without DIR the
operating point is chosen from what the old calibration keeps. docs/model.md says what it means.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bundle.model import load_model  # noqa: E402
from bundle.model.recalibrate import Recalibrated, recalibrate  # noqa: E402


def _word(text: str) -> Any:
    """Return True and False for the words; other words are refused later, by the name of the setting."""
    return {"True": True, "False": False}.get(text, text)


def _lines(done: Recalibrated) -> list[str]:
    lines = [f"left out: {Path(file).name}: {reason}" for file, reason in done.left_out]
    source = f"{done.images} images, {len(done.left_out)} left out" if done.images else "what the old one keeps"
    return [*lines, f"calibrated on {source}", *done.lines]


def main() -> None:
    """Parse the command line, recalibrate, say what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", required=True, help="folder of a trained model")
    parser.add_argument("--output_dir", required=True, help="folder to make; it must not exist, or be empty")
    parser.add_argument("--recalibrate", metavar="DIR", help="folder of normal (ADFA) or labelled images of one's own")
    parser.add_argument("--labels_csv", metavar="FILE", help="labels of DIR; rows of the split training are left out")
    parser.add_argument("--false_alarm_rate", type=float, metavar="R", help="of ADFA; default: as before, else 0.1")
    parser.add_argument("--sensitivity", type=float, metavar="S", help="that each finding's operating point promises")
    parser.add_argument("--specificity", type=float, metavar="S", help="the same; one of them")
    parser.add_argument("--another_kind", type=_word, default=False, help="True allows another kind of images")
    parser.add_argument("--mixed_training", type=_word, default=False, help="True allows several kinds of images")
    parser.add_argument("--allow_outside", type=_word, default=False, help="True takes images by links out of DIR")
    parser.add_argument("--device", help="such as cpu; default: a GPU where there is one")
    args = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        model, images = load_model(args.pop("model_dir"), args.pop("device")), args.pop("recalibrate")
        print("\n".join(_lines(recalibrate(model, images=images, **args))))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(
        f"written to '{args['output_dir']}': {Path(model.file.weights).name}, calibration.json, model.json\n"
        f"next: python -m monai.bundle run --args_file configs/args_{model.file.family}_inference.yaml "
        f"--model_dir '{args['output_dir']}' --input PATH --output_dir RESULTS"
    )


if __name__ == "__main__":
    main()
