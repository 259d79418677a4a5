"""Tensors that the runtime wrote to files: read with care, and matched to those of our graph."""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.devices.dumps import match_tensors, read_dumps
from tests.doubles.board_models import dump_name

ARRAY = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)


def npy(array: np.ndarray[Any, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def test_files_are_read_by_the_names_of_their_tensors() -> None:
    files = {
        "000_InputOperator_images_shape_1_3_4_2_uint8.npy": npy(np.zeros((1, 3, 4, 2), np.uint8)),
        "dumps/001_ConvRelu__model.0_act_Relu_output_0_shape_1_2_3_4_float.npy": npy(ARRAY),
        "002_Conv_a_shape_of_it_shape_24_float16.npy": npy(ARRAY.astype(np.float16).reshape(24)),
    }
    found = read_dumps(files)
    assert list(found) == ["images", "_model.0_act_Relu_output_0", "a_shape_of_it"]
    assert found["images"].dtype == np.uint8
    assert np.array_equal(found["_model.0_act_Relu_output_0"], ARRAY)
    assert found["a_shape_of_it"].dtype == np.float16


def test_of_a_tensor_that_was_written_twice_the_first_layers_counts() -> None:
    files = {f"{n:03d}_Conv_y_shape_1_2_3_4_float.npy": npy(ARRAY + n) for n in (7, 3, 5)}
    assert np.array_equal(read_dumps(files)["y"], ARRAY + 3)


@given(arrays.arrays(arrays.integer_dtypes() | arrays.floating_dtypes(sizes=(16, 32, 64)), arrays.array_shapes()))
def test_arrays_of_numbers_come_back_in_any_order_of_bytes(array: np.ndarray[Any, Any]) -> None:
    for given_ in (array, np.asfortranarray(array)):
        found = read_dumps({"000_Conv_y_shape_1_float.npy": npy(given_)})["y"]
        assert found.dtype == array.dtype.newbyteorder("=") and np.array_equal(found, array, equal_nan=True)


def _claims(shape: tuple[int, ...]) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(96)


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a board's file was unpickled",))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(npy(ARRAY)[:-1], id="cut"),
        pytest.param(npy(ARRAY) + b"\0", id="too long"),
        pytest.param(npy(ARRAY)[:40], id="cut in its header"),
        pytest.param(_claims((1 << 40, 1 << 40)), id="more than there is memory"),
        pytest.param(_claims((-1, -24)), id="negative sizes"),
        pytest.param(npy(ARRAY).replace(b"'<f4'", b"'\\<4'"), id="signs that Python warns of"),
        pytest.param(npy(np.array([_Trap()], object), allow_pickle=True), id="objects"),
        pytest.param(pickle.dumps(_Trap()), id="a pickle"),
        pytest.param(npy(np.array(["text"])), id="text"),
        pytest.param(b"PK\x03\x04" + bytes(100), id="an archive"),
    ],
)
def test_files_that_are_no_whole_arrays_of_numbers_are_left_out(content: bytes) -> None:
    good = "001_Conv_z_shape_1_2_3_4_float.npy"
    found = read_dumps({"000_Conv_y_shape_1_2_3_4_float.npy": content, good: npy(ARRAY)})
    assert list(found) == ["z"]


@pytest.mark.parametrize(
    "name", ["y.npy", "log.txt", "x_Conv_y_shape_1_float.npy", "000_Conv_y_shape_1_float.npz", "/"]
)
def test_files_of_other_names_are_left_out(name: str) -> None:
    assert read_dumps({name: npy(ARRAY)}) == {}


@given(st.binary(max_size=200), st.integers(0, 200), st.text(max_size=40))
def test_damaged_files_end_in_nothing_or_in_an_array(noise: bytes, place: int, name: str) -> None:
    content = npy(ARRAY)
    damaged = content[:place] + noise + content[place + len(noise) :]
    for array in read_dumps({"000_Conv_y_shape_1_float.npy": damaged, name: damaged}).values():
        assert array.nbytes <= len(damaged)


@pytest.mark.parametrize("name", ["/model.0/act/Relu_output_0", "out:0", "a b", "Zürich"])
def test_our_names_are_found_again_whatever_signs_they_have(name: str) -> None:
    found = read_dumps({dump_name(4, "Conv", name, ARRAY): npy(ARRAY)})
    assert np.array_equal(match_tensors(found, {name: ARRAY.shape})[name], ARRAY)


def test_tensors_come_in_the_shapes_of_our_graph() -> None:
    dumped = {
        "last": ARRAY.transpose(0, 2, 3, 1),
        "flat": ARRAY.reshape(1, 24, 1, 1),
        "other": ARRAY,
    }
    found = match_tensors(dumped, {"last": (1, 2, 3, 4), "flat": (1, 24), "other": (1, 2, 4, 3), "absent": (1,)})
    assert np.array_equal(found["last"], ARRAY) and found["flat"].shape == (1, 24)
    assert set(found) == {"last", "flat"}


def test_two_tensors_that_have_one_name_on_the_board_are_told_apart_by_shape_or_not_at_all() -> None:
    dumped = {"a_b": ARRAY}
    assert list(match_tensors(dumped, {"a/b": ARRAY.shape, "a:b": (7,)})) == ["a/b"]
    assert match_tensors(dumped, {"a/b": ARRAY.shape, "a:b": ARRAY.shape}) == {}
