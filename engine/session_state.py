"""What a session holds from call to call, how samples get to it, and what it says of itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.builds import Built, Loaded, assemble
from engine.config import Config
from engine.errors import InputError, OrderError
from engine.files.stored import Stored
from engine.graph.describe import count_parameters, describe_layers, describe_tensor, source_opset
from engine.graph.given import given
from engine.quantization.dataset import Dataset, read_sample
from engine.quantization.preprocessing import input_specs
from engine.quantization.quantize import float_values
from engine.quantization.quantized import Quantized
from engine.quantization.samples import Sample, Samples
from engine.quantization.traffic import traffic
from engine.simulator.runner import Simulator
from engine.summaries import ModelSummary
from engine.tuning.search import Tuned

Array = np.ndarray[Any, Any]
SampleList = str | Path | Sequence[Sequence[str | Path | Array]]
"""A dataset file, or one list a sample with one file (jpg, png, bmp, npy) or array a model input."""


class SessionState:
    """The model that was loaded, what was built of it, and what was found by tuning it."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._model: Loaded | None = None
        self._built: Built | None = None
        self._simulator: Simulator | None = None
        self._tuned: Tuned | None = None

    def summary(self) -> ModelSummary:
        """The loaded model's inputs, outputs and layers."""
        loaded, built = self._require_loaded("summary"), self._built
        model = loaded.model if built is None else built.quantized.model
        return ModelSummary(
            loaded.path,
            loaded.framework,
            source_opset(model),
            loaded.inputs if built is None else tuple(describe_tensor(v) for v in model.graph.inputs),
            tuple(describe_tensor(v) for v in model.graph.outputs),
            describe_layers(
                model,
                loaded.layers if built is None else built.quantized.layers,
                None if built is None else _computing(built.quantized),
            ),
            count_parameters(model),
            self.config.target_platform if built is None else built.config.target_platform,
            "" if built is None else built.stored.precision,
            quantized=sum(given(value) is not None for value in float_values(model)),
        )

    def release(self) -> None:
        """Let go of the model and everything made from it."""
        self._model = self._built = self._simulator = self._tuned = None

    def _take_stored(self, stored: Stored, path: str, framework: str) -> None:
        """Hold what was read from a file as if it had been loaded and built here."""
        quantized = stored.quantized
        tensors = tuple(describe_tensor(v) for v in quantized.model.graph.inputs)
        built = assemble(stored, tensors)
        self.release()
        self.config, self._built = stored.config, built
        self._model = Loaded(path, framework, quantized.model, quantized.layers, tensors)

    def _sample(self, inputs: Any, config: Config) -> Sample:
        """One sample from files or arrays, normalized."""
        if not isinstance(inputs, (list, tuple)):
            hint = f"use [{str(inputs)!r}]" if isinstance(inputs, (str, Path)) else ""
            raise InputError(
                f"expected a list with one file a model input, got {type(inputs).__name__}", where="inputs", hint=hint
            )
        return read_sample(inputs, input_specs(config, self._require_loaded("samples").inputs))

    def _samples(self, samples: SampleList, config: Config) -> Samples:
        """Samples from a dataset file, or from a list of lists."""
        if isinstance(samples, (str, os.PathLike)):
            specs = input_specs(config, self._require_loaded("samples").inputs)
            return Samples(Dataset(Path(samples), specs))
        if not isinstance(samples, (list, tuple)):
            raise InputError(
                f"expected a dataset file or a list of samples, got {type(samples).__name__}", where="samples"
            )
        return Samples([self._sample(sample, config) for sample in samples])

    def _require_loaded(self, what: str) -> Loaded:
        if self._model is None:
            raise OrderError("no model is loaded", where=what, hint="load one first")
        return self._model

    def _require_built(self, what: str) -> Built:
        self._require_loaded(what)
        if self._built is None:
            raise OrderError("the model is not built", where=what, hint="call build first")
        return self._built

    def _require_quantized(self, what: str) -> Built:
        built = self._require_built(what)
        if built.stored.precision == "float16":
            raise OrderError("a float16 build is not quantized", where=what, hint="build with a dataset")
        return built


def path_from(value: Any, where: str) -> Path:
    """A caller's path. Raises InputError for anything else."""
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"expected a path, got {type(value).__name__}", where=where)
    return Path(value)


def _computing(quantized: Quantized) -> Callable[[str], str]:
    """What each layer computes in."""
    found = {name: one.computes for name, one in traffic(quantized).items()}
    return lambda name: found.get(name, "")
