"""Compiles real models with the vendor's toolkit by every way, and prints how each comes out on its own simulator.

`RKNN_TUI_TOOLKIT=PYTHON python -m tests.end_to_end.compile_table [MODEL ...] [--target CHIP] [--after auto|tune]`
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engine.compiler.results import CompileSummary, WayScore
from engine.config import Config
from engine.session import Session
from engine.text_tables import table
from engine.tuning.search import Wish
from tests.end_to_end.zoo_models import ZooModel
from tests.zoo import FOLDER

TARGETS = ("rk3588", "rk3566")
AFTER = ("auto", "tune")
_LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJ 0123456789"
WISH = Wish(cosine=0.9999, cost=0.3)
"""More than `auto` reaches alone, for at most so much more time."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A model of the zoo and how images become its inputs, as its meta.json says in words.

    It is given so many photos of the zoo besides its own reference input; with `words`, where it looks for text, with
    lines of text written on them.
    """

    name: str
    folder: str
    mean: float
    std: float
    bgr: bool
    photos: int = 15
    words: bool = False

    @property
    def model(self) -> ZooModel:
        """The model's folder."""
        return ZooModel("onnx", FOLDER / "onnx" / self.folder)


CASES = (
    Case("cls", "ch_ppocr_mobile_v2.0_cls_infer", 127.5, 127.5, True),
    Case("ultraface", "ultraface_slim320", 127.0, 128.0, False),
    Case("det", "ch_PP-OCRv4_det_infer", 127.5, 127.5, True, 7, True),
)


def write_dataset(case: Case, folder: Path) -> Path:
    """A dataset file of the model's reference input, as an image would be, and photos."""
    (array,) = case.model.fed.values()
    own = folder / f"{case.name}.npy"
    pixels = np.rint(array * case.std + case.mean).astype(np.float32)
    np.save(own, np.moveaxis(pixels, 1, 3))
    files = [own, *sorted((FOLDER / "photos").glob("*.jpg"))[: case.photos]]
    if case.words:
        files[1:] = [_with_words(file, folder / f"{file.stem}.png", index) for index, file in enumerate(files[1:])]
    path = folder / f"{case.name}.txt"
    path.write_text("".join(f"{file}\n" for file in files))
    return path


def _with_words(photo: Path, path: Path, seed: int) -> Path:
    """A copy of a photo with lines of text on it, of several sizes and colours."""
    generator = np.random.default_rng(seed)
    image = Image.open(photo).convert("RGB")
    draw = ImageDraw.Draw(image)
    for line in range(6):
        size, shade = int(generator.integers(18, 44)), int(generator.integers(0, 2)) * 255
        place = (int(generator.integers(5, 120)), 15 + line * 75)
        text = "".join(generator.choice(list(_LETTERS), size=int(generator.integers(6, 16))))
        draw.text(place, text, fill=(shade, shade, shade), font=ImageFont.load_default(size))
    image.save(path)
    return path


def session_of(case: Case, target: str, dataset: Path, after: str) -> Session:
    """A session with the model built with `auto`, and what `tune` finds on top where asked for."""
    config = Config(
        target_platform=target,
        mean_values=((case.mean,) * 3,),
        std_values=((case.std,) * 3,),
        quant_img_RGB2BGR=(case.bgr,),
        quantized_algorithm="auto",
    )
    session = Session(config)
    case.model.load(session)
    session.build(dataset=dataset)
    if after == "tune":
        report = session.tune(dataset, wish=WISH)
        if report.chosen >= 0:
            session.take()
    return session


def compiled(case: Case, target: str, after: str, folder: Path) -> CompileSummary:
    """The model compiled by the best way, all ways measured."""
    dataset = write_dataset(case, folder)
    session = session_of(case, target, dataset, after)
    output = folder / f"{case.name}.{target}.rknn"
    return session.compile(output, dataset, analysis=False)


def row(case: Case, target: str, after: str, summary: CompileSummary, seconds: float) -> tuple[str, ...]:
    """A line of the table."""
    found = {score.way: score for score in summary.ways}
    cells = [_cell(found.get(way)) for way in ("default", "corrected", "cfg", "qdq")]
    return (case.name, target, after, *cells, summary.way, f"{summary.seconds:.0f}", f"{seconds:.0f}")


def _cell(score: WayScore | None) -> str:
    if score is None:
        return "-"
    if score.problem or score.cosine is None:
        return score.problem[-60:] or "-"
    return f"{score.cosine:.6f} {score.noise:.1e}"


def main(words: Sequence[str] | None = None) -> None:
    """Print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--target", action="append")
    parser.add_argument("--after", action="append", choices=AFTER)
    arguments = parser.parse_args(words)
    heads = ("model", "target", "after", "default", "corrected", "cfg", "qdq", "taken", "compile s", "in all s")
    rows = []
    for case in CASES:
        for target in arguments.target or TARGETS if case.name in arguments.models else ():
            for after in arguments.after or AFTER:
                begun = time.perf_counter()
                with tempfile.TemporaryDirectory() as folder:
                    summary = compiled(case, target, after, Path(folder))
                rows.append(row(case, target, after, summary, time.perf_counter() - begun))
                print("  ".join(rows[-1]), flush=True)
    print(f"\n{table(heads, rows)}\n\nEach cell: cosine of the worst output, and noise before its closing activation.")


if __name__ == "__main__":
    main()
