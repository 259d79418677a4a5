"""Models of older opsets compute the same after they are brought to the canonical one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelError
from engine.frontends.onnx_node_editing import CANONICAL_OPSET
from engine.frontends.onnx_opset import UPGRADERS, upgrade
from engine.graph.provenance import mark_source, sources

Arrays = dict[str, np.ndarray]

few = settings(max_examples=40, deadline=None)


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tensors(arrays: Arrays | None) -> list[TensorProto]:
    return [numpy_helper.from_array(array, name) for name, array in (arrays or {}).items()]


def declared(arrays: Arrays, *, shapes: bool = True) -> list[onnx.ValueInfoProto]:
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in arrays.items()}
    return [
        helper.make_tensor_value_info(name, kinds[name], array.shape if shapes else [None] * array.ndim)
        for name, array in arrays.items()
    ]


def one_node(
    op: str,
    opset: int,
    data: Arrays,
    *,
    constants: Arrays | None = None,
    names: Sequence[str] | None = None,
    outputs: Sequence[str] = ("y",),
    shapes: bool = True,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of the single node `op` called "layer", which reads all data and constants, or what `names` lists."""
    inputs = list(names) if names is not None else [*data, *(constants or {})]
    node = helper.make_node(op, inputs, list(outputs), name="layer", **attributes)
    results = [helper.make_empty_tensor_value_info(name) for name in outputs if name]
    graph = helper.make_graph([node], "tiny", declared(data, shapes=shapes), results, tensors(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)


def run(model: onnx.ModelProto, data: Arrays) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, data)


def upgraded(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    mark_source(graph.graph)
    upgrade(graph)
    result = ir.to_proto(graph)
    assert {entry.domain: entry.version for entry in result.opset_import}[""] == CANONICAL_OPSET
    for node in graph.graph:
        assert sources(node), f"{node.op_type} has lost the node that it comes from"
    return result


def check(model: onnx.ModelProto, data: Arrays, *, tolerance: float = 0.0) -> onnx.ModelProto:
    """Assert that `model` says the same before and after; returns it as it is after."""
    names = [value.name for value in model.graph.output]
    before = run(model, data)
    del model.graph.output[:]  # the checker wants their types
    model.graph.output.extend(declared(dict(zip(names, before, strict=True))))
    after = upgraded(model)
    onnx.checker.check_model(after, full_check=True)
    assert [value.name for value in after.graph.output] == names
    for old, new in zip(before, run(after, data), strict=True):
        assert (old.dtype, old.shape) == (new.dtype, new.shape)
        np.testing.assert_allclose(new, old, rtol=tolerance, atol=tolerance)
    return after


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def unchanged(model: onnx.ModelProto, after: onnx.ModelProto) -> bool:
    """Whether the nodes are the same but for their provenance."""
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in after.graph.node]
    for node in nodes:
        del node.metadata_props[:]
    return nodes == list(model.graph.node)


# Which operators have to be looked at

MORE_TYPES = """Abs Add Ceil Concat Constant CumSum Div Equal Erf Exp Expand Floor GatherElements Greater GreaterOrEqual
Identity IsNaN LRN LeakyRelu Less LessOrEqual Log MatMul Mod Mul Neg NonZero PRelu Pow Reciprocal Relu Sigmoid Sign
Size SpaceToDepth Sqrt Sub Tanh Tile Transpose Where"""
"""More element types were allowed, and nothing else (Constant: more ways to write a value)."""

BROADCASTING = "Max Mean Min Sum"
"""Broadcasting was allowed where equal shapes were required."""

NEGATIVE_AXES = "Compress Flatten Gather OneHot"
"""Negative axes or indices were allowed. ONNX Runtime counts those of OneHot from the end at opset 9 as well."""

OPTIONAL_INPUTS = "Conv ConvTranspose Gemm MaxUnpool NonMaxSuppression OptionalGetElement OptionalHasElement"
"""An input became optional or the default of an attribute was written down."""

NEW_ATTRIBUTES = """ArgMax ArgMin AveragePool DepthToSpace DequantizeLinear GRU GatherND LSTM LpPool MaxPool
QuantizeLinear RNN Reshape ScatterElements ScatterND Shape"""
"""An attribute was added whose default is the old behaviour."""

WIDER_MEANING = "Cast If Loop NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss"
"""Cast reads strings, branches and loop variables may change their shape, the losses are explained better."""

