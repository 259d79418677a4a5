"""The app on a terminal with the models that its costs are told of: a graph of 5,000 layers, and a detector of text."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.terminal import Terminal, real, scripted
from tests.zoo import FOLDER

LOADED = " layers, "
"""Is on the screen once a model is loaded."""
REST = 0.9
"""Seconds without a byte after which nothing follows a key: the details come after 0.3, their measurements after 1."""
DOWN, UP, PAGE_DOWN, PAGE_UP, ESCAPE = "j", "k", "\x1b[6~", "\x1b[5~", "\x1b"


def start_graph(folder: Path, name: str = "graph-5000.onnx", **environment: str | None) -> Terminal:
    """The app on a made-up model, with the scripted engine."""
    (folder / "dataset.txt").write_text("sample.npy\n")
    return Terminal(scripted(folder / name), framed=True, **{**_environment(folder), **environment})


def start_det(folder: Path, **environment: str | None) -> Terminal:
    """The app on a real model with 20 photos to calibrate with, and the real engine."""
    name = "ch_PP-OCRv4_det_infer"
    model = shutil.copy(FOLDER / "onnx" / name / f"{name}.onnx", folder / "det.onnx")
    dataset = folder / "dataset.txt"
    dataset.write_text("".join(f'"{path}"\n' for path in sorted((FOLDER / "photos").glob("*.jpg"))))
    middle = "127.5,127.5,127.5"
    words = ("--input-size", "1,3,480,480", "--mean", middle, "--std", middle, "--target", "rk3588")
    command = real(model, *words, "--dataset", dataset)
    return Terminal(command, framed=True, **{**_environment(folder), **environment})


def _environment(folder: Path) -> dict[str, str | None]:
    places = {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CONFIG", "STATE", "CACHE")}
    return {**places, "LANG": "C.UTF-8", **dict.fromkeys(("LC_ALL", "LC_CTYPE", "NO_COLOR"))}


def build(terminal: Terminal) -> None:
    """Begin to build, with the dataset beside the model."""
    terminal.sees(LOADED)
    terminal.press("b")
    terminal.waits(lambda: "calibration dataset" in terminal.text or "not built" not in terminal.line(0), "a build")
    if "calibration dataset" in terminal.text:
        terminal.press("\r")


def analyse(terminal: Terminal) -> None:
    """Build, analyse with live evaluation, and have the sources of the error traced."""
    build(terminal)
    terminal.sees("built int8", 120)
    terminal.press("a")
    terminal.sees("output cosine", 120)
    terminal.read(REST)
    if "error" not in terminal.line(1):
        # Small models are traced without being asked for.
        terminal.press("i")
        terminal.waits(lambda: "error" in terminal.line(1), "shares of the error", 120)
    terminal.read(REST)


def go_home(terminal: Terminal) -> None:
    """Go to the first row of the tune screen, with nothing filtered or marked."""
    for keys in (ESCAPE, ESCAPE, "1Ug"):
        terminal.press(keys)
        terminal.read(0.15)
    terminal.read(REST)
