# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Write the label table (path, patient, split, classes) of a data set that the bundle knows."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from bundle.data.boxes import mining_table, read_chestxray14_boxes
from bundle.data.chestxray14 import CHESTXRAY14_CLASSES, chestxray14_table
from bundle.data.image_folders import image_folder_table
from bundle.data.label_table import write_label_table
from bundle.data.splits import cross_validation_splits
from bundle.data.vindr import VINDR_CLASSES, vindr_table


def main() -> None:
    """Parse the arguments, write the table and print its counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=["covid19_xray", "brainmri", "folders", "vindr", "chestxray14"])
    parser.add_argument("source", type=Path, help="image folder (covid19_xray, brainmri, folders) or annotation CSV")
    parser.add_argument("output", type=Path, help="CSV file to write")
    parser.add_argument("--test_list", type=Path, help="chestxray14: the official test_list.txt")
    parser.add_argument("--boxes", type=Path, help="chestxray14: BBox_List_2017.csv, to mine the annotated images")
    parser.add_argument("--min_readers", type=int, default=2, help="vindr: readers who must agree")
    parser.add_argument("--num_folds", type=int, default=0, help="write a table for every round of a cross-validation")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.dataset == "vindr":
        classes, rows = VINDR_CLASSES, vindr_table(args.source, args.min_readers, seed=args.seed)
    elif args.dataset == "chestxray14":
        classes, rows = CHESTXRAY14_CLASSES, chestxray14_table(args.source, args.test_list, seed=args.seed)
        if args.boxes is not None:
            rows = mining_table(rows, read_chestxray14_boxes(args.boxes))
    elif args.dataset == "covid19_xray":
        classes = ("normal", "pneumonia")
        train = {"normal": "train/NORMAL", "pneumonia": "train/PNEUMONIA"}
        test = {"normal": "test/NORMAL", "pneumonia": "test/PNEUMONIA"}
        rows = image_folder_table(args.source, train, test, ("train",) * 4 + ("val",), args.seed)
    elif args.dataset == "brainmri":
        classes = ("normal", "tumor")
        rows = image_folder_table(args.source, {"normal": "no", "tumor": "yes"}, seed=args.seed)
    else:
        classes = tuple(sorted(p.name for p in args.source.iterdir() if p.is_dir()))
        rows = image_folder_table(args.source, {c: c for c in classes}, seed=args.seed)
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
