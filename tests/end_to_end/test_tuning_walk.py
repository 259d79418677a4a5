"""A person repairs a real detector in a terminal, from opening it to a saved cfg, of which scripts build the same."""

from __future__ import annotations

import functools
import json
import re
import shutil
import statistics
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rknn_tui.graph.bars import digits
from tests.terminal import Terminal, real
from tests.zoo import FOLDER, needs_zoo

DETECTOR = FOLDER / "onnx" / "ch_PP-OCRv4_det_infer" / "ch_PP-OCRv4_det_infer.onnx"
PHOTOS = sorted((FOLDER / "photos").glob("*.jpg"))
MEAN = "127.5,127.5,127.5"
OPTIONS = ("--input-size", "1,3,480,480", "--mean", MEAN, "--std", MEAN, "--target", "rk3588")
TOGGLES = 10
# Layers that no search picks, so that the lines are new ones.
MENDED, ADDED = "p2o.Mul.31", "p2o.Mul.39"
COMMENT = "# float16 where the map is made: looked at by hand"
PATIENCE = 120.0
"""Seconds that a job may take on a machine that does other things as well."""
TOP, END, DOWN, LEFT = "\x1b[1;5H", "\x1b[F", "\x1b[B", "\x1b[D"
LEAVES_SCREEN, SHOWS_CURSOR = b"\x1b[?1049l", b"\x1b[?25h"

