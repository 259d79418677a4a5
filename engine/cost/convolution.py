"""Cycles and bytes of a convolution, by its numbers alone.

The formulas were read off the tables that RKNN-Toolkit2 2.5.0 prints of 942 generated convolutions (3x3, 1x1,
depthwise, large and dilated kernels on rk3566, rk3588 and rv1106, int8 and float16) and of 1073 in three real models: a
classifier, a text detector and a face detector. The cycles of the multipliers are equal in all but two, the larger of
these and of memory's is within 2 % in 99 %.
"""

from __future__ import annotations

import dataclasses
import math

from engine.cost.chips import IMAGE_CHANNELS, WIDTHS, Chip, MultiplierArray, filled, rounded

_MANY_CHANNELS = 32
_LARGEST_WINDOW = 7


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution, or a product with a matrix as one of 1x1 over its rows.

    positions: input and output positions of one sample (height times width). kernel: positions of the window. A
    transposed one takes the cycles of a plain one over its output. `added` is whether it adds another feature map of
    its output's shape; `weighed` whether its weights are constants, which the batch reads once; `given_out` whether the
    model gives its output to the caller.
    """

    batch: int
    inputs: int
    outputs: int
    input_positions: int
    output_positions: int
    kernel: int
    groups: int = 1
    bias: bool = True
    added: bool = False
    weighed: bool = True
    given_out: bool = False
    transposed: bool = False

    @property
    def depthwise(self) -> bool:
        """Whether each input channel has kernels of its own."""
        return self.groups > 1 and self.groups == self.inputs

    @property
    def macs(self) -> int:
        """Multiply-accumulates, without any padding."""
        positions = self.input_positions if self.transposed else self.output_positions
        return self.batch * positions * self.kernel * self.outputs * self.inputs // self.groups


@dataclasses.dataclass(frozen=True)
class Moved:
    """Bytes over the memory bus: read, of which `weights` are constants, and written."""

    read: int
    written: int
    weights: int = 0


def multiplier_cycles(convolution: Convolution, precision: str, chip: Chip) -> int:
    """Cycles of the multipliers of one core; 0 where the chip has none for the precision."""
    array, it = chip.array(precision), convolution
    if array is None:
        return 0
    if it.depthwise:
        return it.batch * array.depthwise_convolution(it.output_positions, it.kernel, it.outputs)
    parts = _parts(it, array)
    part = array.convolution(it.output_positions, it.kernel, it.inputs // parts, it.outputs // parts)
    return it.batch * parts * part


def moved(convolution: Convolution, precision: str, chip: Chip) -> Moved:
    """Bytes read and written; channels are padded to the blocks in which memory and multipliers take them."""
    it, width = convolution, WIDTHS[precision]
    array = chip.array(precision) or chip.arrays["int8"]
    parts = 1 if it.depthwise else _parts(it, array)
    block = array.outputs * (2 if it.depthwise else 1)
    # Groups write their channels side by side into one feature map, without padding between them.
    outputs = it.outputs if parts > 1 else rounded(it.outputs, block if it.given_out else chip.channel_block(precision))
    if it.depthwise:
        weights = it.kernel * filled(it.outputs, block) * width
    else:
        weights = it.kernel * it.outputs * _weight_channels(it, it.inputs // parts, width, chip, array) * width
    if it.bias:
        weights += rounded(it.outputs, block) * chip.bias_bytes(precision, depthwise=it.depthwise)
    inputs = it.inputs if it.inputs <= IMAGE_CHANNELS else rounded(it.inputs, chip.channel_block(precision))
    read, written = it.input_positions * inputs * width, it.output_positions * outputs * width
    read += written if it.added else 0
    return Moved(it.batch * read + weights * (1 if it.weighed else it.batch), it.batch * written, weights)


def mean_over_positions(batch: int, channels: int, size: tuple[int, ...], given_out: bool) -> tuple[Convolution, ...]:
    """The mean over all positions of a feature map, as the toolkit's compiler has it computed: depthwise convolutions
    one after the other, whose windows are as large as 7 along each axis and do not overlap."""
    found = []
    while max(size, default=1) > 1:
        window = tuple(min(length, _LARGEST_WINDOW) for length in size)
        left = tuple(-(-length // edge) for length, edge in zip(size, window, strict=True))
        kernel, positions = math.prod(window), math.prod(left)
        last = given_out and positions == 1
        found.append(
            Convolution(batch, channels, channels, math.prod(size), positions, kernel, channels, given_out=last)
        )
        size = left
    return tuple(found)


def _parts(it: Convolution, array: MultiplierArray) -> int:
    """How many convolutions a grouped one becomes: its groups one after the other or, where that takes longer, one with
    zeros between them."""
    if it.groups == 1:
        return 1
    apart = array.convolution(it.output_positions, it.kernel, it.inputs // it.groups, it.outputs // it.groups)
    whole = array.convolution(it.output_positions, it.kernel, it.inputs, it.outputs)
    return it.groups if it.groups * apart <= whole else 1


def _weight_channels(it: Convolution, inputs: int, width: int, chip: Chip, array: MultiplierArray) -> int:
    """Input channels of the weights as they are read: many as they are, few in blocks."""
    vector = it.input_positions == 1
    if vector and inputs > IMAGE_CHANNELS and inputs % 4 == 2 and array.inputs == _MANY_CHANNELS:
        return inputs
    if inputs >= _MANY_CHANNELS and array.outputs < _MANY_CHANNELS:
        return inputs
    if inputs >= array.inputs:
        return filled(inputs, array.inputs)
    least = chip.first_weight_bytes if inputs <= IMAGE_CHANNELS and not vector else chip.channel_bytes
    return max(1 << (inputs - 1).bit_length(), least // width)
