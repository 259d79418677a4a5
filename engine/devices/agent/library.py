"""The vendor's runtime as a library: its functions, what its errors mean, and how a model is opened with it."""

from __future__ import annotations

import ctypes
import pathlib
from typing import Any

from . import layouts

_NEEDED = ("init", "destroy", "query", "inputs_set", "run", "outputs_get", "outputs_release")


class ModelFault(Exception):
    """A call of the runtime that failed: `code` is the runtime's own number, 0 where it has none; `what` says what is
    wrong, and `hint` what to do."""

    def __init__(self, code: int, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.code, self.what, self.hint = code, what, hint


def fault_of(call: str, code: int) -> ModelFault:
    """The fault for an error code of a function of the runtime."""
    meaning, hint = layouts.ERRORS.get(code, ("the runtime does not say why", "see what the runtime printed"))
    return ModelFault(code, f"{call} failed with {code}: {meaning}", hint)


class Library:
    """The runtime's functions; some are missing in old versions, and in the one of small chips."""

    def __init__(self, path: str) -> None:
        try:
            self._functions = ctypes.CDLL(path)
        except OSError as error:
            raise ModelFault(
                0,
                f"the runtime cannot be loaded: {error}",
                "it has to be built for the architecture of the board's Python",
            ) from None
        self.path = path
        self.mini = "rknnmrt" in pathlib.PurePath(path).name
        self.context = layouts.context_type()
        missing = [name for name in _NEEDED if not self.has(name)]
        if missing:
            raise ModelFault(
                0,
                f"{path} is no runtime that can be used: it has no rknn_{missing[0]}",
                "librknnrt.so of the vendor's runtime is needed; chips whose runtime takes inputs by shared memory "
                "alone need the vendor's own programs"
                if self.mini
                else "librknnrt.so of the vendor's runtime is needed",
            )
        word, pointer = ctypes.c_uint32, ctypes.c_void_p
        context = self.context
        self._declare("init", ctypes.POINTER(context), pointer, word, word, pointer)
        self._declare("destroy", context)
        self._declare("query", context, ctypes.c_int, pointer, word)
        self._declare("inputs_set", context, word, pointer)
        self._declare("run", context, pointer)
        self._declare("outputs_get", context, word, pointer, pointer)
        self._declare("outputs_release", context, word, pointer)
        self._declare("set_core_mask", context, ctypes.c_int)
        self._declare("set_batch_core_num", context, ctypes.c_int)

    def has(self, name: str) -> bool:
        """Whether there is such a function."""
        return hasattr(self._functions, "rknn_" + name)

    def code(self, name: str, *arguments: Any) -> int:
        """Call a function; what it returns."""
        return int(getattr(self._functions, "rknn_" + name)(*arguments))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function. Raises ModelFault where it returns an error."""
        code = self.code(name, *arguments)
        if code < 0:
            raise fault_of("rknn_" + name, code)

    def _declare(self, name: str, *arguments: Any) -> None:
        if self.has(name):
            function = getattr(self._functions, "rknn_" + name)
            function.argtypes, function.restype = arguments, ctypes.c_int


def flags_of(options: dict[str, Any]) -> int:
    """The flags of rknn_init for the options of `open_rknn`. Raises ModelFault."""
    priority = options.get("priority") or "high"
    if priority not in layouts.PRIORITIES:
        raise ModelFault(0, f"there is no priority {priority!r}", "high, medium or low")
    flags = layouts.PRIORITIES[priority]
    if options.get("asynchronous"):
        flags |= layouts.FLAG_ASYNC
    if options.get("perf"):
        flags |= layouts.FLAG_COLLECT_PERF
    return flags


def refuse_what_is_missing(library: Library, options: dict[str, Any]) -> None:
    """Raise ModelFault before the model is loaded for what the runtime could not do afterwards."""
    for option, function, what in (
        ("core_mask", "set_core_mask", "does not let the NPU's cores be chosen"),
        ("batch_cores", "set_batch_core_num", "does not share a batch between cores"),
    ):
        if options.get(option) and not library.has(function):
            hint = "leave the choice to the runtime" if library.mini else "update the runtime on the board"
            raise ModelFault(0, f"this runtime {what}: it has no rknn_{function}", hint)


def choose_cores(library: Library, context: Any, options: dict[str, Any], api: str) -> None:
    """Let a model run on the cores that the options of `open_rknn` name. Raises ModelFault."""
    mask, cores = int(options.get("core_mask") or 0), int(options.get("batch_cores") or 0)
    if mask:
        code = library.code("set_core_mask", context, mask)
        if code < 0:
            fault = fault_of("rknn_set_core_mask", code)
            name = layouts.CORE_MASKS.get(mask, str(mask))
            if code == layouts.PARAMETER_INVALID:
                raise ModelFault(
                    code,
                    f"rknn_set_core_mask failed with {code}: this chip, or its runtime {api}, has no choice of cores "
                    f"{name}",
                    "leave the choice to the runtime (NPU_CORE_AUTO)",
                )
            raise fault
    if cores:
        library.call("set_batch_core_num", context, cores)
