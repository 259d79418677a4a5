"""Which ONNX operators a chip's NPU runs itself, and which are left to its processor, as far as that is known.

First by what was observed: the layer tables that RKNN-Toolkit2 2.5.0 prints for generated graphs and real models. Where
an operator was not met there, by what the vendor documents: 'RKNN Compiler Support Operator List' V2.3.2, chapter 3 for
the NPU of each chip and 4 for the processor. What neither tells of is 'unknown' here, not 'npu': the processor may have
to do it, or nothing can.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

Place = Literal["npu", "cpu", "unknown"]


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What of a node decides where it runs; whatever is left out is taken to be no obstacle.

    rank: dimensions of the output. shape: of the first input. kernel: the window of a pool. padded: whether a pool has
    padding; counts_padding: whether that counts in an average. by_constant: whether a Div has a constant divisor.
    axes: those that are reduced, from 0 on. permutation: of a Transpose. scales: by which a Resize stretches height and
    width. mode: of a Resize or Pad. steps: of a Slice, for each of its axes. exponent: of a Pow.
    """

    rank: int | None = None
    shape: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    padded: bool = False
    counts_padding: bool = False
    by_constant: bool = False
    axes: tuple[int, ...] = ()
    permutation: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()
    mode: str = ""
    steps: tuple[int, ...] = ()
    exponent: float | None = None


NO_FACTS = Facts()
_SMALL, _MIDDLE = ("rv1103", "rv1106"), ("rk3566", "rk3568")

