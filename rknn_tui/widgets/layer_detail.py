"""What there is to know about one layer, as lines: in a strip under the table, or a panel beside it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len, chop_cells

from engine.summaries import Alternative, ErrorPair, LayerError, LayerFacts, LayerSummary, TensorFacts
from rknn_tui.charting.axes import short
from rknn_tui.charting.blocks import row_of_columns
from rknn_tui.graph.bars import digits, milliseconds
from rknn_tui.graph.layer_values import BOUNDS, NOTHING, LayerValues
from rknn_tui.palette import ROLES
from rknn_tui.pieces import Line, Piece, length
from rknn_tui.symbols import Symbols, drawable, fit, wrap

PANEL_WIDTH, PANEL_HEIGHT = 40, 12
"""Cells and lines from which everything has a line of its own."""
_BRIEF = 72
"""Cells below which a strip leaves out what can be done without."""
_SPARK = 16
_NAME = 24
_LINES_OF_WORDS = 4
"""Of a name or a sentence in a panel, whose other lines would not be seen below a long one."""

Chunk = list[Piece]
"""What stays together on a line."""


@dataclasses.dataclass(frozen=True)
class _Subject:
    layer: LayerSummary
    layers: Mapping[str, LayerSummary]
    readers: Sequence[str]
    values: LayerValues
    around: Mapping[str, LayerValues]
    error: LayerError | None
    facts: LayerFacts | None
    words: str
    block: str
    saved: str
    folded: int
    times: Mapping[str, float]
    symbols: Symbols
    on_board: Sequence[Chunk] = ()

    @property
    def number(self) -> str:
        """The layer's number, and of how many it stands at the head in a folded block."""
        behind = f"{self.symbols.folded} {self.folded} layers, the first " if self.folded else ""
        return f"{self.symbols.rule} {behind}#{self.layer.index} "


def detail_lines(
    layer: LayerSummary | None,
    layers: Mapping[str, LayerSummary],
    error: LayerError | None,
    width: int,
    height: int,
    symbols: Symbols,
    *,
    readers: Sequence[str] = (),
    values: LayerValues = NOTHING,
    around: Mapping[str, LayerValues] | None = None,
    facts: LayerFacts | None = None,
    words: str = "",
    block: str = "",
    saved: str = "",
    folded: int = 0,
    times: Mapping[str, float] | None = None,
    on_board: Sequence[Chunk] = (),
) -> list[Line]:
    """At most `height` lines of at most `width` cells, what matters most first.

    `layers` are the model's by name, `readers` the names of those that read this one; `values` are this layer's,
    `around` those of others by name. `words` say what it converts, `saved` what the saved cfg has it compute in, ''
    where none is saved. `folded` layers are in the folded block whose first one this is, 0 where it stands alone.
    `times` are its estimated milliseconds by precision, `on_board` what was measured on boards.
    """
    if layer is None or height < 1 or width < 1:
        return []
    words = words or (error.note if error is not None else "")
    around, times = around or {}, times or {}
    it = _Subject(layer, layers, readers, values, around, error, facts, words, block, saved, folded, times, symbols)
    it = dataclasses.replace(it, on_board=on_board)
    if height >= PANEL_HEIGHT and width >= PANEL_WIDTH:
        lines = _panel(it, width, height)
        if len(lines) > height:
            lines = [*lines[: height - 1], _unfinished(lines[height - 1], width, symbols)]
    else:
        lines = [_head(it, width), *_strip(it, width, height - 1)]
    return [_cut(line, width, symbols) for line in lines]


# A strip: the groups one below the other, in a line each where lines are few


def _strip(it: _Subject, width: int, height: int) -> list[Line]:
    brief = height < 3 or width < _BRIEF
    groups = [group for group in _groups(it, brief=brief) if group]
    if height < 3:
        # With so few lines, each has to be full.
        groups = [[chunk for group in groups for chunk in group]]
    groups = groups[: max(height, 0)]
    spare = height - len(groups)
    lines: list[Line] = []
    for group in groups:
        packed = _packed(group, width)
        if len(packed) > 1 + spare:
            packed = _packed(group, width - 2)[: 1 + spare]
            packed[-1] = _unfinished(packed[-1], width, it.symbols)
        spare -= len(packed) - 1
        lines += packed
    return lines


