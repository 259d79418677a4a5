"""Work that an executor may do elsewhere: a quantized model and its samples as a parcel, and jobs done with it.

Any object with `submit(function, *arguments)` that gives back futures will do: the pools of `concurrent.futures`, or a
cluster's. Processes must be spawned, not forked: ONNX Runtime's threads do not survive a fork. Jobs are functions of a
module; a parcel travels as ONNX bytes, cfg text and arrays. Results do not depend on where or in what order jobs are
done.
"""

from __future__ import annotations

import functools
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import onnx
import onnx_ir as ir

from engine.graph.layers import layers
from engine.ort import serialize
from engine.quantization.quantized import Corrections, Quantized
from engine.quantization.samples import Sample
from engine.quantization.table import from_cfg, to_cfg

Array = np.ndarray[Any, Any]
Groups = tuple[tuple[Sample, ...], ...]
_Result = TypeVar("_Result")
_State = TypeVar("_State")


class Executor(Protocol):
    """What evaluates jobs; its futures have `result()` and `cancel()`."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        """Have `function(*arguments)` done; returns a future."""


class Parcel:
    """A quantized model with groups of samples, and what was made from them by each thread that worked with it."""

    def __init__(self, quantized: Quantized, *samples: Sequence[Sample], token: str = "") -> None:
        self.quantized = quantized
        self.samples: Groups = tuple(tuple(group) for group in samples)
        self._token = token or uuid.uuid4().hex
        self._states: dict[Any, Any] = {}

    def state(self, make: Callable[[Parcel], _State]) -> _State:
        """`make(self)`, made once in each thread: sessions keep their tensors, and so serve one thread."""
        key = (threading.get_ident(), make)
        if key not in self._states:
            self._states[key] = make(self)
        state: _State = self._states[key]
        return state

    @functools.cached_property
    def _model(self) -> bytes:
        return serialize(self.quantized.model)

    def __reduce__(self) -> tuple[Callable[..., Parcel], tuple[Any, ...]]:
        quantized = self.quantized
        corrections = (dict(quantized.corrections.weights), dict(quantized.corrections.biases))
        samples = tuple(tuple(dict(sample) for sample in group) for group in self.samples)
        return _arrive, (self._token, self._model, to_cfg(quantized.table), quantized.method, *corrections, samples)


# The last parcel that came to this process: its jobs come one after the other.
_ARRIVED: dict[str, Parcel] = {}
_ARRIVING = threading.Lock()


def _arrive(
    token: str,
    model: bytes,
    cfg: str,
    method: str,
    weights: Mapping[str, Array],
    biases: Mapping[str, Array],
    samples: Groups,
) -> Parcel:
    with _ARRIVING:
        if token not in _ARRIVED:
            graph = ir.from_proto(onnx.load_from_string(model))
            quantized = Quantized(graph, layers(graph), from_cfg(cfg), method, Corrections(weights, biases))
            _ARRIVED.clear()
            _ARRIVED[token] = Parcel(quantized, *samples, token=token)
        return _ARRIVED[token]


def run_jobs(
    job: Callable[..., _Result],
    arguments: Sequence[tuple[Any, ...]],
    executor: Executor | None,
    take: Callable[[int, _Result], None] = lambda index, result: None,
) -> list[_Result]:
    """The results of `job` for each of `arguments`, in order; without an executor, one after the other here.

    `take` hears each result in that order and may raise, which calls off the jobs that wait.
    """
    results: list[_Result] = []
    futures = [] if executor is None else [executor.submit(job, *one) for one in arguments]
    try:
        for index, one in enumerate(arguments):
            results.append(futures[index].result() if futures else job(*one))
            take(index, results[-1])
    finally:
        for future in futures:
            future.cancel()
    return results
