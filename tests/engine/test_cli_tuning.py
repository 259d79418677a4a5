"""The commands that make a quantized model better: recipes of `build`, `hybrid`, `tune`, `lint`, sources of errors."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import cli, demo, ort
from engine.cli_text import accuracy_text
from engine.cli_tuning_text import findings_text, recipes_text, sources_text, tune_text
from engine.session import Session
from engine.summaries import (
    AccuracyReport,
    Candidate,
    ErrorPair,
    Finding,
    LayerError,
    PartQuality,
    Quality,
    RecipeScore,
    SourceMap,
    SourceShare,
    TuneReport,
)
from tests.small_networks import network, random, typed

DEMO = (str(demo.MODEL), "--dataset", str(demo.DATASET), "--std", "255")
Run = Callable[..., str]


@pytest.fixture
def document(run: Run) -> Callable[..., Any]:
    """The same with --json, read."""
    return lambda *words, **code: json.loads(run(*words, "--json", **code))


def precisions(package: str) -> dict[str, str]:
    session = Session()
    return {layer.name: layer.precision for layer in session.load(package).layers}


# build


def test_each_algorithm_tells_its_recipe(document: Callable[..., Any]) -> None:
    recipes = {}
    for algorithm in ("normal", "mmse", "kl_divergence", "percentile"):
        recipes[algorithm] = document("build", *DEMO, "--algorithm", algorithm)["build"]["recipe"]
    assert recipes["normal"] == "minmax"
    assert len(set(recipes.values())) == 4
    corrected = document("build", *DEMO, "--bias-correction", "--equalization")["build"]
    assert corrected["recipe"] == "minmax + equalization + bias correction"
    assert corrected["candidates"] == []


def test_auto_lists_what_it_tried_and_by_how_much_the_winner_leads(run: Run, document: Callable[..., Any]) -> None:
    built = document("build", *DEMO, "--algorithm", "auto", "--no-equalization")["build"]
    tried = {one["recipe"] for one in built["candidates"]}
    assert built["candidates"][0]["recipe"] == built["recipe"]
    assert "minmax" in tried and not any("equalization" in recipe for recipe in tried)
    text = run("build", *DEMO, "--algorithm", "auto", "--no-equalization")
    assert all(recipe in text for recipe in tried)
    assert f"taken: {built['recipe']}" in text and "dB against normal" in text


def test_corrections_may_stand_in_the_config_file(document: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("bias_correction: true\nquantized_algorithm: mmse\n")
    assert "bias correction" in document("build", *DEMO, "--config", "c.yaml")["build"]["recipe"]
    switched_off = document("build", *DEMO, "--config", "c.yaml", "--no-bias-correction")
    assert "bias correction" not in switched_off["build"]["recipe"]


def test_the_corrected_model_is_plain_onnx(run: Run) -> None:
    run("build", *DEMO, "--bias-correction", "--onnx", "corrected.onnx", "-o", "m.rknn")
    session = Session()
    session.load("m.rknn")
    corrected = ort.make_session(Path("corrected.onnx").read_bytes())
    sample = {"image": np.zeros((1, 1, 24, 24), np.float32)}
    (before,), (after,) = (
        ort.run(one, None, sample) for one in (ort.make_session(ort.serialize(session.model)), corrected)
    )
    assert not np.array_equal(before, after)
    np.testing.assert_allclose(before, after, atol=0.1)


@pytest.mark.parametrize("dtype", ["w8a8", "asymmetric_quantized-16"])
def test_whole_models_are_int8_or_int16(dtype: str, document: Callable[..., Any]) -> None:
    precision = "int8" if dtype == "w8a8" else "int16"
    assert document("build", *DEMO, "--dtype", dtype, "-o", "m.rknn")["build"]["precision"] == precision
    assert precisions("m.rknn")["features"] == precision


# hybrid


def test_a_wish_written_into_the_cfg_is_in_the_package(run: Run, document: Callable[..., Any]) -> None:
    text = run("hybrid", *DEMO)
    assert sorted(path.name for path in Path().iterdir()) == ["digits.data", "digits.model", "digits.quantization.cfg"]
    assert "  rknn-tui build digits.model --cfg digits.quantization.cfg" in text.splitlines()
    cfg = Path("digits.quantization.cfg")
    wishes = "custom_quantize_layers: {scores_conv: int16, stem: float16}"
    cfg.write_text(cfg.read_text().replace("custom_quantize_layers: {}", wishes))
    layers = document("build", "digits.model", "--cfg", str(cfg))["model"]["layers"]
    built = {layer["name"]: layer["precision"] for layer in layers}
    assert (built["scores_conv"], built["residual"]) == ("int16", "int8")
    assert precisions("digits.rknn") == built


def test_the_data_may_lie_elsewhere(run: Run, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    run("hybrid", *DEMO, "--folder", "work")
    Path("work/digits.data").rename("else.data")
    words = ["build", "work/digits.model", "--cfg", "work/digits.quantization.cfg"]
    run(*words, code=1)
    run(*words, "--data", "else.data")
    assert Path("digits.rknn").exists()


def test_a_proposal_names_layers_and_what_they_give(run: Run, document: Callable[..., Any]) -> None:
    text = run("hybrid", *DEMO, "--proposal", "2")
    assert "proposed: 2 layers" in text and "    joined: float16" in text.splitlines()
    assert "joined: float16" in Path("digits.quantization.cfg").read_text()
    built = document("build", "digits.model", "--cfg", "digits.quantization.cfg")
    assert {"name": "joined", "precision": "float16"}.items() <= next(
        layer for layer in built["model"]["layers"] if layer["name"] == "joined"
    ).items()
    summary = document("hybrid", *DEMO, "--proposal")["hybrid"]
    assert summary["proposal"]["candidates"][summary["proposal"]["chosen"]]["quality"]["cosine"] > 0.999


def test_building_from_a_cfg_ignores_build_options_aloud(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("hybrid", *DEMO)
    assert cli.main(["build", "digits.model", "--cfg", "digits.quantization.cfg", "--target", "rk3588"]) == 0
    assert "warning: digits.model is built as its .data says" in capsys.readouterr().err


# tune


def test_tune_lists_candidates_and_writes_the_chosen_one(run: Run, document: Callable[..., Any]) -> None:
    found = document("tune", *DEMO, "-o", "t.rknn", "--cfg", "t.cfg")
    report, taken = found["report"], found["taken"]
    chosen = report["candidates"][taken - 1]
    assert report["reached"] and report["complete"] and not found["cancelled"]
    assert chosen["quality"]["cosine"] >= 0.999 > report["base"]["cosine"]
    assert {precisions("t.rknn")[layer] for layer in chosen["layers"]} == {"float16"}
    text = Path("t.cfg").read_text()
    assert all(f"    {name}: {precision}\n" in text for name, precision in chosen["wishes"].items())

    lines = run("tune", *DEMO, "-o", "again.rknn").splitlines()
    assert any(line.startswith(f"*{taken} ") and chosen["layers"][0] in line for line in lines)
    assert lines[-1] == "wrote again.rknn"
    assert max(map(len, lines)) <= 80
    assert Path("again.rknn").read_bytes() == Path("t.rknn").read_bytes()


def test_another_candidate_can_be_taken(document: Callable[..., Any], run: Run) -> None:
    found = document("tune", *DEMO, "--candidate", "1", "-o", "t.rknn")
    assert found["taken"] == 1
    wishes = found["report"]["candidates"][0]["wishes"]
    assert {name for name, precision in precisions("t.rknn").items() if precision == "float16"} <= {
        *wishes,
        "probabilities",
    }
    Path("t.rknn").unlink()
    run("tune", *DEMO, "--candidate", "9", "-o", "t.rknn", code=1)
    assert not Path("t.rknn").exists()


def test_the_wish_bounds_what_is_found(document: Callable[..., Any]) -> None:
    for words, fits in (
        (["--max-layers", "1"], lambda one: len(one["layers"]) <= 1),
        (["--max-cost", "0.01"], lambda one: one["cost"] <= 0.01),
        (["--cosine", "0.9"], lambda one: True),
    ):
        report = document("tune", *DEMO, *words)["report"]
        assert all(fits(one) for one in report["candidates"])
        assert report["reached"] == (words[0] == "--cosine")


def test_a_target_without_float16_is_repaired_in_int16(document: Callable[..., Any]) -> None:
    found = document("tune", *DEMO, "--target", "rv1106")
    wishes = found["report"]["candidates"][found["taken"] - 1]["wishes"]
    assert set(wishes.values()) == {"int16"}


def test_a_package_is_repaired_as_it_was_built(run: Run, document: Callable[..., Any]) -> None:
    run("build", *DEMO, "-o", "m.rknn")
    found = document("tune", "m.rknn", "--dataset", str(demo.DATASET), "-o", "t.rknn")
    assert found["build"] is None and found["report"]["reached"]
    assert precisions("t.rknn")["joined"] == "float16" != precisions("m.rknn")["joined"]


def test_a_cfg_that_a_person_edited_keeps_comments_and_order(
    run: Run, document: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run("hybrid", *DEMO)
    cfg = Path("digits.quantization.cfg")
    mine = cfg.read_text().replace(
        "custom_quantize_layers: {}", "custom_quantize_layers:  # mine\n    scores_conv: float16  # keep"
    )
    cfg.write_text(mine)
    found = document("tune", "digits.model", "--dataset", str(demo.DATASET), "--cfg", str(cfg))
    text = cfg.read_text()
    assert "custom_quantize_layers:  # mine\n    scores_conv: float16  # keep\n    joined: float16\n" in text
    assert text.partition("quantize_parameters:")[2] == mine.partition("quantize_parameters:")[2]
    assert found["report"]["candidates"][found["taken"] - 1]["wishes"].keys() >= {"joined"}
    layers = document("build", "digits.model", "--cfg", str(cfg))["model"]["layers"]
    assert {layer["name"]: layer["precision"] for layer in layers}["joined"] == "float16"

    # From the source model the person's own line is not part of the result, which is told.
    assert cli.main(["tune", *DEMO, "--cfg", str(cfg), "-q"]) == 0
    assert "are gone: scores_conv" in capsys.readouterr().err
    assert "scores_conv: float16" not in cfg.read_text() and "# mine" in cfg.read_text()


def test_a_cfg_of_another_model_is_refused_before_the_search(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    text = "quantize_parameters:\n    other: {qtype: asym, qmethod: layer, dtype: float16}\n"
    Path("t.cfg").write_text(text)
    assert cli.main(["tune", *DEMO, "--cfg", "t.cfg"]) == 1
    shown = capsys.readouterr().err
    assert "t.cfg: the model has no row 'other'" in shown and "measure" not in shown
    assert Path("t.cfg").read_text() == text


def test_a_model_that_is_good_is_left_as_it_is(run: Run) -> None:
    text = run("tune", *DEMO, "--cosine", "0.5", "-o", "t.rknn")
    assert "good as it is" in text
    assert precisions("t.rknn")["joined"] == "int8"


def test_processes_find_what_one_process_finds(document: Callable[..., Any]) -> None:
    alone, together = (document("tune", *DEMO, "--jobs", jobs)["report"] for jobs in ("1", "2"))
    assert {**alone, "seconds": 0} == {**together, "seconds": 0}


def test_few_samples_are_told_of(run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    samples = demo.DATASET.read_text().splitlines()[:2]
    (tmp_path / "few.txt").write_text("".join(f"{demo.FOLDER / sample}\n" for sample in samples))
    assert cli.main(["tune", str(demo.MODEL), "--dataset", "few.txt", "--std", "255"]) == 0
    assert "fewer than 4 samples" in capsys.readouterr().err


# lint


def test_lint_says_what_to_do_and_how_to_end(run: Run, document: Callable[..., Any]) -> None:
    paragraph = run("lint", *DEMO)
    assert paragraph.startswith("join-ranges: Concat 'joined'") and "\n    joined: float16\n" in paragraph
    assert max(map(len, paragraph.splitlines())) <= 80
    assert run("lint", *DEMO, "--strict", code=1) == paragraph
    (finding,) = document("lint", *DEMO, "--strict", code=1)["findings"]
    assert finding["rule"] == "join-ranges" and finding["wishes"]["joined"] == "float16"
    run("tune", *DEMO, "-o", "t.rknn")
    assert run("lint", "t.rknn", "--strict") == "nothing found\n"


def test_lint_hears_of_a_forgotten_normalization(run: Run, document: Callable[..., Any]) -> None:
    sample = np.full((1, 24, 24, 1), 200.0 * 255, np.float32)
    np.save("raw.npy", sample)
    findings = document("lint", *DEMO, "--sample", "raw.npy")["findings"]
    assert "input-mismatch" in {finding["rule"] for finding in findings}


# analyze


def joined(folder: Path) -> tuple[str, ...]:
    """A model whose output joins a large part and a small one, its dataset, and what leads to them."""
    body = """
        a = Conv <kernel_shape = [1, 1]> (x, wa)
        b = Conv <kernel_shape = [1, 1]> (x, wb)
        s = Sigmoid (b)
        y = Concat <axis = 1> (a, s)
    """
    constants = {"wa": random(2, 3, 1, 1, spread=300.0), "wb": random(2, 3, 1, 1)}
    proto = typed(network({"x": (1, 3, 4, 4)}, body, constants))
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    for index in range(4):
        np.save(folder / f"{index}.npy", random(1, 4, 4, 3, seed=index))
    (folder / "list.txt").write_text("".join(f"{index}.npy\n" for index in range(4)))
    return "m.onnx", "--dataset", "list.txt"


def test_sources_stand_beside_the_errors_and_part_by_part(
    run: Run, document: Callable[..., Any], tmp_path: Path
) -> None:
    words = joined(tmp_path)
    report = document("analyze", *words, "--sources")["report"]
    shares = {layer["name"]: layer["share"] for layer in report["layers"]}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert report["sources"]["parts"] == ["a", "s"]
    assert all(len(source["noise"]) == 2 for source in report["sources"]["sources"])
    text = run("analyze", *words, "--sources")
    assert "share" in text.splitlines()[0]
    for part in ("a", "s"):
        heading = next(line for line in text.splitlines() if line.startswith(f"{part}: cosine"))
        assert "SNR" in heading
    files = sorted(path.name for path in Path("snapshot").iterdir())
    without = document("analyze", *words)["report"]
    assert sorted(path.name for path in Path("snapshot").iterdir()) == files
    assert without["sources"] is None and without["layers"][0]["share"] is None


def test_what_is_really_float16_is_said(run: Run) -> None:
    run("hybrid", *DEMO)
    cfg = Path("digits.quantization.cfg")
    cfg.write_text(cfg.read_text().replace("_layers: {}", "_layers: {features: float16}"))
    run("build", "digits.model", "--cfg", str(cfg))
    text = run("analyze", "digits.rknn", "--sample", str(demo.test_samples()[0][0]))
    note = next(line for line in text.splitlines() if line.startswith("note: features"))
    assert "float16" in note and "int8" in note


# Texts


def quality(noise: float) -> Quality:
    return Quality(1 - noise / 2, 1 - noise, noise, (PartQuality("y", "y", "", 1 - noise / 2, 1 - noise, noise),))


LONG = "backbone/stage.3/block.2/attention/projection/output_of_the_convolution"


def test_the_list_of_candidates_fits_80_columns_whatever_the_names() -> None:
    layers = tuple(f"{LONG}.{index}" for index in range(7))
    candidates = tuple(
        Candidate(dict.fromkeys(layers[:count], "float16"), layers[:count], count / 10, quality(0.01 / (count + 1)))
        for count in range(8)
    )
    report = TuneReport(quality(0.5), candidates, 7, False, True, 8, 1.0)
    lines = tune_text(report, 3).splitlines()
    rows = lines[:11]
    assert max(map(len, rows)) <= 80
    assert rows[3].endswith("biases only") and rows[10].endswith("and 6 more")
    assert [row.split()[0] for row in rows[2:]] == ["0", "1", "2", "3", "*4", "5", "6", "7", "8"]
    assert "the wish was not fulfilled" in lines
    assert lines[-3:] == [f"    {name}: float16" for name in layers[:3]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reached": True, "chosen": -1}, "good as it is"),
        ({"complete": False}, "cancelled: nothing was found so far"),
        ({}, "nothing better was found"),
    ],
)
def test_a_search_without_candidates_says_why(change: dict[str, Any], words: str) -> None:
    report = TuneReport(quality(0.5), (), -1, False, True, 8, 1.0)
    assert words in tune_text(dataclasses.replace(report, **change), -1)


def test_a_model_that_nothing_differs_from_has_an_infinite_ratio() -> None:
    assert "inf" in tune_text(TuneReport(quality(0.0), (), -1, True, True, 8, 1.0), -1)
    scores = (RecipeScore("mse", 1.0, 1.0, 0.0), RecipeScore("minmax", 0.9, 0.8, 0.1))
    assert recipes_text(scores).splitlines()[-1].startswith("taken: mse; on samples apart, +inf dB")
    assert recipes_text(scores[:1]).count("\n") == 2


def test_the_accuracy_table_fits_the_screen_with_shares_and_long_names() -> None:
    pair = ErrorPair(0.5, 2.0)
    layers = (LayerError(LONG, "BatchNormalizationRelu", "int8+float16", pair, pair, share=0.5, note="is apart"),)
    report = AccuracyReport(layers, {"y": pair}, 1, 0.1)
    lines = accuracy_text(report, width=80).splitlines()
    assert max(map(len, lines[:3])) <= 80
    assert "50.0%" in lines[2] and "0.50000" in lines[2] and LONG[-10:] in lines[2]
    assert f"note: {LONG} is apart" in lines


def test_sources_without_noise_and_with_endless_noise_are_shown() -> None:
    parts = (PartQuality("y", "y", "a", 1.0, 1.0, 0.0), PartQuality("y", "y", "b", 0.0, 0.0, float("inf")))
    sources = (SourceShare("weights", LONG, LONG, "Conv", (0.0, float("inf")), 1.0),)
    text = sources_text(SourceMap(("a", "b"), sources, Quality(0.0, 0.0, 1.0, parts), 1, 0.1))
    assert "a: cosine 1.00000, SNR inf dB" in text and max(map(len, text.splitlines())) <= 80


def test_findings_cannot_move_the_cursor() -> None:
    text = findings_text([Finding("rare-range", "x", "bad \x1b[2J" + "word " * 40, "leave it", {"a\nb": "int16"})])
    assert "\x1b" not in text and "    a\\nb: int16" in text.splitlines()
    assert max(map(len, text.splitlines())) <= 80
