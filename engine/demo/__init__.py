"""The bundled demo: a small digit classifier that int8 hurts, with images to calibrate and to test it on.

`train.py` made all of it and explains the network. The model takes 'image', float32 [1, 1, 24, 24], a grey picture with
white ink on black after (pixel - MEAN) / STD, and gives 'probabilities' [1, 10] of the digits 0 to 9.

The images are samples of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak (1998), UCI Machine
Learning Repository, https://doi.org/10.24432/C50P49, licensed under CC BY 4.0
(https://creativecommons.org/licenses/by/4.0/), as distributed with scikit-learn. Changes: grey levels stretched from
0..16 to 0..255, enlarged from 8x8 to 24x24 pixels, stored as PNG. A file's name gives its use, its row in
scikit-learn's `load_digits`, and its label.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MODEL = FOLDER / "digits.onnx"
DATASET = FOLDER / "dataset.txt"
"""The calibration images, one path a line, relative to this file's own folder."""
IMAGES = FOLDER / "images"

MEAN = (0.0,)
STD = (255.0,)
"""One value a channel, as `mean_values` and `std_values` want them."""


def image_name(role: str, row: int, label: int) -> str:
    """The file name of an image: its role 'calibration' or 'test', its row in the source, its label 0 to 9."""
    return f"{role}-{row:04d}-is-{label}.png"


def test_samples() -> list[tuple[Path, int]]:
    """The 64 test images, never trained or calibrated on, each with its label 0 to 9, in the order of their names."""
    return [(path, int(path.stem.rpartition("-")[2])) for path in sorted(IMAGES.glob("test-*.png"))]
