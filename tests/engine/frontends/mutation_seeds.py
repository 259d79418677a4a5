"""Valid model files of every framework, small enough to be damaged thousands of times: generated, and of the zoo."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.engine.frontends.model_files import IMAGE, Array, floats, model, whole
from tests.engine.frontends.mutations import Form
from tests.zoo import FOLDER

_LARGEST = 600_000
"""Bytes of a file of the zoo; in larger ones nearly all damage falls on weights."""


@dataclasses.dataclass(frozen=True)
class Seed:
    """A model as files by name, the form of each, and the arguments that its load takes besides."""

    name: str
    files: Mapping[str, bytes]
    forms: Mapping[str, Form]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_FORMS: Mapping[str, Mapping[str, Form]] = {
    "onnx": {".onnx": "protobuf"},
    "tflite": {".tflite": "bytes"},
    "tensorflow": {".pb": "protobuf"},
    "caffe": {".prototxt": "text", ".caffemodel": "protobuf"},
    "darknet": {".cfg": "text", ".weights": "bytes"},
    "pytorch": {".pt": "archive", ".ptl": "archive"},
}
FRAMEWORKS = tuple(_FORMS)


@functools.cache
def seeds(framework: str) -> list[Seed]:
    """The framework's seeds; empty where nothing generates them and there is no zoo."""
    return [*_GENERATED.get(framework, list)(), *zoo_seeds(framework)]


@functools.cache
def zoo_seeds(framework: str) -> list[Seed]:
    """Those of the zoo alone, which nothing has to be imported for."""
    found = []
    for folder in sorted(FOLDER.glob(f"{framework}/*")):
        paths = [path for ending in _FORMS[framework] for path in sorted(folder.glob(f"*{ending}"))]
        if not paths or sum(path.stat().st_size for path in paths) > _LARGEST or not (folder / "meta.json").is_file():
            continue
        arguments: dict[str, Any] = {}
        if framework in ("onnx", "tensorflow", "pytorch"):
            inputs = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["inputs"]
            arguments["input_size_list"] = [given["shape"] for given in inputs.values()]
            if framework == "tensorflow":
                arguments["inputs"] = [name.removesuffix(":0") for name in inputs]
        found.append(_seed(framework, folder.name, {path.name: path.read_bytes() for path in paths}, arguments))
    return found


def _seed(framework: str, name: str, files: Mapping[str, bytes], arguments: Mapping[str, Any] | None = None) -> Seed:
    forms = {file: _FORMS[framework][Path(file).suffix] for file in files}
    return Seed(name, files, forms, arguments or {})


def _onnx() -> list[Seed]:
    weights = {"w": floats(4, 3, 3, 3), "b": floats(4), "k": floats(64, 5), "five": floats(5), "two": np.float32(2)}
    plain = """
        c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b)
        r = Relu (c)
        p = MaxPool <kernel_shape = [2, 2], strides = [1, 1], pads = [0, 0, 1, 1]> (r)
        f = Flatten (p)
        g = Gemm (f, k, five)
        y = Softmax (g)
    """
    shaped = """
        s = Shape (x)
        n = Gather (s, zero)
        n1 = Unsqueeze (n, zero1)
        t = Concat <axis = 0> (n1, rest)
        r = Reshape (x, t)
        q = Shape (r)
        z = ConstantOfShape (q)
        a = Add (r, z)
        l = Slice (a, zero1, two1, one1)
        e = Tile (l, twos)
        u = Pad (e, pads)
        h, o = Split <axis = 1> (u, halves)
        y = Mul (h, o)
    """
    shapes = {
        "zero": np.int64(0),
        "zero1": whole(0),
        "one1": whole(1),
        "two1": whole(2),
        "rest": whole(-1),
        "twos": whole(1, 2),
        "pads": whole(0, 1, 0, 1),
        "halves": whole(3, 3),
    }
    branches = """
        y = If (flag) <then_branch = g () => (v) { v = Relu (x) }, else_branch = h () => (q) { q = Neg (x) }>
    """
    recurrent = "s = Squeeze (x, zero1)\nq, h, c = LSTM <hidden_size = 4> (s, lw, lr)\ny = Squeeze (q, one1)"
    lstm = {"zero1": whole(0), "one1": whole(1), "lw": floats(1, 16, 8), "lr": floats(1, 16, 4)}
    quantized = """
        q = QuantizeLinear (x, xs, xz)
        d = DequantizeLinear (q, xs, xz)
        wd = DequantizeLinear <axis = 0> (wq, ws)
        c = Conv (d, wd)
        r = QuantizeLinear (c, xs, xz)
        y = DequantizeLinear (r, xs, xz)
    """
    grid = {
        "xs": np.float32(0.05),
        "xz": np.int8(3),
        "ws": np.abs(floats(4)) + np.float32(0.01),
        "wq": np.arange(-54, 54, dtype=np.int8).reshape(4, 3, 3, 3),
    }
    old = 'u = Upsample <mode = "nearest"> (x, sc)\np = Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1]> (u)\ny = Softmax (p)'
    small = {
        "plain": model(IMAGE, plain, weights),
        "half": model(IMAGE, plain, {name: array.astype(np.float16) for name, array in weights.items()}, dtype=10),
        "shaped": model({"x": (2, 6)}, shaped, shapes),
        "branches": model(IMAGE, branches, {"flag": np.array(True)}),
        "recurrent": model({"x": (1, 3, 2, 8)}, recurrent, lstm),
        "quantized": model(IMAGE, quantized, grid),
        "old": model(IMAGE, old, {"sc": np.array([1, 1, 2, 2], np.float32)}, opset=9),
        "gather": model(
            {"i": (2, 3)}, "e = Gather (t, i)\ny = ReduceMean (e)", {"t": floats(9, 4)}, dtype=TensorProto.INT64
        ),
    }
    return [_seed("onnx", name, {"model.onnx": proto.SerializeToString()}) for name, proto in small.items()]


