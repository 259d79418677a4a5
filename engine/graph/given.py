"""Quantization parameters that a source model brought along, kept on the tensors they belong to."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable

import onnx_ir as ir

from engine.errors import ModelError
from engine.graph.query import attribute, static_shape
from engine.summaries import Grid

KEY = "rknn_tui.quantization"
"""Metadata key of a value whose quantization parameters came with the model."""


SIGNED = {
    "int8": ("int8", 0),
    "uint8": ("int8", -128),
    "int16": ("int16", 0),
    "uint16": ("int16", -32768),
    "int32": ("int32", 0),
}
"""For each grid of integers the signed one that stands for it, and what is added to its numbers for that."""

_REARRANGE = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}


@dataclasses.dataclass(frozen=True)
class GivenParameters:
    """real = (q - zero_point) * scale with q of `dtype` (signed); `axis` is None for one pair for all.

    `source` is the dtype that the source model has there, which may be the unsigned one. `integers` says that its own
    runtime computes with the integers, and does not round real values as Q/DQ nodes do.
    """

    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None
    source: str = dataclasses.field(default="", compare=False)
    integers: bool = dataclasses.field(default=False, compare=False)

    @property
    def source_grid(self) -> Grid | None:
        """The integers of the source model; None for parameters by channel."""
        if len(self.scale) != 1:
            return None
        dtype = self.source if self.source in SIGNED else self.dtype
        return Grid(dtype, self.scale[0], self.zero_point[0] - SIGNED[dtype][1])

    @staticmethod
    def of(
        dtype: str, scale: Iterable[float], zero_point: Iterable[int], axis: int | None = None, *, where: str = ""
    ) -> GivenParameters:
        """From a grid of 'int8', 'uint8', 'int16', 'uint16' or 'int32': an unsigned one becomes the equal signed one.

        Raises ModelError for another dtype, and for scales that are not positive numbers.
        """
        if dtype not in SIGNED:
            raise ModelError(f"is quantized to {dtype}", where=where, hint=f"known: {', '.join(SIGNED)}")
        signed, shift = SIGNED[dtype]
        scales, points = tuple(float(s) for s in scale), tuple(int(z) + shift for z in zero_point)
        if not scales or not all(math.isfinite(s) and s > 0 for s in scales):
            raise ModelError("its scale is not a positive number", where=where)
        if len(points) != len(scales):
            raise ModelError(f"it has {len(scales)} scales and {len(points)} zero points", where=where)
        return GivenParameters(signed, scales, points, axis, dtype)


def keep(value: ir.Value, parameters: GivenParameters) -> None:
    """Note on `value` that its quantization parameters came with the model."""
    value.metadata_props[KEY] = json.dumps(dataclasses.asdict(parameters))


def given(value: ir.Value) -> GivenParameters | None:
    """The parameters that the source model gave for `value`, or None."""
    text = value.metadata_props.get(KEY)
    if text is None:
        return None
    data = json.loads(text)
    scale, zero_point = tuple(data["scale"]), tuple(data["zero_point"])
    source, integers = str(data.get("source", "")), data.get("integers") is True
    return GivenParameters(data["dtype"], scale, zero_point, data["axis"], source, integers)


def after(node: ir.Node) -> GivenParameters | None:
    """The parameters that the output of `node` has because its first input has some and it only rearranges those.

    None where it computes something else, or where channels with parameters of their own do not stay together.
    """
    source = node.inputs[0] if node.inputs else None
    own = given(source) if source is not None else None
    if own is None or source is None or node.op_type not in _REARRANGE:
        return None
    if own.axis is None:
        return own
    before, behind = static_shape(source), static_shape(node.outputs[0])
    axis = own.axis % len(before)
    if node.op_type == "Transpose":
        order = list(attribute(node, "perm", range(len(before) - 1, -1, -1)))
        return dataclasses.replace(own, axis=order.index(axis))
    # The channels stay one axis if as many elements lie before it and behind it as did.
    for index, size in enumerate(behind):
        if size == before[axis] and math.prod(behind[:index]) == math.prod(before[:axis]):
            return dataclasses.replace(own, axis=index)
    return None
