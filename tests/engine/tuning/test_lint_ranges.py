"""Lint on ranges: each rule has a model that it finds fault with and one, nearly the same, that it leaves alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import demo
from engine.config import Config
from engine.quantization.dataset import Dataset
from engine.quantization.histograms import Histogram
from engine.quantization.preprocessing import input_specs
from engine.session import Session
from engine.tuning.lint.ranges import rounding_noise, usual_range
from tests.engine.tuning.lint_cases import Case, calibrated, case, drawn
from tests.small_networks import integers, network, random


def numbers(text: str) -> set[str]:
    return set(re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", text))


SHAPE = (1, 4, 8, 8)


class TestJoins:
    BODY = "a = Neg (x)\nb = Mul (x2, factor)\nj = Concat <axis = 1> (a, b)\n"

    def joined(
        self, folder: Path, factor: float, tail: str = "y = Transpose <perm = [0, 2, 3, 1]> (j)", **settings: Any
    ) -> Case:
        constants = {
            "factor": np.float32(factor), "flat": integers(1, 8, 64), "w": random(4, 8, 1, 1, spread=0.3),
        }  # fmt: skip
        used = {name: array for name, array in constants.items() if name in self.BODY + tail}
        samples = [{"x": sample["x"], "x2": sample["x"]} for sample in drawn(x=SHAPE)]
        return case(folder, network({"x": SHAPE, "x2": SHAPE}, self.BODY + tail, used), samples, **settings)

    def test_parts_more_than_16_times_apart_are_told_and_cured(self, tmp_path: Path) -> None:
        apart = self.joined(tmp_path, 1 / 17)
        (finding,) = apart.find("join-ranges")
        assert finding.layer == "j" and "'a'" in finding.message and "'b'" in finding.message
        assert finding.wishes == {"j": "float16", "y": "float16"}
        assert apart.noise(finding.wishes) < apart.noise({}) / 20
        assert self.joined(tmp_path, 1 / 15).find("join-ranges") == []

    def test_the_message_counts_the_steps_that_are_left(self, tmp_path: Path) -> None:
        apart = self.joined(tmp_path, 0.01)
        (finding,) = apart.find("join-ranges")
        low, high = apart.statistics.ranges["a"]
        assert {f"{high - low:.4g}", "100", "2.55", "255"} <= numbers(finding.message)

    def test_what_keeps_the_parts_apart_needs_the_precision_too_and_a_convolution_ends_it(self, tmp_path: Path) -> None:
        tail = "r = LeakyRelu (j)\nc = Conv <kernel_shape = [1, 1]> (r, w)\ny = Neg (c)"
        (finding,) = self.joined(tmp_path, 0.01, tail).find("join-ranges")
        assert list(finding.wishes) == ["j", "r", "c"]
        (finding,) = self.joined(tmp_path, 0.01, "r = Reshape (j, flat)\ny = Neg (r)").find("join-ranges")
        assert list(finding.wishes) == ["j", "r", "y"]

    def test_a_small_part_that_is_made_on_the_coarse_scale_needs_it_too(self, tmp_path: Path) -> None:
        apart = self.joined(tmp_path, 0.01).ranged("b", -5.0, 5.0)
        (finding,) = apart.find("join-ranges")
        assert list(finding.wishes) == ["b", "j", "y"]

    def test_a_target_without_float16_gets_int16(self, tmp_path: Path) -> None:
        apart = self.joined(tmp_path, 1 / 17, target_platform="rv1106")
        (finding,) = apart.find("join-ranges")
        assert set(finding.wishes.values()) == {"int16"} and "int16" in finding.remedy
        assert apart.noise(finding.wishes) < apart.noise({}) / 20

    def test_a_join_in_a_finer_precision_is_fine(self, tmp_path: Path) -> None:
        apart = self.joined(tmp_path, 1 / 100)
        assert apart.wished(j="float16", y="float16").find() == []
        assert apart.wished(j="int16", y="int16").find() == []

    def test_several_small_parts_make_one_finding(self, tmp_path: Path) -> None:
        body = "a = Mul (x, c1)\nb = Mul (x, c2)\ny = Concat <axis = 1> (a, x, b)"
        constants = {"c1": np.float32(1e-2), "c2": np.float32(1e-3)}
        several = case(tmp_path, network({"x": SHAPE}, body, constants), drawn(x=SHAPE))
        (finding,) = several.find()
        assert "1000 times less" in finding.message and "few for 'a'" in finding.message
        assert "'b' comes out constant" in finding.message

    def test_constant_parts_need_no_steps(self, tmp_path: Path) -> None:
        body = "z = Mul (x, zero)\na = Add (z, half)\ny = Concat <axis = 1> (x, a)"
        constants = {"zero": np.float32(0), "half": np.float32(0.01)}
        assert case(tmp_path, network({"x": SHAPE}, body, constants), drawn(x=SHAPE)).find("join-ranges") == []

    def test_the_demo(self) -> None:
        session = Session(Config(mean_values=[demo.MEAN], std_values=[demo.STD], target_platform="rk3588"))
        session.load_onnx(demo.MODEL)
        specs = input_specs(session.config, session.summary().inputs)
        bundled = calibrated(session, list(Dataset(demo.DATASET, specs)))
        (finding,) = bundled.find()
        assert (finding.rule, finding.layer) == ("join-ranges", "joined")
        assert "'size'" in finding.message and "'evidence'" in finding.message
        assert bundled.noise(finding.wishes) < bundled.noise({}) / 100


class TestRareRanges:
    def spiked(self, folder: Path, spikes: int, size: float, body: str = "a = LeakyRelu (x)\nb = Mul (a, x)\n") -> Case:
        """A few of 12 * 64 * 64 values are far beyond the others."""
        samples = drawn(x=(1, 1, 64, 64))
        samples[0]["x"].reshape(-1)[:spikes] = size
        return case(folder, network({"x": (1, 1, 64, 64)}, body + "y = Neg (b)", {}), samples)

    def test_values_so_rare_that_they_would_not_be_missed(self, tmp_path: Path) -> None:
        spiked = self.spiked(tmp_path, 4, 40)
        findings = spiked.find("rare-range")
        # Neither the model's input nor its output is clipped.
        assert [finding.layer for finding in findings] == ["a", "b"]
        assert "to 40, but fewer than 1 in 10000" in findings[0].message and "'mmse'" in findings[0].remedy
        assert findings[0].wishes == {"a": "float16", "b": "float16"}

    @pytest.mark.parametrize(("spikes", "size"), [(6, 40), (4, 7)])
    def test_values_that_are_not_so_rare_or_not_so_far(self, tmp_path: Path, spikes: int, size: float) -> None:
        assert [f.layer for f in self.spiked(tmp_path, spikes, size).find("rare-range") if f.layer == "a"] == []

    def test_a_tensor_that_only_repeats_another_is_not_told_again(self, tmp_path: Path) -> None:
        body = "a = LeakyRelu (x)\nn = Neg (a)\nb = Mul (n, x)\n"
        assert [f.layer for f in self.spiked(tmp_path, 4, 40, body).find("rare-range")] == ["a", "b"]

    def test_the_narrowest_range_that_holds_all_but_a_share(self) -> None:
        counts = np.zeros(100, np.int64)
        counts[50:60] = 10_000
        counts[0], counts[99] = 4, 7
        spread = Histogram(-50.0, 50.0, counts)
        # Ten of 100011 values may go: the four at the lower end or the seven at the upper one, not both.
        assert usual_range(spread) == (0.0, 50.0)
        counts[0] = 3
        assert usual_range(Histogram(-50.0, 50.0, counts)) == (0.0, 10.0)
        assert usual_range(Histogram(20.0, 120.0, counts)) == (0.0, 80.0)

    def test_the_noise_of_rounding_is_that_of_the_values(self) -> None:
        values = random(100_000)
        low, high = float(values.min()), float(values.max())
        spread = Histogram(low, high, np.histogram(values, 2048, (low, high))[0])
        for step in (0.1, 0.5, 1.0):
            noise = float(np.mean((values - np.rint(values / step) * step) ** 2) / np.mean(values**2))
            assert rounding_noise(spread, low, high, step) == pytest.approx(noise, rel=0.1)


class TestMasks:
    def masked(self, folder: Path, mask: float) -> Case:
        later = np.where(np.triu(np.ones((6, 6), bool), 1), np.float32(mask), np.float32(0))
        proto = network({"x": (1, 6, 6), "m": (6, 6)}, "s = Add (x, m)\np = Softmax <axis = -1> (s)\ny = Neg (p)", {})
        return case(folder, proto, [{**sample, "m": later} for sample in drawn(x=(1, 6, 6))])

    def test_a_mask_of_minus_10000(self, tmp_path: Path) -> None:
        (finding,) = self.masked(tmp_path, -10000).find("masked-scores")
        assert finding.layer == "s" and list(finding.wishes) == ["s", "p"]
        assert self.masked(tmp_path, -10000).noise(finding.wishes) < self.masked(tmp_path, -10000).noise({}) / 100

    def test_a_mask_of_minus_100_is_fine(self, tmp_path: Path) -> None:
        assert self.masked(tmp_path, -100).find("masked-scores") == []

    def test_a_mask_that_float16_cannot_hold_has_to_change(self, tmp_path: Path) -> None:
        (finding,) = self.masked(tmp_path, -1e9).find("masked-scores")
        assert finding.wishes == {} and "-100" in finding.remedy


class TestHalfOverflow:
    def scaled(self, folder: Path, size: float) -> Case:
        samples = [{"x": np.linspace(-size, size, 20, dtype=np.float32)[None]}] * 10
        return case(folder, network({"x": (1, 20)}, "a = Neg (x)\ny = LeakyRelu (a)", {}), samples)

    def test_float16_for_values_beyond_65504(self, tmp_path: Path) -> None:
        large = self.scaled(tmp_path, 70_000)
        assert large.find("half-overflow") == []
        (finding,) = large.wished(y="float16").find("half-overflow")
        assert finding.layer == "y" and "-7e+04 to 7e+04" in finding.message and finding.wishes == {"y": "int16"}
        assert self.scaled(tmp_path, 65_000).wished(y="float16").find("half-overflow") == []
