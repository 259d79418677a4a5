"""Lint rule on weights: output channels whose grid is set by a few weights, or by other channels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.graph.layers import CONVOLUTIONS, Layer
from engine.graph.query import attribute, constant
from engine.quantization.weights import output_channel_axis
from engine.summaries import Finding
from engine.tuning.lint.subject import Subject, counted

Array = np.ndarray[Any, Any]

# Rounding noise of a hundredth of the weights' power (20 dB) turns a layer's output to a cosine of 0.995. Without
# outliers, int8 channels have 40 dB and more.
NOISE = 0.01
# The outliers are at most this share of a channel's weights (and at least one) ...
OUTLIERS = 0.01
# ... and the rest matters only if it carries at least this share of the channel's power.
REST = 0.01
# A channel of less than this share of a layer's mean power is dead, or as good as.
DEAD = 1e-4


@dataclasses.dataclass(frozen=True)
class _Weak:
    """A layer with weak channels: how many of how many, and the numbers of the worst.

    outliers: how many of the channel's `weights` are left out of account. noise: noise-to-signal power ratio of the
    rest. rest, largest, layer_largest: the largest magnitude of the rest, of the channel and of the layer.
    """

    layer: Layer
    weak: int
    channels: int
    channel: int
    outliers: int
    weights: int
    noise: float
    rest: float
    largest: float
    layer_largest: float

    @property
    def decibels(self) -> float:
        """The worst channel's signal-to-noise ratio."""
        return -10.0 * math.log10(self.noise) + 0.0  # not -0


def outlier_weights(subject: Subject) -> Iterator[Finding]:
    """Layers some of whose output channels keep few of the grid's steps.

    Where one grid spans all channels of a layer, that is the one cause, and is told once.
    """
    found = []
    for layer in subject.quantized.layers:
        for node, precision in zip(layer.nodes, subject.precisions(layer), strict=True):
            if precision == "int8" and node.op_type in CONVOLUTIONS and constant(node.inputs[1]) is not None:
                weak = _weak(subject, layer, node)
                if weak is not None:
                    found.append(weak)
    if subject.quantized.method == "layer":
        if found:
            yield _one_grid(subject, found)
        return
    for one in found:
        more = f"; the same in {counted(one.weak - 1, 'further channel')} of {one.channels}" if one.weak > 1 else ""
        yield Finding(
            "outlier-weights",
            one.layer.name,
            f"{one.layer.op} {one.layer.name!r}: the largest weight of output channel {one.channel} is "
            f"{one.largest:.3g}, but all except {one.outliers} of {one.weights} stay below {one.rest:.3g}, and keep "
            f"{one.decibels:.3g} dB on the grid that it sets{more}",
            f"use quantized_algorithm 'mmse' (clips weights too) or equalization, or run the layer in {subject.finer}",
            subject.wishes([one.layer]),
        )


def _one_grid(subject: Subject, found: list[_Weak]) -> Finding:
    one = max(found, key=lambda weak: weak.weak / weak.channels)
    more = f"; {counted(len(found) - 1, 'further layer')} with such channels" if len(found) > 1 else ""
    return Finding(
        "outlier-weights",
        one.layer.name,
        f"{one.layer.op} {one.layer.name!r}: {one.weak} of {one.channels} output channels keep less than 20 dB on the "
        f"layer's one grid; channel {one.channel} keeps {one.decibels:.3g} dB, its weights reaching {one.largest:.3g} "
        f"where the layer's reach {one.layer_largest:.3g}{more}",
        f"use quantized_method 'channel', or equalization, or run these layers in {subject.finer}",
        subject.wishes(weak.layer for weak in found),
    )


def _weak(subject: Subject, layer: Layer, node: ir.Node) -> _Weak | None:
    constants = subject.quantized.constants
    weight = subject.quantized.corrections.weights.get(node.outputs[0].name or "")
    if weight is None:
        weight = constant(node.inputs[1])
    assert weight is not None
    values = _by_channel(node, weight)
    error = _by_channel(node, constants.weight(node, "int8").real) - values
    if values.size == 0:
        return None
    magnitude = np.abs(values)
    outliers = max(1, int(values.shape[1] * OUTLIERS))
    rest = magnitude < np.partition(magnitude, -outliers, axis=1)[:, -outliers, None]
    power, rest_power, rest_error = (
        square.sum(axis=1) for square in (values**2, (values * rest) ** 2, (error * rest) ** 2)
    )
    weak = (rest_error > NOISE * rest_power) & (rest_power > REST * power) & (power > DEAD * power.mean())
    if not weak.any():
        return None
    noise = np.divide(rest_error, rest_power, out=np.zeros(len(values)), where=weak)
    worst = int(np.argmax(noise))
    return _Weak(
        layer,
        int(weak.sum()),
        len(values),
        worst,
        int((~rest[worst]).sum()),
        values.shape[1],
        float(noise[worst]),
        float((magnitude * rest)[worst].max()),
        float(magnitude[worst].max()),
        float(magnitude.max()),
    )


def _by_channel(node: ir.Node, weight: Array) -> Array:
    """The weight in float64 with one row an output channel, or a single one where it has none."""
    weight = weight.astype(np.float64)
    axis = output_channel_axis(node)
    if axis is None:
        return weight.reshape(1, -1)
    groups = int(attribute(node, "group", 1)) if node.op_type == "ConvTranspose" else 1
    if groups > 1:
        # [in, out / groups, ...]: the input channels of a group share that group's output channels.
        split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        return np.moveaxis(split, 2, 1).reshape(groups * weight.shape[1], -1)
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
