"""Goes through a net layer by layer and makes its graph."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx_ir as ir

from engine.errors import ConfigError, ModelError, nearest
from engine.frontends.caffe import (
    activations,
    arithmetic,
    convolutions,
    detection,
    network,
    normalization,
    pooling,
    prototxt,
    rearranging,
    recurrent,
    resizing,
)
from engine.frontends.caffe import weights as weight_files
from engine.frontends.caffe.layers import READERS, Making, Refused
from engine.frontends.caffe.network import Layer, Net
from engine.frontends.caffe.weights import Weights
from engine.frontends.finishing import finish
from engine.frontends.making import GraphMaker
from engine.frontends.reading import read_text
from engine.progress import Progress

log = logging.getLogger("engine")

MODULES = (
    activations,
    arithmetic,
    convolutions,
    detection,
    normalization,
    pooling,
    rearranging,
    recurrent,
    resizing,
)
"""Where layers are read; importing a module enters them in the table."""

_LONGEST_TEXT = 3 << 20
_MOST_VALUES = 20_000
_SHOWN = 8
# What only training and other libraries read of a layer's parameters.
_NO_EFFECT = {"engine", "weight_filler", "bias_filler", "filler", "cudnn_math_override", "axis_filler", "std"}


def load(
    path: Path,
    blobs: Path | None,
    input_name: Sequence[str] | None,
    inputs: Sequence[str] | None,
    input_size_list: Sequence[Sequence[int]] | None,
    outputs: Sequence[str] | None,
    progress: Progress,
) -> ir.Model:
    """The graph of `path` with the weights of `blobs`; see the package."""
    progress.step("read", 0, 4)
    where = str(path)
    net = network.read(prototxt.parse(read_text(path, limit=_LONGEST_TEXT), where), where)
    if len(net.values()) > _MOST_VALUES:
        raise ModelError(f"has {len(net.values())} blobs", where=where, hint=f"up to {_MOST_VALUES} are read")
    weights = weight_files.read(blobs, where)
    progress.step("read", 1, 4)
    ends = _checked("outputs", outputs, net) if outputs is not None else list(net.outputs)
    starts = _starts(net, input_name, inputs, input_size_list, _needed(net, ends, ()))
    maker = GraphMaker(where)
    own = {given.name for given in net.inputs}
    missing = [name for name, shape in starts.items() if shape is None and name not in own]
    if missing:
        starts.update(_sizes_inside(net, missing, where))
    walk = _Walk(maker, net, weights)
    needed = _needed(net, ends, starts)
    unread = _feed(walk, starts, needed, inputs or ())
    walk.run(needed, progress)
    maker.check_refused()
    weights.check()
    _tell(where, walk, unread)
    model = maker.model([walk.values[name] for name in ends], ends)
    progress.step("fold", 2, 4)
    finish(model, where, keep_inputs=inputs or ())
    progress.step("check", 4, 4)
    return model


class _Walk:
    """The values made so far, by name; one that an unknown layer would make is not there."""

    def __init__(self, maker: GraphMaker, net: Net, weights: Weights) -> None:
        self.maker, self.net, self.weights = maker, net, weights
        self.values: dict[str, ir.Value] = {}
        self.unknown_fields: dict[str, None] = {}
        self._names = frozenset(net.values())

    def run(self, needed: set[str], progress: Progress) -> None:
        """Make every layer of which a value is needed and was not fed."""
        for layer in self.net.layers:
            if any(top in needed and top not in self.values for top in layer.tops):
                progress.check()
                self._make(layer)

    def _make(self, layer: Layer) -> None:
        reader = READERS.get(layer.type)
        if reader is None:
            self.maker.refuse(layer.type, layer.name, hint=_unknown(layer.type))
            return
        if any(name not in self.values for name in layer.bottoms):
            return  # behind a layer that was refused
        making = Making(self.maker, layer, [self.values[name] for name in layer.bottoms], self.weights, self._names)
        where = f"{self.maker.where}: {layer.name}"
        try:
            most = len(layer.bottoms) if reader.most is None else reader.most
            if not reader.fewest <= len(layer.bottoms) <= most:
                raise ModelError(f"a {layer.type} cannot read {len(layer.bottoms)} blobs")
            results = reader.read(making)
            if len(results) != len(layer.tops):
                raise ModelError(f"a {layer.type} makes {len(results)} blobs, not {len(layer.tops)}")
        except Refused as refused:
            self.maker.refuse(layer.type, layer.name, refused.detail, refused.hint)
            return
        except ModelError as error:
            place = error.where if error.where.startswith(self.maker.where) else where
            raise type(error)(error.what, where=place, hint=error.hint) from error
        for value, name in zip(results, layer.tops, strict=True):
            if name in self.values:
                continue  # it is fed
            if value in making.inputs or value.is_initializer():
                value = making.node("Identity", [value])
            self.values[name] = self.maker.rename(value, name)
        for field in layer.message.unread():
            holder, _, inner = field.partition(".")
            if inner and holder.endswith("_param") and not _NO_EFFECT.intersection(inner.split(".")):
                self.unknown_fields[f"{layer.name}: {field}"] = None


def _unknown(kind: str) -> str:
    if kind == "Python":
        return "a Python layer runs code of its own: replace it by layers of Caffe"
    return nearest(kind, READERS) if kind.lower() in {known.lower() for known in READERS} else ""


def _starts(
    net: Net,
    input_name: Sequence[str] | None,
    inputs: Sequence[str] | None,
    sizes: Sequence[Sequence[int]] | None,
    needed: set[str],
) -> dict[str, tuple[int, ...] | None]:
    """The values that are fed, in order, with their shapes as far as they are known.

    Sizes are those of `inputs`, or of all inputs; where there are fewer, of all that are `needed`, which labels are
    not.
    """
    shapes = {given.name: given.shape for given in net.inputs}
    order = list(shapes)
    if input_name is not None:
        by_layer = {given.layer: given.name for given in reversed(net.inputs)}
        chosen = [name if name in shapes else by_layer.get(name, name) for name in _names("input_name", input_name)]
        for name in chosen:
            if name not in shapes:
                raise ConfigError(f"the model has no input {name!r}", where="input_name", hint=nearest(name, shapes))
        order = [*chosen, *(name for name in order if name not in chosen)]
    if inputs is not None:
        cut = _checked("inputs", inputs, net)
        order = [*cut, *(name for name in order if name not in cut)]
    if sizes is not None:
        wanted = order if inputs is None else order[: len(inputs)]
        if len(sizes) < len(wanted) and inputs is None:
            wanted = [name for name in wanted if name in needed]
        if len(sizes) != len(wanted):
            raise ConfigError(
                f"gives {len(sizes)} shapes for {len(wanted)} inputs ({', '.join(wanted)})", where="input_size_list"
            )
        for name, size in zip(wanted, sizes, strict=True):
            shapes[name] = _size(name, size)
    return {name: shapes.get(name) for name in order}


def _size(name: str, size: Sequence[int]) -> tuple[int, ...]:
    try:
        dims = () if isinstance(size, (str, bytes)) else tuple(size)
    except TypeError:
        dims = ()
    if not dims or any(not isinstance(dim, int) or isinstance(dim, bool) or dim < 1 for dim in dims):
        raise ConfigError(f"{size!r} is not a list of positive whole numbers", where=f"input_size_list for {name!r}")
    return dims


def _names(argument: str, names: Sequence[str]) -> list[str]:
    if isinstance(names, str) or not names or any(not isinstance(name, str) for name in names):
        raise ConfigError(f"expected a list of names, got {names!r}", where=argument)
    doubles = sorted({name for name in names if list(names).count(name) > 1})
    if doubles:
        raise ConfigError(f"names {doubles} twice", where=argument)
    return list(names)


def _checked(argument: str, names: Sequence[str], net: Net) -> list[str]:
    known = set(net.values())
    for name in _names(argument, names):
        if name not in known:
            raise ConfigError(f"the model has no blob {name!r}", where=argument, hint=nearest(name, net.values()))
    return list(names)


def _sizes_inside(net: Net, names: Iterable[str], where: str) -> dict[str, tuple[int, ...] | None]:
    """The shapes of values inside the net, as what comes before them would make them."""
    maker = GraphMaker(where)
    walk = _Walk(maker, net, Weights(where, {}))
    starts = {given.name: given.shape for given in net.inputs}
    needed = _needed(net, names, {})
    _feed(walk, starts, needed, ())
    walk.run(needed, Progress())
    return {name: maker.shape(walk.values[name]) if name in walk.values else None for name in names}


def _needed(net: Net, ends: Iterable[str], starts: Iterable[str]) -> set[str]:
    """Names of the values that `ends` depend on, themselves too, up to `starts`."""
    needed, given = set(ends), set(starts)
    for layer in reversed(net.layers):
        if any(top in needed and top not in given for top in layer.tops):
            needed.update(layer.bottoms)
    return needed


def _feed(walk: _Walk, starts: dict[str, tuple[int, ...] | None], needed: set[str], keep: Sequence[str]) -> list[str]:
    """Make the inputs of the graph; returns those that no output depends on, which are left out."""
    unread = []
    given, where = {one.name: one.shape for one in walk.net.inputs}, walk.maker.where
    for name, shape in starts.items():
        if name not in needed and name not in keep:
            unread.append(name)
            continue
        if shape is None:
            raise ConfigError(
                f"the file does not say the size of input {name!r}",
                where="input_size_list",
                hint=f"give it, for example inputs=[{name!r}], input_size_list=[[1, 3, 224, 224]]",
            )
        if len(shape) == 4 and shape[0] > 1 and shape == given.get(name):
            one = [1, *shape[1:]]
            log.warning("%s: input %r takes %d pictures; input_size_list=[%s] for one", where, name, shape[0], one)
        walk.values[name] = walk.maker.input(name, shape, layout="nchw" if len(shape) == 4 else "")
    return unread


def _tell(where: str, walk: _Walk, unread: Sequence[str]) -> None:
    """Warn of what a person may have meant otherwise."""
    # Labels have no size, and are not missed.
    sized = {given.name for given in walk.net.inputs if given.shape is not None}
    missed = [name for name in unread if name in sized]
    if missed:
        log.warning("%s: inputs that no output depends on are left out: %s", where, ", ".join(missed))
    fields = list(walk.unknown_fields)
    if fields:
        more = f" and {len(fields) - _SHOWN} more" if len(fields) > _SHOWN else ""
        log.warning("%s: not known, and without effect: %s%s", where, ", ".join(fields[:_SHOWN]), more)
