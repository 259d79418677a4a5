"""Tensors and constants take the memory that the toolkit prints, padded to the blocks of the chip."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Config
from engine.cost.chips import Chip, chip_of
from engine.cost.memory import (
    CONVOLUTION,
    DENSE,
    DEPTHWISE,
    INPUT,
    OTHER,
    bias_bytes,
    constant_bytes,
    operand_bytes,
    tensor_bytes,
    weight_bytes,
)
from engine.session import Session
from engine.targets import TARGETS, find_target
from tests.zoo import FOLDER, needs_zoo

KINDS = (CONVOLUTION, DEPTHWISE, INPUT, OTHER, DENSE)
CHIPS = st.sampled_from(sorted(TARGETS)).map(lambda name: chip_of(find_target(name)))
SIDES = st.integers(1, 40)
RK3566, RK3588 = chip_of(find_target("rk3566")), chip_of(find_target("rk3588"))

WEIGHTS = Path(__file__).parents[2] / "data" / "stored_weights.csv"
"""Of convolutions in three real networks, what their weights take in the tables that RKNN-Toolkit2 2.5.0 prints; the
channels of depthwise ones stand second."""


def test_weights_take_what_the_toolkit_prints() -> None:
    count = 0
    with WEIGHTS.open(newline="") as file:
        for row in csv.DictReader(file):
            outputs, inputs, *window = map(int, row["weight"].split("x"))
            depthwise = outputs == 1 and inputs > 1
            if depthwise:
                outputs = inputs
            groups = inputs if depthwise else 1
            chip, kernel = chip_of(find_target(row["target"])), math.prod(window)
            found = weight_bytes(outputs, inputs, kernel, row["precision"], chip, groups=groups)
            # Most are printed as they are, some rounded up to 64 bytes.
            assert found == -(-int(row["bytes"]) // 64) * 64, row
            count += 1
    assert count > 600


# Of a classifier, a text detector and a face detector: what the toolkit prints as total weight memory, in units of 1024
# bytes, in int8 on rk3566, rk3588 and rv1106, then in float16 on rk3566 and rk3588.
PRINTED = {
    "ch_ppocr_mobile_v2.0_cls_infer": ((1, 3, 48, 192), (210.0, 230.25, 252.312, 319.938, 339.188)),
    "ch_PP-OCRv4_det_infer": ((1, 3, 480, 480), (1302.94, 1319.12, 1424.5, 2462.56, 2483.0)),
    "ultraface_slim320": ((1, 3, 240, 320), (278.625, 283.875, 291.375, 511.938, 515.188)),
}


@needs_zoo
@pytest.mark.parametrize("name", sorted(PRINTED))
def test_the_constants_of_real_networks_take_what_the_toolkit_prints(name: str) -> None:
    shape, printed = PRINTED[name]
    (path,) = (FOLDER / "onnx" / name).glob("*.onnx")
    session = Session(Config(target_platform="rk3588"))
    session.load_onnx(path, input_size_list=[list(shape)])
    builds = [("rk3566", False), ("rk3588", False), ("rv1106", False), ("rk3566", True), ("rk3588", True)]
    for (target, float16), expected in zip(builds, printed, strict=True):
        found = session.estimate(target, float16=float16).memory.weight_bytes
        assert found / 1024 == pytest.approx(expected, rel=0.01), (target, float16)


def test_feature_maps_are_padded_to_what_their_layer_writes_at_once() -> None:
    shape = (1, 3, 10, 10)
    assert tensor_bytes(shape, "int8", CONVOLUTION, RK3588) == 3200
    assert tensor_bytes(shape, "int8", DEPTHWISE, RK3588) == 6400
    assert tensor_bytes(shape, "int8", OTHER, RK3588) == 1600
    assert tensor_bytes(shape, "int8", OTHER, RK3566) == 832
    assert tensor_bytes(shape, "float16", CONVOLUTION, RK3566) == 1600


def test_images_and_tensors_without_channels_have_no_padding() -> None:
    assert tensor_bytes((1, 3, 48, 192), "int8", INPUT, RK3588) == 3 * 48 * 192
    assert tensor_bytes((1, 5, 8, 8), "int8", INPUT, RK3588) == 16 * 64
    assert tensor_bytes((10, 100), "float16", OTHER, RK3588) == 2048
    assert tensor_bytes((1, 3, 4, 4), "", OTHER, RK3588) == 192
    assert tensor_bytes((1, 3, 4, 4), "float32", CONVOLUTION, RK3588) == 192
    assert tensor_bytes((), "", OTHER, RK3588) == 64
    assert tensor_bytes((1, 0, 4, 4), "int8", CONVOLUTION, RK3588) == 0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(CHIPS, st.sampled_from(KINDS), st.integers(1, 3), st.integers(1, 300), SIDES, SIDES)
def test_a_tensor_takes_at_least_its_numbers_and_more_with_more_channels_or_bits(
    chip: Chip, kind: str, batch: int, channels: int, h: int, w: int
) -> None:
    shape = (batch, channels, h, w)
    size = tensor_bytes(shape, "int8", kind, chip)
    assert size % 64 == 0 and size >= math.prod(shape)
    assert size <= tensor_bytes((batch, channels + 1, h, w), "int8", kind, chip) or kind == INPUT
    assert size <= tensor_bytes(shape, "int16", kind, chip)
    assert size <= tensor_bytes(shape, "float16", kind, chip)
    assert tensor_bytes(shape, "int8", DENSE, chip) <= size


@settings(max_examples=25, deadline=None, derandomize=True)
@given(CHIPS, st.integers(1, 300), st.integers(1, 300), st.integers(1, 25))
def test_weights_take_at_least_their_numbers_and_more_with_more_channels_or_bits(
    chip: Chip, outputs: int, inputs: int, kernel: int
) -> None:
    size = weight_bytes(outputs, inputs, kernel, "int8", chip)
    assert size % 64 == 0 and size >= outputs * inputs * kernel
    assert size <= weight_bytes(outputs + 1, inputs, kernel, "int8", chip)
    assert size <= weight_bytes(outputs, inputs + 1, kernel, "int8", chip)
    assert size <= weight_bytes(outputs, inputs, kernel, "float16", chip)
    biases = bias_bytes(outputs, inputs, "int8", chip)
    assert biases >= 4 * outputs and biases <= bias_bytes(outputs + 1, inputs, "int8", chip)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(CHIPS, st.integers(1, 8), st.integers(1, 40), st.integers(2, 40), st.integers(1, 9))
def test_groups_never_take_more_than_one_convolution_with_zeros_between_them(
    chip: Chip, groups: int, outputs: int, inputs: int, kernel: int
) -> None:
    whole = weight_bytes(groups * outputs, groups * inputs, kernel, "int8", chip)
    assert weight_bytes(groups * outputs, groups * inputs, kernel, "int8", chip, groups=groups) <= whole


def test_large_groups_are_stored_apart() -> None:
    apart = weight_bytes(64, 64, 9, "int8", RK3588)
    assert weight_bytes(128, 128, 9, "int8", RK3588, groups=2) == 2 * apart
    assert weight_bytes(256, 256, 9, "int8", RK3588) == 16 * apart
    assert weight_bytes(64, 64, 9, "int8", RK3588, groups=64) == 64 * 9


def test_other_constants_take_their_numbers() -> None:
    assert constant_bytes(100, "float16") == 256
    assert constant_bytes(3, "") == 64
    assert operand_bytes(17) == 128
    assert operand_bytes(1) == 64
