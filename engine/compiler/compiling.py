"""Compiles a built model with the vendor's toolkit, by every way that is asked for, judged on its own simulator."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from engine.analysis.accuracy import analyze
from engine.analysis.judging import Judge
from engine.builds import Built
from engine.compiler.bridge import Toolkit
from engine.compiler.environment import check_versions, default_folder
from engine.compiler.errors import CompilerError
from engine.compiler.handing_over import (
    Given,
    cfg_with_ours,
    cosines,
    names_of,
    normalized_by_us,
    read_analysis,
    read_outputs,
    settings,
    shapes_of,
    with_outputs,
    write_model,
    write_samples,
)
from engine.compiler.results import CompileSummary, LayerPair, WayScore, better
from engine.errors import Cancelled
from engine.files.writing import replacing
from engine.ort import make_session, run
from engine.progress import Progress
from engine.quantization.corrected import corrected_model
from engine.quantization.preprocessing import InputSpec
from engine.quantization.samples import Sample, spread
from engine.quantization.traffic import computed_in
from engine.simulator.quantized_onnx import to_qdq

Array = np.ndarray[Any, Any]

MOST_JUDGED = 8
"""Samples that ways are compared on."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """The same samples as the toolkit is given them, and normalized, as the float model reads them."""

    given: Sequence[Sample]
    normalized: Sequence[Sample]


@dataclasses.dataclass(frozen=True)
class Order:
    """What is to be compiled. `original` is the float graph before anything was corrected in it; `specs` are for one
    sample. `way` is one of engine.compiler.results.WAYS, or 'auto' for the best of them."""

    built: Built
    original: ir.Model
    specs: tuple[InputSpec, ...]
    samples: Samples | None
    way: str = "auto"
    analysis: bool = True


def compile_model(order: Order, output: Path, python: Path, progress: Progress | None = None) -> CompileSummary:
    """Compile, and write the vendor's binary to `output`, which is replaced only by a whole one.

    `python` is the interpreter of the vendor's environment. Raises CompilerError, also with `auto` where no way works;
    Cancelled, after which nothing of the toolkit runs on.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rknn-tui-compile-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with Toolkit(python, folder, progress=progress) as toolkit, _log_kept(toolkit):
            version = check_versions(toolkit.call("versions", limit=120.0, stage="starting the toolkit"))
            work = _Work(order, folder, toolkit, progress or Progress())
            scores, notes = work.all_ways()
            best = better(scores)
            if best is None:
                raise _none_worked(scores)
            work.compile(best.way, folder / "compiled.rknn")
            if best.way == "default" and order.way == "auto":
                notes.append("the toolkit's own quantization came out best: ranges and precisions are not ours")
            layers: tuple[LayerPair, ...] = ()
            if order.analysis and order.samples is not None and best.way != "float16":
                layers, more = work.layers(best.way)
                notes += more
            with replacing(output) as file, (folder / "compiled.rknn").open("rb") as binary:
                shutil.copyfileobj(binary, file)
    return CompileSummary(
        str(output),
        output.stat().st_size,
        order.built.config.target_platform,
        best.way,
        tuple(scores),
        layers,
        version,
        time.perf_counter() - started,
        tuple(dict.fromkeys(notes)),
    )


@contextlib.contextmanager
def _log_kept(toolkit: Toolkit) -> Iterator[None]:
    """Where the toolkit failed, keep all that it printed in the user's data, and say where."""
    try:
        yield
    except CompilerError as error:
        kept = default_folder() / "last.log"
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(toolkit.log_path, kept)
            error.hint = "; ".join(part for part in (error.hint, f"all that it said is in {kept}") if part)
        raise


