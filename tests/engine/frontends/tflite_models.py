"""Writes small TFLite models, runs them in LiteRT's reference kernels and through the front end, and compares."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.frontends import tflite
from engine.graph.execution import run_float
from engine.graph.layers import layers
from engine.graph.optimize import optimize
from engine.quantization.quantize import given_only
from engine.quantization.quantized import Quantized
from engine.simulator.runner import Simulator

schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="LiteRT is not installed")
flatbuffers = pytest.importorskip("flatbuffers")

_TYPES = {
    "float32": 0,
    "float16": 1,
    "int32": 2,
    "uint8": 3,
    "int64": 4,
    "bool": 6,
    "int16": 7,
    "int8": 9,
    "complex64": 8,
    "resource": 13,
}


@dataclasses.dataclass
class T:
    """A tensor: `data` makes it a constant, `scale` a quantized one (integers in `data`)."""

    name: str
    shape: Sequence[int] = ()
    dtype: str = "float32"
    data: np.ndarray | None = None
    scale: float | Sequence[float] | None = None
    zero: int | Sequence[int] = 0
    axis: int = 0
    variable: bool = False
    signature: Sequence[int] | None = None
    sparsity: Any = None


def const(name: str, array: Any, dtype: str = "", **more: Any) -> T:
    """A constant tensor."""
    array = np.asarray(array, dtype or None)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return T(name, array.shape, str(array.dtype), array, **more)


@dataclasses.dataclass
class O:  # noqa: E742
    """An operator over tensors by name ('' for an absent input); `options` are fields of the table `table`."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    table: str = ""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    custom: str = ""
    custom_options: bytes = b""
    intermediates: Sequence[str] = ()
    version: int = 1


def build(
    tensors: Sequence[T],
    operators: Sequence[O],
    inputs: Sequence[str],
    outputs: Sequence[str],
    more: Sequence[tuple[Sequence[T], Sequence[O], Sequence[str], Sequence[str]]] = (),
) -> bytes:
    """The bytes of a model; `more` are further subgraphs."""
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    model.operatorCodes, model.subgraphs = [], []
    codes: dict[tuple[str, str], int] = {}
    for graph in ((tensors, operators, inputs, outputs), *more):
        model.subgraphs.append(_subgraph(model, codes, *graph))
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _subgraph(model: Any, codes: Any, tensors: Any, operators: Any, inputs: Any, outputs: Any) -> Any:
    graph = schema.SubGraphT()
    graph.name = "main"
    number = {t.name: i for i, t in enumerate(tensors)}
    number[""] = -1
    graph.tensors = [_tensor(model, t) for t in tensors]
    graph.inputs = [number[n] for n in inputs]
    graph.outputs = [number[n] for n in outputs]
    graph.operators = []
    for op in operators:
        key = (op.kind, op.custom)
        if key not in codes:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, op.kind)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = op.version
            code.customCode = op.custom or None
            codes[key] = len(model.operatorCodes)
            model.operatorCodes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex = codes[key]
        made.inputs = [number[n] for n in op.inputs]
        made.outputs = [number[n] for n in op.outputs]
        made.intermediates = [number[n] for n in op.intermediates] or None
        made.customOptions = np.frombuffer(op.custom_options, np.uint8) if op.custom_options else None
        if op.table:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, op.table)
            made.builtinOptions = getattr(schema, f"{op.table}T")()
            for field, value in op.options.items():
                assert hasattr(made.builtinOptions, field), field
                setattr(made.builtinOptions, field, value)
        graph.operators.append(made)
    return graph


def _tensor(model: Any, t: T) -> Any:
    made = schema.TensorT()
    made.name, made.shape, made.type, made.buffer = t.name, list(t.shape), _TYPES[t.dtype], 0
    made.isVariable = t.variable
    made.hasRank = True
    made.sparsity = t.sparsity
    if t.signature is not None:
        made.shapeSignature = list(t.signature)
    if t.data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(t.data).tobytes(), np.uint8)
        made.buffer = len(model.buffers)
        model.buffers.append(buffer)
    if t.scale is not None:
        parameters = schema.QuantizationParametersT()
        scale = np.atleast_1d(np.asarray(t.scale, np.float64))
        parameters.scale = scale.tolist()
        parameters.zeroPoint = np.broadcast_to(np.atleast_1d(t.zero), scale.shape).tolist()
        parameters.quantizedDimension = t.axis
        made.quantization = parameters
    return made


