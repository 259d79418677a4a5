"""Normalizations."""

from __future__ import annotations

import math

import numpy as np

from engine.frontends.pytorch.table import Arguments, operator
from engine.frontends.pytorch.translation import Translation
from engine.frontends.pytorch.values import Refused, Tensor


def _per_channel(t: Translation, tensor: Tensor | None, channels: int, number: float) -> Tensor:
    return tensor if tensor is not None else t.constant(np.full(channels, number, np.float32))


@operator("batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training", becomes="BatchNormalization")
def _batch_norm(t: Translation, a: Arguments) -> Tensor:
    return batch_norm(t, a)


@operator("native_batch_norm", becomes="BatchNormalization")
def _native(t: Translation, a: Arguments) -> list[Tensor]:
    empty = t.constant(np.zeros(0, np.float32))
    return [batch_norm(t, a), empty, empty]


def batch_norm(t: Translation, a: Arguments) -> Tensor:
    """With the statistics of training. Raises Refused where those of the data are to be taken."""
    x = a.tensor("input")
    mean, variance = a.optional("running_mean"), a.optional("running_var")
    if a.flag("training") or mean is None or variance is None:
        raise Refused("takes its statistics from the data, as in training", "call eval() before exporting")
    channels = x.shape[1]
    if mean.shape != (channels,) or variance.shape != (channels,):
        raise Refused(
            f"has statistics of {list(mean.shape)} for {channels} channels", "do the input sizes fit the model?"
        )
    return t.emit(
        "BatchNormalization",
        x,
        _per_channel(t, a.optional("weight"), channels, 1),
        _per_channel(t, a.optional("bias"), channels, 0),
        mean,
        variance,
        epsilon=float(a.number("eps", 1e-5)),
    )


@operator("instance_norm", becomes="BatchNormalization InstanceNormalization")
def _instance_norm(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("input")
    if not a.flag("use_input_stats"):
        return batch_norm(t, a)
    channels = x.shape[1]
    weight = _per_channel(t, a.optional("weight"), channels, 1)
    bias = _per_channel(t, a.optional("bias"), channels, 0)
    return t.emit("InstanceNormalization", x, weight, bias, epsilon=float(a.number("eps", 1e-5)))


def layer_norm(
    t: Translation, x: Tensor, dims: int, weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> Tensor:
    """Over the last `dims` dimensions."""
    if weight is None:
        weight = t.constant(np.ones(x.shape[x.rank - dims :], np.float32))
    inputs = [x, weight] if bias is None else [x, weight, bias]
    return t.emit("LayerNormalization", *inputs, axis=-dims, epsilon=float(epsilon))


@operator("layer_norm", becomes="LayerNormalization")
def _layer_norm(t: Translation, a: Arguments) -> Tensor:
    dims = len(a.integers("normalized_shape"))
    x = t.as_float(a.tensor("input"))
    return layer_norm(t, x, dims, a.optional("weight"), a.optional("bias"), a.number("eps", 1e-5))


@operator("native_layer_norm", becomes="LayerNormalization")
def _native_layer_norm(t: Translation, a: Arguments) -> list[Tensor]:
    empty = t.constant(np.zeros(0, np.float32))
    return [_layer_norm(t, a), empty, empty]


@operator("rms_norm", becomes="Add Mul Reciprocal ReduceMean Sqrt")
def _rms_norm(t: Translation, a: Arguments) -> Tensor:
    x, weight = t.as_float(a.tensor("input")), a.optional("weight")
    axes = list(range(x.rank - len(a.integers("normalized_shape")), x.rank))
    epsilon = a.number("eps", float(np.finfo(np.float32).eps))
    mean = t.emit("ReduceMean", t.emit("Mul", x, x), axes, keepdims=1)
    scale = t.emit("Reciprocal", t.emit("Sqrt", t.emit("Add", mean, t.scalar(epsilon))))
    result = t.emit("Mul", x, scale)
    return result if weight is None else t.emit("Mul", result, weight)


@operator("group_norm", becomes="Add InstanceNormalization Mul Reshape")
def _group_norm(t: Translation, a: Arguments) -> Tensor:
    x, groups = a.tensor("input"), a.integer("num_groups", 1)
    channels = x.shape[1]
    if groups < 1 or channels % groups:
        raise Refused(f"puts {channels} channels into {groups} groups")
    flat = t.reshape(x, (x.shape[0], groups, math.prod(x.shape[1:]) // groups))
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    result = t.emit("InstanceNormalization", flat, ones, zeros, epsilon=float(a.number("eps", 1e-5)))
    result = t.reshape(result, x.shape)
    wide = (channels, *([1] * (x.rank - 2)))
    for op_type, name in (("Mul", "weight"), ("Add", "bias")):
        factor = a.optional(name)
        if factor is not None:
            label = factor.label
            factor = (
                Tensor(factor.content.reshape(wide), label=label) if factor.is_constant else t.reshape(factor, wide)
            )
            result = t.emit(op_type, result, factor)
    return result
