"""Cuts the ends off a layer's weights where finer steps for the rest gain more than that costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.graph.given import given
from engine.graph.layers import CONVOLUTIONS
from engine.graph.query import attribute, constant
from engine.quantization.parameters import LIMITS
from engine.quantization.weights import output_channel_axis

Array = np.ndarray[Any, Any]

# Parts of each end that are tried as cuts, the upper end's first. A channel of some hundred weights rarely gains by
# cutting off whole steps of its largest; parts of a step let the grid fit the weights better.
_CUTS = np.geomspace(1e-3, 0.5, 10)


def clip_weights(
    model: ir.Model, method: str = "channel", precision: str = "int8", replacements: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """Weights of convolutions and products, by the name of the node's first output, where clipping them pays.

    For each output channel, or each layer where `method` is 'layer', the weights are cut to the part of their range
    that gives the least sum of squared errors on the grid of `precision`; the ends of what is returned (float32) are
    then the ends of that grid. Weights whose grid came with the source model stay as they are. `replacements` stand in
    for the model's weights, under the same names.
    """
    found: dict[str, Array] = {}
    for node in model.graph:
        value = node.inputs[1] if node.op_type in CONVOLUTIONS else None
        weight = constant(value)
        name = node.outputs[0].name or ""
        if value is None or weight is None or weight.size == 0:
            continue
        if replacements is not None and name in replacements:
            weight = replacements[name]
        elif given(value) is not None:
            continue
        clipped = _clip(weight.astype(np.float32), node, method, precision)
        if clipped is not None:
            found[name] = clipped
    return found


def _clip(weight: Array, node: ir.Node, method: str, precision: str) -> Array | None:
    """The clipped weight; None where all of it stays."""
    # Groups of a ConvTranspose [in, out / groups, ...] have output channels of their own.
    groups = int(attribute(node, "group", 1)) if node.op_type == "ConvTranspose" else 1
    split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    axis = output_channel_axis(node) if method == "channel" else None
    kept = () if axis is None else (0, axis + 1)
    turned = np.moveaxis(split, kept, range(len(kept)))
    rows = np.ascontiguousarray(turned).reshape(int(np.prod([split.shape[i] for i in kept])), -1)
    low, high = rows.min(axis=1), rows.max(axis=1)
    best = squared_errors(rows, low, high, precision)
    bounds = [low, high]
    for end in (1, 0):
        whole = bounds[end]
        for cut in _CUTS:
            tried = bounds.copy()
            tried[end] = whole * np.float32(1.0 - cut)
            error = squared_errors(rows, tried[0], tried[1], precision)
            bounds[end] = np.where(error < best, tried[end], bounds[end])
            best = np.minimum(error, best)
    clipped = np.clip(rows, bounds[0][:, None], bounds[1][:, None])
    if np.array_equal(clipped, rows):
        return None
    back: Array = np.moveaxis(clipped.reshape(turned.shape), range(len(kept)), kept).reshape(weight.shape)
    return back


def squared_errors(rows: Array, low: Array, high: Array, precision: str = "int8") -> Array:
    """The sum of squared errors (float32) of each row of weights on the grid of its range low..high, as
    `weights.quantize_weight` makes it."""
    smallest, largest = LIMITS[precision]
    low, high = np.minimum(low, 0.0).astype(np.float64), np.maximum(high, 0.0).astype(np.float64)
    scale = (high - low) / (largest - smallest)
    scale = np.where(scale == 0.0, 1.0, scale)
    zero = np.rint(smallest - low / scale)
    # In place and in float32: this runs over all weights of the model for each cut.
    grid = rows * (1.0 / scale).astype(np.float32)[:, None]
    np.rint(grid, out=grid)
    np.clip(grid, *((end - zero).astype(np.float32)[:, None] for end in (smallest, largest)), out=grid)
    grid *= scale.astype(np.float32)[:, None]
    grid -= rows
    errors: Array = np.einsum("ij,ij->i", grid, grid)
    return errors
