"""Lint rule on wishes: lines of custom_quantize_layers that change nothing, or that casts undo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.graph.layers import CONVOLUTIONS, Layer
from engine.graph.operators import SELECTIONS
from engine.graph.query import constant
from engine.quantization.weights import OPERANDS
from engine.summaries import Finding
from engine.tuning.lint.subject import Subject, counted, listed

_RULE = "undone-precision"
# Operators that give out values of their input: on the same grid, nothing is left to round.
_COPIES = SELECTIONS | {"Clip", "MaxPool", "Relu", "Slice"}


def undone_precisions(subject: Subject) -> Iterator[Finding]:
    """Wishes that make no result more exact."""
    parted = {layer.name: layer for layer in subject.quantized.layers if len(set(subject.precisions(layer))) > 1}
    for layer in parted.values():
        yield _parted(subject, layer)
    for group in _groups(subject):
        if parted.keys().isdisjoint(layer.name for layer in group) and not _gains(subject, group):
            yield _without_gain(subject, group)
    table = subject.quantized.table
    for name in (v.name or "" for v in subject.quantized.model.graph.inputs):
        wish, readers = table.wishes.get(name, ""), subject.readers.get(name, [])
        if wish not in ("", table.calibrated(name)) and not any(_fine(subject, layer) for layer in readers):
            yield Finding(
                _RULE,
                name,
                f"input {name!r} in {wish} changes nothing: {_called(readers)} takes it in int8",
                f"put what reads it into {wish} too, or leave the wish out",
                {name: wish, **subject.wishes(_behind(subject, [name]), wish)},
            )
    same = [name for name, wish in table.wishes.items() if wish == table.calibrated(name)]
    if same:
        maker = subject.quantized.makers.get(same[0])
        yield Finding(
            _RULE,
            maker.name if maker else same[0],
            f"{counted(len(same), 'line')} of custom_quantize_layers ({listed(same)}) wish for what is so without",
            "leave them out",
        )


def _parted(subject: Subject, layer: Layer) -> Finding:
    table = subject.quantized.table
    own = [name for name in (*layer.inner, *layer.outputs) if name in table.rows]
    wish = next(table.wishes[name] for name in own if name in table.wishes)
    rest = [name for name in own if table.precision(name) != wish]
    return Finding(
        _RULE,
        layer.name,
        f"{layer.op} {layer.name!r} is one step on the NPU, but only {listed([n for n in own if n not in rest])} of it "
        f"is wished into {wish}: that parts it, and rounds once more before or behind {listed(rest)}",
        f"wish for all of its tensors, or for none: {listed(own)}",
        subject.wishes([layer], wish),
    )


def _groups(subject: Subject) -> list[list[Layer]]:
    """Layers that wishes took out of int8, those together that hand tensors to each other."""
    table = subject.quantized.table
    group: dict[str, list[Layer]] = {}
    for layer in subject.quantized.layers:
        wished = any(name in table.wishes for name in (*layer.inner, *layer.outputs))
        if not wished or not _fine(subject, layer) or table.calibrated(layer.name) != "int8":
            continue
        makers = (subject.quantized.makers.get(name) for name in layer.inputs)
        joined = [group[maker.name] for maker in makers if maker is not None and maker.name in group]
        merged = [layer]
        for other in {id(g): g for g in joined}.values():
            merged = other + merged
        for member in merged:
            group[member.name] = merged
    return list({id(g): g for g in group.values()}.values())


def _gains(subject: Subject, group: Sequence[Layer]) -> bool:
    """Whether anything is rounded less than without the wishes."""
    inside = {name for layer in group for name in layer.outputs}
    for layer in group:
        if _has_int8_constants(layer):
            return True
        read_finer = any(name not in inside and _is_finer(subject, name) for name in layer.inputs)
        if _copies(subject, layer) and not read_finer:
            continue  # its results have been rounded before
        if any(_reaches_on(subject, name) for name in layer.outputs) or (read_finer and not _copies(subject, layer)):
            return True
    return False


def _without_gain(subject: Subject, group: Sequence[Layer]) -> Finding:
    wish = subject.precisions(group[0])[-1]
    before = _before(subject, group)
    behind = _behind(subject, [name for layer in group for name in layer.outputs])
    taken = f", and {_called(behind)} takes the result in int8 again" if behind else ", and it is only handed on"
    missing = {layer.name: layer for layer in (*before.values(), *behind) if layer is not None}
    ends = {name: wish for name, maker in before.items() if maker is None}
    return Finding(
        _RULE,
        group[0].name,
        f"{_called(group)} in {wish} {'change' if len(group) > 1 else 'changes'} nothing: "
        f"what is read was rounded to int8 before{taken}",
        f"put {listed([*ends, *missing])} into {wish} too, or leave the wish out",
        ends | subject.wishes([*group, *missing.values()], wish),
    )


def _before(subject: Subject, group: Sequence[Layer]) -> dict[str, Layer | None]:
    """The tensors that layers of `group` merely copy, up to where their values arise, with their makers."""
    found: dict[str, Layer | None] = {}
    waiting = [name for layer in group if _copies(subject, layer) for name in layer.inputs]
    while waiting:
        name = waiting.pop()
        maker = subject.quantized.makers.get(name)
        if name in found or (maker is not None and maker in group):
            continue
        found[name] = maker
        if maker is not None and _copies(subject, maker):
            waiting += maker.inputs
    return found


def _behind(subject: Subject, tensors: Sequence[str]) -> list[Layer]:
    """The int8 layers that read these tensors, and those that read copies of them."""
    found: dict[str, Layer] = {}
    waiting = list(tensors)
    while waiting:
        for reader in subject.readers.get(waiting.pop(), ()):
            if reader.name not in found and not _fine(subject, reader):
                found[reader.name] = reader
                waiting += reader.outputs if _copies(subject, reader) else ()
    return list(found.values())


def _called(layers: Sequence[Layer]) -> str:
    more = f" with {counted(len(layers) - 1, 'further layer')}" if len(layers) > 1 else ""
    return f"{layers[0].op} {layers[0].name!r}{more}" if layers else "nothing"


def _fine(subject: Subject, layer: Layer) -> bool:
    return subject.precisions(layer)[-1] not in ("", "int8")


def _is_finer(subject: Subject, tensor: str) -> bool:
    return subject.quantized.table.precision(tensor) not in ("", "int8")


def _reaches_on(subject: Subject, tensor: str) -> bool:
    """Whether anything computes with the tensor's values before they are rounded to int8."""
    return tensor in subject.outputs or any(
        _fine(subject, reader)
        and (not _copies(subject, reader) or any(_reaches_on(subject, name) for name in reader.outputs))
        for reader in subject.readers.get(tensor, ())
    )


def _has_int8_constants(layer: Layer) -> bool:
    """Whether an int8 layer of these nodes would have constants of 8 bits; others have 16 or more in any precision."""
    return any(
        constant(value) is not None
        for node in layer.nodes
        if node.op_type in CONVOLUTIONS or OPERANDS.get(node.op_type, ("", ""))[1] == "int8"
        for value in node.inputs[:2]
    )


def _copies(subject: Subject, layer: Layer) -> bool:
    """Whether the layer's results, in int8, are values of its input on the grid that this has."""
    if any(node.op_type not in _COPIES for node in layer.nodes) or not layer.inputs:
        return False
    table = subject.quantized.table
    before, after = (table.quantizer(name, "int8") for name in (layer.inputs[0], layer.name))
    return before is not None and after is not None and (before.min, before.max) == (after.min, after.max)
