"""Charts drawn as lines of text: title and legend, the plot or the bars, and the note."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from rich.cells import cell_len

from rknn_tui.charting.axes import cosine_extent, extent, finite, place, short, tick_labels, ticks
from rknn_tui.charting.blocks import gathered, stacked
from rknn_tui.charting.chart import Chart
from rknn_tui.charting.frame import LEAST_COLUMNS, LEAST_ROWS, Curve, Frame, Tick, framed, room
from rknn_tui.graph.bars import bar
from rknn_tui.pieces import Line, Piece, length
from rknn_tui.symbols import ASCII, Symbols, drawable, fit, wrap

_CELLS_A_TICK = 12
_ROWS_A_TICK = 3
_EDGE = 0.03
"""Of an axis left free at its ends, so that what stands there is not taken for the frame."""
_MARKED = ("in force", "chosen")
"""What a point is marked for."""
_LOW = 12
"""Lines below which the note keeps to one."""

Legend = list[list[Piece]]
"""What the title line says of the signs, the most important first: what does not fit is left out."""
Drawing = tuple[Legend, list[Line]]
"""The legend, and the lines under it."""


def as_text(chart: Chart, width: int, height: int, symbols: Symbols) -> list[Line]:
    """The chart in at most `height` lines of at most `width` cells; where there is no room for it, its note alone."""
    if width < 1 or height < 1:
        return []
    title: list[Piece] = [(f" {drawable(chart.title, symbols)}", "title")]
    notes = wrap(drawable(chart.note, symbols), width - 1) if chart.note and width > 4 else []
    if not chart.rows:
        return _cut([title, [], *([(f" {line}", "text")] for line in notes)][:height], width, symbols)
    most = 2 if height >= _LOW else 1
    if len(notes) > most:
        notes = [*notes[: most - 1], fit(" ".join(notes[most - 1 :]), width - 1, symbols)]
    legend, body = _DRAWN[chart.kind](chart, width, height - 1 - len(notes), symbols)
    for entry in legend:
        if length(title) + length(entry) + 2 <= width:
            title += [("  ", "text"), *entry]
    lines: list[Line] = [title, *body]
    lines += [[(f" {line}", "text")] for line in notes]
    return _cut(lines[:height], width, symbols)


def _cut(lines: Sequence[Line], width: int, symbols: Symbols) -> list[Line]:
    found: list[Line] = []
    for line in lines:
        left, pieces = width, []
        for text, role in line:
            if cell_len(text) > left:
                text = fit(text, left, symbols)
            if text:
                pieces.append((text, role))
            left -= cell_len(text)
        found.append(pieces)
    return found


# Curves over the layers


def _lines(chart: Chart, width: int, height: int, symbols: Symbols) -> Drawing:
    xs = chart.numbers(chart.x)
    columns = {name: chart.numbers(name) for name in chart.ys}
    every = [value for values in columns.values() for value in values]
    low, high = cosine_extent(every) if chart.unit == "cosine" else extent(every, margin=0.05)
    y_ticks = _ticks(low, high, max((height - 2) // _ROWS_A_TICK + 1, 2), chart.unit)
    cells, rows = room(width, height, y_ticks, chart.x_label)
    if cells < LEAST_COLUMNS or rows < LEAST_ROWS:
        return [], []
    left, right = extent(xs)
    curves: list[Curve] = []
    legend: Legend = []
    under: set[int] = set()
    signs = (("hd", "▚"), ("x", "x"), ("o", "o")) if symbols.unicode else (("*", "*"), ("x", "x"), ("o", "o"))
    for name, (marker, sign) in zip(chart.ys, signs, strict=False):
        role = "text" if not curves else "muted"
        found: dict[int, float] = {}
        for x, value in zip(xs, columns[name], strict=True):
            if math.isfinite(x) and math.isfinite(value):
                column = round(place(x, left, right) * (cells - 1))
                found[column] = min(value, found.get(column, math.inf))
        under |= {column for column, value in found.items() if value < low}
        places = sorted(found)
        curves.append(
            Curve(
                [column / (cells - 1) for column in places],
                [place(found[column], low, high) for column in places],
                marker,
                role,
                joined=not curves,
            )
        )
        legend.append([(f"{sign} ", role), (name, "muted")])
    x_ticks = _ticks(left, right, cells // _CELLS_A_TICK, whole=True)
    frame = framed(width, height, x_ticks, y_ticks, chart.x_label, curves[::-1], symbols)
    if low <= chart.limit <= high:
        row = frame.cell(0, place(chart.limit, low, high))[1]
        for column in range(frame.columns):
            if frame.free(column, row):
                frame.put(column, row, symbols.rule, "muted")
        legend.append([(f"{symbols.rule} limit {chart.limit:g}", "muted")])
    for column in under:
        frame.put(column, frame.rows - 1, "v", "bad")
    if under:
        legend.append([("v ", "bad"), ("lower", "muted")])
    return legend, frame.lines()


def _steps(chart: Chart, width: int, height: int, symbols: Symbols) -> Drawing:
    xs, values = chart.numbers(chart.x), chart.numbers(chart.ys[0])
    highest = max(finite(values), default=0.0)
    top = highest if highest > 0 else 1.0
    y_ticks = _ticks(0.0, top, max((height - 2) // _ROWS_A_TICK + 1, 2), chart.unit)
    cells, rows = room(width, height, y_ticks, chart.x_label)
    if cells < LEAST_COLUMNS or rows < LEAST_ROWS:
        return [], []
    count = len(values)
    heights = []
    for column in range(cells):
        first, last = column * count // cells, max(-(-(column + 1) * count // cells), column * count // cells + 1)
        heights.append(max(finite(values[first:last]), default=0.0) / top)
    shown = ticks(0, count - 1, cells // _CELLS_A_TICK, whole=True)
    x_ticks = [((at + 0.5) / count, f"{xs[int(at)]:g}") for at in shown]
    frame = framed(width, height, x_ticks, y_ticks, chart.x_label, (), symbols)
    for row, text in enumerate(stacked(heights, frame.rows, unicode=symbols.unicode)):
        frame.put(0, row, text, "text")
    return [[(chart.y_label, "muted")]], frame.lines()


# Bars with names


def _bars(chart: Chart, width: int, height: int, symbols: Symbols) -> Drawing:
    if height < 1:
        return [], []
    value = dict(enumerate(chart.numbers(chart.ys[0])))
    order = sorted((row for row in value if math.isfinite(value[row])), key=lambda row: -value[row])
    tags, names = ([drawable(text, symbols) for text in chart.texts(column)] for column in (chart.tag, chart.label))
    shown = order if len(order) <= height else order[: height - 1]
    largest = max((value[row] for row in shown), default=0.0)
    rest = order[len(shown) :]
    numbers = dict(zip(shown, _aligned([value[row] for row in shown], largest, chart.unit), strict=True))
    sums = _aligned([_sum([value[row] for row in rest])], largest, chart.unit)[0] if rest else ""
    tag_cells = max((cell_len(tags[row]) for row in shown), default=0)
    number_cells = max((len(text) for text in (*numbers.values(), sums)), default=0)
    left = width - number_cells - 3 - (tag_cells + 1 if tag_cells else 0)
    name_cells = min(max((cell_len(names[row]) for row in shown), default=0), max(left * 11 // 20, 12), max(left, 1))
    bar_cells = max(left - name_cells - 1, 0)
    lines: list[Line] = []
    for row in shown:
        filled = bar(value[row], 0.0, largest, bar_cells, unicode=symbols.unicode) if largest > 0 else " " * bar_cells
        lines.append(
            [
                (f" {fit(tags[row], tag_cells, symbols)} " if tag_cells else " ", "muted"),
                (fit(names[row], name_cells, symbols, keep_end=True) + " ", "text"),
                (filled.replace(".", " ") + " ", "text"),
                (numbers[row].rjust(number_cells), "text"),
            ]
        )
    if rest:
        text = f" and {len(rest)} more"
        lines.append([(fit(text, width - number_cells - 1, symbols) + sums.rjust(number_cells), "muted")])
    return [[(chart.y_label, "muted")]], lines


def _aligned(values: Sequence[float], largest: float, unit: str) -> list[str]:
    """The numbers with as many decimals as make four digits of the largest."""
    if unit in ("share", "bytes") or not 1e-3 <= largest < 9999.5:
        return [short(value, unit) for value in values]
    decimals = max(0, 3 - math.floor(math.log10(largest)))
    return [f"{value:.{decimals}f} {unit}".rstrip() if abs(value) < 1e6 else short(value, unit) for value in values]


def _sum(values: Sequence[float]) -> float:
    total = sum(values)
    return math.fsum(values) if math.isfinite(total) else total


# Numbered points


def _points(chart: Chart, width: int, height: int, symbols: Symbols) -> Drawing:
    xs, ys = chart.numbers(chart.x), chart.numbers(chart.ys[0])
    known = [row for row in range(len(xs)) if math.isfinite(xs[row]) and math.isfinite(ys[row])]
    low, high = extent([ys[row] for row in known], margin=0.08)
    if chart.unit == "cosine":
        high = min(high, 1.0) if low < 1.0 else high
    left, right = extent([0.0, *(xs[row] for row in known)], margin=_EDGE)
    y_ticks = _ticks(low, high, max((height - 2) // _ROWS_A_TICK + 1, 2), "")
    cells, rows = room(width, height, y_ticks, chart.x_label)
    if cells < LEAST_COLUMNS or rows < LEAST_ROWS:
        return [], []
    x_ticks = [
        (place(at, left, right), short(at, "share")) for at in ticks(left, right, max(cells // _CELLS_A_TICK, 1))
    ]
    frame = framed(width, height, x_ticks, y_ticks, chart.x_label, (), symbols)
    # A cell a character: what is put into the frame has no room for wide ones.
    states, names = chart.texts(chart.tag), [drawable(text, ASCII) for text in chart.texts(chart.label)]
    hidden = 0
    # Where points lie on each other, the marked one and the base are the ones to see.
    for row in sorted(known, key=lambda row: (states[row] not in _MARKED, states[row] != "base")):
        marked = states[row] in _MARKED
        text = f"[{names[row]}]" if marked else names[row]
        at = frame.cell(place(xs[row], left, right), place(ys[row], low, high))
        spot = _spot(frame, at[0] - marked, at[1], len(text))
        if spot is None:
            hidden += 1
        else:
            role = "marker" if marked else "muted" if states[row] == "base" else "text"
            frame.put(*spot, text, role)
    legend: Legend = [[("[n] ", "marker"), (word, "muted")] for word in _MARKED if word in states]
    legend += [[("0 ", "muted"), ("as it was", "muted")]] if "base" in states else []
    legend += [[(f"{hidden} under others", "muted")]] if hidden else []
    legend.append([(chart.y_label, "muted")])
    return legend, frame.lines()


def _spot(frame: Frame, column: int, row: int, cells: int) -> tuple[int, int] | None:
    """The nearest place for a number, apart from others so that each can be read."""
    for down, across in ((0, 0), (0, 1), (0, -1), (-1, 0), (1, 0), (0, 2), (0, -2), (-1, 2), (1, -2), (0, 3), (0, -3)):
        first = min(max(column + across, 0), frame.columns - cells)
        line = min(max(row + down, 0), frame.rows - 1)
        if all(frame.free(place, line) for place in range(first - 1, first + cells + 1)):
            return first, line
    return None


# A tensor's values


def _histogram(chart: Chart, width: int, height: int, symbols: Symbols) -> Drawing:
    starts, ends = chart.numbers(chart.header[0]), chart.numbers(chart.header[1])
    counts = chart.numbers(chart.ys[0])
    left, right = extent([starts[0], ends[-1], *(mark.value for mark in chart.marks)], margin=_EDGE)
    counts = [count if math.isfinite(count) else 0.0 for count in counts]
    # Their labels are as wide for one place as for all: what falls into a place is known only once the width is.
    decades = [power for power in range(16) if 10**power <= max(sum(counts), 1.0)]
    cells, rows = room(width, height, [(0.0, _power(power)) for power in decades], chart.x_label)
    if cells < LEAST_COLUMNS or rows < LEAST_ROWS:
        return [], []
    first = round(place(starts[0], left, right) * (cells - 1))
    last = max(round(place(ends[-1], left, right) * (cells - 1)), first)
    shown = _at_places(counts, last - first + 1)
    top = math.log10(1 + max(*shown, 1.0))
    y_ticks = [(0.0, "0".rjust(width - cells - 1))]
    y_ticks += [
        (math.log10(1 + 10**power) / top, _power(power)) for power in decades if math.log10(1 + 10**power) <= top
    ]
    y_ticks = [y_ticks[0], *y_ticks[1 :: max(-(-len(y_ticks) * 2 // max(rows, 1)), 1)]]
    x_ticks = _ticks(left, right, cells // _CELLS_A_TICK)
    frame = framed(width, height, x_ticks, y_ticks, chart.x_label, (), symbols)
    heights = [math.log10(1 + value) / top for value in shown]
    marked = [(round(place(mark.value, left, right) * (cells - 1)), mark.word) for mark in chart.marks]
    outside = "░" if symbols.unicode else "."
    inside = stacked(heights, rows, unicode=symbols.unicode)
    beyond = stacked(heights, rows, sign=outside)
    cut = False
    for column in range(first, last + 1):
        within = not marked or marked[0][0] <= column <= marked[-1][0]
        cut |= not within and heights[column - first] > 0
        for row in range(rows):
            text = (inside if within else beyond)[row][column - first]
            frame.put(column, row, text, "text" if within else "bad")
    for column, _ in marked:
        for row in range(rows):
            frame.put(column, row, symbols.rail, "key")
    legend: Legend = []
    if marked:
        legend.append([(symbols.rail, "key"), (" range in use", "muted")])
    if cut:
        legend.append([(f"{outside} ", "bad"), ("outside", "muted")])
    legend.append([("how many, logarithmic", "muted")])
    return legend, frame.lines()


def _at_places(counts: Sequence[float], places: int) -> list[float]:
    """Each place's bin, or the sum of its bins where places are fewer."""
    if len(counts) > places:
        return gathered(counts, places)
    return [counts[at * len(counts) // places] for at in range(places)]


def _power(power: int) -> str:
    return f"{10 ** (power % 3)}{'kMGT'[power // 3 - 1] if power > 2 else ''}" if power < 15 else f"1e{power}"


def _ticks(low: float, high: float, most: int, unit: str = "", *, whole: bool = False) -> list[Tick]:
    values = ticks(low, high, most, whole=whole)
    return [(place(value, low, high), label) for value, label in zip(values, tick_labels(values, unit), strict=True)]


_DRAWN: Mapping[str, Callable[[Chart, int, int, Symbols], Drawing]] = {
    "lines": _lines,
    "steps": _steps,
    "bars": _bars,
    "points": _points,
    "histogram": _histogram,
}