_PROTOTXT = """
name: "net"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 12 dim: 12 } } }
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 3 stride: 1 pad: 1 group: 1 bias_term: true }
}
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" batch_norm_param { use_global_stats: true eps: 1e-5 } }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { axis: 1 bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" relu_param { negative_slope: 0.1 } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "lrn" type: "LRN" bottom: "pool" top: "lrn" lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 } }
layer {
  name: "up" type: "Deconvolution" bottom: "lrn" top: "up"
  convolution_param { num_output: 4 kernel_size: 4 stride: 2 pad: 1 }
}
layer { name: "slice" type: "Slice" bottom: "up" top: "s1" top: "s2" slice_param { axis: 1 slice_point: 2 } }
layer {
  name: "sum" type: "Eltwise" bottom: "s1" bottom: "s2" top: "sum"
  eltwise_param { operation: SUM coeff: 1 coeff: -1 }
}
layer { name: "cat" type: "Concat" bottom: "s1" bottom: "sum" top: "cat" concat_param { axis: 1 } }
layer { name: "perm" type: "Permute" bottom: "cat" top: "perm" permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "flat" type: "Flatten" bottom: "perm" top: "flat" flatten_param { axis: 1 } }
layer { name: "shape" type: "Reshape" bottom: "flat" top: "shape" reshape_param { shape { dim: 0 dim: -1 dim: 4 } } }
layer { name: "fc" type: "InnerProduct" bottom: "shape" top: "fc" inner_product_param { num_output: 10 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" softmax_param { axis: 1 } }
"""

_OLD_PROTOTXT = """
input: "data" input_dim: 1 input_dim: 3 input_dim: 12 input_dim: 12
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layers { name: "relu" type: RELU bottom: "conv" top: "conv" }
layers { name: "fc" type: INNER_PRODUCT bottom: "conv" top: "fc" inner_product_param { num_output: 5 } }
layers { name: "prob" type: SOFTMAX bottom: "fc" top: "prob" }
"""


def _caffe() -> list[Seed]:
    """Without weights, which are then made by chance."""
    return [
        _seed("caffe", "layers", {"net.prototxt": _PROTOTXT.encode()}),
        _seed("caffe", "old_layers", {"net.prototxt": _OLD_PROTOTXT.encode()}),
    ]


_CFG = """
[net]
batch=1
width=32
height=32
channels=3

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=8
size=1
stride=1
groups=2
pad=0
activation=mish

[shortcut]
from=-2
activation=linear

[maxpool]
size=2
stride=2

[reorg]
stride=2

[upsample]
stride=2

[route]
layers=-1,-3

[route]
layers=-1
groups=2
group_id=1

[avgpool]

[connected]
output=12
activation=relu

[softmax]
groups=1
"""


def _darknet() -> list[Seed]:
    header = np.array([0, 2, 0], np.int32).tobytes() + np.array([0], np.int64).tobytes()
    return [
        _seed(
            "darknet", "sections", {"net.cfg": _CFG.encode(), "net.weights": header + np.abs(floats(4096)).tobytes()}
        ),
    ]


def _pytorch() -> list[Seed]:
    try:
        import torch
    except ImportError:
        return []

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 5),
        torch.nn.Softmax(dim=1),
    ).eval()
    example = torch.zeros(1, 3, 8, 8)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises another format
        modules = {"traced": torch.jit.trace(network, example), "scripted": torch.jit.script(network)}
    for name, module in modules.items():
        written = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(module, written)
        found.append(_seed("pytorch", name, {"net.pt": written.getvalue()}, {"input_size_list": [[1, 3, 8, 8]]}))
    return found


