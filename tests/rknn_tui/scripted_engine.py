"""An engine process for the app's tests: the real host with a session whose answers depend on the model's file name.

`layers-N.onnx` has N layers; `dynamic.onnx` needs input sizes; `broken.onnx` cannot be read, `halting.onnx` not until
it is cancelled. Building `slow.onnx` goes on until it is cancelled, `steady.onnx` for ten seconds with ten reports in
each, `stuck.onnx` ignores the cancel, `deadly.onnx` ends the process. A search of `long-N.onnx` goes on until it is
cancelled. Each float16 layer brings the outputs' cosine a little nearer to 1; layer 9 cannot be wished for.
`vendor-N.rknn` is a file of the vendor's compiler with N layers, and loads as nothing else.

`graph-N.onnx` is a graph of N layers with skips, splits and joins, where every layer has a share of the error, and
where float16 for one brings the REACH layers after it nearer to 1; `steady` and `long` in its name do as above, and
`lasting` ones take over a minute and a half to build.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Run as a script, where a checkout that is not installed is not on the path.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from engine.config import Config
from engine.errors import ConfigError, DatasetError, FileError, ModelError, QuantizationError
from engine.estimates import CostTotals, LayerCost, ModelCosts
from engine.host import run
from engine.progress import Progress
from engine.summaries import (
    AccuracyReport,
    Alternative,
    BuildSummary,
    Candidate,
    CfgReading,
    ErrorPair,
    Fault,
    Finding,
    LayerError,
    LayerFacts,
    LayerSummary,
    LiveState,
    ModelSummary,
    PartQuality,
    Quality,
    SourceMap,
    SourceShare,
    TensorFacts,
    TensorSummary,
    TuneReport,
    TuneRun,
)
from engine.targets import TARGETS
from tests.rknn_tui.made_up_graph import graph
from tests.rknn_tui.scripted_boards import ScriptedBoards

REACH = 40
OPS = ("Conv", "Relu", "Add", "Concat", "MaxPool")


def layer(index: int) -> LayerSummary:
    name = f"/model.{index // 10}/block.{index % 10}/out_{index}"
    before = (f"/model.{(index - 1) // 10}/block.{(index - 1) % 10}/out_{index - 1}",) if index else ()
    return LayerSummary(
        index,
        name,
        OPS[index % len(OPS)],
        before,
        (1, 16, 8, 8),
        "float32",
        sources=(f"node_{index}",),
        outputs=(name,),
        reads=before,
    )


def cosine(index: int) -> float:
    """Falls below the default limit at layers 3, 10, 17, ..., a little more each time."""
    return 0.9 - index * 1e-5 if index % 7 == 3 else 0.99987


def single(index: int) -> float:
    """Lowest at layer 5, then at layer 6, and so on: not in the order of the entire cosines."""
    return 0.5 + index * 1e-3 if index >= 5 else 0.99999


def quality(wishes: Mapping[str, str]) -> Quality:
    """Grows with each layer in float16."""
    cosine = 1 - 0.00688 / (1 + sum(wish == "float16" for wish in wishes.values()))
    return Quality(cosine, cosine - 0.001, 2 * (1 - cosine), (PartQuality("y", "y", "", cosine, cosine, 0.1),))


SPEEDS = {"rk3562": 0.9, "rk3566": 1.0, "rk3568": 1.0, "rk3576": 3.0, "rk3588": 4.0, "rv1103": 0.5, "rv1106": 0.6}
FACTORS = {"int8": 1.0, "int16": 2.0, "float16": 2.5}
SEARCHED_US = 2500.0
"""What an inference of a model that is searched takes."""
CONVERSION = 8.0
"""Microseconds that a layer takes longer which reads another precision than its own, on rk3566."""


def layer_costs(layers: tuple[LayerSummary, ...], precisions: Mapping[str, str], target: str) -> dict[str, LayerCost]:
    """What each layer takes with these precisions; what reads another precision takes a little longer."""
    makers = {tensor: one.name for one in layers for tensor in one.outputs}
    found = {}
    for place, one in enumerate(layers):
        now = precisions[one.name]
        read = {precisions[makers[tensor]] for tensor in one.reads if tensor in makers}
        base = (20.0 + place * 37 % 97) / SPEEDS[target]
        times = tuple(
            base * FACTORS[precision] + (CONVERSION / SPEEDS[target] if read - {precision} else 0.0)
            for precision in TARGETS[target].precisions
        )
        time = times[TARGETS[target].precisions.index(now)] if now in TARGETS[target].precisions else base * 4
        bound = "cpu" if place % 11 == 7 else ("memory", "compute")[place % 2]
        found[one.name] = LayerCost(time, (1 + place % 9) << 14, bound, times)
    return found


def made_up_totals(time_us: float, *, weight_bytes: int = 3000, internal_bytes: int = 5000) -> CostTotals:
    """Totals of which the app shows something; a quarter of the time comes on top of the layers'."""
    latency = time_us * 1.25
    return CostTotals(
        macs=0,
        cycles_npu=0,
        cycles_ddr=0,
        cycles_total=0,
        time_us=time_us,
        overhead_us=latency - time_us,
        latency_us=latency,
        fps=1e6 / latency if latency else 0.0,
        bytes_read=0,
        bytes_written=0,
        weight_bytes=weight_bytes,
        internal_bytes=internal_bytes,
    )


