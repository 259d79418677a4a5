"""Arrays on their way to a board: whatever the caller's layout and type, the runtime gets the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.devices.board_arrays import Ports, for_npu, in_model_shapes, ports_of, zeros_for
from engine.devices.link import BoardInput
from engine.errors import DeviceError, InputError
from engine.quantization.preprocessing import InputSpec, from_caller
from tests.engine.scripted_boards import Tensor

SIZES = st.tuples(*[st.integers(1, 5)] * 4)
TYPES = st.sampled_from(["uint8", "int8", "int16", "int64", "float16", "float32", "float64"])


def numbers(shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    return (np.arange(np.prod(shape)) % 100).reshape(shape).astype(dtype)


def as_model(one: BoardInput, mean: float = 0.0, std: float = 1.0) -> np.ndarray[Any, Any]:
    """What a runtime makes of it for a model that takes NCHW."""
    return ((one.array.astype(np.float32) - np.float32(mean)) / np.float32(std)).transpose(0, 3, 1, 2)


@given(SIZES, TYPES, st.sampled_from(["nhwc", "nchw"]), st.sampled_from(["nhwc", "nchw"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_runtime_makes_of_it_what_the_simulator_reads(
    shape: tuple[int, ...], dtype: str, layout: str, fmt: str, here: bool
) -> None:
    spec = InputSpec("x", shape, mean=(3.0,) * shape[1], std=(2.0,) * shape[1])
    dims = shape if fmt == "nchw" else (shape[0], shape[2], shape[3], shape[1])
    value = numbers(spec.shape_in(layout), dtype)
    before = value.copy()
    (one,) = for_npu([value], Ports((spec,), (), here), [Tensor("x", dims, fmt, "int8")], "board", data_format=layout)
    assert one.layout == "nhwc" and one.array.flags.c_contiguous and not np.may_share_memory(one.array, value)
    assert str(one.array.dtype) == ("float32" if here or dtype in ("int16", "int64", "float64") else dtype)
    made = as_model(one) if here else as_model(one, 3.0, 2.0)
    np.testing.assert_array_equal(made, from_caller(value, spec, data_format=layout))
    np.testing.assert_array_equal(value, before)


@given(SIZES, st.sampled_from(["nhwc", "nchw"]), st.sampled_from(["nhwc", "nchw"]))
@settings(max_examples=40, deadline=None)
def test_a_binary_that_only_the_runtime_knows_is_given_the_same(shape: tuple[int, ...], fmt: str, layout: str) -> None:
    dims = shape if fmt == "nchw" else (shape[0], shape[2], shape[3], shape[1])
    tensors = [Tensor("x", dims, fmt, "int8")]
    ports = ports_of(tensors)
    assert ports.inputs[0].shape == shape
    own = numbers(shape, "uint8")
    value = own if layout == "nchw" else own.transpose(0, 2, 3, 1)
    (one,) = for_npu([value], ports, tensors, "board", data_format=layout)
    np.testing.assert_array_equal(as_model(one), own)
    arrays, formats = zeros_for(ports)
    assert for_npu(arrays, ports, tensors, "board", data_format=formats)[0].array.size == own.size


@given(SIZES, st.sampled_from(["nhwc", "nchw", ""]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_outputs_come_back_in_the_models_shape_and_order(shape: tuple[int, ...], fmt: str, by_name: bool) -> None:
    own, other = numbers(shape, "float32"), numbers((1, 7), "float32")
    given = own.transpose(0, 2, 3, 1) if fmt == "nhwc" else own
    tensors = [Tensor("y", given.shape, fmt), Tensor("z" if by_name else "renamed", (1, 7, 1, 1))]
    arrays = [given, other.reshape(1, 7, 1, 1)]
    if by_name:
        tensors, arrays = tensors[::-1], arrays[::-1]
    found = in_model_shapes(arrays, Ports((), (("y", shape), ("z", (1, 7)))), tensors)
    np.testing.assert_array_equal(found[0], own)
    np.testing.assert_array_equal(found[1], other)


def test_inputs_go_by_name_and_integers_stay() -> None:
    specs = (InputSpec("ids", (1, 4), "int64"), InputSpec("x", (1, 3)))
    tensors = [Tensor("x", (1, 3)), Tensor("ids", (1, 4), dtype="int64")]
    x, ids = numbers((1, 3), "float32"), numbers((1, 4), "int32")
    found = for_npu({"x": x, "ids": ids}, Ports(specs), tensors, "board")
    assert [(str(one.array.dtype), one.layout) for one in found] == [("float32", ""), ("int64", "")]


def test_what_is_passed_through_has_to_be_the_npus_own() -> None:
    ports, tensors = Ports((InputSpec("x", (1, 3, 2, 2)),)), [Tensor("x", (1, 2, 2, 3), "nhwc", "int8", 12)]
    with pytest.raises(InputError, match="takes int8 of 12 bytes"):
        for_npu([numbers((1, 2, 2, 3), "uint8")], ports, tensors, "board", pass_through=1)
    (one,) = for_npu([numbers((1, 2, 2, 3), "int8")], ports, tensors, "board", pass_through=1)
    assert one.pass_through


def test_a_binary_of_another_model_is_refused() -> None:
    ports = Ports((InputSpec("x", (1, 3, 2, 2)),))
    value = numbers((1, 2, 2, 3), "uint8")
    for tensors in ([], [Tensor("x", (1, 4, 4, 3), "nhwc")]):
        with pytest.raises(DeviceError, match="board") as refused:
            for_npu([value], ports, tensors, "board")
        assert "compile" in refused.value.hint
