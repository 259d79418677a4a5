"""Plain data that crosses the engine's border: what sessions return, the command line prints and the app shows.

Nothing here imports numpy or ONNX, so that a process which only displays results stays small.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from engine.boards import BoardRun
from engine.estimates import CostTotals, LayerCost

LARGEST_TEXT = 16 << 20
"""Bytes (UTF-8) of the longest cfg that is shown and edited as text."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """The integers that a source model has in a tensor's place: real value = (q - zero_point) * scale, q of `dtype`."""

    dtype: str
    scale: float
    zero_point: int


@dataclasses.dataclass(frozen=True)
class TensorSummary:
    """A model's input or output. `layout` is 'nchw' or 'nhwc' for four dimensions, else ''.

    `grid` is what a model that came quantized takes or gives there itself; here it takes and gives real values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str = ""
    grid: Grid | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class LayerSummary:
    """One step of the NPU: a node, or nodes fused, named by its output tensor.

    `index` is its place in execution order; `inputs` are names of the layers it reads (graph inputs are layers with
    op 'Input'); `precision` is what it computes in: 'int8', 'int16', 'float16', 'int8+float16' where a fused layer is
    parted, or '' while nothing is built; `sources` are the nodes of the source model that it came from. `outputs` are
    the tensors that it makes (the first is its name), `reads` the tensors that it reads, each one of some layer's
    outputs or a graph input.
    """

    index: int
    name: str
    op: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    precision: str = ""
    sources: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ModelSummary:
    """A loaded model: where it came from, its inputs and outputs, its layers, and what was built of it.

    `opset` is the source's; 0 where it was not ONNX. `quantized` counts the tensors whose quantization parameters came
    with the model: one with any is built without a dataset.
    """

    path: str
    framework: str
    opset: int
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    layers: tuple[LayerSummary, ...]
    parameters: int
    target: str
    built: str = ""
    notes: tuple[str, ...] = ()
    quantized: int = 0


@dataclasses.dataclass(frozen=True)
class BuildSummary:
    """What `build` did. `seconds` is by stage; `samples` counts the calibration samples.

    `recipe` says how ranges were chosen and what was corrected; `candidates` are what `auto` chose from, best first.
    """

    precision: str
    samples: int
    tensors: int
    batch: int
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    recipe: str = ""
    candidates: tuple[RecipeScore, ...] = ()


@dataclasses.dataclass(frozen=True)
class RecipeScore:
    """A way to quantize that `auto` tried, and how near it came on held-out samples: see Quality."""

    recipe: str
    cosine: float
    lowest: float
    noise: float


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorPair:
    """Cosine similarity (-1..1) and euclidean distance (L2 norm of the difference) against the float model."""

    cosine: float
    euclidean: float


@dataclasses.dataclass(frozen=True)
class PartError:
    """One part of a joined tensor, judged alone.

    `tensor` is the joined part, `start` and `stop` its range along `axis`. `flag` is 'zero' or 'constant' when the
    quantized part carries no information although the float part does, else ''.
    """

    tensor: str
    axis: int
    start: int
    stop: int
    entire: ErrorPair
    single: ErrorPair
    flag: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class LayerError:
    """A line of the accuracy report.

    `entire` compares the whole quantized model with the float model; `single` compares this layer alone, fed with
    quantized float inputs. Both are None for a tensor swallowed by a fused layer. `parts` are filled for joins.
    `share` is the part (0..1) of the outputs' noise that the layer's weights and the rounding of its output cause,
    None where nobody asked for it. `note` says in words where its precision differs from its neighbours'. `board`
    compares the whole model as a board ran it with the float model, `board_simulator` with the simulator's whole run;
    None where no board was asked, or where it gave out no such tensor.
    """

    name: str
    op: str
    precision: str
    entire: ErrorPair | None
    single: ErrorPair | None
    parts: tuple[PartError, ...] = ()
    share: float | None = None
    note: str = ""
    board: ErrorPair | None = None
    board_simulator: ErrorPair | None = None


@dataclasses.dataclass(frozen=True)
class AccuracyReport:
    """Per-layer accuracy in execution order, the model's outputs by name, and warnings a person should read.

    `sources` is where the outputs' error comes from, where that was asked for. `quality` is how near the outputs are,
    judged as `tune` and live evaluation do. Where a board was asked too, `board` says where the model ran, and
    `board_outputs` compares the outputs that it gave with the float model's.
    """

    layers: tuple[LayerError, ...]
    outputs: dict[str, ErrorPair]
    samples: int
    seconds: float
    directory: str = ""
    warnings: tuple[str, ...] = ()
    sources: SourceMap | None = None
    quality: Quality | None = None
    board: BoardRun | None = None
    board_outputs: dict[str, ErrorPair] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class PartQuality:
    """How near one output, or one part of a joined output, is to the float model's.

    `tensor` is what is compared: the output, the join that it comes from, or what its closing Sigmoid reads, since a
    probability near 0 says little. `part` names the part of a join, else ''. `cosine` is the mean over samples,
    `lowest` the lowest of them; `noise` is the noise-to-signal power ratio over all samples, for a Softmax that of the
    scores that it reads.
    """

    output: str
    tensor: str
    part: str
    cosine: float
    lowest: float
    noise: float


@dataclasses.dataclass(frozen=True)
class Quality:
    """How near a quantized model's outputs are to the float model's: the worst part's cosines, and the parts' mean
    noise-to-signal power ratio (0 is equal)."""

    cosine: float
    lowest: float
    noise: float
    parts: tuple[PartQuality, ...]

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio in decibels; infinite when nothing differs."""
        return -10.0 * math.log10(self.noise) if self.noise > 0 else math.inf


