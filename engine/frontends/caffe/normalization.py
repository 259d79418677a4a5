"""Layers that scale and shift: normalizations by learnt and by own statistics, scales, biases."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.caffe.layers import Making, Refused, along, reads
from engine.frontends.caffe.weights import Wanted
from engine.frontends.reading import CORRUPT
from engine.graph.query import Array

_REGIONS = {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1}
_BN_MODES = {"LEARN": 0, "INFERENCE": 1}
# Below this an epsilon only keeps an all-zero vector from dividing by zero, which LpNormalization sees to itself.
_ONLY_AGAINST_ZERO = 1e-8
_LARGEST = float(np.finfo(np.float32).max)


@reads("LRN", onnx=["AveragePool", "LRN", "Mul", "Add", "Pow", "Div"])
def _local_response(making: Making) -> list[ir.Value]:
    param = making.param("lrn_param")
    size, alpha, beta = param.integer("local_size", 5), param.number("alpha", 1.0), param.number("beta", 0.75)
    bias = param.number("k", 1.0)
    if size < 1 or size % 2 == 0:
        raise ModelError(f"local_size is {size}, not an odd number")
    value = making.inputs[0]
    if len(making.shape()) != 4:
        raise ModelError(f"it normalizes {len(making.shape())} dimensions, not 4")
    if param.choice("norm_region", _REGIONS, "ACROSS_CHANNELS") == "ACROSS_CHANNELS":
        return [making.node("LRN", [value], size=size, alpha=alpha, beta=beta, bias=bias)]
    # Within a channel Caffe averages squares with its pooling, padded, and takes 1 for k.
    squares = making.node("Mul", [value, value])
    edge = (size - 1) // 2
    mean = making.node(
        "AveragePool", [squares], kernel_shape=[size, size], pads=[edge] * 4, strides=[1, 1], count_include_pad=1
    )
    scaled = making.node("Mul", [mean, making.constant(alpha, "alpha")])
    raised = making.node("Pow", [making.node("Add", [scaled, making.constant(1.0, "one")]), making.constant(beta)])
    return [making.node("Div", [value, raised])]


@reads("BatchNorm", onnx=["BatchNormalization", "Add", "Div", "Mul", "ReduceMean", "Sqrt", "Sub"])
def _batch_norm(making: Making) -> list[ir.Value]:
    """(x - mean / factor) / sqrt(variance / factor + eps); NVIDIA's fork may add a scale and a bias."""
    param = making.param("batch_norm_param")
    param.ignore("moving_average_fraction")
    eps = param.number("eps", 1e-5)
    channels = _channels(making)
    affine = param.flag("scale_bias")
    wanted = [Wanted((channels,), "mean"), Wanted((channels,), "variance"), Wanted((1,), "one")]
    if affine:
        wanted += [Wanted((channels,), "scale"), Wanted((channels,), "bias")]
    elif making.blob_count(3) == 2:
        wanted.pop()  # some forks write the statistics without the factor
    arrays = making.weights(*wanted)
    factor = float(arrays[2][0]) if len(arrays) > 2 else 1.0
    if not param.flag("use_global_stats", True):
        making.warn("use_global_stats is false: each picture is normalized by its own statistics, as Caffe does")
        axes = [axis for axis in range(len(making.shape())) if axis != 1]
        return [_by_own_statistics(making, making.inputs[0], axes, eps, inside=True)]
    inverse = 0.0 if factor == 0 else 1.0 / factor
    mean, variance = (array.astype(np.float64) * inverse for array in arrays[:2])
    scale, bias = arrays[3:5] if affine else (np.ones(channels), np.zeros(channels))
    return [_normalized(making, scale, bias, mean, variance, eps)]


@reads("BN", "Bn", onnx=["Add", "BatchNormalization", "Mul"])
def _bn(making: Making) -> list[ir.Value]:
    """PSPNet's layer of slope, bias, mean and variance, and SegNet's, which has merged these to two blobs."""
    param = making.param("bn_param")
    param.ignore("frozen", "momentum", "slope_filler", "bn_mode", "shift_filler", "moving_average")
    channels = _channels(making)
    count = making.blob_count(2 if param.choice("bn_mode", _BN_MODES, "LEARN") == "INFERENCE" else 4)
    if count == 2:
        scale, shift = making.weights(Wanted((channels,), "scale"), Wanted((channels,), "bias"))
        rank = len(making.shape())
        scaled = making.node("Mul", [making.inputs[0], making.constant(along(scale, 1, rank), "scale")])
        return [making.node("Add", [scaled, making.constant(along(shift, 1, rank), "shift")])]
    own = (channels,)
    scale, bias, mean, variance = making.weights(
        Wanted(own, "scale"), Wanted(own, "bias"), Wanted(own, "mean"), Wanted(own, "variance")
    )
    return [_normalized(making, scale, bias, mean, variance, param.number("eps", 1e-5))]


def _channels(making: Making) -> int:
    if len(making.shape()) < 2:
        raise ModelError("its blob has no channels")
    return making.shape()[1]


def _normalized(making: Making, scale: Array, bias: Array, mean: Array, variance: Array, eps: float) -> ir.Value:
    named = {"scale": scale, "bias": bias, "mean": mean, "variance": variance}
    if any(float(np.abs(array).max(initial=0)) > _LARGEST for array in named.values()):
        raise ModelError("its statistics leave the range of float32", hint=CORRUPT)
    constants = [making.constant(array.astype(np.float32), name) for name, array in named.items()]
    return making.node("BatchNormalization", [*making.inputs[:1], *constants], epsilon=eps)


