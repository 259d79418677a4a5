"""The options that say how a model is built: on the command line, in a YAML file, and the two put together."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.config import ALGORITHMS, DTYPES, METHODS, Config
from engine.errors import ConfigError, EngineError, FileError, nearest
from engine.targets import TARGETS

MAX_CONFIG_FILE_BYTES = 1 << 20
_MODEL = re.compile(r"\.(rknn|onnx|model|tflite|lite|pb|pt|pth|torchscript|prototxt|caffemodel|weights|cfg)$", re.I)

OPTION_OF_SETTING = {
    "mean_values": "--mean",
    "std_values": "--std",
    "quant_img_RGB2BGR": "--rgb2bgr",
    "quantized_dtype": "--dtype",
    "quantized_algorithm": "--algorithm",
    "quantized_method": "--method",
    "equalization": "--equalization",
    "bias_correction": "--bias-correction",
    "float_dtype": "--float-dtype",
    "optimization_level": "--optimization-level",
    "target_platform": "--target",
    "custom_string": "--custom-string",
}
# What a project file remembers besides; these are the app's.
_PASSED_OVER = ("sample", "cfg", "board")
_SETTINGS = tuple(field.name for field in dataclasses.fields(Config))


class UsageError(EngineError):
    """A command line that asks for something that does not exist or does not go together."""


@dataclasses.dataclass(frozen=True)
class JobOptions:
    """How to load and build a model; the fields are the arguments of `Session.load` and `Session.build`."""

    config: Config = dataclasses.field(default_factory=Config)
    inputs: tuple[str, ...] | None = None
    input_size_list: tuple[tuple[int, ...], ...] | None = None
    outputs: tuple[str, ...] | None = None
    weights: str | None = None
    dataset: str | None = None
    float16: bool = False
    batch: int = 1

    def to_mapping(self) -> dict[str, Any]:
        """The options as plain data: the config under 'config', the rest under their names, None where not given."""
        return {
            "config": self.config.to_mapping(),
            "inputs": None if self.inputs is None else list(self.inputs),
            "input_size_list": None if self.input_size_list is None else [list(s) for s in self.input_size_list],
            "outputs": None if self.outputs is None else list(self.outputs),
            "weights": self.weights,
            "dataset": self.dataset,
            "float16": self.float16,
            "batch": self.batch,
        }


def add_job_arguments(parser: argparse.ArgumentParser, *, several_targets: bool = False) -> None:
    """Let `parser` take every option that `job_options` reads; with `several_targets`, --target fills `targets`."""
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--input", action="append", metavar="NAME", help="start the model at this tensor; once for each, in order"
    )
    model.add_argument(
        "--input-size",
        action="append",
        type=_size,
        metavar="N,C,H,W",
        help="the shape of an input, in order: of each --input, or else of the model's own inputs",
    )
    model.add_argument("--output", action="append", metavar="NAME", help="end the model at this tensor; repeatable")
    model.add_argument(
        "--weights", metavar="FILE", help="a caffemodel or Darknet weights, where they do not lie beside the model"
    )
    data = parser.add_argument_group("how samples become inputs")
    data.add_argument(
        "--mean", action="append", type=_numbers, metavar="M,M,M", help="subtracted, one a channel; once for each input"
    )
    data.add_argument(
        "--std", action="append", type=_numbers, metavar="S,S,S", help="divided by, one a channel; once for each input"
    )
    data.add_argument(
        "--rgb2bgr",
        action="append",
        type=flags,
        metavar="YES,NO",
        help="turn image files to BGR first; bare for the first input, or --rgb2bgr=yes,no for each",
    )
    build = parser.add_argument_group("how the model is built")
    build.add_argument("--dataset", metavar="FILE", help="text file that lists the calibration samples: int8")
    build.add_argument("--float16", action="store_true", default=None, help="do not quantize; needs no dataset")
    build.add_argument("--batch", type=positive, metavar="N", help="frames in one inference (default 1)")
    chips = f"{', '.join(TARGETS)} (default {Config.target_platform})"
    if several_targets:
        parser.set_defaults(target=None)
        build.add_argument(
            "--target",
            action="extend",
            type=_words,
            dest="targets",
            metavar="CHIP,...",
            help=f"several side by side, all for every one: {chips}",
        )
    else:
        build.add_argument("--target", metavar="CHIP", help=chips)
    build.add_argument("--dtype", metavar="TYPE", help=f"{', '.join(DTYPES)} (default {Config.quantized_dtype})")
    build.add_argument(
        "--algorithm", metavar="NAME", help=f"{', '.join(ALGORITHMS)}: how ranges are found (default normal)"
    )
    build.add_argument("--method", help=f"{' or '.join(METHODS)}: one weight scale for each (default channel)")
    build.add_argument(
        "--equalization",
        action=argparse.BooleanOptionalAction,
        help="bring weights of neighbouring layers to similar ranges first (auto tries both, the others do not)",
    )
    build.add_argument(
        "--bias-correction",
        action=argparse.BooleanOptionalAction,
        help="let biases take up the mean error (auto tries both, the others do not)",
    )
    build.add_argument("--float-dtype", metavar="TYPE", help="float16, the only one")
    build.add_argument("--optimization-level", type=_level, metavar="0..3", help="graph rewriting (default 3: all)")
    build.add_argument("--custom-string", metavar="TEXT", help="text stored in the package")
    build.add_argument("--config", metavar="FILE.yaml", help="read options from a file; those given here win")


def expand_arguments(words: Sequence[str]) -> list[str]:
    """`words` with what argparse would misread written out: bare flags, and values that begin with a minus."""
    expanded: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*expanded, word, *rest]
        if word in ("--rgb2bgr", "--pass-through"):
            word = f"{word}=yes"
        elif word == "--device":
            name = _device_word(rest)
            word, rest = f"--device={name}", rest[1:] if name else rest
        elif word in ("--mean", "--std", "--range") and rest and re.match(r"-[\d.]", rest[0]):
            word = f"{word}={rest.pop(0)}"
        elif word == "--proposal":
            # A file's name may follow as well as a number.
            word = f"{word}={rest.pop(0) if rest and re.fullmatch(r'[-+]?[0-9.]+', rest[0]) else 1}"
        expanded.append(word)
    return expanded


def _device_word(rest: Sequence[str]) -> str:
    """The id after a `--device`, before the words `rest`; '' where it stands alone and a model or option follows."""
    if not rest or rest[0].startswith("-") or _MODEL.search(rest[0]) or Path(rest[0]).is_file():
        return ""
    return rest[0]


def job_options(arguments: argparse.Namespace) -> JobOptions:
    """The options of a command line, over those of its --config file.

    Raises UsageError for what the command line gets wrong, ConfigError and FileError for what the file does.
    """
    given = {
        "mean_values": arguments.mean,
        "std_values": arguments.std,
        "quant_img_RGB2BGR": None if arguments.rgb2bgr is None else [flag for row in arguments.rgb2bgr for flag in row],
        "quantized_dtype": arguments.dtype,
        "quantized_algorithm": arguments.algorithm,
        "quantized_method": arguments.method,
        "equalization": arguments.equalization,
        "bias_correction": arguments.bias_correction,
        "float_dtype": arguments.float_dtype,
        "optimization_level": arguments.optimization_level,
        "target_platform": arguments.target,
        "custom_string": arguments.custom_string,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    try:
        config = Config.from_mapping(settings)
    except ConfigError as error:
        raise UsageError(error.what, where=OPTION_OF_SETTING.get(error.where, error.where), hint=error.hint) from error
    names, sizes = arguments.input, arguments.input_size
    if names and sizes and len(names) != len(sizes):
        raise UsageError(
            f"{len(names)} --input but {len(sizes)} --input-size",
            hint="give one size for each, in order",
        )
    fields = {
        "inputs": _tuple(names),
        "input_size_list": _tuple(sizes),
        "outputs": _tuple(arguments.output),
        "weights": arguments.weights,
        "dataset": arguments.dataset,
        "float16": arguments.float16,
        "batch": arguments.batch,
    }
    if arguments.config is not None:
        file_settings, file_fields = read_config_file(arguments.config)
        config = Config.from_mapping(file_settings | settings)
        if arguments.dataset is not None:
            # A dataset asked for here means int8, whatever the file prefers.
            file_fields.pop("float16", None)
        fields = {name: file_fields.get(name) if value is None else value for name, value in fields.items()}
    return JobOptions(config, **{name: value for name, value in fields.items() if value is not None})


def read_config_file(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings (names of `Config`) and the job's fields (names of `JobOptions`) that a YAML file holds, such as the
    app's project file.

    The paths of a dataset and of weights are relative to the file's folder. Raises FileError when the file cannot be
    read, ConfigError naming the line or setting that is wrong.
    """
    where = str(path)
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_CONFIG_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(f"the config file cannot be read: {reason}", where=where) from error
    if len(content) > MAX_CONFIG_FILE_BYTES:
        raise FileError("larger than 1 MB: this is no config file", where=where)
    from engine.plain_yaml import read_yaml

    document = read_yaml(content, where)
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError("expected 'name: value' lines", where=where, hint="for instance: target_platform: rk3588")
    settings: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    for key, value in document.items():
        if key in _FIELD_READERS:
            if value is not None:
                fields[key] = _read_field(key, value, where)
        elif key in _PASSED_OVER:
            continue
        elif key in _SETTINGS or key == "custom_stirng":
            settings[key] = value
        else:
            raise ConfigError(
                f"unknown setting {key!r}", where=where, hint=nearest(str(key), [*_SETTINGS, *_FIELD_READERS])
            )
    try:
        Config.from_mapping(settings)
    except ConfigError as error:
        raise ConfigError(error.what, where=f"{where}: {error.where}", hint=error.hint) from error
    for name in ("dataset", "weights"):
        if name in fields:
            fields[name] = str(Path(path).parent / fields[name])
    return {name: value for name, value in settings.items() if value is not None}, fields


