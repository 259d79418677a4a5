"""Model settings under the toolkit's names (guide 3.5.2), checked when they are made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import ConfigError, nearest
from engine.targets import Target, find_target

DTYPES = {"asymmetric_quantized-8": "int8", "w8a8": "int8", "asymmetric_quantized-16": "int16"}
ALGORITHMS = ("normal", "mmse", "kl_divergence", "percentile", "auto")
METHODS = ("channel", "layer")

ChannelValues = tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a build.

    mean_values, std_values: one list a model input, one number a channel; a sample becomes (x - mean) / std.
    A flat list is taken as the first input's. Empty: 0 and 1.
    quant_img_RGB2BGR: per input, whether dataset images are turned to BGR first; images only, never npy.
    quantized_dtype: 'asymmetric_quantized-8' (also called 'w8a8') or 'asymmetric_quantized-16'.
    quantized_algorithm: how ranges are found, one of ALGORITHMS. quantized_method: 'channel' or 'layer', for weights.
    equalization, bias_correction: whether weights of neighbouring layers are brought to similar ranges first, and
    whether biases take up the mean error; None leaves it to the algorithm ('auto' tries both, the others do neither).
    float_dtype: 'float16'. optimization_level: 0 to 3. target_platform: a chip, in any case.
    custom_string: text stored in the exported model.

    Raises ConfigError naming the setting and what it may be.
    """

    mean_values: ChannelValues = ()
    std_values: ChannelValues = ()
    quant_img_RGB2BGR: tuple[bool, ...] = ()
    quantized_dtype: str = "asymmetric_quantized-8"
    quantized_algorithm: str = "normal"
    quantized_method: str = "channel"
    float_dtype: str = "float16"
    optimization_level: int = 3
    target_platform: str = "rk3566"
    custom_string: str = ""
    equalization: bool | None = None
    bias_correction: bool | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "mean_values", _channel_values("mean_values", self.mean_values))
        put(self, "std_values", _channel_values("std_values", self.std_values))
        if any(v == 0 for row in self.std_values for v in row):
            raise ConfigError("a std of zero would divide by zero", where="std_values", hint="use 1 for no scaling")
        put(self, "quant_img_RGB2BGR", _flags("quant_img_RGB2BGR", self.quant_img_RGB2BGR))
        _one_of("quantized_dtype", self.quantized_dtype, DTYPES)
        _one_of("quantized_algorithm", self.quantized_algorithm, ALGORITHMS)
        _one_of("quantized_method", self.quantized_method, METHODS)
        _one_of("float_dtype", self.float_dtype, ("float16",))
        level = self.optimization_level
        if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level <= 3:
            raise ConfigError(f"expected 0, 1, 2 or 3, got {level!r}", where="optimization_level")
        put(self, "target_platform", find_target(self.target_platform).name)
        for name in ("equalization", "bias_correction"):
            if not isinstance(getattr(self, name), bool | None):
                raise ConfigError(f"expected True, False or None, got {getattr(self, name)!r}", where=name)
        if not isinstance(self.custom_string, str):
            raise ConfigError(f"expected text, got {type(self.custom_string).__name__}", where="custom_string")
        try:
            stored = self.custom_string.encode()
        except UnicodeEncodeError as error:
            hint = "write plain text"
            raise ConfigError("has characters that cannot be stored", where="custom_string", hint=hint) from error
        if len(stored) > 1023:
            raise ConfigError("longer than the 1023 bytes that a board can return", where="custom_string")

    @property
    def target(self) -> Target:
        """The chip that `target_platform` names."""
        return find_target(self.target_platform)

    @property
    def precision(self) -> str:
        """The precision of a quantized layer: 'int8' or 'int16'."""
        return DTYPES[self.quantized_dtype]

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Config:
        """A Config from names and values, None meaning the default. Raises ConfigError on unknown names."""
        names = [f.name for f in dataclasses.fields(cls)]
        given: dict[str, Any] = {}
        for key, value in settings.items():
            # The guide's table prints the name with this slip; scripts copied from it use it.
            name = "custom_string" if key == "custom_stirng" else key
            if name not in names:
                raise ConfigError(f"unknown setting {key!r}", where="config", hint=nearest(str(key), names))
            if value is not None:
                given[name] = value
        return cls(**given)

    def to_mapping(self) -> dict[str, Any]:
        """Names and values that `from_mapping` takes back."""
        return {
            f.name: _plain(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != f.default
        } | {"target_platform": self.target_platform}


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _one_of(name: str, value: Any, allowed: Sequence[str] | Mapping[str, str]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ConfigError(f"{value!r} is not a choice", where=name, hint=nearest(str(value), list(allowed)))


def _channel_values(name: str, value: Any) -> ChannelValues:
    if value is None:
        return ()
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise ConfigError(f"expected a list of lists of numbers, got {value!r}", where=name)
    rows = [v.tolist() if hasattr(v, "tolist") else v for v in value]
    if rows and not any(hasattr(row, "__iter__") for row in rows):
        rows = [rows]
    result = []
    for row in rows:
        if isinstance(row, (str, bytes)) or not hasattr(row, "__iter__"):
            raise ConfigError("mixes numbers and lists", where=name, hint="give one list a model input")
        numbers = []
        for item in row:
            if isinstance(item, bool) or not isinstance(item, (int, float)) or not math.isfinite(item):
                raise ConfigError(f"expected finite numbers, got {item!r}", where=name)
            numbers.append(float(item))
        if not numbers:
            raise ConfigError("an input's list is empty", where=name)
        result.append(tuple(numbers))
    return tuple(result)


def _flags(name: str, value: Any) -> tuple[bool, ...]:
    rows = [value] if isinstance(value, bool) else value
    if not isinstance(rows, (list, tuple)) or not all(isinstance(v, bool) for v in rows):
        raise ConfigError(f"expected True, False or a list of them, got {value!r}", where=name)
    return tuple(rows)
