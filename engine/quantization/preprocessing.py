"""What happens to a sample between the caller's array and the model's input: layout, mean and std, dtype."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.config import Config
from engine.errors import ConfigError, InputError, ModelError
from engine.summaries import Grid, TensorSummary

Array = np.ndarray[Any, Any]

DATA_FORMATS = ("nhwc", "nchw")
# Axes that bring an array of the first layout into the second.
_PERMUTATIONS = {("nhwc", "nchw"): (0, 3, 1, 2), ("nchw", "nhwc"): (0, 2, 3, 1)}


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """A model input as samples must be prepared for it.

    `shape` is the model's own, batch included. `dtype` is a numpy name: 'float32', 'int64', 'bool', …
    `layout` is the model's own, 'nchw' (assumed when not given) or 'nhwc', for four dimensions, else ''.
    `mean` and `std` are empty for none, or hold one number, or one a channel. `rgb2bgr` is for dataset images only.
    `grid` is the integers that the source model takes there, where it came quantized.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    rgb2bgr: bool = False
    grid: Grid | None = None

    def __post_init__(self) -> None:
        if len(self.shape) == 4 and not self.layout:
            object.__setattr__(self, "layout", "nchw")

    @property
    def channel_axis(self) -> int | None:
        """The axis that mean and std run along: by layout in four dimensions, else axis 1 or the only one."""
        if len(self.shape) == 4:
            return 3 if self.layout == "nhwc" else 1
        return min(1, len(self.shape) - 1) if self.shape else None

    @property
    def channels(self) -> int:
        """The size of the channel axis; 1 for a scalar input."""
        axis = self.channel_axis
        return 1 if axis is None else self.shape[axis]

    @property
    def scales(self) -> bool:
        """Whether mean and std change anything."""
        return any(v != 0 for v in self.mean) or any(v != 1 for v in self.std)

    def shape_in(self, data_format: str) -> tuple[int, ...]:
        """The shape that an array of `data_format` ('nhwc' or 'nchw') has; `shape` itself unless it is 4-D."""
        axes = _PERMUTATIONS.get((self.layout, data_format))
        return self.shape if axes is None else tuple(self.shape[axis] for axis in axes)


def input_specs(config: Config, inputs: Sequence[TensorSummary]) -> tuple[InputSpec, ...]:
    """How to prepare samples for `inputs`, in their order, under `config`.

    Inputs for which a setting lists nothing get no mean, no std and no channel swap.
    Raises ConfigError when a setting has more entries than the model has inputs, a list's length differs from the
    input's channels, an integer input is to be scaled, or a channel swap is asked of an input without 3 channels;
    ModelError when an input's dtype is not numeric.
    """
    settings: dict[str, Sequence[Any]] = {
        "mean_values": config.mean_values,
        "std_values": config.std_values,
        "quant_img_RGB2BGR": config.quant_img_RGB2BGR,
    }
    for setting, entries in settings.items():
        if len(entries) > len(inputs):
            raise ConfigError(
                f"{setting} has {_count(len(entries), 'entry', 'entries')}, "
                f"the model has {_count(len(inputs), 'input', 'inputs')}",
                where="config",
                hint="give one entry a model input, in the model's order",
            )
    specs = []
    for index, tensor in enumerate(inputs):
        spec = InputSpec(
            tensor.name,
            tuple(tensor.shape),
            _numeric_dtype(tensor),
            tensor.layout if len(tensor.shape) == 4 else "",
            config.mean_values[index] if index < len(config.mean_values) else (),
            config.std_values[index] if index < len(config.std_values) else (),
            index < len(config.quant_img_RGB2BGR) and config.quant_img_RGB2BGR[index],
            tensor.grid,
        )
        _check_channels(f"mean_values[{index}]", spec.mean, spec)
        _check_channels(f"std_values[{index}]", spec.std, spec)
        if spec.scales and np.dtype(spec.dtype).kind != "f":
            raise ConfigError(
                f"mean_values or std_values scale input {spec.name!r}, whose dtype is {spec.dtype}",
                where="config",
                hint="only float inputs are scaled; use mean 0 and std 1 for this one",
            )
        if spec.rgb2bgr and (len(spec.shape) != 4 or spec.channels != 3):
            raise ConfigError(
                f"quant_img_RGB2BGR[{index}] is True, but input {spec.name!r} of shape {spec.shape} "
                "is no image of 3 channels",
                where="config",
                hint="use False for this input",
            )
        specs.append(spec)
    return tuple(specs)