GROUPS = (MORE_TYPES, BROADCASTING, NEGATIVE_AXES, OPTIONAL_INPUTS, NEW_ATTRIBUTES, WIDER_MEANING)
COMPATIBLE = frozenset(name for group in GROUPS for name in group.split())


def standard_schemas() -> dict[str, dict[int, onnx.defs.OpSchema]]:
    schemas: dict[str, dict[int, onnx.defs.OpSchema]] = defaultdict(dict)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain in ("", "ai.onnx"):
            schemas[schema.name][schema.since_version] = schema
    return schemas


def changed_operators() -> set[str]:
    """Operators that some opset of 7..17 knows in an older version than opset 18 does."""
    changed = set()
    for name, versions in standard_schemas().items():
        new = max((version for version in versions if version <= CANONICAL_OPSET), default=0)
        if new > 7 and any(version < new for version in versions):
            changed.add(name)
    return changed


def test_every_operator_that_changed_since_opset_7_is_upgraded_or_known_to_be_compatible() -> None:
    assert changed_operators() - set(UPGRADERS) - COMPATIBLE == set()


def test_no_operator_is_both_upgraded_and_compatible() -> None:
    assert set(UPGRADERS) & COMPATIBLE == set()
    assert changed_operators() >= COMPATIBLE


@pytest.mark.parametrize("name", sorted(COMPATIBLE))
def test_a_compatible_operator_keeps_its_inputs_outputs_attributes_and_defaults(name: str) -> None:
    versions = standard_schemas()[name]
    latest = versions[max(version for version in versions if version <= CANONICAL_OPSET)]
    oldest = max((version for version in versions if version <= 7), default=0)
    for version, schema in versions.items():
        if oldest <= version <= CANONICAL_OPSET:
            assert len(schema.inputs) <= len(latest.inputs)
            assert len(schema.outputs) <= len(latest.outputs)
            for attribute, old in schema.attributes.items():
                assert latest.attributes[attribute].type == old.type
                assert latest.attributes[attribute].default_value == old.default_value
            added = set(latest.attributes) - set(schema.attributes)
            assert not any(latest.attributes[attribute].required for attribute in added)


@pytest.mark.parametrize("opset", [7, 10])
@pytest.mark.parametrize("pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"])
def test_windows_are_placed_as_before(op: str, pad: str, opset: int) -> None:
    data = {"x": floats(1, 2, 6, 7)}
    weights = {"w": floats(2, 2, 2, 3)} if op.startswith("Conv") else None
    check(one_node(op, opset, data, constants=weights, kernel_shape=[2, 3], strides=[2, 1], auto_pad=pad), data)


# Whole models


def test_a_model_of_a_newer_opset_is_left_as_it_is() -> None:
    model = one_node("Softmax", 20, {"x": floats(2, 3)}, axis=0)
    graph = ir.from_proto(model)
    upgrade(graph)
    after = ir.to_proto(graph)
    assert unchanged(model, after)
    assert after.opset_import[0].version == 20


def test_an_opset_too_old_is_refused_with_its_number() -> None:
    with pytest.raises(ModelError, match=r"opset 6;.*opset 7 is the oldest"):
        upgrade(ir.from_proto(one_node("Relu", 6, {"x": floats(2)})))


def test_a_model_without_any_opset_counts_as_the_first() -> None:
    model = one_node("Relu", 7, {"x": floats(2)})
    del model.opset_import[:]
    with pytest.raises(ModelError, match="opset 1;"):
        upgrade(ir.from_proto(model))


def test_the_long_name_of_the_standard_domain_is_understood() -> None:
    model = one_node("Clip", 9, {"x": floats(3)}, min=0.0)
    model.opset_import[0].domain = "ai.onnx"
    after = upgraded(model)
    assert [(entry.domain, entry.version) for entry in after.opset_import] == [("", CANONICAL_OPSET)]
    assert len(after.graph.node[0].input) == 2


def test_operators_of_other_domains_are_left_alone() -> None:
    model = one_node("Clip", 9, {"x": floats(3)}, domain="vendor", min=0.0)
    model.opset_import.append(helper.make_opsetid("vendor", 1))
    assert unchanged(model, upgraded(model))


def test_functions_of_an_older_opset_must_be_inlined_first() -> None:
    model = one_node("Twice", 13, {"x": floats(3)}, domain="local")
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 13)]
    model.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    with pytest.raises(ModelError, match="inline"):
        upgrade(ir.from_proto(model))


