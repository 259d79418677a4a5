"""What the vendor's toolkit is given, its cfg with our ranges in it, and what is read back of its simulator."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from engine.compiler.errors import CompilerError
from engine.config import Config
from engine.errors import FileError
from engine.graph.query import static_shape
from engine.ort import serialize
from engine.quantization.cfg_edit import with_ranges, with_wishes
from engine.quantization.edits import Range
from engine.quantization.preprocessing import InputSpec
from engine.quantization.quantized import Quantized
from engine.quantization.samples import Sample
from engine.quantization.table import GRIDS, Row, Table, from_cfg

Array = np.ndarray[Any, Any]

LARGEST_ANALYSIS = 16 << 20
_NEWEST_OPSET = 19
# Tensors that a note lists.
_NAMED = 5
_DTYPES = {"int8": "w8a8", "int16": "w16a16i_dfp"}


@dataclasses.dataclass(frozen=True)
class Given:
    """Files in a folder of ours: `dataset` lists the samples for calibration; `all` are their npy files, one a model
    input, and `judged` those of the samples that simulators are compared on."""

    dataset: Path
    all: tuple[tuple[str, ...], ...]
    judged: tuple[tuple[str, ...], ...]


def settings(config: Config, specs: Sequence[InputSpec]) -> dict[str, Any]:
    """Arguments of the toolkit's `config`.

    Mean and std are among them only where it applies them as we do; see `normalized_by_us`.
    """
    given: dict[str, Any] = {
        "target_platform": config.target_platform,
        "quantized_dtype": _DTYPES[config.precision],
        "quantized_method": config.quantized_method,
        "optimization_level": config.optimization_level,
    }
    if config.custom_string:
        given["custom_string"] = config.custom_string
    if any(spec.scales for spec in specs) and not normalized_by_us(specs):
        given["mean_values"] = [_each(spec.mean, spec, 0.0) for spec in specs]
        given["std_values"] = [_each(spec.std, spec, 1.0) for spec in specs]
    return given


def normalized_by_us(specs: Sequence[InputSpec]) -> bool:
    """Whether samples are handed over with mean and std applied: the toolkit takes axis 1 of an ONNX model's input for
    its channels, and scales no input of other than four dimensions."""
    return any(spec.scales and spec.layout != "nchw" for spec in specs)


def as_given(specs: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """How samples are read that are handed over: without mean and std where the toolkit applies them."""
    if normalized_by_us(specs):
        return tuple(specs)
    return tuple(dataclasses.replace(spec, mean=(), std=()) if spec.scales else spec for spec in specs)


def write_samples(folder: Path, samples: Sequence[Sample], names: Sequence[str], judged: Sequence[int]) -> Given:
    """Write samples, in the model's own layout, as npy files and a dataset file that lists them.

    `names` are the model's inputs in order; `judged` the places of samples that simulators are compared on.
    """
    files: list[tuple[str, ...]] = []
    for number, sample in enumerate(samples):
        row = []
        for index, name in enumerate(names):
            path = folder / f"sample_{number}_{index}.npy"
            np.save(path, sample[name], allow_pickle=False)
            row.append(str(path))
        files.append(tuple(row))
    dataset = folder / "dataset.txt"
    dataset.write_text("".join(" ".join(row) + "\n" for row in files), encoding="utf-8")
    return Given(dataset, tuple(files), tuple(files[place] for place in judged))


def write_model(path: Path, model: ir.Model | onnx.ModelProto) -> Path:
    """Write a model for the toolkit. Raises CompilerError where it is written in a newer opset than it reads."""
    versions = (
        dict(model.opset_imports)
        if isinstance(model, ir.Model)
        else {entry.domain: entry.version for entry in model.opset_import}
    )
    if versions.get("", 0) > _NEWEST_OPSET:
        raise CompilerError(
            f"the model is written in ONNX opset {versions['']}; the vendor's toolkit reads up to {_NEWEST_OPSET}",
            where=path.stem,
            hint="export the source model with an older opset",
        )
    path.write_bytes(serialize(model))
    return path


def cfg_with_ours(
    text: str, quantized: Quantized, *, ranges: bool = True, where: str = "the toolkit's cfg"
) -> tuple[str, tuple[str, ...]]:
    """The toolkit's cfg with our wishes in it and, with `ranges`, our ranges; and notes on what it cannot take.

    The toolkit lets a range only be narrowed; where ours is wider, its own stays.
    """
    theirs, ours = from_cfg(text, where=where), quantized.table
    narrowed: dict[str, Range] = {}
    wider = 0
    for name, row in theirs.rows.items() if ranges else ():
        own = _own_row(ours, name)
        if own is None or row.dtype not in GRIDS:
            continue
        low, high = max(row.min, own.min), min(row.max, own.max)
        wider += own.min < row.min - 1e-6 * abs(row.min) or own.max > row.max + 1e-6 * abs(row.max)
        if low < high and (low, high) != (row.min, row.max):
            narrowed[name] = (low, high)
    # Of a model's input it takes no wish.
    known = theirs.rows.keys() - set(names_of(quantized.model.graph.inputs))
    wishes = {name: precision for name, precision in ours.wishes.items() if name in known}
    if narrowed:
        text = with_ranges(text, narrowed, where=where)
    if wishes:
        text = with_wishes(text, wishes, where=where)
    notes = []
    if wider:
        notes.append(f"{wider} of our ranges are wider than the toolkit's, which stay")
    lost = [name for name in ours.wishes if name not in known]
    if lost:
        more = ", …" if len(lost) > _NAMED else ""
        notes.append(f"the cfg way cannot hand over the precision of {', '.join(lost[:_NAMED])}{more}")
    return text, tuple(notes)


def _own_row(table: Table, name: str) -> Row | None:
    """Our row for one of the toolkit's; constants, which lie on wider grids, have their ranges from their values."""
    row = table.rows.get(name)
    if row is None and name.endswith("_int8"):
        # The twin of an output that was added.
        row = table.rows.get(name.removesuffix("_int8"))
    return row if row is not None and row.dtype == "int8" else None


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """`model`, which is changed, with these of its tensors as outputs too; as they are stored, where it has Q/DQ nodes.

    Such an output is a copy with a name of its own, since the toolkit fails on one that its readers share.
    """
    graph = model.graph
    stored = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    read = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    for name in names:
        source = read.get(stored.get(name, ""), "")
        if source:
            name = f"{source}.copy"
            graph.node.add(op_type="Identity", name=name, input=[source], output=[name])
        graph.output.add(name=name).type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return model


