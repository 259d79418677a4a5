"""Fake quantization, whose parameters are noted on the tensors, and constants that are stored quantized."""

from __future__ import annotations

import math

import numpy as np

from engine.frontends.nhwc import Grid, Tensor
from engine.frontends.tensorflow.elementwise import identity
from engine.frontends.tensorflow.values import Call, Refused, Value, operator
from engine.graph.query import Array

_DTYPES = {8: "uint8", 16: "uint16"}


def nudged(low: Array, high: Array, bits: int, narrow: bool) -> tuple[Array, Array, Array]:
    """The least and the greatest value and the scale of a grid on which 0 lies, from the ends that training found; as
    in TensorFlow's documentation of fake_quant_with_min_max_vars: 0 moves to the nearest step, halves away from it."""
    first, last = np.float32(1 if narrow else 0), np.float32(2**bits - 1)
    scale = (high.astype(np.float32) - low.astype(np.float32)) / (last - first)
    zero = first - low.astype(np.float32) / scale
    zero = np.where(zero < first, first, np.where(zero > last, last, np.floor(zero + np.float32(0.5))))
    return (first - zero) * scale, (last - zero) * scale, scale


def _fake(call: Call, low: Array, high: Array, per_channel: bool) -> Value:
    x, node = call.tensor(0), call.node
    bits, narrow = node.integer("num_bits", 8), node.flag("narrow_range")
    if not 2 <= bits <= 16:
        raise Refused(f"{bits} bits")
    low, high = low.astype(np.float32).reshape(-1), high.astype(np.float32).reshape(-1)
    channels = x.shape[-1] if per_channel and x.rank else 1
    if low.size != channels or high.size != channels:
        raise call.error(f"has {low.size} minima and {high.size} maxima for {channels} channels")
    if not np.all(np.isfinite(low)) or not np.all(np.isfinite(high)) or np.any(low > high):
        raise call.error("its range is none")
    if np.any(low == high):
        if np.any(low != 0) or per_channel:
            raise Refused("a range without extent")
        return call.constant(np.zeros(x.shape, np.float32))
    with np.errstate(all="ignore"):
        least, greatest, scale = nudged(low, high, bits, narrow)
    if not np.all(np.isfinite(least / scale)):
        raise call.error("its range is none")
    zero = np.rint(-least / scale).astype(np.int64) + (1 if narrow else 0)
    grid = None
    if bits in _DTYPES:
        points = tuple(int(z) for z in zero)
        grid = Grid(_DTYPES[bits], tuple(float(s) for s in scale), points, x.rank - 1 if per_channel else None)
    array = x.array
    if array is not None:
        clipped = np.clip(array, least, greatest)
        steps = np.floor((clipped - least) / scale + np.float32(0.5))
        return Tensor.constant((steps * scale + least).astype(np.float32), call.place, grid)
    if grid is None or per_channel:
        raise Refused("of an activation by channel" if per_channel else f"{bits} bits of an activation")
    if call.interpreter.has_own_grid(x) and x.grid != grid:
        x = identity(x, call.place)
    return x.quantized(grid)


@operator("FakeQuantWithMinMaxVars", becomes=())
def _with_variables(call: Call) -> Value:
    return _fake(call, call.array(1), call.array(2), False)


@operator("FakeQuantWithMinMaxVarsPerChannel", becomes=())
def _by_channel(call: Call) -> Value:
    return _fake(call, call.array(1), call.array(2), True)


@operator("FakeQuantWithMinMaxArgs", becomes=())
def _with_attributes(call: Call) -> Value:
    low, high = call.node.number("min", -6.0), call.node.number("max", 6.0)
    return _fake(call, np.array(low), np.array(high), False)


@operator("QuantizeAndDequantizeV2", "QuantizeAndDequantizeV3", "QuantizeAndDequantizeV4", becomes=())
def _there_and_back(call: Call) -> Value:
    """Symmetric grids, as layers for int8 are trained with."""
    node, x = call.node, call.tensor(0)
    bits = call.integer(3) if node.op == "QuantizeAndDequantizeV3" else node.integer("num_bits", 8)
    if bits != 8 or not node.flag("signed_input", True) or not node.flag("range_given"):
        raise Refused(f"{bits} bits, or without a range")
    low, high = call.array(1).reshape(-1), call.array(2).reshape(-1)
    axis = node.integer("axis", -1)
    if low.size != high.size or (axis == -1 and low.size != 1) or not np.all(np.isfinite(low) & np.isfinite(high)):
        raise call.error("its range is none")
    # The scale that lets the larger of both ends fit; -128 counts unless the range is narrow.
    lowest = -127.0 if node.flag("narrow_range") else -128.0
    with np.errstate(all="ignore"):
        needed = [np.where(low < 0, lowest / low, np.inf), np.where(high > 0, 127.0 / high, np.inf)]
        scale = (1.0 / np.minimum(*needed)).astype(np.float32)
    if not np.all(np.isfinite(scale) & (scale > 0)):
        raise call.error("its range is none")
    grid = Grid("int8", tuple(float(s) for s in scale), (0,) * scale.size, None if axis == -1 else axis % x.rank)
    array = x.array
    if array is not None:
        steps = scale.reshape([-1 if a == grid.axis else 1 for a in range(x.rank)]) if axis != -1 else scale[0]
        rounded = np.clip(np.rint(array / steps), lowest, 127) * steps
        return Tensor.constant(rounded.astype(np.float32), call.place, grid)
    if grid.axis is not None:
        raise Refused("of an activation by channel")
    if call.interpreter.has_own_grid(x) and x.grid != grid:
        x = identity(x, call.place)
    return x.quantized(grid)


@operator("Dequantize", becomes=())
def _dequantize(call: Call) -> Value:
    """The real values of constants that are stored in 8 bits."""
    stored = call.tensor(0).array
    if stored is None or stored.dtype not in (np.dtype(np.uint8), np.dtype(np.int8)):
        raise Refused("of what is computed in integers", "freeze the model before it is quantized")
    low, high = (float(call.array(index).reshape(-1)[0]) for index in (1, 2))
    if not (math.isfinite(low) and math.isfinite(high)) or low > high or call.node.integer("axis", -1) != -1:
        raise Refused(f"the range from {low} to {high}")
    mode = call.node.text("mode", "MIN_COMBINED")
    steps = stored.astype(np.float64) - np.iinfo(stored.dtype).min
    if mode == "SCALED":
        unsigned = stored.dtype == np.dtype(np.uint8)
        scale = high / 255 if unsigned else max(high / 127, low / (-127 if call.node.flag("narrow_range") else -128))
        return call.constant((stored * np.float32(scale)).astype(np.float32))
    scale = (high - low) / 255
    if mode == "MIN_FIRST" and scale:
        low = round(low / np.float32(scale)) * float(np.float32(scale))
    elif mode != "MIN_COMBINED":
        raise Refused(f"mode {mode}")
    return call.constant((steps * scale + low).astype(np.float32))
