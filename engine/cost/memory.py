"""What tensors and constants take in a chip's memory, by their numbers alone, and from when to when tensors are there.

The rules are those that give the totals which RKNN-Toolkit2 2.5.0 prints for real networks, with the blocks of
`engine.cost.chips`. Ao are the channels of output that the multipliers take at once.

- A feature map (four dimensions) lies in blocks of channels. What a convolution writes is padded to Ao, what one with a
  kernel a channel writes to 2 Ao, as in the toolkit's tables of bytes written; what others write to the chip's block.
- A convolution's weights lie in blocks of 32 input channels by 32 bytes of output channels; those of one with a kernel
  a channel have channels padded to Ao. The bias takes 4 bytes a channel, in int8 on newer chips 8; channels are padded
  to Ao.
- Everything begins at a multiple of 64 bytes.

They were found with two networks, a classifier and a text detector of PaddleOCR. Weights are met to 0.3 % on rk3566 in
int8 and on rk3588 in int8 and float16. Tensors that are forgotten after their last use and placed into the first gap in
execution order take what the toolkit prints for the classifier, to 0.1 %: 106.6 KB on rk3566, 171 KB on rk3588. For the
detector they do not: it depends on which layers the toolkit joins and how it orders them, which is not known.
`demands` keeps inputs and outputs as a caller needs them, and a plan for that ends 7 % above and at the toolkit's
figures for the classifier, 7 % (int8 on rk3566) and 12.5 % (float16 on rk3588) below them for the detector.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from engine.cost.chips import INTEGER_WIDTH, WIDTHS, Chip, MultiplierArray, rounded
from engine.cost.plan import ALIGNMENT, Demand

CONVOLUTION, DEPTHWISE, INPUT, OTHER, DENSE = "convolution", "depthwise", "input", "other", "dense"
"""What makes a tensor: a convolution or a product with constants; a convolution with one kernel a channel, or a mean
over positions, which runs as such; the caller; anything else. A dense tensor has no padding, whatever makes it."""

# An image of so few channels is read as it is, without padding.
_IMAGE_CHANNELS = 4
# Weights come in blocks of so many input channels by so many bytes of output channels, seen in int8 on rk3566 and in
# int8 and float16 on rk3588. With 16 bytes, which rk3566 computes at once, the classifier's weights are 13 % short.
_WEIGHT_INPUTS, _WEIGHT_BYTES = 32, 32
# A factor and a term for each channel, 4 bytes each.
_OPERAND_BYTES = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """How a tensor is kept: `precision` is 'int8', 'int16' or 'float16'; with any other, such as '' for integers that
    are not quantized, numbers take 4 bytes and there is no padding. `kind` is what makes it, one of those above."""

    shape: tuple[int, ...]
    precision: str
    kind: str = OTHER


def width(precision: str) -> int:
    """Bytes of a number."""
    return WIDTHS.get(precision, INTEGER_WIDTH)


def tensor_bytes(shape: Sequence[int], precision: str, kind: str, chip: Chip) -> int:
    """Bytes of a tensor between layers; `precision` and `kind` are as in Kept. Four dimensions are N, C, H, W."""
    size = width(precision)
    if len(shape) != 4 or kind == DENSE or precision not in WIDTHS or (kind == INPUT and shape[1] <= _IMAGE_CHANNELS):
        return rounded(math.prod(shape) * size, ALIGNMENT)
    if kind == CONVOLUTION:
        block = _array(chip, precision).outputs
    elif kind == DEPTHWISE:
        block = _array(chip, precision).outputs * 2
    else:
        block = chip.channel_block(precision)
    batch, channels, height, columns = shape
    return rounded(batch * rounded(channels, block) * height * columns * size, ALIGNMENT)


def weight_bytes(
    outputs: int, inputs: int, kernel: int, precision: str, chip: Chip, *, groups: int = 1, bias: bool = True
) -> int:
    """Bytes of the constants of a convolution, or of a product with a matrix as one of 1x1.

    `kernel` is the positions of its window, `inputs` and `outputs` are all channels. Groups are convolutions of their
    own or, where that takes less, one with zeros between them.
    """
    array, size = _array(chip, precision), width(precision)
    if groups > 1 and groups == inputs:
        stored = rounded(rounded(outputs, array.outputs) * kernel * size, ALIGNMENT)
    else:
        parts = {1, groups}
        stored = min(part * _dense_weights(outputs // part, inputs // part, kernel, size) for part in parts)
    if bias:
        stored += rounded(rounded(outputs, array.outputs) * _bias_bytes(precision, chip), ALIGNMENT)
    return stored


def operand_bytes(channels: int, precision: str, chip: Chip) -> int:
    """Bytes of a constant that a feature map of `channels` channels is multiplied with, or that is added to it: one
    number a channel, or one for all, which is repeated."""
    return rounded(rounded(channels, _array(chip, precision).outputs) * _OPERAND_BYTES, ALIGNMENT)


def constant_bytes(count: int, precision: str) -> int:
    """Bytes of any other constant of `count` numbers."""
    return rounded(count * width(precision), ALIGNMENT)


def lifetimes(
    steps: Iterable[tuple[Iterable[str], Iterable[str]]], inputs: Iterable[str], outputs: Iterable[str]
) -> dict[str, tuple[int, int]]:
    """The first and the last step at which each tensor is in memory, from the names that each step reads and writes.

    Inputs are there all the time, since the caller sets them before it and may run again; outputs from where they are
    written until the end. What nobody reads is there while it is written. What is read but never written (constants,
    absent inputs) is left out.
    """
    found: dict[str, tuple[int, int]] = dict.fromkeys(inputs, (0, 0))
    always = tuple(found)
    last = 0
    for last, (reads, writes) in enumerate(steps):
        for name in reads:
            if name in found:
                found[name] = (found[name][0], last)
        for name in writes:
            found[name] = (last, last)
    for name in (*always, *outputs):
        if name in found:
            found[name] = (found[name][0], last)
    return found


def demands(
    steps: Iterable[tuple[Iterable[str], Iterable[str]]],
    kept: Mapping[str, Kept],
    inputs: Iterable[str],
    outputs: Iterable[str],
    chip: Chip,
) -> tuple[Demand, ...]:
    """What a plan of the memory has to hold: inputs and what is written, all of which `kept` must have.

    An output in blocks of channels is handed over dense as well, in a buffer of its own that is there from where it is
    written until the end; that is the demand `given_out(name)`.
    """
    outputs = tuple(dict.fromkeys(outputs))
    found = []
    times = lifetimes(steps, inputs, outputs)
    for name, (first, last) in times.items():
        how = kept[name]
        found.append(Demand(name, tensor_bytes(how.shape, how.precision, how.kind, chip), first, last))
    for name in outputs:
        if name in times and len(kept[name].shape) == 4 and kept[name].kind not in (INPUT, DENSE):
            size = tensor_bytes(kept[name].shape, kept[name].precision, DENSE, chip)
            found.append(Demand(given_out(name), size, *times[name]))
    return tuple(found)


def given_out(name: str) -> str:
    """What the dense copy of an output is called in a plan."""
    return f"{name} (given out)"


def _dense_weights(outputs: int, inputs: int, kernel: int, size: int) -> int:
    padded = rounded(outputs, _WEIGHT_BYTES // size) * rounded(inputs, _WEIGHT_INPUTS)
    return rounded(padded * kernel * size, ALIGNMENT)


def _bias_bytes(precision: str, chip: Chip) -> int:
    # Chips whose blocks of channels have 16 bytes keep a scale beside the bias; seen on rk3588 alone.
    return 4 if precision == "float16" or chip.channel_bytes < 16 else 8


def _array(chip: Chip, precision: str) -> MultiplierArray:
    return chip.array(precision) or chip.arrays["int8"]
