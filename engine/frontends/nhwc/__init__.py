"""Operators of channels-last frameworks (TensorFlow, TFLite) written into an ONNX graph with the channels first.

A `Tensor` holds a value as it is, with the channels first, or both; each function takes tensors and the `Place` where
its result goes, and works in whichever order costs the fewest transposes. Axes and shapes are always the source's.
"""

from engine.frontends.nhwc.convolutions import convolution, depthwise, fully_connected, matmul, transpose_convolution
from engine.frontends.nhwc.elementwise import (
    ACTIVATIONS,
    activation,
    binary,
    broadcast,
    cast,
    clip,
    prelu,
    select,
    unary,
)
from engine.frontends.nhwc.padding import Padding
from engine.frontends.nhwc.pooling import batch_normalization, l2_normalization, local_response_normalization, pool
from engine.frontends.nhwc.reductions import argument, cumulative_sum, reduce, softmax
from engine.frontends.nhwc.resizing import depth_to_space, resize, space_to_depth
from engine.frontends.nhwc.shaping import (
    broadcast_to,
    concat,
    crop,
    expand_dims,
    gather,
    one_hot,
    pack,
    pad,
    pick,
    reshape,
    reverse,
    split,
    squeeze,
    strided_slice,
    tile,
    transpose,
    unpack,
)
from engine.frontends.nhwc.spreading import batch_to_space, space_to_batch
from engine.frontends.nhwc.tensors import Grid, Place, Tensor

__all__ = [
    "ACTIVATIONS",
    "Grid",
    "Padding",
    "Place",
    "Tensor",
    "activation",
    "argument",
    "batch_normalization",
    "batch_to_space",
    "binary",
    "broadcast",
    "broadcast_to",
    "cast",
    "clip",
    "concat",
    "convolution",
    "crop",
    "cumulative_sum",
    "depth_to_space",
    "depthwise",
    "expand_dims",
    "fully_connected",
    "gather",
    "l2_normalization",
    "local_response_normalization",
    "matmul",
    "one_hot",
    "pack",
    "pad",
    "pick",
    "pool",
    "prelu",
    "reduce",
    "reshape",
    "resize",
    "reverse",
    "select",
    "softmax",
    "space_to_batch",
    "space_to_depth",
    "split",
    "squeeze",
    "strided_slice",
    "tile",
    "transpose",
    "transpose_convolution",
    "unary",
    "unpack",
]
