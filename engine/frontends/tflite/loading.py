"""Reads a TFLite file, cut at tensors and fixed in size, and makes the graph."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from engine.errors import ConfigError, ModelError, nearest
from engine.frontends.finishing import finish, surprises_told
from engine.frontends.making import GraphMaker
from engine.frontends.nhwc import Tensor
from engine.frontends.reading import CORRUPT, read_bytes
from engine.frontends.tflite import arranging, control, grids, recurrent, spectra, values, variables, windows
from engine.frontends.tflite.conversion import Conversion, operators_read
from engine.frontends.tflite.network import Network, TensorInfo, read
from engine.frontends.tflite.schema import OTHER_TYPES
from engine.graph.shapes import LARGEST_TENSOR
from engine.progress import Progress

log = logging.getLogger("engine")

_KINDS = (
    arranging,
    control,
    recurrent,
    spectra,
    values,
    variables,
    windows,
)  # importing them fills the table of operators


def load(
    path: Path,
    inputs: Sequence[str] | None = None,
    input_size_list: Sequence[Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> ir.Model:
    """Read `path` and make it a static float32 graph that keeps the names and layouts of its inputs and outputs.

    `inputs` and `outputs` are tensors to cut at, by their own names or those of the signature; what lies beyond is not
    looked at. `input_size_list` has one shape for each of `inputs` (or of the model's). Dimensions that are open are 1
    without it. Quantized tensors become float32 that keeps its parameters. Raises FileError, ModelError,
    UnsupportedOperator, ConfigError.
    """
    where = str(path)
    with surprises_told(where, CORRUPT):
        return _load(path, inputs, input_size_list, outputs, progress or Progress())


def operators() -> dict[str, tuple[str, ...]]:
    """Every operator that is read, and the ONNX operators that it becomes."""
    return dict(operators_read())


def _load(
    path: Path,
    inputs: Sequence[str] | None,
    input_size_list: Sequence[Sequence[int]] | None,
    outputs: Sequence[str] | None,
    progress: Progress,
) -> ir.Model:
    progress.step("read", 0, 4)
    where = str(path)
    network = read(read_bytes(path), where)
    progress.step("read", 1, 4)
    graph = network.subgraphs[0]
    finder = _Finder(network)
    started = list(graph.inputs) if inputs is None else finder.numbers("inputs", inputs)
    wanted = list(graph.outputs) if outputs is None else finder.numbers("outputs", outputs)
    sizes = _sizes(graph.tensors, started, input_size_list)

    maker = GraphMaker(where)
    conversion = Conversion(maker, network, graph)
    for number in started:
        _feed(conversion, number, sizes.get(number))
    if inputs is not None:  # the model's own inputs that are still needed come after them
        read_by = {index for op in conversion.needed(wanted) for index in op.inputs} | set(wanted)
        for number in graph.inputs:
            if number not in conversion.known and number in read_by:
                _feed(conversion, number, None)
    conversion.run(wanted)
    maker.check_refused()
    if any(number in conversion.imaginary for number in wanted):
        raise ModelError("its output is of complex numbers", where=where, hint="cut it at `outputs` of real ones")
    tensors = [conversion.tensor(number) for number in wanted]
    model = maker.model(*_results(tensors, [graph.tensors[number].name for number in wanted]))
    grids.spread(model)
    progress.step("fold", 2, 4)
    keep = [graph.tensors[number].name for number in started] if inputs is not None else ()
    own = [value.name for value in model.graph.inputs]
    finish(model, where, keep_inputs=keep)
    unread = [name for name in own if name not in {value.name for value in model.graph.inputs}]
    if unread and inputs is None and outputs is None:
        log.warning("%s: inputs that no output depends on are left out: %s", where, ", ".join(map(str, unread)))
    progress.step("check", 4, 4)
    return model


def _results(tensors: Sequence[Tensor], names: Sequence[str]) -> tuple[list[ir.Value], list[str]]:
    """The values of the outputs, and their names; whatever else has such a name gives it up."""
    results = [tensor.output() for tensor in tensors]
    fixed = list(dict.fromkeys(names))
    taken = {value.name: value for value in results}
    for value, name in zip(results, names, strict=True):
        if value.name != name and name not in taken and value.producer() is not None:
            graph = value.producer().graph  # type: ignore[union-attr]
            holder = next((v for n in graph or () for v in n.outputs if v.name == name), None)
            if holder is not None:
                holder.name = f"{name}_inner"
                value.name = name
    return results, list(names) if len(fixed) == len(names) else [value.name or "" for value in results]


def _feed(conversion: Conversion, number: int, size: Sequence[int] | None) -> None:
    info = conversion.subgraph.tensors[number]
    if number in conversion.known:
        raise ModelError(f"names its input {info.name!r} twice", where=conversion.maker.where, hint=CORRUPT)
    shape = [max(dim, 1) for dim in info.shape] if size is None else list(size)
    if info.dtype in OTHER_TYPES.values():
        raise ModelError(
            f"input {info.name!r} is of {info.dtype}", where=conversion.maker.where, hint="cut it off with `inputs`"
        )
    real = info.quantized or info.dtype in ("float16", "float64")
    dtype = ir.DataType.FLOAT if real else ir.DataType.from_numpy(np.dtype(info.dtype))
    layout = "nchw" if _is_turned(conversion, number) else "nhwc"
    value = conversion.maker.input(info.name, shape, dtype, layout=layout)
    tensor = Tensor.of(value, conversion.place(number))
    if info.quantized:
        tensor.quantized(info.grid)
    conversion.known[number] = tensor


def _is_turned(conversion: Conversion, number: int) -> bool:
    """Whether all that reads an input turns it from NCHW to NHWC, as in models that came from other frameworks."""
    graph = conversion.subgraph
    readers = [op for op in graph.operators if number in op.inputs]
    orders = [
        graph.tensors[op.inputs[1]].stored if op.kind == "TRANSPOSE" and len(op.inputs) > 1 else None for op in readers
    ]
    return bool(readers) and all(order is not None and order.tolist() == [0, 2, 3, 1] for order in orders)


def _sizes(
    tensors: Sequence[TensorInfo], started: Sequence[int], sizes: Sequence[Sequence[int]] | None
) -> dict[int, list[int]]:
    if sizes is None:
        return {}
    if len(sizes) != len(started):
        names = ", ".join(tensors[number].name for number in started)
        raise ConfigError(f"gives {len(sizes)} shapes for {len(started)} inputs ({names})", where="input_size_list")
    found = {}
    for number, size in zip(started, sizes, strict=True):
        place = f"input_size_list for {tensors[number].name!r}"
        dims = list(size) if not isinstance(size, (str, bytes)) and hasattr(size, "__iter__") else []
        if not all(isinstance(d, int) and not isinstance(d, bool) and d > 0 for d in dims) or (not dims and size != []):
            raise ConfigError(f"{size!r} is not a list of positive whole numbers", where=place)
        own = tensors[number].shape
        if own and len(own) != len(dims):
            raise ConfigError(f"{dims} does not fit the model's {list(own)}", where=place)
        if np.prod([float(d) for d in dims]) > LARGEST_TENSOR:
            raise ConfigError(f"{dims} is too large", where=place)
        found[number] = dims
    return found


@dataclasses.dataclass(frozen=True)
class _Finder:
    """Finds tensors of the first graph by name."""

    network: Network

    def numbers(self, argument: str, names: Sequence[str]) -> list[int]:
        """The numbers of the tensors `names`. Raises ConfigError where one is not there, a constant, or there twice."""
        if isinstance(names, str):
            raise ConfigError(f"expected a list of names, got {names!r}", where=argument)
        if not names:
            raise ConfigError("is an empty list", where=argument, hint="name at least one tensor, or leave it out")
        tensors = self.network.subgraphs[0].tensors
        known: dict[str, int] = {}
        for index, info in enumerate(tensors):
            known.setdefault(info.name, index)
        found = []
        for name in names:
            own = name if name in known else self.network.aliases.get(name, name) if isinstance(name, str) else name
            if own not in known:
                raise ConfigError(f"the model has no tensor {name!r}", where=argument, hint=nearest(str(name), known))
            if tensors[known[own]].stored is not None:
                raise ConfigError(f"{name!r} is a constant of the model", where=argument)
            found.append(known[own])
        if len(set(found)) < len(found):
            raise ConfigError("names a tensor twice", where=argument)
        return found