def normalize(array: Array, spec: InputSpec) -> Array:
    """`(array - mean) / std` along the channel axis, computed in float32; contiguous and of dtype `spec.dtype`.

    `array` is in the model's own layout; its batch may differ from the model's. Without mean and std only the dtype
    changes, and the result may share memory with `array`; but integers that the source model itself would take (those
    of `spec.grid`, or pixels of a model that takes pixels less 128) become the real values that they stand for there.
    Raises InputError when a value does not survive: NaN or infinity, too large, or a fraction for an integer input.
    """
    if not spec.scales:
        stored = _as_stored(array, spec)
        return convert(array if stored is None else stored, spec)
    # Made contiguous first: an image is then reordered as bytes, not as floats.
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.asarray(array, order="C").astype(np.float32)
        if spec.mean:
            scaled -= _along_channels(spec.mean, spec)
        if spec.std:
            scaled /= _along_channels(spec.std, spec)
    if not np.isfinite(scaled).all():
        check_finite(array, spec)
        raise InputError("holds values too large for float32", where=f"input {spec.name!r}")
    return convert(scaled, spec)


def _as_stored(array: Array, spec: InputSpec) -> Array | None:
    """The real values of integers that are the source model's own; None where `array` holds others."""
    grid = spec.grid
    # A mean or std that is given, although it changes nothing, says that the numbers are values.
    if grid is None or spec.mean or spec.std or np.dtype(spec.dtype).kind != "f":
        return None
    if array.dtype == np.uint8 and grid.dtype == "int8":
        note(f"input {spec.name!r} takes int8: 128 is subtracted from the uint8 that it is given; or set mean and std")
        stored = array.astype(np.float32) - 128
    elif str(array.dtype) == grid.dtype:
        stored = array.astype(np.float32)
    else:
        return None
    real: Array = (stored - grid.zero_point) * np.float32(grid.scale)
    return real


def from_caller(value: Any, spec: InputSpec, *, data_format: str = "nhwc", pass_through: bool = False) -> Array:
    """The model's input made from an array that a caller hands to inference.

    `value`, `data_format` and what is refused: see `as_given`. `pass_through` leaves out mean and std. The result has
    the model's own shape, layout and dtype, and its own memory. Raises InputError, also for values that the dtype
    cannot hold.
    """
    own = as_given(value, spec, data_format=data_format)
    result = convert(own, spec) if pass_through else normalize(own, spec)
    # The caller may go on writing into its array, for instance a camera's frame.
    return result.copy() if np.may_share_memory(result, value) else result


def as_given(value: Any, spec: InputSpec, *, data_format: str = "nhwc") -> Array:
    """A caller's array in the model's own shape and layout, its numbers and their dtype as they are; it may be a view.

    `value`: any bool, integer or float array. In four dimensions `data_format` ('nhwc' or 'nchw') is its layout; a
    missing batch of 1 is added. An assumption made about the shape is logged as a warning, once. Raises InputError for
    anything but an array, a wrong shape, NaN or infinity.
    """
    where = f"input {spec.name!r}"
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"expected a numpy array, got {type(value).__name__}", where=where, hint="wrap the values with numpy.array"
        )
    if data_format not in DATA_FORMATS:
        raise InputError(f"unknown data_format {data_format!r}", where=where, hint="use 'nhwc' or 'nchw'")
    check_numeric(value.dtype, spec)
    value = np.asarray(value)
    expected = spec.shape_in(data_format)
    given = value
    if value.ndim == len(expected) - 1 and expected[0] == 1:
        given = value[np.newaxis]
    taken_as = data_format
    if given.shape != expected and data_format == "nchw" and spec.layout == "nhwc" and given.shape == spec.shape:
        taken_as = "nhwc"
        note(
            f"{where}: data_format is 'nchw', but an array of shape {value.shape} only fits as nhwc, the model's own "
            "layout; taken as nhwc"
        )
    elif given.shape != expected:
        raise _wrong_shape(value.shape, given.shape, spec, data_format)
    if given is not value:
        note(f"{where}: expected {len(expected)} dimensions, got shape {value.shape}; a batch of 1 was added")
    check_finite(value, spec)
    return to_own_layout(given, spec, taken_as)


