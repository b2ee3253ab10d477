# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Make the picture of a shipped model's card: all films of the demo patients, hits and misses.

    python scripts/studies/card_pictures.py chest_xray_findings
    python scripts/studies/card_pictures.py one_film

The second makes README.md's picture, one film as three models answer it, ``docs/pictures/one_film.jpg``. The first
makes ``models/NAME/demo_films.jpg``: each film has the model's heat and boxes over it, and below it NIH's labels
and the model's answer. A picture has under 150 KB. Research use only.
"""

from __future__ import annotations

import argparse
import csv
import sys
import textwrap
from pathlib import Path

import pydicom
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.files import atomic_path  # noqa: E402
from bundle.model import load_model  # noqa: E402
from bundle.results.overlays import image_layer, overlay_picture  # noqa: E402
from bundle.results.records import ImageResult  # noqa: E402
from bundle.results.writer import heat_range_of  # noqa: E402

SIDE, WORDS, COLUMNS, LIMIT = 240, 76, 5, 150_000  # pixels of a film and of the lines below it, films a row, bytes
SOURCE = "NIH ChestX-ray14, provided by the NIH Clinical Center; Wang et al., CVPR 2017. Research use only."


def labels_of_films(path: Path = ROOT / "models/demo_patients.csv") -> dict[str, str]:
    """Return what NIH's labels say, by the name of the film without its ending."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    findings = list(rows[0])[list(rows[0]).index("no_finding") + 1 :]
    named = {Path(row["image"]).stem: [name for name in findings if row[name] == "1"] for row in rows}
    return {film: ", ".join(names) or "no finding" for film, names in named.items()}


def answer_of(result: ImageResult) -> str:
    """Return the model's verdict in a line or two."""
    if result.verdict != "abnormal" or not result.present_findings:
        return result.verdict + (f", p {result.p_value:.2f}" if result.p_value is not None else "")
    count = len(result.present_findings)
    return f"{count} finding{'s' * (count > 1)}: " + ", ".join(result.present_findings)


def cell(result: ImageResult, label: str, heat_range: tuple[float, float]) -> Image.Image:
    """Return a film with its heat, and the lines below it."""
    picture = Image.new("RGB", (SIDE, SIDE + WORDS), "white")
    picture.paste(overlay_picture(result, heat_range).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (0, 0))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=11)
    lines = [line for text in (f"NIH: {label}", f"Model: {answer_of(result)}") for line in textwrap.wrap(text, 44)]
    for number, line in enumerate(lines[: WORDS // 13]):
        pen.text((3, SIDE + 2 + 13 * number), line, fill="black", font=font)
    return picture


def sheet(name: str) -> Image.Image:
    """Return the films of the demo patients as a model answers them."""
    model, labels = load_model(name, "cpu"), labels_of_films()
    heat_range = heat_range_of(model.setting("calibration"), None)
    results = {path.stem: model.predict(path) for path in sorted((ROOT / "models/demo_films").glob("*.dcm"))}
    rows = -(-len(results) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * SIDE, rows * (SIDE + WORDS) + 16), "white")
    for number, (film, result) in enumerate(results.items()):
        corner = (number % COLUMNS * SIDE, number // COLUMNS * (SIDE + WORDS))
        page.paste(cell(result, labels[film], heat_range), corner)
    ImageDraw.Draw(page).text((3, page.height - 15), SOURCE, fill="black", font=ImageFont.load_default(size=11))
    return page


def strip(film: str = "00019013_002") -> Image.Image:
    """Return one film beside what three shipped models say of it."""
    path, side = ROOT / f"models/demo_films/{film}.dcm", 300
    names = {"chest_xray_anomaly": "Anomaly", "chest_xray_findings": "Findings", "chest_xray_localization": "Places"}
    page = Image.new("RGB", (4 * side, side + 62), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=12)
    for number, name in enumerate(["", *names]):
        words = f"Film, NIH's labels: {labels_of_films()[film]}"
        if name:
            model = load_model(name, "cpu")
            result = model.predict(path)
            picture = overlay_picture(result, heat_range_of(model.setting("calibration"), None))
            words = f"{names[name]}: {answer_of(result)}"
        else:
            picture = image_layer(pydicom.dcmread(path).pixel_array / 255.0)
        page.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (number * side, 0))
        for line, text in enumerate(textwrap.wrap(words, 48)):
            pen.text((number * side + 3, side + 2 + 14 * line), text, fill="black", font=font)
    pen.text((3, page.height - 16), SOURCE, fill="black", font=ImageFont.load_default(size=11))
    return page


def main() -> None:
    """Parse the command line and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a model of models/models.yaml for chest films, or one_film")
    args = parser.parse_args()
    one = args.name == "one_film"
    page = strip() if one else sheet(args.name)
    path = ROOT / ("docs/pictures/one_film.jpg" if one else f"models/{args.name}/demo_films.jpg")
    path.parent.mkdir(exist_ok=True)
    for quality in range(90, 40, -10):
        with atomic_path(path) as partial:
            page.save(partial, format="JPEG", quality=quality, optimize=True)
        if path.stat().st_size <= LIMIT:
            break
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
