"""Finds attention masks: what pushes some of the scores before a softmax so far down that their share is nothing."""

from __future__ import annotations

import onnx_ir as ir

from engine.graph.operators import REORDERINGS

MASKED = -1000.0
"""Masks hold 0 and something between -10000 and the lowest float32; no score that counts comes near."""


def scores_and_mask(node: ir.Node) -> tuple[tuple[ir.Value, ir.Value], ...]:
    """The ways to read an Add or Where, whose result only softmaxes read, as a pair of scores and their mask.

    Empty for any other node. Whether the second of a pair really is a mask, its values have to tell.
    """
    operands = {"Add": node.inputs, "Where": node.inputs[1:]}.get(node.op_type, ())
    if len(operands) != 2 or not _only_softmax_reads(node.outputs[0]):
        return ()
    first, second = operands
    return () if first is None or second is None else ((first, second), (second, first))


def _only_softmax_reads(value: ir.Value) -> bool:
    """Whether softmaxes, straight or behind reorderings, are all that reads `value`."""
    waiting = [value]
    while waiting:
        tensor = waiting.pop()
        readers = [use.node for use in tensor.uses()]
        if tensor.is_graph_output() or not readers:
            return False
        for reader in readers:
            if reader.op_type in REORDERINGS:
                waiting.append(reader.outputs[0])
            elif reader.op_type != "Softmax":
                return False
    return True
