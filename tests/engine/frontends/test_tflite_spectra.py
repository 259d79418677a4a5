"""The Fourier transform of TFLite models computes what LiteRT computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.frontends.tflite_models import O, T, check, const


@pytest.mark.parametrize("length", [8, 16])
def test_the_spectrum_of_rows(length: int, tmp_path: Path) -> None:
    bins = length // 2 + 1
    tensors = [
        T("x", (2, 1, 8)),
        const("length", [1, length], "int32"),
        T("s", (2, 1, bins), "complex64"),
        *(T(name, (2, 1, bins)) for name in ("size", "re", "im")),
    ]
    ops = [
        O("RFFT2D", ["x", "length"], ["s"], "Rfft2dOptions"),
        O("COMPLEX_ABS", ["s"], ["size"]),
        O("REAL", ["s"], ["re"]),
        O("IMAG", ["s"], ["im"]),
    ]
    check(tensors, ops, ["x"], ["size", "re", "im"], tmp_path)
