"""What an NPU computes and moves in a cycle: the multipliers by precision, and the blocks that channels come in.

Read off the tables that RKNN-Toolkit2 2.5.0 prints while it compiles generated convolutions for rk3566, rk3588 and
rv1106, and the cycles of real models for the others. rk3568 gets the same tables as rk3566, and rv1103 as rv1106. Where
rk3562 and rk3576 were not seen, they are taken to lay out channels as rk3588 does.
"""

from __future__ import annotations

import dataclasses

from engine.targets import Target

WIDTHS = {"int8": 1, "int16": 2, "float16": 2}
"""Bytes of a number in each precision."""
IMAGE_CHANNELS = 4
"""An image of so few channels is read as it is, without padding."""
_INTEGER_WIDTH = 4
_POSITIONS = 16


@dataclasses.dataclass(frozen=True)
class MultiplierArray:
    """How many channels the multipliers take at once: of the input, of the output, and of a depthwise convolution.

    `least` is the fewest blocks of input channels and kernel positions that an output takes. Output positions are
    computed in blocks of 16.
    """

    inputs: int
    outputs: int
    least: int
    depthwise: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates that one core does in a cycle."""
        return self.inputs * self.outputs

    def convolution(self, positions: int, kernel: int, inputs: int, outputs: int) -> int:
        """Cycles of a dense convolution at `positions` output positions, with `kernel` positions in its window."""
        steps = max(kernel * blocks(inputs, self.inputs), self.least)
        return rounded(positions, _POSITIONS) * blocks(outputs, self.outputs) * steps

    def depthwise_convolution(self, positions: int, kernel: int, channels: int) -> int:
        """Cycles of a convolution with one kernel a channel."""
        return rounded(positions, _POSITIONS) * kernel * blocks(channels, self.depthwise)


@dataclasses.dataclass(frozen=True)
class Chip:
    """The multipliers by precision, and how memory sees tensors.

    bytes_a_cycle: what memory moves in a cycle. channel_bytes: feature maps lie in blocks of so many bytes of channels
    (NC1HWC2). first_weight_bytes: the input channels of a convolution's weights take at least so many bytes.
    depthwise_bias_bytes: what a depthwise convolution in int8 keeps for the bias and scale of a channel, and
    depthwise_weight_copies: in how many bytes it stores a weight.
    """

    arrays: dict[str, MultiplierArray]
    bytes_a_cycle: float
    channel_bytes: int
    first_weight_bytes: int
    depthwise_bias_bytes: int = 8
    depthwise_weight_copies: int = 1

    def array(self, precision: str) -> MultiplierArray | None:
        """The multipliers of a precision; None where the chip has none."""
        return self.arrays.get(precision)

    def bias_bytes(self, precision: str, *, depthwise: bool = False) -> int:
        """Bytes that a convolution reads for the bias and scale of a channel."""
        if precision == "float16":
            return 4
        return self.depthwise_bias_bytes if depthwise else 8

    def channel_block(self, precision: str) -> int:
        """Channels that lie together in a feature map."""
        return max(self.channel_bytes // WIDTHS[precision], 1)


def _arrays(
    int8: tuple[int, int, int, int], wide: tuple[int, int, int, int], *names: str
) -> dict[str, MultiplierArray]:
    return {"int8": MultiplierArray(*int8), **{name: MultiplierArray(*wide) for name in names}}


# The tables have no int16: it is taken to run at float16's rate, and where there is no float16 at half that of int8.
_RK3566 = Chip(_arrays((32, 16, 4, 32), (16, 8, 2, 32), "int16", "float16"), 6.571, 8, 8)
_RV1106 = Chip(_arrays((32, 16, 4, 32), (32, 8, 4, 16), "int16"), 6.159, 16, 4, 6, 2)
_CHIPS = {
    "rk3588": Chip(_arrays((32, 32, 4, 64), (32, 16, 2, 64), "int16", "float16"), 23.654, 16, 16),
    "rk3576": Chip(_arrays((32, 32, 4, 64), (32, 16, 2, 64), "int16", "float16"), 7.465, 16, 16),
    "rk3562": Chip(_arrays((32, 16, 4, 64), (32, 8, 2, 64), "int16", "float16"), 7.465, 16, 16),
    "rk3566": _RK3566,
    "rk3568": _RK3566,
    "rv1103": _RV1106,
    "rv1106": _RV1106,
}


def chip_of(target: Target) -> Chip:
    """The multipliers and memory of a target's NPU."""
    return _CHIPS[target.name]


def width(precision: str) -> int:
    """Bytes of a number; integers that are not quantized, indices and sizes (''), take 4."""
    return WIDTHS.get(precision, _INTEGER_WIDTH)


def blocks(count: int, size: int) -> int:
    """How many blocks of `size` hold `count`."""
    return -(-count // size)


def rounded(count: int, size: int) -> int:
    """`count` rounded up to whole blocks of `size`."""
    return blocks(count, size) * size


def filled(count: int, size: int) -> int:
    """`count` in blocks of `size`, the last of which is padded where it is more than half full."""
    return rounded(count, size) if count % size > size // 2 else count
