"""Cuts a graph at named tensors and fixes the sizes of its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from engine.errors import ConfigError, ModelError, nearest
from engine.graph.shapes import LARGEST_TENSOR


def cut_outputs(graph: ir.Graph, names: Sequence[str]) -> None:
    """Let the graph end at the tensors `names`, in that order. Raises ConfigError on a name that is not computed."""
    if not names:
        raise ConfigError("is an empty list", where="outputs", hint="name at least one tensor, or leave it out")
    _refuse_doubles("outputs", names)
    known = _tensors(graph)
    chosen = [_find("outputs", name, known) for name in names]
    graph.outputs[:] = chosen


def cut_inputs(graph: ir.Graph, names: Sequence[str]) -> None:
    """Let the graph start at the tensors `names`: what computed them is dropped, in that order.

    The model's own inputs that are still needed come after them.
    """
    if not names:
        raise ConfigError("is an empty list", where="inputs", hint="name at least one tensor, or leave it out")
    _refuse_doubles("inputs", names)
    known = _tensors(graph)
    chosen = []
    for name in names:
        value = _find("inputs", name, known)
        if value.is_initializer():
            raise ConfigError(f"{name!r} is a constant of the model, not an input", where="inputs")
        if not value.is_graph_input():
            # What an unknown operator makes has no type; the type that nearly all have is told if it does not fit.
            fed = ir.val(name, dtype=value.dtype or ir.DataType.FLOAT, shape=value.shape)
            producer = value.producer()
            value.name = f"{name}_before_cut"
            value.replace_all_uses_with(fed, replace_graph_outputs=True)
            if producer is not None:
                producer.name = producer.name or name
            value = fed
        chosen.append(value)
    rest = [v for v in graph.inputs if v not in chosen]
    graph.inputs[:] = [*chosen, *rest]


def drop_dead(model: ir.Model, *, keep_inputs: Sequence[str] = ()) -> None:
    """Remove nodes and constants that no output needs, and the model's inputs that nothing reads."""
    common_passes.RemoveUnusedNodesPass()(model)
    graph = model.graph
    outputs = set(graph.outputs)
    graph.inputs[:] = [v for v in graph.inputs if v.uses() or v in outputs or v.name in keep_inputs]


def fix_sizes(graph: ir.Graph, names: Sequence[str] | None, sizes: Sequence[Sequence[int]] | None) -> None:
    """Give the inputs static shapes from `sizes`, one for each of `names` (None: of the graph's inputs, in order).

    Raises ConfigError when sizes and inputs do not fit together, or when a dimension stays dynamic.
    """
    if sizes is not None:
        targets = [v.name or "" for v in graph.inputs] if names is None else list(names)
        if len(sizes) != len(targets):
            raise ConfigError(
                f"gives {len(sizes)} shapes for {len(targets)} inputs ({', '.join(targets)})", where="input_size_list"
            )
        by_name = {v.name: v for v in graph.inputs}
        for name, size in zip(targets, sizes, strict=True):
            if name in by_name:
                _fix(by_name[name], size)
    dynamic = [v for v in graph.inputs if _unknown(v)]
    if dynamic:
        shown = "; ".join(f"{v.name!r} {_show(v)}" for v in dynamic)
        raise ConfigError(
            f"inputs have dynamic dimensions: {shown}",
            where="input_size_list",
            hint="give their sizes, for example inputs=['x'], input_size_list=[[1, 3, 224, 224]]",
        )


def _fix(value: ir.Value, size: Sequence[int]) -> None:
    dims = list(size) if not isinstance(size, (str, bytes)) and hasattr(size, "__iter__") else None
    if dims is None or not all(isinstance(d, int) and not isinstance(d, bool) and d > 0 for d in dims):
        raise ConfigError(
            f"{size!r} is not a list of positive whole numbers", where=f"input_size_list for {value.name!r}"
        )
    elements = 1
    for dim in dims:
        elements *= dim
    if elements > LARGEST_TENSOR:
        raise ConfigError(f"{dims} is too large", where=f"input_size_list for {value.name!r}")
    if value.shape is not None and value.is_graph_input() and value.producer() is None:
        own = value.shape.dims
        fits = len(own) == len(dims) and all(
            not (isinstance(o, int) and o > 1) or o == d for o, d in zip(own, dims, strict=True)
        )
        if not fits:
            raise ConfigError(
                f"{dims} does not fit the model's {_show(value)}", where=f"input_size_list for {value.name!r}"
            )
    value.shape = ir.Shape(dims)


def _unknown(value: ir.Value) -> bool:
    return value.shape is None or any(not isinstance(d, int) or d <= 0 for d in value.shape.dims)


def _show(value: ir.Value) -> str:
    if value.shape is None:
        return "of unknown rank"
    return (
        "["
        + ", ".join(
            str(d)
            if isinstance(d, int) and d > 0
            else str(getattr(d, "value", None) or "?")
            if not isinstance(d, int)
            else "?"
            for d in value.shape.dims
        )
        + "]"
    )


def _tensors(graph: ir.Graph) -> dict[str, ir.Value]:
    values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
    return {v.name: v for v in values if v.name}


def _find(argument: str, name: str, known: dict[str, ir.Value]) -> ir.Value:
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"the model has no tensor {name!r}", where=argument, hint=nearest(str(name), known))
    return known[name]


def _refuse_doubles(argument: str, names: Sequence[str]) -> None:
    if isinstance(names, str):
        raise ConfigError(f"expected a list of names, got {names!r}", where=argument)
    doubles = {n for n in names if list(names).count(n) > 1}
    if doubles:
        raise ConfigError(f"names {sorted(map(str, doubles))} twice", where=argument)


def check_not_empty(model: ir.Model, where: str) -> None:
    """Raise ModelError when cutting left nothing that computes an output from an input."""
    if not model.graph.inputs:
        raise ModelError("no output depends on an input", where=where, hint="check `inputs` and `outputs`")