def _by_own_statistics(
    making: Making, value: ir.Value, axes: Sequence[int], eps: float, *, inside: bool, variance: bool = True
) -> ir.Value:
    """Less its mean, by its deviation; `eps` is added inside the root, or behind it."""
    over = making.constant(list(axes), "axes")
    centred = making.node("Sub", [value, making.node("ReduceMean", [value, over], keepdims=1)])
    if not variance:
        return centred
    spread = making.node("ReduceMean", [making.node("Mul", [centred, centred]), over], keepdims=1)
    small = making.constant(eps, "eps")
    if inside:
        root = making.node("Sqrt", [making.node("Add", [spread, small])])
    else:
        root = making.node("Add", [making.node("Sqrt", [spread]), small])
    return making.node("Div", [centred, root])


@reads("MVN", onnx=["Add", "Div", "Mul", "ReduceMean", "Sqrt", "Sub"])
def _mean_variance(making: Making) -> list[ir.Value]:
    param = making.param("mvn_param")
    first = 1 if param.flag("across_channels") else 2
    rank = len(making.shape())
    if rank <= first:
        raise ModelError(f"its blob has {rank} dimensions, of which it normalizes none")
    variance, eps = param.flag("normalize_variance", True), param.number("eps", 1e-9)
    axes = range(first, rank)
    return [_by_own_statistics(making, making.inputs[0], axes, eps, inside=False, variance=variance)]


@reads("Scale", onnx=["Add", "Mul", "Reshape"], bottoms=(1, 2))
def _scale(making: Making) -> list[ir.Value]:
    param = making.param("scale_param")
    bias = param.flag("bias_term")
    axis, shape = _span(making, param.integer("axis", 1), param.integer("num_axes", 1))
    rank = len(making.shape())
    wanted = [] if len(making.inputs) == 2 else [Wanted(shape, "scale")]
    arrays = making.weights(*wanted, *([Wanted(shape, "bias")] if bias else []))
    factor = (
        _second(making, axis) if len(making.inputs) == 2 else making.constant(along(arrays[0], axis, rank), "scale")
    )
    result = making.node("Mul", [making.inputs[0], factor])
    if bias:
        result = making.node("Add", [result, making.constant(along(arrays[-1], axis, rank), "bias")])
    return [result]


@reads("Bias", onnx=["Add", "Reshape"], bottoms=(1, 2))
def _bias(making: Making) -> list[ir.Value]:
    param = making.param("bias_param")
    axis, shape = _span(making, param.integer("axis", 1), param.integer("num_axes", 1))
    if len(making.inputs) == 2:
        return [making.node("Add", [making.inputs[0], _second(making, axis)])]
    array = making.weights(Wanted(shape, "bias"))[0]
    return [making.node("Add", [making.inputs[0], making.constant(along(array, axis, len(making.shape())), "bias")])]


def _span(making: Making, axis: int, count: int) -> tuple[int, tuple[int, ...]]:
    """The first axis that a scale or bias lies along, and its shape: of `count` axes, all that follow for -1."""
    dims = making.shape()
    if len(making.inputs) == 2:
        count = len(making.shape(1))
    axis = making.axis(axis, end=count == 0)
    last = len(dims) if count == -1 else axis + count
    if count < -1 or last > len(dims):
        raise ModelError(f"it spans {count} axes from {axis} of a blob with {len(dims)}")
    if len(making.inputs) == 2 and making.shape(1) != dims[axis:last]:
        raise ModelError(f"its second blob has the shape {list(making.shape(1))}, not {list(dims[axis:last])}")
    return axis, dims[axis:last]


def _second(making: Making, axis: int) -> ir.Value:
    """The second blob, shaped so that its first axis lies along `axis` of the first."""
    rank, shape = len(making.shape()), making.shape(1)
    return making.reshape(making.inputs[1], [*shape, *[1] * (rank - axis - len(shape))])


@reads("Normalize", onnx=["Add", "Div", "LpNormalization", "Mul", "ReduceSumSquare", "Reshape", "Sqrt"])
def _normalize(making: Making) -> list[ir.Value]:
    """x / sqrt(sum of squares + eps) times a learnt scale, over channels or over all of a picture (SSD's fork)."""
    param = making.param("norm_param")
    shape = making.shape()
    channels = _channels(making)
    filler = param.message("scale_filler")
    filler.ignore("type")
    shared = param.flag("channel_shared", True)
    wanted = Wanted((1,) if shared else (channels,), "scale", filler.number("value", 1.0))
    scale = making.weights(wanted)[0]
    eps, everywhere = param.number("eps", 1e-10), param.flag("across_spatial", True)
    value = making.inputs[0]
    if everywhere and len(shape) > 2:
        value = making.reshape(value, [shape[0], math.prod(shape[1:])])
    if eps <= _ONLY_AGAINST_ZERO:
        unit = making.node("LpNormalization", [value], axis=1, p=2)
    else:
        squares = making.node("ReduceSumSquare", [value, making.constant([1], "axes")], keepdims=1)
        root = making.node("Sqrt", [making.node("Add", [squares, making.constant(eps, "eps")])])
        unit = making.node("Div", [value, root])
    unit = making.reshape(unit, shape)
    return [making.node("Mul", [unit, making.constant(along(scale, 1, len(shape)), "scale")])]


@reads("Parameter", onnx=["Identity"], bottoms=(0, 0))
def _parameter(making: Making) -> list[ir.Value]:
    """A learnt blob, as it is."""
    shape = making.param("parameter_param").message("shape").integers("dim")
    if not shape:
        raise Refused("without a shape")
    return [making.constant(making.weights(Wanted(tuple(shape), "bias"))[0], "weights")]
