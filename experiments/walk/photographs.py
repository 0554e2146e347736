"""Draws three hundred JPEGs of three classes, of many sizes: python photographs.py FOLDER."""

import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw

EACH = 100


def main(folder: pathlib.Path) -> None:
    """Writes FOLDER/CLASS/000.jpg and so on."""
    rng = np.random.default_rng(0)
    for shape in ("ball", "box", "line"):
        (folder / shape).mkdir(parents=True)
        for n in range(EACH):
            width, height = rng.integers(40, 90, 2).tolist()
            image = Image.new("RGB", (width, height), tuple(rng.integers(0, 120, 3).tolist()))
            draw, colour = ImageDraw.Draw(image), tuple(rng.integers(130, 256, 3).tolist())
            left, top = rng.integers(2, 14, 2).tolist()
            box = (left, top, left + 26, top + 26)
            if shape == "ball":
                draw.ellipse(box, fill=colour)
            elif shape == "box":
                draw.rectangle(box, fill=colour)
            else:
                draw.line(box, fill=colour, width=5)
            image.save(folder / shape / f"{n:03}.jpg")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
