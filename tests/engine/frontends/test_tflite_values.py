"""What acts on single values, compares and reduces in TFLite computes what LiteRT computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.engine.frontends.tflite_models import O, T, check, const, random_for

UNARY = [
    "ABS",
    "CEIL",
    "COS",
    "ELU",
    "EXP",
    "FLOOR",
    "HARD_SWISH",
    "LOGISTIC",
    "NEG",
    "RELU",
    "RELU6",
    "RELU_N1_TO_1",
    "RELU_0_TO_1",
    "ROUND",
    "SIGN",
    "SIN",
    "SQUARE",
    "TANH",
]


@pytest.mark.parametrize("kind", UNARY)
def test_a_function_of_one_value(kind: str, tmp_path: Path) -> None:
    tensors = [T("x", (1, 3, 4, 5)), T("y", (1, 3, 4, 5))]
    check(tensors, [O(kind, ["x"], ["y"])], ["x"], ["y"], tmp_path)


@pytest.mark.parametrize("kind", ["LOG", "SQRT", "RSQRT"])
def test_a_function_of_positive_values(kind: str, tmp_path: Path) -> None:
    x = T("x", (2, 7))
    feeds = {"x": random_for(x, low=0.1)}
    check([x, T("y", (2, 7))], [O(kind, ["x"], ["y"])], ["x"], ["y"], tmp_path, feeds=feeds)


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu(approximate: bool, tmp_path: Path) -> None:
    op = O("GELU", ["x"], ["y"], "GeluOptions", {"approximate": approximate})
    check([T("x", (2, 7)), T("y", (2, 7))], [op], ["x"], ["y"], tmp_path)


def test_leaky_relu_and_prelu(tmp_path: Path) -> None:
    tensors = [
        T("x", (1, 3, 4, 5)),
        T("y", (1, 3, 4, 5)),
        T("z", (1, 3, 4, 5)),
        const("a", np.linspace(0.1, 0.9, 5).reshape(1, 1, 5)),
    ]
    ops = [O("LEAKY_RELU", ["x"], ["y"], "LeakyReluOptions", {"alpha": 0.3}), O("PRELU", ["y", "a"], ["z"])]
    check(tensors, ops, ["x"], ["z"], tmp_path)


SHAPES = [
    ((1, 3, 4, 5), (1, 3, 4, 5)),
    ((1, 3, 4, 5), (5,)),
    ((1, 3, 4, 5), ()),
    ((1, 3, 4, 5), (1, 1, 1, 5)),
    ((2, 1, 5), (3, 1)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL", "DIV"])
def test_arithmetic_with_an_activation(kind: str, shapes: tuple[tuple[int, ...], ...], tmp_path: Path) -> None:
    tensors = [T("a", shapes[0]), T("b", shapes[1]), T("y", np.broadcast_shapes(*shapes))]
    feeds = {"b": random_for(tensors[1], 5, low=0.5)}
    op = O(kind, ["a", "b"], ["y"], f"{kind.title()}Options", {"fusedActivationFunction": 3})
    check(tensors, [op], ["a", "b"], ["y"], tmp_path, feeds=feeds)


@pytest.mark.parametrize("kind", ["MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"])
def test_functions_of_two_values(kind: str, tmp_path: Path) -> None:
    tensors = [T("a", (1, 2, 3, 4)), T("b", (3, 1)), T("y", (1, 2, 3, 4))]
    check(tensors, [O(kind, ["a", "b"], ["y"])], ["a", "b"], ["y"], tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("kind", ["FLOOR_DIV", "FLOOR_MOD"])
def test_division_rounds_down(kind: str, dtype: str, tmp_path: Path) -> None:
    tensors = [T("a", (30,), dtype), T("b", (30,), dtype), T("y", (30,), dtype)]
    rng = np.random.default_rng(0)
    feeds = {
        "a": rng.integers(-20, 20, 30).astype(dtype),
        "b": (rng.integers(1, 6, 30) * rng.choice([-1, 1], 30)).astype(dtype),
    }
    check(tensors, [O(kind, ["a", "b"], ["y"])], ["a", "b"], ["y"], tmp_path, feeds=feeds)


@pytest.mark.parametrize("kind", ["EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"])
def test_comparisons(kind: str, tmp_path: Path) -> None:
    tensors = [T("a", (4, 6), "int32"), T("b", (6,), "int32"), T("y", (4, 6), "bool")]
    check(tensors, [O(kind, ["a", "b"], ["y"])], ["a", "b"], ["y"], tmp_path)


@pytest.mark.parametrize("kind", ["SELECT", "SELECT_V2"])
def test_choice(kind: str, tmp_path: Path) -> None:
    tensors = [T("c", (4,) if kind == "SELECT" else (4, 1), "bool"), T("a", (4, 6)), T("b", (4, 6)), T("y", (4, 6))]
    check(tensors, [O(kind, ["c", "a", "b"], ["y"])], ["c", "a", "b"], ["y"], tmp_path)


REDUCTIONS = ["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"]
AXES = [[1, 2], [3], [-1], [1], [0, 1, 2, 3], [2, 3]]


@pytest.mark.parametrize("kind", REDUCTIONS)
def test_means_of_pictures_and_their_like(kind: str, tmp_path: Path) -> None:
    for keep in (False, True):
        _reduce(kind, [1, 2], keep, tmp_path)


@pytest.mark.parametrize("axes", AXES[1:], ids=str)
def test_means_along_other_axes(axes: list[int], tmp_path: Path) -> None:
    for keep in (False, True):
        _reduce("MEAN", axes, keep, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("kind", REDUCTIONS)
def test_all_reductions(kind: str, axes: list[int], tmp_path: Path) -> None:
    for keep in (False, True):
        _reduce(kind, axes, keep, tmp_path)


def _reduce(kind: str, axes: list[int], keep: bool, folder: Path) -> None:
    x = np.zeros((1, 3, 4, 5))
    shape = x.sum(axis=tuple(axes), keepdims=keep).shape
    tensors = [
        T("x", (1, 3, 4, 2)),
        const("w", np.random.default_rng(0).uniform(-1, 1, (5, 1, 1, 2))),
        const("bias", np.arange(5.0) / 5),
        T("c", x.shape),
        const("axes", axes, "int32"),
        T("y", shape),
    ]
    ops = [
        O("CONV_2D", ["x", "w", "bias"], ["c"], "Conv2DOptions", {"strideH": 1, "strideW": 1}),
        O(kind, ["c", "axes"], ["y"], "ReducerOptions", {"keepDims": keep}),
    ]
    check(tensors, ops, ["x"], ["y"], folder, close=1e-3)


@pytest.mark.parametrize("kind", ["ARG_MAX", "ARG_MIN"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_place_of_an_extreme(kind: str, axis: int, tmp_path: Path) -> None:
    shape = [n for i, n in enumerate((3, 4, 5)) if i != axis % 3]
    tensors = [T("x", (3, 4, 5)), const("axis", axis, "int32"), T("y", shape, "int32")]
    op = O(kind, ["x", "axis"], ["y"], f"{kind.title().replace('_', '')}Options", {"outputType": 2})
    check(tensors, [op], ["x"], ["y"], tmp_path)


def test_softmax_and_its_logarithm(tmp_path: Path) -> None:
    tensors = [T("x", (2, 9)), T("y", (2, 9)), T("z", (2, 9))]
    ops = [O("SOFTMAX", ["x"], ["y"], "SoftmaxOptions", {"beta": 0.7}), O("LOG_SOFTMAX", ["x"], ["z"])]
    check(tensors, ops, ["x"], ["y", "z"], tmp_path)


def test_the_largest_few(tmp_path: Path) -> None:
    tensors = [T("x", (2, 9)), const("k", 3, "int32"), T("v", (2, 3)), T("i", (2, 3), "int32")]
    check(tensors, [O("TOPK_V2", ["x", "k"], ["v", "i"], "TopKV2Options")], ["x"], ["v", "i"], tmp_path)


def test_conversions(tmp_path: Path) -> None:
    tensors = [T("x", (2, 9)), T("i", (2, 9), "int32"), T("b", (2, 9), "bool"), T("f", (2, 9))]
    ops = [
        O("CAST", ["x"], ["i"], "CastOptions", {"inDataType": 0, "outDataType": 2}),
        O("CAST", ["i"], ["b"], "CastOptions", {"inDataType": 2, "outDataType": 6}),
        O("CAST", ["b"], ["f"], "CastOptions", {"inDataType": 6, "outDataType": 0}),
    ]
    check(tensors, ops, ["x"], ["i", "b", "f"], tmp_path)


@pytest.mark.parametrize("exclusive", [False, True])
def test_running_sums(exclusive: bool, tmp_path: Path) -> None:
    tensors = [T("x", (2, 9)), const("axis", 1, "int32"), T("y", (2, 9))]
    op = O("CUMSUM", ["x", "axis"], ["y"], "CumsumOptions", {"exclusive": exclusive, "reverse": exclusive})
    check(tensors, [op], ["x"], ["y"], tmp_path)


def test_many_sums_powers_and_angles(tmp_path: Path) -> None:
    tensors = [T("a", (2, 3)), T("b", (2, 3)), T("s", (2, 3)), T("p", (2, 3)), T("t", (2, 3)), const("two", 2.0)]
    ops = [
        O("ADD_N", ["a", "b", "a"], ["s"], "AddNOptions"),
        O("POW", ["a", "two"], ["p"], "PowOptions"),
        O("ATAN2", ["a", "b"], ["t"], "ATan2Options"),
    ]
    check(tensors, ops, ["a", "b"], ["s", "p", "t"], tmp_path)


@pytest.mark.parametrize("kind", ["REDUCE_ANY", "REDUCE_ALL"])
def test_reductions_of_truths(kind: str, tmp_path: Path) -> None:
    tensors = [T("x", (3, 2), "bool"), const("axes", [1], "int32"), T("y", (3,), "bool")]
    check(tensors, [O(kind, ["x", "axes"], ["y"], "ReducerOptions")], ["x"], ["y"], tmp_path)


def test_logic(tmp_path: Path) -> None:
    tensors = [T(name, (3, 4), "bool") for name in ("a", "b", "and", "or", "not")]
    ops = [O("LOGICAL_AND", ["a", "b"], ["and"]), O("LOGICAL_OR", ["a", "b"], ["or"]), O("LOGICAL_NOT", ["a"], ["not"])]
    check(tensors, ops, ["a", "b"], ["and", "or", "not"], tmp_path)