def feeds_from_caller(
    inputs: Sequence[Any] | Mapping[str, Any],
    specs: Sequence[InputSpec],
    *,
    data_format: str | Sequence[str] = "nhwc",
    pass_through: int | Sequence[int] = 0,
) -> dict[str, Array]:
    """A caller's arrays, in the order of `specs` or by name, as the model takes them, by name.

    `data_format` and `pass_through` are one for all inputs or one each. Raises InputError.
    """
    return {
        spec.name: from_caller(array, spec, data_format=layout, pass_through=passed)
        for array, spec, layout, passed in each_input(inputs, specs, data_format, pass_through)
    }


def each_input(
    inputs: Sequence[Any] | Mapping[str, Any],
    specs: Sequence[InputSpec],
    data_format: str | Sequence[str],
    pass_through: int | Sequence[int],
) -> list[tuple[Any, InputSpec, str, bool]]:
    """What a caller says of each input: its array, spec, data format, and whether it is passed through.

    Raises InputError for a wrong count or names.
    """
    arrays = _in_order(inputs, [spec.name for spec in specs])
    formats = _each("data_format", data_format, len(arrays))
    through = _each("inputs_pass_through", pass_through, len(arrays))
    return [
        (array, spec, layout, bool(passed))
        for array, spec, layout, passed in zip(arrays, specs, formats, through, strict=True)
    ]


def _in_order(inputs: Sequence[Any] | Mapping[str, Any], names: list[str]) -> list[Any]:
    if isinstance(inputs, Mapping):
        if sorted(inputs) != sorted(names):
            raise InputError(f"expected inputs {names}, got {list(inputs)}", where="inputs")
        return [inputs[name] for name in names]
    arrays = [inputs] if isinstance(inputs, np.ndarray) else inputs
    if not isinstance(arrays, (list, tuple)):
        raise InputError(f"expected a list of arrays, got {type(inputs).__name__}", where="inputs")
    if len(arrays) != len(names):
        expected = f"{_count(len(names), 'input', 'inputs')} ({', '.join(names)})"
        raise InputError(f"expected {expected}, got {len(arrays)}", where="inputs")
    return list(arrays)


def _each(name: str, value: Any, count: int) -> list[Any]:
    if isinstance(value, (list, tuple)):
        if len(value) != count:
            raise InputError(f"expected one value or {count}, got {len(value)}", where=name)
        return list(value)
    return [value] * count


def to_own_layout(array: Array, spec: InputSpec, data_format: str) -> Array:
    """A view of `array`, which is in `data_format`, in the model's own layout; `array` itself unless it is 4-D."""
    axes = _PERMUTATIONS.get((data_format, spec.layout))
    return array if axes is None else array.transpose(axes)


def convert(array: Array, spec: InputSpec) -> Array:
    """`array` in the model's dtype, contiguous.

    Raises InputError for NaN, infinity, and wherever more than float precision would be lost.
    """
    target = np.dtype(spec.dtype)
    check_finite(array, spec)
    if array.dtype != target and target.kind != "f" and array.size:
        _refuse_loss(array, target, spec)
    with np.errstate(over="ignore"):
        # Not numpy.ascontiguousarray, which turns a scalar into a vector.
        converted = np.asarray(array, dtype=target, order="C")
    if target.kind == "f" and array.dtype != target and not np.isfinite(converted).all():
        raise InputError(f"holds values too large for {target}", where=f"input {spec.name!r}")
    return converted


