"""Plain data that crosses the engine's border: what sessions return, the command line prints and the app shows.

Nothing here imports numpy or ONNX, so that a process which only displays results stays small.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class TensorSummary:
    """A model's input or output. `layout` is 'nchw' or 'nhwc' for four dimensions, else ''."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str = ""


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """One step of the NPU: a node, or nodes fused, named by its output tensor.

    `index` is its place in execution order; `inputs` are names of the layers it reads (graph inputs are layers with
    op 'Input'); `precision` is 'int8', 'int16', 'float16', or '' while nothing is built;
    `sources` are the nodes of the source model that it came from.
    """

    index: int
    name: str
    op: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    precision: str = ""
    sources: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ModelSummary:
    """A loaded model: where it came from, its inputs and outputs, its layers, and what was built of it."""

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


@dataclasses.dataclass(frozen=True)
class BuildSummary:
    """What `build` did. `seconds` is by stage; `samples` counts the calibration samples."""

    precision: str
    samples: int
    tensors: int
    batch: int
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
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


@dataclasses.dataclass(frozen=True)
class LayerError:
    """A line of the accuracy report.

    `entire` compares the whole quantized model with the float model; `single` compares this layer alone, fed with
    quantized float inputs. Both are None for a tensor swallowed by a fused layer. `parts` are filled for joins.
    """

    name: str
    op: str
    precision: str
    entire: ErrorPair | None
    single: ErrorPair | None
    parts: tuple[PartError, ...] = ()


@dataclasses.dataclass(frozen=True)
class AccuracyReport:
    """Per-layer accuracy in execution order, the model's outputs by name, and warnings a person should read."""

    layers: tuple[LayerError, ...]
    outputs: dict[str, ErrorPair]
    samples: int
    seconds: float
    directory: str = ""
    warnings: tuple[str, ...] = ()


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