def _tflite() -> list[Seed]:
    if importlib.util.find_spec("ai_edge_litert") is None:
        return []
    from tests.engine.frontends.tflite_models import O, T, build, const

    tensors = [
        T("x", (1, 4, 4, 3)),
        const("w", floats(8, 3, 3, 3)),
        const("b", floats(8)),
        T("c", (1, 4, 4, 8)),
        const("axis", 3, "int32"),
        T("one", (1, 4, 4, 4)),
        T("two", (1, 4, 4, 4)),
        const("pads", [[0, 0], [0, 0], [0, 0], [2, 2]], "int32"),
        T("p", (1, 4, 4, 8)),
        T("j", (1, 4, 4, 16)),
        const("size", [8, 8], "int32"),
        T("big", (1, 8, 8, 16)),
        const("spatial", [1, 2], "int32"),
        T("mean", (1, 16)),
        const("shape", [4, -1], "int32"),
        T("y", (4, 4)),
    ]
    steps = [
        O("CONV_2D", ["x", "w", "b"], ["c"], "Conv2DOptions", {"strideW": 1, "strideH": 1, "padding": 0}),
        O("SPLIT", ["axis", "c"], ["one", "two"], "SplitOptions", {"numSplits": 2}),
        O("PAD", ["two", "pads"], ["p"], "PadOptions"),
        O("CONCATENATION", ["c", "p"], ["j"], "ConcatenationOptions", {"axis": 3}),
        O("RESIZE_BILINEAR", ["j", "size"], ["big"], "ResizeBilinearOptions"),
        O("MEAN", ["big", "spatial"], ["mean"], "ReducerOptions"),
        O("RESHAPE", ["mean", "shape"], ["y"], "ReshapeOptions"),
    ]
    return [_seed("tflite", "operators", {"model.tflite": build(tensors, steps, ["x"], ["y"])})]


def _tensorflow() -> list[Seed]:
    from engine.frontends.tensorflow.schema import CLASSES

    graph = CLASSES["GraphDef"]()

    def add(name: str, operator: str, inputs: Sequence[str] = (), **attributes: Any) -> None:
        node = graph.node.add(name=name, op=operator, input=inputs)
        for key, value in attributes.items():
            entry = node.attr[key]
            if isinstance(value, bytes):
                entry.s = value
            elif isinstance(value, list):
                entry.list.i.extend(value)
            elif isinstance(value, np.ndarray):
                entry.tensor.dtype = 1 if value.dtype == np.float32 else 3
                for size in value.shape:
                    entry.tensor.tensor_shape.dim.add(size=size)
                entry.tensor.tensor_content = value.tobytes()
            else:
                entry.type = value

    def constant(name: str, array: Array) -> None:
        add(name, "Const", dtype=1 if array.dtype == np.float32 else 3, value=array)

    add("x", "Placeholder", dtype=1)
    for size in (1, 6, 6, 3):
        graph.node[0].attr["shape"].shape.dim.add(size=size)
    constant("w", floats(3, 3, 3, 4))
    constant("b", floats(4))
    strides = {"strides": [1, 2, 2, 1], "padding": b"SAME", "data_format": b"NHWC"}
    add("conv", "Conv2D", ["x", "w"], T=1, **strides)
    add("biased", "BiasAdd", ["conv", "b"], T=1)
    add("relu", "Relu6", ["biased"], T=1)
    add("pool", "MaxPool", ["relu"], T=1, ksize=[1, 2, 2, 1], **strides)
    add("shape", "Shape", ["pool"], T=1, out_type=3)
    for name, number in (("zero", 0), ("one", 1), ("rest", -1)):
        constant(name, np.array([number], np.int32))
    add("batch", "StridedSlice", ["shape", "zero", "one", "one"], T=3, Index=3)
    constant("axis", np.array(0, np.int32))
    add("target", "ConcatV2", ["batch", "rest", "axis"], T=3, Tidx=3)
    add("flat", "Reshape", ["pool", "target"], T=1, Tshape=3)
    constant("k", floats(16, 5))
    add("product", "MatMul", ["flat", "k"], T=1)
    add("y", "Softmax", ["product"], T=1)
    return [_seed("tensorflow", "graph", {"frozen.pb": graph.SerializeToString()})]


_GENERATED: Mapping[str, Callable[[], list[Seed]]] = {
    "onnx": _onnx,
    "tflite": _tflite,
    "tensorflow": _tensorflow,
    "caffe": _caffe,
    "darknet": _darknet,
    "pytorch": _pytorch,
}
