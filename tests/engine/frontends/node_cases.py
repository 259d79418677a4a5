"""Runs the node test cases of the onnx package through ONNX Runtime, and through our front end and optimizer."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import math
import warnings
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

from engine.frontends.onnx import load
from engine.graph.execution import run_float
from engine.graph.optimize import optimize

Array = np.ndarray[Any, Any]

LEVEL = 3
"""The optimization level that a session takes unless told otherwise."""

_TYPES = {
    TensorProto.FLOAT,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT16,
    TensorProto.UINT16,
    TensorProto.INT32,
    TensorProto.UINT32,
    TensorProto.INT64,
    TensorProto.UINT64,
    TensorProto.BOOL,
}

SETTINGS: Mapping[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1, 2),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"), (1,)),
    **dict.fromkeys(("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"), (1,)),
}
"""Operator -> the places of the inputs that decide shapes, or what is computed.

The cases feed them while the model runs. A network that is compiled for an NPU has them as constants, so here they
become initializers, in the model that ONNX Runtime runs as well as in ours.
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, its inputs by name without those that became constants, and what it must give out.

    `operator` is its node's, or what it spells out.
    """

    name: str
    operator: str
    proto: onnx.ModelProto
    feeds: dict[str, Array]
    wanted: list[Array]
    rtol: float
    atol: float


@functools.cache
def cases() -> dict[str, Case]:
    """By name, the cases of one node that reads run-time float32 tensors of static shapes.

    Its other inputs and its outputs are float32, whole numbers or booleans; sequences, optional values, text and other
    floats are left out.
    """
    made = (_case(case, case.model) for case in _collected().values() if len(case.model.graph.node) == 1)
    return {case.name: case for case in made if case is not None}


@functools.cache
def expansions() -> dict[str, Case]:
    """Like `cases`, those in which an operator is spelled out in others, as its definition has it."""
    found = _collected()
    pairs = ((case, found.get(name.split("_expanded")[0])) for name, case in found.items() if "_expanded" in name)
    made = (_case(case, plain.model) for case, plain in pairs if plain is not None)
    return {case.name: case for case in made if case is not None}


@functools.cache
def _collected() -> dict[str, Any]:
    """All cases that have data; the making of them writes warnings and prints, which are kept from the reader."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return {case.name: case for case in load_model_tests(kind="node") if case.data_sets}


def _case(case: Any, plain: onnx.ModelProto) -> Case | None:
    """The case; `plain` has the one node whose settings become initializers."""
    graph = case.model.graph
    if not graph.input or not all(_is(value, _TYPES) for value in [*graph.input, *graph.output]):
        return None
    given, wanted = case.data_sets[0]
    feeds = {value.name: np.asarray(array) for value, array in zip(graph.input, given, strict=True)}
    node = plain.graph.node[0]
    settings = {node.input[place] for place in SETTINGS.get(node.op_type, ()) if place < len(node.input)}
    proto = with_constants(case.model, feeds, settings - {""})
    kept = {value.name: feeds[value.name] for value in proto.graph.input}
    if all(array.dtype != np.float32 for array in kept.values()):
        return None
    return Case(case.name, node.op_type, proto, kept, [np.asarray(array) for array in wanted], case.rtol, case.atol)


def _is(value: onnx.ValueInfoProto, kinds: Set[int]) -> bool:
    """Whether `value` is a tensor of a type of `kinds` whose sizes are numbers."""
    if value.type.WhichOneof("value") != "tensor_type" or value.type.tensor_type.elem_type not in kinds:
        return False
    return all(dim.WhichOneof("value") == "dim_value" for dim in value.type.tensor_type.shape.dim)


def with_constants(model: onnx.ModelProto, feeds: Mapping[str, Array], names: Set[str]) -> onnx.ModelProto:
    """A copy of the model in which the inputs `names` are initializers that hold what would be fed."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for value in [value for value in copy.graph.input if value.name in names]:
        copy.graph.initializer.append(numpy_helper.from_array(feeds[value.name], value.name))
        copy.graph.input.remove(value)
    return copy


def run_plainly(case: Case) -> list[Array]:
    """What ONNX Runtime computes without any optimization; raises whatever it raises."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        case.proto.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    return [np.asarray(array) for array in session.run(None, case.feeds)]


def run_loaded(case: Case, folder: Path) -> list[Array]:
    """What the loaded and optimized graph computes. Raises EngineError."""
    path = folder / f"{case.name}.onnx"
    path.write_bytes(case.proto.SerializeToString())
    try:
        model = load(path)
        optimize(model, LEVEL)
        read = {value.name for value in model.graph.inputs}
        return run_float(model, {name: array for name, array in case.feeds.items() if name in read})
    finally:
        path.unlink()


def difference(case: Case, found: Sequence[Array]) -> str:
    """What is wrong with the results; empty where they are those of the case."""
    if len(found) != len(case.wanted):
        return f"{len(found)} outputs instead of {len(case.wanted)}"
    for index, (one, other) in enumerate(zip(found, case.wanted, strict=True)):
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"output {index} is {one.dtype}{list(one.shape)} instead of {other.dtype}{list(other.shape)}"
        if not np.allclose(one, other, rtol=case.rtol, atol=case.atol, equal_nan=True):
            with np.errstate(all="ignore"):
                worst = float(np.nanmax(np.abs(one - other))) if one.size else math.nan
            return f"output {index} differs by {worst:g}"
    return ""