@dataclasses.dataclass(frozen=True, slots=True)
class SourceShare:
    """A place where accuracy is lost: one tensor's rounding, or one layer's weights, alone in the float model.

    kind: 'tensor' or 'weights'. `name` is the tensor's or the layer's; `layer` the layer that makes or has it ('' for a
    model input), `op` its operator. `noise` holds the noise-to-signal power ratio that it causes in each part of
    SourceMap.parts; `share` is its part (0..1) of all sources' noise, averaged over the parts.
    """

    kind: str
    name: str
    layer: str
    op: str
    noise: tuple[float, ...]
    share: float


@dataclasses.dataclass(frozen=True)
class SourceMap:
    """Where the error of a quantized model comes from, the largest share first.

    `parts` are the outputs, or parts of joined outputs, in the order of `total.parts`; `total` is what all sources
    together cause, measured. Shares add up to 1; their noise only about to the total, since errors can cancel.
    """

    parts: tuple[str, ...]
    sources: tuple[SourceShare, ...]
    total: Quality
    samples: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to repair a model: layers in a higher precision, and what that gives and takes.

    `wishes` are the lines of custom_quantize_layers, tensor to precision; `layers` the names of the layers they change.
    `cost` is the estimated extra time as a share of the quantized model's own (0.1: a tenth longer), `time_us` the
    estimated microseconds of an inference. `quality` was measured on samples that the search did not choose by.
    """

    wishes: dict[str, str]
    layers: tuple[str, ...]
    cost: float
    quality: Quality
    time_us: float = 0.0


@dataclasses.dataclass(frozen=True)
class TuneReport:
    """What `tune` found: the model as it was, and candidates that none beats in cost, noise and cosine together, the
    cheapest first.

    `chosen` is the index of the cheapest that fulfils the wish, or of the one with the least noise where none does; -1
    where there is none, or none is needed. `reached` is whether the wish is fulfilled; `complete` is False when the
    search was cancelled. `samples` is how many judged. `time_us` is what an inference of the model as it was is
    estimated to take, in microseconds.
    """

    base: Quality
    candidates: tuple[Candidate, ...]
    chosen: int
    reached: bool
    complete: bool
    samples: int
    seconds: float
    time_us: float = 0.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something about a model, its samples or its precisions that costs accuracy.

    `rule` is the rule's name; `layer` where it applies ('' for the model); `message` says what is wrong with the
    numbers that show it, `remedy` what to do. `wishes` are lines of custom_quantize_layers that cure it, where such
    lines do.
    """

    rule: str
    layer: str
    message: str
    remedy: str
    wishes: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class HybridSummary:
    """What step 1 of hybrid quantization wrote, and what it proposes (None unless it was asked to)."""

    model: str
    data: str
    cfg: str
    build: BuildSummary
    proposal: TuneReport | None = None