def cost_totals(costs: Mapping[str, LayerCost]) -> CostTotals:
    """The sums, with a kilobyte of weights a layer."""
    time = sum(one.time_us for one in costs.values())
    most = max((one.memory_bytes for one in costs.values()), default=0)
    return made_up_totals(time, weight_bytes=len(costs) << 10, internal_bytes=most)


class ScriptedSession(ScriptedBoards):
    def __init__(self) -> None:
        self.config = Config()
        self.model: ModelSummary | None = None
        self.precision = ""
        self.live = False
        self.wishes: dict[str, str] = {}
        self.ranges: dict[str, Any] = {}
        self.told = False
        self.graph = False
        self.built_for = ""
        self.costed: dict[str, LayerCost] = {}

    def load(
        self, path: str, inputs: Any = None, input_size_list: Any = None, outputs: Any = None, *, progress: Progress
    ) -> ModelSummary:
        print("a library prints this on standard output")
        name = Path(path).name
        progress.step("read", 1, 1)
        while name == "halting.onnx":
            progress.step("read", 0, 0)
            time.sleep(0.01)
        if name == "broken.onnx":
            raise ModelError("is not an ONNX model", where=path, hint="export it again")
        if name == "dynamic.onnx" and not input_size_list:
            raise ConfigError("inputs have dynamic dimensions: 'x' [1, 3, ?, ?]", where="input_size_list")
        found = re.search(r"(layers|graph)-(\d+)", name)
        count = int(found[2]) if found else 30
        self.graph = bool(found) and found[1] == "graph"
        layers = graph(count) if self.graph else tuple(map(layer, range(count)))
        tensor = TensorSummary("x", tuple(input_size_list[0]) if input_size_list else (1, 3, 8, 8), "float32", "nchw")
        self.model = ModelSummary(path, "onnx", 17, (tensor,), (tensor,), layers, 123456, "rk3566")
        self.precision, self.wishes = "", {}
        return self.summary()

    def vendor_summary(self, path: str) -> ModelSummary | None:
        found = re.fullmatch(r"vendor-(\d+)\.rknn", Path(path).name)
        if found is None:
            return None
        layers = tuple(dataclasses.replace(layer(index), precision="int8") for index in range(int(found[1])))
        tensor = TensorSummary("x", (1, 3, 8, 8), "int8", "nhwc")
        notes = ("compiled: it runs only on a board",)
        return ModelSummary(
            path, "vendor's .rknn", 0, (tensor,), (tensor,), layers, 4321, "rk3588", "int8+float16", notes
        )

    def build(
        self,
        *,
        do_quantization: bool = True,
        dataset: str | None = None,
        rknn_batch_size: int = 1,
        progress: Progress,
    ) -> BuildSummary:
        assert self.model is not None
        name = Path(self.model.path).name
        if not do_quantization and self.config.target_platform == "rv1103":
            raise ConfigError("rv1103 has no float16", where="do_quantization", hint="quantize the model")
        if do_quantization and not Path(dataset or "").is_file():
            raise DatasetError("cannot be read: no such file", where=str(dataset))
        if name == "deadly.onnx":
            print("out of cheese", file=sys.stderr, flush=True)
            os._exit(7)
        if name == "stuck.onnx":
            time.sleep(60)
        steps, seconds = (1_000_000, 0.01) if name == "slow.onnx" else (10, 0.01)
        steps, seconds = (100, 0.1) if "steady" in name else (steps, seconds)
        steps, seconds = (1000, 0.1) if "lasting" in name else (steps, seconds)
        for step in range(steps):
            progress.step("calibrate", step + 1, steps)
            time.sleep(seconds)
        self.precision = "int8" if do_quantization else "float16"
        self.live, self.wishes, self.ranges, self.told = False, {}, {}, False
        self.built_for = self.config.target_platform
        return BuildSummary(self.precision, 4 if do_quantization else 0, 60, rknn_batch_size, {"calibrate": 0.1})

    def analyze(self, inputs: Any, *, progress: Progress) -> AccuracyReport:
        assert self.model is not None
        progress.step("analyse", 1, 1)
        errors = tuple(
            LayerError(
                one.name, one.op, self.precision, ErrorPair(cosine(one.index), 0.5), ErrorPair(single(one.index), 0.01)
            )
            for one in self.model.layers
        )
        return AccuracyReport(
            errors,
            {"y": ErrorPair(0.99312, 1.5)},
            1,
            0.1,
            warnings=(f"sample {inputs[0]}",),
            quality=quality(self.wishes),
        )

    def export(self, path: str) -> Path:
        Path(path).write_bytes(b"package")
        return Path(path)

    def aside(self) -> ScriptedSession:
        return copy.copy(self)

    def edits(self) -> CfgReading:
        return CfgReading(self.wishes, {})

    def costs(self, target: str | None = None) -> ModelCosts:
        assert self.model is not None
        target = target or self.config.target_platform
        if self.precision == "float16" and target.startswith("rv11"):
            raise ConfigError(f"{target} has no float16", where="target_platform", hint="quantize the model")
        found = layer_costs(self.model.layers, self._precisions(), target)
        return ModelCosts(target, found, cost_totals(found))

    def _precisions(self) -> dict[str, str]:
        assert self.model is not None
        return {one.name: self.wishes.get(one.name, self.precision or "int8") for one in self.model.layers}

    def apply(
        self,
        wishes: dict[str, str],
        ranges: dict[str, Any],
        biases: str = "",
        errors: bool = True,
        whole: bool = True,
        *,
        progress: Progress,
    ) -> LiveState:
        assert self.model is not None
        names = [one.name for one in self.model.layers]
        if unknown := [name for name in wishes if name not in names]:
            raise QuantizationError("the model has no such tensor", where=f"tensor {unknown[0]!r}")
        if len(names) > 9 and names[9] in wishes and not self.graph:
            raise QuantizationError("cannot be wished for", where=f"tensor {names[9]!r}", hint="leave it out")
        if Path(self.model.path).name == "fragile.onnx" and wishes:
            os._exit(7)
        changed = [name for name in names if wishes.get(name) != self.wishes.get(name)]
        if self.graph:
            places = [place for place, name in enumerate(names) if wishes.get(name) != self.wishes.get(name)]
            after = {later for place in places for later in range(place, min(place + REACH, len(names)))}
            changed = [names[place] for place in sorted(after)]
        elif changed:
            changed += names[names.index(changed[-1]) : names.index(changed[-1]) + 8]
        self.wishes, self.ranges = wishes, ranges
        first, self.told = not self.told, True
        # Costs are told for what was built, whatever target is set since.
        found = layer_costs(self.model.layers, self._precisions(), self.built_for)
        costs = found if first else {name: one for name, one in found.items() if self.costed.get(name) != one}
        self.costed = found
        return LiveState(
            {name: wishes.get(name, self.precision) for name in (names if first else changed)},
            {
                name: "computes in float16; reads int8" if name in wishes else ""
                for name in (names if first else changed)
            },
            0.01 * len(wishes),
            0.01,
            quality(wishes) if self.live else None,
            self._errors(dict.fromkeys(changed)) if self.live and errors else {},
            tuple(dict.fromkeys(changed)),
            wishes,
            {name: (name,) for name in names} if first else {},
            costs,
            cost_totals(found),
        )

    def _errors(self, changed: Iterable[str]) -> dict[str, ErrorPair]:
        assert self.model is not None
        if not self.graph:
            return {name: ErrorPair(0.9995, 0.1) for name in changed}
        places = {one.name: one.index for one in self.model.layers}
        raised = sorted(places[name] for name, wish in self.wishes.items() if wish == "float16")
        found = {}
        for name in changed:
            place = places[name]
            before = sum(place - REACH < other <= place for other in raised)
            found[name] = ErrorPair(1 - (1 - cosine(place)) / (1 + 0.3 * before), 0.1)
        return found

    def live_start(self, inputs: list[str], errors: bool = True, *, progress: Progress) -> LiveState:
        self.live, self.told = True, False
        return self.apply(self.wishes, self.ranges, progress=progress)

    def live_stop(self) -> None:
        self.live = False

    def cfg_text(self) -> str:
        assert self.model is not None
        lines = [f"    {name}: {wish}\n" for name, wish in self.wishes.items()]
        rows = [f"    {one.name}:\n        dtype: int8\n" for one in self.model.layers]
        head = "custom_quantize_layers:\n" if lines else "custom_quantize_layers: {}\n"
        return "# made up\n" + head + "".join(lines) + "quantize_parameters:\n" + "".join(rows)

    def cfg_read(self, text: str) -> CfgReading:
        assert self.model is not None
        names = {one.name for one in self.model.layers}
        wishes, faults = {}, []
        for number, line in enumerate(text.partition("quantize_parameters")[0].splitlines(), 1):
            if not line.startswith("    ") or line.lstrip().startswith("#"):
                continue
            name, _, wish = line.partition("#")[0].strip().partition(": ")
            if name not in names:
                faults.append(Fault(number, 5, f"the model has no tensor {name!r}"))
            else:
                wishes[name] = wish
        return CfgReading(wishes, {}, tuple(faults))

    def cfg_write(self, text: str, wishes: dict[str, str], ranges: dict[str, Any]) -> str:
        head, _, rest = text.partition("quantize_parameters")
        comments = [line for line in head.splitlines() if line.startswith("#") or "# " in line]
        lines = [f"    {name}: {wish}" for name, wish in wishes.items()]
        kept = {line.split(":")[0].strip(): line for line in comments if not line.startswith("#")}
        lines = [kept.get(line.split(":")[0].strip(), line) for line in lines]
        top = "custom_quantize_layers:" if lines else "custom_quantize_layers: {}"
        comments = [line for line in comments if line.startswith("#")]
        return "\n".join([*comments, top, *lines, "quantize_parameters"]) + rest

    def cfg_open(self, path: str) -> dict[str, str]:
        try:
            text = Path(path).read_text()
        except OSError as error:
            raise FileError(f"cannot be read: {error.strerror}", where=path) from error
        return {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}

    def save_cfg(self, path: str, text: str, known: str | None = None) -> list[str]:
        file = Path(path)
        if known and file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() != known:
            raise FileError("changed on disk since it was read", where=path)
        try:
            file.write_text(text)
        except OSError as error:
            raise FileError(f"cannot be written: {error.strerror}", where=path) from error
        return [path]

    def layer_facts(self, name: str) -> LayerFacts:
        made = TensorFacts(
            name, "int8", (1, 16, 8, 8), -1.5, 6.0, -1.5, 6.5, 0.03, -77, name, -1.5, 6.5, (1, 5, 9, 2), 0.01
        )
        return LayerFacts(name, (), (made,), tuple(Alternative(p, 0.01 * len(p)) for p in ("", "int8", "float16")))

    def alternatives(self, name: str, *, progress: Progress) -> tuple[Alternative, ...]:
        return tuple(
            Alternative(precision, 0.01, quality({**self.wishes, name: precision}))
            for precision in ("", "int8", "int16", "float16")
        )

    def tune_run(self, dataset: str, *, progress: Progress, **wish: Any) -> TuneRun:
        assert self.model is not None
        while "long" in Path(self.model.path).name:
            progress.step("search", 1, 3)
            time.sleep(0.01)
        names = [one.name for one in self.model.layers]
        found = []
        for count in (0, 1, 3):
            wishes = dict.fromkeys(names[3 : 3 + count], "float16")
            cost = 0.02 * count
            found.append(Candidate(wishes, tuple(wishes), cost, quality(wishes), (1 + cost) * SEARCHED_US))
        return TuneRun(1, TuneReport(quality({}), tuple(found), 2, True, True, 4, 0.1, SEARCHED_US))

    def trace(self, inputs: list[str], *, progress: Progress) -> SourceMap:
        assert self.model is not None
        names = [one.name for one in self.model.layers]
        if self.graph:
            each = 1 / sum(1 + place % 13 for place in range(len(names)))
            found = (
                SourceShare("weights", name, name, "Conv", (0.1,), (1 + place % 13) * each)
                for place, name in enumerate(names)
            )
            return SourceMap(("y",), tuple(found), quality({}), 1, 0.1)
        shares = (SourceShare("weights", names[3], names[3], "Conv", (0.1,), 0.6),)
        shares += (SourceShare("tensor", names[4], names[4], "Conv", (0.05,), 0.4),)
        return SourceMap(("y",), shares, quality({}), 1, 0.1)

    def findings(self, dataset: str | None = None, inputs: Any = None, *, progress: Progress) -> tuple[Finding, ...]:
        assert self.model is not None
        name = self.model.layers[4].name
        return (
            Finding("concat-ranges", name, "parts differ 200-fold", "keep it in float16", {name: "float16"}),
            Finding("samples", "", "few samples", "list more"),
        )

    def compare_cfg(self, text: str, *, progress: Progress) -> LiveState:
        assert self.model is not None
        wishes = self.cfg_read(text).wishes
        names = [one.name for one in self.model.layers]
        return LiveState(
            {name: wishes.get(name, self.precision) for name in names},
            dict.fromkeys(names, ""),
            0.02,
            0.01,
            quality(wishes),
            {name: ErrorPair(0.9991, 0.1) for name in names},
        )

    def summary(self) -> ModelSummary:
        assert self.model is not None
        # The input stays in float: its row does not change with a build.
        layers = tuple(
            dataclasses.replace(one, precision=self.precision if one.index else "") for one in self.model.layers
        )
        return dataclasses.replace(self.model, layers=layers, target=self.config.target_platform, built=self.precision)


if __name__ == "__main__":
    run(ScriptedSession)
