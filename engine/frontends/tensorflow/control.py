"""Branches, calls and loops: what is decided by constants is followed, what data decides is refused."""

from __future__ import annotations

import numpy as np

from engine.frontends.nhwc import Place, Tensor
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
        raise Refused("which branch is taken depends on data", _HINT)
    return [DEAD, call.inputs[0]] if taken else [call.inputs[0], DEAD]


@operator("Merge", "RefMerge")
def _merge(call: Call) -> list[Value]:
    alive = [(index, value) for index, value in enumerate(call.inputs) if not isinstance(value, Dead)]
    if not alive:
        return [DEAD]
    index, value = next(((i, v) for i, v in alive if not isinstance(v, Unknown)), alive[0])
    if isinstance(value, Unknown):
        return [UNKNOWN]
    if len(alive) > 1:
        raise Refused("which of its inputs comes depends on data", _HINT)
    return [value, Tensor.constant(np.array(index, np.int32), call.output(1))]


@operator("PartitionedCall", "StatefulPartitionedCall")
def _call(call: Call) -> list[Value]:
    return call.interpreter.call(call.node.function("f"), call.inputs, call.place, call.depth)


@operator("If", "StatelessIf")
def _if(call: Call) -> list[Value]:
    taken = decided(call.inputs[0])
    if taken is None:
        raise Refused("which branch is taken depends on data", _HINT)
    function = call.node.function("then_branch" if taken else "else_branch")
    return call.interpreter.call(function, call.inputs[1:], call.place, call.depth)


@operator("While", "StatelessWhile")
def _while(call: Call) -> list[Value]:
    state = list(call.inputs)
    condition, body = call.node.function("cond"), call.node.function("body")
    for _ in range(_MOST_ROUNDS):
        found = call.interpreter.call(condition, state, Place(call.place.maker, f"{call.place.name}/cond"), call.depth)
        if found and isinstance(found[0], Unknown):
            return [UNKNOWN]
        goes_on = decided(found[0]) if found else None
        if goes_on is None:
            raise Refused("how often the loop runs depends on data", _HINT)
        if not goes_on:
            return state
        state = call.interpreter.call(body, state, Place(call.place.maker, f"{call.place.name}/body"), call.depth)
    raise Refused(f"the loop runs more than {_MOST_ROUNDS} rounds", _HINT)
