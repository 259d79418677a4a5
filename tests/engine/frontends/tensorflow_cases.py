"""The small graphs that references are made of; `sweep` builds each with TensorFlow, which tests do without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tensorflow_networks import networks

Build = Callable[[Any], Any]


class Graph:
    """A graph that a case builds: `x` gives placeholders with their feeds, `c` constants of random numbers."""

    def __init__(self, tf: Any, seed: int) -> None:
        self.tf = tf
        self.op = tf.raw_ops
        self.random = np.random.default_rng(seed)
        self.feeds: dict[str, np.ndarray] = {}

    def x(self, *shape: int, dtype: str = "float32", low: float = -2.0, high: float = 2.0, batch: bool = False) -> Any:
        array = self.random.uniform(low, high, shape).astype(dtype)
        name = f"x{len(self.feeds)}"
        self.feeds[name] = array
        declared = (None, *shape[1:]) if batch else shape
        return self.tf.compat.v1.placeholder(dtype, declared, name)

    def c(self, *shape: int, dtype: str = "float32", low: float = -1.0, high: float = 1.0) -> Any:
        return self.tf.constant(self.random.uniform(low, high, shape).astype(dtype))


def sweep() -> Iterator[tuple[str, Build]]:
    """Every case with its name."""
    yield from _elementwise()
    yield from _windows()
    yield from _shaping()
    yield from _reductions()
    yield from networks()


def _elementwise() -> Iterator[tuple[str, Build]]:
    plain = "Relu Relu6 Elu Selu Softplus Softsign Sigmoid Tanh Exp Square Neg Abs Sign Floor Ceil Round Rint Sin Cos "
    plain += "Tan Asinh Atan Sinh Cosh Erf Erfc Expm1"
    for name in plain.split():
        argument = "features" if name in ["Relu", "Relu6", "Elu", "Selu", "Softplus", "Softsign"] else "x"
        yield name, lambda g, n=name, a=argument: getattr(g.op, n)(**{a: g.x(2, 3, 4)})
    for name in ["Sqrt", "Rsqrt", "Log", "Log1p", "Reciprocal", "Inv", "Acosh"]:
        yield name, lambda g, n=name: getattr(g.op, n)(x=g.x(2, 3, 4, low=1.1))
    for name in ["Asin", "Acos", "Atanh"]:
        yield name, lambda g, n=name: getattr(g.op, n)(x=g.x(2, 3, low=-0.9, high=0.9))
    yield "LeakyRelu", lambda g: g.op.LeakyRelu(features=g.x(2, 3), alpha=0.3)
    pairs = "Add AddV2 Sub Mul RealDiv Maximum Minimum SquaredDifference FloorDiv FloorMod DivNoNan Xdivy MulNoNan Mod"
    for name in pairs.split():
        yield f"{name}/by_row", lambda g, n=name: getattr(g.op, n)(x=g.x(2, 3, 4), y=g.x(4))
        yield f"{name}/constant", lambda g, n=name: getattr(g.op, n)(x=g.c(2, 1, 4), y=g.x(2, 3, 4))
    for name in ["FloorDiv", "FloorMod", "TruncateDiv", "TruncateMod", "Sub", "Maximum"]:
        yield (
            f"{name}/int32",
            lambda g, n=name: getattr(g.op, n)(
                x=g.x(3, 4, dtype="int32", low=-9, high=9), y=g.x(4, dtype="int32", low=1, high=5)
            ),
        )
    yield "Pow", lambda g: g.op.Pow(x=g.x(2, 3, low=0.1), y=g.c(3))
    for name in ["Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual"]:
        yield (
            name,
            lambda g, n=name: getattr(g.op, n)(
                x=g.x(3, 4, dtype="int32", low=0, high=3), y=g.x(4, dtype="int32", low=0, high=3)
            ),
        )
        yield f"{name}/float", lambda g, n=name: getattr(g.op, n)(x=g.op.Round(x=g.x(3, 4)), y=g.op.Round(x=g.x(4)))
    yield (
        "Logical",
        lambda g: g.op.LogicalOr(
            x=g.op.LogicalNot(x=g.op.Less(x=g.x(3, 4), y=g.c(4))),
            y=g.op.LogicalAnd(x=g.op.Less(x=g.x(3, 4), y=g.c(4)), y=g.op.Greater(x=g.x(4), y=g.c(4))),
        ),
    )
    yield "OnesLike", lambda g: _then(g.x(2, 3), lambda x: x - g.op.OnesLike(x=x) * g.op.ZerosLike(x=x))
    yield "AddN", lambda g: g.op.AddN(inputs=[g.x(2, 3), g.x(2, 3), g.c(2, 3)])
    yield "ClipByValue", lambda g: g.op.ClipByValue(t=g.x(2, 3), clip_value_min=-0.5, clip_value_max=1.0)
    yield "Select", lambda g: g.op.Select(condition=g.op.Less(x=g.x(3), y=g.c(3)), x=g.x(3, 4), y=g.x(3, 4))
    yield "SelectV2", lambda g: g.op.SelectV2(condition=g.op.Less(x=g.x(3, 1), y=g.c(4)), t=g.x(3, 4), e=g.x(4))
    for kind in ("int32", "int64", "bool"):
        yield f"Cast/{kind}", lambda g, k=kind: g.op.Cast(x=g.x(3, 4), DstT=getattr(g.tf, k))
    yield "Cast/picture", lambda g: g.op.Cast(x=g.x(1, 4, 4, 3, dtype="uint8", low=0, high=255), DstT=g.tf.float32)
    yield "Swish", lambda g: _then(g.x(2, 4, 4, 3), lambda x: x * g.op.Sigmoid(x=x))
    yield "HardSwish", lambda g: _then(g.x(2, 4, 4, 3), lambda x: x * g.op.Relu6(features=x + 3.0) * (1 / 6))
    yield (
        "Gelu",
        lambda g: _then(g.x(2, 8), lambda x: 0.5 * x * (1.0 + g.op.Erf(x=x * np.float32(0.70710678)))),
    )


def _then(x: Any, act: Callable[[Any], Any]) -> Any:
    return act(x)


def _windows() -> Iterator[tuple[str, Build]]:
    for padding in ("SAME", "VALID"):
        for stride in (1, 2, 3):
            for dilation in (1, 2):
                if stride > 1 and dilation > 1:
                    continue
                attributes = {
                    "strides": [1, stride, stride, 1],
                    "padding": padding,
                    "dilations": [1, dilation, dilation, 1],
                }
                label = f"{padding}/{stride}/{dilation}"
                yield (
                    f"Conv2D/{label}",
                    lambda g, a=attributes: g.op.Conv2D(input=g.x(1, 9, 8, 3), filter=g.c(3, 2, 3, 4), **a),
                )
                if dilation > 1:
                    continue  # TensorFlow has no such kernel for processors
                yield (
                    f"DepthwiseConv2dNative/{label}",
                    lambda g, a=attributes: g.op.DepthwiseConv2dNative(
                        input=g.x(2, 9, 8, 3), filter=g.c(3, 3, 3, 2), **a
                    ),
                )
            if stride <= 3:
                sizes = {("SAME", 1): (5, 4), ("SAME", 2): (9, 8), ("SAME", 3): (14, 11)}
                sizes |= {("VALID", 1): (7, 6), ("VALID", 2): (11, 9), ("VALID", 3): (16, 12)}
                shape = [1, *sizes[padding, stride], 2]
                yield (
                    f"Conv2DBackpropInput/{padding}/{stride}",
                    lambda g, s=stride, p=padding, o=shape: g.op.Conv2DBackpropInput(
                        input_sizes=o,
                        filter=g.c(3, 3, 2, 3),
                        out_backprop=g.x(1, 5, 4, 3),
                        strides=[1, s, s, 1],
                        padding=p,
                    ),
                )
            for name in ("MaxPool", "AvgPool"):
                key = "input" if name == "MaxPool" else "value"
                yield (
                    f"{name}/{padding}/{stride}",
                    lambda g, n=name, k=key, s=stride, p=padding: getattr(g.op, n)(
                        **{k: g.x(1, 8, 9, 3)}, ksize=[1, 3, 2, 1], strides=[1, s, s, 1], padding=p
                    ),
                )
    pads = [0, 0, 1, 2, 0, 1, 0, 0]
    yield (
        "Conv2D/EXPLICIT",
        lambda g: g.op.Conv2D(
            input=g.x(1, 6, 6, 2),
            filter=g.c(3, 3, 2, 2),
            strides=[1, 1, 1, 1],
            padding="EXPLICIT",
            explicit_paddings=pads,
        ),
    )
    yield (
        "Conv2D/groups",
        lambda g: g.op.Conv2D(input=g.x(1, 6, 6, 4), filter=g.c(3, 3, 2, 6), strides=[1, 1, 1, 1], padding="SAME"),
    )
    yield (
        "Conv3D",
        lambda g: g.op.Conv3D(
            input=g.x(1, 4, 5, 6, 2), filter=g.c(2, 3, 3, 2, 3), strides=[1, 1, 2, 1, 1], padding="SAME"
        ),
    )
    yield "Conv1D", lambda g: g.tf.nn.conv1d(g.x(1, 12, 3), g.c(3, 3, 4), 2, "SAME")
    yield "Conv1D/dilated", lambda g: g.tf.nn.conv1d(g.x(1, 15, 3), g.c(3, 3, 4), 1, "SAME", dilations=2) + g.c(4)
    yield "BiasAdd", lambda g: g.op.BiasAdd(value=g.x(2, 3, 4, 5), bias=g.c(5))
    yield "BiasAdd/NCHW", lambda g: g.op.BiasAdd(value=g.x(2, 3, 4, 5), bias=g.c(3), data_format="NCHW")
    for version in ("FusedBatchNorm", "FusedBatchNormV3"):
        for training in (False, True):
            yield (
                f"{version}/{training}",
                lambda g, v=version, t=training: getattr(g.op, v)(
                    x=g.x(2, 4, 5, 3),
                    scale=g.c(3),
                    offset=g.c(3),
                    mean=g.c(0) if t else g.c(3),
                    variance=g.c(0) if t else g.c(3, low=0.5, high=2),
                    epsilon=0.01,
                    is_training=t,
                )[0],
            )
    yield (
        "batch_normalization/spelled_out",
        lambda g: g.tf.nn.batch_normalization(g.x(2, 4, 5, 3), g.c(3), g.c(3, low=0.5, high=2), g.c(3), g.c(3), 0.001),
    )
    for radius in (1, 2):
        yield (
            f"LRN/{radius}",
            lambda g, r=radius: g.op.LRN(input=g.x(1, 3, 3, 8), depth_radius=r, bias=1.5, alpha=0.3, beta=0.7),
        )
    for name in ("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic"):
        for corners, half in ((False, False), (True, False), (False, True)):
            for size in ([8, 10], [3, 4], [7, 9]):
                yield (
                    f"{name}/{corners}/{half}/{size[0]}",
                    lambda g, n=name, c=corners, h=half, s=size: getattr(g.op, n)(
                        images=g.x(1, 4, 5, 2), size=s, align_corners=c, half_pixel_centers=h
                    ),
                )
    yield "DepthToSpace", lambda g: g.op.DepthToSpace(input=g.x(1, 2, 3, 12), block_size=2)
    yield "SpaceToDepth", lambda g: g.op.SpaceToDepth(input=g.x(1, 4, 6, 3), block_size=2)
    yield (
        "SpaceToBatchND",
        lambda g: g.op.SpaceToBatchND(input=g.x(1, 5, 6, 2), block_shape=[2, 3], paddings=[[1, 0], [0, 0]]),
    )
    yield (
        "BatchToSpaceND",
        lambda g: g.op.BatchToSpaceND(input=g.x(4, 3, 3, 2), block_shape=[2, 2], crops=[[0, 1], [1, 0]]),
    )
    yield "dilated_by_batch", _dilated


def _dilated(g: Any) -> Any:
    spread = g.op.SpaceToBatchND(input=g.x(1, 9, 9, 3), block_shape=[2, 2], paddings=[[2, 3], [2, 3]])
    made = g.op.DepthwiseConv2dNative(input=spread, filter=g.c(3, 3, 3, 1), strides=[1, 1, 1, 1], padding="VALID")
    return g.op.Relu6(features=g.op.BatchToSpaceND(input=made, block_shape=[2, 2], crops=[[0, 1], [0, 1]]) + g.c(3))


def _shaping() -> Iterator[tuple[str, Build]]:
    yield "Reshape", lambda g: g.op.Reshape(tensor=g.x(2, 3, 4), shape=[4, -1])
    yield (
        "Reshape/picture",
        lambda g: g.op.Reshape(tensor=g.tf.nn.relu(g.tf.nn.max_pool2d(g.x(1, 4, 4, 3), 2, 2, "SAME")), shape=[1, -1]),
    )
    for order in ([0, 2, 1, 3], [0, 3, 1, 2], [0, 2, 3, 1], [3, 1, 0, 2]):
        yield f"Transpose/{order}", lambda g, o=order: g.op.Transpose(x=g.x(2, 3, 4, 5), perm=o)
    yield "Squeeze", lambda g: g.op.Squeeze(input=g.x(1, 3, 1, 2), axis=[2])
    yield "Squeeze/all", lambda g: g.op.Squeeze(input=g.x(1, 3, 1, 2))
    yield "ExpandDims", lambda g: g.op.ExpandDims(input=g.x(3, 2), axis=-2)
    yield "ConcatV2", lambda g: g.op.ConcatV2(values=[g.x(1, 2, 2, 3), g.x(1, 2, 2, 1), g.c(1, 2, 2, 2)], axis=-1)
    yield "Pack", lambda g: g.op.Pack(values=[g.x(2, 3), g.x(2, 3)], axis=1)
    yield "Unpack", lambda g: g.op.Unpack(value=g.x(2, 3, 4), num=3, axis=1)[1]
    yield "Split", lambda g: g.op.ConcatV2(values=g.op.Split(axis=3, value=g.x(1, 2, 2, 6), num_split=3)[::-1], axis=3)
    yield "SplitV", lambda g: g.op.SplitV(value=g.x(2, 7), size_splits=[2, -1, 1], axis=1, num_split=3)[1]
    slices: list[Any] = [
        np.s_[:, 1:3],
        np.s_[::-1, ..., ::2],
        np.s_[1],
        np.s_[..., -1],
        np.s_[:, None, 1:, :, 2],
        np.s_[-1:, :2, 1:-1],
    ]
    for number, index in enumerate(slices):
        yield f"StridedSlice/{number}", lambda g, i=index: g.x(2, 3, 4, 5)[i]
    yield "Slice", lambda g: g.op.Slice(input=g.x(2, 3, 4), begin=[0, 1, 0], size=[-1, 2, 3])
    yield "ReverseV2", lambda g: g.op.ReverseV2(tensor=g.x(2, 3, 4), axis=[1, -1])
    yield "Tile", lambda g: g.op.Tile(input=g.x(1, 2, 2, 3), multiples=[1, 2, 3, 2])
    yield "BroadcastTo", lambda g: g.op.BroadcastTo(input=g.x(3, 1), shape=[2, 3, 4])
    yield "GatherV2", lambda g: g.op.GatherV2(params=g.x(3, 4, 5), indices=[2, 0], axis=1)
    yield (
        "GatherV2/embedding",
        lambda g: g.op.GatherV2(params=g.c(9, 4), indices=g.x(1, 5, dtype="int32", low=0, high=9), axis=0),
    )
    yield (
        "GatherV2/batch",
        lambda g: g.op.GatherV2(
            params=g.x(2, 4, 3), indices=g.x(2, 2, dtype="int32", low=0, high=4), axis=1, batch_dims=1
        ),
    )
    yield "GatherNd", lambda g: g.op.GatherNd(params=g.x(3, 4, 5), indices=[[2, 1], [0, 3]])
    yield (
        "OneHot",
        lambda g: g.op.OneHot(indices=g.x(4, dtype="int32", low=0, high=5), depth=5, on_value=2.0, off_value=-1.0),
    )
    yield "Pad", lambda g: g.op.Pad(input=g.x(1, 2, 3, 2), paddings=[[0, 0], [1, 2], [0, 1], [0, 0]])
    yield "PadV2", lambda g: g.op.PadV2(input=g.x(2, 3), paddings=[[1, 0], [0, 2]], constant_values=7.0)
    for mode in ("REFLECT", "SYMMETRIC"):
        yield (
            f"MirrorPad/{mode}",
            lambda g, m=mode: g.op.MirrorPad(input=g.x(1, 4, 3, 2), paddings=[[0, 0], [2, 1], [1, 2], [0, 0]], mode=m),
        )
    yield (
        "ReverseSequence",
        lambda g: g.op.ReverseSequence(input=g.x(3, 4, 2), seq_lengths=[2, 4, 1], seq_dim=1, batch_dim=0),
    )
    yield "Roll", lambda g: g.op.Roll(input=g.x(3, 4, 2), shift=[1, -2], axis=[0, 1])
    yield (
        "TensorScatterUpdate",
        lambda g: g.op.TensorScatterUpdate(tensor=g.x(4, 3), indices=[[2], [0]], updates=g.x(2, 3)),
    )
    yield "ScatterNd", lambda g: g.op.ScatterNd(indices=[[2], [0], [2]], updates=g.x(3, 3), shape=[4, 3])
    for size, stride, rate in ((2, 2, 1), (3, 1, 1), (2, 1, 2)):
        yield (
            f"ExtractImagePatches/{size}/{stride}/{rate}",
            lambda g, k=size, s=stride, r=rate: g.op.ExtractImagePatches(
                images=g.x(1, 6, 6, 2), ksizes=[1, k, k, 1], strides=[1, s, s, 1], rates=[1, r, r, 1], padding="VALID"
            ),
        )
    yield "MatrixBandPart", lambda g: g.op.MatrixBandPart(input=g.x(4, 5), num_lower=1, num_upper=-1)


def _reductions() -> Iterator[tuple[str, Build]]:
    for name in ["Mean", "Sum", "Max", "Min", "Prod"]:
        for axes in ([1, 2], [3], [0, -1], [0, 1, 2, 3]):
            for keep in (False, True):
                yield (
                    f"{name}/{axes}/{keep}",
                    lambda g, n=name, a=axes, k=keep: getattr(g.op, n)(input=g.x(2, 3, 4, 2), axis=a, keep_dims=k),
                )
    for name in ("Any", "All"):
        yield name, lambda g, n=name: getattr(g.op, n)(input=g.op.Greater(x=g.x(2, 3, 4), y=g.c(4)), axis=[1])
    yield "ArgMax", lambda g: g.op.ArgMax(input=g.x(2, 3, 4, 5), dimension=-1)
    yield "ArgMin", lambda g: g.op.ArgMin(input=g.x(2, 3, 4), dimension=1, output_type=g.tf.int32)
    yield "TopKV2", lambda g: g.op.TopKV2(input=g.x(3, 9), k=4)[0]
    yield "TopKV2/index", lambda g: g.op.TopKV2(input=g.x(3, 9), k=4)[1]
    yield "Softmax", lambda g: g.op.Softmax(logits=g.x(2, 3, 5))
    yield "LogSoftmax", lambda g: g.op.LogSoftmax(logits=g.x(3, 5))
    for exclusive in (False, True):
        yield f"Cumsum/{exclusive}", lambda g, e=exclusive: g.op.Cumsum(x=g.x(2, 5), axis=1, exclusive=e, reverse=e)
    for left in (False, True):
        for right in (False, True):
            yield (
                f"MatMul/{left}/{right}",
                lambda g, a=left, b=right: g.op.MatMul(
                    a=g.x(*((4, 3) if a else (3, 4))), b=g.c(*((5, 4) if b else (4, 5))), transpose_a=a, transpose_b=b
                ),
            )
    yield "BatchMatMulV2", lambda g: g.op.BatchMatMulV2(x=g.x(2, 1, 3, 4), y=g.x(5, 2, 4), adj_y=True)
    yield "Einsum", lambda g: g.op.Einsum(inputs=[g.x(2, 3, 4), g.c(4, 2, 5)], equation="abc,cde->abde")
    yield "l2_normalize", lambda g: g.tf.nn.l2_normalize(g.x(2, 3, 3, 4), -1)
    yield "moments", lambda g: g.tf.nn.moments(g.x(2, 3, 3, 4), [1, 2])[1]
