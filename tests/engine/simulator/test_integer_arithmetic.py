"""The simulator's layers equal what integer arithmetic gives: int8 times int8 summed up exactly, an int32 bias."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.graph.query import constant
from engine.quantization.table import Row
from engine.quantization.weights import quantize_bias, quantize_weight
from engine.session import Session
from tests.plain_arithmetic import (
    PlainWeight,
    channel_scales,
    plain_bias,
    plain_weight,
    to_grid,
)
from tests.small_networks import Array, built, infer, network, random


def grid(row: Row, values: Array) -> Array:
    assert row.scale is not None and row.zero_point is not None
    return to_grid(values, row.scale, row.zero_point)


def convolve(points: Array, weights: Array, *, stride: int, pad: int, groups: int) -> Array:
    """The sums of products of integers; around the picture stands 0, the real value that the zero point means."""
    padded = np.pad(points, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    size = weights.shape[2]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    batch, channels, height, width = windows.shape[:4]
    windows = windows.reshape(batch, groups, channels // groups, height, width, size, size)
    kernels = weights.reshape(groups, weights.shape[0] // groups, *weights.shape[1:])
    sums: Array = np.einsum("bgihwkl,goikl->bgohw", windows, kernels)
    return sums.reshape(batch, weights.shape[0], height, width)


def stored_as(row: Row, sums: Array, step: Array, *, relu: bool = False) -> Array:
    """Grid points of the int8 output from whole numbers of `step`."""
    assert row.scale is not None and row.zero_point is not None
    real = sums * step
    if relu:
        real = np.maximum(real, 0)
    return np.clip(np.rint(real / np.float32(row.scale)) + row.zero_point, -128, 127).astype(np.int64)


def per_channel(values: Array) -> Array:
    return values[:, None, None]


def mismatches(session: Session, sample: Array, tensor: str, expected: Array) -> int:
    """How many of the output's grid points differ."""
    (output,) = infer(session, sample)
    row = session.table.rows[f"{tensor}_int8"]
    assert row.scale is not None and row.zero_point is not None
    found = np.rint(output / np.float32(row.scale)).astype(np.int64) + row.zero_point
    assert found.shape == expected.shape
    return int((found != expected).sum())


@pytest.mark.parametrize("method", ["channel", "layer"])
@pytest.mark.parametrize(
    ("shape", "weight_shape", "stride", "pad", "groups", "relu"),
    [
        pytest.param((1, 24, 16, 16), (24, 24, 3, 3), 1, 1, 1, True, id="3x3"),
        pytest.param((1, 24, 17, 17), (36, 6, 3, 3), 2, 1, 4, False, id="grouped and strided"),
        pytest.param((1, 16, 12, 12), (16, 1, 5, 5), 1, 2, 16, True, id="depthwise"),
        pytest.param((1, 32, 10, 10), (20, 32, 1, 1), 1, 0, 1, False, id="1x1"),
        pytest.param((2, 8, 9, 9), (12, 8, 3, 3), 2, 2, 1, True, id="batch of two, wide padding"),
    ],
)
def test_a_convolution_is_exact_integer_arithmetic(
    tmp_path: Path,
    method: str,
    shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: int,
    pad: int,
    groups: int,
    relu: bool,
) -> None:
    weight = random(*weight_shape, seed=1, spread=0.3) + np.float32(0.05)
    # Channels of very different size, so that one range for all of them is another result than one each.
    weight *= np.geomspace(0.2, 5, weight_shape[0], dtype=np.float32).reshape(-1, 1, 1, 1)
    bias = random(weight_shape[0], seed=2)
    sample = random(*shape, seed=3, spread=2.0) + np.float32(0.7)
    size = weight_shape[2]
    conv = (
        f"Conv <kernel_shape = [{size}, {size}], strides = [{stride}, {stride}],"
        f" pads = [{pad}, {pad}, {pad}, {pad}], group = {groups}>"
    )
    body = f"c = {conv} (x, w, b)\ny = Relu (c)" if relu else f"y = {conv} (x, w, b)"
    session = built(
        tmp_path, network({"x": shape}, body, {"w": weight, "b": bias}), [[sample]], quantized_method=method
    )
    rows = session.table.rows

    source = rows["x_int8"]
    assert source.scale is not None and source.zero_point is not None
    assert source.zero_point != 0
    weights = plain_weight("Conv", weight, per_channel=method == "channel")
    scales = channel_scales("Conv", weights)
    offset, step = plain_bias(bias, source.scale, scales)
    sums = convolve(
        grid(source, sample) - source.zero_point,
        weights.grid - weights.zero_point,
        stride=stride,
        pad=pad,
        groups=groups,
    )
    expected = stored_as(rows["y_int8"], sums + per_channel(offset), per_channel(step), relu=relu)
    assert len(np.unique(expected)) > 60
    assert mismatches(session, sample, "y", expected) == 0


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("method", ["channel", "layer"])
def test_a_product_with_a_weight_is_exact_integer_arithmetic(tmp_path: Path, method: str, transposed: int) -> None:
    weight = random(40, 12, seed=4) * np.geomspace(0.1, 3, 12, dtype=np.float32)
    bias, sample = random(12, seed=5), random(6, 40, seed=6, spread=2.0) + np.float32(0.5)
    stored = np.ascontiguousarray(weight.T) if transposed else weight
    # At level 0 the product stays a Gemm.
    session = built(
        tmp_path,
        network({"x": (6, 40)}, f"y = Gemm <transB = {transposed}> (x, w, b)", {"w": stored, "b": bias}),
        [[sample]],
        quantized_method=method,
        optimization_level=0,
    )
    rows = session.table.rows
    assert [layer.op for layer in session.summary().layers] == ["Input", "Gemm"]
    source = rows["x_int8"]
    assert source.scale is not None and source.zero_point is not None
    weights = plain_weight("Gemm", stored, per_channel=method == "channel", transposed=bool(transposed))
    offset, step = plain_bias(bias, source.scale, channel_scales("Gemm", weights, transposed=bool(transposed)))
    kernel = weights.grid - weights.zero_point
    sums = (grid(source, sample) - source.zero_point) @ (kernel.T if transposed else kernel)
    assert mismatches(session, sample, "y", stored_as(rows["y_int8"], sums + offset, step)) == 0


