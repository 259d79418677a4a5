"""Quantization parameters that a source model brought along, kept on the tensors they belong to."""

from __future__ import annotations

import dataclasses
import json

import onnx_ir as ir

KEY = "rknn_tui.quantization"
"""Metadata key of a value whose quantization parameters came with the model."""


@dataclasses.dataclass(frozen=True)
class GivenParameters:
    """real = (q - zero_point) * scale with q of `dtype` (signed); `axis` is None for one pair for all."""

    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


def keep(value: ir.Value, parameters: GivenParameters) -> None:
    """Note on `value` that its quantization parameters came with the model."""
    value.metadata_props[KEY] = json.dumps(dataclasses.asdict(parameters))


def given(value: ir.Value) -> GivenParameters | None:
    """The parameters that the source model gave for `value`, or None."""
    text = value.metadata_props.get(KEY)
    if text is None:
        return None
    data = json.loads(text)
    return GivenParameters(data["dtype"], tuple(data["scale"]), tuple(data["zero_point"]), data["axis"])
