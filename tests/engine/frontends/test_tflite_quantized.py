"""Quantized TFLite models keep their own parameters, and what is built of them ends where LiteRT's kernels end."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.frontends import tflite
from engine.graph.given import given as given_parameters
from tests.engine.frontends.tflite_models import (
    O,
    T,
    build,
    check,
    check_steps,
    const,
    litert,
    ours,
    random_for,
    real,
    schema,
    simulated,
)

few = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SHAPE = (1, 6, 5, 4)


def _grid(dtype: str, scale: float = 0.05, offset: int = -10) -> dict[str, Any]:
    zero = {"int8": offset, "uint8": 128 + offset, "int16": 0}[dtype]
    return {"dtype": dtype, "scale": scale if dtype != "int16" else scale / 200, "zero": zero}


def _weights(shape: tuple[int, ...], axis: int, dtype: str) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    if dtype == "uint8":
        return {"data": rng.integers(0, 256, shape).astype(np.uint8), "dtype": "uint8", "scale": 0.01, "zero": 120}
    scale = rng.uniform(0.005, 0.02, shape[axis])
    data = rng.integers(-127, 128, shape).astype(np.int8)
    return {"data": data, "dtype": "int8", "scale": scale, "zero": 0, "axis": axis}


def _bias(count: int, x: dict[str, Any], w: dict[str, Any]) -> T:
    data = np.random.default_rng(3).integers(-2000, 2000, count).astype(np.int64 if x["dtype"] == "int16" else np.int32)
    scale = np.broadcast_to(np.asarray(w["scale"]) * x["scale"], np.shape(w["scale"]))
    return T("b", (count,), str(data.dtype), data, scale=scale)


@few
@given(
    st.sampled_from(["int8", "uint8", "int16"]),
    st.sampled_from(["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"]),
    st.sampled_from([0, 1]),
    st.sampled_from([0, 1, 3]),
)
def test_products_with_weights(tmp_path: Path, dtype: str, kind: str, padding: int, activation: int) -> None:
    x = _grid(dtype)
    less = 0 if padding == 0 else 2
    act = {"fusedActivationFunction": activation}
    stride = {"padding": padding, "strideH": 1, "strideW": 1}
    kind_of_weights = dtype if dtype == "uint8" else "int8"
    inputs = ["x", "w", "b"]
    first: list[T] = []
    if kind == "CONV_2D":
        w, shape, table, options = (
            _weights((7, 3, 3, 4), 0, kind_of_weights),
            (7, 3, 3, 4),
            "Conv2DOptions",
            stride | act,
        )
        out: tuple[int, ...] = (1, 6 - less, 5 - less, 7)
    elif kind == "DEPTHWISE_CONV_2D":
        w, shape = _weights((1, 3, 3, 4), 3, kind_of_weights), (1, 3, 3, 4)
        table, options = "DepthwiseConv2DOptions", stride | act | {"depthMultiplier": 1}
        out = (1, 6 - less, 5 - less, 4)
    elif kind == "TRANSPOSE_CONV":
        w, shape = _weights((7, 3, 3, 4), 0, kind_of_weights), (7, 3, 3, 4)
        out = (1, 6 + less, 5 + less, 7)
        table, options, inputs, first = (
            "TransposeConvOptions",
            stride,
            ["shape", "w", "x"],
            [const("shape", out, "int32")],
        )
    else:
        w = _weights((7, 120), 0, "uint8" if dtype == "uint8" else "int8")
        if dtype != "uint8":
            w |= {"scale": 0.01, "zero": 0, "axis": 0}
        shape, out, table, options = (7, 120), (1, 7), "FullyConnectedOptions", act
    y = _grid(dtype, 0.3)
    tensors = [
        *first,
        T("x", SHAPE, **x),
        T("w", shape, **w),
        _bias(shape[3 if kind == "DEPTHWISE_CONV_2D" else 0], x, w),
        T("y", out, **y),
    ]
    check_steps(tensors, [O(kind, inputs, ["y"], table, options)], ["x"], ["y"], tmp_path)


@few
@given(
    st.sampled_from(["int8", "uint8"]),
    st.sampled_from(["ADD", "SUB", "MUL"]),
    st.sampled_from([0, 1, 3]),
    st.booleans(),
)
def test_arithmetic(tmp_path: Path, dtype: str, kind: str, activation: int, constant: bool) -> None:
    b = _grid(dtype, 0.03, 17)
    second = T("b", SHAPE[3:], data=np.arange(40, 44).astype(dtype), **b) if constant else T("b", SHAPE, **b)
    tensors = [T("a", SHAPE, **_grid(dtype)), second, T("y", SHAPE, **_grid(dtype, 0.08, 5))]
    op = O(kind, ["a", "b"], ["y"], f"{kind.title()}Options", {"fusedActivationFunction": activation})
    check_steps(tensors, [op], ["a"] if constant else ["a", "b"], ["y"], tmp_path)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("kind", ["LOGISTIC", "TANH", "SOFTMAX", "HARD_SWISH", "LEAKY_RELU", "RELU6"])
def test_functions(kind: str, dtype: str, tmp_path: Path) -> None:
    low = -128 if dtype == "int8" else 0
    y = {
        "LOGISTIC": {"scale": 1 / 256, "zero": low},
        "SOFTMAX": {"scale": 1 / 256, "zero": low},
        "TANH": {"scale": 1 / 128, "zero": low + 128},
    }.get(kind, {"scale": 0.05, "zero": low + 118})
    tables: dict[str, tuple[str, dict[str, Any]]] = {
        "SOFTMAX": ("SoftmaxOptions", {"beta": 1.0}),
        "LEAKY_RELU": ("LeakyReluOptions", {"alpha": 0.2}),
    }
    tensors = [T("x", (2, 30), **_grid(dtype)), T("y", (2, 30), dtype, **y)]
    check_steps(tensors, [O(kind, ["x"], ["y"], *tables.get(kind, ("", {})))], ["x"], ["y"], tmp_path)


def test_layers_that_rearrange_and_join(tmp_path: Path) -> None:
    same, other = _grid("int8"), _grid("int8", 0.04, 20)
    tensors = [
        T("x", SHAPE, **same),
        const("pads", [[0, 0], [1, 1], [2, 0], [0, 0]], "int32"),
        T("p", (1, 8, 7, 4), **same),
        T("m", (1, 4, 3, 4), **same),
        T("a", (1, 4, 3, 4), **same),
        T("r", (1, 4, 3, 4), **other),
        T("j", (1, 4, 3, 8), **other),
        const("size", [8, 6], "int32"),
        T("big", (1, 8, 6, 8), **other),
        const("axes", [1, 2], "int32"),
        T("mean", (1, 8), **_grid("int8", 0.02, 3)),
        T("f", (1, 8)),
    ]
    window = {"padding": 1, "strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2}
    ops = [
        O("PAD", ["x", "pads"], ["p"], "PadOptions"),
        O("MAX_POOL_2D", ["p"], ["m"], "Pool2DOptions", window),
        O("AVERAGE_POOL_2D", ["p"], ["a"], "Pool2DOptions", window),
        O("QUANTIZE", ["a"], ["r"], "QuantizeOptions"),
        O("QUANTIZE", ["m"], ["q"], "QuantizeOptions"),
        O("CONCATENATION", ["q", "r"], ["j"], "ConcatenationOptions", {"axis": 3}),
        O("RESIZE_BILINEAR", ["j", "size"], ["big"], "ResizeBilinearOptions", {"halfPixelCenters": True}),
        O("MEAN", ["big", "axes"], ["mean"], "ReducerOptions"),
        O("DEQUANTIZE", ["mean"], ["f"], "DequantizeOptions"),
    ]
    tensors.append(T("q", (1, 4, 3, 4), **other))
    check_steps(tensors, ops, ["x"], ["j", "mean"], tmp_path, steps=2)
    model = tflite.load(tmp_path / "model.tflite")
    lacking = [v.name for n in model.graph for v in n.outputs if given_parameters(v) is None]
    assert lacking == []


def test_a_float_model_around_integers_is_called_with_real_values(tmp_path: Path) -> None:
    grid = _grid("int8")
    tensors = [T("x", SHAPE), T("q", SHAPE, **grid), T("r", SHAPE, **grid), T("y", SHAPE)]
    ops = [O("QUANTIZE", ["x"], ["q"], "QuantizeOptions"), O("RELU", ["q"], ["r"]), O("DEQUANTIZE", ["r"], ["y"])]
    file = tmp_path / "model.tflite"
    file.write_bytes(build(tensors, ops, ["x"], ["y"]))
    model = tflite.load(file)
    assert [v.name for v in (*model.graph.inputs, *model.graph.outputs)] == ["x", "y"]
    x = np.random.default_rng(0).uniform(-5, 5, SHAPE).astype(np.float32)
    tensors[-1] = T("y", SHAPE)
    data = file.read_bytes()
    want, got = litert(data, {"x": x})[0], simulated(data, {"x": x}, tmp_path)[0]
    assert np.abs(want - got).max() < 0.05 * 1.5


def test_unsigned_ends_of_a_signed_model_cost_no_layer(tmp_path: Path) -> None:
    inner, outer = _grid("int8", 0.05, -10), _grid("uint8", 0.05, -10)
    tensors = [T("x", SHAPE, **outer), T("a", SHAPE, **inner), T("b", SHAPE, **inner), T("y", SHAPE, **outer)]
    ops = [
        O("QUANTIZE", ["x"], ["a"], "QuantizeOptions"),
        O("RELU", ["a"], ["b"]),
        O("QUANTIZE", ["b"], ["y"], "QuantizeOptions"),
    ]
    check_steps(tensors, ops, ["x"], ["y"], tmp_path)
    graph = tflite.load(tmp_path / "model.tflite").graph
    assert [node.op_type for node in graph] == ["Relu"]
    assert [v.name for v in (*graph.inputs, *graph.outputs)] == ["x", "y"]


def test_weights_of_a_dynamic_range_model_are_real_values_with_their_grid(tmp_path: Path) -> None:
    w = np.random.default_rng(0).integers(-127, 128, (6, 8)).astype(np.int8)
    tensors = [T("x", (2, 8)), T("w", (6, 8), "int8", w, scale=0.01), const("b", np.zeros(6)), T("y", (2, 6))]
    op = O("FULLY_CONNECTED", ["x", "w", "b"], ["y"], "FullyConnectedOptions")
    file = tmp_path / "model.tflite"
    file.write_bytes(build(tensors, [op], ["x"], ["y"]))
    model = tflite.load(file)
    weight = next(n for n in model.graph if n.op_type == "Gemm").inputs[1]
    assert weight is not None and weight.const_value is not None
    np.testing.assert_allclose(weight.const_value.numpy(), w * np.float32(0.01), rtol=1e-6)
    found = given_parameters(weight)
    assert found is not None and found.scale == pytest.approx((0.01,))


def test_half_precision_weights_become_floats(tmp_path: Path) -> None:
    w = np.random.default_rng(0).uniform(-1, 1, (6, 1, 1, 4)).astype(np.float16)
    tensors = [T("x", (1, 3, 3, 4)), const("h", w), T("w", w.shape), const("b", np.zeros(6)), T("y", (1, 3, 3, 6))]
    ops = [
        O("DEQUANTIZE", ["h"], ["w"], "DequantizeOptions"),
        O("CONV_2D", ["x", "w", "b"], ["y"], "Conv2DOptions", {"strideH": 1, "strideW": 1}),
    ]
    check(tensors, ops, ["x"], ["y"], tmp_path)


def _levels(whole: np.ndarray, block: int) -> tuple[Any, np.ndarray]:
    """A matrix as a sparse list of blocks of `block` columns: which rows have which blocks, then the blocks' values."""
    rows, columns = whole.shape[0], whole.shape[1] // block
    blocks = whole.reshape(rows, columns, block)
    there = np.argwhere(np.abs(blocks).sum(axis=2) > 0)
    segments = np.searchsorted(there[:, 0], np.arange(rows + 1))
    dense, sparse, within = (schema.DimensionMetadataT() for _ in range(3))
    dense.format, dense.denseSize = 0, rows
    sparse.format = 1
    sparse.arraySegmentsType, sparse.arrayIndicesType = 1, 3
    sparse.arraySegments, sparse.arrayIndices = schema.Int32VectorT(), schema.Uint8VectorT()
    sparse.arraySegments.values, sparse.arrayIndices.values = segments.tolist(), there[:, 1].tolist()
    within.format, within.denseSize = 0, block
    found = schema.SparsityParametersT()
    found.traversalOrder, found.blockMap, found.dimMetadata = [0, 1, 2], [1], [dense, sparse, within]
    return found, np.stack([blocks[row, column] for row, column in there])


