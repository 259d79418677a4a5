"""The errors that the engine raises: each says what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EngineError(Exception):
    """Base of every error that a user can cause or cure.

    `what` is the fault in one sentence, `where` names the file, node, tensor or line, `hint` says what to do.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} ({self.hint})" if self.hint else text


class ConfigError(EngineError):
    """A setting that does not exist, has a wrong value, or does not fit the model."""


class ModelError(EngineError):
    """A model file or graph that cannot be read, understood or run."""


class UnsupportedOperator(ModelError):
    """The model uses operators that nothing here can run; the message lists all of them."""


class DatasetError(EngineError):
    """The calibration dataset, or a sample of it, cannot be used."""


class InputError(EngineError):
    """Inference inputs of the wrong count, shape, dtype or layout."""


class QuantizationError(EngineError):
    """Quantization parameters that are missing or impossible."""


class OrderError(EngineError):
    """A call that needs an earlier call first."""


class FileError(EngineError):
    """A file that cannot be read or written, or is not what it claims to be."""


class DeviceError(EngineError):
    """A board, or the way to it, refuses or fails; `where` names the board."""


class DeviceLostError(DeviceError):
    """The board is gone, or was never there: unplugged, switched off, or its connection ended."""


class DeviceTimeoutError(DeviceError):
    """The board, or a call of its runtime, did not answer in time."""


class NotYetError(EngineError):
    """A documented call that this version does not do yet."""


class Cancelled(EngineError):
    """The job was cancelled; nothing was written."""

    def __init__(self, stage: str = "") -> None:
        super().__init__("cancelled", where=stage)


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """A hint that names the `known` names most like `name`, or lists the first few when none is."""
    names = list(dict.fromkeys(known))
    lower = {n.lower(): n for n in names}
    close = [lower[m] for m in difflib.get_close_matches(name.lower(), lower, n=count, cutoff=0.5)]
    if close:
        return "did you mean " + " or ".join(repr(n) for n in close) + "?"
    shown = ", ".join(repr(n) for n in names[:8])
    return f"known: {shown}" + (", …" if len(names) > 8 else "")
