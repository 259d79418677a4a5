"""Per-layer accuracy of a quantized model against its float model."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.analysis.comparing import ComparedPart, ComparedTensor, Comparison, compare
from engine.analysis.distances import error_pair, sum_squared_differences, sum_squares
from engine.analysis.judging import Judge, judging_tensors
from engine.analysis.snapshot import Snapshot
from engine.errors import QuantizationError
from engine.graph.layers import Layer
from engine.graph.masks import MASKED, scores_and_mask
from engine.graph.query import static_shape
from engine.ort import make_simulation, run
from engine.progress import Progress
from engine.quantization.quantized import Quantized
from engine.quantization.table import Row, Table
from engine.quantization.traffic import computing, in_words, traffic
from engine.summaries import AccuracyReport, ErrorPair, LayerError, PartError, Quality

Array = np.ndarray[Any, Any]

# Cosine below which a part of a join is worth a warning when the join as a whole looks fine.
_HIDDEN_PART, _FINE_JOIN = 0.95, 0.99


def analyze(
    quantized: Quantized,
    sample: Mapping[str, Array],
    *,
    snapshot: Snapshot | None = None,
    board: Mapping[str, Array] | None = None,
    progress: Progress | None = None,
) -> AccuracyReport:
    """Errors of every layer on one normalized sample (inputs by name, in the model's layout).

    `board` are tensors of the same sample as a board computed them, by name, float32 in the model's shapes; they are
    compared with both runs. With `snapshot`, every tensor of both runs is written there, and those of the board.
    Raises QuantizationError when the float model itself gives numbers that are not finite, and Cancelled.
    """
    started = time.perf_counter()
    progress = progress or Progress()
    model, layers, table = quantized.model, quantized.layers, quantized.table
    progress.step("analyse", 0, 3)
    board = board or {}
    deciding = judging_tensors(quantized)
    wanted = {*deciding, *board}
    comparison = compare(quantized, with_values=snapshot is not None, values_of=wanted)
    progress.step("analyse", 1, 3)
    values, totals = _run(comparison, sample)
    overflown = [t.name for t in comparison.tensors if not all(sums.finite(totals) for sums in t.sums)]
    if overflown:
        # Masks of the lowest float32 are finite; their squares are so in float64 only.
        del values
        comparison = compare(quantized, with_values=snapshot is not None, values_of=wanted, wide=overflown)
        values, totals = _run(comparison, sample)
    progress.step("analyse", 2, 3)
    computed = computing(quantized)
    between = traffic(quantized)
    notes = {name: in_words(name, between) for name, one in between.items() if one.converted}
    lines = []
    for tensor in comparison.tensors:
        if tensor.entire is not None and not np.isfinite(totals[tensor.entire.float_squares]):
            raise QuantizationError(
                f"tensor {tensor.name!r} of the float model is infinite or not a number",
                hint="check the sample and the model's mean and std",
            )
        lines.append(_line(tensor, computed.get(tensor.name, ""), notes.get(tensor.name, ""), totals))
    on_board = {tensor.name: _of_board(tensor, values, board) for tensor in comparison.tensors if tensor.name in board}
    for index, line in enumerate(lines):
        pair = on_board.get(line.name)
        if pair is not None:
            lines[index] = dataclasses.replace(line, board=pair[0], board_simulator=pair[1])
    by_name = {line.name: line for line in lines}
    outputs = {
        v.name or "": by_name[v.name or ""].entire or ErrorPair(1.0, 0.0)
        for v in model.graph.outputs
        if v.name in by_name
    }
    warnings = [
        *_warnings(lines),
        *_masked_scores(layers, table),
        *_faint_outputs(model, layers, table, comparison.tensors, totals, by_name),
    ]
    quality = _quality(quantized, sample, comparison, values, deciding)
    seconds = time.perf_counter() - started
    report = AccuracyReport(
        tuple(lines),
        outputs,
        1,
        seconds,
        warnings=tuple(warnings),
        quality=quality,
        board_outputs={name: found for name in outputs if (found := by_name[name].board) is not None},
    )
    progress.step("analyse", 3, 3)
    if snapshot is not None:
        for index, tensor in enumerate(comparison.tensors):
            progress.step("write", index, len(comparison.tensors))
            on_this = board.get(tensor.name) if on_board.get(tensor.name) else None
            snapshot.add(tensor.name, values.pop(tensor.golden), values.pop(tensor.simulated), on_this)
        progress.step("write", len(comparison.tensors), len(comparison.tensors))
    return report


def _of_board(
    tensor: ComparedTensor, values: Mapping[str, Array], board: Mapping[str, Array]
) -> tuple[ErrorPair, ErrorPair] | None:
    """The board's tensor against those of the float and the simulated run; None where its shape is another."""
    theirs, golden, simulated = board[tensor.name], values.get(tensor.golden), values.get(tensor.simulated)
    if golden is None or simulated is None or theirs.shape != golden.shape:
        return None
    return _errors(golden, theirs), _errors(simulated, theirs)


def _errors(truth: Array, other: Array) -> ErrorPair:
    return error_pair(sum_squares(truth), sum_squares(other), sum_squared_differences(truth, other))


def _quality(
    quantized: Quantized,
    sample: Mapping[str, Array],
    comparison: Comparison,
    values: Mapping[str, Array],
    deciding: Collection[str],
) -> Quality:
    """How near the outputs are, by the tensors that decide it, which the comparison has given out."""
    by_name = {tensor.name: tensor for tensor in comparison.tensors if tensor.golden}
    if not by_name.keys() >= set(deciding):
        return Judge(quantized, [sample]).run(quantized)
    judge = Judge(quantized, [sample], golden=lambda _, name: values[by_name[name].golden])
    return judge.quality(lambda _, name: values[by_name[name].simulated])


def _run(comparison: Comparison, sample: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, float]]:
    """The tensors that the comparison gives out, and its other outputs summed up, by name."""
    session = make_simulation(comparison.proto)
    names = [o.name for o in comparison.proto.graph.output]
    values = dict(zip(names, run(session, names, dict(sample)), strict=True))
    kept = {name for tensor in comparison.tensors for name in (tensor.golden, tensor.simulated)}
    return values, {name: float(np.sum(array, dtype=np.float64)) for name, array in values.items() if name not in kept}


