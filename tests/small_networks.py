"""Builds small models from lines of ONNX text and quantizes them through a Session, with npy files for samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper, numpy_helper

from engine.config import Config
from engine.session import Session

Array = np.ndarray[Any, Any]


def random(*shape: int, seed: int = 0, spread: float = 1.0) -> Array:
    return (np.random.default_rng(seed + sum(shape)).normal(size=shape) * spread).astype(np.float32)


def integers(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def network(
    inputs: Mapping[str, Sequence[int]], body: str, constants: Mapping[str, Array], outputs: Sequence[str] = ("y",)
) -> onnx.ModelProto:
    """A model of float inputs whose nodes are the lines of `body`, as in `y = Add (x, c)`."""
    return helper.make_model(
        helper.make_graph(
            [onnx.parser.parse_node(line.strip()) for line in body.strip().splitlines()],
            "small",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in inputs.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )


def renamed(proto: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """The model with other tensor names, also such as ONNX text cannot spell."""
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for item in [*proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        item.name = names.get(item.name, item.name)
    return proto


def built(folder: Path, proto: onnx.ModelProto, samples: Sequence[Sequence[Array]], **settings: Any) -> Session:
    """A session with `proto` built; each sample has one array an input, in the model's own layout (NCHW)."""
    path = folder / "model.onnx"
    path.write_bytes(typed(proto).SerializeToString())
    lines = []
    for index, sample in enumerate(samples):
        names = [f"sample-{index}-{position}.npy" for position in range(len(sample))]
        for name, array in zip(names, sample, strict=True):
            # Dataset files of four dimensions are NHWC.
            np.save(folder / name, array.transpose(0, 2, 3, 1) if array.ndim == 4 else array)
        lines.append(" ".join(names))
    dataset = folder / "dataset.txt"
    dataset.write_text("\n".join(lines) + "\n")
    session = Session(Config.from_mapping({"target_platform": "rk3588", **settings}))
    session.load_onnx(path)
    session.build(dataset=dataset)
    return session


def typed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the types of its outputs, which a valid file tells."""
    inferred: onnx.ModelProto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    return inferred


def infer(session: Session, *inputs: Array) -> list[Array]:
    """Outputs for inputs in the model's own layout."""
    return session.infer(list(inputs), data_format="nchw")