def test_subgraphs_are_upgraded_and_their_constants_hide_no_outer_name() -> None:
    def branch(name: str, axes: list[int]) -> onnx.GraphProto:
        reduce = helper.make_node("ReduceSum", ["x"], [f"{name}_out"], axes=axes, keepdims=0)
        return helper.make_graph([reduce], name, [], [helper.make_empty_tensor_value_info(f"{name}_out")])

    nodes = [
        helper.make_node("Unsqueeze", ["x"], ["axes"], axes=[0]),  # a result called as the constants would be
        helper.make_node("If", ["c"], ["y"], then_branch=branch("yes", [0]), else_branch=branch("no", [1])),
    ]
    data = {"x": floats(3, 3), "c": np.array(True)}
    results = [helper.make_empty_tensor_value_info(name) for name in ("y", "axes")]
    graph = helper.make_graph(nodes, "nested", declared(data), results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=4)
    after = check(model, data)
    check(model, {**data, "c": np.array(False)})
    assert len({tensor.name for tensor in after.graph.initializer}) == 2
    assert "axes" not in {tensor.name for tensor in after.graph.initializer}


def test_equal_constants_are_added_once() -> None:
    nodes = [helper.make_node("Unsqueeze", ["x"], [f"y{i}"], axes=[1]) for i in range(20)]
    data = {"x": floats(3)}
    results = [helper.make_empty_tensor_value_info(f"y{i}") for i in range(20)]
    graph = helper.make_graph(nodes, "many", declared(data), results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=4)
    assert len(check(model, data).graph.initializer) == 1


@pytest.mark.parametrize(
    ("op", "opset"), [("Unsqueeze", 9), ("Slice", 9), ("TopK", 9), ("Pad", 10), ("Upsample", 8), ("Resize", 10)]
)
def test_a_node_without_what_it_needs_is_named(op: str, opset: int) -> None:
    with pytest.raises(ModelError, match=r"layer: .*lacks"):
        upgrade(ir.from_proto(one_node(op, opset, {"x": floats(2, 2)})))


def test_a_node_without_input_is_named() -> None:
    with pytest.raises(ModelError, match=r"layer: .*no input"):
        upgrade(ir.from_proto(one_node("Clip", 9, {})))


def test_an_attribute_of_the_wrong_type_is_named() -> None:
    with pytest.raises(ModelError, match=r"layer: .*'axes' is of the wrong type"):
        upgrade(ir.from_proto(one_node("Squeeze", 9, {"x": floats(1)}, axes="all")))


# Axes


@few
@given(
    st.sampled_from([9, 11, 12]),
    st.lists(st.sampled_from([1, 1, 2, 3]), min_size=1, max_size=4),
    st.data(),
)
def test_squeeze_and_unsqueeze(opset: int, shape: list[int], draw: st.DataObject) -> None:
    data = {"x": floats(*shape)}
    lowest = -len(shape) if opset >= 11 else 0
    ones = [axis for axis in range(lowest, len(shape)) if shape[axis] == 1]
    axes = draw.draw(
        st.lists(st.sampled_from(ones), max_size=2, unique_by=lambda a: a % len(shape)) if ones else st.none()
    )
    check(one_node("Squeeze", opset, data, **({"axes": axes} if axes else {})), data)
    rank = len(shape) + 2
    places = st.integers(-rank if opset >= 11 else 0, rank - 1)
    new = draw.draw(st.lists(places, min_size=2, max_size=2, unique_by=lambda a: a % rank))
    check(one_node("Unsqueeze", opset, data, axes=new), data)


@pytest.mark.parametrize("opset", [7, 11, 12, 13, 17])
@pytest.mark.parametrize("axes", [None, [1], [0, 2]])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(opset: int, axes: list[int] | None, keepdims: int) -> None:
    data = {"x": np.abs(floats(2, 3, 4)) + 0.1}
    for op in sorted(name for name in UPGRADERS if name.startswith("Reduce")):
        if op == "ReduceSum" and opset >= 13:
            continue
        given_axes = {} if axes is None else {"axes": axes}
        check(one_node(op, opset, data, keepdims=keepdims, **given_axes), data, tolerance=1e-6)


def test_a_sum_over_axes_given_as_input_stays() -> None:
    data = {"x": floats(2, 3)}
    axes = {"axes": np.array([1])}
    model = one_node("ReduceSum", 13, data, constants=axes, noop_with_empty_axes=1)
    assert unchanged(model, check(model, data))