def _line(tensor: ComparedTensor, precision: str, note: str, totals: Mapping[str, float]) -> LayerError:
    return LayerError(
        tensor.name,
        tensor.op,
        precision,
        tensor.entire.errors(totals) if tensor.entire else None,
        tensor.single.errors(totals) if tensor.single else None,
        tuple(_part(part, totals) for part in tensor.parts),
        note=note,
    )


def _part(part: ComparedPart, totals: Mapping[str, float]) -> PartError:
    low, high = (totals[name] for name in part.entire_extremes)
    golden_low, golden_high = (totals[name] for name in part.golden_extremes)
    flag = ""
    if low == high and golden_low != golden_high:
        flag = "zero" if low == 0.0 else "constant"
    return PartError(
        part.tensor, part.axis, part.start, part.stop, part.entire.errors(totals), part.single.errors(totals), flag
    )


def _warnings(lines: list[LayerError]) -> list[str]:
    found = []
    for line in lines:
        if line.entire is not None and math.isinf(line.entire.euclidean):
            found.append(
                f"{line.op} {line.name!r} becomes infinite or not a number in the quantized model; "
                f"{line.precision} may be too small for its numbers"
            )
        for part in line.parts:
            place = f"part {part.tensor!r} of {line.op} {line.name!r}"
            if part.flag:
                found.append(
                    f"{place} comes out {part.flag}: the parts' ranges differ too much for one scale; "
                    "keep the parts apart or run the join in float16"
                )
            elif line.entire and part.single.cosine < _HIDDEN_PART and line.entire.cosine > _FINE_JOIN:
                found.append(
                    f"{place} has cosine {part.single.cosine:.5f} "
                    f"although the join as a whole has {line.entire.cosine:.5f}"
                )
    return found


def masked_scores(layers: tuple[Layer, ...], table: Table) -> list[tuple[Layer, Row]]:
    """Layers whose scores before a softmax share their grid with a mask far below them, and so fall into one step."""
    rows = ((layer, table.quantizer(layer.name)) for layer in layers)
    return [(layer, row) for layer, row in rows if row and row.min < MASKED and scores_and_mask(layer.last)]


def _masked_scores(layers: tuple[Layer, ...], table: Table) -> list[str]:
    return [
        f"{layer.op} {layer.name!r} holds scores and a mask of {row.min:.4g} on one scale, which leaves the "
        "scores one step; use a mask of about -100, or run it and the softmax in float16"
        for layer, row in masked_scores(layers, table)
    ]


def _faint_outputs(
    model: ir.Model,
    layers: tuple[Layer, ...],
    table: Table,
    tensors: tuple[ComparedTensor, ...],
    totals: Mapping[str, float],
    lines: Mapping[str, LayerError],
) -> list[str]:
    """Outputs that hold next to nothing on this sample, such as a detector's without an object: noise against noise."""
    found = []
    compared = {tensor.name: tensor for tensor in tensors}
    for layer in layers:
        for value in model.graph.outputs:
            tensor, row = compared.get(value.name or ""), table.quantizer(value.name or "")
            if value.name not in layer.outputs or tensor is None or tensor.entire is None or row is None:
                continue
            size = math.prod(static_shape(value))
            typical = math.sqrt(totals[tensor.entire.float_squares] / size)
            # Half a step is what rounding alone moves a value by.
            if not 0 < typical < (row.scale or 0.0) / 2:
                continue
            before = lines.get(layer.inputs[0]) if layer.inputs else None
            better = (
                f"; judge by {before.name!r}, cosine {before.entire.cosine:.5f}" if before and before.entire else ""
            )
            found.append(
                f"output {value.name!r} is mostly smaller than one {row.dtype} step on this sample, "
                f"so that its cosine says little{better}"
            )
    return found
