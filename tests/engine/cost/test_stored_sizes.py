"""Tensors and constants take the memory that the toolkit prints, padded to the blocks of the chip."""

from __future__ import annotations

import functools
import math

import onnx_ir as ir
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
    constant_bytes,
    operand_bytes,
    tensor_bytes,
    weight_bytes,
)
from engine.graph.layers import layers
from engine.graph.query import attribute, constant, static_shape
from engine.session import Session
from engine.targets import TARGETS, find_target
from tests.zoo import FOLDER, needs_zoo

KINDS = (CONVOLUTION, DEPTHWISE, INPUT, OTHER, DENSE)
CHIPS = st.sampled_from(sorted(TARGETS)).map(lambda name: chip_of(find_target(name)))
SIDES = st.integers(1, 40)
RK3566, RK3588 = chip_of(find_target("rk3566")), chip_of(find_target("rk3588"))

CLASSIFIER = ("ch_ppocr_mobile_v2.0_cls_infer", (1, 3, 48, 192))
DETECTOR = ("ch_PP-OCRv4_det_infer", (1, 3, 480, 480))
# What RKNN-Toolkit2 2.5.0 prints as total weight memory, in units of 1024 bytes.
PRINTED = [
    (CLASSIFIER, "rk3566", "int8", 210),
    (CLASSIFIER, "rk3588", "int8", 230.25),
    (DETECTOR, "rk3566", "int8", 1302.9),
    (DETECTOR, "rk3588", "float16", 2483),
]


@functools.lru_cache(maxsize=2)
def optimized(name: str, shape: tuple[int, ...]) -> ir.Model:
    """A network of the zoo as it is built."""
    session = Session(Config(target_platform="rk3588"))
    session.load_onnx(FOLDER / "onnx" / name / f"{name}.onnx", input_size_list=[list(shape)])
    return session.model


@needs_zoo
@pytest.mark.parametrize(("network", "target", "precision", "printed"), PRINTED)
def test_the_constants_of_real_networks_take_what_the_toolkit_prints(
    network: tuple[str, tuple[int, ...]], target: str, precision: str, printed: float
) -> None:
    chip, total = chip_of(find_target(target)), 0
    for layer in layers(optimized(*network)):
        node = layer.nodes[0]
        values = [v for v in node.inputs if v is not None]
        if node.op_type in ("Conv", "ConvTranspose"):
            inputs, outputs = static_shape(values[0])[1], static_shape(node.outputs[0])[1]
            kernel, groups = math.prod(static_shape(values[1])[2:]), attribute(node, "group", 1)
            total += weight_bytes(outputs, inputs, kernel, precision, chip, groups=groups, bias=len(values) > 2)
        elif node.op_type in ("Mul", "Add") and any(constant(value) is not None for value in values):
            total += operand_bytes(static_shape(node.outputs[0])[1], precision, chip)
    assert total / 1024 == pytest.approx(printed, rel=0.005)


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
    size = weight_bytes(outputs, inputs, kernel, "int8", chip, bias=False)
    assert size % 64 == 0 and size >= outputs * inputs * kernel
    assert size <= weight_bytes(outputs + 1, inputs, kernel, "int8", chip, bias=False)
    assert size <= weight_bytes(outputs, inputs + 1, kernel, "int8", chip, bias=False)
    assert size <= weight_bytes(outputs, inputs, kernel, "float16", chip, bias=False)
    assert size < weight_bytes(outputs, inputs, kernel, "int8", chip)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(CHIPS, st.integers(1, 8), st.integers(1, 40), st.integers(2, 40), st.integers(1, 9))
def test_groups_never_take_more_than_one_convolution_with_zeros_between_them(
    chip: Chip, groups: int, outputs: int, inputs: int, kernel: int
) -> None:
    whole = weight_bytes(groups * outputs, groups * inputs, kernel, "int8", chip)
    assert weight_bytes(groups * outputs, groups * inputs, kernel, "int8", chip, groups=groups) <= whole
    depthwise = weight_bytes(groups * inputs, groups * inputs, kernel, "int8", chip, groups=groups * inputs)
    assert depthwise <= weight_bytes(groups * inputs, groups * inputs, kernel, "int8", chip)


def test_large_groups_are_stored_apart() -> None:
    apart = weight_bytes(64, 64, 9, "int8", RK3588, bias=False)
    assert weight_bytes(128, 128, 9, "int8", RK3588, groups=2, bias=False) == 2 * apart
    assert weight_bytes(256, 256, 9, "int8", RK3588, bias=False) == 16 * apart


def test_other_constants_take_their_numbers_or_a_pair_for_each_channel() -> None:
    assert constant_bytes(100, "float16") == 256
    assert constant_bytes(3, "") == 64
    assert operand_bytes(17, "int8", RK3588) == 256
    assert operand_bytes(17, "float16", RK3588) == 256
    assert operand_bytes(16, "float16", RK3588) == 128
