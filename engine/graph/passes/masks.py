"""Makes the infinite masks before a softmax finite, which calibration and quantization need."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from engine.graph.masks import scores_and_mask
from engine.graph.names import Names
from engine.graph.passes.rewriting import RewritePass
from engine.graph.query import constant

_LOWEST = np.finfo(np.float32).min


class FiniteMask(RewritePass):
    """Softmax(scores + mask), Softmax(Where(condition, scores, mask)): a constant mask's -inf becomes the lowest float.

    Both give a share of 0. Only where a mask leaves nothing, the result is a uniform share instead of NaN.
    """

    operators: ClassVar[frozenset[str]] = frozenset({"Add", "Where"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Replace the mask that `node` reads."""
        modified = False
        for _, mask in scores_and_mask(node):
            array = constant(mask)
            if array is None or array.dtype != np.float32 or not np.isneginf(array).any():
                continue
            finite = names.constant(f"{mask.name}_finite", np.maximum(array, _LOWEST))
            for index, value in enumerate(node.inputs):
                if value is mask:
                    node.replace_input_with(index, finite)
            modified = True
        return modified
