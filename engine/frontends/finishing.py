"""What every front end does at last: fold what is constant, see that all is static and can be run, mark layouts."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends import onnx_qdq
from engine.graph import cutting, folding
from engine.graph.describe import mark_layouts
from engine.graph.provenance import label
from engine.ort import LARGEST_MODEL, make_session, serialize

SURPRISES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a file can raise that is wrong in more ways than checks look for."""

# Elements; no operator needs a constant of more to know its types and shapes.
_LARGE = 1 << 16


@contextlib.contextmanager
def surprises_told(where: str | Path, hint: str, what: str = "cannot be understood") -> Iterator[None]:
    """Turn what a wrong file can raise besides our own errors into a ModelError: checks come first, but a file can be
    wrong in more ways than they look for."""
    try:
        yield
    except SURPRISES as error:
        raise ModelError(f"{what}: {type(error).__name__}: {error}", where=str(where), hint=hint) from error


def finish(
    model: ir.Model, where: str, *, keep_inputs: Sequence[str] = (), settle: Callable[[ir.Model], None] | None = None
) -> ir.Model:
    """Fold, lift Q/DQ nodes, drop what no output needs, and try the model in ONNX Runtime; in place, returns it.

    `keep_inputs` stay although nothing may read them. `settle` is called between folding and lifting. Raises ModelError
    with `where`, the file, and the node.
    """
    try:
        folding.fold(model)
        if settle is not None:
            settle(model)
        if any(node.op_type in folding.QUANTIZERS for node in model.graph):
            onnx_qdq.lift(model)
            folding.fold(model, quantizers=True)
        cutting.drop_dead(model, keep_inputs=keep_inputs)
        cutting.check_not_empty(model, where)
        folding.require_static(model)
        _name_nodes_apart(model)
        _try(model)
    except ModelError as error:
        raise located(error, model, where) from error
    mark_layouts(model)
    return model


def _try(model: ir.Model) -> None:
    """Let ONNX Runtime say whether it takes the model. Raises ModelError.

    Large constants are declared as inputs meanwhile: what they hold decides nothing here, and to copy weights several
    times takes most of the time that loading does.
    """
    graph = model.graph
    size = sum(v.const_value.nbytes for v in graph.initializers.values() if v.const_value is not None)
    if size > LARGEST_MODEL:
        raise ModelError("the model is larger than 2 GB", hint="cut it with `inputs` and `outputs`")
    inputs, outputs = list(graph.inputs), set(graph.outputs)
    large = [
        value
        for value in graph.initializers.values()
        if value.const_value is not None and value.const_value.size > _LARGE and value not in {*inputs, *outputs}
    ]
    try:
        for value in large:
            del graph.initializers[value.name or ""]
        graph.inputs.extend(large)
        data = serialize(model)
    finally:
        graph.inputs[:] = inputs
        for value in large:
            graph.register_initializer(value)
    make_session(data, optimization="none")


def located(error: ModelError, model: ir.Model, where: str) -> ModelError:
    """The same error, naming the file, and the node of the source model where ONNX Runtime's text names one."""
    match = re.search(r"[Nn]ode(?:'s name)? ?\(?:?'?\"?([^'\"() ]+)", error.what)
    node = next((n for n in model.graph if match and n.name == match.group(1)), None)
    place = error.where or (label(node) if node is not None else "")
    full = f"{where}: {place}" if place and not place.startswith(where) else place or where
    return type(error)(error.what, where=full, hint=error.hint or "check the model with onnx.checker")


def _name_nodes_apart(model: ir.Model) -> None:
    """Take away names that several nodes have; ONNX Runtime refuses them, and what a node comes from is noted on it."""
    counts = Counter(node.name for node in model.graph.all_nodes())
    for node in model.graph.all_nodes():
        if counts[node.name] > 1:
            node.name = None
