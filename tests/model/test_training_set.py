# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from bundle.model import VerdictGated, check_one_kind, describe_training_set
from bundle.model.recalibrate import _check_kind, _Seen
from bundle.model.training_set import LEAST_LIMIT, distance_of, outside_reason
from bundle.model.typicality import cells_of, typical_distance

META = {
    "modality": "DX",
    "view_position": "PA",
    "source_size": np.array([200, 160]),
    "display_spread": 0.8,
    "color_share": 0.0,
    "filename_or_obj": "a.dcm",
}


def item(**meta) -> dict:
    return {"image": MetaTensor(torch.zeros(3, 4, 4), meta={**META, **meta})}


def trained_on(*items: dict, cells: torch.Tensor | None = None) -> dict:
    return describe_training_set(items, "0" * 64, cells)


class TestTrainingSet(unittest.TestCase):
    def test_counts_and_ranges_by_hand(self):
        found = trained_on(item(), item(modality="CR", view_position="", source_size=[100, 300]))
        self.assertEqual(found["modalities"], {"radiograph": 2})
        self.assertEqual(found["views"], {"": 1, "PA": 1})
        self.assertEqual((found["rows"], found["columns"]), ([100, 200], [160, 300]))
        self.assertEqual(found["aspects"], [0.8, 3.0])
        self.assertIsNone(found["features"])

    def test_why_an_image_is_outside(self):
        known = trained_on(item(), item())
        for meta, reason in (
            ({}, ""),
            ({"modality": "CR"}, ""),  # computed and digital radiography are one kind
            ({"modality": "", "view_position": ""}, ""),  # a PNG states neither
            ({"modality": "CT"}, r"modality must be one the model was trained on \(radiograph\), got CT"),
            ({"view_position": "LL"}, r"view must be one the model was trained on \(PA\), got LL"),
            ({"color_share": 0.5}, r"photometric kind must be one .*\(gray\), got color"),
            ({"display_note": "shape IDENTITY contradicts MONOCHROME1"}, "what is bright must be stated"),
            ({"display_note": "window of width 0 not applied"}, ""),
            ({"display_spread": 0.0}, "display values must spread over at least 0.02, got 0.000"),
            ({"source_size": [79, 100]}, "rows and columns must be at least 80, half of the smallest .*, got 79"),
            ({"source_size": [4000, 3200]}, ""),  # more pixels of the same picture
            ({"source_size": [200, 400]}, r"columns / rows must be in \[0.40, 1.60\], .* got 2.00"),
        ):
            with self.subTest(meta=meta):
                self.assertRegex(outside_reason(known, {**META, **meta}), f"^{reason}{'' if reason else '$'}")

    def test_what_training_did_not_know_is_not_compared(self):
        known = trained_on(item(modality="", view_position=""), item(modality="", view_position=""), item())
        self.assertEqual(outside_reason(known, {**META, "modality": "US", "view_position": "AP"}), "")

    def test_what_is_said_of_files_that_state_nothing(self):
        blank = {"modality": "", "view_position": ""}
        known = describe_training_set([item(**blank), item(**blank)], "0" * 64, modality="DX", view="PA")
        self.assertEqual((known["modalities"], known["views"]), ({"radiograph": 2}, {"PA": 2}))
        self.assertEqual(outside_reason(known, {**META, **blank}), "")
        self.assertRegex(outside_reason(known, {**META, "view_position": "AP"}), "view must be .* got AP")
        self.assertRegex(outside_reason(known, {**META, "modality": "US"}), "modality must be .* got US")
        check_one_kind([item(), item(**blank)], modality="CR")
        with self.assertRaisesRegex(ValueError, "must be of one modality, found 1 radiograph, 1 US"):
            check_one_kind([item(), item(**blank)], modality="US")
        for words in ({"modality": "dx"}, {"view": "from the front"}, {"modality": 3}):
            with self.assertRaisesRegex(ValueError, "must be a word of DICOM such as .*, in capitals, got"):
                check_one_kind([item()], **words)

    def test_mixed_training_is_refused_unless_asked_for(self):
        for other, message in (
            ({"modality": "MR"}, "must be of one modality, found 2 radiograph, 1 MR"),
            ({"color_share": 0.9}, "must be of one photometric kind, found 2 gray, 1 color"),
        ):
            items = [item(), item(modality="CR"), item(**other)]
            with self.assertRaisesRegex(ValueError, message):
                check_one_kind(items)
            check_one_kind(items, mixed_training=True)
        check_one_kind([item(), item(modality="")])
        with self.assertRaisesRegex(ValueError, "mixed_training must be True or False, spelled so, got 'true'"):
            check_one_kind([item()], "true")  # type: ignore[arg-type]

    def test_a_finding_stays_inside_and_another_kind_of_picture_does_not(self):
        generator = torch.Generator().manual_seed(0)
        cells = torch.randn(40, 16, 32, generator=generator)
        known = trained_on(item(), cells=cells)
        like, finding, other = (torch.randn(1, 16, 32, generator=generator) for _ in range(3))
        finding[:, :10] += 20  # ten of sixteen cells are unlike any training image
        other += 20
        self.assertEqual(known["features"]["limit"], LEAST_LIMIT)
        reasons = [outside_reason(known, META, float(distance_of(known, x))) for x in (like, finding, other)]
        self.assertEqual(reasons[:2], ["", ""])
        self.assertRegex(
            reasons[2], "features must be within 1.45 of the training images', got .*another kind of picture"
        )
        self.assertNotEqual(outside_reason(known, META, float("nan")), "")

    def test_another_kind_of_picture_recalibrates_nothing(self):
        generator = torch.Generator().manual_seed(0)
        known = trained_on(item(), cells=torch.randn(40, 16, 8, generator=generator))
        for shift, number in ((0.0, 0), (20.0, 6)):
            cells = torch.randn(10, 16, 8, generator=generator)
            cells[:6] += shift
            seen = _Seen(items=[item()] * 10, cells=list(cells))
            with self.subTest(shift=shift):
                if not number:
                    _check_kind(known, seen, Path("films"))
                    continue
                with self.assertRaisesRegex(ValueError, f"{number} of 10 images of 'films' are another kind"):
                    _check_kind(known, seen, Path("films"))

    def test_the_quartile_of_the_cells_by_hand(self):
        cells = torch.arange(16.0)[None, :, None].expand(1, 16, 2)  # cell i is i deviations off in both channels
        self.assertEqual(typical_distance(cells, torch.zeros(16, 2), torch.ones(16, 2)).item(), 15 * 0.25)

    def test_cells_are_means_of_the_quarters_of_each_side(self):
        features = torch.arange(64.0).view(1, 1, 8, 8)
        self.assertEqual(cells_of(features)[0, 0, 0].item(), (0 + 1 + 8 + 9) / 4)
        self.assertIsNone(cells_of(torch.zeros(1, 1, 6, 8)))  # too small for cells of their own

    def test_the_verdict_goes_and_score_and_map_stay(self):
        verdict = {"abnormal": True, "p_value": 0.01, "boxes": [1], "anomaly_score": 3.0, "heatmap": 1}
        out = VerdictGated(trained_on(item()))({**item(modality="CT"), **verdict})
        self.assertRegex(out["not_assessed"], "got CT")
        self.assertEqual((out["abnormal"], out["p_value"], out["boxes"]), (None, None, []))
        self.assertEqual((out["anomaly_score"], out["heatmap"]), (3.0, 1))
        out = VerdictGated(None)({**item(display_spread=0.001), **verdict})
        self.assertRegex(out["not_assessed"], "almost one value")
        self.assertNotIn("not_assessed", VerdictGated(None)({**item(modality="CT"), **verdict}))


if __name__ == "__main__":
    unittest.main()
