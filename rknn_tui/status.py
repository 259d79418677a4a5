"""The lines around the layer table: the status at the top and the keys at the bottom, fitted to a width."""

from __future__ import annotations

from pathlib import Path

from rknn_tui.actions import ACTIONS
from rknn_tui.bars import digits
from rknn_tui.dialogue import counted
from rknn_tui.keymap import Keymap
from rknn_tui.pieces import Line, Piece, length
from rknn_tui.symbols import Symbols, drawable, fit
from rknn_tui.workbench import Workbench

JOB_CELLS = 26
"""Kept for a running job at the right end, so that its progress never moves what stands left of it."""
NARROW = 64
"""Screens with fewer cells: the program's name gives its place to what is known of the model."""


def status_line(bench: Workbench, shown: int, total: int, width: int, symbols: Symbols) -> Line:
    """File, target, build state, output cosine, warnings and filtered layers, beside what `job_line` takes."""
    cells = width - length(job_line(bench, width, symbols))
    facts: list[Piece] = [(bench.target, "text"), _built(bench)]
    cosine = bench.output_cosine
    if cosine is not None:
        facts.append((f"cos {digits(cosine)}", "text"))
    if bench.report is not None and bench.report.warnings:
        facts.append((counted(len(bench.report.warnings), "warning"), "warning"))
    if shown != total:
        facts.append((f"{shown}/{total} layers", "warning"))
    start = " rknn-tui " if width >= NARROW else " "
    rest = sum(len(text) + 2 for text, _ in facts)
    name = drawable(Path(bench.path).name or "no model", symbols)
    room = max(cells - rest - len(start) - 2, 12)
    line: list[Piece] = [(start, "muted"), (fit(name, min(len(name), room), symbols, keep_end=True), "title")]
    for text, role in facts:
        if length(line) + 2 + len(text) < cells:
            line += [("  ", "text"), (text, role)]
    return line


def job_line(bench: Workbench, width: int, symbols: Symbols) -> Line:
    """The running job with its progress, in as many cells for every job; nothing when there is none."""
    cells = min(JOB_CELLS, width * 2 // 5)
    if bench.died is not None:
        return [(fit("engine ended", cells, symbols), "error")]
    if bench.job is None:
        return []
    text, left = drawable(bench.job.progress, symbols), bench.job.left
    if left and len(text) + 1 + len(left) <= cells:
        text = f"{text} {left}"
    return [(fit(text, cells, symbols), "key")]


def _built(bench: Workbench) -> Piece:
    if not bench.built:
        return ("not built", "muted")
    stale = bench.built_target != bench.target
    return (f"{bench.built}{f' for {bench.built_target}' if stale else ''}", "warning" if stale else "text")


def key_line(bench: Workbench, keymap: Keymap, width: int) -> Line:
    """The labelled actions that have something to do now, as many as fit; the way to all keys and out always do."""
    always = ("keys", "quit")
    line: list[Piece] = []
    room = width - 2 - sum(len(keymap.first(name)) + len(name) + 3 for name in always)
    useful = _useful(bench)
    for action in ACTIONS:
        if not action.label or not keymap.first(action.id) or action.id not in (*useful, *always):
            continue
        item: list[Piece] = [(f" {keymap.first(action.id)}", "key"), (f" {action.label} ", "muted")]
        if action.id in always or length([*line, *item]) <= room:
            line += item
    return line


def _useful(bench: Workbench) -> set[str]:
    """The actions that lead somewhere in the state that the workbench is in."""
    if bench.died is not None:
        return {"restart", "open"}
    # Changing the target takes a moment: its keys would only flicker.
    if bench.job is not None and bench.job.name != "target":
        return {"cancel"} | ({"filter"} if bench.summary else set())
    if bench.summary is None:
        return {"open"} | ({"restart"} if bench.path else set())
    names = {"build_int8", "build_float16", "filter", "target", "dataset", "open"}
    if bench.built:
        names |= {"export"} | ({"analyse"} if bench.built != "float16" else set())
    return names | ({"worst"} if bench.report else set())
