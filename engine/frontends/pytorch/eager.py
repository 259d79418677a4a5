"""Computes with torch itself what does not depend on a model's inputs; the one module that imports torch."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.frontends.pytorch.values import FLOATS, Refused, Tensor
from engine.graph.query import Array

MOST_ELEMENTS = 1 << 26
"""Of a constant that an operator makes out of nothing."""


def torch() -> Any:
    """The torch package, which is looked for when first needed. Raises ImportError."""
    return importlib.import_module("torch")


def is_tensor(value: Any) -> bool:
    """Whether `value` is a tensor of torch."""
    return isinstance(value, torch().Tensor)


def call(kind: str, overload: str, arguments: Sequence[Any], named: dict[str, Any] | None = None) -> Any:
    """What the operator gives for these arguments. Raises Refused where torch refuses."""
    namespace, name = kind.split("::")
    try:
        packet = getattr(getattr(torch().ops, namespace), name)
        with torch().no_grad():
            return getattr(packet, overload or "default")(*arguments, **(named or {}))
    except (RuntimeError, AttributeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
        text = str(error).strip()
        raise Refused(f"torch refuses: {text.splitlines()[0][:300] if text else type(error).__name__}") from error


def unwrapped(value: Any) -> Any:
    """A value with torch's own tensors in place of constant ones."""
    if isinstance(value, Tensor):
        return value.content
    if isinstance(value, (list, tuple)):
        return type(value)(unwrapped(item) for item in value)
    return value


def wrapped(value: Any, label: str = "") -> Any:
    """A value with torch's tensors as constants of a model."""
    if is_tensor(value):
        return Tensor(value.detach(), label=label)
    if isinstance(value, (list, tuple)):
        items = [wrapped(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def stored_elements(content: Any) -> int:
    """How many elements the memory behind a tensor has room for."""
    try:
        return int(content.untyped_storage().nbytes() // max(content.element_size(), 1))
    except (RuntimeError, NotImplementedError):
        return int(content.numel())


def to_array(content: Any) -> tuple[Array, tuple[str, list[float], list[int], int | None] | None]:
    """The elements of a tensor, real ones as float32; and, of a quantized one, its type, scales, zero points, axis."""
    content = content.detach()
    if content.is_sparse or content.is_complex() or content.device.type != "cpu":
        raise Refused(f"has a constant of the kind {content.dtype}, {content.layout}, {content.device}")
    if content.is_quantized:
        real = content.dequantize().contiguous().numpy().astype(np.float32)
        return real, grids_of(content)
    if str(content.dtype).removeprefix("torch.") in FLOATS:
        content = content.float()
    return content.contiguous().numpy(), None


def grids_of(content: Any) -> tuple[str, list[float], list[int], int | None]:
    """Type, scales, zero points and axis of a quantized tensor."""
    dtype = {"quint8": "uint8", "qint8": "int8", "qint32": "int32"}.get(str(content.dtype).removeprefix("torch."))
    if dtype is None:
        raise Refused(f"has a constant of type {content.dtype}")
    if "per_channel" in str(content.qscheme()):
        scales = content.q_per_channel_scales().double().tolist()
        points = [round(z) for z in content.q_per_channel_zero_points().double().tolist()]
        return dtype, scales, points, int(content.q_per_channel_axis())
    return dtype, [float(content.q_scale())], [int(content.q_zero_point())], None


def from_array(array: Array) -> Any:
    """A tensor of torch with the elements of `array`."""
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return torch().from_numpy(np.array(array, order="C"))  # a copy that can be written to, 0-d as well


def zeros(shape: Sequence[int], dtype: str, number: float = 0) -> Any:
    """A tensor full of `number`. Raises Refused for one that is far too large."""
    elements = 1
    for dim in shape:
        elements *= max(int(dim), 0)
    if elements > MOST_ELEMENTS:
        raise Refused(f"makes a constant of {elements} elements")
    return torch().full(list(shape), number, dtype=getattr(torch(), dtype))