def test_sparse_weights_are_unpacked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = np.repeat(rng.integers(0, 2, (6, 2)), 4, axis=1) * rng.uniform(-1, 1, (6, 8))
    sparsity, values = _levels(whole.astype(np.float32), 4)
    tensors = [
        T("x", (2, 8)),
        T("s", (6, 8), data=values, sparsity=sparsity),
        T("w", (6, 8)),
        T("y", (2, 6)),
        const("b", np.zeros(6)),
    ]
    ops = [
        O("DENSIFY", ["s"], ["w"], "DensifyOptions"),
        O("FULLY_CONNECTED", ["x", "w", "b"], ["y"], "FullyConnectedOptions"),
    ]
    check(tensors, ops, ["x"], ["y"], tmp_path)


def test_fake_quantization_becomes_parameters(tmp_path: Path) -> None:
    tensors = [T("x", (2, 8)), T("y", (2, 8)), T("z", (2, 8))]
    ops = [
        O("FAKE_QUANT", ["x"], ["y"], "FakeQuantOptions", {"min": -1.0, "max": 1.55, "numBits": 8}),
        O("NEG", ["y"], ["z"]),
    ]
    file = tmp_path / "model.tflite"
    file.write_bytes(build(tensors, ops, ["x"], ["z"]))
    made = next(n.outputs[0] for n in tflite.load(file).graph if n.outputs[0].name == "y")
    found = given_parameters(made)
    assert found is not None
    assert found.scale == pytest.approx((0.01,)) and found.zero_point == (-28,)


