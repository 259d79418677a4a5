"""Reads a vendor's file: every size and offset is checked, and what cannot be read is said beside what can."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import FileError
from engine.files.vendor import outline as outlines
from engine.files.vendor.container import HINT, Sections, content_of, head_of, kind_of, sections_of, unreadable
from engine.files.vendor.graph import Faults, Graph, input_shapes, read_graph
from engine.files.vendor.layouts import FULL, MINI
from engine.files.vendor.model import CONSTANT, WEIGHT, VendorMemory, VendorModel, VendorPort
from engine.files.vendor.text_facts import from_json, literal
from engine.flatbuffers import File, Table

# Beyond what any model has; see engine.flatbuffers.File.
_MOST_TABLES = 1 << 16
_MOST_NUMBERS = 1 << 19
_MOST_TEXT = 1 << 24
_ALIGNMENT = 64
"""Each weight of a model begins at a multiple of so many bytes."""
_REPLACED = "\N{REPLACEMENT CHARACTER}"


def is_vendor_file(path: str | Path) -> bool:
    """Whether the file looks like one of the vendor's toolkits, of whatever kind; False where it cannot be read."""
    try:
        return kind_of(head_of(Path(path))) != ""
    except FileError:
        return False


def read(path: str | Path) -> VendorModel:
    """What a file of the vendor's compiler tells.

    Raises FileError for the kinds that cannot be read, which it names, for files that are cut short, and for those of
    which nothing can be told. What else is wrong is said in `partial`.
    """
    where = str(path)
    problem = unreadable(kind_of(head_of(Path(path))), where)
    if problem is not None:
        raise problem
    content = content_of(Path(path))
    sections = sections_of(content, where)
    faults = Faults(sections.faults)
    outline = _outline(sections, faults)
    known = VendorModel(where, len(content), sections.container, sections.revision, sections.family)
    try:
        model = known if sections.model is None else _with_compiled(known, sections, faults)
    except FileError as error:
        faults.add("the compiled model", error.what)
        model = known
    if model is known and not outline:
        told = "; ".join(faults.lines())
        raise FileError(
            f"is a file of the vendor's compiler of which nothing can be read: {told}", where=where, hint=HINT
        )
    model = _with_outline(model, outline)
    if _REPLACED in "".join((*_texts(model), *(tensor.name for tensor in model.tensors))):
        faults.add("names", "some are not UTF-8")
    return dataclasses.replace(model, partial=faults.lines())


def refusal(path: str | Path) -> FileError:
    """The error for those who would run the file here: what it is, for which target, and what to do."""
    where = str(path)
    try:
        model = read(path)
    except FileError as error:
        return FileError(error.what, where=where, hint="load the source model")
    target = f" for {model.target}" if model.target else ""
    compiler = f", built by the toolkit's compiler {model.compiler}" if model.compiler else ""
    return FileError(
        f"is the vendor's compiled model{target}{compiler}, which runs only on a board",
        where=where,
        hint="load the source model; rknn-tui inspect shows what the file holds",
    )


def _outline(sections: Sections, faults: Faults) -> outlines.Outline:
    if sections.container != "container":
        return {}
    try:
        return from_json(bytes(sections.json))
    except ValueError as error:
        faults.add("the JSON at its end", str(error))
        return {}


def _with_compiled(known: VendorModel, sections: Sections, faults: Faults) -> VendorModel:
    """`known` with what the flatbuffer tells. Raises FileError where that has no root."""
    assert sections.model is not None
    mini = sections.family == "mini"
    file = File(
        sections.model,
        MINI if mini else FULL,
        known.path,
        error=FileError,
        hint=HINT,
        most_tables=_MOST_TABLES,
        most_numbers=_MOST_NUMBERS,
        most_text=_MOST_TEXT,
    )
    root = file.root("Model")
    text = {
        name: _text(root, name, faults) for name in ("engine", "compiler", "target", "framework", "custom", "shapes")
    }
    graph, shapes = _graphs(root, faults)
    inputs, outputs = (_handed_over(_text(root, role, faults), role, faults) for role in ("inputs", "outputs"))
    return dataclasses.replace(
        known,
        engine=text["engine"],
        compiler=_version(faults.guarded("the compiler's version", lambda: root.number, 0)),
        compiler_text=text["compiler"],
        target=text["target"],
        framework=text["framework"],
        custom_string=text["custom"],
        shapes=text["shapes"],
        input_shapes=shapes,
        inputs=_ports(graph, graph.inputs, inputs),
        outputs=_ports(graph, graph.outputs, outputs),
        normalization=graph.normalization,
        nodes=graph.nodes,
        tensors=graph.tensors,
        memory=_mini_memory(sections.header) if mini else _memory(root, graph, faults),
        build_info=_build_info(_text(root, "build", faults), faults),
    )


