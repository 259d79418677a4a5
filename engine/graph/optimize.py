"""Lists the rewrite passes by optimization level and runs them until nothing changes."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from engine.errors import ConfigError
from engine.graph.passes.clips import RecogniseClip
from engine.graph.passes.common_subexpressions import MergeCommonSubexpressions
from engine.graph.passes.consecutive import FuseReshapes, FuseTransposes
from engine.graph.passes.constant_arithmetic import DivisionToMultiplication, SimplifyConstantArithmetic
from engine.graph.passes.dense import DenseToConv, MatMulAddToGemm, MoveReshapeBehindActivation
from engine.graph.passes.fold_affine import AddToBias, FoldArithmetic, FoldArithmeticForward, FoldBatchNormalization
from engine.graph.passes.fold_pad import FoldPad
from engine.graph.passes.global_pools import RecogniseGlobalPool
from engine.graph.passes.hard_activations import RecogniseHardSigmoid, RecogniseHardSwish
from engine.graph.passes.layer_norm import RecogniseLayerNormalization
from engine.graph.passes.masks import FiniteMask
from engine.graph.passes.means import RecogniseMean
from engine.graph.passes.no_ops import RemoveNoOps
from engine.graph.passes.reshapes import UnifyReshapes

OnPass = Callable[[str, ir.Model], None]
"""Called with a pass's name and the model after it changed something."""

_PASSES: tuple[tuple[int, ir.passes.InPlacePass], ...] = (
    (1, RemoveNoOps()),
    (1, UnifyReshapes()),
    (1, FuseReshapes()),
    (1, FuseTransposes()),
    (1, common_passes.RemoveUnusedNodesPass()),
    (1, MergeCommonSubexpressions()),
    # Activations and norms before arithmetic: folding a part of one would hide it.
    (2, FiniteMask()),
    (2, RecogniseClip()),
    (2, RecogniseHardSigmoid()),
    (2, RecogniseHardSwish()),
    (2, RecogniseMean()),
    (2, RecogniseLayerNormalization()),
    (2, RecogniseGlobalPool()),
    (2, SimplifyConstantArithmetic()),
    (3, DivisionToMultiplication()),
    (3, FoldPad()),
    (2, MatMulAddToGemm()),
    (2, AddToBias()),
    (3, FoldBatchNormalization()),
    (3, FoldArithmetic()),
    (3, FoldArithmeticForward()),
    # Last, since the Reshape that it puts behind a product hides the product from what follows.
    (2, DenseToConv()),
    (2, MoveReshapeBehindActivation()),
)

LEVELS: tuple[tuple[ir.passes.InPlacePass, ...], ...] = tuple(
    tuple(rewrite for at, rewrite in _PASSES if at <= level) for level in range(4)
)
"""What each level runs, in order.

0: nothing. 1: what leaves every result the same to the bit. 2: also what is equal up to rounding and rewrites no weight
(a product's are laid out as a convolution's). 3: also what folds arithmetic into weights.
"""

# Real graphs settle in three or four rounds; a bound keeps two rules that undo each other from running for ever.
_ROUNDS = 16


def optimize(model: ir.Model, level: int, on_pass: OnPass | None = None) -> list[str]:
    """Rewrite `model` in place with the passes of `level`, 0 to 3, until none changes it.

    All shapes must be static. Inputs and outputs keep their names, order and shapes. `on_pass` hears of every pass
    that changed something, right after it. Returns the names of those passes, each once, in the order of their first
    change. Raises ConfigError for another level.
    """
    if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level < len(LEVELS):
        raise ConfigError(f"expected 0, 1, 2 or 3, got {level!r}", where="optimization_level")
    changed: dict[str, None] = {}
    for _ in range(_ROUNDS):
        settled = True
        for rewrite in LEVELS[level]:
            if rewrite(model).modified:
                settled = False
                name = pass_name(rewrite)
                changed[name] = None
                if on_pass is not None:
                    on_pass(name, model)
        if settled:
            break
    return list(changed)


def pass_name(rewrite: ir.passes.InPlacePass) -> str:
    """What reports call a pass: its class, without the ending that some of onnx_ir's have."""
    return type(rewrite).__name__.removesuffix("Pass")
