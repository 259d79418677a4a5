"""Branches, calls and loops: what constants decide is followed; where data decides, both branches are computed and one
is selected, and loops are refused."""

from __future__ import annotations

from collections import deque

import numpy as np

from engine.frontends.nhwc import Place, Tensor, broadcast
from engine.frontends.tensorflow.nodes import Reference
from engine.frontends.tensorflow.values import DEAD, UNKNOWN, Call, Dead, Refused, Unknown, Value, operator

_MOST_ROUNDS = 1000
_HINT = "cut the model before or behind it with `outputs` and `inputs`"


def decided(value: Value) -> bool | None:
    """Whether a condition holds, where constants alone decide that."""
    array = value.array if isinstance(value, Tensor) else None
    return bool(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


@operator("Switch", "RefSwitch")
def _switch(call: Call) -> list[Value]:
    taken = decided(call.inputs[1])
    if taken is None:
        if call.tensor(1).size != 1 or not isinstance(call.inputs[0], Tensor):
            raise Refused("which branch is taken depends on data", _HINT)
        return [call.inputs[0], call.inputs[0]]
    return [DEAD, call.inputs[0]] if taken else [call.inputs[0], DEAD]


@operator("Merge", "RefMerge", becomes="Where")
def _merge(call: Call) -> list[Value]:
    alive = [(index, value) for index, value in enumerate(call.inputs) if not isinstance(value, Dead)]
    if not alive:
        return [DEAD]
    index, value = next(((i, v) for i, v in alive if not isinstance(v, Unknown)), alive[0])
    if isinstance(value, Unknown):
        return [UNKNOWN]
    if len(alive) > 1:
        return [_merged(call), UNKNOWN]
    return [value, Tensor.constant(np.array(index, np.int32), call.output(1))]


def _merged(call: Call) -> Value:
    """What comes out of two branches that are both computed."""
    origins = [_branch(call, reference) for reference in call.node.inputs]
    known = [origin for origin in origins if origin is not None]
    # A branch that reads nothing of its switch is the other one.
    if len(origins) != 2 or not known or any(origin[0] != known[0][0] for origin in known):
        raise Refused("which of its inputs comes depends on data", _HINT)
    first = origins[0][1] if origins[0] is not None else 1 - known[0][1]
    if len(known) == 2 and known[0][1] == known[1][1]:
        raise Refused("which of its inputs comes depends on data", _HINT)
    condition = call.interpreter.value(call.scope, known[0][0])
    pair = (call.inputs[0], call.inputs[1]) if first else (call.inputs[1], call.inputs[0])
    return _selected(condition, *pair, call.place)


def _branch(call: Call, reference: Reference) -> tuple[Reference, int] | None:
    """The nearest switch before a tensor that data decides: its condition, and which of its outputs is read."""
    nodes = call.scope.body.nodes
    waiting, seen = deque([reference]), {reference}
    while waiting:
        name, index = waiting.popleft()
        node = nodes[name]
        if name not in call.scope.home(name).values:
            continue  # it lies before an input of the model, or in the next round of a loop
        if node.op in ("Switch", "RefSwitch") and decided(call.interpreter.value(call.scope, node.inputs[1])) is None:
            return node.inputs[1], index
        for source in node.inputs:
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    return None


def _selected(condition: Value, taken: Value, other: Value, place: Place) -> Value:
    """`taken` where the one truth value `condition` holds, else `other`."""
    if not (isinstance(condition, Tensor) and isinstance(taken, Tensor) and isinstance(other, Tensor)):
        raise Refused("which branch is taken depends on data", _HINT)
    if taken.shape != other.shape or taken.dtype != other.dtype or condition.size != 1:
        raise Refused("which of its branches, of different shapes, is taken depends on data", _HINT)
    return broadcast([condition, taken, other], place, "Where")


@operator("PartitionedCall", "StatefulPartitionedCall")
def _call(call: Call) -> list[Value]:
    return call.interpreter.call(call.node.function("f"), call.inputs, call.place, call.scope.depth)


@operator("If", "StatelessIf", becomes="Where")
def _if(call: Call) -> list[Value]:
    taken = decided(call.inputs[0])
    if taken is None:
        return _both(call)
    function = call.node.function("then_branch" if taken else "else_branch")
    return call.interpreter.call(function, call.inputs[1:], call.place, call.scope.depth)


def _both(call: Call) -> list[Value]:
    """The results of both branches, of which one is selected."""
    sides = [
        call.interpreter.call(
            call.node.function(name),
            call.inputs[1:],
            Place(call.place.maker, f"{call.place.name}/{name}"),
            call.scope.depth,
        )
        for name in ("then_branch", "else_branch")
    ]
    if len(sides[0]) != len(sides[1]):
        raise call.error("its branches make different numbers of tensors")
    if any(isinstance(value, Unknown) for side in sides for value in side):
        return [UNKNOWN]
    return [
        _selected(call.inputs[0], taken, other, call.output(index))
        for index, (taken, other) in enumerate(zip(*sides, strict=True))
    ]


@operator("While", "StatelessWhile")
def _while(call: Call) -> list[Value]:
    state = list(call.inputs)
    condition, body = call.node.function("cond"), call.node.function("body")
    for _ in range(_MOST_ROUNDS):
        found = call.interpreter.call(
            condition, state, Place(call.place.maker, f"{call.place.name}/cond"), call.scope.depth
        )
        if found and isinstance(found[0], Unknown):
            return [UNKNOWN]
        goes_on = decided(found[0]) if found else None
        if goes_on is None:
            raise Refused("how often the loop runs depends on data", _HINT)
        if not goes_on:
            return state
        state = call.interpreter.call(body, state, Place(call.place.maker, f"{call.place.name}/body"), call.scope.depth)
    raise Refused(f"the loop runs more than {_MOST_ROUNDS} rounds", _HINT)
