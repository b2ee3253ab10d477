# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import numpy as np
from PIL import Image

from bundle.results.overlays import draw_boxes, heat_layer, image_layer, overlay_picture, write_overlay
from bundle.results.records import Box, ImageResult


class TestOverlays(unittest.TestCase):
    def test_image_values(self):
        picture = image_layer(np.array([[0.0, 0.5, 1.0], [-1.0, 2.0, np.nan]]))
        np.testing.assert_array_equal(np.asarray(picture)[..., 0], [[0, 128, 255], [0, 255, 0]])

    def test_heat_range_is_fixed(self):
        # the same value has the same color whatever else is in the map
        one = np.asarray(heat_layer(np.array([[0.5, 0.0]]), (0.0, 1.0)))[0, 0]
        two = np.asarray(heat_layer(np.array([[0.5, 9.0]]), (0.0, 1.0)))[0, 0]
        np.testing.assert_array_equal(one, two)

    def test_no_heat_shows_the_image(self):
        image = np.random.default_rng(0).random((5, 7, 3)).astype(np.float32)
        result = ImageResult("a", Path("a"), image=image, heatmap=np.zeros((5, 7)))
        np.testing.assert_array_equal(np.asarray(overlay_picture(result, (0, 1))), np.asarray(image_layer(image)))

    def test_hot_pixel_lies_where_it_is(self):
        heat = np.zeros((6, 9))
        heat[4, 2] = 1
        colored = np.asarray(overlay_picture(ImageResult("a", Path("a"), heatmap=heat), (0, 1))).sum(axis=2)
        self.assertEqual(np.argwhere(colored > 0).tolist(), [[4, 2]])

    def test_box_is_drawn_inside_its_edges(self):
        picture = Image.new("RGB", (60, 40))
        draw_boxes(picture, [Box("x", 10, 20, 30, 10, 0.5)])
        drawn = np.asarray(picture).copy()
        drawn[:20] = 0  # the words above
        rows, columns = np.nonzero(drawn.sum(axis=2))
        self.assertEqual((rows.min(), rows.max(), columns.min(), columns.max()), (20, 29, 10, 39))

    def test_the_height_of_a_map_is_not_printed(self):
        pictures = []
        for height in (0.01, 0.99):
            picture = Image.new("RGB", (120, 90))
            draw_boxes(picture, [Box("mass", 10, 40, 60, 30, height)])
            pictures.append(np.asarray(picture))
        np.testing.assert_array_equal(*pictures)

    def test_what_was_not_looked_at_has_no_color_and_lies_outside_of_a_frame(self):
        heat = np.full((200, 300), 1.0)
        heat[:, :100] = np.nan
        layer = np.asarray(heat_layer(heat, (0, 1)))
        self.assertEqual((layer[:, :100, 3].max(), layer[:, 100:, 3].min()), (0, 255))
        result = ImageResult("a", Path("a"), image=np.zeros((200, 300)), heatmap=heat, seen=(100, 20, 150, 160))
        drawn = (np.asarray(overlay_picture(result, (0, 1))) == (124, 252, 0)).all(axis=2)
        drawn[:20] = False  # the words in the corner
        rows, columns = np.nonzero(drawn)
        self.assertEqual((rows.min(), rows.max(), columns.min(), columns.max()), (20, 179, 100, 249))

    def test_a_picture_says_that_its_image_is_not_assessed(self):
        image = np.zeros((80, 400))
        plain = ImageResult("a", Path("a"), image=image)
        marked = ImageResult("a", Path("a"), image=image, not_assessed="values must differ, all are 7.")
        difference = np.asarray(overlay_picture(plain, (0, 1))) != np.asarray(overlay_picture(marked, (0, 1)))
        rows, columns = np.nonzero(difference.any(axis=2))
        self.assertTrue(len(rows) > 100 and rows.max() < 30 and columns.max() < 400)

    def test_file_keeps_the_grid(self):
        result = ImageResult("a", Path("a"), image=np.zeros((40, 90)), heatmap=np.ones((40, 90)))
        with tempfile.TemporaryDirectory() as folder:
            write_overlay(Path(folder) / "a.png", result, (0, 1))
            with Image.open(Path(folder) / "a.png") as picture:
                self.assertEqual((picture.size, picture.info), ((90, 40), {}))

    def test_bad_input(self):
        with self.assertRaisesRegex(ValueError, r"image must have shape .* got \(2, 3, 4\)"):
            image_layer(np.zeros((2, 3, 4)))
        with self.assertRaisesRegex(ValueError, r"heatmap must have shape \(rows, columns\), got \(1, 2, 3\)"):
            heat_layer(np.zeros((1, 2, 3)), (0, 1))
        with self.assertRaisesRegex(ValueError, r"the lower first, got \(1.0, 1.0\)"):
            heat_layer(np.zeros((2, 3)), (1, 1))
        with self.assertRaisesRegex(ValueError, "got neither"):
            overlay_picture(ImageResult("a", Path("a")), (0, 1))
        with self.assertRaisesRegex(ValueError, r"image's \(2, 3\) pixels, got \(3, 2\)"):
            overlay_picture(ImageResult("a", Path("a"), image=np.zeros((2, 3)), heatmap=np.zeros((3, 2))), (0, 1))
