"""Folds normalization, scalings and shifts into the convolution or matrix product beside them."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.passes.affine import Affine, arithmetic, batch_normalization, fold, fold_input
from engine.graph.passes.rewriting import RewritePass, absorb, absorbed
from engine.graph.provenance import inherit

_LAYERS = ("Conv", "ConvTranspose", "Gemm")


class AddToBias(RewritePass):
    """Conv, ConvTranspose or Gemm, then Add or Sub of a scalar or per-channel constant → the same with a bias.

    The weights are not touched.
    """

    operators: ClassVar[frozenset[str]] = frozenset({"Add", "Sub"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Fold the Add `node` into the layer before it."""
        affine = arithmetic(node)
        return affine is not None and affine.scale is None and _fold(graph, node, affine, names)


class FoldArithmetic(RewritePass):
    """Conv, ConvTranspose or Gemm, then Mul, Div, Add or Sub with a scalar or per-channel constant → other weights.

    Whole chains fold in one sweep. The layer's output must have no other reader and be no graph output.
    """

    operators: ClassVar[frozenset[str]] = frozenset({"Add", "Sub", "Mul", "Div"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Fold `node` into the layer before it."""
        affine = arithmetic(node)
        return affine is not None and _fold(graph, node, affine, names)


class FoldBatchNormalization(RewritePass):
    """Conv, ConvTranspose or Gemm, then BatchNormalization → other weights; after anything else it stays."""

    operators: ClassVar[frozenset[str]] = frozenset({"BatchNormalization"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Fold the normalization `node` into the layer before it."""
        affine = batch_normalization(node)
        return affine is not None and _fold(graph, node, affine, names)


class FoldArithmeticForward(RewritePass):
    """What is left of Mul, Div, Add and Sub with constants, then Conv that alone reads it → Conv with other weights.

    Scales must be scalar; shifts may be per channel, and need a Conv without padding.
    """

    operators: ClassVar[frozenset[str]] = frozenset({"Conv"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Fold the chain before the Conv `node`, from its end."""
        modified = False
        while (before := absorbed(node.inputs[0], "Add", "Sub", "Mul", "Div")) is not None:
            affine = arithmetic(before)
            # c - x is two steps at once, the scale before the shift; it is rare here.
            if affine is None or (affine.scale is not None and affine.shift is not None):
                break
            if not fold_input(node, affine, names):
                break
            node.replace_input_with(0, affine.data)
            inherit(node, before)
            graph.remove(before, safe=True)
            modified = True
        return modified


def _fold(graph: ir.Graph, node: ir.Node, affine: Affine, names: Names) -> bool:
    layer = absorbed(affine.data, *_LAYERS)
    if layer is None or not fold(layer, affine, names):
        return False
    absorb(graph, layer, node)
    return True
