"""Reads the graph of a vendor's file: tensors, nodes, inputs and outputs, as much of them as is right."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from engine.errors import FileError
from engine.files.vendor.layouts import CORES, DTYPES, KINDS, LAYOUTS, NPU
from engine.files.vendor.model import Normalization, VendorNode, VendorTensor
from engine.flatbuffers import Table

_T = TypeVar("_T")

_MOST_DIMENSIONS = 16
_MOST_FAULTS = 20
_MOST_PORTS = 1024
# Of the names of all tensors that nodes read, which whoever shows a graph writes out.
_MOST_TEXT_READ = 1 << 25
# Six for each part that packed weights are split into.
_MOST_NATIVE = 6 * 1024


class Faults:
    """What could not be read, by part of the file and reason, each counted."""

    def __init__(self, found: Iterable[str] = ()) -> None:
        self._found: Counter[tuple[str, str]] = Counter((line, "") for line in found)
        self._left_out = 0

    def add(self, part: str, reason: str = "") -> None:
        """Note that one of `part` is wrong."""
        if len(self._found) < _MOST_FAULTS or (part, reason) in self._found:
            self._found[part, reason] += 1
        else:
            self._left_out += 1

    def guarded(self, part: str, read: Callable[[], _T], otherwise: _T) -> _T:
        """What `read` returns, or `otherwise` where the file is wrong there."""
        try:
            return read()
        except FileError as error:
            self.add(part, error.what)
            return otherwise

    def lines(self) -> tuple[str, ...]:
        """What was noted, in its order."""
        lines = [
            part + (f": {reason}" if reason else "") + (f" ({count:,} times)" if count > 1 else "")
            for (part, reason), count in self._found.items()
        ]
        return (*lines, f"{self._left_out:,} faults of other kinds") if self._left_out else tuple(lines)


@dataclasses.dataclass(frozen=True)
class Graph:
    """The parts of one graph. `inputs` and `outputs` are indices of tensors."""

    tensors: tuple[VendorTensor, ...] = ()
    nodes: tuple[VendorNode, ...] = ()
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    normalization: tuple[Normalization, ...] = ()


def read_graph(table: Table, blobs: tuple[int, ...], faults: Faults) -> Graph:
    """The graph of a table; `blobs` are the lengths of the file's blobs. What is wrong is noted and left out."""
    nothing: tuple[Any, ...] = ()
    tensors = tuple(
        _tensor(one, blobs, faults) for one in faults.guarded("the tensors", lambda: table.tensors, nothing)
    )

    def known(numbers: tuple[int, ...], part: str) -> tuple[int, ...]:
        kept = tuple(number for number in numbers if 0 <= number < len(tensors))
        if len(kept) < len(numbers):
            faults.add(part, "names a tensor that is not there")
        return kept

    nodes = []
    for one in faults.guarded("the nodes", lambda: table.nodes, nothing):
        value = _values(one, "a node", faults)
        nodes.append(
            VendorNode(
                value("op", "") or "?",
                value("name", ""),
                "npu" if value("target", 0) == NPU else "cpu",
                known(value("inputs", ()), "a node"),
                known(value("outputs", ()), "a node"),
                _cores(value("tasks", ())),
            )
        )
    nodes = _checked(nodes, tensors, faults)
    inputs = known(faults.guarded("the inputs", lambda: table.inputs, nothing)[:_MOST_PORTS], "the inputs")
    outputs = known(faults.guarded("the outputs", lambda: table.outputs, nothing)[:_MOST_PORTS], "the outputs")
    normalization = tuple(
        Normalization(
            _values(one, "mean and std", faults)("mean", ()),
            _values(one, "mean and std", faults)("std", ()),
            _values(one, "mean and std", faults)("order", ()),
        )
        for one in faults.guarded("mean and std", lambda: table.normalization, nothing)
    )
    if len(normalization) not in (0, len(inputs)):
        faults.add("mean and std", f"{len(normalization)} for {len(inputs)} inputs")
        normalization = ()
    return Graph(tensors, tuple(nodes), inputs, outputs, normalization)


def _cores(tasks: Sequence[int]) -> int:
    """How many cores have a task of the node when the runtime may use all."""
    return max((sum(one > 0 for one in tasks[start:end]) for start, end in CORES.get(len(tasks), ())), default=1) or 1


def input_shapes(table: Table) -> tuple[tuple[int, ...], ...]:
    """The shapes of a graph's inputs. Raises FileError where the file is wrong there."""
    tensors = table.tensors
    return tuple(
        tensors[place].shape[:_MOST_DIMENSIONS] for place in table.inputs[:_MOST_PORTS] if 0 <= place < len(tensors)
    )


def _checked(nodes: list[VendorNode], tensors: Sequence[VendorTensor], faults: Faults) -> list[VendorNode]:
    """The nodes, none where they read more than can be shown; notes those that read what is made behind them, as in
    a graph that goes round."""
    if sum(len(tensors[place].name) for node in nodes for place in node.inputs) > _MOST_TEXT_READ:
        faults.add("the nodes", "they read more than those of any model")
        return []
    makers = {place: index for index, node in enumerate(nodes) for place in node.outputs}
    for index, node in enumerate(nodes):
        if any(makers.get(place, -1) >= index for place in node.inputs):
            faults.add("a node", "it reads what is made behind it")
    return nodes


def _values(table: Table, part: str, faults: Faults) -> Callable[[str, Any], Any]:
    """Reads fields of a table: its value, or what is given where there is none, or none that can be read."""

    def value(name: str, otherwise: Any) -> Any:
        # Where a layout has no such field, the attribute is missing.
        found = faults.guarded(part, lambda: getattr(table, name, None), None)
        return otherwise if found is None else found

    return value


def _tensor(table: Table, blobs: tuple[int, ...], faults: Faults) -> VendorTensor:
    value = _values(table, "a tensor", faults)
    dtype, layout, kind, blob = value("dtype", 0), value("layout", 0), value("kind", 0), value("blob", 0)
    if blob >= len(blobs) > 0:
        faults.add("a tensor", "its content is not there")
    scale, zero_point = value("scale", ()), value("zero_point", ())
    if any(not math.isfinite(one) or one < 0 for one in scale):
        faults.add("a tensor", "its scale is not a positive number")
        scale, zero_point = (), ()
    return VendorTensor(
        value("name", ""),
        _sizes(value("shape", ()), _MOST_DIMENSIONS, faults),
        DTYPES.get(dtype, f"type {dtype}"),
        KINDS.get(kind, f"kind {kind}"),
        LAYOUTS.get(layout, f"layout {layout}"),
        _sizes(value("native", ()), _MOST_NATIVE, faults),
        value("bytes", 0),
        value("offset", 0),
        blobs[blob] if 0 < blob < len(blobs) else 0,
        scale,
        zero_point,
        value("minimum", ()),
        value("maximum", ()),
    )


def _sizes(found: tuple[int, ...], most: int, faults: Faults) -> tuple[int, ...]:
    if len(found) > most or any(size < 0 for size in found):
        faults.add("a tensor", "its shape is impossible")
        return ()
    return found
