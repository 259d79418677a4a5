"""Fake quantization, as modules have it while they are trained for integers."""

from __future__ import annotations

from typing import Any

from engine.frontends.pytorch import eager
from engine.frontends.pytorch.operators_activation import clip
from engine.frontends.pytorch.table import Arguments, operator
from engine.frontends.pytorch.translation import Translation
from engine.frontends.pytorch.values import Grid, Refused, Tensor
from engine.graph.given import given

_RANGES = {"uint8": (0, 255), "int8": (-128, 127)}


def _dtype(low: int, high: int) -> str:
    """The grid that holds the numbers from `low` to `high`, perhaps with more."""
    for dtype, (least, most) in _RANGES.items():
        if least <= low < high <= most:
            return dtype
    raise Refused(f"quantizes to numbers from {low} to {high}")


def _fake(t: Translation, x: Tensor, scale: Any, point: Any, low: int, high: int, axis: int | None) -> Tensor:
    """A constant on its grid; of what is computed, the grid noted, and limits where they are narrower than its type."""
    dtype = _dtype(low, high)
    scales = [float(n) for n in (t.array(scale).reshape(-1) if isinstance(scale, Tensor) else [scale])]
    points = [round(float(n)) for n in (t.array(point).reshape(-1) if isinstance(point, Tensor) else [point])]
    if x.is_constant:
        return _constant(x, dtype, scales, points, low, high, axis)
    if len(scales) != 1 or len(points) != 1:
        raise Refused("quantizes channels of a computed tensor apart")
    grid = Grid(dtype, scales[0], points[0])
    if (low, high) != _RANGES[dtype]:
        x = clip(t, x, (low - grid.zero_point) * grid.scale, (high - grid.zero_point) * grid.scale)
    elif given(x.content) is not None:
        x = t.emit("Identity", x)
    # The values stay real ones for the operators behind, which are not told a grid.
    return Tensor(t.quantized(x, grid).content)


def _constant(
    x: Tensor, dtype: str, scales: list[float], points: list[int], low: int, high: int, axis: int | None
) -> Tensor:
    torch = eager.torch()
    kind = {"uint8": torch.quint8, "int8": torch.qint8}[dtype]
    content = x.content.float()
    if axis is None or len(scales) == 1:
        content = content.clamp((low - points[0]) * scales[0], (high - points[0]) * scales[0])
        made = eager.call("aten::quantize_per_tensor", "", [content, scales[0], points[0], kind])
    else:
        shape = [-1 if index == axis else 1 for index in range(content.dim())]
        step, zero = torch.tensor(scales), torch.tensor(points)
        least, most = ((limit - zero) * step for limit in (low, high))
        content = torch.minimum(torch.maximum(content, least.reshape(shape)), most.reshape(shape))
        made = eager.call("aten::quantize_per_channel", "", [content, step, zero, axis, kind])
    return Tensor(made, label=x.label)


@operator("fake_quantize_per_tensor_affine", becomes="Clip Identity")
def _per_tensor(t: Translation, a: Arguments) -> Tensor:
    low, high = a.integer("quant_min"), a.integer("quant_max", 255)
    return _fake(t, a.tensor("self"), a["scale"], a["zero_point"], low, high, None)


@operator("fake_quantize_per_channel_affine", becomes="Clip Identity")
def _per_channel(t: Translation, a: Arguments) -> Tensor:
    low, high = a.integer("quant_min"), a.integer("quant_max", 255)
    return _fake(t, a.tensor("self"), a["scale"], a["zero_point"], low, high, a.integer("axis"))


@operator("fused_moving_avg_obs_fake_quant", becomes="Clip Identity")
def _observed(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    if not int(t.array(a.tensor("fake_quant_on")).reshape(-1)[0]):
        return Tensor(x.content, label=x.label)
    axis = a.integer("ch_axis") if a.flag("per_row_fake_quant") else None
    low, high = a.integer("quant_min"), a.integer("quant_max", 255)
    return _fake(t, x, a["scale"], a["zero_point"], low, high, axis)