def _groups(it: _Subject, *, brief: bool) -> list[list[Chunk]]:
    """Accuracy, what boards told, other precisions, ranges, conversions, neighbours, provenance."""
    made = it.facts.makes if it.facts is not None else ()
    ranges = [chunk for tensor in made[:1] for chunk in _range(tensor, it.symbols, _SPARK // 2 if brief else _SPARK)]
    words: list[Chunk] = [[(drawable(it.words, it.symbols), "text")]] if it.words else []
    near = [_neighbour(it, name, "in") for name in it.layer.inputs]
    near += [_neighbour(it, name, "out") for name in it.readers]
    # Where there is more to say, a distance can wait for the panel.
    distances = "" if brief or it.values.bound else "entire"
    accuracy = [*_accuracy(it, distances=distances), *_cost_words(it.values), *_parts(it)]
    return [accuracy, list(it.on_board), _alternatives(it), ranges, words, near, _sources(it)]


def _packed(chunks: Iterable[Chunk], width: int) -> list[Line]:
    """The chunks on as few lines as they need, two blanks apart."""
    lines: list[list[Piece]] = []
    for chunk in chunks:
        if lines and length(lines[-1]) + 2 + length(chunk) <= width:
            lines[-1] += [("  ", "text"), *chunk]
        else:
            lines.append([(" ", "text"), *chunk])
    return list[Line](lines)


# A panel: a line for each


def _panel(it: _Subject, width: int, height: int) -> list[Line]:
    symbols, layer = it.symbols, it.layer
    most = max(_LINES_OF_WORDS, height // 6)
    name = chop_cells(f"{it.number}{drawable(layer.name, symbols)}", width)
    if len(name) > most:
        name = [*name[: most - 1], fit("".join(name[most - 1 :]), width, symbols, keep_end=True)]
    lines: list[Line] = [[(line, "title")] for line in name]
    lines.append([(f" {_kind(it)}", "text")])
    state = _precision(it)
    if it.block:
        state += [("  block " if state else " block ", "muted"), (drawable(it.block, symbols), "text")]
    lines += [state] if state else []
    words = wrap(drawable(it.words, symbols), width - 1) if it.words else []
    if len(words) > most:
        words = [*words[: most - 1], fit(" ".join(words[most - 1 :]), width - 1, symbols)]
    lines += [[(f" {line}", "text")] for line in words]
    made = it.facts.makes if it.facts is not None else ()
    near = [_neighbour(it, name, "in", width - 1) for name in layer.inputs]
    near += [_neighbour(it, name, "out", width - 1) for name in it.readers]
    sections: list[list[Line]] = [
        [[(" ", "text"), *chunk] for chunk in (*_accuracy(it, distances="entire single"), *_costs(it), *_parts(it))],
        [[(" ", "text"), *chunk] for chunk in it.on_board],
        _table_of_alternatives(it),
        [line for tensor in made for line in _tensor(it, tensor, width)],
        [[(" ", "text"), *chunk] for chunk in near],
        [[(f" {line}", "muted")] for line in _wrapped_sources(it, width - 1)],
    ]
    for section in sections:
        lines += [[], *section] if section else []
    return lines


def _table_of_alternatives(it: _Subject) -> list[Line]:
    known, now = _known_alternatives(it)
    if not known:
        known = [Alternative(name, math.nan) for name in it.times]
        now = _in_force(it, known)
    if not known:
        return []
    measured = any(one.quality is not None for one in known)
    figures = f"{'cosine':>8}{'SNR dB':>8}" if measured else ""
    head = f" {'outputs with' if measured else 'precision':<13}{figures}"
    head += f"{'~ms':>8}" if it.times else ""
    head += (
        ""
        if all(math.isnan(one.extra) for one in known)
        else f"{'in all' if it.times else 'time':>{8 if it.times else 10}}"
    )
    lines: list[Line] = [[(head, "muted")]]
    for one in known:
        figures = f"{'':>16}" if measured else ""
        if one.quality is not None:
            figures = f"{digits(one.quality.cosine) or 'nan':>8}{one.quality.snr:>8.1f}"
        word = f" {it.symbols.marker if one is now else ' '}{one.precision or 'default':<12}"
        if it.times:
            figures += f"{_digits(it.times[one.precision]) if one.precision in it.times else '':>8}"
        figures += _more(one.extra, 8 if it.times else 10)
        lines.append([(word, _role(one.precision)), (figures, "text")])
    return lines


def _tensor(it: _Subject, tensor: TensorFacts, width: int) -> list[Line]:
    lines: list[Line] = []
    if it.facts is not None and len(it.facts.makes) > 1:
        name = fit(drawable(tensor.name, it.symbols), width - 6, it.symbols, keep_end=True)
        lines.append([(" out ", "muted"), (name.rstrip(), "text")])
    chunks = _range(tensor, it.symbols, 0)
    if math.isfinite(tensor.seen_low) and math.isfinite(tensor.seen_high):
        chunks.append([("seen ", "muted"), (f"{short(tensor.seen_low)} to {short(tensor.seen_high)}", "text")])
    if tensor.row and tensor.row != tensor.name:
        chunks.append([("range of ", "muted"), (drawable(tensor.row, it.symbols), "text")])
    lines += _packed(chunks, width)
    if tensor.counts:
        low, high = short(tensor.first), short(tensor.last)
        cells = width - len(low) - len(high) - 4
        spark = row_of_columns(tensor.counts, max(cells, 4), unicode=it.symbols.unicode)
        lines.append([(f" {low} ", "muted"), (spark, "text"), (f" {high}", "muted")])
    return lines


# What lines are made of


def _head(it: _Subject, width: int) -> Line:
    """Number, name, operator, shape and precision; where the name is long, less of the others and its end."""
    start, name = it.number, drawable(it.layer.name, it.symbols)
    kind, state = _kind(it), _precision(it)
    shorter = kind.rpartition(" ")[0]
    choices: list[list[Piece]] = [[(f" {kind}", "text"), *state], [(f" {shorter}", "text"), *state]]
    choices.append([(f" {drawable(it.layer.op, it.symbols)}", "text"), *state[:2]])
    rest = next((one for one in choices if len(start) + cell_len(name) + length(one) <= width), choices[-1])
    room = max(width - len(start) - length(rest), min(_NAME, width - len(start)))
    return [(start + fit(name, min(cell_len(name), room), it.symbols, keep_end=True), "title"), *rest]


def _kind(it: _Subject) -> str:
    shape = it.symbols.times.join(map(str, it.layer.shape)) or "scalar"
    return f"{drawable(it.layer.op, it.symbols)} {shape} {it.layer.dtype}"


def _precision(it: _Subject) -> Chunk:
    precision = it.values.precision or it.layer.precision
    if not precision:
        return []
    chunk: Chunk = [(f" {precision}", _role(precision))]
    if it.values.changed:
        chunk.append(("*", "changed"))
    if it.saved and it.saved != precision:
        chunk.append((f" (saved {it.saved})", "muted"))
    return chunk


def _accuracy(it: _Subject, *, distances: str) -> list[Chunk]:
    """Entire and single cosine, and the share of the error.

    `distances` names the cosines that have their euclidean distance beside them.
    """
    error, values = it.error, it.values
    entire = error.entire if error is not None else None
    single = error.single if error is not None else None
    chunks: list[Chunk] = []
    for label, number, pair in (("entire", values.entire, entire), ("single", values.single, single)):
        cosine = pair.cosine if math.isnan(number) and pair is not None else number
        if math.isnan(cosine) and pair is None:
            continue
        # A distance is of the analysis: after a change it belongs to another cosine.
        known = pair if pair is not None and (math.isnan(number) or pair.cosine == number) else None
        chunks.append(_pair(label, cosine, known if label in distances else None))
        if label == "entire" and values.stale:
            chunks[-1].append((" before the change", "warning"))
    share = error.share if math.isnan(values.share) and error is not None else values.share
    if share is not None and not math.isnan(share):
        chunks.append([("share ", "muted"), (short(share, "share"), "text")])
    if not chunks and (values.fused or (error is not None and error.entire is None)):
        chunks = [[("fused: no tensor of its own on the NPU", "muted")]]
    return chunks


def _parts(it: _Subject) -> list[Chunk]:
    """The parts of a join."""
    chunks: list[Chunk] = []
    error = it.error
    for part in error.parts if error is not None else ():
        chunk: Chunk = [(f"part {drawable(part.tensor, it.symbols)} [{part.start}:{part.stop}] ", "muted")]
        chunk += _pair("entire", part.entire.cosine, part.entire)
        chunks.append([*chunk, *([(f" {drawable(part.flag, it.symbols)}!", "bad")] if part.flag else [])])
    return chunks


def _cost_words(values: LayerValues) -> list[Chunk]:
    """What bounds the time, which no column tells, and then time and memory, and whether they were measured."""
    chunks: list[Chunk] = [[(BOUNDS.get(values.bound, values.bound), "muted")]] if values.bound else []
    source = "estimated" if values.estimated else "measured"
    if not math.isnan(values.milliseconds):
        chunks.append(
            [(f"{'~' if values.expected else ''}{_time(values.milliseconds)}", "text"), (f" {source}", "muted")]
        )
    if not math.isnan(values.bytes):
        chunks.append([(short(values.bytes, "bytes"), "text"), (f" {source}", "muted")])
    return chunks


def _costs(it: _Subject) -> list[Chunk]:
    """Time, what bounds it, and the memory in use, and whether that was measured, in one line."""
    values = it.values
    chunk: Chunk = [("estimated" if values.estimated else "measured", "muted")]
    if not math.isnan(values.milliseconds):
        chunk.append((f" {'~' if values.expected else ''}{_time(values.milliseconds)}", "text"))
        if values.bound:
            chunk.append((f" {BOUNDS.get(values.bound, values.bound)}", "muted"))
    if not math.isnan(values.bytes):
        chunk.append((f" {short(values.bytes, 'bytes')}", "text"))
    return [chunk] if len(chunk) > 1 else []


def _pair(label: str, cosine: float, pair: ErrorPair | None) -> Chunk:
    text = f" cos {digits(cosine) or 'nan'}"
    if pair is not None:
        text += " euclidean " + ("nan" if math.isnan(pair.euclidean) else f"{pair.euclidean:.4g}")
    return [(label, "muted"), (text, "text")]


def _alternatives(it: _Subject) -> list[Chunk]:
    """What each precision would make of the outputs, and the time that it takes more, in one line."""
    known, now = _known_alternatives(it)
    if not known:
        return _times(it)
    measured = any(one.quality is not None for one in known)
    chunks: list[Chunk] = []
    for one in known:
        text = f" {digits(one.quality.cosine) or 'nan'}" if one.quality is not None else ""
        if (time := it.times.get(one.precision)) is not None:
            text += f" {milliseconds(time)}{'' if measured else ' ms'}"
        if (one.extra and not (measured and time is not None)) or not text:
            text += _more(one.extra, 0)
        chunks.append(
            [
                (f"{it.symbols.marker if one is now else ''}{one.precision or 'default'}", _role(one.precision)),
                (text, "text"),
            ]
        )
    what = ("cosine, ms" if it.times else "outputs") if measured else "time"
    return [[(f"{what} with ", "muted"), *chunks[0]], *chunks[1:]]


def _times(it: _Subject) -> list[Chunk]:
    """What each precision would take, where no more is known of them."""
    now = it.values.precision.rpartition("+")[2]
    chunks: list[Chunk] = [
        [(f"{it.symbols.marker if name == now else ''}{name}", _role(name)), (f" {milliseconds(time)} ms", "text")]
        for name, time in it.times.items()
    ]
    return [[("time with ", "muted"), *chunks[0]], *chunks[1:]] if chunks else []


def _known_alternatives(it: _Subject) -> tuple[list[Alternative], Alternative | None]:
    """The alternatives and the one in force; the default is left out where it clearly is one of the others."""
    known = list(it.facts.alternatives) if it.facts is not None else []
    if all(math.isnan(one.extra) and one.quality is None for one in known):
        # Nothing is known but the times, which the default has none of.
        return [one for one in known if one.precision], _in_force(it, known)
    now = next((one for one in known if one.precision == it.values.wished), None)
    default = next((one for one in known if not one.precision), None)
    same = [one for one in known if one is not default and default is not None and _equal(one, default)]
    if default is not None and len(same) == 1:
        known.remove(default)
        now = same[0] if now is default else now
    return known, now


def _in_force(it: _Subject, known: Iterable[Alternative]) -> Alternative | None:
    return next((one for one in known if one.precision == it.values.precision.rpartition("+")[2]), None)


def _equal(one: Alternative, other: Alternative) -> bool:
    return (one.extra, one.quality) == (other.extra, other.quality)


def _range(tensor: TensorFacts, symbols: Symbols, spark: int) -> list[Chunk]:
    """How a tensor is stored, how its values lie in the range, and a histogram of so many cells."""
    chunks: list[Chunk] = [[("stored ", "muted"), (tensor.stored or "as integers", _role(tensor.stored))]]
    ranged = math.isfinite(tensor.low) and math.isfinite(tensor.high)
    if ranged:
        chunks.append([("range ", "muted"), (f"{short(tensor.low)} to {short(tensor.high)}", "text")])
    if ranged and tensor.counts:
        chunks.append(
            [(short(tensor.outside, "share"), "bad" if tensor.outside > 0 else "text"), (" outside", "muted")]
        )
    if tensor.counts and spark:
        chunks.append([(row_of_columns(tensor.counts, spark, unicode=symbols.unicode), "text")])
    if tensor.scale is not None:
        chunks.append([("scale ", "muted"), (short(tensor.scale), "text")])
    if tensor.zero_point is not None:
        chunks.append([("zero point ", "muted"), (str(tensor.zero_point), "text")])
    return chunks


def _neighbour(it: _Subject, name: str, side: str, width: int = 0) -> Chunk:
    """A layer before or behind: number, name and what it computes in.

    In a panel of `width`, also its cosine and, of what is read, the precision and range that it is stored in.
    """
    known, values = it.layers.get(name), it.around.get(name, NOTHING)
    precision = values.precision or (known.precision if known is not None else "")
    tail: Chunk = [(f" {precision}", _role(precision))] if precision else []
    if width:
        tail += _stored(it, name, side, precision)
        if not math.isnan(values.entire):
            tail.append((f" cos {digits(values.entire)}", "text"))
    if not tail and known is not None:
        tail.append((f" {it.symbols.times.join(map(str, known.shape)) or 'scalar'} {known.dtype}", "muted"))
    number = f"#{known.index} " if known is not None else ""
    text, start = drawable(name, it.symbols), f"{side:<4}" if width else f"{side} "
    room = width - len(start) - len(number) - length(tail) if width else _NAME
    return [
        (start + number, "muted"),
        (fit(text, min(cell_len(text), max(room, 8)), it.symbols, keep_end=True), "text"),
        *tail,
    ]


def _stored(it: _Subject, name: str, side: str, precision: str) -> Chunk:
    known = it.layers.get(name)
    outputs = (name, *(known.outputs if known is not None else ()))
    tensors = it.facts.reads if it.facts is not None and side == "in" else ()
    read = next((tensor for tensor in tensors if tensor.name in outputs), None)
    if read is None:
        return []
    chunk: Chunk = []
    if read.stored and read.stored != precision:
        chunk.append((f" stored {read.stored}", _role(read.stored)))
    if math.isfinite(read.low) and math.isfinite(read.high):
        chunk.append((f" {short(read.low)} to {short(read.high)}", "muted"))
    return chunk


def _sources(it: _Subject) -> list[Chunk]:
    names = [drawable(name, it.symbols) for name in it.layer.sources]
    return [[("from ", "muted"), (", ".join(names), "text")]] if names else []


def _wrapped_sources(it: _Subject, width: int) -> list[str]:
    text = ", ".join(drawable(name, it.symbols) for name in it.layer.sources)
    return wrap(f"from {text}", width) if text else []


def _time(value: float) -> str:
    """Milliseconds in words; microseconds where they are few."""
    return short(value * 1000, "us") if 0 < value < 0.001 else short(value, "ms")


def _digits(value: float) -> str:
    """Milliseconds in at most 7 cells, with up to four decimals."""
    return next((text for d in (4, 3, 2, 1) if len(text := f"{value:.{d}f}") <= 6), f"{value:.3g}")


def _more(extra: float, cells: int) -> str:
    """A share of more time behind a blank, in so many cells; '' where it is not known."""
    if math.isnan(extra):
        return ""
    return f" {f'{extra * 100:+.1f} %' if abs(extra) < 1e4 else f'{extra:+.2e}':>{max(cells - 1, 0)}}"


def _role(precision: str) -> str:
    finest = precision.rpartition("+")[2]
    return finest if finest in ROLES else "text"


def _unfinished(line: Line, width: int, symbols: Symbols) -> Line:
    """The line with a sign that something is missing."""
    room = width - length(line)
    return [*line, (f" {symbols.ellipsis}"[-room:], "muted")] if room > 0 else _cut(line, width - 1, symbols)


def _cut(line: Line, width: int, symbols: Symbols) -> list[Piece]:
    pieces: list[Piece] = []
    for text, role in line:
        room = width - length(pieces)
        if room <= 0:
            break
        pieces.append((text if cell_len(text) <= room else fit(text, room, symbols), role))
    return pieces
