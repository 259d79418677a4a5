"""Lint: each rule has a model that it finds fault with and one, nearly the same, that it leaves alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import Config
from engine.errors import Cancelled
from engine.progress import Progress
from engine.quantization.dataset import Dataset
from engine.quantization.preprocessing import input_specs
from engine.session import Session
from engine.tuning.lint import RULES, lint, lint_float
from tests.engine.tuning.lint_cases import Case, Sample, calibrated, case, drawn
from tests.small_networks import Array, integers, network, random
from tests.zoo import FOLDER, needs_zoo

SHAPE = (1, 4, 8, 8)


def test_nothing_is_said_of_an_ordinary_network(tmp_path: Path) -> None:
    body = """
    a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
    ar = Relu (a)
    j = Concat <axis = 1> (ar, x)
    y = Conv <kernel_shape = [1, 1]> (j, v)
    """
    proto = network({"x": SHAPE}, body, {"w": random(4, 4, 3, 3, spread=0.2), "v": random(4, 8, 1, 1, spread=0.3)})
    plain = case(tmp_path, proto, drawn(x=SHAPE))
    assert plain.find(inference=drawn(13, x=SHAPE)[-1]) == []
    assert plain.wished(a="float16", ar="float16").find() == []


class TestDeadOutputs:
    def test_a_part_that_its_join_zeroes_is_told_with_the_join_only(self, tmp_path: Path) -> None:
        body = "a = Neg (x)\nb = Mul (x, small)\ny = Concat <axis = 1> (a, b)"
        zeroed = case(tmp_path, network({"x": SHAPE}, body, {"small": np.float32(1e-3)}), drawn(x=SHAPE))
        (finding,) = zeroed.find()
        assert finding.rule == "join-ranges" and "'b' comes out constant" in finding.message

    @pytest.fixture
    def negated(self, tmp_path: Path) -> Case:
        return case(tmp_path, network({"x": SHAPE}, "y = Neg (x)", {}), drawn(x=SHAPE))

    def test_an_output_that_quantization_flattens(self, negated: Case) -> None:
        (finding,) = negated.ranged("y_int8", 0, 10_000).find("dead-output")
        assert finding.layer == "y" and "is 0 everywhere on 4 samples in the quantized model" in finding.message
        assert negated.ranged("y_int8", 0, 1).find("dead-output") == []

    def test_a_quiet_sample_is_no_dead_output(self, negated: Case) -> None:
        quiet = [{"x": sample["x"] * np.float32(1e-3)} for sample in negated.samples]
        assert negated.find("dead-output", samples=quiet) == []

    def test_an_output_that_the_float_model_never_changes(self, tmp_path: Path) -> None:
        body = "a = Abs (x)\nn = Neg (a)\ny = Relu (n)\nz = Relu (x)"
        flat = case(tmp_path, network({"x": SHAPE}, body, {}, ["y", "z"]), drawn(x=SHAPE))
        (finding,) = flat.find("dead-output")
        assert finding.layer == "y" and "0 everywhere" in finding.message and "float model already" in finding.message

    def test_one_number_from_one_sample_is_not_constant(self, tmp_path: Path) -> None:
        proto = network({"x": SHAPE}, "y = ReduceMax <keepdims = 0> (x)", {})
        assert case(tmp_path, proto, drawn(1, x=SHAPE)).find("dead-output") == []
        same = [{"x": np.ones(SHAPE, np.float32)}] * 3
        assert len(case(tmp_path, proto, same).find("dead-output")) == 1


class TestWeights:
    BODY = "a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)\ny = Relu (a)"

    def convolved(self, folder: Path, weight: Array, **settings: Any) -> Case:
        return case(folder, network({"x": (1, 32, 8, 8)}, self.BODY, {"w": weight}), drawn(x=(1, 32, 8, 8)), **settings)

    def outlying(self, size: float) -> Array:
        weight = random(8, 32, 3, 3, spread=0.01)
        weight[5, 7, 1, 1] = size
        return weight

    def test_one_weight_that_sets_the_grid_of_its_channel(self, tmp_path: Path) -> None:
        bad = self.convolved(tmp_path, self.outlying(1.0))
        (finding,) = bad.find("outlier-weights")
        assert finding.layer == "y" and "output channel 5 is 1," in finding.message
        assert finding.wishes == {"a": "float16", "y": "float16"}
        assert self.convolved(tmp_path, self.outlying(0.3)).find("outlier-weights") == []

    def test_a_rest_that_is_next_to_nothing_does_not_matter(self, tmp_path: Path) -> None:
        assert self.convolved(tmp_path, self.outlying(100.0)).find("outlier-weights") == []

    def test_a_layer_in_float16_has_no_grid(self, tmp_path: Path) -> None:
        bad = self.convolved(tmp_path, self.outlying(1.0))
        assert bad.wished(a="float16", y="float16").find("outlier-weights") == []

    def test_one_grid_for_all_channels_is_told_once(self, tmp_path: Path) -> None:
        weight = random(8, 32, 3, 3, spread=0.01)
        weight[:2] *= 80
        (finding,) = self.convolved(tmp_path, weight, quantized_method="layer").find("outlier-weights")
        assert "6 of 8 output channels" in finding.message and "'channel'" in finding.remedy
        assert self.convolved(tmp_path, weight, quantized_method="channel").find("outlier-weights") == []

    @pytest.mark.parametrize("op", ["ConvTranspose", "Gemm", "MatMul"])
    def test_channels_of_other_operators(self, tmp_path: Path, op: str) -> None:
        if op == "ConvTranspose":
            # Two groups of 128 to 2 channels: output channel 3 is the second of the second group.
            shape, weight = (1, 256, 4, 4), random(256, 2, 1, 1, spread=0.01)
            weight[200, 1] = 1.0
            body = "y = ConvTranspose <kernel_shape = [1, 1], group = 2> (x, w)"
        else:
            shape, weight = (1, 256), random(256, 4, spread=0.01)
            weight[200, 3] = 1.0
            body = f"y = {op} (x, w)"
        bad = case(tmp_path, network({"x": shape}, body, {"w": weight}), drawn(x=shape))
        (finding,) = bad.find("outlier-weights")
        assert "output channel 3 is 1," in finding.message


class TestUndonePrecisions:
    @pytest.fixture
    def branched(self, tmp_path: Path) -> Case:
        body = """
        a = Conv <kernel_shape = [1, 1]> (x, w)
        ar = Relu (a)
        s = Softplus (ar)
        t = Mul (s, x)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (t)
        r = Reshape (p, flat)
        y = Neg (r)
        """
        constants = {"w": random(4, 4, 1, 1), "flat": integers(1, 64)}
        return case(tmp_path, network({"x": SHAPE}, body, constants), drawn(x=SHAPE))

    @pytest.mark.parametrize(
        ("wishes", "added"),
        [
            pytest.param({"s": "float16"}, {"t"}, id="int8 on both sides"),
            pytest.param({"s": "int16"}, {"t"}, id="int16 too"),
            pytest.param({"p": "float16"}, {"t", "r", "y"}, id="copies need both ends"),
            pytest.param({"t": "float16", "p": "float16", "r": "float16"}, {"y"}, id="copies behind a product"),
            pytest.param({"x": "float16"}, {"a", "ar", "t"}, id="an input that all read in int8"),
        ],
    )
    def test_what_changes_nothing_is_told_with_the_neighbours_that_help(
        self, branched: Case, wishes: dict[str, str], added: set[str]
    ) -> None:
        (finding,) = branched.wished(**wishes).find("undone-precision")
        assert finding.wishes.keys() == wishes.keys() | added
        assert branched.noise(wishes) == pytest.approx(branched.noise({}), rel=0.1)
        assert branched.noise(finding.wishes) < branched.noise({}) * 0.9
        assert branched.wished(**finding.wishes).find("undone-precision") == []

    @pytest.mark.parametrize(
        "wishes",
        [
            pytest.param({"a": "float16", "ar": "float16"}, id="weights gain"),
            pytest.param({"y": "float16"}, id="an output"),
            pytest.param({"s": "float16", "t": "float16"}, id="a maker and its reader"),
            pytest.param({"x": "float16", "t": "float16"}, id="an input and a reader"),
        ],
    )
    def test_what_helps_is_not_told(self, branched: Case, wishes: dict[str, str]) -> None:
        assert branched.wished(**wishes).find("undone-precision") == []

    @pytest.mark.parametrize("tensor", ["a", "ar"])
    def test_a_wish_that_parts_a_fused_layer(self, branched: Case, tensor: str) -> None:
        (finding,) = branched.wished(**{tensor: "float16"}).find("undone-precision")
        assert finding.layer == "ar" and "parts" in finding.message
        assert finding.wishes == {"a": "float16", "ar": "float16"}

    def test_wishes_for_what_is_so_anyway(self, branched: Case) -> None:
        (finding,) = branched.wished(s="int8", t="int8").find("undone-precision")
        assert finding.message.startswith("2 lines") and "'s', 't'" in finding.message


class TestSamples:
    PROTO = network({"x": (1, 3, 8, 8)}, "y = Neg (x)", {})

    def pictures(self, number: int, mean: float, std: float, dark: float = 1.0) -> list[Sample]:
        generator = np.random.default_rng(number)
        return [
            {"x": ((generator.uniform(0, 255 * dark, (1, 3, 8, 8)) - mean) / std).astype(np.float32)}
            for _ in range(number)
        ]

    @pytest.mark.parametrize(
        ("calibration", "inference", "cause"),
        [
            ((0, 255), (0, 1), "not divided by std"),
            ((127.5, 127.5), (0, 1), "not divided by std"),
            ((0, 1), (0, 255), "divided by std twice"),
            ((127.5, 1), (0, 1), "no mean was subtracted"),
            ((0, 1), (127.5, 1), "a mean was subtracted"),
            ((127.5, 127.5), (0, 127.5), "no mean was subtracted"),
        ],
    )
    def test_other_mean_and_std_than_in_calibration(
        self, tmp_path: Path, calibration: tuple[float, float], inference: tuple[float, float], cause: str
    ) -> None:
        known = case(tmp_path, self.PROTO, self.pictures(12, *calibration))
        (finding,) = known.find(inference=self.pictures(1, *inference)[0])
        assert (finding.rule, finding.layer) == ("input-mismatch", "x") and cause in finding.message

    def test_a_dark_picture_is_a_picture(self, tmp_path: Path) -> None:
        known = case(tmp_path, self.PROTO, self.pictures(12, 127.5, 127.5))
        assert known.find(inference=self.pictures(1, 127.5, 127.5, dark=0.2)[0]) == []

    @pytest.mark.parametrize(("number", "told"), [(9, True), (10, False)])
    def test_few_samples(self, tmp_path: Path, number: int, told: bool) -> None:
        findings = case(tmp_path, self.PROTO, drawn(number, x=(1, 3, 8, 8))).find("few-samples")
        assert [f"{number} samples" in finding.message for finding in findings] == [True] * told

    def test_samples_that_are_all_the_same(self, tmp_path: Path) -> None:
        same = drawn(1, x=(1, 3, 8, 8)) * 12
        (finding,) = case(tmp_path, self.PROTO, same).find()
        assert finding.rule == "constant-samples" and "all 12 samples" in finding.message

    def test_an_input_that_never_changes(self, tmp_path: Path) -> None:
        proto = network({"x": (1, 20), "state": (1, 20), "rate": (1,)}, "s = Add (x, state)\ny = Mul (s, rate)", {})
        constant = {"state": np.zeros((1, 20), np.float32), "rate": np.full(1, 16.0, np.float32)}
        samples = [{**sample, **constant} for sample in drawn(x=(1, 20))]
        (finding,) = case(tmp_path, proto, samples).find("constant-samples")
        assert finding.layer == "state"

    def test_a_sample_that_needs_more_than_was_calibrated(self, tmp_path: Path) -> None:
        # The sum over all pixels is small in noise, and large where all pixels are bright.
        proto = network({"x": (1, 3, 8, 8)}, "a = Neg (x)\ny = ReduceSum <keepdims = 0> (a)", {})
        known = case(tmp_path, proto, drawn(x=(1, 3, 8, 8)))
        bright = {"x": np.full((1, 3, 8, 8), 2, np.float32)}
        (finding,) = known.find(inference=bright)
        assert (finding.rule, finding.layer) == ("saturated", "y") and "-384 to -384" in finding.message
        assert known.find(inference=drawn(13, x=(1, 3, 8, 8))[-1]) == []


def test_grave_findings_come_first_then_execution_order_and_evidence_may_be_absent(tmp_path: Path) -> None:
    body = """
    a = Mul (x, small)
    j = Concat <axis = 1> (x, a)
    b = Mul (j, small)
    k = Concat <axis = 1> (j, b)
    n = Neg (k)
    y = LeakyRelu (n)
    """
    proto = network({"x": SHAPE}, body, {"small": np.float32(0.01)})
    bad = case(tmp_path, proto, drawn(3, x=SHAPE)).wished(n="float16")
    findings = bad.find()
    order = [(RULES.index(finding.rule), finding.layer) for finding in findings]
    assert order == sorted(order, key=lambda key: (key[0], "xajbkny".find(key[1] or "-")))
    assert [(f.rule, f.layer) for f in findings] == [
        ("join-ranges", "j"), ("join-ranges", "k"), ("undone-precision", "n"), ("few-samples", ""),
    ]  # fmt: skip
    assert [f.rule for f in bad.find(statistics=None, samples=())] == ["join-ranges", "join-ranges", "undone-precision"]


def two_scales(folder: Path) -> Case:
    proto = network({"x": SHAPE}, "a = Mul (x, small)\ny = Concat <axis = 1> (x, a)", {"small": np.float32(0.01)})
    return case(folder, proto, drawn(x=SHAPE))


def test_before_quantizing_as_after(tmp_path: Path) -> None:
    apart = two_scales(tmp_path)
    quantized, config = apart.quantized, dataclasses.replace(apart.config, quantized_algorithm="mmse")
    before = lint_float(quantized.model, quantized.layers, apart.statistics, config, samples=apart.samples)
    assert list(before) == apart.find() and before


def test_it_can_be_cancelled(tmp_path: Path) -> None:
    apart = two_scales(tmp_path)
    with pytest.raises(Cancelled):
        lint(apart.quantized, apart.config.target, progress=Progress(cancelled=lambda: True))


@needs_zoo
def test_a_real_classifier_has_few_findings(tmp_path: Path) -> None:
    name = "ch_ppocr_mobile_v2.0_cls_infer"
    session = Session(Config(mean_values=[[127.5] * 3], std_values=[[127.5] * 3]))  # type: ignore[arg-type]
    session.load_onnx(FOLDER / "onnx" / name / f"{name}.onnx", input_size_list=[(1, 3, 48, 192)])
    dataset = tmp_path / "dataset.txt"
    dataset.write_text("".join(f"{photo}\n" for photo in sorted((FOLDER / "photos").iterdir())[:10]))
    known = calibrated(session, list(Dataset(dataset, input_specs(session.config, session.summary().inputs))))
    assert [(f.rule, f.layer) for f in known.find()] == [("rare-range", "tmp_8")]
