"""What there is to know about one layer, as lines for the detail strip."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.cells import cell_len

from engine.summaries import ErrorPair, LayerError, LayerSummary
from rknn_tui.bars import digits
from rknn_tui.pieces import Line, Piece, length
from rknn_tui.symbols import Symbols, drawable, fit, wrap


def detail_lines(
    layer: LayerSummary | None,
    layers: Mapping[str, LayerSummary],
    error: LayerError | None,
    width: int,
    height: int,
    symbols: Symbols,
) -> list[Line]:
    """At most `height` lines of `width` cells: name, shape, accuracy, the layers it reads, and its source nodes."""
    if layer is None or height < 1:
        return []
    times = symbols.times.join(map(str, layer.shape)) or "scalar"
    name = drawable(layer.name, symbols)
    start, facts = f"{symbols.rule} #{layer.index} ", f" {drawable(layer.op, symbols)} {times} {layer.dtype}"
    if cell_len(start + name + facts) <= width or height < 6:
        room = max(width - len(start) - len(facts), 10)
        shown = fit(name, min(cell_len(name), room), symbols, keep_end=True)
        lines: list[Line] = [[(start + shown, "title"), (facts, "text")]]
    else:
        lines = [[(fit(start + name, width, symbols), "title")], [(facts, "text")]]
    if error is not None and error.entire is not None:
        lines.append(_accuracy("entire", error.entire))
        if error.single is not None:
            single = _accuracy("single", error.single)
            if length([*lines[-1], *single]) <= width:
                lines[-1] = [*lines[-1], *single]
            else:
                lines.append(single)
        lines += [
            [
                (f" part {drawable(part.tensor, symbols)} [{part.start}:{part.stop}] ", "muted"),
                *_accuracy("entire", part.entire),
                (f" {part.flag}!" if part.flag else "", "bad"),
            ]
            for part in error.parts
        ]
    elif error is not None:
        lines.append([(" fused: no tensor of its own on the NPU", "muted")])
    for source in layer.inputs:
        known = layers.get(source)
        text = f"#{known.index} {source}" if known else source
        tail = f"  {symbols.times.join(map(str, known.shape))} {known.precision or known.dtype}" if known else ""
        room = max(width - 5 - len(tail), 10)
        text = drawable(text, symbols)
        lines.append([(" in  ", "muted"), (fit(text, min(len(text), room), symbols), "text"), (tail, "muted")])
    if layer.sources:
        text = drawable(", ".join(layer.sources), symbols)
        for count, part in enumerate(wrap(text, max(width - 6, 10))):
            lines.append([(" from" if not count else "     ", "muted"), (f" {part}", "text")])
    if len(lines) > height:
        lines = lines[:height]
        lines[-1] = [*lines[-1], (f" {symbols.ellipsis}", "muted")]
    return lines


def _accuracy(label: str, pair: ErrorPair) -> list[Piece]:
    cosine = digits(pair.cosine) or "nan"
    distance = "nan" if math.isnan(pair.euclidean) else f"{pair.euclidean:.4g}"
    return [(f" {label}", "muted"), (f" cos {cosine} euclidean {distance}", "text")]
