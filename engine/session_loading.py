"""How a session takes in a model: one call a framework, and one that tells by the file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx_ir as ir

from engine.builds import Loaded
from engine.config import Config
from engine.errors import ConfigError
from engine.files import encryption, package, vendor
from engine.files.keys import KeySource
from engine.frontends import onnx as onnx_frontend
from engine.frontends.finishing import surprises_told
from engine.frontends.recognition import Kind, find_weights, kind_of, model_beside
from engine.graph.describe import describe_tensor
from engine.graph.execution import distance, random_feeds, run_float
from engine.graph.layers import layers
from engine.graph.optimize import optimize
from engine.progress import Progress
from engine.quantization.preprocessing import input_specs
from engine.session_state import path_from
from engine.session_tuning import TuningSession
from engine.summaries import ModelSummary

CheckCallback = Callable[[str, float, float], None]
"""Called after each graph pass with its name and the cosine and euclidean distance of the outputs to those before."""

Names = Sequence[str] | None
Sizes = Sequence[Sequence[int]] | None


class LoadingSession(TuningSession):
    """The calls that load. Each raises EngineError, leaves the session as it was when it fails, and returns what the
    model is made of.

    Front ends are imported when they are needed: most take some time to make the schema of their files.

    In all of them `inputs` are tensors at which the graph is cut and fed; `input_size_list` one shape for each of them
    (or for the model's own inputs, in order, when `inputs` is None); `outputs` the tensors to end at.
    """

    def __init__(self, config: Config | None = None, *, on_check: CheckCallback | None = None) -> None:
        super().__init__(config)
        self._on_check = on_check

    def load_onnx(
        self,
        model: str | Path,
        inputs: Names = None,
        input_size_list: Sizes = None,
        outputs: Names = None,
        *,
        progress: Progress | None = None,
    ) -> ModelSummary:
        """Read an ONNX model, with external data beside it."""
        path = path_from(model, "model")
        read = functools.partial(onnx_frontend.load, path, inputs, input_size_list, outputs)
        return self._take("ONNX", model, read, progress)

    def load_tflite(
        self,
        model: str | Path,
        inputs: Names = None,
        input_size_list: Sizes = None,
        outputs: Names = None,
        *,
        progress: Progress | None = None,
    ) -> ModelSummary:
        """Read a TensorFlow Lite model; a quantized one keeps its own parameters."""
        from engine.frontends import tflite

        path = path_from(model, "model")
        read = functools.partial(tflite.load, path, inputs, input_size_list, outputs)
        return self._take("TensorFlow Lite", model, read, progress)

    def load_tensorflow(
        self,
        tf_pb: str | Path,
        inputs: Names = None,
        input_size_list: Sizes = None,
        outputs: Names = None,
        *,
        progress: Progress | None = None,
    ) -> ModelSummary:
        """Read a frozen TensorFlow graph. `inputs` and `outputs` are operations; without them, the placeholders and
        what nothing reads."""
        from engine.frontends import tensorflow

        path = path_from(tf_pb, "tf_pb")
        read = functools.partial(tensorflow.load, path, inputs, input_size_list, outputs)
        return self._take("TensorFlow", tf_pb, read, progress)

    def load_caffe(
        self,
        model: str | Path,
        blobs: str | Path | None = None,
        input_name: Names = None,
        inputs: Names = None,
        input_size_list: Sizes = None,
        outputs: Names = None,
        *,
        progress: Progress | None = None,
    ) -> ModelSummary:
        """Read a Caffe prototxt with the caffemodel `blobs`; None gives weights by chance, always the same.

        `input_name`: the order of the model's inputs, where there are several.
        """
        from engine.frontends import caffe

        paths = path_from(model, "model"), None if blobs is None else path_from(blobs, "blobs")
        read = functools.partial(caffe.load, *paths, input_name, inputs, input_size_list, outputs)
        return self._take("Caffe", model, read, progress)

    def load_darknet(
        self,
        model: str | Path,
        weight: str | Path,
        inputs: Names = None,
        input_size_list: Sizes = None,
        outputs: Names = None,
        *,
        progress: Progress | None = None,
    ) -> ModelSummary:
        """Read a Darknet cfg with its weights; the model ends at what feeds its [yolo] and [region] layers."""
        from engine.frontends import darknet

        paths = path_from(model, "model"), path_from(weight, "weight")
        read = functools.partial(darknet.load, *paths, inputs, input_size_list, outputs)
        return self._take("Darknet", model, read, progress)

    def load_pytorch(
        self,
        model: str | Path,
        input_size_list: Sizes = None,
        inputs: Names = None,
        outputs: Names = None,
        *,
        progress: Progress | None = None,
    ) -> ModelSummary:
        """Read a TorchScript file, with one size for each input; needs the package torch."""
        from engine.frontends import pytorch

        path = path_from(model, "model")
        read = functools.partial(pytorch.load, path, input_size_list, inputs, outputs)
        return self._take("PyTorch", model, read, progress)

    def load(
        self,
        path: str | Path,
        inputs: Names = None,
        input_size_list: Sizes = None,
        outputs: Names = None,
        *,
        weights: str | Path | None = None,
        key: KeySource | None = None,
        progress: Progress | None = None,
    ) -> ModelSummary:
        """Read a model of any known kind, told by its content and name, or a package written by `export`.

        `weights` is the second file of Caffe and Darknet; None looks for it beside the first. Of a Caffe or Darknet
        model either file may be named. `key` opens an encrypted package.
        """
        file = path_from(path, "model")
        kind = kind_of(file)
        if kind == "rknn" or package.is_package(file) or encryption.is_encrypted(file):
            if inputs or input_size_list or outputs:
                raise ConfigError(
                    "a built package cannot be cut", where=str(path), hint="cut the source model and build it"
                )
            return self.load_rknn(file, key=key)
        cuts = inputs, input_size_list, outputs
        if kind in ("Caffe", "Darknet"):
            return self._load_of_two(kind, file, weights, *cuts, progress=progress)
        if weights is not None:
            raise ConfigError(
                f"{kind} models hold their weights themselves", where="weights", hint="leave it out for this model"
            )
        if kind == "PyTorch":
            return self.load_pytorch(file, input_size_list, inputs, outputs, progress=progress)
        readers = {"TensorFlow Lite": self.load_tflite, "TensorFlow": self.load_tensorflow}
        return readers.get(kind, self.load_onnx)(file, *cuts, progress=progress)

    def load_rknn(self, path: str | Path, *, key: KeySource | None = None) -> ModelSummary:
        """Read a package that `export` wrote; it can be run and inspected, and analysed like a fresh build.

        `key`: of an encrypted one; None takes that of the environment.
        """
        stored = package.read(path_from(path, "path"), key)
        self._take_stored(stored, str(path), "package")
        return self.summary()

    def vendor_summary(self, path: str | Path) -> ModelSummary | None:
        """What a .rknn of the vendor's compiler holds, as a model's layers; None where the file is no such one.

        It is only to be looked at: such a file runs on a board, and the session stays as it is. Raises FileError for a
        file that cannot be read.
        """
        file = path_from(path, "path")
        return vendor.read(file).summary() if vendor.is_vendor_file(file) else None

    def _load_of_two(
        self,
        kind: Kind,
        file: Path,
        weights: str | Path | None,
        inputs: Names,
        input_size_list: Sizes,
        outputs: Names,
        *,
        progress: Progress | None,
    ) -> ModelSummary:
        model, found = model_beside(file, kind)
        blobs = found if weights is None else path_from(weights, "weights")
        if blobs is None:
            blobs = find_weights(model, kind)
        if kind == "Caffe":
            return self.load_caffe(model, blobs, None, inputs, input_size_list, outputs, progress=progress)
        return self.load_darknet(model, blobs, inputs, input_size_list, outputs, progress=progress)

    def _take(
        self, framework: str, path: str | Path, read: Callable[..., ir.Model], progress: Progress | None
    ) -> ModelSummary:
        """Hold the graph that `read` gives, optimized."""
        progress = progress or Progress()
        graph = read(progress=progress)
        tensors = tuple(describe_tensor(v) for v in graph.graph.inputs)
        input_specs(self.config, tensors)  # a mean or std that does not fit is better told now than after calibration
        progress.step("optimize", 0, 1)
        # A graph that runs can still be odd in ways that no rule thought of.
        with surprises_told(path, "try optimization_level 0", "cannot be optimized"):
            self._optimize(graph)
            found = layers(graph)
        progress.step("optimize", 1, 1)
        self.release()
        self._model = Loaded(str(path), framework, graph, found, tensors)
        return self.summary()

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
