"""Graphs of several operators that references are made of: quantized weights, shape arithmetic, control flow, training
with fake quantization."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Build = Callable[[Any], Any]


def networks() -> Iterator[tuple[str, Build]]:
    """Every case with its name."""
    yield from _quantizing()
    yield from _shape_arithmetic()
    yield from _control()
    yield from _trained_quantized()


def _quantizing() -> Iterator[tuple[str, Build]]:
    def convolution(g: Any, weights: Any) -> Any:
        return g.op.Conv2D(input=g.x(1, 5, 5, 3), filter=weights, strides=[1, 1, 1, 1], padding="SAME")

    for narrow in (False, True):
        yield (
            f"FakeQuantWithMinMaxVars/weights/{narrow}",
            lambda g, n=narrow: convolution(
                g, g.op.FakeQuantWithMinMaxVars(inputs=g.c(3, 3, 3, 4), min=-0.83, max=0.91, narrow_range=n)
            ),
        )
        yield (
            f"FakeQuantWithMinMaxVarsPerChannel/{narrow}",
            lambda g, n=narrow: convolution(
                g,
                g.op.FakeQuantWithMinMaxVarsPerChannel(
                    inputs=g.c(3, 3, 3, 4), min=[-0.8, -0.2, -1, 0.1], max=[0.9, 0.7, 0.3, 0.6], narrow_range=n
                ),
            ),
        )
    yield (
        "FakeQuantWithMinMaxArgs/weights",
        lambda g: convolution(g, g.op.FakeQuantWithMinMaxArgs(inputs=g.c(3, 3, 3, 4), min=-0.5, max=0.7, num_bits=4)),
    )
    yield (
        "QuantizeAndDequantizeV3/weights",
        lambda g: convolution(
            g,
            g.op.QuantizeAndDequantizeV3(
                input=g.c(3, 3, 3, 4), input_min=-0.7, input_max=0.9, num_bits=8, range_given=True
            ),
        ),
    )
    for mode in ("MIN_COMBINED", "MIN_FIRST"):
        yield (
            f"Dequantize/{mode}",
            lambda g, m=mode: convolution(
                g, g.op.Dequantize(input=_stored(g, "quint8"), min_range=-0.77, max_range=0.93, mode=m)
            ),
        )
    yield (
        "Dequantize/SCALED",
        lambda g: convolution(
            g, g.op.Dequantize(input=_stored(g, "qint8"), min_range=-0.77, max_range=0.93, mode="SCALED")
        ),
    )


def _stored(g: Any, kind: str) -> Any:
    low, high, plain = (0, 256, g.tf.uint8) if kind == "quint8" else (-128, 128, g.tf.int8)
    array = g.random.integers(low, high, (3, 3, 3, 4))
    return g.op.Bitcast(input=g.tf.constant(array.astype(plain.as_numpy_dtype)), type=getattr(g.tf, kind))


def _shape_arithmetic() -> Iterator[tuple[str, Build]]:
    def flattened(g: Any) -> Any:
        x = g.x(2, 3, 4, batch=True)
        shape = g.op.Shape(input=x)
        size = g.op.Prod(input=shape[1:], axis=[0])
        return g.op.Reshape(tensor=x, shape=g.op.Pack(values=[shape[0], size]))

    def doubled(g: Any) -> Any:
        x = g.x(1, 3, 4, 2)
        size = g.op.Cast(x=g.op.Cast(x=g.op.Shape(input=x)[1:3], DstT=g.tf.float32) * 2.5, DstT=g.tf.int32)
        return g.op.ResizeNearestNeighbor(images=x, size=size)

    def ranged(g: Any) -> Any:
        x = g.x(5, 2)
        steps = g.op.Range(start=0, limit=g.op.Shape(input=x)[0], delta=1)
        return x * g.op.ExpandDims(input=g.op.Cast(x=steps, DstT=g.tf.float32), axis=1)

    def filled(g: Any) -> Any:
        x = g.x(2, 3)
        zeros = g.op.Fill(dims=g.op.ConcatV2(values=[g.op.Shape(input=x)[:1], [2]], axis=0), value=0.5)
        return g.op.ConcatV2(values=[x, zeros], axis=1)

    def gathered(g: Any) -> Any:
        x = g.x(2, 3, 4)
        shape = g.op.GatherV2(params=g.op.Shape(input=x), indices=[2, 0, 1], axis=0)
        return g.op.Reshape(tensor=x, shape=shape)

    for build in (flattened, doubled, ranged, filled, gathered):
        yield f"shapes/{build.__name__}", build


def _control() -> Iterator[tuple[str, Build]]:
    def function(g: Any) -> Any:
        @g.tf.function
        def inner(a: Any, b: Any) -> Any:
            low, high = g.op.Split(axis=1, value=a, num_split=2)
            return g.op.ConcatV2(values=[high, low * b], axis=1)

        return inner(inner(g.x(2, 4), g.c(2, 2)), g.c(2, 2)) + 1.0

    def loop(g: Any) -> Any:
        x = g.x(2, 3)
        return g.tf.while_loop(lambda i, t: i < 4, lambda i, t: (i + 1, g.op.Tanh(x=t * 1.5)), (g.tf.constant(0), x))[1]

    def time_steps(g: Any) -> Any:
        x, state, weights = g.x(5, 2, 3), g.x(2, 3), g.c(3, 3)
        read = g.tf.TensorArray(g.tf.float32, 5).unstack(x)
        made = g.tf.TensorArray(g.tf.float32, 5)

        def step(i: Any, s: Any, found: Any) -> Any:
            s = g.op.Tanh(x=g.op.MatMul(a=s, b=weights) + read.read(i))
            return i + 1, s, found.write(i, s)

        return g.tf.while_loop(lambda i, s, f: i < 5, step, (g.tf.constant(0), state, made))[2].stack()

    def branch(g: Any) -> Any:
        x = g.x(2, 3)
        return g.tf.cond(g.tf.constant(False), lambda: x + 1.0, lambda: x * 3.0)

    def sized_branch(g: Any) -> Any:
        x = g.x(2, 3)
        return g.tf.cond(g.op.Shape(input=x)[1] > 2, lambda: x + 1.0, lambda: x * 3.0)

    def dropout(g: Any) -> Any:
        rate = g.tf.compat.v1.placeholder_with_default(np.float32(1.0), [], "keep_prob")
        x = g.x(2, 8)
        return x / rate * g.op.Floor(x=rate + g.op.RandomUniform(shape=[2, 8], dtype=g.tf.float32))

    for build in (function, loop, time_steps, branch, sized_branch, dropout):
        yield f"control/{build.__name__}", build
    for build in (loop, time_steps, branch, sized_branch):
        yield f"frames/{build.__name__}", build


def _trained_quantized() -> Iterator[tuple[str, Build]]:
    """Networks with fake quantization at every activation, whose results lie on the last grid."""

    def activation(g: Any, x: Any, low: float, high: float) -> Any:
        return g.op.FakeQuantWithMinMaxVars(inputs=x, min=low, max=high)

    def convolution(g: Any) -> Any:
        x = activation(g, g.x(1, 8, 8, 3), -2.1, 1.9)
        weights = g.op.FakeQuantWithMinMaxVars(inputs=g.c(3, 3, 3, 8), min=-0.95, max=1.0, narrow_range=True)
        made = g.op.Conv2D(input=x, filter=weights, strides=[1, 2, 2, 1], padding="SAME")
        made = g.op.Relu6(features=g.op.BiasAdd(value=made, bias=g.c(8)))
        return activation(g, made, 0.0, 6.0)

    def residual(g: Any) -> Any:
        x = activation(g, g.x(1, 8, 8, 4), -2.0, 2.0)
        kernel = g.op.FakeQuantWithMinMaxVarsPerChannel(
            inputs=g.c(1, 1, 4, 4), min=[-1.0, -0.9, -0.8, -1.0], max=[0.9, 1.0, 0.7, 0.6], narrow_range=True
        )
        made = g.op.Conv2D(input=x, filter=kernel, strides=[1, 1, 1, 1], padding="SAME")
        made = activation(g, g.op.Relu(features=made + g.c(4)), 0.0, 4.0)
        made = activation(g, made + x, -2.5, 5.5)
        made = activation(
            g, g.op.AvgPool(value=made, ksize=[1, 8, 8, 1], strides=[1, 1, 1, 1], padding="VALID"), -2.5, 5.5
        )
        flat = g.op.Reshape(tensor=made, shape=[1, 4])
        weights = g.op.FakeQuantWithMinMaxVars(inputs=g.c(4, 5), min=-1.0, max=1.0, narrow_range=True)
        return activation(g, g.op.MatMul(a=flat, b=weights), -4.0, 4.0)

    for build in (convolution, residual):
        yield f"trained_quantized/{build.__name__}", build