def check_numeric(dtype: np.dtype[Any], spec: InputSpec) -> None:
    """Raise InputError unless `dtype` is bool, integer or float."""
    if dtype.kind not in "biuf":
        name = "object" if dtype.hasobject else str(dtype)
        raise InputError(f"expected numbers, got an array of dtype {name}", where=f"input {spec.name!r}")


def check_finite(array: Array, spec: InputSpec) -> None:
    """Raise InputError, naming how many values are NaN or infinite and the first one's index, if any is."""
    if array.dtype.kind != "f":
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    bad = array.size - int(np.count_nonzero(finite))
    first = tuple(int(i) for i in np.argwhere(~finite)[0])
    raise InputError(
        f"{bad} of {array.size} values are NaN or infinite, the first at index {first}", where=f"input {spec.name!r}"
    )


@functools.lru_cache(maxsize=1024)
def note(text: str) -> None:
    """Log a warning that a person should read once, however many samples cause it."""
    logging.getLogger("engine").warning("%s", text)


def _refuse_loss(array: Array, target: np.dtype[Any], spec: InputSpec) -> None:
    # Python compares int with float exactly; numpy would round a large int64 to float64 first.
    low, high = array.min().item(), array.max().item()
    least, most = (0, 1) if target.kind == "b" else (np.iinfo(target).min, np.iinfo(target).max)
    if low < least or high > most:
        raise InputError(
            f"values from {low} to {high} do not fit {target}, which holds {least} to {most}",
            where=f"input {spec.name!r}",
        )
    if array.dtype.kind == "f":
        fractions = array != np.rint(array)
        if fractions.any():
            first = tuple(int(i) for i in np.argwhere(fractions)[0])
            raise InputError(
                f"{int(fractions.sum())} of {array.size} values have a fraction, the first "
                f"({array[first].item():g}) at index {first}, but the input's dtype is {target}",
                where=f"input {spec.name!r}",
                hint="round them first, if that is what you mean",
            )


def _along_channels(values: tuple[float, ...], spec: InputSpec) -> Array:
    vector = np.asarray(values, dtype=np.float32)
    if vector.size == 1 or spec.channel_axis is None:
        return vector.reshape(())
    return vector.reshape([-1 if axis == spec.channel_axis else 1 for axis in range(len(spec.shape))])


def _wrong_shape(given: tuple[int, ...], expanded: tuple[int, ...], spec: InputSpec, data_format: str) -> InputError:
    hint = ""
    if spec.layout:
        other = DATA_FORMATS[1 - DATA_FORMATS.index(data_format)]
        if expanded == spec.shape_in(other):
            hint = f"pass data_format={other!r} for an array of that layout"
        elif len(given) == 4 and given[0] != spec.shape[0] and given[1:] == spec.shape_in(data_format)[1:]:
            hint = f"the model's batch is {spec.shape[0]}"
        expected = f"{data_format} {spec.shape_in(data_format)}"
    else:
        expected = str(spec.shape)
    return InputError(f"expected {expected}, got {given}", where=f"input {spec.name!r}", hint=hint)


def _check_channels(setting: str, values: tuple[float, ...], spec: InputSpec) -> None:
    if not values or len(values) == spec.channels:
        return
    four = len(spec.shape) == 4
    if len(values) == 1 and not four:
        return
    raise ConfigError(
        f"{setting} has {_count(len(values), 'value', 'values')}, input {spec.name!r} "
        f"has {_count(spec.channels, 'channel', 'channels')}",
        where="config",
        hint=f"its shape is {spec.shape}" + (f", {spec.layout}" if four else "; one value for all would do too"),
    )


def _numeric_dtype(tensor: TensorSummary) -> str:
    try:
        dtype = np.dtype(tensor.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "biuf":
        raise ModelError(f"its dtype {tensor.dtype!r} cannot be fed", where=f"input {tensor.name!r}")
    return str(dtype.name)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