def litert(data: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What LiteRT's reference kernels compute: the outputs, integers of quantized ones included."""
    interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")
    kinds = interpreter_module.OpResolverType
    try:
        interpreter = interpreter_module.Interpreter(
            model_content=data, experimental_op_resolver_type=kinds.BUILTIN_REF
        )
    except ValueError:  # a few operators have one kernel only, which is not among the reference kernels
        interpreter = interpreter_module.Interpreter(
            model_content=data, experimental_op_resolver_type=kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], feeds[detail["name"]])
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def ours(data: bytes, feeds: dict[str, np.ndarray], folder: Path) -> list[np.ndarray]:
    """What the front end's float graph computes."""
    file = folder / "model.tflite"
    file.write_bytes(data)
    model = tflite.load(file)
    results = run_float(model, {v.name: feeds[v.name] for v in model.graph.inputs})
    return list(results.values()) if isinstance(results, dict) else list(results)


def random_for(t: T, seed: int = 0, low: float = -3.0, high: float = 3.0) -> np.ndarray:
    """Numbers for an input."""
    rng = np.random.default_rng(seed)
    if t.dtype in ("float32", "float16"):
        return rng.uniform(low, high, t.shape).astype(t.dtype)
    if t.dtype == "bool":
        return rng.integers(0, 2, t.shape).astype(bool)
    if t.dtype in ("int8", "uint8", "int16"):
        info = np.iinfo(t.dtype)
        return rng.integers(info.min, info.max + 1, t.shape).astype(t.dtype)
    return rng.integers(int(low), int(high) + 1, t.shape).astype(t.dtype)


def check(
    tensors: Sequence[T],
    operators: Sequence[O],
    inputs: Sequence[str],
    outputs: Sequence[str],
    folder: Path,
    *,
    feeds: dict[str, np.ndarray] | None = None,
    close: float = 1e-4,
    more: Sequence[Any] = (),
) -> None:
    """Assert that the front end's graph computes what LiteRT does, and is called and shaped as the model says."""
    data = build(tensors, operators, inputs, outputs, more)
    by_name = {t.name: t for t in tensors}
    feeds = dict(feeds or {})
    for index, name in enumerate(inputs):
        feeds.setdefault(name, random_for(by_name[name], index))
    expected = litert(data, feeds)
    file = folder / "model.tflite"
    file.write_bytes(data)
    model = tflite.load(file)
    assert [v.name for v in model.graph.outputs] == list(outputs)
    listed = {name for op in operators for name in tflite.operators()[op.kind]}
    if any(op.options.get("fusedActivationFunction") for op in operators):
        listed |= {"Clip", "Relu", "Tanh"}
    if not more:
        assert {node.op_type for node in model.graph} <= listed | {"Transpose", "Reshape", "Identity"}
    known = {v.name: feeds[v.name] for v in model.graph.inputs}
    results = run_float(model, known)
    found = list(results.values()) if isinstance(results, dict) else list(results)
    for name, want, got in zip(outputs, expected, found, strict=True):
        assert got.shape == want.shape, name
        assert got.dtype == want.dtype, name
        if want.dtype.kind == "f":
            np.testing.assert_allclose(got, want, rtol=close, atol=close, err_msg=name)
        else:
            np.testing.assert_array_equal(got, want, err_msg=name)


def simulated(data: bytes, feeds: dict[str, np.ndarray], folder: Path) -> list[np.ndarray]:
    """What the integer model computes that is built by the parameters in the file; takes and gives real values."""
    file = folder / "model.tflite"
    file.write_bytes(data)
    model = tflite.load(file)
    optimize(model, 3)
    found = layers(model)
    known = {v.name: feeds[v.name] for v in model.graph.inputs}
    return list(Simulator(Quantized(model, found, given_only(model, found))).run(known))


def real(stored: np.ndarray, t: T) -> np.ndarray:
    """The real values of integers on the grid of `t`; what has no grid is as it is."""
    if t.scale is None:
        return stored
    return ((stored.astype(np.float64) - np.asarray(t.zero)) * np.asarray(t.scale)).astype(np.float32)


def check_steps(
    tensors: Sequence[T],
    operators: Sequence[O],
    inputs: Sequence[str],
    outputs: Sequence[str],
    folder: Path,
    *,
    steps: int = 1,
    feeds: dict[str, np.ndarray] | None = None,
) -> None:
    """Assert that the integer model ends within `steps` of what LiteRT's reference kernels compute."""
    data = build(tensors, operators, inputs, outputs)
    by_name = {t.name: t for t in tensors}
    stored = dict(feeds or {})
    for index, name in enumerate(inputs):
        stored.setdefault(name, random_for(by_name[name], index))
    expected = litert(data, stored)
    found = simulated(data, {name: real(stored[name], by_name[name]) for name in inputs}, folder)
    for name, want, got in zip(outputs, expected, found, strict=True):
        assert got.shape == want.shape, name
        scale = float(np.max(by_name[name].scale if by_name[name].scale is not None else 1e-4))
        away = np.abs(got - real(want, by_name[name])) / scale
        assert away.max() < steps + 0.5, f"{name} is {away.max():.1f} steps away"