def _read_field(key: str, value: Any, where: str) -> Any:
    expected, read = _FIELD_READERS[key]
    try:
        return read(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"expected {expected}, got {value!r:.80}", where=f"{where}: {key}") from error


def _read_names(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise TypeError
    return tuple(names)


def _read_sizes(value: Any) -> tuple[tuple[int, ...], ...]:
    if not isinstance(value, list) or not value:
        raise TypeError
    rows = value if isinstance(value[0], list) else [value]
    return tuple(tuple(_read_count(size) for size in row) for row in rows)


def _read_text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value


def _read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _read_count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise TypeError
    return value


_FIELD_READERS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "inputs": ("a list of tensor names", _read_names),
    "input_size_list": ("a list of lists of positive integers", _read_sizes),
    "outputs": ("a list of tensor names", _read_names),
    "weights": ("the path of a file", _read_text),
    "dataset": ("the path of a text file", _read_text),
    "float16": ("true or false", _read_flag),
    "batch": ("a positive integer", _read_count),
}


def _tuple(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, got {text!r}") from error


def _size(text: str) -> tuple[int, ...]:
    try:
        return tuple(_read_count(int(part)) for part in re.split("[,x]", text.strip("[] ")))
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"expected positive integers such as 1,3,48,192, got {text!r}") from error


def _level(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected 0, 1, 2 or 3, got {text!r}")
    return int(text)


def flags(text: str) -> list[bool]:
    """The answers in `yes,no`, one for each input. Raises argparse.ArgumentTypeError."""
    words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    try:
        return [words[part.strip().lower()] for part in text.split(",")]
    except KeyError as error:
        raise argparse.ArgumentTypeError(f"expected yes or no for each input, got {text!r}") from error


def positive(text: str) -> int:
    """A whole number from 1 on. Raises argparse.ArgumentTypeError."""
    try:
        return _read_count(int(text))
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}") from error
