# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import tempfile
import unittest
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from bundle.results.records import NOTICE, Algorithm, Box, ImageResult
from bundle.results.report.charts import histogram_svg, roc_svg
from bundle.results.report.page import ReportFacts, pictures_of, render_report, select_cards
from bundle.results.tables import record_of

VOID = {"meta", "img", "input", "line", "rect", "circle", "br"}


class Balance(HTMLParser):
    """Collects tags that are closed in the wrong order, and every address in the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in {"src", "href", "xlink:href", "action"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in VOID and self.open.pop() != tag:
            self.wrong.append(tag)


def report_of(results: list[ImageResult], **facts) -> str:
    with tempfile.TemporaryDirectory() as folder:
        records = [record_of(result) for result in results]
        path, heat_range = Path(folder) / "report.html", (0.0, 2.0)
        render_report(records, lambda index: pictures_of(results[index], heat_range), path, ReportFacts(**facts))
        return (Path(folder) / "report.html").read_text(encoding="utf-8")


def some_results(count: int) -> list[ImageResult]:
    return [
        ImageResult(
            key=f"{index:06d}",
            source=Path(f"/data/{index}.png"),
            subject="5f3a",
            label=index % 2,
            anomaly_score=float(index),
            p_value=0.5,
            abnormal=index > 2,
            image=np.full((8, 12), 0.5),
            heatmap=np.ones((8, 12)),
            boxes=[Box("finding", 1, 2, 3, 4, 0.5)],
        )
        for index in range(count)
    ]


class TestReport(unittest.TestCase):
    def test_is_whole_and_alone(self):
        by_class = {"images": 6, "mean_iou": 0.25, "accuracy": {"0.1": 0.5}}
        metrics = {
            "auroc": 0.9,
            "auroc_interval": (0.8, 1.0),
            "mean_over": ["mass", "cyst"],
            "classes": {"mass": by_class},
        }
        page = report_of(
            some_results(6),
            title="Trial",
            algorithm=Algorithm("ADFA", "0.1.0", "ab" * 32),
            threshold=2.5,
            metrics=metrics,
            notes=["Synthetic images."],
            failures=[("cut.dcm", "cut off")],
            charts=[("Reliability", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), ("Photo", b"\x89PNG")],
        )
        parser = Balance()
        parser.feed(page)
        self.assertEqual((parser.open, parser.wrong), ([], []))
        self.assertTrue(all(address.startswith("data:image/") for address in parser.addresses), parser.addresses)
        self.assertNotIn("/data/", page)
        for text in (
            NOTICE,
            "Trial",
            "ADFA",
            "ab" * 32,
            "0.800 to 1.000",
            '<th scope="row">AUROC</th>',
            "mean IoU",
            "accuracy at 0.1",
            "mass, cyst",
            "Synthetic images.",
            "cut off",
            "ROC curve",
            "mass",
        ):
            self.assertIn(text, page)
        self.assertEqual(page.count("<article"), 6)
        self.assertEqual(re.findall(r'class="chip (\w+)"', page).count("wrong"), 2)  # one missed, one false alarm

    def test_not_assessed_is_counted_shown_and_can_be_chosen(self):
        results = some_results(6)
        results[1] = ImageResult(**{**vars(results[1]), "not_assessed": "values must differ, all are 7."})
        page = report_of(results, threshold=2.5)
        self.assertIn("<dt>Not assessed</dt><dd>1</dd>", page)
        self.assertIn('<option value="not-assessed">not assessed</option>', page)
        self.assertIn('<span class="chip not-assessed">not assessed</span>', page)
        self.assertIn("Not assessed: values must differ, all are 7.", page)
        # a label of 1 that is not flagged would be "missed"; without a verdict it is neither
        verdicts = re.findall(r'data-verdict="([a-z-]*)" data-outcome="([a-z-]*)"', page)
        self.assertIn(("not-assessed", ""), verdicts)
        self.assertEqual([outcome for _, outcome in verdicts].count("missed"), 0)
        self.assertNotIn("not-assessed", report_of(some_results(6)).split("</style>")[1])

    def test_not_assessed_is_drawn_among_many(self):
        results = some_results(60)
        results[0] = ImageResult(**{**vars(results[0]), "not_assessed": "too small."})  # of the lowest score
        page = report_of(results, threshold=50.0, max_cards=12)
        self.assertEqual(page.count("<article"), 12)
        self.assertIn("Not assessed: too small.", page)

    def test_what_was_looked_at_is_framed_and_notes_are_shown(self):
        (result,) = some_results(1)
        result.seen, result.display_note = (2.0, 1.0, 6.0, 5.5), "window of width 0 not applied."
        page = report_of([result])
        self.assertIn('<rect x="2.0" y="1.0" width="6.0" height="5.5"><title>outside of it', page)
        self.assertIn("Not looked at: what lies outside of columns 2 to 8 and rows 1 to 6.5.", page)
        self.assertIn("Display: window of width 0 not applied.", page)
        self.assertIn("<title>finding, height of the map 0.500</title>", page)

    def test_findings_are_present_or_absent_by_their_operating_point(self):
        result = ImageResult(
            "a",
            Path("a"),
            probabilities={"mass": 0.1, "cyst": 0.4, "other": 0.9},
            operating_points={"mass": 0.1, "cyst": 0.5},
        )
        page = report_of([result])
        self.assertIn("<span>mass <em>present</em></span>", page)
        self.assertIn("<span>cyst <em>absent</em></span>", page)
        self.assertIn("<span>other</span>", page)
        marked = ImageResult(**{**vars(result), "not_assessed": "too small."})
        self.assertNotIn("<em>", report_of([marked]))

    def test_text_stays_text(self):
        evil = "<script>alert(1)</script>\"'"
        result = ImageResult(
            evil, Path("/data/<img src=x>"), subject=evil, probabilities={evil: 0.5}, extra={evil: evil}
        )
        page = report_of(
            [result], title=evil, failures=[(evil, evil)], notes=[evil], charts=[(evil, b"")], metrics={evil: evil}
        )
        self.assertNotIn("<script>alert", page)
        self.assertNotIn("<img src=x>", page)
        self.assertEqual(page.count("<script>"), 1)

    def test_the_heatmap_says_what_it_shows(self):
        result = ImageResult("a", Path("a"), probabilities={"none": 0.9, "mass": 0.4, "cyst": 0.1})
        result.operating_points = {"mass": 0.4, "cyst": 0.5}
        for name, title in (
            ("mass", "mass"),
            ("cyst", "cyst, below its operating point"),
            ("none", "none, without an operating point"),
        ):
            result.heatmap_class = name
            self.assertIn(f"<dt>heatmap shows</dt><dd>{title}</dd>", report_of([result]))

    def test_several_maps(self):
        result = some_results(1)[0]
        result.extra_maps = {"step_1": np.zeros((8, 12)), "step_2": np.zeros((8, 12))}
        page = report_of([result])
        self.assertEqual(page.count('class="stage"'), 3)
        self.assertIn("<figcaption>step 2</figcaption>", page)

    def test_gallery_has_a_limit_and_says_so(self):
        page = report_of(some_results(9), max_cards=3, threshold=2.5)
        self.assertEqual(re.findall(r'data-score="([\d.]+)"', page), ["8.0", "7.0", "3.0"])
        self.assertIn("3 of 9 images are drawn", page)

    def test_nothing_at_all(self):
        self.assertIn("No image has a result.", report_of([]))

    def test_selection(self):
        self.assertEqual(select_cards([1, None, 3, 2], None, 3), [2, 3, 0])
        # two highest, then the one nearest to the threshold
        self.assertEqual(select_cards([0, 1, 2, 3, 4, 5], 1.1, 3), [5, 4, 1])


class TestCharts(unittest.TestCase):
    def test_roc_of_a_perfect_score(self):
        svg = roc_svg([0, 0, 1], [1.0, 2.0, 3.0], (0.0, 1.0))
        # up the left side, then along the top of the frame
        self.assertRegex(svg, r'class="curve" points="52\.0,274\.0 .*52\.0,14\.0 .*468\.0,14\.0"')
        self.assertIn('<circle class="dot" cx="52.0" cy="14.0"', svg)

    def test_roc_needs_both_classes(self):
        with self.assertRaisesRegex(ValueError, r"must hold both 0 and 1, got \[1\]"):
            roc_svg([1, 1], [0.0, 1.0])

    def test_histogram_counts_every_image(self):
        scores = [0.0, 0.0, 0.5, 1.0, 1.0]
        svg = histogram_svg(scores, [0, 0, None, 1, 1], threshold=0.7)
        self.assertEqual(
            re.findall(r"<title>(\d+) (\w+)", svg), [("2", "normal"), ("2", "abnormal"), ("1", "unlabeled")]
        )
        self.assertIn("threshold 0.7", svg)

    def test_histogram_of_one_value(self):
        self.assertIn("<title>1 normal", histogram_svg([3.0], [0]))
