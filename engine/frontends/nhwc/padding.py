"""Works out how much padding SAME, VALID and explicit amounts mean."""

from __future__ import annotations

from collections.abc import Sequence

from engine.frontends.nhwc.tensors import Place

Padding = str | Sequence[tuple[int, int]]
"""'SAME', 'VALID', or what is added before and behind each spatial axis."""


def pads_of(
    padding: Padding,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    place: Place,
) -> list[tuple[int, int]]:
    """What is added before and behind each spatial axis of `sizes`.

    SAME makes ceil(size / stride) windows; what that needs is shared, the odd one goes behind. Raises ModelError.
    """
    if any(number < 1 for number in (*kernel, *strides, *dilations)):
        raise place.error(f"has a kernel {list(kernel)}, strides {list(strides)} and dilations {list(dilations)}")
    if not isinstance(padding, str):
        if len(padding) != len(sizes) or any(amount < 0 for pair in padding for amount in pair):
            raise place.error(f"pads by {list(padding)}")
        return [(int(before), int(behind)) for before, behind in padding]
    if padding == "VALID":
        return [(0, 0)] * len(sizes)
    if padding != "SAME":
        raise place.error(f"has the padding {padding!r}")
    pads = []
    for size, window, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        covered = (-(-size // stride) - 1) * stride + (window - 1) * dilation + 1
        total = max(covered - size, 0)
        pads.append((total // 2, total - total // 2))
    return pads


def onnx_pads(pads: Sequence[tuple[int, int]]) -> list[int] | None:
    """Pads as ONNX's attribute lists them: all befores, then all behinds; None where there are none."""
    flat = [before for before, _ in pads] + [behind for _, behind in pads]
    return flat if any(flat) else None
