# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Score many images with several workers of a Ray cluster, or of this machine, into Parquet files.

    python scripts/score_with_ray.py --args_file configs/args_adfa_inference.yaml --input DIR --output_dir OUT \
        --workers 2 model_dir=MODEL [KEY=VALUE ...]

Each worker holds the network and runs the inference workflow for one part of the list after another, in the batches
of a single run, so the scores are the same. A part becomes one file, complete or absent; started again, the command
does the parts that are missing. Workers read the images themselves, under the same path on every machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    sys.exit("error: a package is missing: pip install 'attention-imaging-bundle[ray]'")
from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bundle.command import BundleWorkflow, typed_value  # noqa: E402
from bundle.files import atomic_path  # noqa: E402
from bundle.lists import find_images  # noqa: E402

BOX = [("label", pa.string()), *((name, pa.float64()) for name in ("x", "y", "width", "height", "map_height", "score"))]
SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "source": pa.string(),
        "frame": pa.int32(),
        "subject": pa.string(),
        "anomaly_score": pa.float64(),
        "finding_probability": pa.float64(),
        "p_value": pa.float64(),
        "abnormal": pa.bool_(),
        "probabilities": pa.map_(pa.string(), pa.float64()),
        "boxes": pa.list_(pa.struct(BOX)),
        "failure": pa.string(),  # why there is no result; the other columns but source are empty then
    }
)


def workflow_of(args_file: str, settings: dict[str, Any]) -> BundleWorkflow:
    """Return the inference workflow that a runnable file of configs/ names; a setting that it lacks is an error."""
    arguments, root = ConfigParser.load_config_file(args_file), Path(args_file).resolve().parents[1]
    files = {key: [str(root / file) for file in arguments[key]] for key in ("config_file", "meta_file")}
    return BundleWorkflow(**files, workflow_type="infer", logging_file=False, **settings)


class Scorer:
    """A worker: the workflow with its network loaded once, and where its parts go."""

    def __init__(self, args_file: str, settings: dict[str, Any], output_dir: str) -> None:
        self.scratch = tempfile.TemporaryDirectory()
        self.output_dir = Path(output_dir)
        workflow = workflow_of(args_file, {**settings, "formats": ["json"], "output_dir": self.scratch.name})
        workflow.initialize()
        self.parser = workflow.parser
        kept = ("model", "network_def", "network", "calibration", "weights_sha256")
        kept_objects = {slot: self.parser.get_parsed_content(slot) for slot in kept}  # setting a slot forgets them all
        for slot, value in kept_objects.items():
            self.parser[slot] = value

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Score the images of one part, write its file, and return how many have results and how many have not."""
        (number,), (items,) = rows["part"], rows["items"]
        self.parser["items"], self.parser["refusals"] = tuple(json.loads(items)), []  # MONAI looks into lists
        predictions = Path(self.scratch.name) / "predictions.json"
        predictions.unlink(missing_ok=True)
        try:
            self.parser.get_parsed_content("run")
        except Exception:
            if not predictions.is_file():  # where it is there, all images of this part are unreadable
                raise
        found = json.loads(predictions.read_text())
        failures = [{"source": item["file"], "failure": item["reason"]} for item in found["failures"]]
        records = [{**image, "probabilities": list(image["probabilities"].items())} for image in found["images"]]
        with atomic_path(part_file(self.output_dir, int(number))) as partial:
            pq.write_table(pa.Table.from_pylist([*records, *failures], SCHEMA), partial)
        return {"part": [number], "images": [len(records)], "failures": [len(failures)]}


def part_file(output_dir: Path, number: int) -> Path:
    """Return the file of a part."""
    return output_dir / f"part-{number:06d}.parquet"


def run_state(output_dir: Path, items: list[dict], settings: dict[str, Any], per_part: int) -> str:
    """Keep what the run is made of beside its parts, refuse to mix it with another, and return the secret of both."""
    words = [[(item["image"], item["key"]) for item in items], settings, per_part, SCHEMA.names]
    digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()
    file = output_dir / "_run.json"  # readers of Parquet folders pass such names by
    if not file.is_file():
        with atomic_path(file) as partial:
            partial.touch(mode=0o600)  # with the secret, pseudonyms of guessed patient numbers can be recognized
            partial.write_text(json.dumps({"digest": digest, "secret": secrets.token_hex(16)}))
    state = json.loads(file.read_text())
    if state["digest"] != digest:
        raise SystemExit(f"error: '{output_dir}' holds scores of other images or settings; take another folder.")
    return state["secret"]


def score(args: argparse.Namespace) -> None:
    """List the images, share the missing parts between the workers, and report."""
    import ray

    try:
        settings = {key: typed_value(key, value) for key, _, value in (text.partition("=") for text in args.settings)}
        settings["input"] = os.path.abspath(args.input)
        parser = workflow_of(args.args_file, settings).parser
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    found, refusals = find_images(args.input)
    items = [{name: item[name] for name in ("image", "key")} for item in found]  # workers read pseudonyms themselves
    per_part = args.batches * int(parser.get_parsed_content("batch_size"))
    weights = parser.get_parsed_content("weights_sha256")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    settings["secret"] = run_state(args.output_dir, items, {**settings, "weights": weights}, per_part)
    starts = range(0, len(items), per_part)
    todo = [i for i in range(len(starts)) if not part_file(args.output_dir, i).is_file()]
    print(f"{len(items)} images in {len(starts)} parts, {len(todo)} to do; {len(refusals)} other files")
    for refusal in refusals:
        print(f"no image: {refusal.source.name}: {refusal.reason}")
    if not todo:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray sends statistics home otherwise
    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    # a machine on its own starts the wanted workers, however many cores it has, and no web page
    alone = {"num_cpus": args.workers, "include_dashboard": False} if args.address is None else {}
    ray.init(args.address, runtime_env=environment, **alone)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"part": i, "items": json.dumps(items[starts[i] : starts[i] + per_part])} for i in todo]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Scorer,
        fn_constructor_args=(os.path.abspath(args.args_file), settings, str(args.output_dir.resolve())),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=args.workers),
        num_cpus=1,
        num_gpus=args.gpus,
    )
    for row in done.iter_rows():
        print(f"part {row['part']}: {row['images']} images, {row['failures']} failures", flush=True)


def main() -> None:
    """Parse the command line and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="KEY=VALUE of the configuration, such as model_dir=MODEL")
    parser.add_argument("--args_file", required=True, help="a configs/args_<family>_inference.yaml")
    parser.add_argument("--input", required=True, help="file, folder or pattern")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the Parquet files, shared by all")
    parser.add_argument("--workers", type=int, default=2, help="processes that hold the network, default 2")
    parser.add_argument("--gpus", type=float, default=0, help="of each worker, such as 1 or 0.5; default 0")
    parser.add_argument("--batches", type=int, default=10, help="of batch_size images in a part, default 10")
    parser.add_argument("--address", help="of a running Ray cluster, such as 'auto'; default: this machine alone")
    score(parser.parse_args())


if __name__ == "__main__":
    main()
