"""What a person changes in a quantized model: precisions of tensors and ranges of rows, checked before they count."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from engine.errors import QuantizationError, nearest
from engine.graph.layers import Layer
from engine.quantization.parameters import asymmetric
from engine.quantization.quantized import Quantized
from engine.quantization.table import GRIDS, Row, Table, twin
from engine.targets import Target

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Edits:
    """wishes: tensor -> 'int8', 'int16' or 'float16'. ranges: row -> smallest and largest value in use."""

    wishes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict)


def edited(base: Quantized, edits: Edits, target: Target) -> Quantized:
    """`base` with its wishes replaced by those of `edits`, and the ranges of some rows by others.

    A layer with several outputs takes the precision wished for any of them. Raises QuantizationError naming what the
    model or the target does not have.
    """
    wishes = dict(edits.wishes)
    for tensor, precision in edits.wishes.items():
        check_wish(base, tensor, precision, target)
        layer = base.makers.get(tensor)
        for sibling in layer.outputs if layer is not None and tensor in layer.outputs else ():
            if sibling in base.table.rows and _storable(base.table, sibling, precision):
                wishes.setdefault(sibling, precision)
    rows = dict(base.table.rows)
    for name, (low, high) in edits.ranges.items():
        if name in base.model.graph.initializers:
            raise QuantizationError(
                "is a constant of the model, whose range is that of its numbers", where=f"tensor {name!r}"
            )
        rows[name] = with_range(name, rows.get(name), low, high)
    return base.changed(table=Table(rows, wishes))


def check_wish(base: Quantized, tensor: str, precision: str, target: Target, *, where: str = "") -> None:
    """Raise QuantizationError if `tensor` cannot be wished into `precision` on `target`."""
    where = where or f"tensor {tensor!r}"
    inputs = [v.name or "" for v in base.model.graph.inputs]
    if tensor not in base.table.rows or not (tensor in base.makers or tensor in inputs):
        known = [name for name in (*inputs, *base.makers) if name in base.table.rows]
        raise QuantizationError("the model has no such tensor", where=where, hint=nearest(tensor, known))
    if precision not in target.precisions:
        raise QuantizationError(
            f"{target.name} cannot run a layer in {precision!r}",
            where=where,
            hint=f"use {', '.join(target.precisions)}",
        )
    if not _storable(base.table, tensor, precision):
        raise QuantizationError(
            f"{precision} needs a range, and this tensor was never calibrated", where=where, hint="build with a dataset"
        )


def _storable(table: Table, tensor: str, precision: str) -> bool:
    return precision not in GRIDS or table.quantizer(tensor, precision) is not None


def with_range(name: str, row: Row | None, low: float, high: float, *, where: str = "") -> Row:
    """`row` over another range; scale and zero point follow. Raises QuantizationError."""
    where = where or f"tensor {name!r}"
    if row is None or row.dtype not in GRIDS:
        has = "is not quantized" if row is not None else "is not in the table"
        raise QuantizationError(f"{has}, so its range cannot be set", where=where)
    if not math.isfinite(low) or not math.isfinite(high):
        raise QuantizationError("has a range that is not finite", where=where)
    if low > high:
        raise QuantizationError(f"has min {low:g} above max {high:g}", where=where)
    scale, zero_point = asymmetric(low, high, row.dtype)
    return dataclasses.replace(row, min=low, max=high, scale=scale, zero_point=zero_point)


def layer_wishes(layer: Layer, table: Table, precision: str) -> dict[str, str]:
    """The lines of custom_quantize_layers that put the whole layer into `precision`: one for each of its tensors."""
    return {name: precision for name in (*layer.inner, *layer.outputs) if name in table.rows}


def row_of(table: Table, tensor: str) -> str:
    """The name of the row that holds the tensor's grid: its own, or that of its quantized copy."""
    row = table.rows.get(tensor)
    if row is not None and row.dtype == "float32":
        return next((twin(tensor, grid) for grid in GRIDS if twin(tensor, grid) in table.rows), tensor)
    return tensor
