"""TFLite's convolutions, pools, resizes and block moves compute what LiteRT computes, whatever their attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.frontends.tflite_models import O, T, check, const

few = settings(
    max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
many = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _weights(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def _size(size: int, window: int, stride: int, dilation: int, padding: int) -> int:
    covered = (window - 1) * dilation + 1
    return -(-size // stride) if padding == 0 else (size - covered) // stride + 1


windows = st.fixed_dictionaries(
    {
        "padding": st.sampled_from([0, 1]),
        "strideH": st.integers(1, 3),
        "strideW": st.integers(1, 3),
        "dilationHFactor": st.integers(1, 2),
        "dilationWFactor": st.integers(1, 2),
        "fusedActivationFunction": st.sampled_from([0, 1, 2, 3]),
    }
)
kernels = st.tuples(st.integers(1, 3), st.integers(1, 3))


def _convolve(kind: str, kernel: tuple[int, int], o: dict[str, Any], groups: int, folder: Path) -> None:
    h, w = (
        _size(n, k, s, d, o["padding"])
        for n, k, s, d in zip(
            (9, 8), kernel, (o["strideH"], o["strideW"]), (o["dilationHFactor"], o["dilationWFactor"]), strict=True
        )
    )
    depthwise = kind == "DEPTHWISE_CONV_2D"
    shape = (1, *kernel, 4 * groups) if depthwise else (6, *kernel, 4 // groups)
    outputs = shape[-1] if depthwise else 6
    options = {**o, "depthMultiplier": groups} if depthwise else o
    tensors = [
        T("x", (2, 9, 8, 4)),
        const("w", _weights(shape)),
        const("b", _weights((outputs,))),
        T("y", (2, h, w, outputs)),
    ]
    table = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
    check(tensors, [O(kind, ["x", "w", "b"], ["y"], table, options)], ["x"], ["y"], folder)


@few
@given(kernels, windows, st.sampled_from([1, 2]))
def test_convolutions(tmp_path: Path, kernel: tuple[int, int], o: dict[str, Any], groups: int) -> None:
    _convolve("CONV_2D", kernel, o, groups, tmp_path)


@few
@given(kernels, windows, st.sampled_from([1, 2]))
def test_depthwise_convolutions(tmp_path: Path, kernel: tuple[int, int], o: dict[str, Any], multiplier: int) -> None:
    o["strideW"] = o["strideH"]
    _convolve("DEPTHWISE_CONV_2D", kernel, o, multiplier, tmp_path)


@pytest.mark.slow
@many
@given(st.sampled_from(["CONV_2D", "DEPTHWISE_CONV_2D"]), kernels, windows, st.sampled_from([1, 2]))
def test_many_convolutions(tmp_path: Path, kind: str, kernel: tuple[int, int], o: dict[str, Any], groups: int) -> None:
    _convolve(kind, kernel, o, groups, tmp_path)


@few
@given(st.sampled_from(["MAX_POOL_2D", "AVERAGE_POOL_2D", "L2_POOL_2D"]), kernels, windows)
def test_pools(tmp_path: Path, kind: str, kernel: tuple[int, int], o: dict[str, Any]) -> None:
    h, w = (
        _size(n, k, s, 1, o["padding"]) for n, k, s in zip((9, 8), kernel, (o["strideH"], o["strideW"]), strict=True)
    )
    options = {k: v for k, v in o.items() if "dilation" not in k}
    options |= {"filterHeight": kernel[0], "filterWidth": kernel[1]}
    tensors = [T("x", (2, 9, 8, 4)), T("y", (2, h, w, 4))]
    check(tensors, [O(kind, ["x"], ["y"], "Pool2DOptions", options)], ["x"], ["y"], tmp_path)


@few
@given(st.sampled_from([0, 1]), kernels, st.integers(1, 3), st.integers(0, 2))
def test_transpose_convolutions(tmp_path: Path, padding: int, kernel: tuple[int, int], stride: int, extra: int) -> None:
    if padding == 0:
        sizes = [n * stride - min(extra, stride - 1) for n in (5, 4)]
    else:
        sizes = [(n - 1) * stride + k + min(extra, stride - 1) for n, k in zip((5, 4), kernel, strict=True)]
    tensors = [
        const("shape", [1, *sizes, 3], "int32"),
        const("w", _weights((3, *kernel, 4))),
        T("x", (1, 5, 4, 4)),
        const("b", _weights((3,))),
        T("y", (1, *sizes, 3)),
    ]
    options = {"padding": padding, "strideH": stride, "strideW": stride}
    op = O("TRANSPOSE_CONV", ["shape", "w", "x", "b"], ["y"], "TransposeConvOptions", options)
    check(tensors, [op], ["x"], ["y"], tmp_path)


@pytest.mark.parametrize("dims", [(2, 3), (1, 2, 3)], ids=str)
@pytest.mark.parametrize("keep", [False, True])
def test_fully_connected(dims: tuple[int, ...], keep: bool, tmp_path: Path) -> None:
    shape = (*dims[:-1], 4) if keep else (2, 4)
    tensors = [T("x", dims), const("w", _weights((4, 3))), const("b", _weights((4,))), T("y", shape)]
    op = O(
        "FULLY_CONNECTED",
        ["x", "w", "b"],
        ["y"],
        "FullyConnectedOptions",
        {"keepNumDims": keep, "fusedActivationFunction": 1},
    )
    check(tensors, [op], ["x"], ["y"], tmp_path)


@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)], ids=str)
def test_matrix_products(turned: tuple[bool, bool], tmp_path: Path) -> None:
    a, b = [(2, 3, 4), (2, 4, 3)][turned[0]], [(2, 4, 5), (2, 5, 4)][turned[1]]
    tensors = [T("a", a), T("b", b), T("y", (2, 3, 5))]
    op = O("BATCH_MATMUL", ["a", "b"], ["y"], "BatchMatMulOptions", {"adjX": turned[0], "adjY": turned[1]})
    check(tensors, [op], ["a", "b"], ["y"], tmp_path)


@few
@given(
    st.sampled_from(["RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"]),
    st.tuples(st.integers(1, 13), st.integers(1, 13)),
    st.sampled_from([(False, False), (True, False), (False, True)]),
)
def test_resizes(tmp_path: Path, kind: str, size: tuple[int, int], mode: tuple[bool, bool]) -> None:
    tensors = [T("x", (1, 5, 6, 3)), const("size", size, "int32"), T("y", (1, *size, 3))]
    table = "ResizeBilinearOptions" if kind == "RESIZE_BILINEAR" else "ResizeNearestNeighborOptions"
    op = O(kind, ["x", "size"], ["y"], table, {"alignCorners": mode[0], "halfPixelCenters": mode[1]})
    check(tensors, [op], ["x"], ["y"], tmp_path)


def test_blocks_between_space_and_channels(tmp_path: Path) -> None:
    tensors = [T("x", (1, 4, 6, 8)), T("s", (1, 8, 12, 2)), T("d", (1, 2, 3, 32))]
    ops = [
        O("DEPTH_TO_SPACE", ["x"], ["s"], "DepthToSpaceOptions", {"blockSize": 2}),
        O("SPACE_TO_DEPTH", ["x"], ["d"], "SpaceToDepthOptions", {"blockSize": 2}),
    ]
    check(tensors, ops, ["x"], ["s", "d"], tmp_path)


def test_blocks_between_space_and_batch(tmp_path: Path) -> None:
    tensors = [
        T("x", (1, 5, 6, 2)),
        const("block", [2, 3], "int32"),
        const("pads", [[0, 1], [2, 1]], "int32"),
        T("b", (6, 3, 3, 2)),
        T("r", (6, 3, 3, 2)),
        const("crops", [[1, 0], [0, 2]], "int32"),
        T("y", (1, 5, 7, 2)),
    ]
    ops = [
        O("SPACE_TO_BATCH_ND", ["x", "block", "pads"], ["b"]),
        O("REVERSE_V2", ["b", "axis"], ["r"]),
        O("BATCH_TO_SPACE_ND", ["r", "block", "crops"], ["y"]),
    ]
    check([*tensors, const("axis", [0], "int32")], ops, ["x"], ["y"], tmp_path)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("crops", [[[0, 0], [0, 0]], [[1, 2], [3, 0]]], ids=str)
def test_a_convolution_between_blocks_becomes_a_dilated_one(
    padding: int, crops: list[list[int]], tmp_path: Path
) -> None:
    less = 0 if padding == 0 else 2
    h, w = 2 * (6 - less), 2 * (5 - less)
    tensors = [
        T("x", (1, 8, 8, 3)),
        const("block", [2, 2], "int32"),
        const("pads", [[2, 2], [1, 1]], "int32"),
        T("b", (4, 6, 5, 3)),
        const("w", _weights((1, 3, 3, 3))),
        const("bias", _weights((3,))),
        T("c", (4, 6 - less, 5 - less, 3)),
        const("crops", crops, "int32"),
        T("y", (1, h - sum(crops[0]), w - sum(crops[1]), 3)),
    ]
    options = {"padding": padding, "strideH": 1, "strideW": 1, "depthMultiplier": 1, "fusedActivationFunction": 3}
    ops = [
        O("SPACE_TO_BATCH_ND", ["x", "block", "pads"], ["b"]),
        O("DEPTHWISE_CONV_2D", ["b", "w", "bias"], ["c"], "DepthwiseConv2DOptions", options),
        O("BATCH_TO_SPACE_ND", ["c", "block", "crops"], ["y"]),
    ]
    check(tensors, ops, ["x"], ["y"], tmp_path)
    from engine.frontends import tflite

    nodes = list(tflite.load(tmp_path / "model.tflite").graph)
    conv = next(node for node in nodes if node.op_type == "Conv")
    assert list(conv.attributes["dilations"].as_ints()) == [2, 2]
    assert sum(node.op_type == "Transpose" for node in nodes) == 2


def test_normalizations(tmp_path: Path) -> None:
    tensors = [T("x", (1, 3, 4, 7)), T("l", (1, 3, 4, 7)), T("n", (1, 3, 4, 7))]
    options = {"radius": 2, "bias": 1.5, "alpha": 0.3, "beta": 0.75}
    ops = [
        O("LOCAL_RESPONSE_NORMALIZATION", ["x"], ["l"], "LocalResponseNormalizationOptions", options),
        O("L2_NORMALIZATION", ["x"], ["n"], "L2NormOptions"),
    ]
    check(tensors, ops, ["x"], ["l", "n"], tmp_path)


def test_a_convolution_of_volumes(tmp_path: Path) -> None:
    tensors = [
        T("x", (1, 4, 5, 6, 2)),
        const("w", _weights((2, 3, 3, 2, 4))),
        const("b", _weights((4,))),
        T("y", (1, 4, 3, 3, 4)),
    ]
    options = {"padding": 0, "strideD": 1, "strideH": 2, "strideW": 2}
    check(tensors, [O("CONV_3D", ["x", "w", "b"], ["y"], "Conv3DOptions", options)], ["x"], ["y"], tmp_path)
