"""Fills the table: from statistics and settings to one row a tensor, in the order of the toolkit's cfg."""

from __future__ import annotations

import onnx_ir as ir

from engine.config import Config
from engine.errors import QuantizationError
from engine.graph.given import GivenParameters, given
from engine.graph.layers import FLOATS, Layer
from engine.graph.operators import REORDERINGS
from engine.graph.query import constant, tensors
from engine.quantization.clipped_ranges import clipped_ranges
from engine.quantization.headroom import with_headroom
from engine.quantization.parameters import LIMITS, asymmetric
from engine.quantization.ranges import Range, share_ranges
from engine.quantization.statistics import Statistics
from engine.quantization.table import GRIDS, Row, Table, twin, twin_float16
from engine.quantization.weights import operand_parameters

# Runs in float16 on the NPU with int8 on both sides; none of its weights has a row.
FLOAT16_ONLY = {"LSTM", "GRU", "RNN"}


def float_values(model: ir.Model) -> list[ir.Value]:
    """The graph's float tensors in execution order, inputs first."""
    return [v for v in tensors(model.graph) if v.dtype in FLOATS]


def quantize(
    model: ir.Model,
    layers: tuple[Layer, ...],
    statistics: Statistics,
    config: Config,
    ranges: str = "minmax",
    *,
    headroom: bool = False,
) -> Table:
    """The table of the quantized model: the config's precision for every float tensor, float16 for softmax outputs of
    the model.

    ranges: how a tensor's range comes from its statistics, one of recipes.RANGES. headroom: whether ranges that were
    seen through few values are widened, and inputs of a Sigmoid keep theirs. Tensors whose parameters came with the
    source model keep them. Raises QuantizationError where `statistics` lack the histograms that `ranges` needs.
    """
    starting = statistics.ranges
    if ranges != "minmax":
        starting = clipped_ranges(model, layers, statistics, ranges, config.precision)
    if headroom:
        starting = with_headroom(model, starting, statistics.samples)
    used = share_ranges(model, starting, frozenset({"Sigmoid"}) if headroom else frozenset())
    half = final_softmax(model) if "float16" in config.target.precisions else set()
    return _fill(model, layers, used, statistics.ranges, half, config.precision)


def given_only(model: ir.Model, layers: tuple[Layer, ...]) -> Table:
    """The table of a model that brought parameters, without calibration: the rest is float16."""
    ranges: dict[str, Range] = {}
    for value in float_values(model):
        parameters = given(value)
        if parameters is not None:
            ranges[value.name or ""] = _range_of(parameters)
    half = {v.name or "" for v in float_values(model) if (v.name or "") not in ranges}
    return _fill(model, layers, ranges, ranges, half, "int8")


def uncalibrated(model: ir.Model, layers: tuple[Layer, ...], config: Config) -> Table:
    """A table with the precisions that a build would choose, over ranges that mean nothing: for what needs no numbers.

    Of a model that brought parameters it is the table that a build without a dataset makes.
    """
    if any(given(value) is not None for value in float_values(model)):
        return given_only(model, layers)
    nothing = {v.name or "": (0.0, 1.0) for v in float_values(model)}
    half = final_softmax(model) if "float16" in config.target.precisions else set()
    return _fill(model, layers, nothing, nothing, half, config.precision)


def to_float16(model: ir.Model) -> Table:
    """The table of the float16 model."""
    return Table({v.name or "": Row("float16", 0.0, 0.0) for v in float_values(model)})


def final_softmax(model: ir.Model) -> set[str]:
    """Tensors that the toolkit keeps in float16: softmaxes that only reorderings part from the model's outputs."""
    found: set[str] = set()
    for node in reversed(list(model.graph)):
        if node.op_type not in REORDERINGS | {"Softmax", "LogSoftmax"}:
            continue
        out = node.outputs[0]
        ends = (out.is_graph_output() or bool(out.uses())) and all(
            use.node.op_type in REORDERINGS and (use.node.outputs[0].name in found) for use in out.uses()
        )
        if ends and _from_softmax(node):
            found.add(out.name or "")
    return found