# Observed.
_ON_NPU = frozenset(
    {
        *("Abs", "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace"),
        *("Div", "Elu", "Flatten", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish"),
        *("Identity", "LSTM", "LayerNormalization", "LeakyRelu", "MatMul", "Max", "MaxPool", "Mul", "PRelu"),
        *("ReduceMean", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Softplus", "Split", "Squeeze"),
        *("Sub", "Tanh", "Transpose", "Unsqueeze"),
    }
)
_ON_CPU = frozenset({"Exp"})
_CPU_OF: dict[str, tuple[str, ...]] = {"Softmax": _MIDDLE, "Transpose": _MIDDLE, "LayerNormalization": _SMALL}
_SEEN_TO_FALL_BACK = frozenset({"AveragePool", "Div", "Flatten", "Reshape", "Squeeze", "Unsqueeze"})

# Documented.
_LISTED_ON_NPU = frozenset({"Expand", "Gather", "Gelu", "Min", "Mish", "Pad", "Pow", "Swish", "Tile", "Where"})
_LISTED_ON_NPU_OF: dict[str, tuple[str, ...]] = {
    "GRU": ("rk3562", *_MIDDLE, "rk3576", "rk3588"),
    "Greater": ("rk3576",),
    "Hardmax": ("rk3576", "rk3588", *_SMALL),
    "MeanVarianceNormalization": ("rk3562", *_MIDDLE, "rk3576", "rk3588"),
    "RMSNormalization": ("rk3562", *_MIDDLE, "rk3576", "rk3588"),
}
_LISTED_ON_CPU = frozenset(
    {
        *("And", "ArgMax", "ArgMin", "Cast", "Cos", "Equal", "Erf", "Floor", "GatherElements", "Greater"),
        *("GreaterOrEqual", "InstanceNormalization", "LRN", "Less", "LessOrEqual", "Log", "LogSoftmax"),
        *("LpNormalization", "MaxRoiPool", "MaxUnpool", "Mod", "Not", "OneHot", "ReduceL2", "ReduceMax", "ReduceMin"),
        *("ReduceSum", "ReverseSequence", "RoiAlign", "Round", "ScatterND", "Sin", "SpaceToDepth", "Sqrt", "TopK"),
    }
)
# The runtime of the small chips has few of them; a logarithm is the processor's wherever this engine computes one.
_LISTED_ON_SMALL_CPU = frozenset(
    {"Concat", "Div", "Exp", "Gather", "LayerNormalization", "ReduceL2", "ReduceMax", "Reshape", "ScatterND", "Softmax"}
) | {"Log"}
_LARGEST_WINDOW = 7
_EXPONENTS = (0.0, 1.0, 2.0, 3.0, 0.5, -0.5)

CONDITIONS: dict[str, str] = {
    "AveragePool": "padded windows of 3x3 run on the CPU, where padding does not count; known for windows up to 7x7",
    "Div": "in int8 it runs on the CPU, unless it divides by a constant",
    "Gather": "by a list of indices",
    "GRU": "in float16",
    "Log": "the vendor's runtime for rv1103 and rv1106 has none",
    "LSTM": "in float16, in int8 on rv1103 and rv1106",
    "MatMul": "by a constant as a convolution",
    "MaxPool": "known for windows up to 7x7",
    "Pad": "with a constant or by reflection; with edges it runs on the CPU",
    "Pow": "with the exponents 0, 1, 2, 3, 0.5 and -0.5; with others it runs on the CPU",
    "ReduceMean": "over height and width",
    "ReduceSum": "over channels it runs on the NPU, as a convolution",
    "Reshape": "to fewer than 4 dimensions it runs on the CPU on rk3566, rk3568 and rk3588",
    "Resize": "nearest or linear, 2 to 8 times as high or wide; otherwise it runs on the CPU",
    "Slice": "with steps it runs on the CPU",
    "Transpose": "on rk3588 large ones run on the CPU, from some thousand positions on",
}
"""What else there is to know of an operator."""


def place(operator: str, target: str) -> Place:
    """Where `target` usually runs an ONNX operator."""
    if operator in _ON_CPU or target in _CPU_OF.get(operator, ()):
        return "cpu"
    if operator in _ON_NPU or operator in _LISTED_ON_NPU or target in _LISTED_ON_NPU_OF.get(operator, ()):
        return "npu"
    return _processor(operator, target) if operator in _LISTED_ON_CPU else "unknown"


def placed(operator: str, precision: str, target: str, facts: Facts = NO_FACTS) -> Place:
    """Where `target` runs one node.

    precision: 'int8', 'int16', 'float16', or '' for integers that are not quantized.
    """
    if operator == "ReduceSum" and facts.axes == (1,) and precision:
        return "npu"
    usual = place(operator, target)
    if usual != "npu":
        return usual
    if _falls_back(operator, precision, target, facts):
        return _processor(operator, target)
    return "unknown" if _beyond_what_is_known(operator, facts) else "npu"


def place_all(operators: tuple[str, ...], target: str) -> Place:
    """Where that runs what an operator of another framework becomes: on the NPU only where all of it does."""
    places = {place(operator, target) for operator in operators}
    return "cpu" if "cpu" in places else "unknown" if "unknown" in places else "npu"


def on_several_cores(layer: str, target: str) -> bool:
    """Whether several NPU cores can share one layer; others run on one core, whatever the core mask.

    layer: its op as in LayerSummary, 'ConvRelu' for instance; a product with a constant counts as 'Conv'. Documented
    for rk3588; of rk3576 only Mul was looked up, and the rest is taken to be the same. Other chips have one core.
    """
    if target not in ("rk3576", "rk3588"):
        return False
    for main in ("Conv", "Gemm"):
        if layer.startswith(main) and not layer.startswith("ConvTranspose"):
            return layer.removeprefix(main) in ("", "Relu", "Clip", "PRelu", "LeakyRelu", "Add", "AddRelu")
    return layer in ("Add", "AddRelu", "Mul", "MulRelu")


def _processor(operator: str, target: str) -> Place:
    """'cpu', unless the target's runtime is not known to have the operator."""
    if target in _SMALL and operator not in _LISTED_ON_SMALL_CPU | _SEEN_TO_FALL_BACK:
        return "unknown"
    return "cpu"


def _falls_back(operator: str, precision: str, target: str, facts: Facts) -> bool:
    """Whether an operator that the NPU usually runs is left to the processor."""
    match operator:
        case "AveragePool":
            return facts.padded and not facts.counts_padding
        case "Div":
            return precision in ("int8", "int16") and not facts.by_constant
        case "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze":
            return facts.rank is not None and facts.rank < 4 and target in (*_MIDDLE, "rk3588")
        case "Transpose":
            return target == "rk3588" and _transposes_too_much(precision, facts)
        case "Resize":
            stretched = [scale for scale in facts.scales if scale != 1.0]
            from_one_position = len(facts.shape) > 2 and math.prod(facts.shape[2:]) == 1
            return not from_one_position and any(scale not in range(2, 9) for scale in stretched)
        case "Slice":
            return any(step != 1 for step in facts.steps)
        case "Pow":
            return facts.exponent is not None and facts.exponent not in _EXPONENTS
        case "Pad":
            return facts.mode not in ("", "constant", "reflect")
    return False


def _beyond_what_is_known(operator: str, facts: Facts) -> bool:
    """Whether nothing tells where such a node of an operator runs that the NPU usually does."""
    match operator:
        case "AveragePool" | "MaxPool":
            return max(facts.kernel, default=0) > _LARGEST_WINDOW
        case "ReduceMean":
            return bool(facts.axes) and min(facts.axes) < 2
        case "Resize":
            return facts.mode not in ("", "nearest", "linear")
    return False


_Fits = Callable[[int, int, int, int], bool]
# How large a transposed tensor may be: channels, height and width of what it reads, and how many numbers the NPU moves
# at once. The alignments that the document asks for beside that are taken to be a matter of padding.
_TRANSPOSE_LIMITS: dict[tuple[int, ...], _Fits] = {
    (0, 1, 3, 2): lambda c, h, w, lanes: h * w < 4096,
    (0, 2, 1, 3): lambda c, h, w, lanes: h * w < 4096 and c * w < 8192,
    (0, 2, 3, 1): lambda c, h, w, lanes: c < 8192 and w * c < 8192 * lanes,
    (0, 3, 1, 2): lambda c, h, w, lanes: h * w < 8192 and w < 8192 and h * c < 8192,
    (0, 3, 2, 1): lambda c, h, w, lanes: h * w < 4096 and c < 8192 * lanes,
}


def _transposes_too_much(precision: str, facts: Facts) -> bool:
    fits = _TRANSPOSE_LIMITS.get(facts.permutation)
    if fits is None or len(facts.shape) != 4:
        return False
    return not fits(*facts.shape[1:], 16 if precision == "int8" else 8)