@few
@given(
    st.sampled_from(["Softmax", "LogSoftmax", "Hardmax"]),
    st.sampled_from([7, 11, 12]),
    st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=4),
    st.booleans(),
    st.data(),
)
def test_softmax_over_all_axes_from_one_on(
    op: str, opset: int, shape: list[int], shapes: bool, draw: st.DataObject
) -> None:
    data = {"x": floats(*shape)}
    axis = draw.draw(st.integers(-len(shape) if opset >= 11 else 0, len(shape) - 1))
    default = axis == 1 and draw.draw(st.booleans())
    model = one_node(op, opset, data, shapes=shapes, **({} if default else {"axis": axis}))
    check(model, data, tolerance=1e-6)


@pytest.mark.parametrize("shape", [(2, 5), (1, 5, 1, 1), (2, 1, 1, 5)])
def test_softmax_along_one_axis_stays_one_node(shape: tuple[int, ...]) -> None:
    data = {"x": floats(*shape)}
    assert operators(check(one_node("Softmax", 11, data), data, tolerance=1e-6)) == ["Softmax"]


def test_softmax_over_two_axes_keeps_the_names_of_the_node_and_its_result() -> None:
    data = {"x": floats(2, 3, 4)}
    after = check(one_node("Softmax", 11, data), data, tolerance=1e-6)
    assert operators(after) == ["Flatten", "Softmax", "Reshape"]
    assert after.graph.node[1].name == "layer"
    assert after.graph.node[-1].output[0] == "y"


@pytest.mark.parametrize("op", ["Softmax", "Hardmax", "Clip", "ScaledTanh"])
def test_values_of_unknown_type_and_shape(op: str) -> None:
    attributes = {"Clip": {"min": 0.1}, "ScaledTanh": {"alpha": 2.0, "beta": 3.0}}.get(op, {})
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node(op, ["a"], ["b"], **attributes),
        helper.make_node("Abs", ["b"], ["y"]),
    ]
    data = {"x": floats(2, 3, 4)}
    graph = helper.make_graph(nodes, "untyped", declared(data), [helper.make_empty_tensor_value_info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4)
    check(model, data, tolerance=1e-6)


# Attributes that became inputs


@pytest.mark.parametrize("bounds", [{}, {"min": -0.5}, {"max": 0.25}, {"min": 0.0, "max": 6.0}, {"max": 3.4028235e38}])
def test_clip(bounds: dict[str, float]) -> None:
    data = {"x": np.append(floats(8), np.float32([np.inf, -np.inf]))}
    check(one_node("Clip", 7, data, **bounds), data)


def test_clip_leaves_out_bounds_beyond_float16() -> None:
    data = {"x": floats(8).astype(np.float16)}
    after = check(one_node("Clip", 10, data, min=0.0, max=1e6), data)
    assert [list(node.input)[2:] for node in after.graph.node] == [[]]


@few
@given(st.sampled_from([7, 9]), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
def test_slice(opset: int, shape: list[int], draw: st.DataObject) -> None:
    data = {"x": floats(*shape)}
    axes = draw.draw(st.none() | st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape), unique=True))
    count = len(axes) if axes is not None else draw.draw(st.integers(1, len(shape)))
    starts = [draw.draw(st.integers(-6, 6)) for _ in range(count)]
    ends = [draw.draw(st.integers(-6, 6) | st.just(2**63 - 1)) for _ in range(count)]
    given_axes = {} if axes is None else {"axes": axes}
    check(one_node("Slice", opset, data, starts=starts, ends=ends, **given_axes), data)


@few
@given(
    st.sampled_from([7, 10]),
    st.sampled_from(["constant", "reflect", "edge"]),
    st.lists(st.integers(3, 5), min_size=1, max_size=3),
    st.sampled_from([0.0, 1.5]),
    st.data(),
)
def test_pad(opset: int, mode: str, shape: list[int], value: float, draw: st.DataObject) -> None:
    data = {"x": floats(*shape)}
    pads = [draw.draw(st.integers(-1 if mode == "constant" else 0, 2)) for _ in range(2 * len(shape))]
    check(one_node("Pad", opset, data, mode=mode, pads=pads, value=value), data)


@pytest.mark.parametrize("opset", [7, 12, 13, 17])
def test_split_into_equal_parts(opset: int) -> None:
    data = {"x": floats(2, 6)}
    check(one_node("Split", opset, data, outputs=["a", "b", "c"], axis=1), data)


def test_split_into_given_parts() -> None:
    data = {"x": floats(2, 6)}
    check(one_node("Split", 7, data, outputs=["a", "b"], axis=1, split=[1, 5]), data)
    model = one_node("Split", 13, data, constants={"split": np.array([1, 5])}, outputs=["a", "b"], axis=1)
    assert unchanged(model, check(model, data))


