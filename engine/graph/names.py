"""Hands out tensor names that nothing in a graph has, and adds constants under such names."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, Any]


class Names:
    """The names of a graph and those handed out since; looks at the graph once, on the first request.

    Subgraphs count too: a new tensor of an inner tensor's name would be hidden by it, which ONNX forbids.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._taken: set[str | None] | None = None
        # The number that comes next for a base: files may give thousands of nodes one name.
        self._next: dict[str, int] = {}

    def fresh(self, base: str) -> str:
        """`base`, with a number behind it where it is taken."""
        taken = self._all()
        name = base
        if name in taken:
            count = self._next.get(base, 1)
            while (name := f"{base}_{count}") in taken:
                count += 1
            self._next[base] = count + 1
        taken.add(name)
        return name

    def copy(self) -> Names:
        """Another set of the same names, without a second look at the graph."""
        other = Names(self._graph)
        other._taken, other._next = set(self._all()), dict(self._next)
        return other

    def _all(self) -> set[str | None]:
        if self._taken is None:
            self._taken = set()
            for graph in (self._graph, *self._graph.subgraphs()):
                self._taken.update(graph.initializers)
                self._taken.update(value.name for value in graph.inputs)
                self._taken.update(value.name for node in graph for value in node.outputs)
        return self._taken

    def constant(self, base: str, array: Array) -> ir.Value:
        """A new initializer of the graph that holds `array`, under a fresh name made from `base`."""
        array = np.asarray(array, order="C")
        name = self.fresh(base)
        # onnx_ir looks long for what an array may be besides.
        tensor = ir.Tensor(array, name=name) if array.dtype.kind in "fiub" else ir.tensor(array, name=name)
        value = ir.val(name, dtype=tensor.dtype, shape=ir.Shape(array.shape), const_value=tensor)
        self._graph.register_initializer(value)
        return value