def _text(root: Table, name: str, faults: Faults) -> str:
    # Where a layout has no such field, the attribute is missing.
    return faults.guarded(f"the field {name!r}", lambda: getattr(root, name, None), None) or ""


def _version(number: int) -> str:
    """'2.3.2' for 20302."""
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}" if number > 0 else ""


def _build_info(text: str, faults: Faults) -> dict[str, Any]:
    # The first compilers wrote prose.
    if not text.lstrip().startswith("{"):
        return {"text": text} if text else {}
    try:
        return literal(text)
    except ValueError as error:
        faults.add("the build's notes", str(error))
        return {}


def _graphs(root: Table, faults: Faults) -> tuple[Graph, tuple[tuple[tuple[int, ...], ...], ...]]:
    """The first graph, and the inputs' shapes of all: a file for several shapes has a graph for each."""
    graphs: tuple[Table, ...] = faults.guarded("the graph", lambda: root.graphs, ())
    if not graphs:
        faults.add("the graph", "there is none")
        return Graph(), ()
    first = read_graph(graphs[0], _blobs(root, faults), faults)
    shapes = [tuple(first.tensors[place].shape for place in first.inputs)]
    for table in graphs[1:]:
        shapes.append(faults.guarded("another graph", functools.partial(input_shapes, table), ()))
    return first, tuple(shapes)


def _blobs(root: Table, faults: Faults) -> tuple[int, ...]:
    """The lengths of the file's blobs, which early revisions have in another place."""

    def lengths(name: str) -> tuple[int, ...]:
        return tuple(blob.data for blob in getattr(root, name, ()))

    return faults.guarded("the blobs", lambda: lengths("blobs") or lengths("early_blobs"), ())


def _ports(graph: Graph, places: Sequence[int], handed: dict[str, tuple[str, str]]) -> tuple[VendorPort, ...]:
    found = []
    for place in places:
        tensor = graph.tensors[place]
        dtype, layout = handed.get(tensor.name, (tensor.dtype, ""))
        found.append(
            VendorPort(
                tensor.name,
                tensor.shape,
                dtype or tensor.dtype,
                layout,
                tensor.dtype,
                tensor.native,
                tensor.scale,
                tensor.zero_point,
                tensor.minimum,
                tensor.maximum,
                place,
            )
        )
    return tuple(found)


def _handed_over(text: str, role: str, faults: Faults) -> dict[str, tuple[str, str]]:
    """How a program hands over each input or takes each output: type and layout by name."""
    if not text:
        return {}
    try:
        found = from_json(text.encode("utf-8", "replace"))
    except ValueError as error:
        faults.add(f"the field {role!r}", str(error))
        return {}
    return {
        name: (outlines.text_of(entry, "dtype"), outlines.text_of(entry, "layout").lower())
        for name, entry in found.items()
        if isinstance(entry, dict)
    }


def _memory(root: Table, graph: Graph, faults: Faults) -> VendorMemory:
    """The compiler's own figures where the file has them, else by adding up what the tensors take."""
    table = faults.guarded("the memory figures", lambda: root.memory, None)
    commands, tasks, besides = (
        sum(one.stored for one in graph.tensors if one.kind == kind)
        for kind in ("register commands", "tasks", "operator data")
    )
    if table is not None:
        figures = faults.guarded("the memory figures", lambda: (table.weights, table.internal), None)
        if figures is not None:
            return VendorMemory(*figures, commands, tasks, besides)
    if not graph.tensors:
        return VendorMemory()
    constants = [one for one in graph.tensors if one.kind in (WEIGHT, CONSTANT)]
    between = [one for one in graph.tensors if one.kind in ("input", "output", "virtual")]
    weights = sum(-(-one.bytes // _ALIGNMENT) * _ALIGNMENT for one in constants)
    internal = max((one.offset + one.bytes for one in between), default=0)
    return VendorMemory(weights, internal, commands, tasks, besides, counted=True)


def _mini_memory(header: tuple[int, ...]) -> VendorMemory:
    if not header:
        return VendorMemory()
    _, tasks, _, commands, internal, weights, besides = header
    return VendorMemory(weights, internal, commands, tasks, besides)


def _with_outline(model: VendorModel, outline: outlines.Outline) -> VendorModel:
    """`model` with what the JSON tells besides."""
    bare = not model.inputs and not model.outputs
    return dataclasses.replace(
        model,
        target=model.target or outlines.platforms(outline),
        framework=model.framework or outlines.text_of(outline, "ori_network_platform"),
        compiler=model.compiler or outlines.text_of(outline, "version"),
        inputs=outlines.ports(outline, "input") if bare else model.inputs,
        outputs=outlines.ports(outline, "output") if bare else model.outputs,
    )


def _texts(model: VendorModel) -> tuple[str, ...]:
    return model.engine, model.compiler_text, model.target, model.framework, model.custom_string, model.shapes