@pytest.mark.parametrize("opset", [7, 9])
def test_top_k(opset: int) -> None:
    data = {"x": floats(3, 6)}
    check(one_node("TopK", opset, data, outputs=["values", "indices"], k=2, axis=1), data)


# Images


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(mode: str) -> None:
    data = {"x": floats(1, 2, 3, 4)}
    check(one_node("Upsample", 7, data, mode=mode, scales=[1.0, 1.0, 2.0, 1.5]), data, tolerance=1e-6)
    scales = {"s": np.float32([1, 1, 2, 3])}
    check(one_node("Upsample", 9, data, mode=mode, constants=scales), data, tolerance=1e-6)


def test_upsample_by_scales_that_are_computed() -> None:
    data = {"x": floats(1, 2, 3, 4), "s": np.float32([1, 1, 2, 2])}
    check(one_node("Upsample", 9, data), data)


@few
@given(
    st.sampled_from(["nearest", "linear"]),
    st.lists(st.sampled_from([0.4, 0.5, 1.0, 1.5, 2.0, 3.0]), min_size=2, max_size=2),
    st.lists(st.integers(3, 7), min_size=2, max_size=2),
)
def test_resize_of_opset_10(mode: str, scales: list[float], size: list[int]) -> None:
    data = {"x": floats(1, 2, *size)}
    constants = {"s": np.float32([1, 1, *scales])}
    check(one_node("Resize", 10, data, mode=mode, constants=constants), data, tolerance=1e-6)


@few
@given(
    st.sampled_from([11, 12, 13, 17]),
    st.sampled_from(["nearest", "linear", "cubic"]),
    st.sampled_from(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]),
    st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    st.sampled_from([0.5, 1.0, 1.5, 2.0]),
    st.booleans(),
)
def test_resize_of_later_opsets(
    opset: int, mode: str, coordinates: str, nearest: str, scale: float, by_size: bool
) -> None:
    data = {"x": floats(1, 2, 4, 6)}
    constants = {"roi": np.zeros(0, np.float32), "scales": np.float32([1, 1, scale, scale])}
    if by_size:
        constants.update(scales=np.zeros(0, np.float32), sizes=np.array([1, 2, int(4 * scale), int(6 * scale)]))
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": nearest}
    check(one_node("Resize", opset, data, constants=constants, **attributes), data, tolerance=1e-6)