@pytest.mark.parametrize("groups", [1, 3])
def test_a_transposed_convolution_is_exact_integer_arithmetic(tmp_path: Path, groups: int) -> None:
    weight = random(6, 4, 2, 2, seed=7) * np.geomspace(0.2, 4, 24, dtype=np.float32).reshape(6, 4, 1, 1)
    bias, sample = random(4 * groups, seed=8), random(1, 6, 7, 7, seed=9) - np.float32(0.4)
    body = f"y = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2], group = {groups}> (x, w, b)"
    session = built(tmp_path, network({"x": (1, 6, 7, 7)}, body, {"w": weight, "b": bias}), [[sample]])
    rows = session.table.rows
    source = rows["x_int8"]
    assert source.scale is not None and source.zero_point is not None
    weights = plain_weight("ConvTranspose", weight, per_channel=True, groups=groups)
    offset, step = plain_bias(bias, source.scale, channel_scales("ConvTranspose", weights, groups))
    points = (grid(source, sample) - source.zero_point).reshape(1, groups, 6 // groups, 7, 7)
    kernels = (weights.grid - weights.zero_point).reshape(groups, 6 // groups, 4, 2, 2)
    # With a stride as wide as the kernel no two of its windows meet.
    sums = np.einsum("bgihw,giokl->bgohkwl", points, kernels).reshape(1, 4 * groups, 14, 14)
    expected = stored_as(rows["y_int8"], sums + per_channel(offset), per_channel(step))
    assert mismatches(session, sample, "y", expected) == 0


@pytest.mark.parametrize(("alpha", "beta"), [(0.25, 1.0), (1.0, 3.0), (-0.5, 2.0), (2.0, -0.7)])
def test_a_gemms_factors_set_the_step_of_its_bias(tmp_path: Path, alpha: float, beta: float) -> None:
    weight, bias = random(30, 9, seed=4), random(9, seed=5)
    sample = random(5, 30, seed=6, spread=2.0) + np.float32(0.5)
    body = f"y = Gemm <alpha = {alpha}, beta = {beta}> (x, w, b)"
    proto = network({"x": (5, 30)}, body, {"w": weight, "b": bias})
    session = built(tmp_path, proto, [[sample]], optimization_level=0)
    rows = session.table.rows
    source = rows["x_int8"]
    assert source.scale is not None and source.zero_point is not None
    weights = plain_weight("Gemm", weight, per_channel=True)
    width = source.scale * channel_scales("Gemm", weights)
    # alpha * sums * width + beta * bias in whole steps of |alpha| * width: beta * bias is a whole number of them.
    offset = np.rint(abs(beta) * bias.astype(np.float64) / (abs(alpha) * width)).astype(np.int64)
    sums = (grid(source, sample) - source.zero_point) @ (weights.grid - weights.zero_point)
    whole = int(np.sign(alpha)) * sums + int(np.sign(beta)) * offset
    expected = stored_as(rows["y_int8"], whole, abs(alpha) * width)
    assert len(np.unique(expected)) > 30
    assert mismatches(session, sample, "y", expected) == 0
    (node,) = session.model.graph
    rounded = quantize_bias(bias, source.scale, quantize_weight(node, "channel"), node)
    steps = rounded * abs(beta) / (abs(alpha) * width)
    assert np.allclose(steps, np.rint(steps), atol=1e-3) and not np.allclose(rounded, bias, rtol=1e-7, atol=0)


@pytest.mark.parametrize("factors", ["alpha = 0.0", "beta = 0.0"])
def test_a_gemm_without_a_product_or_a_bias_keeps_the_other(tmp_path: Path, factors: str) -> None:
    weight, bias, sample = random(6, 3), random(3), random(2, 6)
    proto = network({"x": (2, 6)}, f"y = Gemm <{factors}> (x, w, b)", {"w": weight, "b": bias})
    session = built(tmp_path, proto, [[sample]], optimization_level=0)
    expected = np.broadcast_to(bias, (2, 3)) if factors.startswith("alpha") else sample @ weight
    assert np.abs(infer(session, sample)[0] - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("method", ["channel", "layer"])
@pytest.mark.parametrize("relu", [False, True])
def test_an_int16_convolution_is_exact_integer_arithmetic_up_to_float32(
    tmp_path: Path, method: str, relu: bool
) -> None:
    weight = random(12, 10, 3, 3, seed=1, spread=0.3) + np.float32(0.05)
    weight *= np.geomspace(0.2, 5, 12, dtype=np.float32).reshape(-1, 1, 1, 1)
    bias = random(12, seed=2, spread=30.0)
    sample = random(1, 10, 9, 9, seed=3, spread=2.0) + np.float32(0.7)
    conv = "Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w, b)"
    body = f"c = {conv}\ny = Relu (c)" if relu else f"y = {conv}"
    session = built(
        tmp_path,
        network({"x": (1, 10, 9, 9)}, body, {"w": weight, "b": bias}),
        [[sample]],
        quantized_method=method,
        quantized_dtype="asymmetric_quantized-16",
    )
    source, target = session.table.rows["x_int16"], session.table.rows["y_int16"]
    assert source.scale is not None and source.zero_point is not None
    assert target.scale is not None and target.zero_point is not None
    weights = plain_weight("Conv", weight, per_channel=method == "channel", bits=16)
    offset, step = plain_bias(bias, source.scale, channel_scales("Conv", weights), bits=16)
    # At these steps an int32 would end below the larger biases, and the sums need more than 32 bits too.
    assert np.abs(offset).max() > 2**31
    points = to_grid(sample, source.scale, source.zero_point, 16)
    sums = convolve(points - source.zero_point, weights.grid - weights.zero_point, stride=1, pad=1, groups=1)
    real = (sums + per_channel(offset)) * per_channel(step)
    real = np.maximum(real, 0) if relu else real
    expected = np.clip(np.rint(real / target.scale) + target.zero_point, -32768, 32767)
    (output,) = infer(session, sample)
    found = np.rint(output / np.float32(target.scale)) + target.zero_point
    assert len(np.unique(expected)) > (300 if relu else 800)
    # The simulator sums up in float32, whose 24 bits are far finer than an int16 step: only what lies in the middle
    # between two points may fall to the other.
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.01


CASES = [
    pytest.param("Conv", "y = Conv <kernel_shape = [3, 3]> (x, w, b)", (8, 4, 3, 3), 1, 8, id="Conv"),
    pytest.param("Conv", "y = Conv <group = 2, kernel_shape = [3, 3]> (x, w, b)", (8, 2, 3, 3), 2, 8, id="grouped"),
    pytest.param("Conv", "y = Conv <group = 4, kernel_shape = [3, 3]> (x, w, b)", (4, 1, 3, 3), 4, 4, id="depthwise"),
    pytest.param("ConvTranspose", "y = ConvTranspose <kernel_shape = [3, 3]> (x, w, b)", (4, 6, 3, 3), 1, 6, id="up"),
    pytest.param(
        "ConvTranspose", "y = ConvTranspose <group = 2, kernel_shape = [3, 3]> (x, w, b)", (4, 3, 3, 3), 2, 6,
        id="up, grouped",
    ),
]  # fmt: skip


def node_of(session: Session, op: str) -> Any:
    (node,) = [node for node in session.model.graph if node.op_type == op]
    return node


def assert_same(node: Any, method: str, plain: PlainWeight, plain_scales: Array, bias: Array) -> None:
    quantized = quantize_weight(node, method)
    assert np.array_equal(np.broadcast_to(quantized.scale, plain.scale.shape), plain.scale)
    assert np.array_equal(np.broadcast_to(quantized.zero_point, plain.zero_point.shape), plain.zero_point)
    assert np.array_equal(quantized.real, plain.real)
    points, step = plain_bias(bias, 0.037, plain_scales)
    assert np.array_equal(quantize_bias(bias, 0.037, quantized, node), (points * step).astype(np.float32))


class TestWeights:
    @pytest.mark.parametrize(("op", "line", "shape", "groups", "channels"), CASES)
    @pytest.mark.parametrize("method", ["channel", "layer"])
    def test_a_convolutions_channels_have_a_range_each_and_the_bias_follows_them(
        self, tmp_path: Path, method: str, op: str, line: str, shape: tuple[int, ...], groups: int, channels: int
    ) -> None:
        weight = random(*shape, seed=11) * np.geomspace(0.01, 9, shape[0] * shape[1], dtype=np.float32).reshape(
            *shape[:2], 1, 1
        )
        weight[0, 0] = np.abs(weight[0, 0])  # a range on one side of 0
        bias = random(channels, seed=12)
        session = built(tmp_path, network({"x": (1, 4, 6, 6)}, line, {"w": weight, "b": bias}), [[random(1, 4, 6, 6)]])
        plain = plain_weight(op, weight, per_channel=method == "channel", groups=groups)
        scales = channel_scales(op, plain, groups)
        assert len(scales) == channels and len(np.unique(scales)) == (channels if method == "channel" else 1)
        assert_same(node_of(session, op), method, plain, scales, bias)

    @pytest.mark.parametrize("transposed", [0, 1])
    @pytest.mark.parametrize("method", ["channel", "layer"])
    def test_a_gemms_channels_lie_along_the_axis_of_its_output(
        self, tmp_path: Path, method: str, transposed: int
    ) -> None:
        weight = random(5, 5, seed=13) * np.geomspace(0.1, 3, 5, dtype=np.float32)
        bias = random(5, seed=14)
        body = f"y = Gemm <transB = {transposed}> (x, w, b)"
        session = built(
            tmp_path, network({"x": (2, 5)}, body, {"w": weight, "b": bias}), [[random(2, 5)]], optimization_level=0
        )
        plain = plain_weight("Gemm", weight, per_channel=method == "channel", transposed=bool(transposed))
        scales = channel_scales("Gemm", plain, transposed=bool(transposed))
        assert_same(node_of(session, "Gemm"), method, plain, scales, bias)

    def test_a_matmuls_channels_are_its_weights_last_axis(self, tmp_path: Path) -> None:
        weight = random(5, 7, seed=15) * np.geomspace(0.1, 3, 7, dtype=np.float32)
        session = built(
            tmp_path, network({"x": (2, 5)}, "y = MatMul (x, w)", {"w": weight}), [[random(2, 5)]], optimization_level=0
        )
        quantized = quantize_weight(node_of(session, "MatMul"), "channel")
        assert np.array_equal(quantized.real, plain_weight("MatMul", weight, per_channel=True).real)

    def test_a_channel_of_zeros_and_one_on_one_side_of_0_keep_their_zeros(self, tmp_path: Path) -> None:
        weight = np.zeros((3, 4, 1, 1), np.float32)
        weight[1] = 7.0
        weight[2, 0] = -3.0
        session = built(
            tmp_path, network({"x": (1, 4, 3, 3)}, "y = Conv (x, w)", {"w": weight}), [[random(1, 4, 3, 3)]]
        )
        node = node_of(session, "Conv")
        quantized = quantize_weight(node, "channel")
        assert quantized.scale.reshape(-1).tolist() == [2 / 255, 7 / 255, 3 / 255]
        assert quantized.zero_point.reshape(-1).tolist() == [0, -128, 127]
        assert np.allclose(quantized.real, weight, rtol=1e-6)
        assert constant(node.inputs[1]) is not None

    def test_a_bias_too_large_for_int32_stops_at_its_end(self, tmp_path: Path) -> None:
        weight = np.full((1, 1, 1, 1), 1e-6, np.float32)
        bias = np.array([1e6], np.float32)
        session = built(
            tmp_path,
            network({"x": (1, 1, 2, 2)}, "y = Conv (x, w, b)", {"w": weight, "b": bias}),
            [[random(1, 1, 2, 2, spread=1e-3)]],
        )
        node = node_of(session, "Conv")
        quantized = quantize_weight(node, "channel")
        (rounded,) = quantize_bias(bias, 1e-5, quantized, node)
        assert rounded == np.float32((2**31 - 1) * 1e-5 * quantized.scale.item())