def read_analysis(folder: Path, names: Sequence[str]) -> dict[str, Array]:
    """The tensors of these names that the toolkit's accuracy analysis has of its simulator.

    Its own cosines are to the float model that it was given, corrections and all, and so are not taken. Raises
    FileError for an analysis that is not there, or is none.
    """
    path = folder / "map_name_to_file.txt"
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_ANALYSIS).decode("utf-8", "replace")
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    files = dict(columns for line in text.splitlines() if len(columns := line.split()) == 2)
    found: dict[str, Array] = {}
    for name in names:
        file_name = Path(files.get(name, "")).name
        if not file_name:
            continue
        tensor = folder / "simulator" / "npy" / f"{file_name.removesuffix('.txt').removesuffix('.npy')}.npy"
        try:
            found[name] = np.load(tensor, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue
    if not found:
        raise FileError("holds no tensors of an accuracy analysis", where=str(folder))
    return found


def read_outputs(folder: Path, samples: int, expected: Sequence[tuple[int, ...] | None]) -> list[list[Array]]:
    """The arrays that `inference` of the worker wrote: for each sample one an output, of the shapes `expected`
    where those are known.

    Raises CompilerError for files that are missing or hold something else.
    """
    found = []
    for number in range(samples):
        row = []
        for index, shape in enumerate(expected):
            path = folder / f"{number}_{index}.npy"
            try:
                array = np.load(path, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise CompilerError(
                    f"the toolkit's simulator gave no output {index}: {error}", where=path.name
                ) from error
            shape = array.shape if shape is None else shape
            if array.size != int(np.prod(shape)):
                raise CompilerError(
                    f"the toolkit's simulator gave shape {array.shape}, not {shape}", where=f"output {index}"
                )
            row.append(array.reshape(shape).astype(np.float64))
        found.append(row)
    return found


def cosines(
    names: Sequence[str], reference: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]
) -> dict[str, float]:
    """For each output the mean over samples of its cosine to the reference's; 1 where both are zero."""
    result: dict[str, float] = {}
    for index, name in enumerate(names):
        pairs = zip(reference, found, strict=True)
        result[name] = float(np.mean([_cosine(wanted[index], given[index]) for wanted, given in pairs]))
    return result


def _cosine(wanted: Array, given: Array) -> float:
    first, second = (array.astype(np.float64).reshape(-1) for array in (wanted, given))
    sizes = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    if not np.isfinite(sizes).all():
        return 0.0
    if 0.0 in sizes:
        return float(sizes[0] == sizes[1])
    return float(np.clip(np.dot(first / sizes[0], second / sizes[1]), -1.0, 1.0))


def names_of(values: Sequence[ir.Value]) -> list[str]:
    """The names of a graph's inputs or outputs."""
    return [value.name or "" for value in values]


def _each(values: Sequence[float], spec: InputSpec, otherwise: float) -> list[float]:
    if not values:
        return [otherwise] * spec.channels
    return [float(v) for v in values] * (spec.channels if len(values) == 1 else 1)


def shapes_of(values: Sequence[ir.Value]) -> list[tuple[int, ...]]:
    """The shapes of a graph's outputs, which are fixed."""
    return [static_shape(value) for value in values]
