"""Models in other float types become float32 and say the same within the precision that they had."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from engine.frontends.onnx_types import to_float32

FLOATS = {TensorProto.FLOAT16: np.float16, TensorProto.DOUBLE: np.float64}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int]]],
    outputs: dict[str, tuple[int, list[int]]],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    results = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()]
    initializers = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "tiny", values, results, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def converted(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    to_float32(graph)
    after = ir.to_proto(graph)
    onnx.checker.check_model(after, full_check=True)
    return after


def run(model: onnx.ModelProto, data: dict[str, np.ndarray]) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, data)


def float32(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in data.items()}


def check(model: onnx.ModelProto, data: dict[str, np.ndarray], *, tolerance: float) -> onnx.ModelProto:
    after = converted(model)
    for old, new in zip(run(model, data), run(after, float32(data)), strict=True):
        assert new.dtype == (np.float32 if old.dtype.kind == "f" else old.dtype)
        np.testing.assert_allclose(new, old, rtol=tolerance, atol=tolerance)
    return after


@pytest.mark.parametrize("kind", FLOATS)
def test_a_network_with_casts_and_constants(kind: int) -> None:
    dtype = FLOATS[kind]
    one = numpy_helper.from_array(np.ones(1, dtype))
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["c"], alpha=0.5),
        helper.make_node("Cast", ["c"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["wide"], ["r"]),
        helper.make_node("Cast", ["r"], ["narrow"], to=kind),
        helper.make_node("CastLike", ["n", "x"], ["n_float"]),
        helper.make_node("Add", ["narrow", "n_float"], ["s"]),
        helper.make_node("Shape", ["s"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["ones"], value=one),
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.array(0.5, dtype))),
        helper.make_node("Mul", ["ones", "half"], ["halves"]),
        helper.make_node("Sub", ["s", "halves"], ["y"]),
        helper.make_node("Greater", ["y", "half"], ["z"]),
    ]
    inputs = {"x": (kind, [5, 4]), "n": (TensorProto.INT64, [1])}
    constants = {"w": normal(4, 3).astype(dtype), "b": normal(3, seed=1).astype(dtype)}
    model = model_of(nodes, inputs, {"y": (kind, [5, 3])}, constants)
    after = check(model, {"x": normal(5, 4, seed=2).astype(dtype), "n": np.array([3])}, tolerance=5e-3)
    kinds = {value.type.tensor_type.elem_type for value in (*after.graph.input, *after.graph.output)}
    assert kinds == {TensorProto.FLOAT, TensorProto.INT64}
    assert {tensor.data_type for tensor in after.graph.initializer} == {TensorProto.FLOAT}


def test_bfloat16_weights_keep_their_values() -> None:
    weights = normal(3, 4).astype(ml_dtypes.bfloat16)
    nodes = [
        helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    model = model_of(nodes, {"x": (TensorProto.FLOAT, [2, 3])}, {"y": (TensorProto.FLOAT, [2, 4])})
    tensor = helper.make_tensor("w", TensorProto.BFLOAT16, [3, 4], weights.tobytes(), raw=True)
    model.graph.initializer.append(tensor)
    x = normal(2, 3).astype(np.float32)
    after = converted(model)
    assert after.graph.initializer[0].data_type == TensorProto.FLOAT
    np.testing.assert_allclose(run(after, {"x": x})[0], x @ weights.astype(np.float32), rtol=1e-6)


def test_float64_beyond_the_range_becomes_infinite_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    nodes = [helper.make_node("Min", ["x", "limit"], ["y"])]
    model = model_of(
        nodes, {"x": (TensorProto.DOUBLE, [2])}, {"y": (TensorProto.DOUBLE, [2])}, {"limit": np.array([1e300])}
    )
    after = converted(model)
    assert not recwarn.list
    assert numpy_helper.to_array(after.graph.initializer[0]) == np.inf


def test_values_inside_subgraphs() -> None:
    def branch(name: str, constant: float) -> onnx.GraphProto:
        add = helper.make_node("Add", ["x", f"{name}_c"], [f"{name}_sum"])
        cast = helper.make_node("Cast", [f"{name}_sum"], [f"{name}_out"], to=TensorProto.FLOAT16)
        initializer = numpy_helper.from_array(np.array([constant], np.float16), f"{name}_c")
        result = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT16, [2])
        return helper.make_graph([add, cast], name, [], [result], [initializer])

    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch("yes", 1.5), else_branch=branch("no", -1.5))]
    inputs = {"x": (TensorProto.FLOAT16, [2]), "c": (TensorProto.BOOL, [])}
    model = model_of(nodes, inputs, {"y": (TensorProto.FLOAT16, [2])})
    check(model, {"x": normal(2).astype(np.float16), "c": np.array(True)}, tolerance=2e-3)


def test_float16_scales_of_quantized_tensors() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    constants = {"scale": np.array(0.25, np.float16), "zero": np.array(3, np.int8)}
    model = model_of(nodes, {"x": (TensorProto.FLOAT16, [8])}, {"y": (TensorProto.FLOAT16, [8])}, constants, opset=19)
    after = converted(model)
    assert [tensor.data_type for tensor in after.graph.initializer] == [TensorProto.FLOAT, TensorProto.INT8]
    # ONNX Runtime's own float16 quantizer differs between versions, so plain numpy says what is right.
    x = normal(8).astype(np.float16).astype(np.float32)
    expected = (np.clip(np.rint(x / 0.25) + 3, -128, 127) - 3) * 0.25
    np.testing.assert_array_equal(run(after, {"x": x})[0], expected)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("RandomNormalLike", ["x"], {"dtype": TensorProto.DOUBLE}),
        ("RandomUniform", [], {"dtype": TensorProto.DOUBLE, "shape": [2, 2]}),
        ("EyeLike", ["x"], {"dtype": TensorProto.DOUBLE}),
        ("HannWindow", ["size"], {"output_datatype": TensorProto.DOUBLE}),
        ("Bernoulli", ["x"], {"dtype": TensorProto.DOUBLE}),
    ],
)
def test_operators_that_name_their_element_type(op: str, inputs: list[str], attributes: dict[str, Any]) -> None:
    nodes = [helper.make_node(op, inputs, ["y"], **attributes)]
    given_inputs = {"x": (TensorProto.DOUBLE, [2, 2])}
    model = model_of(
        nodes, given_inputs, {"y": (TensorProto.DOUBLE, [4] if inputs == ["size"] else [2, 2])}, {"size": np.array(4)}
    )
    assert run(converted(model), {"x": np.full((2, 2), 0.5, np.float32)})[0].dtype == np.float32


def test_integers_and_text_in_attributes_stay() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32),
        helper.make_node("Gather", ["x", "i"], ["y"], axis=1),
        helper.make_node("Special", ["x"], ["s"], domain="vendor", dtype=TensorProto.FLOAT16, mode="fast"),
    ]
    model = model_of(nodes, {"x": (TensorProto.FLOAT16, [2, 2])}, {"y": (TensorProto.FLOAT16, [2, 2, 2])})
    model.opset_import.append(helper.make_opsetid("vendor", 1))
    assert list(converted(model).graph.node) == nodes


def test_sequences_of_other_floats() -> None:
    nodes = [
        helper.make_node("SequenceEmpty", [], ["none"], dtype=TensorProto.DOUBLE),
        helper.make_node("SequenceInsert", ["none", "x"], ["one"]),
        helper.make_node("ConcatFromSequence", ["one"], ["y"], axis=0),
    ]
    model = model_of(nodes, {"x": (TensorProto.DOUBLE, [3])}, {"y": (TensorProto.DOUBLE, [3])})
    model.graph.value_info.append(helper.make_tensor_sequence_value_info("one", TensorProto.DOUBLE, [3]))
    after = check(model, {"x": normal(3)}, tolerance=1e-6)
    (one,) = [value for value in after.graph.value_info if value.name == "one"]
    assert one.type.sequence_type.elem_type.tensor_type.elem_type == TensorProto.FLOAT


def test_functions_are_converted_with_the_model() -> None:
    half = helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.array(0.5, np.float16)))
    body = [half, helper.make_node("Mul", ["a", "half"], ["b"])]
    opsets = [helper.make_opsetid("", 18)]
    model = model_of(
        [helper.make_node("Halve", ["x"], ["y"], domain="local")],
        {"x": (TensorProto.FLOAT16, [3])},
        {"y": (TensorProto.FLOAT16, [3])},
    )
    model.functions.append(helper.make_function("local", "Halve", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    check(model, {"x": normal(3).astype(np.float16)}, tolerance=1e-3)


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float16, st.integers(0, 6), elements=st.floats(width=16)))
def test_every_float16_number_keeps_its_value(numbers: np.ndarray) -> None:
    graph = ir.Graph([], [], nodes=[], initializers=[], opset_imports={"": 18})
    tensor = ir.tensor(numbers, name="w")
    graph.register_initializer(ir.Value(name="w", const_value=tensor, type=ir.TensorType(tensor.dtype)))
    to_float32(ir.Model(graph, ir_version=8))
    value = graph.initializers["w"]
    assert value.dtype == ir.DataType.FLOAT
    assert value.const_value is not None
    np.testing.assert_array_equal(value.const_value.numpy(), numbers.astype(np.float32))


def test_a_float32_model_keeps_its_tensors() -> None:
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    weights = {"w": normal(3).astype(np.float32)}
    graph = ir.from_proto(model_of(nodes, {"x": (TensorProto.FLOAT, [3])}, {"y": (TensorProto.FLOAT, [3])}, weights))
    before = graph.graph.initializers["w"].const_value
    to_float32(graph)
    assert graph.graph.initializers["w"].const_value is before
