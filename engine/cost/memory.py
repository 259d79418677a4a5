"""What tensors and constants take in a chip's memory, by their numbers alone, and from when to when tensors are there.

The rules are those of the tables of tensors that RKNN-Toolkit2 2.5.0 prints for three real networks, a classifier, a
text detector and a face detector, on rk3566, rk3588 and rv1106, with the blocks of `engine.cost.chips`. Ai and Ao are
the channels of input and output that the multipliers take at once, C2 the chip's block of channels.

- A feature map (four dimensions) lies in blocks of channels. What a convolution writes is padded to Ao, what one with a
  kernel a channel writes to 2 Ao; what others write to C2. In float16 a HardSwish takes two times what it writes,
  padded to Ao, beside that: the compiler keeps all three until they were read, here two go once they were written.
- A convolution's weights have input channels padded to C2, and to Ai where the last block of Ai is more than half full;
  a depthwise one's are padded to C2 and 2 Ao in that way, and take two bytes each on rv1103 and rv1106. Bias and scale
  of a channel take 8 bytes in int8 (6 in depthwise ones of rv1103 and rv1106) and 4 in float16, for channels padded to
  Ao, or 2 Ao for depthwise ones.
- Everything begins at a multiple of 64 bytes.

The compiler frees a tensor after its last use and places each into the first gap, in execution order; its totals are
met to 0.1 % so for the classifier in int8. The plan here packs tighter, and keeps the caller's inputs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from engine.cost.chips import IMAGE_CHANNELS, WIDTHS, Chip, MultiplierArray, filled, rounded, width
from engine.cost.plan import ALIGNMENT, Demand

CONVOLUTION, DEPTHWISE, INPUT, OTHER, DENSE = "convolution", "depthwise", "input", "other", "dense"
"""What makes a tensor: a convolution or a product with constants; a convolution with one kernel a channel, or a mean
over positions, which runs as such; the caller; anything else. A dense tensor has no padding, whatever makes it."""

# A factor or a term for each channel, at most 4 bytes each.
_OPERAND_BYTES = 4
_HARD_SWISH_COPIES = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """How a tensor is kept: `precision` is 'int8', 'int16' or 'float16'; with any other, such as '' for integers that
    are not quantized, numbers take 4 bytes and there is no padding. `kind` is what makes it, one of those above.
    `hard_swish` is whether a HardSwish is fused to that."""

    shape: tuple[int, ...]
    precision: str
    kind: str = OTHER
    hard_swish: bool = False


def tensor_bytes(shape: Sequence[int], precision: str, kind: str, chip: Chip) -> int:
    """Bytes of a tensor between layers; `precision` and `kind` are as in Kept. Four dimensions are N, C, H, W."""
    size = width(precision)
    if len(shape) != 4 or kind == DENSE or precision not in WIDTHS or (kind == INPUT and shape[1] <= IMAGE_CHANNELS):
        return rounded(math.prod(shape) * size, ALIGNMENT)
    if kind == CONVOLUTION:
        block = _array(chip, precision).outputs
    elif kind == DEPTHWISE:
        block = _array(chip, precision).outputs * 2
    else:
        block = chip.channel_block(precision)
    batch, channels, height, columns = shape
    return rounded(batch * rounded(channels, block) * height * columns * size, ALIGNMENT)


def weight_bytes(outputs: int, inputs: int, kernel: int, precision: str, chip: Chip, *, groups: int = 1) -> int:
    """Bytes of the weights of a convolution, or of a product with a matrix as one of 1x1.

    `kernel` is the positions of its window, `inputs` and `outputs` are all channels. Groups are convolutions of their
    own or, where that takes less, one with zeros between them.
    """
    array, size, block = _array(chip, precision), width(precision), chip.channel_block(precision)
    if _is_depthwise(inputs, groups):
        channels = filled(rounded(outputs, block), 2 * array.outputs)
        return rounded(channels * kernel * size * chip.depthwise_weight_copies, ALIGNMENT)

    def dense(outputs: int, inputs: int) -> int:
        # The first convolution of an image has blocks of its own.
        image = inputs <= IMAGE_CHANNELS and kernel > 1
        channels = rounded(inputs, chip.first_weight_bytes // size if image else block)
        return rounded(outputs * kernel * filled(channels, array.inputs) * size, ALIGNMENT)

    return min(part * dense(outputs // part, inputs // part) for part in {1, groups})


def bias_bytes(outputs: int, inputs: int, precision: str, chip: Chip, *, groups: int = 1) -> int:
    """Bytes of the bias and scale of a convolution, which the compiler gives to each."""
    depthwise = _is_depthwise(inputs, groups)
    channels = rounded(outputs, _array(chip, precision).outputs * (2 if depthwise else 1))
    return rounded(channels * chip.bias_bytes(precision, depthwise=depthwise), ALIGNMENT)


def operand_bytes(numbers: int) -> int:
    """Bytes of a constant that a feature map is multiplied with, or that is added to it: one number a channel, or one
    for all."""
    return rounded(numbers * _OPERAND_BYTES, ALIGNMENT)


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
        if how.hard_swish and how.precision == "float16":
            copy = tensor_bytes(how.shape, how.precision, CONVOLUTION, chip)
            found.append(Demand(f"{name} (while it is computed)", _HARD_SWISH_COPIES * copy, first, first))
    for name in outputs:
        if name in times and len(kept[name].shape) == 4 and kept[name].kind not in (INPUT, DENSE):
            size = tensor_bytes(kept[name].shape, kept[name].precision, DENSE, chip)
            found.append(Demand(given_out(name), size, *times[name]))
    return tuple(found)


def given_out(name: str) -> str:
    """What the dense copy of an output is called in a plan."""
    return f"{name} (given out)"


def _is_depthwise(inputs: int, groups: int) -> bool:
    return groups > 1 and groups == inputs


def _array(chip: Chip, precision: str) -> MultiplierArray:
    return chip.array(precision) or chip.arrays["int8"]
