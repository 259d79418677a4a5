"""Loads a frozen TensorFlow graph: the file is read, cut, interpreted and finished."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.errors import ConfigError, EngineError, ModelError
from engine.frontends.finishing import SURPRISES, finish, surprises_told
from engine.frontends.making import GraphMaker
from engine.frontends.nhwc import Place, Tensor
from engine.frontends.tensorflow import control, elementwise, lists, quantizing, reductions, shaping, windows
from engine.frontends.tensorflow.constants import graph_type
from engine.frontends.tensorflow.cutting import Feed, choose_feeds, choose_outputs, find_all, fix_sizes, is_switch
from engine.frontends.tensorflow.evaluation import FORMULAS
from engine.frontends.tensorflow.interpreting import Interpreter, Scope
from engine.frontends.tensorflow.nodes import Body, Reference, graph_body, tensor_name
from engine.frontends.tensorflow.reading import read_graph
from engine.frontends.tensorflow.values import BECOMES, DEAD, UNKNOWN, Dead, Value
from engine.progress import Progress

log = logging.getLogger("engine")

HANDLERS = (control, elementwise, lists, quantizing, reductions, shaping, windows)
"""The modules whose functions write operators."""

_ALL_OUTPUTS = {
    "TopK",
    "TopKV2",
    "Split",
    "SplitV",
    "Unpack",
    "IdentityN",
    "PartitionedCall",
    "StatefulPartitionedCall",
}


def operators() -> dict[str, tuple[str, ...]]:
    """Every TensorFlow operator that is read, and the ONNX operators that it becomes; none where it only decides what
    is computed."""
    followed = ("Const", "Exit", "Placeholder", "PlaceholderV2")
    return {name: tuple(sorted(BECOMES.get(name, ()))) for name in sorted({*BECOMES, *FORMULAS, *followed})}


def load(
    path: Path,
    inputs: Sequence[str] | None = None,
    input_size_list: Sequence[Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> ir.Model:
    """Read the frozen GraphDef `path` and make it a static float32 graph.

    `inputs` and `outputs` are names of operations, or of tensors such as 'split:1'; `input_size_list` gives the shape
    of each of `inputs`. Without them the graph begins at its placeholders and ends at what nothing reads; an unknown
    batch is 1. Raises FileError, ModelError, UnsupportedOperator, ConfigError.
    """
    with surprises_told(path, "is it a frozen TensorFlow graph?"):
        return _load(Path(path), inputs, input_size_list, outputs, progress or Progress())


def _load(
    path: Path,
    inputs: Sequence[str] | None,
    sizes: Sequence[Sequence[int]] | None,
    outputs: Sequence[str] | None,
    progress: Progress,
) -> ir.Model:
    progress.step("read", 0, 4)
    where = str(path)
    graph = read_graph(path)
    body = graph_body(graph, where)
    library = {function.signature.name: function for function in graph.library.function}
    progress.step("read", 1, 4)

    starts = find_all("inputs", inputs, body) if inputs is not None else None
    ends = find_all("outputs", outputs, body) if outputs is not None else choose_outputs(body, starts or [], where)
    feeds = choose_feeds(body, starts, ends, where)
    switches = [feed for feed in feeds if is_switch(feed)]
    feeds = [feed for feed in feeds if not is_switch(feed)]
    if sizes is None:
        feeds = [_sized(feed, body, library, where) for feed in feeds]
    shapes = fix_sizes(feeds, [tensor_name(start) for start in starts] if starts is not None else None, sizes, body)
    if switches:
        log.warning("%s: taken as false: %s", where, ", ".join(feed.name for feed in switches))

    maker = GraphMaker(where)
    layout = "nchw" if _is_channels_first(body) else "nhwc"
    fed: dict[Reference, Tensor] = {}
    for feed, shape in zip(feeds, shapes, strict=True):
        value = maker.input(feed.name, shape, graph_type(feed.dtype) or ir.DataType.FLOAT, layout=layout)
        fed[feed.reference] = Tensor.of(value, Place(maker, feed.name))
    for feed in switches:
        fed[feed.reference] = Tensor.constant(np.array(False), Place(maker, feed.name))

    progress.step("fold", 2, 4)
    found = _interpret(maker, body, library, fed, ends, progress, whole=outputs is None)
    if not found:
        raise ModelError("no output depends on an input", where=where, hint="check `inputs` and `outputs`")
    model = maker.model([tensor.output() for _, tensor in found])
    _name_outputs(model, [tensor_name(reference) for reference, _ in found])
    finish(model, where, keep_inputs=[tensor_name(start) for start in starts or ()])
    progress.step("check", 4, 4)
    return model


def _interpret(
    maker: GraphMaker,
    body: Body,
    library: dict[str, Any],
    fed: dict[Reference, Tensor],
    ends: Sequence[Reference],
    progress: Progress,
    *,
    whole: bool,
) -> list[tuple[Reference, Tensor]]:
    """The tensors at the `ends`; with `whole`, all outputs of those that have several, and no constants."""
    interpreter = Interpreter(maker, library, progress)
    scope = Scope(body, "", {})
    for (name, index), tensor in fed.items():
        values = scope.values.setdefault(name, [])
        values += [UNKNOWN] * (index + 1 - len(values))
        values[index] = tensor
    try:
        interpreter.run(scope, ends)
    except ModelError:
        maker.check_refused()  # what is not supported says more than what follows from it
        raise
    maker.check_refused()
    found: list[tuple[Reference, Tensor]] = []
    for name, index in ends:
        values = scope.values[name]
        several = whole and body.nodes[name].op in _ALL_OUTPUTS
        for at in range(len(values)) if several else [index]:
            value: Value = values[at] if at < len(values) else values[0] if values else DEAD
            if isinstance(value, Tensor) and not (whole and value.array is not None):
                found.append(((name, at), value))
            elif not whole:
                what = "is in a branch that is not taken" if isinstance(value, Dead) else "is no tensor"
                raise ConfigError(f"{name!r} {what}", where="outputs")
    return found


def _sized(feed: Feed, body: Body, library: dict[str, Any], where: str) -> Feed:
    """A tensor inside the graph with the shape that the graph's own inputs give it, where they do."""
    if feed.shape is not None or body.nodes[feed.reference[0]].op.startswith("Placeholder"):
        return feed
    with contextlib.suppress(EngineError, *SURPRISES):
        feeds = choose_feeds(body, None, [feed.reference], where)
        maker = GraphMaker(where)
        fed = {}
        for own, shape in zip(feeds, fix_sizes(feeds, None, None, body), strict=True):
            value = maker.input(own.name, shape, graph_type(own.dtype) or ir.DataType.FLOAT)
            fed[own.reference] = Tensor.of(value, Place(maker, own.name))
        made = _interpret(maker, body, library, fed, [feed.reference], Progress(), whole=False)
        return dataclasses.replace(feed, shape=list(made[0][1].shape))
    return feed


def _is_channels_first(body: Body) -> bool:
    """Whether pictures come with the channels first: all that cares does so."""
    formats = [node.text("data_format") for node in body.nodes.values() if node.op in ("Conv2D", "MaxPool", "AvgPool")]
    return bool(formats) and all(text == "NCHW" for text in formats)


def _name_outputs(model: ir.Model, names: Sequence[str]) -> None:
    """Call the outputs so, and whatever was called so before something else."""
    graph = model.graph
    outputs = list(graph.outputs)
    wanted = set(names)
    taken = {value.name for node in graph for value in node.outputs} | set(graph.initializers) | wanted
    for value in [*(v for node in graph for v in node.outputs), *graph.initializers.values()]:
        if value.name in wanted and value not in outputs:
            count = 1
            while f"{value.name}_inner{count}" in taken:
                count += 1
            value.name = f"{value.name}_inner{count}"
            taken.add(value.name)
    inputs = {value.name for value in graph.inputs}
    for number, value in enumerate(outputs):
        value.name = f"{names[number]}_output{number}"
    for value, name in zip(outputs, names, strict=True):
        value.name = f"{name}_output" if name in inputs else name