class _Work:
    """One compilation: its files, its toolkit, and what each way gave."""

    def __init__(self, order: Order, folder: Path, toolkit: Toolkit, progress: Progress) -> None:
        self._order, self._folder, self._toolkit, self._progress = order, folder, toolkit, progress
        self._quantized = order.built.single
        self._settings = settings(order.built.config, order.specs)
        self._given: Given | None = None
        self._judge: Judge | None = None
        self._reference: list[list[Array]] = []
        self._notes: list[str] = []
        # The way whose model, without tensors watched, the toolkit has open.
        self._last = ""
        self._outputs = names_of(order.original.graph.outputs)
        self._shapes = dict(zip(self._outputs, shapes_of(order.original.graph.outputs), strict=True))
        self._ways: dict[str, Callable[[Sequence[str]], None]] = {
            "qdq": self._by_qdq,
            "cfg": self._by_cfg,
            "corrected": self._by_corrected,
            "default": self._by_default,
            "float16": self._by_float16,
        }
        if order.samples is not None:
            judged = spread(len(order.samples.given), MOST_JUDGED)
            inputs = names_of(order.original.graph.inputs)
            self._given = write_samples(folder, order.samples.given, inputs, judged)
            if order.built.stored.batch == 1:
                normalized = [order.samples.normalized[place] for place in judged]
                session = make_session(ir.to_proto(order.original), optimization="exact")
                self._reference = [run(session, None, dict(sample)) for sample in normalized]
                self._judge = Judge(self._quantized, normalized)
        if normalized_by_us(order.specs):
            self._notes.append("mean and std are not in the binary: give it inputs that they were applied to")

    def compile(self, way: str, output: Path) -> None:
        """Leave the binary of a way, which works, in `output`."""
        if self._last != way:
            self._ways[way](())
            self._last = way
        self._toolkit.call("export_rknn", path=str(output))

    def all_ways(self) -> tuple[list[WayScore], list[str]]:
        """The ways that were asked for, tried. What the only one raises is raised."""
        ways = self._asked()
        if len(ways) == 1:
            return [self._score(ways[0])], self._notes
        scores: list[WayScore] = []
        for way in ways:
            begun = time.perf_counter()
            try:
                scores.append(self._score(way))
            except CompilerError as error:
                scores.append(WayScore(way, seconds=time.perf_counter() - begun, problem=error.what))
                self._revive()
        return scores, self._notes

    def layers(self, way: str) -> tuple[tuple[LayerPair, ...], list[str]]:
        """The layers as both simulators see them on the first sample; none, and a note, where the toolkit cannot."""
        assert self._order.samples is not None and self._given is not None
        try:
            theirs = self._layers_by_outputs() if way == "qdq" else self._layers_by_analysis(way)
        except Cancelled:
            raise
        except Exception as error:  # the binary is there; what the toolkit says of it is a gift
            return (), [f"the toolkit's analysis failed: {error}"]
        report = analyze(self._quantized, self._order.samples.normalized[0], progress=self._progress)
        pairs = [
            LayerPair(line.name, line.op, line.entire.cosine, theirs.get(line.name))
            for line in report.layers
            if line.entire is not None
        ]
        return tuple(pairs), []

    def _asked(self) -> list[str]:
        order = self._order
        precision = order.built.stored.precision
        if precision == "float16":
            return ["float16"]
        if order.way != "auto":
            return [order.way]
        if self._given is None:
            return ["qdq"]
        ways = ["qdq", "cfg", "corrected", "default"]
        # The standard's Q/DQ operators know no int16 in the opsets that the toolkit reads.
        rows = (*self._quantized.table.wishes.values(), *(row.dtype for row in self._stored_rows()))
        return ways[1:] if "int16" in rows else ways

    def _stored_rows(self) -> list[Any]:
        table = self._quantized.table
        names = [name for layer in self._quantized.layers for name in layer.outputs]
        return [row for name in names if (row := table.quantizer(name)) is not None]

    def _revive(self) -> None:
        """After a crash, go on with another process."""
        if not self._toolkit.alive:
            self._toolkit.start()

    def _score(self, way: str) -> WayScore:
        begun = time.perf_counter()
        if way in ("cfg", "corrected", "default") and self._given is None:
            raise CompilerError("needs samples to calibrate with", where=way, hint="give a dataset")
        if self._judge is None or self._given is None:
            self._ways[way](())
            self._last = way
            return WayScore(way, seconds=time.perf_counter() - begun)
        watched = [name for name in self._judge.tensors if name not in self._shapes]
        self._ways[way](watched)
        self._last = "" if watched else way
        names = [*self._outputs, *watched]
        found = self._infer(self._given.judged, [self._shapes.get(name) for name in names])
        outputs = cosines(self._outputs, self._reference, found)
        tensors = [dict(zip(names, arrays, strict=True)) for arrays in found]
        quality = self._judge.quality(lambda sample, tensor: tensors[sample][tensor])
        seconds = time.perf_counter() - begun
        return WayScore(way, min(outputs.values()), quality.noise, outputs, len(found), seconds)

    def _by_qdq(self, watched: Sequence[str]) -> None:
        self._open("qdq", with_outputs(to_qdq(self._quantized, within=True), watched))
        self._toolkit.call("build", do_quantization=False, stage="qdq", **self._batch())

    def _by_float16(self, watched: Sequence[str]) -> None:
        self._open("float16", with_outputs(ir.to_proto(corrected_model(self._quantized)), watched))
        self._toolkit.call("build", do_quantization=False, stage="float16", **self._batch())

    def _by_default(self, watched: Sequence[str]) -> None:
        self._by_itself(self._order.original, "default", watched)

    def _by_itself(self, model: ir.Model, way: str, watched: Sequence[str]) -> None:
        """As the toolkit quantizes a float model by itself."""
        assert self._given is not None
        self._open(way, with_outputs(ir.to_proto(model), watched))
        dataset = str(self._given.dataset)
        self._toolkit.call("build", do_quantization=True, dataset=dataset, stage=way, **self._batch())

    def _by_corrected(self, watched: Sequence[str]) -> None:
        if self._quantized.table.wishes:
            self._by_steps(watched, ranges=False)
        else:
            self._by_itself(corrected_model(self._quantized), "corrected", watched)

    def _by_cfg(self, watched: Sequence[str]) -> None:
        self._by_steps(watched, ranges=True)

    def _by_steps(self, watched: Sequence[str], *, ranges: bool) -> None:
        """By the two steps of the toolkit's hybrid quantization, with an edit of its cfg between them."""
        assert self._given is not None
        way = "cfg" if ranges else "corrected"
        self._open("cfg", with_outputs(ir.to_proto(corrected_model(self._quantized)), watched))
        # The toolkit writes the files of its step 1 where it runs, named after the model.
        place = self._toolkit.place
        self._toolkit.call(
            "hybrid_quantization_step1",
            dataset=str(self._given.dataset),
            proposal=False,
            stage=f"{way}, step 1",
            **self._batch(),
        )
        cfg = place / "cfg.quantization.cfg"
        try:
            text = cfg.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CompilerError(f"the toolkit wrote no cfg: {error}", where="cfg") from error
        text, notes = cfg_with_ours(text, self._quantized, ranges=ranges)
        if not watched:
            self._notes.extend(notes)
        cfg.write_text(text, encoding="utf-8")
        self._toolkit.call("open")
        self._toolkit.call(
            "hybrid_quantization_step2",
            model_input=str(place / "cfg.model"),
            data_input=str(place / "cfg.data"),
            model_quantization_cfg=str(cfg),
            stage=f"{way}, step 2",
        )

    def _open(self, name: str, model: onnx.ModelProto) -> None:
        path = write_model(self._folder / f"{name}.onnx", model)
        self._toolkit.call("open")
        self._toolkit.call("config", **self._settings)
        self._toolkit.call("load_onnx", model=str(path))

    def _batch(self) -> dict[str, int]:
        batch = self._order.built.stored.batch
        return {} if batch == 1 else {"rknn_batch_size": batch}

    def _infer(self, samples: Sequence[Sequence[str]], shapes: Sequence[tuple[int, ...] | None]) -> list[list[Array]]:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        layouts = ["nchw"] * len(self._order.specs)
        files = [list(row) for row in samples]
        self._toolkit.call("inference", samples=files, layouts=layouts, outputs=str(folder), stage="simulating")
        found = read_outputs(folder, len(samples), shapes)
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
        return found

    def _layers_by_analysis(self, way: str) -> dict[str, float]:
        assert self._order.samples is not None and self._given is not None
        folder = self._folder / "analysis"
        inputs = list(self._given.all[0])
        self._toolkit.call("accuracy_analysis", inputs=inputs, output_dir=str(folder), stage="analysing")
        # By default nothing is equalized either.
        model = self._order.original if way == "default" else self._quantized.model
        names = self._between()
        reference = _float_tensors(model, names, self._order.samples.normalized[0])
        wanted = dict(zip([*self._outputs, *names], reference, strict=True))
        found = read_analysis(folder, list(wanted))
        same = [name for name, array in found.items() if array.size == wanted[name].size]
        return cosines(same, [[wanted[name] for name in same]], [[found[name] for name in same]])

    def _layers_by_outputs(self) -> dict[str, float]:
        """The toolkit analyses no model that came with Q/DQ nodes, but its simulator gives out what it is asked for."""
        assert self._order.samples is not None and self._given is not None
        names = self._between()
        try:
            self._by_qdq(names)
        except CompilerError:
            # It takes some tensors between int8 and float16 layers amiss when they are outputs too.
            self._revive()
            mixed = self._beside_float16()
            names = [name for name in names if name not in mixed]
            self._by_qdq(names)
        reference = _float_tensors(self._quantized.model, names, self._order.samples.normalized[0])
        found = self._infer([self._given.all[0]], [array.shape for array in reference])
        return cosines([*self._outputs, *names], [reference], found)

    def _beside_float16(self) -> set[str]:
        """What float16 layers read and make."""
        table = self._quantized.table
        half = [layer for layer in self._quantized.layers if "float16" in computed_in(layer, table)]
        return {name for layer in half for name in (*layer.inputs, *layer.outputs)}

    def _between(self) -> list[str]:
        """The tensors of numbers between the layers."""
        layers = [layer.name for layer in self._quantized.layers if layer.name not in self._quantized.integers]
        return [name for name in layers if name not in self._shapes]


def _float_tensors(model: ir.Model, names: Sequence[str], sample: Sample) -> list[Array]:
    """The outputs of the float graph, and behind them these tensors of it."""
    proto = ir.to_proto(model)
    for name in names:
        proto.graph.output.add(name=name)
    return run(make_session(proto, optimization="exact"), None, dict(sample))


def _none_worked(scores: Sequence[WayScore]) -> CompilerError:
    problems = "; ".join(f"{score.way}: {score.problem}" for score in scores)
    return CompilerError(f"no way of handing over the model worked: {problems}")
