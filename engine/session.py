"""One model on its way from file to report: the typed API that the command line, `RKNN` and the app all use."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.analysis.accuracy import analyze
from engine.analysis.snapshot import Snapshot
from engine.builds import build
from engine.devices.on_board import OnBoard
from engine.progress import Progress
from engine.quantization.dataset import Dataset
from engine.quantization.preprocessing import feeds_from_caller, input_specs
from engine.quantization.samples import Samples
from engine.quantization.table import Table
from engine.session_boards import BoardSession
from engine.session_compile import CompileSession
from engine.session_files import FilesSession
from engine.session_loading import LoadingSession
from engine.session_state import Array, path_from
from engine.simulator.runner import Simulator
from engine.summaries import AccuracyReport, BuildSummary

log = logging.getLogger("engine")


class Session(FilesSession, CompileSession, BoardSession, LoadingSession):
    """A model, what was built of it, and what can be asked of it.

    Calls raise EngineError (see `engine.errors`); a failed call leaves the session as it was. A session is used by one
    thread at a time. `on_check`, when given, makes loading slower: it hears how equal each graph pass left the outputs
    on random input. A changed `config` counts from the next build on; what shapes the graph (optimization_level) counts
    when a model is loaded. What was built keeps the settings that it was built with.
    """

    @property
    def table(self) -> Table:
        """The table of the built model. Raises OrderError before `build`."""
        return self._require_built("the table").single.table

    @property
    def model(self) -> ir.Model:
        """The optimized float graph. Raises OrderError before a model is loaded."""
        return self._require_loaded("the graph").model

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
        samples = None
        if do_quantization and dataset is not None:
            samples = Samples(Dataset(path_from(dataset, "dataset"), input_specs(self.config, loaded.inputs)))
        built, summary = build(loaded, self.config, samples, do_quantization, rknn_batch_size, progress or Progress())
        self._built, self._simulator, self._tuned = built, None, None
        return summary

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
                half = ", and float16 ends at 65504" if built.stored.precision == "float16" else ""
                log.warning("output %r is infinite or not a number; check mean and std%s", value.name, half)
        return outputs

    def analyze(
        self,
        inputs: Sequence[str | Path | Array],
        *,
        output_dir: str | Path | None = None,
        text: bool = True,
        sources: bool = False,
        progress: Progress | None = None,
    ) -> AccuracyReport:
        """Compare the quantized model with the float model, layer by layer, on one sample.

        `inputs`: one file (jpg, png, bmp, npy) or array a model input, as in a dataset line. With `output_dir`, every
        tensor of both runs and `error_analysis.txt` are written there; `text` also writes the values as text files.
        `sources` also traces where the outputs' error comes from, each layer's share of it included.
        """
        return self._analyze(inputs, output_dir, text, sources, None, progress)

    def board_accuracy(
        self,
        device: str | None,
        inputs: Sequence[str | Path | Array],
        output_dir: str | Path | None = None,
        text: bool = True,
        sources: bool = False,
        target: str | None = None,
        core_mask: int = 0,
        *,
        progress: Progress | None = None,
    ) -> AccuracyReport:
        """As `analyze`, with what a board makes of the same sample beside it: see `on_board` for where it runs.

        `board`, `board_outputs` and the board's columns of layers are filled, and `output_dir` has a folder `runtime`
        more, as far as the board gives out tensors; a warning says where it gives the outputs alone.
        """
        self._require_quantized("board_accuracy")
        with self.on_board(device, target=target, core_mask=core_mask, progress=progress) as board:
            return self._analyze(inputs, output_dir, text, sources, board, progress)

    def _analyze(
        self,
        inputs: Sequence[str | Path | Array],
        output_dir: str | Path | None,
        text: bool,
        sources: bool,
        board: OnBoard | None,
        progress: Progress | None,
    ) -> AccuracyReport:
        built = self._require_quantized("analyze")
        folder = None if output_dir is None else path_from(output_dir, "output_dir")
        sample = self._sample(inputs, built.config)
        with contextlib.nullcontext() if folder is None else Snapshot(folder, text=text) as snapshot:
            theirs = None
            if board is not None:
                theirs = self._board_tensors(board, inputs, sample, progress or Progress())
                # Nothing more is asked of it, and the rest takes a while.
                board.close()
            tensors = None if theirs is None else theirs.tensors
            report = analyze(built.single, sample, snapshot=snapshot, board=tensors, progress=progress)
            report = self._with_sources(report, sample, sources, progress)
            if board is not None and theirs is not None:
                report = dataclasses.replace(report, board=board.where, warnings=(*report.warnings, *theirs.warnings))
            if snapshot is not None:
                report = dataclasses.replace(report, directory=str(folder))
                snapshot.finish(report)
        return report
