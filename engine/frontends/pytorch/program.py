"""A TorchScript graph as plain records: every node with its inputs by name, its scope, and its blocks."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

from engine.frontends.pytorch.eager import torch

_DEEPEST = 100
_HOISTED = re.compile(r"^_jit_pass_hoist_\w*?packed_params\.(.*)\._packed_params\.\d+$")


@dataclasses.dataclass(frozen=True)
class Step:
    """One node. `names` are the schema's for the inputs, `keywords` those that must be named, `scope` is the path of
    the module that the node belongs to, `place` the line of source code."""

    kind: str
    overload: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    names: tuple[str, ...]
    keywords: tuple[str, ...]
    debug_names: tuple[str, ...]
    scope: str
    place: str
    attribute: str
    constant: Any
    type: str
    blocks: tuple[Block, ...]


class Block:
    """Steps in order; values are known by number. The steps are read when first asked for: many a branch is never
    taken."""

    def __init__(self, block: Any, depth: int = 0) -> None:
        self._block, self._depth = block, depth
        inputs, outputs = list(block.inputs()), list(block.outputs())
        self.inputs = tuple(v.unique() for v in inputs)
        self.outputs = tuple(v.unique() for v in outputs)

    @functools.cached_property
    def steps(self) -> tuple[Step, ...]:
        """The nodes. Raises ValueError for blocks that are nested too deep."""
        if self._depth > _DEEPEST:
            raise ValueError(f"its blocks are nested more than {_DEEPEST} deep")
        return tuple(_step(node, self._depth) for node in self._block.nodes())


def read_graph(graph: Any) -> Block:
    """The graph with all calls of functions and modules put in their place."""
    graph = graph.copy()
    torch()._C._jit_pass_inline_fork_wait(graph)
    torch()._C._jit_pass_inline(graph)
    return Block(graph)


def _step(node: Any, depth: int) -> Step:
    kind = node.kind()
    schema = "(no schema)" if kind == "prim::Constant" else node.schema()
    names, keywords, overload = ((), (), "") if schema == "(no schema)" else _signature(schema)
    outputs = list(node.outputs())
    # Asking is slow, and nobody is told where a constant stands.
    told = not kind.startswith("prim::") or kind in ("prim::If", "prim::Loop", "prim::RaiseException")
    attribute = node.s("name") if node.hasAttribute("name") and node.kindOf("name") == "s" else ""
    return Step(
        kind=kind,
        overload=overload,
        inputs=tuple(v.unique() for v in node.inputs()),
        outputs=tuple(v.unique() for v in outputs),
        names=names,
        keywords=keywords,
        debug_names=tuple(v.debugName() for v in outputs),
        scope=_scope(node.getModuleHierarchy()) if told else "",
        place=_place(node.sourceRange()) if told else "",
        attribute=attribute,
        constant=_constant(node, kind, attribute),
        type=str(outputs[0].type()) if kind == "prim::CreateObject" else "",
        blocks=tuple(Block(inner, depth + 1) for inner in node.blocks()),
    )


def _constant(node: Any, kind: str, attribute: str) -> Any:
    """The value of a constant; the ends of a part of a tuple."""
    if kind == "prim::TupleSlice":
        return slice(node.i("beg"), node.i("end"))
    return node.output().toIValue() if kind == "prim::Constant" and not attribute else None


@functools.lru_cache(maxsize=4096)
def _signature(schema: str) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    parsed = torch()._C.parse_schema(schema)
    names = tuple(argument.name for argument in parsed.arguments)
    keywords = tuple(argument.name for argument in parsed.arguments if argument.kwarg_only)
    return names, keywords, parsed.overload_name


@functools.lru_cache(maxsize=4096)
def _scope(hierarchy: str) -> str:
    """'layer(Sequential).0(Conv2d).SELF(Conv2d)' as 'layer.0': the modules without their types."""
    # What is called from an unknown instance, and inlined functions, have names that say nothing.
    parts = [part.split("(", 1)[0] for part in re.split(r"(?<=\))\.", hierarchy) if part]
    kept = [part for part in parts if part and part not in ("SELF", "UNKNOWN_INSTANCE", "TOP")]
    return ".".join(kept)


def _place(source: str) -> str:
    """The line of source code, where the file has it: 'net.py:12'."""
    found = re.search(r'File "([^"]+)", line (\d+)', source)
    return f"{found.group(1).rsplit('/', 1)[-1]}:{found.group(2)}" if found else ""


def module_of(parameter: str) -> str:
    """The path of the module whose parameter this is: 'conv1' for 'conv1.weight'."""
    hoisted = _HOISTED.match(parameter)
    if hoisted:
        return hoisted.group(1)
    while parameter.endswith("._packed_params"):
        parameter = parameter.removesuffix("._packed_params")
        if not parameter.endswith("._packed_params"):
            return parameter
    return parameter.rpartition(".")[0]