pytestmark = [
    needs_zoo,
    pytest.mark.skipif(not (DETECTOR.is_file() and PHOTOS), reason=f"no detector with photos in {FOLDER}"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the detector and a dataset file; the app writes beside them, never into the zoo."""
    shutil.copyfile(DETECTOR, tmp_path / "det.onnx")
    (tmp_path / "dataset.txt").write_text("".join(f"{photo}\n" for photo in PHOTOS))
    return tmp_path


class Walk:
    """A terminal with the app on the detector, and what a person reads on its screen."""

    def __init__(self, folder: Path, width: int, height: int) -> None:
        self.folder = folder
        command = real(folder / "det.onnx", "--dataset", folder / "dataset.txt", *OPTIONS)
        self.terminal = Terminal(command, width, height, XDG_CONFIG_HOME=str(folder), XDG_STATE_HOME=str(folder))

    # Reading

    @property
    def status(self) -> str:
        """The line at the top."""
        return self.terminal.line(0)

    @property
    def cosine(self) -> str | None:
        """The outputs' cosine as measured, five digits; None where none is shown, or an estimate."""
        found = re.search(r"cos (?:[\d.]+>)?(\d\.\d{5})(~?)", self.status)
        return found[1] if found and not found[2] else None

    @property
    def layer(self) -> str:
        """The row under the cursor."""
        rows = [row for row in self.terminal.screen.display if row.startswith("▶")]
        return rows[0] if rows else ""

    @property
    def precision(self) -> str:
        """What the layer under the cursor computes in, as its row says."""
        column = self.terminal.line(1).index("type")
        return self.layer[column : column + 4].strip()

    def row(self, name: str) -> str:
        """The layer's row, '' where it is not in sight."""
        return next((row for row in self.terminal.screen.display if f" {name} " in row[:64]), "")

    # Doing

    def press(self, keys: str) -> None:
        self.terminal.press(keys)

    def sees(self, text: str, most: float = PATIENCE) -> None:
        self.terminal.sees(text, most)

    def until(self, condition: Callable[[], object], what: str, most: float = PATIENCE) -> None:
        self.terminal.waits(condition, what, most)

    def until_measured(self, cosine: Callable[[str], bool] = lambda _: True) -> str:
        """Wait for a measured cosine that is as wanted, and return it."""
        self.until(lambda: self.cosine is not None and cosine(self.cosine), "a measured cosine")
        assert self.cosine is not None
        return self.cosine


@pytest.fixture
def walks() -> Iterator[list[Walk]]:
    begun: list[Walk] = []
    yield begun
    for walk in begun:
        walk.terminal.close()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
def test_a_detector_is_repaired_in_the_terminal_and_built_headless(
    folder: Path, walks: list[Walk], size: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    walk = Walk(folder, *size)
    walks.append(walk)
    open_the_model(walk)
    build(walk)
    built = analyse(walk)
    worst = find_the_worst_layer(walk)
    mark_it_and_its_neighbours(walk, worst)
    repaired = set_float16(walk, worst, built)
    near_the_end = toggle(walk, built, repaired)
    undo_all(walk, worst, built)
    at_the_start = toggle_the_first_layer(walk, built)
    count = tune(walk)
    step_through_candidates(walk, count, built)
    take_the_chosen_candidate(walk)
    begin_to_type(walk)
    type_a_mistake(walk)
    mend_it(walk)
    last = add_a_line(walk)
    save(walk)
    quit_in_good_order(walk)

    saved = (folder / "det.quantization.cfg").read_text()
    assert f"    {COMMENT}\n" in saved
    assert f"    {MENDED}: float16\n    {ADDED}: float16\n" in saved
    assert headless_cosine(folder) == last

    with capsys.disabled():
        print(f"\n{size[0]}x{size[1]}: from the key to the measured cosine")
        print(f"  the worst layer and its neighbours  {spread(near_the_end)}")
        print(f"  the first layer                     {spread(at_the_start)}")


def spread(milliseconds: list[float]) -> str:
    middle, low, high = statistics.median(milliseconds), min(milliseconds), max(milliseconds)
    return f"median {middle:.0f} ms, {low:.0f} to {high:.0f} ms"


# The steps


def open_the_model(walk: Walk) -> None:
    walk.sees("132 layers")
    assert "not built" in walk.status


def build(walk: Walk) -> None:
    walk.press("b")
    walk.sees(f"built int8 with {len(PHOTOS)} samples")


def analyse(walk: Walk) -> str:
    """The outputs' cosine; the trace of error sources, which begins by itself, is over."""
    walk.press("a")
    walk.sees("output cosine")
    walk.until(lambda: "error" in walk.terminal.line(1), "the shares of the error")
    walk.until(lambda: "trace" not in walk.status, "the end of the trace")
    return walk.until_measured()


def find_the_worst_layer(walk: Walk) -> str:
    walk.press("W")
    walk.sees("worst by its share of the error: 1 of 132")
    walk.until(lambda: "!" in walk.layer, "the cursor on a layer that is bad")
    return walk.layer[walk.terminal.line(1).index("layer") :].split()[0]


def mark_it_and_its_neighbours(walk: Walk, worst: str) -> None:
    walk.press("mhm")
    walk.until(lambda: worst not in walk.layer, "the cursor on the layer before")
    walk.press("llm")
    walk.sees("3 marked")
    assert sum(row[1:2] == "+" for row in walk.terminal.screen.display) == 3


def set_float16(walk: Walk, worst: str, built: str) -> str:
    walk.press("f")
    repaired = walk.until_measured(lambda cosine: cosine > built)
    assert f"cos {built}>{repaired}" in walk.status
    walk.until(lambda: "f16*" in walk.row(worst), "the precision in the row")
    return repaired


def toggle(walk: Walk, built: str, repaired: str) -> list[float]:
    """Milliseconds from the key to the measured cosine, for each of some toggles."""
    milliseconds = []
    for _ in range(TOGGLES // 2):
        milliseconds.append(timed(walk, "d", "int8"))
        assert walk.cosine == built
        milliseconds.append(timed(walk, "f", "f16*"))
        assert walk.cosine == repaired
    return milliseconds


def toggle_the_first_layer(walk: Walk, built: str) -> list[float]:
    """Milliseconds where all of the model has to be evaluated anew."""
    walk.press("gj")
    walk.until(lambda: " 1 " in walk.layer, "the cursor on the first layer")
    milliseconds = []
    for _ in range(TOGGLES // 2):
        milliseconds.append(timed(walk, "f", "f16*"))
        milliseconds.append(timed(walk, "d", "int8"))
        assert walk.cosine == built
    walk.press("u" * TOGGLES)
    walk.until(lambda: "u undo" not in walk.terminal.line(-1), "nothing left to undo")
    return milliseconds


def timed(walk: Walk, key: str, precision: str) -> float:
    """Milliseconds from the key, which puts the layer under the cursor into a precision, to the measured cosine."""
    begun = time.perf_counter()
    walk.press(key)
    walk.until(lambda: walk.precision == precision and walk.cosine is not None, "the measured cosine")
    return (time.perf_counter() - begun) * 1000


def undo_all(walk: Walk, worst: str, built: str) -> None:
    walk.press("u")
    walk.until_measured(lambda cosine: cosine == built)
    walk.press("u" * (TOGGLES + 1))
    walk.sees("nothing to undo")
    assert walk.until_measured() == built
    assert "*" not in walk.row(worst)
    walk.press("U")
    walk.terminal.loses("3 marked")


def tune(walk: Walk) -> int:
    """How many candidates the search found."""
    walk.press("A")
    walk.sees("search until the worst cosine is")
    walk.press("\r")
    walk.until(lambda: re.search(r"\d+ candidates; cosine", walk.terminal.text), "candidates")
    return int(walk.terminal.text.partition(" candidates; cosine")[0].split()[-1])


def step_through_candidates(walk: Walk, count: int, built: str) -> None:
    """Each changes the model; with none of them it is what it was."""
    walk.press("T")
    walk.sees("wish fulfilled")
    walk.press("g")
    cosines = []
    for number in range(1, count + 1):
        walk.press("j ")
        in_force = re.compile(rf"▶ {number} .?c? *= ")
        walk.until(functools.partial(lambda row: row.match(walk.layer), in_force), f"candidate {number} in force")
        walk.press("1")
        walk.sees("det.onnx  rk3588")
        cosines.append(walk.until_measured())
        walk.press("T")
        walk.sees("wish fulfilled")
    assert max(cosines) > built
    assert len(set(cosines)) > 2
    walk.press("g ")
    walk.sees("▶ 0   =")
    walk.press("1")
    assert walk.until_measured(lambda cosine: cosine == built)


def take_the_chosen_candidate(walk: Walk) -> None:
    walk.press("T")
    walk.sees("wish fulfilled")
    walk.press("g")
    while " c " not in walk.layer:
        before = walk.layer
        walk.press("j")
        walk.until(functools.partial(lambda row: walk.layer != row, before), "the next candidate")
    walk.press("\r")
    walk.sees("is in force: cosine")
    walk.until_measured(lambda cosine: cosine > "0.99")


def begin_to_type(walk: Walk) -> None:
    """The cursor is at the end of the cfg's first wish."""
    walk.press("c")
    walk.sees("dtype:")
    if "tab goes there" in walk.terminal.text:
        walk.press("\t")
    walk.sees("ctrl+s save")
    walk.press(TOP)
    walk.sees("custom_quantize_layers:")
    lines = [row.strip() for row in walk.terminal.text.splitlines()]
    comments = next(place for place, row in enumerate(lines) if "# quantized with" in row)
    wishes = next(place for place, row in enumerate(lines) if "custom_quantize_layers:" in row)
    walk.press(DOWN * (wishes - comments + 1) + END)


def type_a_mistake(walk: Walk) -> None:
    walk.press(f"\r{COMMENT}\r{MENDED}_: float16")
    walk.sees("1 fault!")
    marked = next(row for row in walk.terminal.screen.display if f"{MENDED}_: float16" in row)
    assert re.search(rf"! +{MENDED}_: float16", marked)
    assert f"'{MENDED}_': the model has no such tensor" in walk.terminal.text


def mend_it(walk: Walk) -> None:
    walk.press(LEFT * len(": float16") + "\x7f")
    walk.terminal.loses("fault!")


def add_a_line(walk: Walk) -> str:
    """The graph follows the text; returns the outputs' cosine at the end."""
    walk.press(f"{END}\r{ADDED}: float16")
    walk.press("\x1b")
    walk.until(lambda: "f16*" in walk.row(ADDED), "the added line in the graph")
    walk.press("kkkk")
    walk.until(lambda: "f16*" in walk.row(MENDED), "the mended line in the graph")
    return walk.until_measured()


def save(walk: Walk) -> None:
    walk.press("w")
    walk.sees("save the cfg as:")
    walk.sees("det.quantization.cfg")
    walk.press("\r")
    walk.sees("rknn-tui build")
    assert "*" not in walk.status, "nothing is unsaved"


def quit_in_good_order(walk: Walk) -> None:
    terminal = walk.terminal
    walk.press("q")
    written = terminal.read_until(LEAVES_SCREEN)
    assert SHOWS_CURSOR in written
    assert terminal.process.wait(20) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.modes


def headless_cosine(folder: Path) -> str:
    """The outputs' cosine of what `rknn-tui build` builds from the saved cfg."""
    headless(folder, "build", "det.model", "--cfg", "det.quantization.cfg", "-o", "det.rknn")
    found = json.loads(headless(folder, "analyze", "det.rknn", "--sample", str(PHOTOS[0]), "--json"))
    return digits(found["report"]["quality"]["cosine"])


def headless(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "rknn_tui", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
