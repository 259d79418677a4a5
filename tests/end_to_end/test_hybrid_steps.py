"""Hybrid quantization as people do it: one process calibrates, a person edits the cfg, another process builds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from engine.config import Config
from engine.quantization.edits import Edits
from engine.session import Session
from tests.engine.test_session_tuning import BODY, CONSTANTS, SIZE
from tests.small_networks import Array, network, random, typed

ROOT = Path(__file__).parents[2]

STEP_1 = """
import json, sys
from engine.config import Config
from engine.session import Session

settings, proposal = json.loads(sys.argv[1]), json.loads(sys.argv[2])
session = Session(Config.from_mapping(settings))
session.load("net.onnx")
session.hybrid_step1("dataset.txt", proposal=proposal)
"""
STEP_2 = """
import sys
import numpy as np
from engine.api import RKNN

rknn = RKNN()
if rknn.hybrid_quantization_step2("net.model", "net.data", "net.quantization.cfg") != 0:
    sys.exit(3)
assert rknn.init_runtime() == 0
np.save("answer.npy", rknn.inference([np.load("100.npy")])[0])
assert rknn.export_rknn("net.rknn") == 0
"""


def process(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.onnx").write_bytes(typed(network({"x": SIZE}, BODY, CONSTANTS)).SerializeToString())
    for seed in (*range(8), 100):
        np.save(tmp_path / f"{seed}.npy", random(*SIZE, seed=seed).transpose(0, 2, 3, 1))
    (tmp_path / "dataset.txt").write_text("".join(f"{seed}.npy\n" for seed in range(8)))
    return tmp_path


def step_1(folder: Path, settings: dict[str, Any], *, proposal: bool = False) -> Path:
    """The cfg that another process writes."""
    done = process(STEP_1, folder, json.dumps(settings), json.dumps(proposal))
    assert done.returncode == 0, done.stderr
    assert not [path for path in folder.iterdir() if path.name.endswith((".part", ".pkl"))]
    return folder / "net.quantization.cfg"


def step_2(folder: Path) -> Array:
    """What the model that yet another process builds makes of a sample."""
    done = process(STEP_2, folder)
    assert done.returncode == 0, done.stderr
    found: Array = np.load(folder / "answer.npy")
    return found


def here(folder: Path, settings: dict[str, Any], edits: Edits) -> tuple[Array, Session]:
    """The same edits made in this process, without files."""
    session = Session(Config.from_mapping(settings))
    session.load(folder / "net.onnx")
    session.build(dataset=folder / "dataset.txt")
    session.edit(edits)
    return session.infer([np.load(folder / "100.npy")])[0], session


def with_number(text: str, row: str, key: str, number: float) -> str:
    """The cfg with another number for a key of a row."""
    lines = text.splitlines(keepends=True)
    start = lines.index(f"    {row}:\n")
    place = lines.index(f"        {key}:\n", start) + 1
    return "".join([*lines[:place], f"        -   {number!r}\n", *lines[place + 1 :]])


SETTINGS: list[dict[str, Any]] = [
    {"target_platform": "rk3588"},
    {"target_platform": "rk3566", "quantized_algorithm": "auto", "equalization": True, "bias_correction": True},
    {"target_platform": "rv1106", "quantized_algorithm": "mmse", "quantized_dtype": "asymmetric_quantized-16"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings["target_platform"])
def test_the_built_model_is_what_the_edited_cfg_says(folder: Path, settings: dict[str, Any]) -> None:
    cfg = step_1(folder, settings)
    untouched = step_2(folder)
    finer = "int16" if settings["target_platform"] == "rv1106" else "float16"
    text = cfg.read_text()
    rows = yaml.safe_load(text)["quantize_parameters"]
    narrowed, widened = rows["r"]["max"][0] / 2, rows["class"]["min"][0] * 1.5
    text = text.replace(
        "custom_quantize_layers: {}",
        f"# the scores were all zero\ncustom_quantize_layers:   # mine\n    y: {finer}   # joined\n\n"
        f"    scores: '{finer}'\n    a: int8",
    )
    # By hand: only the numbers, and nothing of what follows from them.
    text = with_number(with_number(text, "r", "max", narrowed), "class", "min", widened)
    cfg.write_text(text)

    found = step_2(folder)
    ranges = {"r": (rows["r"]["min"][0], narrowed), "class": (widened, rows["class"]["max"][0])}
    edits = Edits({"y": finer, "scores": finer, "a": "int8"}, ranges)
    expected, session = here(folder, settings, edits)
    assert not np.array_equal(found, untouched)
    assert np.array_equal(found, expected)
    assert found[:, 4:].any()
    # What was built is also what was exported.
    packed = Session()
    packed.load(folder / "net.rknn")
    assert packed.table == session.table
    assert np.array_equal(packed.infer([np.load(folder / "100.npy")])[0], found)
    # The cfg and the other files are a person's, and stay as they are.
    assert cfg.read_text() == text


def test_untouched_files_build_what_step_1_had(folder: Path) -> None:
    for settings in SETTINGS:
        cfg = step_1(folder, settings)
        expected, session = here(folder, settings, Edits())
        assert np.array_equal(step_2(folder), expected)
        assert cfg.read_text().splitlines()[0].startswith("# quantized with ")
        assert session.table.rows.keys() == yaml.safe_load(cfg.read_text())["quantize_parameters"].keys()


def test_a_cfg_in_the_peers_layout_is_read(folder: Path) -> None:
    """Lists that tensors share become anchors, empty ones stand in the line, and comments are right-aligned."""
    settings = SETTINGS[0]
    cfg = step_1(folder, settings)
    content = yaml.safe_load(cfg.read_text())
    lists: dict[tuple[float, ...], list[float]] = {}
    for row in content["quantize_parameters"].values():
        for key, value in row.items():
            if isinstance(value, list):
                row[key] = lists.setdefault(tuple(value), value) if value else []
    parameters = yaml.dump({"quantize_parameters": content["quantize_parameters"]}, indent=4, sort_keys=False)
    assert "&id001" in parameters and "*id001" in parameters and "scale: []" in parameters
    wishes = (
        "custom_quantize_layers:" + " " * 60 + "# 0.000\n    scores: float16" + " " * 50 + "# 0.99986\n    y: float16\n"
    )
    cfg.write_text(wishes + parameters)
    expected, _ = here(folder, settings, Edits({"scores": "float16", "y": "float16"}))
    assert np.array_equal(step_2(folder), expected)


def test_a_proposal_of_one_process_is_built_by_another(folder: Path) -> None:
    settings = SETTINGS[0]
    cfg = step_1(folder, settings, proposal=True)
    head = cfg.read_text().splitlines()
    (line,) = (line for line in head if line.startswith("custom_quantize_layers:"))
    assert "# cosine 0.00000 without, 0.99" in line
    assert yaml.safe_load(cfg.read_text())["custom_quantize_layers"]
    found = step_2(folder)
    assert found[:, 4:].any()
    # Without the proposed lines, which brought biases of their own along, the scores are lost again.
    parameters = cfg.read_text().partition("\nquantize_parameters:")
    cfg.write_text("custom_quantize_layers: {}" + "".join(parameters[1:]))
    assert not step_2(folder)[:, 4:].any()


BAD = {
    "an unknown tensor": ("custom_quantize_layers: {}", "custom_quantize_layers:\n    score: float16", "'scores'"),
    "a precision that there is not": ("custom_quantize_layers: {}", "custom_quantize_layers:\n    r: int4", "line 3"),
    "a type that the chip lacks": ("custom_quantize_layers: {}", "custom_quantize_layers:\n    r: float16", "rv1106"),
    "broken YAML": ("custom_quantize_layers: {}", "custom_quantize_layers: {", "line"),
    "a changed key": ("qtype: asym", "qtype: sym", "qtype of 'x' may not be changed"),
    "a number that is none": ("-   127", "-   many", "line"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_cfg_is_one_line_and_nothing_is_built(folder: Path, case: str) -> None:
    old, new, told = BAD[case]
    cfg = step_1(folder, {"target_platform": "rv1106"})
    text = cfg.read_text()
    if case == "a number that is none":
        old = text[text.index("zero_point:\n        -") :].splitlines()[1].strip()
    assert old in text
    cfg.write_text(text.replace(old, new, 1))
    done = process(STEP_2, folder)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr and told in done.stderr and str(cfg.name) in done.stderr
    assert not (folder / "net.rknn").exists() and not (folder / "answer.npy").exists()


def test_min_above_max_is_told_by_its_line(folder: Path) -> None:
    cfg = step_1(folder, SETTINGS[0])
    cfg.write_text(with_number(cfg.read_text(), "r", "max", -1.0))
    done = process(STEP_2, folder)
    line = 1 + cfg.read_text().splitlines().index("        -   -1.0")
    assert done.returncode == 3 and "min 0 above max -1" in done.stderr and f"line {line}" in done.stderr
