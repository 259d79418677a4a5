"""Reads TFLite's control flow where constants decide it: calls, branches, and loops that count."""

from __future__ import annotations

from engine.frontends.tflite.conversion import Op, Refusal, operator

_MOST_ROUNDS = 256


@operator("IF", "Identity", "IfOptions")
def _if(op: Op) -> None:
    chosen = op.array(0)
    if chosen.size != 1:
        raise op.error("its condition is not one value")
    number = op.options.then_subgraph if chosen.reshape(-1)[0] else op.options.else_subgraph
    _take(op, number, 1)


@operator("CALL", "Identity", "CallOptions")
def _call(op: Op) -> None:
    _take(op, op.options.subgraph, 0)


@operator("STABLEHLO_COMPOSITE", "Identity")
def _composite(op: Op) -> None:
    """What a converter kept together under a name; the graph that spells it out does."""
    options = op.info.table.view("CompositeOptions", "union_2")
    if options is None:
        raise op.error("lacks its options")
    _take(op, options.decomposition, 0)


def _take(op: Op, number: int, first: int) -> None:
    inputs = [op.input(index) for index in range(first, op.count)]
    results = op.conversion.inline(number, inputs, f"{op.source}/")
    if len(results) != len(op.info.outputs):
        raise op.error(f"its graph makes {len(results)} tensors")
    for index, result in enumerate(results):
        op.set(result, index)


@operator("WHILE", "Identity", "WhileOptions")
def _while(op: Op) -> None:
    """A loop is written out where its condition depends on constants only, as that of a counter does."""
    state = op.inputs()
    for count in range(_MOST_ROUNDS + 1):
        condition = op.conversion.inline(op.options.cond_subgraph, state, f"{op.source}/condition{count}/")
        found = condition[0].array if condition else None
        if found is None or found.size != 1:
            raise Refusal("what ends the loop depends on the data", "export the model with its loops written out")
        if not found.reshape(-1)[0]:
            break
        if count == _MOST_ROUNDS:
            raise Refusal(f"loops more than {_MOST_ROUNDS} times", "export the model with its loops written out")
        results = op.conversion.inline(op.options.body_subgraph, state, f"{op.source}/round{count}/")
        if len(results) != len(state):
            raise op.error(f"its body makes {len(results)} tensors of {len(state)}")
        state = results
    for index, tensor in enumerate(state):
        op.set(tensor, index)
