"""Finds the loops that are written with Enter, Merge, Switch, NextIteration and Exit nodes."""

from __future__ import annotations

import dataclasses
from collections import defaultdict, deque

from engine.errors import ModelError
from engine.frontends.reading import CORRUPT
from engine.frontends.tensorflow.nodes import Body, Reference

_DEEPEST = 8


@dataclasses.dataclass(frozen=True)
class Frame:
    """One loop: `merges` are the nodes that hold its variables, each with the node that enters it; `next` what each
    becomes in the next round; `exits` what leaves it; `inside` the nodes that each round computes anew."""

    merges: dict[str, str]
    next: dict[str, Reference]
    exits: dict[str, Reference]
    condition: Reference
    inside: frozenset[str]


class Frames:
    """The loops of a body."""

    def __init__(self, body: Body, where: str) -> None:
        self._body = body
        self._where = where
        self._readers: dict[str, list[str]] = defaultdict(list)
        for node in body.nodes.values():
            for name, _ in node.inputs:
                self._readers[name].append(node.name)
        self._stacks = self._spread()
        self._made: dict[tuple[str, ...], Frame] = {}

    def entered(self, exit_node: str) -> list[str]:
        """The nodes outside that must have values before the loop of `exit_node` can run."""
        frame = self.of_exit(exit_node)
        return [self._body.nodes[enter].inputs[0][0] for enter in frame.merges.values()]

    def of_exit(self, exit_node: str) -> Frame:
        """The loop that an Exit leaves. Raises ModelError for a loop that is not whole."""
        node = self._body.nodes[exit_node]
        source = node.inputs[0][0] if node.inputs else ""
        stack = self._stacks.get(source, ())
        if not stack:
            raise self._broken(exit_node)
        if stack not in self._made:
            self._made[stack] = self._frame(stack, exit_node)
        return self._made[stack]

    def _frame(self, stack: tuple[str, ...], exit_node: str) -> Frame:
        nodes = self._body.nodes
        depth = len(stack)
        inside = frozenset(name for name, found in self._stacks.items() if found[:depth] == stack)
        merges, following, condition = {}, {}, None
        for name in inside:
            node = nodes[name]
            if self._stacks[name] != stack:
                continue
            if node.op == "LoopCond" and node.inputs:
                condition = node.inputs[0]
            if node.op != "Merge" or len(node.inputs) != 2:
                continue
            enters = [source for source, _ in node.inputs if nodes[source].op == "Enter" and nodes[source].inputs]
            nexts = [
                source for source, _ in node.inputs if nodes[source].op == "NextIteration" and nodes[source].inputs
            ]
            if len(enters) == 1 and len(nexts) == 1:
                merges[name], following[name] = enters[0], nodes[nexts[0]].inputs[0]
        exits = {
            node.name: node.inputs[0]
            for node in nodes.values()
            if node.op == "Exit" and node.inputs and self._stacks.get(node.inputs[0][0]) == stack
        }
        if condition is None or not merges:
            raise self._broken(exit_node)
        # An inner loop's exits belong to the rounds of this one.
        return Frame(merges, following, exits, condition, inside)

    def _spread(self) -> dict[str, tuple[str, ...]]:
        """For each node within loops the names of these loops, the outermost first."""
        stacks: dict[str, tuple[str, ...]] = {}
        waiting = deque(node.name for node in self._body.nodes.values() if node.op == "Enter")
        steps = 0
        while waiting:
            steps += 1
            name = waiting.popleft()
            node = self._body.nodes[name]
            before: tuple[str, ...] = max((stacks.get(source, ()) for source, _ in node.inputs), key=len, default=())
            if node.op == "Enter":
                before = (*before, node.text("frame_name"))
            elif node.op == "Exit":
                before = before[:-1]
            if len(before) > _DEEPEST or steps > 100 * len(self._body.nodes):
                raise self._broken(name)
            if len(before) > len(stacks.get(name, ())) or (name not in stacks and not before):
                stacks[name] = before
                waiting.extend(self._readers[name])
        return stacks

    def _broken(self, name: str) -> ModelError:
        return ModelError("leaves a loop that is not whole", where=f"{self._where}: {name}", hint=CORRUPT)
