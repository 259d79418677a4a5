"""Which ONNX operators a chip's NPU runs itself, as far as that has been observed.

From the layer tables that the toolkit prints for generated graphs and real models. What it was never seen with is
'unknown' here, not 'npu': the processor may have to do it.
"""

from __future__ import annotations

from typing import Literal

Place = Literal["npu", "cpu", "unknown"]

_ON_NPU = frozenset(
    {
        "Abs",
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Clip",
        "Concat",
        "Conv",
        "ConvTranspose",
        "DepthToSpace",
        "Div",
        "Elu",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LSTM",
        "LayerNormalization",
        "LeakyRelu",
        "MatMul",
        "Max",
        "MaxPool",
        "Mul",
        "PRelu",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Resize",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Softplus",
        "Split",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    }
)
_ON_CPU = frozenset({"Exp"})
_SMALL, _MIDDLE = ("rv1103", "rv1106"), ("rk3566", "rk3568")
_CPU_OF: dict[str, tuple[str, ...]] = {
    "Softmax": _MIDDLE,
    "Transpose": _MIDDLE,
    "LayerNormalization": _SMALL,
    "LSTM": _SMALL,  # it runs in float16, which these lack
}

CONDITIONS: dict[str, str] = {
    "AveragePool": "padded windows of 3x3 run on the CPU",
    "Div": "in int8 it runs on the CPU, unless it divides by a constant",
    "LSTM": "in float16",
    "Reshape": "to fewer than 4 dimensions it runs on the CPU on rk3566, rk3568 and rk3588",
    "ReduceMean": "over height and width",
    "MatMul": "by a constant as a convolution",
}
"""What else there is to know of an operator."""


def place(operator: str, target: str) -> Place:
    """Where `target` runs an ONNX operator."""
    if operator in _ON_CPU or target in _CPU_OF.get(operator, ()):
        return "cpu"
    return "npu" if operator in _ON_NPU else "unknown"


def place_all(operators: tuple[str, ...], target: str) -> Place:
    """Where that runs what an operator of another framework becomes: on the NPU only where all of it does."""
    places = {place(operator, target) for operator in operators}
    return "cpu" if "cpu" in places else "unknown" if "unknown" in places else "npu"
