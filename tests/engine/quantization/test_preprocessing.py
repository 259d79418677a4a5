"""Inputs reach the model in its own layout and dtype, scaled once, and what does not fit is refused in plain words."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.config import Config
from engine.errors import ConfigError, InputError, ModelError
from engine.quantization.preprocessing import InputSpec, from_caller, input_specs, normalize, note
from engine.summaries import Grid, TensorSummary

IMAGE = TensorSummary("x", (1, 3, 4, 6), "float32", "nchw")
TOKENS = TensorSummary("ids", (1, 16), "int64")
NCHW = InputSpec("x", (1, 3, 4, 6), mean=(10, 20, 30), std=(2, 4, 8))
NHWC = dataclasses.replace(NCHW, shape=(1, 4, 6, 3), layout="nhwc")


@pytest.fixture(autouse=True)
def fresh_notes() -> None:
    note.cache_clear()


def photo(dtype: str = "uint8") -> Any:
    """Shape (1, 4, 6, 3), every value different."""
    return np.arange(72).reshape(1, 4, 6, 3).astype(dtype)


class TestInputSpecs:
    def test_settings_go_to_the_inputs_in_order_and_the_rest_get_none(self) -> None:
        config = Config(mean_values=[[1, 2, 3]], std_values=[[4, 5, 6]], quant_img_RGB2BGR=[True])  # type: ignore[arg-type]
        first, second = input_specs(config, [IMAGE, TOKENS])
        assert first == InputSpec("x", (1, 3, 4, 6), "float32", "nchw", (1, 2, 3), (4, 5, 6), True)
        assert second == InputSpec("ids", (1, 16), "int64")

    def test_channels_follow_the_layout(self) -> None:
        nhwc = TensorSummary("x", (1, 4, 6, 3), "float32", "nhwc")
        (spec,) = input_specs(Config(mean_values=[1, 2, 3]), [nhwc])  # type: ignore[arg-type]
        assert (spec.channels, spec.channel_axis, spec.layout) == (3, 3, "nhwc")

    @pytest.mark.parametrize(
        ("shape", "values"),
        [((1, 16), [[7]]), ((1, 16), [[7] * 16]), ((5,), [[7] * 5]), ((2, 5, 9), [[7] * 5]), ((), [[7]])],
    )
    def test_other_ranks_take_one_value_or_one_for_each_of_dimension_one(
        self, shape: tuple[int, ...], values: Any
    ) -> None:
        (spec,) = input_specs(Config(mean_values=values), [TensorSummary("v", shape, "float32")])
        assert normalize(np.full(shape, 9.0), spec) == pytest.approx(np.full(shape, 2.0))

    @pytest.mark.parametrize(
        ("settings", "inputs", "message"),
        [
            ({"mean_values": [[1, 2, 3, 4]]}, [IMAGE], "mean_values[0] has 4 values, input 'x' has 3 channels"),
            ({"std_values": [[1]]}, [IMAGE], "std_values[0] has 1 value, input 'x' has 3 channels"),
            ({"mean_values": [[0, 0, 0], [0]]}, [IMAGE], "mean_values has 2 entries, the model has 1 input"),
            ({"quant_img_RGB2BGR": [True, False]}, [IMAGE], "quant_img_RGB2BGR has 2 entries, the model has 1 input"),
            ({"quant_img_RGB2BGR": True}, [TOKENS], "quant_img_RGB2BGR[0] is True, but input 'ids'"),
            ({"std_values": [[2]]}, [TOKENS], "scale input 'ids', whose dtype is int64"),
        ],
    )
    def test_a_setting_that_does_not_fit_the_model_names_itself_and_the_input(
        self, settings: dict[str, Any], inputs: list[TensorSummary], message: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            input_specs(Config(**settings), inputs)
        assert message in str(caught.value)

    def test_mean_0_and_std_1_leave_token_ids_exact(self) -> None:
        (spec,) = input_specs(Config(mean_values=[[0]], std_values=[[1]]), [TOKENS])  # type: ignore[arg-type]
        ids = np.full((1, 16), 2**53 + 1, dtype=np.int64)
        assert np.array_equal(from_caller(ids, spec), ids)

    def test_text_inputs_are_refused(self) -> None:
        with pytest.raises(ModelError, match="dtype 'string' cannot be fed"):
            input_specs(Config(), [TensorSummary("t", (1,), "string")])


@st.composite
def scaled_samples(draw: st.DrawFn) -> tuple[Any, InputSpec, int]:
    layout = draw(st.sampled_from(["nchw", "nhwc"]))
    channels = draw(st.integers(1, 4))
    axis = 1 if layout == "nchw" else 3
    shape = [draw(st.integers(1, 3)) for _ in range(4)]
    shape[axis] = channels
    mean = draw(st.lists(st.floats(-300, 300, width=32), min_size=channels, max_size=channels) | st.just([]))
    std = draw(st.lists(st.floats(0.0625, 300, width=32), min_size=channels, max_size=channels) | st.just([]))
    dtype = draw(st.sampled_from(["uint8", "int8", "int16", "float16", "float32", "float64"]))
    values = st.integers(0, 127) if "int" in dtype else st.floats(-256, 256, width=16)
    array = draw(arrays.arrays(np.dtype(dtype), tuple(shape), elements=values))
    return array, InputSpec("x", tuple(shape), layout=layout, mean=tuple(mean), std=tuple(std)), axis


class TestNormalize:
    @settings(deadline=None)
    @given(scaled_samples())
    def test_equals_the_formula_in_float64(self, case: tuple[Any, InputSpec, int]) -> None:
        array, spec, axis = case
        expected = np.moveaxis(array.astype(np.float64), axis, -1)
        expected = (expected - (np.array(spec.mean) if spec.mean else 0)) / (np.array(spec.std) if spec.std else 1)
        result = normalize(array, spec)
        assert result.dtype == np.float32
        assert result.flags.c_contiguous
        # Subtracting rounds to half a step of numbers up to 1024, here divided by as little as 1/16.
        assert np.allclose(result, np.moveaxis(expected, -1, axis), rtol=1e-6, atol=2**-10)

    def test_leaves_the_given_array_alone(self) -> None:
        array = np.full((1, 3, 4, 6), 50, dtype=np.float32)
        normalize(array, NCHW)
        assert (array == 50).all()

    def test_result_has_the_models_dtype(self) -> None:
        half = dataclasses.replace(NCHW, dtype="float16")
        assert normalize(np.zeros((1, 3, 4, 6)), half).dtype == np.float16

    def test_a_value_too_large_for_the_dtype_is_refused(self) -> None:
        for spec in (InputSpec("h", (1,), "float16"), InputSpec("h", (1,), "float16", mean=(1,))):
            with pytest.raises(InputError, match="too large for float16"):
                normalize(np.array([70000.0]), spec)


class TestFromCaller:
    @pytest.mark.parametrize("spec", [NCHW, NHWC], ids=["nchw model", "nhwc model"])
    @pytest.mark.parametrize("given_format", ["nhwc", "nchw"])
    @pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "float16", "float32", "float64", "int32", "int64"])
    def test_every_dtype_and_layout_of_one_photo_gives_the_same_input(
        self, spec: InputSpec, given_format: str, dtype: str
    ) -> None:
        array = photo(dtype) if given_format == "nhwc" else photo(dtype).transpose(0, 3, 1, 2)
        expected = (photo("float64") - [10, 20, 30]) / [2, 4, 8]
        if spec.layout == "nchw":
            expected = expected.transpose(0, 3, 1, 2)
        result = from_caller(array, spec, data_format=given_format)
        assert result.dtype == np.float32
        assert result.flags.c_contiguous
        assert np.array_equal(result, expected.astype(np.float32))

    def test_pass_through_leaves_out_mean_and_std(self) -> None:
        result = from_caller(photo(), NCHW, pass_through=True)
        assert np.array_equal(result, photo("float32").transpose(0, 3, 1, 2))

    def test_a_missing_batch_is_added_and_told_once(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "engine"):
            for _ in range(3):
                result = from_caller(photo()[0], NCHW)
        assert np.array_equal(result, from_caller(photo(), NCHW))
        assert [r.getMessage() for r in caplog.records] == [
            "input 'x': expected 4 dimensions, got shape (4, 6, 3); a batch of 1 was added"
        ]

    def test_an_nhwc_models_own_shape_called_nchw_is_taken_as_it_is(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "engine"):
            result = from_caller(photo(), NHWC, data_format="nchw")
        assert np.array_equal(result, from_caller(photo(), NHWC))
        assert "taken as nhwc" in caplog.text

    def test_a_wrong_layout_is_refused_with_the_way_out(self) -> None:
        with pytest.raises(InputError) as caught:
            from_caller(np.zeros((1, 3, 48, 192)), InputSpec("x", (1, 3, 48, 192)))
        message = str(caught.value)
        assert message.startswith("input 'x': expected nhwc (1, 48, 192, 3), got (1, 3, 48, 192) (")
        assert "data_format='nchw'" in message

    def test_nhwc_data_called_nchw_is_refused_for_an_nchw_model(self) -> None:
        with pytest.raises(InputError, match=r"expected nchw .* \(pass data_format='nhwc'"):
            from_caller(photo(), NCHW, data_format="nchw")

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ([[1, 2]], "expected a numpy array, got list"),
            (None, "expected a numpy array, got NoneType"),
            (np.zeros((2, 4, 6, 3)), "the model's batch is 1"),
            (np.zeros((4, 6)), "expected nhwc (1, 4, 6, 3), got (4, 6)"),
            (np.zeros((1, 4, 6, 3), dtype=complex), "expected numbers, got an array of dtype complex128"),
            (np.full((1, 4, 6, 3), None), "expected numbers, got an array of dtype object"),
            (np.full((1, 4, 6, 3), "a"), "expected numbers, got an array of dtype <U1"),
        ],
    )
    def test_what_is_no_fitting_array_is_refused(self, value: Any, message: str) -> None:
        with pytest.raises(InputError) as caught:
            from_caller(value, NCHW)
        assert message in str(caught.value)

    def test_an_unknown_data_format_is_refused(self) -> None:
        with pytest.raises(InputError, match="unknown data_format 'NWHC'"):
            from_caller(photo(), NCHW, data_format="NWHC")

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite_are_counted_and_located_as_given(self, bad: float) -> None:
        array = photo("float32")
        array[0, 2, 5, 1] = array[0, 3, 0, 0] = bad
        with pytest.raises(InputError, match=r"2 of 72 values are NaN or infinite, the first at index \(0, 2, 5, 1\)"):
            from_caller(array, NCHW)

    @pytest.mark.parametrize(
        ("dtype", "values", "message"),
        [
            ("int64", [1.0, 2.5], r"1 of 2 values have a fraction, the first \(2.5\) at index \(1,\)"),
            ("int64", [1.0, 2.0**63], "do not fit int64"),
            ("int32", [0, 2**31], "values from 0 to 2147483648 do not fit int32"),
            ("uint8", [-1, 3], "values from -1 to 3 do not fit uint8, which holds 0 to 255"),
            ("bool", [0, 2], "values from 0 to 2 do not fit bool, which holds 0 to 1"),
            ("int64", [1.0, np.nan], "1 of 2 values are NaN or infinite"),
        ],
    )
    def test_integer_inputs_never_lose_values_silently(self, dtype: str, values: list[Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            from_caller(np.array(values), InputSpec("v", (2,), dtype))

    def test_whole_floats_become_integers_and_ones_become_bools(self) -> None:
        assert from_caller(np.array([3.0, -4.0]), InputSpec("v", (2,), "int64")).tolist() == [3, -4]
        assert from_caller(np.array([0, 1]), InputSpec("v", (2,), "bool")).tolist() == [False, True]

    def test_a_scalar_input_stays_a_scalar(self) -> None:
        result = from_caller(np.array(5, dtype=np.uint8), InputSpec("s", (), mean=(1.0,)))
        assert result.shape == ()
        assert result == 4

    @pytest.mark.parametrize("spec", [InputSpec("v", (2,)), InputSpec("v", (2,), mean=(0.5,))])
    def test_the_callers_array_can_be_reused_afterwards(self, spec: InputSpec) -> None:
        array = np.ones(2, dtype=np.float32)
        result = from_caller(array, spec)
        before = result.copy()
        array[:] = 99
        assert np.array_equal(result, before)


def test_integers_of_the_source_model_become_the_values_that_they_stand_for() -> None:
    taking = InputSpec("x", (1, 2), grid=Grid("uint8", 0.5, 10))
    real = np.array([[1.0, -5.0]], np.float32)
    assert np.array_equal(normalize(np.array([[12, 0]], np.uint8), taking), real)
    # Other numbers are values already, and so are all once a mean or std is given.
    for dtype in (np.float32, np.int64):
        assert np.array_equal(normalize(np.array([[12, 0]], dtype), taking), [[12, 0]])
    scaled = InputSpec("x", (1, 2), mean=(0.0,), std=(1.0,), grid=Grid("uint8", 0.5, 10))
    assert np.array_equal(normalize(np.array([[12, 0]], np.uint8), scaled), [[12, 0]])


def test_pixels_are_brought_to_a_model_that_takes_them_signed() -> None:
    taking = InputSpec("x", (1, 2), grid=Grid("int8", 0.25, -3))
    assert np.array_equal(normalize(np.array([[128, 0]], np.uint8), taking), [[0.75, -31.25]])
    assert np.array_equal(normalize(np.array([[0, -128]], np.int8), taking), [[0.75, -31.25]])
