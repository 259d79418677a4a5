"""The ONNX front end: a file in, a graph with static shapes in float32 out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from engine.errors import ModelError
from engine.frontends import onnx_file, onnx_operators, onnx_opset, onnx_types
from engine.frontends.finishing import SURPRISES, finish, surprises_told
from engine.frontends.reading import CORRUPT
from engine.graph import cutting, folding
from engine.graph.describe import mark_opset
from engine.graph.provenance import label, mark_source
from engine.progress import Progress

log = logging.getLogger("engine")


def load(
    path: Path,
    inputs: Sequence[str] | None = None,
    input_size_list: Sequence[Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> ir.Model:
    """Read `path` and make it a static float32 graph of opset 18 or newer.

    Reads opsets 7 to the newest that ONNX Runtime runs, with external data. `inputs` and `outputs` cut the graph at
    tensors, `input_size_list` fixes shapes. Constants and shapes are folded; Q/DQ nodes become quantization
    parameters kept on their tensors (see `onnx_qdq`). Raises FileError, ModelError, UnsupportedOperator, ConfigError.
    """
    with surprises_told(path, "check the model with onnx.checker"):
        return _load(path, inputs, input_size_list, outputs, progress or Progress())


def _load(
    path: Path,
    inputs: Sequence[str] | None,
    input_size_list: Sequence[Sequence[int]] | None,
    outputs: Sequence[str] | None,
    progress: Progress,
) -> ir.Model:
    progress.step("read", 0, 4)
    where = str(path)
    model = onnx_file.read(path)
    graph = model.graph
    _prepare(model, where)
    mark_opset(model)
    own_inputs = [v.name for v in graph.inputs]
    progress.step("read", 1, 4)

    if inputs is not None:
        if any(name not in {v.name for v in graph.inputs} for name in inputs):
            folding.note_shapes(model)  # a tensor inside the graph brings its type, perhaps its shape
        cutting.cut_inputs(graph, inputs)
    if outputs is not None:
        cutting.cut_outputs(graph, outputs)
    cutting.drop_dead(model, keep_inputs=inputs or ())
    cutting.check_not_empty(model, where)
    onnx_operators.check_supported(model, where)
    cutting.fix_sizes(graph, inputs, input_size_list)

    def settle(model: ir.Model) -> None:
        onnx_operators.check_supported(model, where)  # branches of If have been put in place
        onnx_opset.upgrade(model)
        onnx_types.to_float32(model)
        folding.fold(model)
        onnx_operators.check_decided(model, where)

    progress.step("fold", 2, 4)
    finish(model, where, keep_inputs=inputs or (), settle=settle)
    unread = [name for name in own_inputs if name not in {v.name for v in graph.inputs}]
    if unread and inputs is None and outputs is None:
        log.warning("%s: inputs that no output depends on are left out: %s", where, ", ".join(map(str, unread)))
    progress.step("check", 4, 4)
    return model


def _prepare(model: ir.Model, where: str) -> None:
    """Functions inlined, constants as initializers, no initializer among the inputs, every node its own source."""
    graph = model.graph
    onnx_operators.check_signatures(model, where)
    if model.functions:
        common_passes.InlinePass()(model)
    common_passes.RemoveInitializersFromInputsPass()(model)
    mark_source(graph)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for held in graph.initializers.values():
        _check_content(held, where)  # those of the file were looked at, those of Constant nodes were not
    defined = {v for node in graph for v in node.outputs} | set(graph.inputs) | set(graph.initializers.values())
    for node in graph:
        for value in node.inputs:
            if value is not None and value not in defined:
                raise ModelError(
                    f"reads tensor {value.name!r}, which nothing makes",
                    where=f"{where}: {label(node)}",
                    hint="the file is corrupt",
                )
    try:
        graph.sort()
    except ValueError as error:
        raise ModelError("the graph has a cycle", where=where, hint="the file is corrupt") from error
    for value in graph.inputs:
        if value.dtype is None or not isinstance(value.type, ir.TensorType):
            raise ModelError(f"input {value.name!r} is not a tensor", where=where, hint="cut it off with `inputs`")


def _check_content(value: ir.Value, where: str) -> None:
    """Raise ModelError for a constant whose content does not fill its shape, or is of another type."""
    try:
        if value.const_value is not None:
            value.const_value.numpy()
    except SURPRISES as error:
        raise ModelError(f"the constant {value.name!r} cannot be read: {error}", where=where, hint=CORRUPT) from error
