"""The lines around the layer table: the status at the top and the keys at the bottom, fitted to a width."""

from __future__ import annotations

from pathlib import Path

from rknn_tui.actions import BY_ID
from rknn_tui.bars import digits
from rknn_tui.dialogue import counted
from rknn_tui.keymap import Keymap, key_name
from rknn_tui.pieces import Line, Piece, length
from rknn_tui.symbols import Symbols, drawable, fit
from rknn_tui.tuning_bench import TuningBench

JOB_CELLS = 26
"""Kept for a running job at the right end, so that its progress never moves what stands left of it."""
NARROW = 64
"""Screens with fewer cells: the program's name gives its place to what is known of the model."""


def status_line(bench: TuningBench, shown: int, total: int, marked: int, width: int, symbols: Symbols) -> Line:
    """File, target, build state, the outputs' cosine now and as saved, estimated time, unsaved edits, warnings, marks
    and filtered layers, beside what `job_line` takes."""
    cells = width - length(job_line(bench, width, symbols))
    facts: list[Piece] = [(bench.target, "text"), _built(bench), *_edits(bench)]
    if bench.report is not None and bench.report.warnings:
        facts.append((counted(len(bench.report.warnings), "warning"), "warning"))
    if shown != total:
        facts.append((f"{shown}/{total} layers", "warning"))
    if marked:
        facts.append((f"{marked} marked", "mark"))
    start = " rknn-tui " if width >= NARROW and cells >= NARROW + JOB_CELLS // 2 else " "
    rest = sum(len(text) + 2 for text, _ in facts)
    name = drawable(Path(bench.path).name or "no model", symbols)
    room = max(cells - rest - len(start) - 2, 12)
    line: list[Piece] = [(start, "muted"), (fit(name, min(len(name), room), symbols, keep_end=True), "title")]
    for text, role in facts:
        if length(line) + 2 + len(text) < cells:
            line += [("  ", "text"), (text, role)]
    return line


def _edits(bench: TuningBench) -> list[Piece]:
    """The outputs' cosine, what it was when saved, and what the edits cost. `~` is an estimate, or an old number."""
    editing = bench.editing
    cosine = bench.output_cosine
    unsaved = bench.unsaved
    facts: list[Piece] = []
    if cosine is not None:
        pending = editing.pending and editing.live
        now = editing.estimate if pending and editing.estimate is not None else cosine
        saved = editing.saved_quality
        before = f"{digits(saved.cosine)}>" if saved is not None and digits(saved.cosine) != digits(cosine) else ""
        facts.append((f"cos {before}{digits(now)}{'~' if pending else ''}", "text"))
    if unsaved:
        facts.append((f"*{unsaved}", "changed"))
    if abs(editing.extra) >= 0.0005:
        facts.append((f"{editing.extra:+.1%} time est", "text"))
    return facts


def job_line(bench: TuningBench, width: int, symbols: Symbols) -> Line:
    """The running job with its progress, in as many cells for every job; nothing when there is none."""
    cells = min(JOB_CELLS, width * 2 // 5)
    if bench.died is not None:
        return [(fit("engine ended", cells, symbols), "error")]
    job = bench.running
    if job is None:
        return []
    text, left = drawable(job.progress, symbols), job.left
    if left and len(text) + 1 + len(left) <= cells:
        text = f"{text} {left}"
    return [(fit(text, cells, symbols), "key")]


def _built(bench: TuningBench) -> Piece:
    if not bench.built:
        return ("not built", "muted")
    stale = bench.built_target != bench.target
    return (f"{bench.built}{f' for {bench.built_target}' if stale else ''}", "warning" if stale else "text")


def key_line(bench: TuningBench, keymap: Keymap, width: int, place: str = "tune") -> Line:
    """The labelled actions that have something to do now, as many as fit; the way to all keys and out always do."""
    if place == "cfg":
        return _cfg_keys(keymap, width)
    always = ("keys", "quit")
    line: list[Piece] = []
    room = width - 2 - sum(len(keymap.first(name)) + len(name) + 3 for name in always)
    useful = _useful(bench)
    listed = [*(BY_ID[name] for name in useful), *(BY_ID[name] for name in always)]
    for action in listed:
        if not action.label or not keymap.first(action.id):
            continue
        item: list[Piece] = [(f" {key_name(keymap.first(action.id))}", "key"), (f" {action.label} ", "muted")]
        if action.id in always or length([*line, *item]) <= room:
            line += item
    return line


def _cfg_keys(keymap: Keymap, width: int) -> Line:
    """The keys that work while text is typed: those that type nothing."""
    line: list[Piece] = []
    for name, label in (
        *(("other_pane", "graph"), ("save", "save"), ("undo", "undo"), ("redo", "redo"), ("next_fault", "fault")),
        *(("reload", "read again"), ("commands", "commands"), ("back", "back")),
    ):
        key = next((key for key in keymap.keys[name] if len(key) > 1), "")
        item: list[Piece] = [(f" {key_name(key)}", "key"), (f" {label} ", "muted")]
        if key and length([*line, *item]) <= width - 2:
            line += item
    return line


def _useful(bench: TuningBench) -> list[str]:
    """The actions that lead somewhere in the state that the workbench is in, the most useful first."""
    if bench.died is not None:
        return ["restart", "open"]
    # Changing the target takes a moment: its keys would only flicker.
    if bench.job is not None and bench.job.name != "target":
        return ["cancel", *(["filter"] if bench.summary else [])]
    if bench.summary is None:
        return [*(["restart"] if bench.path else []), "open"]
    if not bench.built:
        return ["build_int8", "build_float16", "dataset", "target", "filter", "open"]
    if not bench.editing.ready:
        return ["build_int8", "build_float16", "export", "filter", "target", "open"]
    names = ["analyse"] if bench.report is None else ["cycle", "set_float16", "worst"]
    if bench.editing.history.undoable:
        names += ["undo", "save"]
    if bench.running is not None:
        names.append("cancel")
    names += ["tune", "editor", "filter", "export"]
    return names if bench.report is None else [*names, "screen_charts", "lint"]
