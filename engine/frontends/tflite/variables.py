"""Reads what TFLite models keep in variables: a run starts with what the file fills them with."""

from __future__ import annotations

from engine.flatbuffers import absent
from engine.frontends.nhwc import Tensor
from engine.frontends.tflite.conversion import Conversion, Op, Refusal, operator
from engine.frontends.tflite.network import OperatorInfo, SubgraphInfo
from engine.frontends.tflite.schema import TABLES

_HINT = "export a model that takes and gives what it remembers from run to run"


@operator("READ_VARIABLE", "Identity")
def _read(op: Op) -> None:
    """What was put into the variable last: before in this graph, or in the graph that runs once."""
    graph = op.conversion.subgraph
    name = _variable(graph, op.info.inputs[0]) if op.info.inputs else None
    if name is None:
        raise Refusal("reads a variable of which no name is known", _HINT)
    if op.conversion.depth:
        raise Refusal("reads a variable within a loop or a branch", _HINT)
    before = graph.operators[: graph.operators.index(op.info)]
    index = _assigned(graph, before, name)
    if index is not None:
        op.conversion.run([index])
        op.set(op.conversion.tensor(index))
        return
    for caller in graph.operators:
        if caller.kind == "CALL_ONCE":
            options = caller.table.view("CallOnceOptions") or absent(TABLES["CallOnceOptions"])
            found = _initial(op.conversion, options.init_subgraph, name)
            if found is not None:
                op.set(found)
                return
    raise Refusal("reads a variable that nothing fills", _HINT)


def _initial(conversion: Conversion, number: int, name: tuple[str, str]) -> Tensor | None:
    graphs = conversion.network.subgraphs
    if not 0 < number < len(graphs):
        return None
    index = _assigned(graphs[number], graphs[number].operators, name)
    if index is None:
        return None
    inner = Conversion(conversion.maker, conversion.network, graphs[number], prefix="once/", depth=conversion.depth + 1)
    inner.budget = conversion.budget
    inner.run([index])
    return None if index in inner.lost else inner.tensor(index)


def _assigned(graph: SubgraphInfo, operators: tuple[OperatorInfo, ...], name: tuple[str, str]) -> int | None:
    """The number of the tensor that is put into a variable last."""
    for op in reversed(operators):
        if op.kind == "ASSIGN_VARIABLE" and len(op.inputs) > 1 and _variable(graph, op.inputs[0]) == name:
            return op.inputs[1] if op.inputs[1] >= 0 else None
    return None


def _variable(graph: SubgraphInfo, handle: int) -> tuple[str, str] | None:
    """The name of the variable that a handle is of."""
    for op in graph.operators:
        if op.kind == "VAR_HANDLE" and handle in op.outputs:
            options = op.table.view("VarHandleOptions") or absent(TABLES["VarHandleOptions"])
            return options.container or "", options.shared_name or ""
    return None


@operator("ASSIGN_VARIABLE CALL_ONCE VAR_HANDLE", "")
def _nothing(op: Op) -> None:
    """Makes no tensor that is computed with: what reads a variable looks for its content here."""