@pytest.mark.parametrize("padding", [1, 2])
def test_the_transpose_convolution_of_mediapipe(padding: int, tmp_path: Path) -> None:
    """Its options are of its own making; what it computes is what the standard's operator does, with a bias."""
    rng = np.random.default_rng(0)
    size = (1, 8, 6, 3) if padding == 1 else (1, 9, 7, 3)
    weights, bias = rng.uniform(-1, 1, (3, 3, 3, 4)).astype(np.float32), rng.uniform(-1, 1, 3).astype(np.float32)
    tensors = [T("x", (1, 4, 3, 4)), const("w", weights), const("b", bias), const("s", size, "int32"), T("y", size)]
    custom = O("CUSTOM", ["x", "w", "b"], ["y"], custom="Convolution2DTransposeBias")
    custom.custom_options = struct.pack("<3i", padding, 2, 2)
    options = {"padding": padding - 1, "strideH": 2, "strideW": 2}
    standard = O("TRANSPOSE_CONV", ["s", "w", "x", "b"], ["y"], "TransposeConvOptions", options)
    x = rng.uniform(-1, 1, (1, 4, 3, 4)).astype(np.float32)
    want = litert(build(tensors, [standard], ["x"], ["y"]), {"x": x})[0]
    got = ours(build(tensors, [custom], ["x"], ["y"]), {"x": x}, tmp_path)[0]
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_cast_sees_the_stored_integers(tmp_path: Path) -> None:
    tensors = [T("x", (2, 30), **_grid("uint8")), T("y", (2, 30))]
    op = O("CAST", ["x"], ["y"], "CastOptions", {"inDataType": 3, "outDataType": 0})
    data = build(tensors, [op], ["x"], ["y"])
    x = random_for(tensors[0])
    got = ours(data, {"x": real(x, tensors[0])}, tmp_path)[0]
    np.testing.assert_allclose(got, litert(data, {"x": x})[0], atol=1e-3)
