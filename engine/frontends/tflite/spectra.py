"""Reads TFLite's Fourier transform and what takes complex numbers apart; these are kept as two tensors of real ones."""

from __future__ import annotations

import numpy as np

from engine.frontends import nhwc
from engine.frontends.nhwc import Tensor
from engine.frontends.tflite.conversion import Op, Refusal, operator
from engine.graph.query import Array

# A matrix of that many rows and half as many columns is 32 MB.
_LONGEST = 4096


@operator("RFFT2D", "MatMul Pad Slice")
def _rfft(op: Op) -> None:
    """The transform of rows: of real numbers in the last axis, half of the spectrum."""
    x, length, place = op.input(0), op.numbers(1), op.place()
    if len(length) != 2 or x.rank < 2 or length[0] != 1 or x.shape[-2] != 1:
        raise Refusal("transforms more than rows")
    if not 1 <= length[1] <= _LONGEST:
        raise Refusal(f"transforms rows of {length[1]}", f"up to {_LONGEST} can be written out")
    if x.shape[-1] > length[1]:
        x = nhwc.crop(x, place.within("cropped"), begin=[0] * x.rank, size=[*x.shape[:-1], length[1]])
    elif x.shape[-1] < length[1]:
        more = [(0, 0)] * (x.rank - 1) + [(0, length[1] - x.shape[-1])]
        x = nhwc.pad(x, place.within("padded"), pads=more)
    real, imaginary = (
        Tensor.constant(m, place.within(n)) for m, n in zip(_waves(length[1]), ("cos", "sin"), strict=True)
    )
    op.set(nhwc.matmul(x, real, place))
    op.conversion.imaginary[op.info.outputs[0]] = nhwc.matmul(x, imaginary, place.within("imaginary"))


def _waves(length: int) -> tuple[Array, Array]:
    """The real and imaginary parts of exp(-2 pi i n k / length), [length, length / 2 + 1]."""
    steps = np.outer(np.arange(length), np.arange(length // 2 + 1)) % length
    angles = -2 * np.pi * steps / length
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _parts(op: Op) -> tuple[Tensor, Tensor]:
    real = op.input(0)
    imaginary = op.conversion.imaginary.get(op.info.inputs[0])
    if imaginary is None:
        raise Refusal("its input is not of complex numbers that were made here")
    return real, imaginary


@operator("REAL IMAG", "Identity")
def _part(op: Op) -> None:
    real, imaginary = _parts(op)
    op.set(nhwc.unary(real if op.kind == "REAL" else imaginary, op.place(), "Identity"))


@operator("COMPLEX_ABS", "Add Mul Sqrt")
def _magnitude(op: Op) -> None:
    place = op.place()
    real, imaginary = _parts(op)
    real = nhwc.binary(real, real, place.within("real_square"), "Mul")
    imaginary = nhwc.binary(imaginary, imaginary, place.within("imaginary_square"), "Mul")
    op.set(nhwc.unary(nhwc.binary(real, imaginary, place.within("square"), "Add"), place, "Sqrt"))
