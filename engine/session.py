"""One model on its way from file to report: the typed API that the command line, `RKNN` and the app all use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import Config
from engine.errors import NotYetError
from engine.progress import Progress
from engine.summaries import AccuracyReport, BuildSummary, ModelSummary

Array = np.ndarray[Any, Any]
CheckCallback = Callable[[str, float, float], None]
"""Called after each graph pass with its name and the cosine and euclidean distance of the outputs to those before."""


class Session:
    """A model, what was built of it, and what can be asked of it.

    Calls raise EngineError (see `engine.errors`); a failed call leaves the session as it was. A session is used by one
    thread at a time. `on_check`, when given, makes loading slower: it hears how equal each graph pass left the outputs
    on random input.
    """

    def __init__(self, config: Config | None = None, *, on_check: CheckCallback | None = None) -> None:
        self.config = config or Config()
        self._on_check = on_check

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
        raise NotYetError("not done yet")

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
        raise NotYetError("not done yet")

    def load_rknn(self, path: str | Path) -> ModelSummary:
        """Read a package that `export` wrote; it can be run and inspected, and analysed like a fresh build."""
        raise NotYetError("not done yet")

    def build(
        self,
        *,
        do_quantization: bool = True,
        dataset: str | Path | None = None,
        rknn_batch_size: int = 1,
        progress: Progress | None = None,
    ) -> BuildSummary:
        """Quantize the loaded model with the samples that the file `dataset` lists, or make it float16.

        May be called again with other arguments.
        """
        raise NotYetError("not done yet")

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
        raise NotYetError("not done yet")

    def analyze(
        self,
        inputs: Sequence[str | Path | Array],
        *,
        output_dir: str | Path | None = None,
        progress: Progress | None = None,
    ) -> AccuracyReport:
        """Compare the quantized model with the float model, layer by layer, on one sample.

        `inputs`: one file (jpg, png, bmp, npy) or array a model input, as in a dataset line.
        With `output_dir`, every tensor of both runs and `error_analysis.txt` are written there.
        """
        raise NotYetError("not done yet")

    def export(self, path: str | Path) -> Path:
        """Write the built model as a package; an existing file is replaced only when the new one is complete."""
        raise NotYetError("not done yet")

    def summary(self) -> ModelSummary:
        """The loaded model's inputs, outputs and layers."""
        raise NotYetError("not done yet")

    def release(self) -> None:
        """Let go of the model and everything made from it."""
        raise NotYetError("not done yet")
