"""Live evaluation: what a change of precisions or ranges does to a model, told as soon as its layers have run again."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from engine.analysis.distances import error_pair, sum_squared_differences, sum_squares
from engine.analysis.judging import Judge
from engine.errors import InputError, QuantizationError, nearest
from engine.progress import Progress
from engine.quantization.edits import Edits, edited
from engine.quantization.quantized import Quantized
from engine.simulator.stepwise import Stepwise, float_tensors
from engine.summaries import ErrorPair, LiveReport, Quality
from engine.targets import Target

Array = np.ndarray[Any, Any]


class Live:
    """A quantized model that is changed and measured on some samples (normalized inputs by name), over and over.

    All tensors between layers are kept, of the float model and of the quantized one, so that a change runs what lies
    downstream and nothing else; 4 bytes a value, twice for each sample. Results are those of a model that was built
    anew, to the last bit. Edits leave corrected biases as they are: `take` brings others. Not for use by several
    threads at a time. Raises InputError for samples that do not fit the model, and Cancelled.
    """

    def __init__(
        self,
        quantized: Quantized,
        samples: Sequence[Mapping[str, Array]],
        target: Target,
        progress: Progress | None = None,
    ) -> None:
        if not samples:
            raise InputError("live evaluation needs a sample")
        self._base = self._quantized = quantized
        self._target = target
        self._golden = float_tensors(quantized, samples, progress)
        self._judge = Judge(quantized, samples, golden=self._golden_value)
        self._stepwise = Stepwise(quantized, samples, progress=progress)
        self._quality = self._judge.quality(self._value)
        between = [*(v.name or "" for v in quantized.model.graph.inputs)]
        between += [name for layer in quantized.layers for name in layer.outputs]
        first = self._golden[0]
        self._comparable = [name for name in between if first[name].dtype == np.float32 and first[name].size]
        self._squares: dict[str, float] = {}
        self._errors: dict[str, ErrorPair] = {}

    @property
    def quantized(self) -> Quantized:
        """The model with the changes that were applied last."""
        return self._quantized

    @property
    def quality(self) -> Quality:
        """How near its outputs are to the float model's."""
        return self._quality

    def apply(self, edits: Edits, progress: Progress | None = None) -> LiveReport:
        """Change the model that was taken last as `edits` say, which are all edits and not those since the last call.

        To undo, apply the edits before. Raises QuantizationError for edits that cannot be, ModelError, and Cancelled;
        nothing is changed then.
        """
        return self._change(edited(self._base, edits, self._target), progress)

    def take(self, quantized: Quantized, progress: Progress | None = None) -> LiveReport:
        """Go on with another quantization of the same graph, such as one with other biases; edits change this one then.

        Raises QuantizationError for another graph, ModelError, and Cancelled; nothing is changed then.
        """
        if quantized.model is not self._base.model:
            raise QuantizationError("live evaluation cannot change to another graph", hint="start it anew")
        report = self._change(quantized, progress)
        self._base = quantized
        return report

    def reset(self, progress: Progress | None = None) -> LiveReport:
        """Go back to the model that was taken last, without edits."""
        return self._change(self._base, progress)

    def value(self, sample: int, tensor: str) -> Array:
        """A tensor between layers as it is stored; a view that the next change overwrites."""
        self._settle()
        return self._value(sample, tensor)

    def errors(self, layers: Iterable[str] | None = None) -> dict[str, ErrorPair]:
        """What AccuracyReport calls the entire errors, over all samples, of some layers and inputs; by default of all.

        Further outputs of a layer go by their own names; those that hold integers or nothing are left out. What did not
        change since it was last asked for is not computed again. Raises QuantizationError for unknown names.
        """
        names = self._comparable if layers is None else list(dict.fromkeys(layers))
        unknown = next((name for name in names if name not in self._golden[0]), None)
        if unknown is not None:
            raise QuantizationError(
                "the model has no such layer", where=f"layer {unknown!r}", hint=nearest(unknown, self._golden[0])
            )
        self._settle()
        comparable = set(self._comparable)
        names = [name for name in names if name in comparable]
        missing = [name for name in names if name not in self._errors]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self._errors.update(zip(missing, pool.map(self._error, missing), strict=True))
        return {name: self._errors[name] for name in names}

    def _change(self, quantized: Quantized, progress: Progress | None) -> LiveReport:
        started = time.perf_counter()
        layers = self._stepwise.update(quantized, progress=progress)
        self._quantized = quantized
        self._forget([*(v.name or "" for v in quantized.model.graph.inputs)])
        for layer in layers:
            self._forget(layer.outputs)
        self._quality = self._judge.quality(self._value)
        return LiveReport(self._quality, tuple(layer.name for layer in layers), time.perf_counter() - started)

    def _settle(self) -> None:
        """Finish what a change that failed or was cancelled left half done, by going back."""
        self._stepwise.update(self._quantized)

    def _forget(self, names: Collection[str]) -> None:
        for name in names:
            self._errors.pop(name, None)

    def _error(self, name: str) -> ErrorPair:
        pairs = [(golden[name], self._value(index, name)) for index, golden in enumerate(self._golden)]
        if name not in self._squares:
            self._squares[name] = sum(sum_squares(golden) for golden, _ in pairs)
        qq = sum(sum_squares(stored) for _, stored in pairs)
        dd = sum(sum_squared_differences(golden, stored) for golden, stored in pairs)
        return error_pair(self._squares[name], qq, dd)

    def _value(self, sample: int, tensor: str) -> Array:
        return self._stepwise.value(sample, tensor)

    def _golden_value(self, sample: int, tensor: str) -> Array:
        return self._golden[sample][tensor]
