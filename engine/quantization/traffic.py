"""In what precision each layer of a quantized model computes, and what its tensors are converted to on the way.

A layer computes in the precision of its output; its inputs come as others stored them, and are converted where that is
another precision. So a float16 layer between int8 layers gains the precision of its weights only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from engine.graph.layers import Layer
from engine.quantization.edits import layer_wishes
from engine.quantization.quantize import FLOAT16_ONLY
from engine.quantization.quantized import Quantized
from engine.quantization.table import GRIDS, Table
from engine.targets import Target


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What goes into and comes out of one layer, or out of a model input.

    computes: 'int8', 'int16' or 'float16'; several joined by '+', in the order of its nodes, where a wish for an inner
    tensor parts the layer; '' for layers of integers.
    reads: each input tensor and what it is stored in. takes: each input tensor and what the layer's nodes read it in.
    writes: each output tensor with what it is stored in, then whatever else it is converted to for its readers.
    Tensors of integers have the precision ''.
    """

    computes: str
    reads: Mapping[str, str]
    takes: Mapping[str, tuple[str, ...]]
    writes: Mapping[str, tuple[str, ...]]

    @property
    def converted(self) -> bool:
        """Whether anything that the layer reads, passes on within or writes changes its precision."""
        return (
            "+" in self.computes
            or any(took != (self.reads[name],) for name, took in self.takes.items())
            or any(kept not in ((self.computes,), ("",)) for kept in self.writes.values())
        )


def computed_in(layer: Layer, table: Table) -> list[str]:
    """What each node of the layer computes in; a wish for a tensor within parts the layer there."""
    if any(node.op_type in FLOAT16_ONLY for node in layer.nodes):
        return ["float16"] * len(layer.nodes)
    own = table.calibrated(layer.name)
    wished = [next((table.wishes[v.name] for v in n.outputs if v.name in table.wishes), "") for n in layer.nodes]
    if not any(wished):
        return [own] * len(layer.nodes)
    found = [wished[-1] or own]
    for node, wish in zip(layer.nodes[-2::-1], wished[-2::-1], strict=True):
        kept = [v.name for v in node.outputs if v.name in table.rows]
        # The inside of x * sigmoid(x) has no row, a tensor that came without parameters no grid: neither can be stored
        # in the layer's own precision, and so goes with what follows.
        parts = any(own not in GRIDS or table.quantizer(name, own) is not None for name in kept)
        found.append((wish if kept else "") or (own if parts else found[-1]))
    return found[::-1]


def computing(quantized: Quantized) -> dict[str, str]:
    """What the node that makes each tensor computes in, inner tensors too; of a model input, what it is stored in."""
    found = {v.name or "": quantized.table.precision(v.name or "") for v in quantized.model.graph.inputs}
    for layer in quantized.layers:
        for node, precision in zip(layer.nodes, computed_in(layer, quantized.table), strict=True):
            found.update((v.name, precision) for v in node.outputs if v.name)
    return found


def arrives_in(tensor: str, precision: str, table: Table) -> str:
    """What a node that computes in `precision` reads a float tensor in: as it is stored where it has no such grid."""
    stored = table.precision(tensor)
    if precision == "" or (precision in GRIDS and table.quantizer(tensor, precision) is None):
        return stored
    return precision


def traffic(quantized: Quantized) -> dict[str, Traffic]:
    """The traffic of every model input and layer, by name, in execution order."""
    table, integers = quantized.table, quantized.integers
    computes: dict[str, str] = {}
    takes: dict[str, dict[str, tuple[str, ...]]] = {}
    conversions: dict[str, dict[str, None]] = {}
    for layer in quantized.layers:
        precisions = computed_in(layer, table)
        computes[layer.name] = "+".join(dict.fromkeys(p for p in precisions if p))
        takes[layer.name] = {}
        for name in layer.inputs:
            readers = [p for node, p in zip(layer.nodes, precisions, strict=True) if _reads(node, name)]
            found = ("",) if name in integers else tuple(dict.fromkeys(arrives_in(name, p, table) for p in readers))
            takes[layer.name][name] = found
            conversions.setdefault(name, {}).update(dict.fromkeys(found))

    def stored(tensor: str) -> str:
        return "" if tensor in integers else table.precision(tensor)

    def written(tensors: Iterable[str]) -> dict[str, tuple[str, ...]]:
        return {name: tuple(dict.fromkeys((stored(name), *conversions.get(name, ())))) for name in tensors}

    inputs = (v.name or "" for v in quantized.model.graph.inputs)
    result = {name: Traffic(stored(name), {}, {}, written([name])) for name in inputs}
    for layer in quantized.layers:
        reads = {name: stored(name) for name in layer.inputs}
        result[layer.name] = Traffic(computes[layer.name], reads, takes[layer.name], written(layer.outputs))
    return result


def in_words(name: str, found: Mapping[str, Traffic]) -> str:
    """What a person should know of the layer or model input `name`, such as

    "computes in float16; reads int8 `a`; its output is rounded to int8 for `b`, `c`"
    """
    own = found[name]
    words = []
    if own.reads:
        words.append(f"computes in {own.computes.replace('+', ' and ')}" if own.computes else "gives integers")
    taken: dict[str, list[str]] = {}
    for tensor, took in own.takes.items():
        if took != (own.reads[tensor],):
            taken.setdefault(own.reads[tensor], []).append(tensor)
    words += [f"reads {precision} {_listed(tensors)}" for precision, tensors in taken.items()]
    for tensor, (stored, *others) in own.writes.items():
        what = "its output" if len(own.writes) == 1 else f"`{tensor}`"
        if not own.reads:
            words.append(f"is stored in {stored}" if stored else "holds integers")
            what = "it"
        elif stored and stored != own.computes.split("+")[-1]:
            words.append(f"{what} is stored in {stored}")
        for precision in others:
            readers = [reader for reader, t in found.items() if precision in t.takes.get(tensor, ())]
            words.append(f"{what} is {_becomes(precision)} for {_listed(readers)}")
    return "; ".join(words)


def keeping(quantized: Quantized, tensor: str, precision: str = "float16") -> dict[str, str]:
    """The lines of custom_quantize_layers that are missing for `tensor` to be in `precision` throughout.

    They are those of the layer that makes it and of all that read it; without any of them it is rounded to something
    else on its way. Empty when it is in `precision` already.
    """
    table, maker = quantized.table, quantized.makers.get(tensor)
    lines = layer_wishes(maker, table, precision) if maker is not None else {tensor: precision}
    for layer in quantized.layers:
        reads = (p for n, p in zip(layer.nodes, computed_in(layer, table), strict=True) if _reads(n, tensor))
        if any(arrives_in(tensor, p, table) != precision for p in reads):
            lines.update(layer_wishes(layer, table, precision))
    return {name: wish for name, wish in lines.items() if table.precision(name) != wish}


def float16_notes(quantized: Quantized, target: Target) -> tuple[str, ...]:
    """What a person should know of layers that compute in float16 although the target has none: recurrent ones do."""
    if "float16" in target.precisions:
        return ()
    return tuple(
        f"{layer.op} {layer.name!r} is simulated in float16, which {target.name} does not have: "
        "there it runs on the CPU, or not at all"
        for layer in quantized.layers
        if "float16" in computed_in(layer, quantized.table)
    )


def _reads(node: ir.Node, tensor: str) -> bool:
    return any(value is not None and value.name == tensor for value in node.inputs)


def _becomes(precision: str) -> str:
    return f"rounded to {precision}" if precision in GRIDS else f"converted to {precision}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