@pytest.mark.parametrize("scale", [0.4, 0.5, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("nearest", ["floor", "round_prefer_floor"])
def test_resize_between_pixel_corners_for_nearest(scale: float, nearest: str) -> None:
    data = {"x": floats(1, 1, 6, 7)}
    constants = {"roi": np.zeros(0, np.float32), "scales": np.float32([1, 1, scale, scale])}
    attributes = {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": nearest}
    after = check(one_node("Resize", 11, data, constants=constants, **attributes), data)
    assert b"tf_half_pixel_for_nn" not in after.SerializeToString()


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_keeps_its_half_pixel(mode: str) -> None:
    data = {"x": floats(1, 2, 6, 6), "r": np.float32([[0, 0, 4, 3], [1, 2, 5, 5]]), "b": np.array([0, 0])}
    check(one_node("RoiAlign", 10, data, mode=mode, output_height=2, output_width=3), data, tolerance=1e-6)


# Training and inference


@pytest.mark.parametrize("opset", [7, 9, 13])
def test_batch_normalization(opset: int) -> None:
    data = {"x": floats(2, 3, 4)}
    constants = {name: np.abs(floats(3, seed=i)) + 0.1 for i, name in enumerate("sbmv")}
    model = one_node("BatchNormalization", opset, data, constants=constants, momentum=0.5, epsilon=1e-3)
    check(model, data, tolerance=1e-6)


def test_batch_normalization_per_channel_loses_its_attribute() -> None:
    data = {"x": floats(2, 3, 4)}
    constants = {name: np.abs(floats(3, seed=i)) + 0.1 for i, name in enumerate("sbmv")}
    check(one_node("BatchNormalization", 7, data, constants=constants, spatial=1), data, tolerance=1e-6)


def test_batch_normalization_per_position_is_refused() -> None:
    constants = dict.fromkeys("sbmv", np.ones((3, 4), np.float32))
    with pytest.raises(ModelError, match=r"layer: .*spatial=0"):
        upgrade(
            ir.from_proto(one_node("BatchNormalization", 7, {"x": floats(2, 3, 4)}, constants=constants, spatial=0))
        )


def test_batch_normalization_that_trains_is_refused() -> None:
    constants = dict.fromkeys("sbmv", np.ones(3, np.float32))
    model = one_node("BatchNormalization", 9, {"x": floats(2, 3, 4)}, constants=constants, outputs=["y", "mean", "var"])
    with pytest.raises(ModelError, match="'mean' is used"):
        upgrade(ir.from_proto(model))


@pytest.mark.parametrize("opset", [7, 10, 12, 13])
def test_dropout_lets_the_data_pass(opset: int) -> None:
    data = {"x": floats(2, 3)}
    ratio = {"ratio": 0.3} if opset < 12 else {}
    check(one_node("Dropout", opset, data, **ratio), data)


def test_dropout_loses_an_unread_mask() -> None:
    data = {"x": floats(2, 3)}
    model = one_node("Dropout", 7, data, outputs=["y", "mask"], ratio=0.3)
    del model.graph.output[1]
    assert check(model, data).graph.node[0].output == ["y"]


def test_dropout_whose_mask_is_read_is_refused() -> None:
    with pytest.raises(ModelError, match="'mask' is used"):
        upgrade(ir.from_proto(one_node("Dropout", 10, {"x": floats(2)}, outputs=["y", "mask"])))


# The others


@pytest.mark.parametrize("opset", [9, 10])
def test_scatter_becomes_scatter_elements(opset: int) -> None:
    data = {"x": floats(3, 3)}
    constants = {"i": np.array([[2, 0, 1]]), "u": floats(1, 3, seed=1)}
    assert operators(check(one_node("Scatter", opset, data, constants=constants, axis=1), data)) == ["ScatterElements"]


def test_scan_over_a_batch_is_refused() -> None:
    add = helper.make_node("Add", ["a", "b"], ["c"])
    kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "abc"]
    body = helper.make_graph([add, helper.make_node("Identity", ["c"], ["d"])], "body", kinds[:2], [kinds[2]])
    model = one_node(
        "Scan", 8, {"s": floats(1, 1), "x": floats(1, 3, 1)}, names=["", "s", "x"], body=body, num_scan_inputs=1
    )
    with pytest.raises(ModelError, match=r"layer: .*opset 8"):
        upgrade(ir.from_proto(model))


@pytest.mark.parametrize("opset", [9, 10])
def test_one_hot_counts_negative_indices_from_the_end(opset: int) -> None:
    data = {"i": np.array([0, 2, -1, 7])}
    check(one_node("OneHot", opset, data, constants={"d": np.array([3]), "v": np.float32([0, 1])}), data)


@pytest.mark.parametrize("op", ["GRU", "LSTM", "RNN"])
def test_recurrent_layers_stay(op: str) -> None:
    gates = {"GRU": 3, "LSTM": 4, "RNN": 1}[op]
    data = {"x": floats(4, 2, 3)}
    constants = {"w": floats(1, gates * 5, 3), "r": floats(1, gates * 5, 5)}
    check(one_node(op, 7, data, constants=constants, hidden_size=5), data, tolerance=1e-6)


# Operators of early exporters


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("ImageScaler", {"scale": 0.5, "bias": [1.0, -2.0, 3.0]}),
        ("ImageScaler", {"bias": [1.0, -2.0, 3.0]}),
        ("Affine", {"alpha": 2.0, "beta": -1.0}),
        ("Scale", {"scale": 3.0}),
        ("ParametricSoftplus", {"alpha": 2.0, "beta": 0.5}),
        ("ScaledTanh", {"alpha": 2.0, "beta": 1.0}),
        ("Crop", {"border": [1, 0, 2, 1]}),
        ("Crop", {"border": [1, 2, 1, 0], "scale": [3, 2]}),
        ("MeanVarianceNormalization", {"across_channels": 1}),
        ("MeanVarianceNormalization", {"across_channels": 0, "normalize_variance": 0}),
        ("ThresholdedRelu", {"alpha": 0.3}),
    ],
)
def test_operators_of_early_exporters(op: str, attributes: dict[str, Any]) -> None:
    data = {"x": floats(1, 3, 6, 7)}
    check(one_node(op, 7, data, **attributes), data, tolerance=1e-6)


def test_dynamic_slice() -> None:
    data = {"x": floats(4, 5)}
    constants = {"starts": np.array([1, 0]), "ends": np.array([3, -1])}
    check(one_node("DynamicSlice", 9, data, constants=constants), data)
