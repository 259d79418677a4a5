"""The Darknet front end: a cfg and its weights in, a graph of static shapes in float32 out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from engine.errors import ConfigError, FileError, ModelError, nearest
from engine.frontends.darknet import convolutions, joining, pooling
from engine.frontends.darknet.activations import ACTIVATIONS
from engine.frontends.darknet.cfg import Section, read_cfg
from engine.frontends.darknet.network import BECOMES, HANDLERS, Network
from engine.frontends.darknet.weights import Weights
from engine.frontends.finishing import finish, surprises_told
from engine.frontends.making import GraphMaker
from engine.frontends.reading import CORRUPT
from engine.graph import cutting
from engine.graph.shapes import LARGEST_TENSOR
from engine.progress import Progress

__all__ = ["convolutions", "joining", "load", "operators", "pooling"]

log = logging.getLogger("engine")

INPUT = "data"
"""What the input is called; a cfg has no name for it."""

_HEADS = ("yolo", "region", "detection", "Gaussian_yolo")
_HINTS = {
    **dict.fromkeys(
        ("rnn", "crnn", "lstm", "gru", "conv_lstm"), "layers that remember earlier samples do not run here"
    ),
    "contrastive": "leave out what only training needs",
}


def load(
    model: Path,
    weight: Path | None,
    inputs: Sequence[str] | None = None,
    input_size_list: Sequence[Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> ir.Model:
    """Read the cfg `model` and the weights `weight`, of either version of their header.

    The input is `data`, NCHW, of the size in [net] or in `input_size_list`. A layer and its output have the layer's
    index behind [net] and its type for a name, as in `003_convolutional`. The model ends at what feeds its detection
    layers ([yolo], [region], [detection], [Gaussian_yolo]), in their order: these outputs are called `pre_yolo_0`,
    `pre_yolo_1` and so on. Without such layers it ends at the last one. `inputs` and `outputs` cut it at
    other layers. Raises FileError, ModelError, UnsupportedOperator, ConfigError.
    """
    with surprises_told(model, CORRUPT):
        return _load(model, weight, inputs, input_size_list, outputs, progress or Progress())


def operators() -> dict[str, tuple[str, ...]]:
    """What is read: sections as `[type]`, activations by name; and the ONNX operators that each becomes."""
    found = dict(BECOMES)
    found.update({f"[{name}]": () for name in ("net", "network", *_HEADS)})
    found.update({f"activation={name}": becomes for name, (_, becomes) in ACTIVATIONS.items()})
    return dict(sorted(found.items()))


def _load(
    path: Path,
    weight: Path | None,
    inputs: Sequence[str] | None,
    input_size_list: Sequence[Sequence[int]] | None,
    outputs: Sequence[str] | None,
    progress: Progress,
) -> ir.Model:
    progress.step("read", 0, 4)
    where = str(path)
    head, sections = read_cfg(path)
    if weight is None:
        raise FileError("its weights are missing", where=where, hint="name its .weights file as `weight`")
    weights = Weights(weight)
    progress.step("read", 1, 4)

    own_size = inputs is None or list(inputs) == [INPUT]
    maker = GraphMaker(where)
    shape = _input_shape(head, input_size_list if own_size else None)
    net = Network(maker, weights, maker.input(INPUT, shape, layout="nchw"))
    heads: dict[str, ir.Value] = {}
    for at in sections:
        progress.check()
        try:
            _add(net, at, heads)
        except ModelError as error:
            maker.check_refused()  # what follows a layer that is not understood is not understood either
            raise error if error.where else type(error)(error.what, where=at.where, hint=error.hint) from error
    maker.check_refused()
    if weights.left:
        log.warning("%s: %d bytes at its end belong to no layer; is it of this cfg?", weight, weights.left)
    graph = _ended(net, heads, outputs)

    progress.step("fold", 2, 4)
    if inputs is not None:
        cutting.cut_inputs(graph.graph, inputs)
        cutting.drop_dead(graph, keep_inputs=inputs)
    if not own_size:
        cutting.fix_sizes(graph.graph, inputs, input_size_list)
    finish(graph, where, keep_inputs=inputs or ())
    progress.step("check", 4, 4)
    return graph


def _add(net: Network, at: Section, heads: dict[str, ir.Value]) -> None:
    """Add the layer of one section."""
    if at.type in _HEADS:
        heads[f"pre_yolo_{len(heads)}"] = _fed(net, at)
        net.layers.append((at.name, None))
        return
    before = net.current
    if net.layers and net.layers[-1][1] is None and at.type not in ("route", "cost", "dropout"):
        net.refuse(at, f"reads {net.layers[-1][0]}", "detections are decoded outside of the network")
    if at.type in HANDLERS:
        net.current = HANDLERS[at.type](net, at)
    else:
        net.refuse(at, hint=_HINTS.get(at.type, ""))
    # A route or a dropout hands on the value of an earlier layer, which keeps its name.
    if net.current is not before and net.current not in net.named and not net.current.is_graph_input():
        net.maker.rename(net.current, at.name)
    net.layers.append((at.name, net.current))
    net.named.add(net.current)


def _fed(net: Network, at: Section) -> ir.Value:
    if net.layers and net.layers[-1][1] is None:
        net.refuse(at, f"reads {net.layers[-1][0]}")
    return net.current


def _input_shape(head: Section, sizes: Sequence[Sequence[int]] | None) -> list[int]:
    """The shape of `data`: one sample, or what the caller says."""
    if sizes is not None:
        size = list(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], (str, int)) else []
        if len(size) != 4 or not all(type(length) is int and length > 0 for length in size):
            what = f"must be one list of four positive whole numbers, as in [[1, 3, 416, 416]], not {sizes!r:.80}"
            raise ConfigError(what, where="input_size_list")
    elif "inputs" in head.options and not all(head.whole(key) for key in ("channels", "height", "width")):
        size = [1, head.positive("inputs"), 1, 1]
    else:
        size = [1, *(head.positive(key) for key in ("channels", "height", "width"))]
    elements = size[0] * size[1] * size[2] * size[3]
    if elements > LARGEST_TENSOR:
        raise ModelError(f"its input would have the shape {size}", where=head.where, hint="give a smaller size")
    return size


def _ended(net: Network, heads: dict[str, ir.Value], outputs: Sequence[str] | None) -> ir.Model:
    """The model that ends at the detection layers, at the last layer, or where the caller says."""
    layers = {name: value for name, value in net.layers if value is not None}
    if outputs is None:
        found = heads or dict(list(layers.items())[-1:])
        if not found:
            raise ModelError("has no layers", where=net.maker.where, hint="is it the whole cfg?")
        return net.maker.model(list(found.values()), list(found))
    known = layers | heads
    if isinstance(outputs, str) or not outputs or len(set(outputs)) < len(outputs):
        raise ConfigError(f"must be a list of different layers, not {outputs!r:.80}", where="outputs")
    for name in outputs:
        if name not in known:
            raise ConfigError(f"the model has no layer {name!r}", where="outputs", hint=nearest(str(name), known))
    return net.maker.model([known[name] for name in outputs], list(outputs))
