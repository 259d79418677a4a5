"""What a board says is taken for what it is worth: wrong kinds, wrong sizes and control characters do no harm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.devices.agent.protocol import Fault
from engine.devices.answers import BoardTensor, arrays_of, error_of, hello_of, model_of, sizes_of, times_of
from engine.errors import DeviceError, DeviceTimeoutError


def test_tensors_are_read_with_every_field() -> None:
    told = {
        "name": "x",
        "dims": [1, 3, 4, 4],
        "fmt": "nhwc",
        "dtype": "int8",
        "qnt": "affine",
        "scale": 0.5,
        "zero_point": -128,
        "size": 48,
    }
    about = model_of({"model": 3, "pid": 77, "inputs": [told], "outputs": [], "api": "2.3.2", "driver": "0.9.8"})
    assert about.inputs == (BoardTensor("x", (1, 3, 4, 4), "nhwc", "int8", "affine", 0.5, -128, 48),)
    assert (about.number, about.pid, about.api, about.driver, about.custom_string) == (3, 77, "2.3.2", "0.9.8", "")


@pytest.mark.parametrize("nonsense", [None, 7, "x", [], [None], [[]], {"name": 3}, [{"dims": "abc", "scale": []}]])
def test_nonsense_becomes_nothing(nonsense: Any) -> None:
    about = model_of(dict.fromkeys(("model", "pid", "inputs", "outputs", "api", "driver"), nonsense))
    assert all(one.dims == () for one in about.inputs)
    assert hello_of({"library": nonsense, "python": nonsense}).library is False
    assert sizes_of(nonsense).weight is None
    assert sizes_of({"weight": nonsense, "internal": 5, "other": 6}).internal == 5


def test_control_characters_never_reach_a_terminal() -> None:
    evil = "\x1b]0;title\x07\x9bred\r\n"
    assert hello_of({"python": evil}).python.isprintable()
    error = error_of(Fault("model", evil, evil, printed=evil), "board")
    assert error.hint.isprintable() and error.what.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("kind", "error"),
    [("timeout", DeviceTimeoutError), ("stuck", DeviceTimeoutError), ("died", DeviceError), ("x", DeviceError)],
)
def test_a_fault_becomes_the_error_of_its_kind(kind: str, error: type[DeviceError]) -> None:
    found = error_of(Fault(kind, "what", "hint"), "board")
    assert type(found) is error and (found.what, found.hint, found.where) == ("what", "hint", "board")


def test_arrays_have_the_shapes_that_were_said() -> None:
    (found,) = arrays_of([{"dtype": "float16", "shape": [2, 3]}], [bytearray(12)], "board")
    assert found.dtype == np.float16 and found.shape == (2, 3)
    assert found.flags.writeable
    assert arrays_of([{"dtype": "int8", "shape": [0]}], [bytearray()], "board")[0].size == 0


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        [3],
        [{"dtype": "object", "shape": [1]}],
        [{"dtype": "O", "shape": [1]}],
        [{"dtype": ["f4"], "shape": [1]}],
        [{"dtype": "float32", "shape": "12"}],
        [{"dtype": "float32", "shape": [4]}],
        [{"dtype": "float32", "shape": [-3]}],
        [{"dtype": "float32", "shape": [1] * 100}],
        [{"dtype": "float32", "shape": [1 << 40, 1 << 40]}],
    ],
)
def test_arrays_of_no_sense_are_an_error(told: Any) -> None:
    with pytest.raises(DeviceError, match="outputs"):
        arrays_of(told, [bytearray(12)], "board")


@pytest.mark.parametrize("told", [["a"], [-1], [float("nan")], [10**400], [1, 2, 3]])
def test_times_of_no_sense_are_an_error(told: Any) -> None:
    with pytest.raises(DeviceError, match="times"):
        times_of(told, 2, "board")
    assert times_of([1, 2.5], 2, "board") == [1.0, 2.5]
