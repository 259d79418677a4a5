"""One model on its way from file to report: the typed API that the command line, `RKNN` and the app all use."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.analysis.accuracy import analyze
from engine.analysis.snapshot import Snapshot
from engine.config import Config
from engine.errors import ConfigError, DatasetError, InputError, NotYetError, OrderError
from engine.files import package
from engine.frontends import onnx as onnx_frontend
from engine.frontends.recognition import kind_of
from engine.graph.batching import check_batch, with_batch
from engine.graph.describe import count_parameters, describe_layers, describe_tensor, source_opset
from engine.graph.execution import distance, random_feeds, run_float
from engine.graph.given import given
from engine.graph.layers import Layer, layers
from engine.graph.optimize import optimize
from engine.progress import Progress
from engine.quantization.dataset import Dataset, read_sample
from engine.quantization.preprocessing import InputSpec, feeds_from_caller, input_specs
from engine.quantization.quantize import check_settings, float_values, given_only, quantize, to_float16
from engine.quantization.quantized import Quantized
from engine.quantization.statistics import collect
from engine.quantization.table import Table
from engine.simulator.runner import Simulator
from engine.summaries import AccuracyReport, BuildSummary, ModelSummary, TensorSummary

Array = np.ndarray[Any, Any]
CheckCallback = Callable[[str, float, float], None]
"""Called after each graph pass with its name and the cosine and euclidean distance of the outputs to those before."""

log = logging.getLogger("engine")


@dataclasses.dataclass(frozen=True)
class _Loaded:
    """A model as the front end gave it and the passes left it."""

    path: str
    framework: str
    model: ir.Model
    layers: tuple[Layer, ...]
    inputs: tuple[TensorSummary, ...]


@dataclasses.dataclass(frozen=True)
class _Built:
    """What a build made of the loaded model, and the settings that it was made with.

    `single` takes one sample; `quantized` is the same for `batch` of them at once.
    """

    config: Config
    precision: str
    batch: int
    single: Quantized
    quantized: Quantized
    specs: tuple[InputSpec, ...]


class Session:
    """A model, what was built of it, and what can be asked of it.

    Calls raise EngineError (see `engine.errors`); a failed call leaves the session as it was. A session is used by one
    thread at a time. `on_check`, when given, makes loading slower: it hears how equal each graph pass left the outputs
    on random input. A changed `config` counts from the next build on; what shapes the graph (optimization_level) counts
    when a model is loaded. What was built keeps the settings that it was built with.
    """

    def __init__(self, config: Config | None = None, *, on_check: CheckCallback | None = None) -> None:
        self.config = config or Config()
        self._on_check = on_check
        self._model: _Loaded | None = None
        self._built: _Built | None = None
        self._simulator: Simulator | None = None

    @property
    def table(self) -> Table:
        """The table of the built model. Raises OrderError before `build`."""
        return self._require_built("the table").single.table

    @property
    def model(self) -> ir.Model:
        """The optimized float graph. Raises OrderError before a model is loaded."""
        return self._require_loaded("the graph").model

    def load_onnx(
        self,
        model: str | Path,
        inputs: Sequence[str] | None = None,
        input_size_list: Sequence[Sequence[int]] | None = None,
        outputs: Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> ModelSummary:
        """Read an ONNX model, cut and fixed by tensor names and sizes, and optimize its graph.

        `inputs` are tensors at which the graph is cut and fed; `input_size_list` one shape for each of them (or for the
        model's own inputs, in order, when `inputs` is None); `outputs` the tensors to end at.
        """
        progress = progress or Progress()
        graph = onnx_frontend.load(_path(model, "model"), inputs, input_size_list, outputs, progress)
        tensors = tuple(describe_tensor(v) for v in graph.graph.inputs)
        input_specs(self.config, tensors)  # a mean or std that does not fit is better told now than after calibration
        progress.step("optimize", 0, 1)
        self._optimize(graph)
        progress.step("optimize", 1, 1)
        self.release()
        self._model = _Loaded(str(model), "ONNX", graph, layers(graph), tensors)
        return self.summary()

    def load(
        self,
        path: str | Path,
        inputs: Sequence[str] | None = None,
        input_size_list: Sequence[Sequence[int]] | None = None,
        outputs: Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> ModelSummary:
        """Read a model of any known kind, told by its content: ONNX, or a package written by `export`."""
        file = _path(path, "model")
        kind = kind_of(file)
        if kind == "rknn" or package.is_package(file):
            if inputs or input_size_list or outputs:
                raise ConfigError(
                    "a built package cannot be cut", where=str(path), hint="cut the source model and build it"
                )
            return self.load_rknn(file)
        if kind != "onnx":
            raise NotYetError(f"{kind} models cannot be read yet", where=str(path), hint="convert it to ONNX")
        return self.load_onnx(file, inputs, input_size_list, outputs, progress=progress)

    def load_rknn(self, path: str | Path) -> ModelSummary:
        """Read a package that `export` wrote; it can be run and inspected, and analysed like a fresh build."""
        stored = package.read(_path(path, "path"))
        quantized = stored.quantized
        tensors = tuple(describe_tensor(v) for v in quantized.model.graph.inputs)
        loaded = _Loaded(str(path), "package", quantized.model, quantized.layers, tensors)
        built = _build(loaded, quantized, stored.precision, stored.batch, stored.config)
        self.release()
        self.config, self._model, self._built = stored.config, loaded, built
        return self.summary()

    def build(
        self,
        *,
        do_quantization: bool = True,
        dataset: str | Path | None = None,
        rknn_batch_size: int = 1,
        progress: Progress | None = None,
    ) -> BuildSummary:
        """Quantize the loaded model with the samples that the file `dataset` lists, or make it float16.

        A model that brought quantization parameters of its own keeps them either way; it needs a dataset only for
        tensors without. May be called again with other arguments.
        """
        loaded = self._require_loaded("build")
        progress = progress or Progress()
        check_batch(loaded.model, rknn_batch_size)
        specs = input_specs(self.config, loaded.inputs)
        seconds: dict[str, float] = {}
        started = time.perf_counter()
        samples = 0
        own = [v for v in float_values(loaded.model) if given(v) is not None]
        half = "float16" in self.config.target.precisions
        if do_quantization and dataset is not None:
            check_settings(self.config)
            data = Dataset(_path(dataset, "dataset"), specs)
            statistics = collect(loaded.model, data, len(data), progress)
            samples = statistics.samples
            seconds["calibrate"] = time.perf_counter() - started
            table = quantize(loaded.model, loaded.layers, statistics, self.config)
        elif do_quantization and not own:
            raise DatasetError("quantization needs a dataset", where="dataset", hint="name a file that lists samples")
        elif own:
            table = given_only(loaded.model, loaded.layers)
            if not half and any(row.dtype == "float16" for row in table.rows.values()):
                raise DatasetError(
                    f"some tensors came without parameters, and {self.config.target_platform} has no float16",
                    where="dataset",
                    hint="name a file that lists samples",
                )
        else:
            if not half:
                raise ConfigError(
                    f"{self.config.target_platform} has no float16", where="do_quantization", hint="quantize the model"
                )
            table = to_float16(loaded.model)
        started = time.perf_counter()
        progress.step("build", 0, 1)
        precision = self.config.precision if do_quantization or own else "float16"
        quantized = Quantized(loaded.model, loaded.layers, table, self.config.quantized_method)
        built = _build(loaded, quantized, precision, rknn_batch_size, self.config)
        progress.step("build", 1, 1)
        seconds["build"] = time.perf_counter() - started
        self._built, self._simulator = built, None
        return BuildSummary(precision, samples, len(table.rows), rknn_batch_size, seconds)

    def infer(
        self,
        inputs: Sequence[Any] | Mapping[str, Any],
        *,
        data_format: str | Sequence[str] | None = None,
        inputs_pass_through: Sequence[int] | None = None,
    ) -> list[Array]:
        """Run the built model on the simulator.

        `inputs`: arrays in the order of the model's inputs, or by name. `data_format`: 'nhwc' (default) or 'nchw', for
        four-dimensional inputs, one for all or one each. An input whose `inputs_pass_through` is 1 is not normalized.
        Returns float32 arrays in the source model's order, shapes and layout.
        """
        built = self._require_built("infer")
        feeds = feeds_from_caller(
            inputs, built.specs, data_format=data_format or "nhwc", pass_through=inputs_pass_through or 0
        )
        if self._simulator is None:
            self._simulator = Simulator(built.quantized)
        outputs = self._simulator.run(feeds)
        for value, array in zip(built.quantized.model.graph.outputs, outputs, strict=True):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                half = ", and float16 ends at 65504" if built.precision == "float16" else ""
                log.warning("output %r is infinite or not a number; check mean and std%s", value.name, half)
        return outputs

    def analyze(
        self,
        inputs: Sequence[str | Path | Array],
        *,
        output_dir: str | Path | None = None,
        text: bool = True,
        progress: Progress | None = None,
    ) -> AccuracyReport:
        """Compare the quantized model with the float model, layer by layer, on one sample.

        `inputs`: one file (jpg, png, bmp, npy) or array a model input, as in a dataset line. With `output_dir`, every
        tensor of both runs and `error_analysis.txt` are written there; `text` also writes the values as text files.
        """
        loaded = self._require_loaded("analyze")
        built = self._require_built("analyze")
        if built.precision == "float16":
            raise OrderError(
                "a float16 build has no quantization to analyse", where="analyze", hint="build with a dataset"
            )
        if not isinstance(inputs, (list, tuple)):
            hint = f"use [{str(inputs)!r}]" if isinstance(inputs, (str, Path)) else ""
            raise InputError(
                f"expected a list with one file a model input, got {type(inputs).__name__}", where="inputs", hint=hint
            )
        if output_dir is not None:
            output_dir = _path(output_dir, "output_dir")
        sample = read_sample(inputs, input_specs(built.config, loaded.inputs))
        if output_dir is None:
            return analyze(built.single, sample, progress=progress)
        with Snapshot(output_dir, text=text) as snapshot:
            report = analyze(built.single, sample, snapshot=snapshot, progress=progress)
            report = dataclasses.replace(report, directory=str(output_dir))
            snapshot.finish(report)
        return report

    def export(self, path: str | Path) -> Path:
        """Write the built model as a package; an existing file is replaced only when the new one is complete."""
        built = self._require_built("export")
        file = _path(path, "export_path")
        package.write(file, package.Package(built.single, built.config, built.precision, built.batch))
        return file

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
                None if built is None else built.quantized.table.precision,
            ),
            count_parameters(model),
            self.config.target_platform if built is None else built.config.target_platform,
            "" if built is None else built.precision,
        )

    def release(self) -> None:
        """Let go of the model and everything made from it."""
        self._model = self._built = self._simulator = None

    def _optimize(self, graph: ir.Model) -> None:
        if self._on_check is None:
            optimize(graph, self.config.optimization_level)
            return
        on_check = self._on_check
        feeds = random_feeds(graph)
        before = run_float(graph, feeds)

        def check(name: str, model: ir.Model) -> None:
            nonlocal before
            after = run_float(model, feeds)
            on_check(name, *distance(before, after))
            before = after

        optimize(graph, self.config.optimization_level, check)

    def _require_loaded(self, what: str) -> _Loaded:
        if self._model is None:
            raise OrderError("no model is loaded", where=what, hint="load one first")
        return self._model

    def _require_built(self, what: str) -> _Built:
        self._require_loaded(what)
        if self._built is None:
            raise OrderError("the model is not built", where=what, hint="call build first")
        return self._built


def _path(value: Any, where: str) -> Path:
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"expected a path, got {type(value).__name__}", where=where)
    return Path(value)


def _build(loaded: _Loaded, single: Quantized, precision: str, batch: int, config: Config) -> _Built:
    check_batch(single.model, batch)
    quantized = single
    if batch > 1:
        model = with_batch(single.model, batch)
        quantized = dataclasses.replace(single, model=model, layers=layers(model))
    specs = input_specs(config, loaded.inputs)
    if batch > 1:
        specs = tuple(dataclasses.replace(s, shape=(s.shape[0] * batch, *s.shape[1:])) for s in specs)
    return _Built(config, precision, batch, single, quantized, specs)
