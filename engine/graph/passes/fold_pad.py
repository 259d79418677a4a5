"""Folds padding with zeros into the convolution or pooling behind it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.passes.matching import scalar
from engine.graph.passes.rewriting import RewritePass, absorbed, set_attributes
from engine.graph.provenance import inherit
from engine.graph.query import attribute, constant, static_shape


class FoldPad(RewritePass):
    """Pad of spatial axes by constant, non-negative amounts of zeros, read by one node:

    - Pad, Conv → Conv with larger pads
    - Pad, AveragePool → AveragePool with larger pads that counts them; not where it has pads that it does not count,
      rounds its size up, or would see windows of padding only
    """

    operators: ClassVar[frozenset[str]] = frozenset({"Conv", "AveragePool"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Take over the padding before `node`."""
        pad = absorbed(node.inputs[0], "Pad")
        begin_end = _zeros_around(pad) if pad is not None else None
        if pad is None or begin_end is None or attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            return False
        spatial = len(begin_end) // 2
        own = list(attribute(node, "pads", [0] * (2 * spatial)))
        pads = [a + b for a, b in zip(own, begin_end, strict=True)]
        if node.op_type == "AveragePool":
            kernel = list(attribute(node, "kernel_shape"))
            uncounted = any(own) and not attribute(node, "count_include_pad", 0)
            if (
                uncounted
                or attribute(node, "ceil_mode", 0)
                or any(p >= k for p, k in zip(pads, kernel * 2, strict=True))
            ):
                return False
            set_attributes(node, count_include_pad=1)
        node.attributes.pop("auto_pad", None)
        set_attributes(node, pads=pads)
        node.replace_input_with(0, pad.inputs[0])
        inherit(node, pad)
        graph.remove(pad, safe=True)
        return True


def _zeros_around(pad: ir.Node) -> list[int] | None:
    """Begins and ends of the spatial axes, if the Pad puts zeros there and nowhere else."""
    data = pad.inputs[0]
    amounts = constant(pad.inputs[1])
    if data is None or amounts is None or attribute(pad, "mode", "constant") != "constant":
        return None
    inputs = [*pad.inputs, None, None]
    if inputs[2] is not None and scalar(inputs[2]) != 0.0:
        return None
    rank = len(static_shape(data))
    axes = np.arange(rank) if inputs[3] is None else constant(inputs[3])
    if axes is None or (amounts < 0).any():
        return None
    around = np.zeros((2, rank), dtype=np.int64)
    around[:, axes % rank] = amounts.reshape(2, -1)
    if around[:, :2].any():
        return None
    return [int(v) for v in around[:, 2:].reshape(-1)]
