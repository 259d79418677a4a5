"""Follows a TensorFlow graph from its outputs back: constants are computed, decided branches and loops are run through,
calls are entered, and what remains is written into our graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from engine.errors import ModelError
from engine.frontends.making import GraphMaker
from engine.frontends.nhwc import Place, Tensor
from engine.frontends.reading import CORRUPT
from engine.frontends.tensorflow.constants import decode, stored_elements
from engine.frontends.tensorflow.evaluation import FORMULAS, evaluate
from engine.frontends.tensorflow.frames import Frames
from engine.frontends.tensorflow.nodes import ARGUMENT, Body, Node, Reference, function_body
from engine.frontends.tensorflow.reading import FREEZE
from engine.frontends.tensorflow.values import DEAD, OPERATORS, UNKNOWN, Call, Dead, Refused, Unknown, Value
from engine.graph.query import Array
from engine.progress import Progress

_MOST_COMPUTED = 1 << 24
_MOST_STEPS = 100_000
_MOST_MADE_AGAIN = 10_000
_DEEPEST = 40
MOST_ROUNDS = 1000
"""Of a loop that is run through."""

# Operators that keep the parameters of what they read, and which input that is.
_KEEPS_GRID = {
    **dict.fromkeys(("Reshape", "Squeeze", "ExpandDims", "Transpose", "MaxPool", "MaxPoolV2", "AvgPool"), 0),
    **dict.fromkeys(
        ("StridedSlice", "Slice", "SplitV", "Unpack", "Tile", "GatherV2", "ReverseV2", "Pad", "MirrorPad"), 0
    ),
    **dict.fromkeys(("ResizeNearestNeighbor", "ResizeBilinear", "DepthToSpace", "SpaceToDepth"), 0),
    **dict.fromkeys(("SpaceToBatchND", "BatchToSpaceND"), 0),
    "Split": 1,
}
_VARIABLES = {
    "Variable",
    "VariableV2",
    "VarHandleOp",
    "AutoReloadVariable",
    "TemporaryVariable",
    "ReadVariableOp",
    "RestoreV2",
    "HashTableV2",
}


@dataclasses.dataclass
class Scope:
    """Where nodes have values: a graph or a call of a function, or with `inside` one round of a loop within `outer`."""

    body: Body
    prefix: str
    values: dict[str, list[Value]]
    depth: int = 0
    outer: Scope | None = None
    inside: Collection[str] = ()

    def home(self, name: str) -> Scope:
        """The scope whose node `name` is: a loop reads what lies around it."""
        scope = self
        while scope.outer is not None and name not in scope.inside:
            scope = scope.outer
        return scope


class Interpreter:
    """Interprets graphs and functions; `library` are the FunctionDefs of the file by name."""

    def __init__(self, maker: GraphMaker, library: Mapping[str, Any], progress: Progress) -> None:
        self.maker = maker
        self.where = maker.where
        self.library = library
        self._progress = progress
        self._bodies: dict[str, Body] = {}
        self._frames: dict[int, Frames] = {}
        # What is being worked on, here and in all loops and calls around.
        self._open: set[tuple[int, str]] = set()
        self._implied: dict[int, Tensor] = {}
        self._stored = 0
        self._computed = 0
        self._steps = 0
        self._again = 0

    def run(self, scope: Scope, targets: Sequence[Reference]) -> list[Value]:
        """The values of these tensors. Raises ModelError."""
        for name, _ in targets:
            self._settle(scope, name)
        return [self.value(scope, reference) for reference in targets]

    def call(self, name: str, arguments: Sequence[Value], place: Place, depth: int) -> list[Value]:
        """The results of a function of the library, as if its nodes stood here. Raises ModelError."""
        if depth >= _DEEPEST:
            raise place.error("functions call each other too deeply", CORRUPT)
        body = self._body(name, place)
        if len(arguments) < len(body.arguments):
            raise place.error(f"calls {name!r} with {len(arguments)} of {len(body.arguments)} arguments", CORRUPT)
        values = {key: [value] for key, value in zip(body.arguments, arguments, strict=False)}
        scope = Scope(body, f"{place.name}/", values, depth + 1)
        return self.run(scope, body.results)

    def _body(self, name: str, place: Place) -> Body:
        if name not in self._bodies:
            if name not in self.library:
                raise place.error(f"calls the function {name!r}, which the file does not have", CORRUPT)
            self._bodies[name] = function_body(self.library[name], self.where)
        return self._bodies[name]

    def frames(self, body: Body) -> Frames:
        """The loops of a body that are written with Enter and Exit."""
        if id(body) not in self._frames:
            self._frames[id(body)] = Frames(body, self.where)
        return self._frames[id(body)]

    def _settle(self, scope: Scope, name: str) -> None:
        """Give `name` and what it reads values, the farthest first."""
        waiting: list[tuple[Scope, str]] = [(scope.home(name), name)]
        own: set[tuple[int, str]] = set()
        while waiting:
            current, node_name = waiting[-1]
            if node_name in current.values:
                waiting.pop()
                continue
            node = current.body.nodes[node_name]
            key = (id(current), node_name)
            missing = []
            for read in self._read(current, node):
                home = current.home(read)
                if read not in home.values:
                    missing.append((home, read))
            if key in self._open and (missing or key not in own):
                raise ModelError("the graph has a cycle", where=f"{self.where}: {node_name}", hint=CORRUPT)
            self._open.add(key)
            own.add(key)
            if missing:
                waiting.extend(reversed(missing))
                continue
            current.values[node_name] = self._evaluate(current, node)
            self._open.discard(key)
            waiting.pop()

    def _read(self, scope: Scope, node: Node) -> list[str]:
        """The nodes that must have values before `node` can have one."""
        if node.op == "Exit" and node.name in scope.body.nodes:
            return self.frames(scope.body).entered(node.name)
        if node.op == "Merge":
            return [name for name, _ in node.inputs if scope.body.nodes[name].op != "NextIteration"]
        return [name for name, _ in node.inputs]

    def value(self, scope: Scope, reference: Reference) -> Value:
        """The value of a tensor whose node has been evaluated. Raises ModelError for an output that is not there."""
        name, index = reference
        values = scope.home(name).values[name]
        if index >= len(values):
            if values and isinstance(values[0], (Dead, Unknown)):
                return values[0]
            raise ModelError(f"has no output {index}", where=f"{self.where}: {name}", hint=CORRUPT)
        return values[index]

    def _evaluate(self, scope: Scope, node: Node) -> list[Value]:
        self._steps += 1
        if self._steps % 256 == 0:
            self._progress.check()
        again = bool(scope.prefix) or scope.outer is not None
        place = Place(self.maker, scope.prefix + node.name)
        if self._steps > _MOST_STEPS:
            raise place.error("the graph takes too many steps to follow", "its loops run too long")
        if node.op == ARGUMENT:
            raise place.error("is an argument that was not given", CORRUPT)
        if node.op == "Const":
            return [Tensor.constant(self._constant(node), place)]
        if node.op in _VARIABLES:
            raise place.error(f"is a variable ({node.op}): the graph is not frozen", FREEZE)
        if node.op == "Merge" and any(scope.body.nodes[name].op == "NextIteration" for name, _ in node.inputs):
            raise place.error("is in a loop that is not whole", CORRUPT)
        if node.op == "Exit":
            return self._exit(scope, node)
        inputs = tuple(self.value(scope, reference) for reference in node.inputs)
        function = OPERATORS.get(node.op)
        if function is None and node.op in self.library:
            if any(isinstance(value, Dead) for value in inputs):
                return [DEAD]
            return self.call(node.op, inputs, place, scope.depth)
        if function is None and node.op not in FORMULAS:
            self.maker.refuse(node.op, place.name)
            return [UNKNOWN]
        if node.op != "Merge":
            for kind in (DEAD, UNKNOWN):
                if kind in inputs:
                    return [kind]
        known = evaluate(node, inputs, place)
        if known is not None:
            self._computed_more(node, sum(array.size for array in known))
            return [Tensor.constant(array, place) for array in known]
        if function is None:
            self.maker.refuse(node.op, place.name, "of what is computed from data")
            return [UNKNOWN]
        if again:
            self._again += 1
            if self._again > _MOST_MADE_AGAIN:
                raise place.error(f"its loops and calls make more than {_MOST_MADE_AGAIN} nodes", "cut them off")
        try:
            made = function(Call(node, inputs, place, self, scope))
        except (LookupError, TypeError, ValueError) as error:
            raise place.error(f"{node.op} does not fit its inputs: {error}", CORRUPT) from error
        except Refused as refusal:
            self.maker.refuse(node.op, place.name, refusal.detail, refusal.hint)
            return [UNKNOWN]
        values = made if isinstance(made, list) else [made]
        self._keep_grid(node, inputs, values)
        return values

    def _keep_grid(self, node: Node, inputs: Sequence[Value], values: Sequence[Value]) -> None:
        """Let what only moves or averages values have the quantization parameters of these."""
        at = _KEEPS_GRID.get(node.op)
        source = inputs[at] if at is not None and at < len(inputs) else None
        if not isinstance(source, Tensor) or source.grid is None or source.grid.axis is not None:
            return
        for value in values:
            if isinstance(value, Tensor) and value.grid is None and not value.is_constant:
                self._implied[id(value)] = value.quantized(source.grid)

    def has_own_grid(self, tensor: Tensor) -> bool:
        """Whether the model itself says what parameters `tensor` has."""
        return tensor.grid is not None and id(tensor) not in self._implied

    def _constant(self, node: Node) -> Array:
        """The array of a Const node."""
        proto = node.proto.attr["value"].tensor
        array = decode(proto, f"{self.where}: {node.name}")
        stored = stored_elements(proto, array)
        self._stored += stored
        self._computed_more(node, array.size - stored)
        return array

    def _computed_more(self, node: Node, elements: int) -> None:
        """Count elements of constants that the file does not hold itself."""
        self._computed += max(elements, 0)
        # Weights may be turned, cast and scaled a few times.
        if self._computed > _MOST_COMPUTED + 8 * self._stored:
            raise ModelError(
                f"its constants blow up to {self._computed} elements",
                where=f"{self.where}: {node.name}",
                hint="cut the model behind it with `inputs`",
            )

    def _exit(self, scope: Scope, node: Node) -> list[Value]:
        """Run the loop that `node` leaves; its other exits get their values too."""
        frame = self.frames(scope.body).of_exit(node.name)
        place = Place(self.maker, scope.prefix + node.name)
        if scope.depth >= _DEEPEST:
            raise place.error("loops nest too deeply", CORRUPT)
        state = {merge: self.value(scope, self._entering(scope, enter)) for merge, enter in frame.merges.items()}
        if any(isinstance(value, Unknown) for value in state.values()):
            return [UNKNOWN]
        if any(isinstance(value, Dead) for value in state.values()):
            return [DEAD]
        for _ in range(MOST_ROUNDS):
            values = {merge: [value, UNKNOWN] for merge, value in state.items()}
            inner = Scope(scope.body, scope.prefix, dict(values), scope.depth + 1, scope, frame.inside)
            taken = self.run(inner, [frame.condition])[0]
            decided = taken.array if isinstance(taken, Tensor) else None
            if decided is None or decided.size != 1:
                self.maker.refuse("Exit", place.name, "how often its loop runs depends on data")
                return [UNKNOWN]
            if not bool(decided.reshape(-1)[0]):
                results = self.run(inner, [frame.exits[name] for name in frame.exits])
                for name, value in zip(frame.exits, results, strict=True):
                    scope.values[name] = [value]
                return scope.values[node.name]
            merges = list(frame.next)
            state = dict(zip(merges, self.run(inner, [frame.next[merge] for merge in merges]), strict=True))
        self.maker.refuse("Exit", place.name, f"its loop runs more than {MOST_ROUNDS} rounds")
        return [UNKNOWN]

    def _entering(self, scope: Scope, enter: str) -> Reference:
        return scope.body.nodes[enter].inputs[0]
