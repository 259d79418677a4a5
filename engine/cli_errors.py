"""The engine's errors in the words of the command line: options where the engine names its arguments."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from engine.cli_options import OPTION_OF_SETTING
from engine.errors import EngineError

_OPTION_OF_ARGUMENT = OPTION_OF_SETTING | {
    "inputs": "--input",
    "input_size_list": "--input-size",
    "outputs": "--output",
    "dataset": "--dataset",
    "do_quantization": "--float16",
    "rknn_batch_size": "--batch",
    "batch": "--batch",
    "cores": "--cores",
    "data_format": "--data-format",
    "inputs_pass_through": "--pass-through",
    "output_dir": "--output-dir",
    "proposal_dataset_size": "--proposal",
}
_OF_THE_MODEL = ("inputs", "input_size_list", "outputs", "rknn_batch_size")
# A Python argument in a hint: `outputs`, or rknn_batch_size=1, or the one that no other word looks like.
_IN_HINT = re.compile(r"`(?P<quoted>\w+)`|\b(?P<given>\w+)=(?P<value>'\w+'|\d+)|\b(?P<bare>output_dir)\b")


@contextlib.contextmanager
def in_options(model: str) -> Iterator[None]:
    """Let errors that leave the block say which option is meant, see `in_option_words`."""
    try:
        yield
    except EngineError as error:
        in_option_words(error, model)
        raise


def in_option_words(error: EngineError, model: str) -> EngineError:
    """`error` itself, changed to say which option is meant; one of cutting also names the file `model`."""
    error.where = _where(error, model)
    error.hint = _hint(error.hint)
    return error


def _where(error: EngineError, model: str) -> str:
    if error.where == "config":
        # The fault begins with the setting's name.
        return OPTION_OF_SETTING.get(re.split(r"\W", error.what)[0], error.where)
    match = re.fullmatch(r"(\w+)( for .*)?", error.where)
    option = _OPTION_OF_ARGUMENT.get(match[1]) if match else None
    if match is None or option is None:
        return error.where
    place = option + (match[2] or "")
    return f"{model}, {place}" if match[1] in _OF_THE_MODEL else place


def _hint(hint: str) -> str:
    if "input_size_list=" in hint:
        return "--input-size 1,3,224,224, once for each input"

    def option(match: re.Match[str]) -> str:
        name = match["quoted"] or match["given"] or match["bare"]
        if name not in _OPTION_OF_ARGUMENT:
            return match[0]
        value = (match["value"] or "").strip("'")
        return f"{_OPTION_OF_ARGUMENT[name]} {value}".rstrip()

    return _IN_HINT.sub(option, hint)
