"""What rearranges, parts, joins and picks elements in TFLite computes what LiteRT computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.frontends import tflite
from tests.engine.frontends.tflite_models import O, T, build, check, const

few = settings(
    max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _behind_a_convolution(shape: tuple[int, ...]) -> tuple[list[T], list[O]]:
    """What makes `c`, whose channels lie first within."""
    tensors = [
        T("x", (*shape[:3], 2)),
        const("w", np.ones((shape[3], 1, 1, 2))),
        const("bias", np.arange(shape[3]) / 7),
        T("c", shape),
    ]
    return tensors, [O("CONV_2D", ["x", "w", "bias"], ["c"], "Conv2DOptions", {"strideH": 1, "strideW": 1})]


@few
@given(st.permutations(range(4)))
def test_orders_of_axes(tmp_path: Path, order: list[int]) -> None:
    tensors, ops = _behind_a_convolution((1, 3, 4, 5))
    tensors += [const("order", order, "int32"), T("y", [(1, 3, 4, 5)[a] for a in order])]
    check(tensors, [*ops, O("TRANSPOSE", ["c", "order"], ["y"])], ["x"], ["y"], tmp_path)


slices = st.fixed_dictionaries(
    {
        "begin": st.lists(st.integers(-3, 3), min_size=4, max_size=4),
        "end": st.lists(st.integers(-3, 6), min_size=4, max_size=4),
        "strides": st.lists(st.sampled_from([1, 2, -1]), min_size=4, max_size=4),
        "beginMask": st.integers(0, 15),
        "endMask": st.integers(0, 15),
        "shrinkAxisMask": st.integers(0, 15),
    }
)


@few
@given(slices)
def test_slices(tmp_path: Path, o: dict[str, Any]) -> None:
    shape = (3, 4, 3, 5)
    entries: list[Any] = []
    for axis in range(4):
        o["begin"][axis] = (
            max(o["begin"][axis], -shape[axis]) % shape[axis] if o["shrinkAxisMask"] >> axis & 1 else o["begin"][axis]
        )
        begin, end, step = (o[k][axis] for k in ("begin", "end", "strides"))
        if o["shrinkAxisMask"] >> axis & 1:
            o["strides"][axis] = 1
            o["beginMask"] &= ~(1 << axis)
            entries.append(begin)
            continue
        begin, end = (None if o[f"{k}Mask"] >> axis & 1 else v for k, v in (("begin", begin), ("end", end)))
        entries.append(slice(begin, end, step))
    want = np.zeros(shape)[tuple(entries)]
    if not want.size:
        return
    tensors, ops = _behind_a_convolution(shape)
    tensors += [const(k, o[k], "int32") for k in ("begin", "end", "strides")] + [T("y", want.shape)]
    masks = {k: v for k, v in o.items() if "Mask" in k}
    op = O("STRIDED_SLICE", ["c", "begin", "end", "strides"], ["y"], "StridedSliceOptions", masks)
    check(tensors, [*ops, op], ["x"], ["y"], tmp_path)


@pytest.mark.parametrize(("ellipsis", "new"), [(0, 1), (2, 0), (1, 2), (2, 1)])
def test_slices_with_new_axes_and_an_ellipsis(ellipsis: int, new: int, tmp_path: Path) -> None:
    entries: list[Any] = [slice(0, 2, 1)] * 3
    for axis in range(3):
        if ellipsis >> axis & 1:
            entries[axis] = ...
        elif new >> axis & 1:
            entries[axis] = None
    shape = np.zeros((3, 4, 5))[tuple(entries)].shape
    tensors = [
        T("x", (3, 4, 5)),
        const("b", [0] * 3, "int32"),
        const("e", [2] * 3, "int32"),
        const("s", [1] * 3, "int32"),
    ]
    options = {"ellipsisMask": ellipsis, "newAxisMask": new}
    op = O("STRIDED_SLICE", ["x", "b", "e", "s"], ["y"], "StridedSliceOptions", options)
    check([*tensors, T("y", shape)], [op], ["x"], ["y"], tmp_path)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_joining_and_parting_behind_a_convolution(axis: int, tmp_path: Path) -> None:
    tensors, ops = _behind_a_convolution((2, 4, 6, 8))
    joined = np.concatenate([np.zeros((2, 4, 6, 8))] * 2, axis=axis).shape
    half = np.split(np.zeros((2, 4, 6, 8)), 2, axis=axis)[0].shape
    tensors += [T("j", joined), const("axis", axis, "int32"), T("a", half), T("b", half)]
    ops += [
        O("CONCATENATION", ["c", "c"], ["j"], "ConcatenationOptions", {"axis": axis}),
        O("SPLIT", ["axis", "c"], ["a", "b"], "SplitOptions", {"numSplits": 2}),
    ]
    check(tensors, ops, ["x"], ["j", "a", "b"], tmp_path)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_packing_and_unpacking(axis: int, tmp_path: Path) -> None:
    packed = np.stack([np.zeros((3, 2, 4))] * 2, axis=axis).shape
    n = (3, 2, 4)[axis]
    rest = np.take(np.zeros((3, 2, 4)), 0, axis=axis).shape
    parts = [T(f"u{i}", rest) for i in range(n)]
    tensors = [T("a", (3, 2, 4)), T("b", (3, 2, 4)), T("p", packed), *parts]
    ops = [
        O("PACK", ["a", "b"], ["p"], "PackOptions", {"valuesCount": 2, "axis": axis}),
        O("UNPACK", ["a"], [t.name for t in parts], "UnpackOptions", {"num": n, "axis": axis}),
    ]
    check(tensors, ops, ["a", "b"], ["p", *(t.name for t in parts)], tmp_path)


@pytest.mark.parametrize("pads", [[[0, 0], [1, 2], [0, 1], [0, 0]], [[0, 0], [0, 0], [2, 1], [1, 3]]], ids=str)
@pytest.mark.parametrize("mode", ["zeros", "value", "reflect", "symmetric"])
def test_padding(mode: str, pads: list[list[int]], tmp_path: Path) -> None:
    tensors, ops = _behind_a_convolution((1, 4, 5, 6))
    shape = [n + a + b for n, (a, b) in zip((1, 4, 5, 6), pads, strict=True)]
    tensors += [const("pads", pads, "int32"), const("value", 1.5), T("y", shape)]
    if mode == "zeros":
        ops.append(O("PAD", ["c", "pads"], ["y"], "PadOptions"))
    elif mode == "value":
        ops.append(O("PADV2", ["c", "pads", "value"], ["y"], "PadV2Options"))
    else:
        ops.append(O("MIRROR_PAD", ["c", "pads"], ["y"], "MirrorPadOptions", {"mode": int(mode == "symmetric")}))
    check(tensors, ops, ["x"], ["y"], tmp_path)


@pytest.mark.parametrize(("axis", "batch"), [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1)])
def test_gathering(axis: int, batch: int, tmp_path: Path) -> None:
    shape = (2, 3, 4)
    rest = shape[:axis] + ((2, 3)[batch:] if not batch else (3,)) + shape[axis + 1 :]
    index = np.random.default_rng(0).integers(0, shape[axis], (2, 3))
    tensors = [T("x", shape), const("i", index, "int32"), T("y", rest)]
    op = O("GATHER", ["x", "i"], ["y"], "GatherOptions", {"axis": axis, "batchDims": batch})
    check(tensors, [op], ["x"], ["y"], tmp_path)


def test_what_repeats_and_turns_round(tmp_path: Path) -> None:
    tensors, ops = _behind_a_convolution((1, 2, 3, 4))
    tensors += [
        const("times", [1, 2, 1, 3], "int32"),
        const("wide", [2, 2, 3, 4], "int32"),
        const("axes", [3], "int32"),
        const("begin", [0, 0, 1, 2], "int32"),
        const("size", [-1, 1, 2, -1], "int32"),
        T("t", (1, 4, 3, 12)),
        T("b", (2, 2, 3, 4)),
        T("r", (1, 2, 3, 4)),
        T("s", (1, 1, 2, 2)),
    ]
    ops += [
        O("TILE", ["c", "times"], ["t"]),
        O("BROADCAST_TO", ["c", "wide"], ["b"], version=2),
        O("REVERSE_V2", ["c", "axes"], ["r"]),
        O("SLICE", ["c", "begin", "size"], ["s"]),
    ]
    check(tensors, ops, ["x"], ["t", "b", "r", "s"], tmp_path)


def test_arithmetic_of_shapes(tmp_path: Path) -> None:
    tensors = [
        T("x", (2, 3, 4)),
        T("shape", (3,), "int32"),
        const("b", [0], "int32"),
        const("e", [1], "int32"),
        const("s", [1], "int32"),
        T("batch", (), "int32"),
        const("rest", 12, "int32"),
        T("both", (2,), "int32"),
        T("y", (2, 12)),
        T("zeros", (2, 3, 4)),
        const("half", 0.5),
        T("full", (2, 12)),
    ]
    ops = [
        O("SHAPE", ["x"], ["shape"], "ShapeOptions", {"outType": 2}),
        O("STRIDED_SLICE", ["shape", "b", "e", "s"], ["batch"], "StridedSliceOptions", {"shrinkAxisMask": 1}),
        O("PACK", ["batch", "rest"], ["both"], "PackOptions", {"valuesCount": 2}),
        O("RESHAPE", ["x", "both"], ["y"], "ReshapeOptions"),
        O("ZEROS_LIKE", ["x"], ["zeros"], "ZerosLikeOptions"),
        O("FILL", ["both", "half"], ["full"], "FillOptions"),
    ]
    tensors.append(T("sum", (2, 12)))
    ops.append(O("ADD", ["y", "full"], ["sum"], "AddOptions"))
    check(tensors, ops, ["x"], ["sum"], tmp_path)


def test_rows_of_a_table_and_one_hot(tmp_path: Path) -> None:
    tensors = [
        T("ids", (4,), "int32"),
        const("table", np.arange(20.0).reshape(5, 4)),
        T("rows", (4, 4)),
        const("depth", 5, "int32"),
        const("on", 2.0),
        const("off", -1.0),
        T("hot", (4, 5)),
    ]
    ops = [
        O("EMBEDDING_LOOKUP", ["ids", "table"], ["rows"]),
        O("ONE_HOT", ["ids", "depth", "on", "off"], ["hot"], "OneHotOptions", {"axis": -1}),
    ]
    feeds = {"ids": np.array([3, 0, 4, 1], np.int32)}
    check(tensors, ops, ["ids"], ["rows", "hot"], tmp_path, feeds=feeds)


def test_gathering_and_scattering_at_points(tmp_path: Path) -> None:
    tensors = [
        T("x", (3, 4, 2)),
        const("i", [[0, 1], [2, 3], [1, 0]], "int32"),
        T("g", (3, 2)),
        const("shape", [3, 4, 2], "int32"),
        T("s", (3, 4, 2)),
    ]
    ops = [O("GATHER_ND", ["x", "i"], ["g"], "GatherNdOptions"), O("SCATTER_ND", ["i", "g", "shape"], ["s"])]
    check(tensors, ops, ["x"], ["g", "s"], tmp_path)


def test_uneven_parts_and_reversed_sequences(tmp_path: Path) -> None:
    tensors = [
        T("x", (2, 5, 3)),
        const("sizes", [1, -1, 2], "int32"),
        const("axis", 1, "int32"),
        *(T(f"p{n}", (2, n, 3)) for n in (1, 2)),
        T("q2", (2, 2, 3)),
        const("lengths", [2, 4], "int32"),
        T("r", (2, 5, 3)),
    ]
    ops = [
        O("SPLIT_V", ["x", "sizes", "axis"], ["p1", "p2", "q2"], "SplitVOptions", {"numSplits": 3}),
        O("REVERSE_SEQUENCE", ["x", "lengths"], ["r"], "ReverseSequenceOptions", {"seqDim": 1, "batchDim": 0}),
    ]
    check(tensors, ops, ["x"], ["p1", "p2", "q2", "r"], tmp_path)


@pytest.mark.parametrize("start", [0, 2, 9])
def test_a_part_that_is_replaced(start: int, tmp_path: Path) -> None:
    tensors = [T("x", (2, 5)), T("part", (2, 2)), const("at", [0, start], "int32"), T("y", (2, 5))]
    op = O("DYNAMIC_UPDATE_SLICE", ["x", "part", "at"], ["y"])
    check(tensors, [op], ["x", "part"], ["y"], tmp_path)


def test_ranges_ranks_and_broadcast_shapes(tmp_path: Path) -> None:
    tensors = [
        T("x", (2, 1, 4)),
        *(const(name, value, "int32") for name, value in (("start", 1), ("end", 9), ("by", 2))),
        T("range", (4,), "int32"),
        T("real", (4,)),
        T("sum", (2, 1, 4)),
        T("rank", (), "int32"),
        T("shape", (3,), "int32"),
        const("other", [3, 1], "int32"),
        T("both", (3,), "int32"),
        T("wide", (2, 3, 4)),
    ]
    ops = [
        O("RANGE", ["start", "end", "by"], ["range"], "RangeOptions"),
        O("CAST", ["range"], ["real"], "CastOptions", {"inDataType": 2, "outDataType": 0}),
        O("ADD", ["x", "real"], ["sum"], "AddOptions"),
        O("SHAPE", ["x"], ["shape"], "ShapeOptions", {"outType": 2}),
        O("BROADCAST_ARGS", ["shape", "other"], ["both"]),
        O("BROADCAST_TO", ["sum", "both"], ["wide"], version=2),
    ]
    check(tensors, ops, ["x"], ["wide"], tmp_path)


def test_a_network_has_transposes_at_its_edges_only(tmp_path: Path) -> None:
    tensors, ops = _behind_a_convolution((1, 4, 4, 8))
    half = (1, 4, 4, 4)
    tensors += [
        const("axis", 3, "int32"),
        T("a", half),
        T("b", half),
        const("pads", [[0, 0], [0, 0], [0, 0], [2, 2]], "int32"),
        T("p", (1, 4, 4, 8)),
        const("by_channel", np.linspace(-1, 1, 8)),
        T("m", (1, 4, 4, 8)),
        const("alpha", np.linspace(0.1, 0.5, 8).reshape(1, 1, 8)),
        T("r", (1, 4, 4, 8)),
        T("j", (1, 4, 4, 16)),
        T("soft", (1, 4, 4, 16)),
        const("size", [8, 8], "int32"),
        T("big", (1, 8, 8, 16)),
        const("spatial", [1, 2], "int32"),
        T("mean", (1, 16)),
    ]
    ops += [
        O("SPLIT", ["axis", "c"], ["a", "b"], "SplitOptions", {"numSplits": 2}),
        O("PAD", ["b", "pads"], ["p"], "PadOptions"),
        O("MUL", ["p", "by_channel"], ["m"], "MulOptions"),
        O("PRELU", ["m", "alpha"], ["r"]),
        O("CONCATENATION", ["c", "r"], ["j"], "ConcatenationOptions", {"axis": 3}),
        O("SOFTMAX", ["j"], ["soft"], "SoftmaxOptions", {"beta": 1.0}),
        O("RESIZE_BILINEAR", ["soft", "size"], ["big"], "ResizeBilinearOptions"),
        O("MEAN", ["big", "spatial"], ["mean"], "ReducerOptions"),
    ]
    check(tensors, ops, ["x"], ["mean"], tmp_path)
    graph = tflite.load(tmp_path / "model.tflite").graph
    assert [node.op_type for node in graph].count("Transpose") == 1


def test_an_unknown_operator_beyond_the_cut_does_not_matter(tmp_path: Path) -> None:
    tensors, ops = _behind_a_convolution((1, 2, 2, 3))
    ops.append(O("CUSTOM", ["c"], ["boxes"], custom="TFLite_Detection_PostProcess"))
    file = tmp_path / "model.tflite"
    file.write_bytes(build([*tensors, T("boxes", (1, 4))], ops, ["x"], ["boxes"]))
    with pytest.raises(tflite.loading.ModelError, match="TFLite_Detection_PostProcess") as caught:
        tflite.load(file)
    assert "outputs" in caught.value.hint
    model = tflite.load(file, outputs=["c"])
    assert [v.name for v in model.graph.outputs] == ["c"]


def test_a_graph_may_start_at_a_tensor_within_and_in_another_size(tmp_path: Path) -> None:
    tensors, ops = _behind_a_convolution((1, 4, 4, 3))
    ops.append(O("RELU", ["c"], ["y"]))
    file = tmp_path / "model.tflite"
    file.write_bytes(build([*tensors, T("y", (1, 4, 4, 3))], ops, ["x"], ["y"]))
    model = tflite.load(file, inputs=["c"], input_size_list=[[1, 6, 5, 3]])
    assert [(v.name, tuple(v.shape or ())) for v in model.graph.inputs] == [("c", (1, 6, 5, 3))]
    assert tuple(model.graph.outputs[0].shape or ()) == (1, 6, 5, 3)
    model = tflite.load(file, input_size_list=[[2, 6, 5, 2]])
    assert tuple(model.graph.outputs[0].shape or ()) == (2, 6, 5, 3)