@dataclasses.dataclass(frozen=True)
class LiveReport:
    """What a change did to the outputs. `changed` are the layers that ran again, in execution order."""

    quality: Quality
    changed: tuple[str, ...]
    seconds: float


@dataclasses.dataclass(frozen=True)
class LiveState:
    """The built model with a person's edits, after they were taken in.

    `precisions` is what each layer and model input computes in, as LayerSummary has it, and `words` what it converts,
    '' for nothing: of all of them in the first answer after a build, later only where it changed. `extra` is the
    estimated extra time over the model without edits, as a share of that (0.1: a tenth longer). While live evaluation
    runs there are `quality`, `errors` (entire, by layer, of those whose error may have changed since it was told) and
    `changed`, the layers that ran again. `wishes` are the lines of custom_quantize_layers in force. `lines`, in an
    answer that tells of all layers, names the tensors of each layer and model input whose lines together put it into a
    precision. `costs` and `totals` are estimates for the target: the first answer has the costs of all layers, later
    ones of those that changed.
    """

    precisions: dict[str, str]
    words: dict[str, str]
    extra: float
    seconds: float
    quality: Quality | None = None
    errors: dict[str, ErrorPair] = dataclasses.field(default_factory=dict)
    changed: tuple[str, ...] = ()
    wishes: dict[str, str] = dataclasses.field(default_factory=dict)
    lines: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    costs: dict[str, LayerCost] = dataclasses.field(default_factory=dict)
    totals: CostTotals | None = None


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something in a cfg's text that cannot be used. `line` and `column` count from 1; 0 means the text as a whole."""

    line: int
    column: int
    message: str


@dataclasses.dataclass(frozen=True)
class CfgReading:
    """What a cfg's text asks of the built model: precisions by tensor, and ranges (row -> min, max) that differ from
    the build's own. With `faults`, in the order of their lines, it is not to be used as it stands.
    """

    wishes: dict[str, str]
    ranges: dict[str, tuple[float, ...]]
    faults: tuple[Fault, ...] = ()


@dataclasses.dataclass(frozen=True)
class TensorFacts:
    """A tensor between layers, as it is stored: 'int8', 'int16', 'float16', or '' for integers.

    `low` and `high` are the range in use (NaN where there is none), `seen_low` and `seen_high` what calibration saw,
    `row` the cfg's row whose min and max set the range ('' where none can be set). `counts` is a histogram of the float
    model's values in equal bins from `first` to `last`, on the live samples or of the calibration; empty where neither
    is there. `outside` is the share of those values beyond the range.
    """

    name: str
    stored: str
    shape: tuple[int, ...]
    low: float
    high: float
    seen_low: float
    seen_high: float
    scale: float | None
    zero_point: int | None
    row: str = ""
    first: float = 0.0
    last: float = 0.0
    counts: tuple[int, ...] = ()
    outside: float = 0.0


@dataclasses.dataclass(frozen=True)
class Alternative:
    """What another precision of a layer would do: `quality` of the outputs, measured live (None where that does not
    run), and `extra` estimated time over the model without edits, as in LiveState."""

    precision: str
    extra: float
    quality: Quality | None = None


@dataclasses.dataclass(frozen=True)
class LayerFacts:
    """More of one layer than its row tells: the tensors that it reads and makes, and what each precision that the
    target has would do ('' first: without a wish)."""

    name: str
    reads: tuple[TensorFacts, ...]
    makes: tuple[TensorFacts, ...]
    alternatives: tuple[Alternative, ...] = ()


@dataclasses.dataclass(frozen=True)
class TuneRun:
    """A search that ended: its candidates go by `{number}.{index}` where corrected biases are asked for."""

    number: int
    report: TuneReport


def to_plain(value: Any) -> Any:
    """Summaries as dicts, lists and numbers that JSON takes; non-finite floats become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
