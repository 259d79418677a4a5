"""Reported errors are those of a second simulator that runs layer after layer, on the demo and on other networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import demo
from engine.config import Config
from engine.errors import InputError, OrderError, QuantizationError
from engine.graph.layers import layers
from engine.session import Session
from engine.summaries import AccuracyReport, ErrorPair
from tests.plain_arithmetic import PlainSimulator, cosine, euclidean, half
from tests.small_networks import Array, built, integers, network, random, renamed
from tests.zoo import FOLDER, needs_zoo

# As test_lowering's, with the joins along other axes and products of two activations.
BODY = """
a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w1, b1)
ar = Relu (a)
s = Conv <kernel_shape = [1, 1]> (ar, w2, b2)
g = Sigmoid (s)
sw = Mul (s, g)
r = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 4> (sw, w3)
sum = Add (ar, r)
sumr = Relu (sum)
d = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2], group = 2> (sumr, w4, b4)
p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (d)
j = Concat <axis = -3> (p, sumr, small)
hs = HardSwish (j)
left, right = Split <axis = 3, num_outputs = 2> (hs)
prod = Mul (left, right)
wide = Concat <axis = 3> (prod, left)
rows = Reshape (wide, shape)
turned = Transpose <perm = [0, 2, 1]> (rows)
mm = MatMul (rows, turned)
z = Softmax <axis = -1> (mm)
y = Conv <kernel_shape = [1, 1]> (wide, w5)
"""
CONSTANTS = {
    "w1": random(8, 3, 3, 3, spread=0.2), "b1": random(8),
    "w2": random(8, 8, 1, 1, seed=1, spread=0.5), "b2": random(8, seed=1),
    "w3": random(8, 2, 3, 3, seed=2, spread=0.3), "w4": random(8, 3, 2, 2, spread=0.3), "b4": random(6),
    "small": random(1, 2, 8, 8, spread=0.3), "shape": integers(1, 16, 64), "w5": random(5, 16, 1, 1, seed=3),
}  # fmt: skip
SHAPE = (1, 3, 8, 8)


def assert_equal(found: ErrorPair, golden: Array, other: Array, what: str) -> None:
    assert found.cosine == pytest.approx(cosine(golden, other), abs=1e-5), what
    size = float(np.linalg.norm(golden.astype(np.float64)))
    assert found.euclidean == pytest.approx(euclidean(golden, other), rel=1e-4, abs=1e-6 * size), what


def assert_matches(report: AccuracyReport, session: Session, feeds: dict[str, Array], *, per_channel: bool) -> int:
    """Compare every line and part with the second simulator; returns how many numbers were compared."""
    model = session.model
    plain = PlainSimulator(model, layers(model), session.table, per_channel=per_channel)
    golden, entire, single = plain.run(feeds)
    count = 0
    for line in report.layers:
        if line.entire is None or line.single is None:
            assert line.name not in entire, "a tensor between layers has no errors"
            continue
        assert_equal(line.entire, golden[line.name], entire[line.name], f"entire of {line.name}")
        assert_equal(line.single, golden[line.name], single[line.name], f"single of {line.name}")
        count += 2
        for part in line.parts:
            where = (slice(None),) * part.axis + (slice(part.start, part.stop),)
            assert_equal(part.entire, golden[line.name][where], entire[line.name][where], f"{part.tensor} entire")
            assert_equal(part.single, golden[line.name][where], single[line.name][where], f"{part.tensor} single")
            count += 2
    floats = {v.name for node in model.graph for v in node.outputs if golden[v.name or ""].dtype == np.float32}
    assert {line.name for line in report.layers} == floats | set(feeds)
    return count


@pytest.mark.parametrize("method", ["channel", "layer"])
def test_a_network_of_branches_and_joins(tmp_path: Path, method: str) -> None:
    proto = network({"x": SHAPE}, BODY, CONSTANTS, ["y", "z"])
    sample = random(*SHAPE, seed=30)
    session = built(tmp_path, proto, [[sample], [random(*SHAPE, seed=31)]], quantized_method=method)
    report = session.analyze([sample.transpose(0, 2, 3, 1)])
    assert assert_matches(report, session, {"x": sample}, per_channel=method == "channel") > 40
    joins = {line.name: line.parts for line in report.layers if line.parts}
    assert [(p.tensor, p.axis, p.start, p.stop) for p in joins["j"]] == [
        ("p", 1, 0, 6), ("sumr", 1, 6, 14), ("small", 1, 14, 16),
    ]  # fmt: skip
    assert [(p.tensor, p.axis, p.start, p.stop) for p in joins["wide"]] == [("prod", 3, 0, 4), ("left", 3, 4, 8)]


def test_the_report_lists_tensors_in_execution_order_with_fused_ones_empty(tmp_path: Path) -> None:
    proto = network({"x": SHAPE}, BODY, CONSTANTS, ["y", "z"])
    sample = random(*SHAPE, seed=30)
    session = built(tmp_path, proto, [[sample]])
    report = session.analyze([sample.transpose(0, 2, 3, 1)])
    assert [(line.name, line.op) for line in report.layers][:9] == [
        ("x", "Input"), ("a", "Conv"), ("ar", "ConvRelu"), ("s", "Conv"), ("g", "Sigmoid"), ("sw", "ConvExSwish"),
        ("r", "Conv"), ("sum", "Add"), ("sumr", "ConvAddRelu"),
    ]  # fmt: skip
    assert [line.name for line in report.layers if line.entire is None] == ["a", "s", "g", "r", "sum"]
    assert set(report.outputs) == {"y", "z"}
    assert report.outputs["y"] == next(line.entire for line in report.layers if line.name == "y")


def test_the_demo() -> None:
    session = Session(Config(mean_values=[demo.MEAN], std_values=[demo.STD], target_platform="rk3588"))
    session.load_onnx(demo.MODEL)
    session.build(dataset=demo.DATASET)
    for path, _ in demo.test_samples()[:2]:
        report = session.analyze([path])
        feeds = {"image": _grey(path)}
        assert assert_matches(report, session, feeds, per_channel=True) > 25


def _grey(path: Path) -> Array:
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image, np.float32)
    return ((pixels - demo.MEAN[0]) / demo.STD[0]).astype(np.float32)[None, None]


@needs_zoo
def test_a_real_model(tmp_path: Path) -> None:
    name, shape = "ch_ppocr_mobile_v2.0_cls_infer", (1, 3, 48, 192)
    dataset = tmp_path / "dataset.txt"
    dataset.write_text("".join(f"{photo}\n" for photo in sorted((FOLDER / "photos").iterdir())[:4]))
    session = Session(Config(mean_values=[[127.5] * 3], std_values=[[127.5] * 3]))  # type: ignore[arg-type]
    session.load_onnx(FOLDER / "onnx" / name / f"{name}.onnx", input_size_list=[shape])
    session.build(dataset=dataset)
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    report = session.analyze([pixels.transpose(0, 2, 3, 1)])
    feeds = {session.model.graph.inputs[0].name or "": (pixels - np.float32(127.5)) / np.float32(127.5)}
    assert assert_matches(report, session, feeds, per_channel=True) > 150


def join(tmp_path: Path, first: Array, second: Array, **settings: Any) -> tuple[Session, AccuracyReport]:
    """A join of two tensors, one half each of the output, analysed on what it was calibrated with."""
    body = "a = LeakyRelu (x1)\nb = LeakyRelu (x2)\ny = Concat <axis = 1> (a, b)"
    proto = network({"x1": first.shape, "x2": second.shape}, body, {})
    session = built(tmp_path, proto, [[first, second]], **settings)
    return session, session.analyze([first, second])


class TestPartsOfJoins:
    def test_a_part_too_small_for_the_common_scale_comes_out_zero_and_is_reported(self, tmp_path: Path) -> None:
        small = np.abs(random(1, 20, spread=1e-3))
        _, report = join(tmp_path, np.abs(random(1, 20, seed=1, spread=100)), small)
        whole, tiny = report.layers[-1].parts
        assert (whole.flag, tiny.flag) == ("", "zero")
        assert tiny.entire.cosine == tiny.single.cosine == 0.0
        assert tiny.entire.euclidean == pytest.approx(float(np.linalg.norm(small)), rel=1e-4)
        (warning,) = report.warnings
        assert "'b'" in warning and "'y'" in warning and "zero" in warning
        assert report.outputs["y"].cosine > 0.999

    def test_a_part_that_only_one_step_is_left_of_is_constant(self, tmp_path: Path) -> None:
        _, report = join(tmp_path, np.linspace(0, 100, 20, dtype=np.float32)[None], np.full((1, 20), 0.4, np.float32))
        part = report.layers[-1].parts[1]
        assert part.flag == ""  # constant in the float model too
        _, report = join(
            tmp_path,
            np.linspace(0, 100, 20, dtype=np.float32)[None],
            np.linspace(0.35, 0.45, 20, dtype=np.float32)[None],
        )
        assert report.layers[-1].parts[1].flag == "constant"

    def test_a_damaged_part_of_a_fine_join_is_a_warning(self, tmp_path: Path) -> None:
        _, report = join(tmp_path, np.abs(random(1, 400, seed=1, spread=100)), random(1, 40, spread=0.8))
        part = report.layers[-1].parts[1]
        assert part.flag == "" and part.single.cosine < 0.95 < 0.99 < report.outputs["y"].cosine
        (warning,) = report.warnings
        assert f"{part.single.cosine:.5f}" in warning

    def test_parts_of_like_size_make_no_warning(self, tmp_path: Path) -> None:
        _, report = join(tmp_path, random(1, 20, seed=1), random(1, 20))
        assert report.warnings == ()
        assert [part.flag for part in report.layers[-1].parts] == ["", ""]


class TestEdges:
    def test_tensors_of_zeros_agree(self, tmp_path: Path) -> None:
        zeros = np.zeros((1, 8), np.float32)
        session = built(tmp_path, network({"x": (1, 8)}, "y = Mul (x, x)", {}), [[zeros]])
        report = session.analyze([zeros])
        assert report.outputs["y"] == ErrorPair(1.0, 0.0)

    def test_scalars_and_vectors_have_errors_too(self, tmp_path: Path) -> None:
        body = "t = ReduceSum <keepdims = 0> (x)\nv = Reshape (x, flat)\ny = Mul (v, t)"
        proto = network({"x": (1, 100)}, body, {"flat": integers(100)})
        sample = random(1, 100)
        session = built(tmp_path, proto, [[sample]])
        assert_matches(session.analyze([sample]), session, {"x": sample}, per_channel=True)

    def test_large_tensors_keep_five_digits(self, tmp_path: Path) -> None:
        proto = network({"x": (1, 1, 3, 70_000)}, "y = LeakyRelu <alpha = 0.3> (x)", {})
        sample = random(1, 1, 3, 70_000, spread=20)
        session = built(tmp_path, proto, [[sample]])
        report = session.analyze([sample.transpose(0, 2, 3, 1)])
        assert_matches(report, session, {"x": sample}, per_channel=True)

    def test_model_tensors_may_be_called_like_the_sums(self, tmp_path: Path) -> None:
        body = "a = LeakyRelu (x)\nb = Mul (a, x)\ny = Concat <axis = 1> (b, a)"
        proto = renamed(network({"x": (1, 8)}, body, {}), {"a": "x.squares", "b": "axes.2"})
        sample = random(1, 8)
        session = built(tmp_path, proto, [[sample]])
        assert_matches(session.analyze([sample]), session, {"x": sample}, per_channel=True)

    def test_a_float16_end_is_compared_in_float16(self, tmp_path: Path) -> None:
        sample = random(1, 8)
        session = built(tmp_path, network({"x": (1, 8)}, "y = Softmax <axis = -1> (x)", {}), [[sample]])
        (line,) = [line for line in session.analyze([sample]).layers if line.name == "y"]
        assert line.precision == "float16"
        assert line.entire is not None
        exact = np.exp(sample.astype(np.float64) - sample.max())
        exact /= exact.sum()
        rounded = half(exact.astype(np.float32))
        assert line.entire.euclidean > euclidean(exact, rounded)

    def test_a_tensor_that_float16_cannot_hold_is_told(self, tmp_path: Path) -> None:
        large = np.array([[1, 2, 70000]], np.float32)
        session = built(tmp_path, network({"x": (1, 3)}, "y = Softmax <axis = -1> (x)", {}), [[large]])
        report = session.analyze([large])
        assert report.outputs["y"] == ErrorPair(0.0, float("inf"))
        assert "'y' becomes infinite or not a number" in report.warnings[0]

    def test_a_mask_of_the_lowest_float_is_no_overflow(self, tmp_path: Path) -> None:
        lowest = np.array([[0, 0, np.finfo(np.float32).min, 0]], np.float32)
        proto = network({"x": (1, 4), "m": (1, 4)}, "s = Add (x, m)\ny = Softmax <axis = -1> (s)", {})
        sample = [random(1, 4), lowest]
        session = built(tmp_path, proto, [sample])
        report = session.analyze(sample)
        errors = {line.name: line.entire for line in report.layers}
        assert errors["m"] is not None and errors["m"].cosine > 0.99999 and np.isfinite(errors["m"].euclidean)
        assert [warning for warning in report.warnings if "'s' holds scores and a mask of -3.403e+38" in warning]
        unmasked = [random(1, 4), np.zeros((1, 4), np.float32)]
        assert built(tmp_path, proto, [unmasked]).analyze(unmasked).warnings == ()

    def test_a_float_model_that_overflows_is_refused_by_name(self, tmp_path: Path) -> None:
        session = built(tmp_path, network({"x": (1, 4)}, "m = Exp (x)\ny = Mul (m, m)", {}), [[random(1, 4)]])
        with pytest.raises(QuantizationError, match="'m'"):
            session.analyze([np.full((1, 4), 100, np.float32)])

    def test_a_float16_build_and_a_bare_path_are_refused(self, tmp_path: Path) -> None:
        session = built(tmp_path, network({"x": (1, 4)}, "y = Mul (x, x)", {}), [[random(1, 4)]])
        with pytest.raises(InputError, match="list"):
            session.analyze("sample-0-0.npy")
        session.build(do_quantization=False)
        with pytest.raises(OrderError, match="float16"):
            session.analyze([random(1, 4)])


class TestFaintOutputs:
    """A detector that finds nothing gives noise; the cosine of noise with noise must not frighten anybody."""

    @pytest.fixture
    def session(self, tmp_path: Path) -> Session:
        proto = network({"x": (1, 20)}, "logit = Neg (x)\ny = Sigmoid (logit)", {})
        return built(tmp_path, proto, [[np.linspace(-9, 9, 20, dtype=np.float32)[None]]])

    def test_an_output_below_one_step_is_told_with_the_tensor_to_judge_by(self, session: Session) -> None:
        report = session.analyze([np.full((1, 20), 8.0, np.float32)])
        (warning,) = report.warnings
        assert "output 'y'" in warning and "judge by" in warning

    def test_a_lively_output_makes_no_warning(self, session: Session) -> None:
        assert session.analyze([np.linspace(-3, 3, 20, dtype=np.float32)[None]]).warnings == ()
