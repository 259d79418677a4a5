"""Summaries and reports as text for a person to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from engine.summaries import (
    AccuracyReport,
    BuildSummary,
    ErrorPair,
    Grid,
    LayerError,
    ModelSummary,
    PartError,
    Quality,
    TensorSummary,
)
from engine.text_tables import NAME_CELLS, counted, printable, shape_text, shortened, table

_FEWEST_NAME_CELLS = 10


def model_text(model: ModelSummary) -> str:
    """What a model is made of: inputs, outputs, layers."""
    built = f", built {model.built}" if model.built else ""
    opset = f", opset {model.opset}" if model.opset else ""
    lines = [
        f"{printable(model.path)}: {model.framework}{opset}, {counted(len(model.layers), 'layer')}, "
        f"{model.parameters:,} parameters, for {model.target}{built}",
        "",
        tensors_text([("input", tensor) for tensor in model.inputs] + [("output", tensor) for tensor in model.outputs]),
        "",
        table(
            ("#", "layer", "op", "precision", "shape", "sources"),
            [
                (
                    str(layer.index),
                    shortened(layer.name),
                    layer.op,
                    layer.precision or "-",
                    shape_text(layer.shape),
                    _listed(layer.sources),
                )
                for layer in model.layers
            ],
            numbers=(0,),
        ),
    ]
    lines += [f"note: {printable(note)}" for note in model.notes]
    return "\n".join(lines)


def tensors_text(tensors: Sequence[tuple[str, TensorSummary]]) -> str:
    """Inputs and outputs with their shapes, element types and layouts."""
    headers = ["", "name", "shape", "type", "layout"]
    rows = [[role, t.name, shape_text(t.shape), t.dtype, t.layout or "-"] for role, t in tensors]
    if any(tensor.grid is not None for _, tensor in tensors):
        headers.append("in the source")
        for row, (_, tensor) in zip(rows, tensors, strict=True):
            row.append("-" if tensor.grid is None else _grid(tensor.grid))
    return table(headers, rows)


def _grid(grid: Grid) -> str:
    shifted = f"(q {'-' if grid.zero_point > 0 else '+'} {abs(grid.zero_point)})" if grid.zero_point else "q"
    return f"{grid.dtype}, {shifted} * {grid.scale:.6g}"


def build_text(build: BuildSummary) -> str:
    """What a build made, in one line, and its notes."""
    samples = f", {counted(build.samples, 'sample')}" if build.precision != "float16" else ""
    batch = f", batch {build.batch}" if build.batch != 1 else ""
    recipe = f" by {build.recipe}" if build.recipe else ""
    lines = [f"{build.precision}{recipe}{samples}{batch}, {sum(build.seconds.values()):.1f} s"]
    return "\n".join(lines + [f"note: {printable(note)}" for note in build.notes])


def accuracy_text(report: AccuracyReport, worst: int | None = None, width: int | None = None) -> str:
    """The table of per-layer errors, in execution order or only the `worst`, then outputs and warnings.

    Where the table is wider than `width` cells, it leaves out the euclidean distances, and then the starts of names.
    """
    layers = report.layers if worst is None else worst_layers(report, worst)
    headers = ["layer", "op", "type", "entire cos", "entire euc", "single cos", "single euc"]
    with_shares = any(layer.share is not None for layer in layers)
    rows: list[list[str]] = []
    for layer in layers:
        share = [_share(layer.share)] if with_shares else []
        rows.append([layer.name, layer.op, layer.precision, *_pair(layer.entire), *_pair(layer.single), *share])
        for part in layer.parts:
            nothing = [""] if with_shares else []
            rows.append([f"  {part.tensor}", _part_text(part), "", *_pair(part.entire), *_pair(part.single), *nothing])
    lines = [_fitting([*headers, *(["share"] if with_shares else [])], rows, width)]
    lines.append("entire: the whole quantized model against the float one; single: the layer alone")
    if with_shares:
        lines.append("share: the part of the outputs' error that its weights and its rounding cause")
    for name, pair in report.outputs.items():
        lines.append(f"output {printable(name)}: cosine {pair.cosine:.5f}, euclidean {pair.euclidean:.5f}")
    if report.quality is not None:
        lines.append(quality_text(report.quality))
    lines += [f"note: {printable(layer.name)} {printable(layer.note)}" for layer in layers if layer.note]
    lines += [f"warning: {printable(warning)}" for warning in report.warnings]
    return "\n".join(lines)


def quality_text(quality: Quality) -> str:
    """How near all outputs are, as `tune` and live evaluation judge them."""
    return f"outputs   cosine {quality.cosine:.5f}   SNR {quality.snr:.1f} dB"


def _fitting(headers: list[str], rows: list[list[str]], width: int | None) -> str:
    """The table of errors, as much of it as `width` cells hold."""

    def drawn(columns: Sequence[int], names: int) -> str:
        kept = [[shortened(row[0], names), *(row[column] for column in columns[1:])] for row in rows]
        numbers = [place for place, column in enumerate(columns) if column > 2]
        return table([headers[column] for column in columns], kept, numbers=numbers)

    every = range(len(headers))
    without_distances = [column for column in every if column not in (4, 6)]
    over = 0
    for columns in (every, without_distances):
        text = drawn(columns, NAME_CELLS)
        if width is None or (over := _wide(text) - width) <= 0:
            return text
    names = max(len(headers[0]), *(min(len(printable(row[0])), NAME_CELLS) for row in rows))
    return drawn(without_distances, max(_FEWEST_NAME_CELLS, names - over))


def _wide(text: str) -> int:
    return max(map(len, text.splitlines()))


def worst_layers(report: AccuracyReport, count: int) -> list[LayerError]:
    """The `count` layers that lose most by themselves: the lowest single cosine first, and before all those without one
    that is a number."""

    def key(layer: LayerError) -> float:
        cosine = layer.single.cosine if layer.single else math.inf
        return -math.inf if math.isnan(cosine) else cosine

    return sorted((layer for layer in report.layers if layer.single), key=key)[:count]


def outputs_text(outputs: Sequence[dict[str, Any]]) -> str:
    """Outputs of an inference: shape, range, mean, and the highest entries of a 1xN output."""
    lines = [
        table(
            ("output", "shape", "type", "min", "max", "mean"),
            [
                (
                    shortened(output["name"]),
                    shape_text(output["shape"]),
                    output["dtype"],
                    *(number(output[key]) for key in ("min", "max", "mean")),
                )
                for output in outputs
            ],
            numbers=(3, 4, 5),
        )
    ]
    for output in outputs:
        if output["top"]:
            lines.append(f"top {len(output['top'])} of {printable(output['name'])}:")
            lines += [f"  [{entry['index']}] {number(entry['value'])}" for entry in output["top"]]
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Six significant digits; `-` for none."""
    return "-" if value is None else f"{value:.6g}"


def _pair(pair: ErrorPair | None) -> tuple[str, str]:
    return ("", "") if pair is None else (f"{pair.cosine:.5f}", f"{pair.euclidean:.5f}")


def _part_text(part: PartError) -> str:
    flag = f" {part.flag}" if part.flag else ""
    return f"part {part.start}..{part.stop}{flag}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _listed(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f", … {len(names) - most} more" if len(names) > most else "")
