"""Convolutions, and their padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.frontends.pytorch.table import Arguments, operator
from engine.frontends.pytorch.translation import Translation
from engine.frontends.pytorch.values import Refused, Tensor


def convolve(
    t: Translation,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    output_padding: Sequence[int] | None = None,
) -> Tensor:
    """Conv, or ConvTranspose where `output_padding` is given; `pads` are the begins, then the ends."""
    dims = weight.rank - 2
    if dims < 1 or x.rank not in (dims + 1, dims + 2):
        raise Refused(f"convolves {list(x.shape)} with {list(weight.shape)}")
    unbatched = x.rank == dims + 1
    if unbatched:
        x = t.reshape(x, (1, *x.shape))
    channels = weight.shape[1] * groups if output_padding is None else weight.shape[0]
    if x.shape[1] != channels or groups < 1 or weight.shape[0] % groups:
        raise Refused(
            f"has weights for {channels} channels in {groups} groups, not {x.shape[1]}",
            "do the input sizes fit the model?",
        )
    attributes = {
        "kernel_shape": list(weight.shape[2:]),
        "strides": list(stride),
        "pads": list(pads),
        "dilations": list(dilation),
        "group": groups,
    }
    inputs = [t.as_float(x), weight] if bias is None else [t.as_float(x), weight, bias]
    if output_padding is None:
        result = t.emit("Conv", *inputs, **attributes)
    else:
        result = t.emit("ConvTranspose", *inputs, output_padding=list(output_padding), **attributes)
    return t.reshape(result, result.shape[1:]) if unbatched else result


def padding_of(a: Arguments, dims: int, kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """The pads of a convolution, begins then ends. Of 'same' the odd one is at the end."""
    padding = a.get("padding")
    if padding == "valid":
        return [0] * (2 * dims)
    if padding == "same":
        whole = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [w // 2 for w in whole] + [w - w // 2 for w in whole]
    return a.integers("padding", dims) * 2


@operator("conv1d", "conv2d", "conv3d", "_convolution_mode", becomes="Conv")
def _conv(t: Translation, a: Arguments) -> Tensor:
    weight = a.tensor("weight")
    dims = weight.rank - 2
    dilation = a.integers("dilation", dims)
    return convolve(
        t,
        a.tensor("input"),
        weight,
        a.optional("bias"),
        stride=a.integers("stride", dims),
        pads=padding_of(a, dims, weight.shape[2:], dilation),
        dilation=dilation,
        groups=a.integer("groups", 1),
    )


@operator("_convolution", "convolution", "convolution_overrideable", becomes="Conv ConvTranspose")
def _general(t: Translation, a: Arguments) -> Tensor:
    return _padded(t, a, transposed=a.flag("transposed"))


@operator("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", becomes="ConvTranspose")
def _transposed(t: Translation, a: Arguments) -> Tensor:
    return _padded(t, a, transposed=True)


def _padded(t: Translation, a: Arguments, *, transposed: bool) -> Tensor:
    weight = a.tensor("weight")
    dims = weight.rank - 2
    return convolve(
        t,
        a.tensor("input"),
        weight,
        a.optional("bias"),
        stride=a.integers("stride", dims),
        pads=a.integers("padding", dims) * 2,
        dilation=a.integers("dilation", dims),
        groups=a.integer("groups", 1),
        output_padding=a.integers("output_padding", dims) if transposed else None,
    )


_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(t: Translation, x: Tensor, amounts: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Padded, or cropped where an amount is negative; `amounts` are begin and end of the last dimension, of the one
    before it, and so on."""
    if mode not in _MODES:
        raise Refused(f"pads in the mode {mode!r}")
    if len(amounts) % 2 or len(amounts) > 2 * x.rank:
        raise Refused(f"pads {list(x.shape)} by {list(amounts)}")
    begins, ends = [0] * x.rank, [0] * x.rank
    for index in range(len(amounts) // 2):
        axis = x.rank - 1 - index
        begin, end = amounts[2 * index], amounts[2 * index + 1]
        x = t.slice(x, axis, max(-begin, 0), x.shape[axis] - max(-end, 0))
        begins[axis], ends[axis] = max(begin, 0), max(end, 0)
    if not any(begins + ends):
        return x
    if mode == "constant":
        padded = t.emit("Pad", x, begins + ends, np.asarray(value, x.dtype.numpy()), mode="constant")
    else:
        padded = t.emit("Pad", x, begins + ends, mode=_MODES[mode])
    return padded if x.grid is None else t.quantized(padded, x.grid)


@operator("pad", "constant_pad_nd", becomes="Pad Slice")
def _pad(t: Translation, a: Arguments) -> Tensor:
    mode = a.get("mode") or "constant"
    return pad(t, a.tensor("self"), a.integers("pad"), str(mode), a.number("value"))


@operator("reflection_pad1d", "reflection_pad2d", "reflection_pad3d", becomes="Pad Slice")
def _reflect(t: Translation, a: Arguments) -> Tensor:
    return pad(t, a.tensor("self"), a.integers("padding"), "reflect")


@operator("replication_pad1d", "replication_pad2d", "replication_pad3d", becomes="Pad Slice")
def _replicate(t: Translation, a: Arguments) -> Tensor:
    return pad(t, a.tensor("self"), a.integers("padding"), "replicate")
