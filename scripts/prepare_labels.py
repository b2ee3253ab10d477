# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Write the label table (image, patient, split, classes) of a data set as it was downloaded.

Near copies of one picture stay in one split; they are listed in near_copies.csv beside the table.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from bundle.lists.boxes import mining_table, read_chestxray14_boxes
from bundle.lists.known_sets.chestxray14 import CHESTXRAY14_CLASSES, chestxray14_table
from bundle.lists.known_sets.image_folders import class_folders_of, collection_rows, folder_classes
from bundle.lists.known_sets.layouts import LAYOUTS, Collection, find_layout
from bundle.lists.known_sets.vindr import vindr_classes, vindr_folder, vindr_table
from bundle.lists.splits import cross_validation_splits
from bundle.lists.table import write_label_table

KNOWN = ("brainmri", "busi", "chestxray14", "covid19", "covidx", "kermany", "sipakmed", "vindr")
OWN = {
    "chestxray14": ("training",) * 6 + ("validation", "test"),
    "vindr": ("training",) * 7 + ("validation",) + ("test",) * 2,
}


def read_collection(args: argparse.Namespace) -> tuple[str, Collection]:
    """Return the name of the data set in a folder, and what the folder holds."""
    name, folder = {"covid19_xray": "covid19"}.get(args.dataset, args.dataset), args.source
    if name == "folders":
        return name, class_folders_of(folder, folder_classes(folder))
    found, inner = find_layout(folder)
    if found == "flat" or (name != "auto" and name != found and {name, found} != {"covid19", "kermany"}):
        looks = "no data set that is known" if found == "flat" else f"'{found}'"
        expected = f"the data set '{name}'" if name != "auto" else f"one of {', '.join(KNOWN)}"
        raise ValueError(f"'{folder.name}' must hold {expected} as it was downloaded, it looks like {looks}.")
    if found == "vindr":
        classes, items = vindr_folder(inner, args.min_readers)
        return found, Collection(items, classes, None)
    return found, LAYOUTS[found][1](inner)


def read_rows_of(args: argparse.Namespace) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Return the classes and the rows of the table."""
    if args.source.is_dir():
        name, collection = read_collection(args)
        grouped = args.group_pictures == "True"
        copies = args.output.with_name("near_copies.csv") if grouped else ""
        parts = OWN.get(name, ("training",) * 3 + ("validation", "test"))
        if any(item["split"] == "test" for item in collection.items):
            parts = ("training",) * (7 if name in OWN else 4) + ("validation",)
        rows = collection_rows(collection, args.source, parts, args.seed, grouped, copies)
        classes = collection.classes
    elif args.dataset in ("vindr", "chestxray14"):
        print("only the list is at hand, not the images: near copies are not looked for; give the folder instead")
        if args.dataset == "vindr":
            return vindr_classes(args.source), vindr_table(args.source, args.min_readers, seed=args.seed)
        classes, rows = CHESTXRAY14_CLASSES, chestxray14_table(args.source, args.test_list, seed=args.seed)
    else:
        raise ValueError(f"source must be the folder of the data set, got '{args.source}'.")
    if args.boxes is not None:
        rows = mining_table(rows, read_chestxray14_boxes(args.boxes))
    return classes, rows


def main() -> None:
    """Parse the arguments, write the table and print its counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "dataset", choices=["auto", *KNOWN, "covid19_xray", "folders"], help="folders: one folder a class, any names"
    )
    parser.add_argument("source", type=Path, help="folder as downloaded; for vindr and chestxray14 also the list alone")
    parser.add_argument("output", type=Path, help="CSV file to write")
    parser.add_argument("--test_list", type=Path, help="chestxray14 without its folder: the official test_list.txt")
    parser.add_argument("--boxes", type=Path, help="chestxray14: BBox_List_2017.csv, to mine the annotated images")
    parser.add_argument("--min_readers", type=int, default=2, help="vindr: readers who must agree")
    parser.add_argument("--num_folds", type=int, default=0, help="write a table for every round of a cross-validation")
    parser.add_argument("--group_pictures", choices=["True", "False"], default="True", help="look for near copies")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        write(args, *read_rows_of(args))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def write(args: argparse.Namespace, classes: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Write the table, and those of a cross-validation, and print the counts."""
    if args.num_folds:
        labels, patients = [row["label"] for row in rows], [row["patient"] for row in rows]
        for i, splits in enumerate(cross_validation_splits(labels, patients, args.num_folds, args.seed)):
            table = [{**row, "split": split} for row, split in zip(rows, splits, strict=True)]
            write_label_table(table, args.output.with_suffix(f".fold{i}.csv"), classes)
    write_label_table(rows, args.output, classes)
    print(f"{args.output}: {len(rows)} images, {dict(Counter(row['split'] for row in rows))}")
    for k, name in enumerate(classes):
        print(f"  {name}: {dict(Counter(row['split'] for row in rows if row['label'][k]))}")


if __name__ == "__main__":
    main()