def _from_softmax(node: ir.Node | None) -> bool:
    while node is not None and node.op_type in REORDERINGS:
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node is not None and node.op_type in ("Softmax", "LogSoftmax")


def _fill(
    model: ir.Model,
    layers: tuple[Layer, ...],
    ranges: dict[str, Range],
    seen: dict[str, Range],
    half: set[str],
    precision: str,
) -> Table:
    inner_swish = {
        node.outputs[0].name
        for layer in layers
        if layer.op.endswith(("ExSwish", "exSwish"))
        for node in layer.nodes
        if node.op_type == "Sigmoid"
    }
    ends = {v.name or "" for v in [*model.graph.inputs, *model.graph.outputs]}
    rows: dict[str, Row] = {}
    twins: dict[str, Row] = {}
    for value in float_values(model):
        name = value.name or ""
        if name in inner_swish:
            continue
        low, high = seen.get(name, (0.0, 0.0))
        if name in half or name not in ranges:
            rows[name] = Row("float16", low, high, ori_min=low, ori_max=high)
            continue
        row = _row(ranges[name], (low, high), given(value), precision)
        if name in ends:
            rows[name] = Row("float32", low, high, ori_min=low, ori_max=high)
            twins[twin(name, row.dtype)] = row
        else:
            rows[name] = row
    rows = {**rows, **_operand_rows(model, precision)}
    table = Table({**rows, **twins})
    for layer in layers:
        if table.precision(layer.name) == "float16":
            for name in layer.inputs:
                read = table.quantizer(name)
                if read is not None:
                    _refuse_taken(twin_float16(name), name, rows)
                    table.rows[twin_float16(name)] = Row(
                        "float16", read.min, read.max, ori_min=read.ori_min, ori_max=read.ori_max
                    )
    for name, row in rows.items():
        if row.dtype in ("float16", "float32"):
            for grid in GRIDS:
                _refuse_taken(twin(name, grid), name, rows)
    return table


def _refuse_taken(name: str, tensor: str, rows: dict[str, Row]) -> None:
    if name in rows:
        raise QuantizationError(
            f"the model has a tensor of the name that the copy of {tensor!r} in another precision needs",
            where=f"tensor {name!r}",
            hint="rename that tensor in the source model",
        )


def _row(used: Range, seen: Range, own: GivenParameters | None, precision: str) -> Row:
    if own is not None and own.dtype in GRIDS:
        low, high = _range_of(own)
        return Row(own.dtype, low, high, own.scale[0], own.zero_point[0], *seen)
    low, high = min(used[0], 0.0), max(used[1], 0.0)
    return Row(precision, low, high, *asymmetric(low, high, precision), *seen)


def _range_of(parameters: GivenParameters) -> Range:
    smallest, largest = LIMITS[parameters.dtype]
    scale, zero = parameters.scale[0], parameters.zero_point[0]
    return (smallest - zero) * scale, (largest - zero) * scale


def _operand_rows(model: ir.Model, precision: str) -> dict[str, Row]:
    """Rows of the constants that element-wise layers and joins read; weights and biases have none."""
    rows: dict[str, Row] = {}
    for node in model.graph:
        if node.op_type == "MatMul":
            continue
        for value in node.inputs:
            array = constant(value)
            parameters = operand_parameters(node.op_type, array, precision) if array is not None else None
            if value is None or array is None or parameters is None or (value.name or "") in rows:
                continue
            qtype, dtype, scale, zero = parameters
            low, high = float(array.min()), float(array.max())
            bound = max(abs(low), abs(high))
            used = (-bound, bound) if qtype == "sym" else (min(low, 0.0), max(high, 0.0))
            rows[value.name or ""] = Row(dtype, *used, scale, zero, low, high, qtype)
    return rows
