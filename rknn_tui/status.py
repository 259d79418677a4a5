"""The lines around the layer table: the status at the top and the keys at the bottom, fitted to a width."""

from __future__ import annotations

from pathlib import Path

from rknn_tui.actions import ACTIONS
from rknn_tui.bars import digits
from rknn_tui.keymap import Keymap
from rknn_tui.pieces import Line, Piece, length
from rknn_tui.symbols import Symbols, drawable, fit
from rknn_tui.workbench import Workbench

JOB_CELLS = 24
"""Kept for a running job at the right end, so that its progress never moves what stands left of it."""


def status_line(bench: Workbench, shown: int, total: int, width: int, symbols: Symbols) -> Line:
    """File, target, build state, output cosine, filtered layers, and the job with its progress at the right end."""
    facts: list[Piece] = [(bench.target, "text"), _built(bench)]
    cosine = bench.output_cosine
    if cosine is not None:
        facts.append((f"cos {digits(cosine)}", "text"))
    if shown != total:
        facts.append((f"{shown}/{total} layers", "warning"))
    job: Piece = ("", "text")
    if bench.died is not None:
        job = ("engine ended", "error")
    elif bench.job is not None:
        job = (bench.job.progress, "key")
    right = min(JOB_CELLS, width // 3) if job[0] else 0
    job = (fit(drawable(job[0], symbols), right, symbols), job[1])
    left = width - right
    rest = sum(len(text) + 2 for text, _ in facts)
    name = drawable(Path(bench.path).name or "no model", symbols)
    room = max(left - rest - 12, 12)
    line: list[Piece] = [(" rknn-tui ", "muted"), (fit(name, min(len(name), room), symbols, keep_end=True), "title")]
    for text, role in facts:
        if length(line) + 2 + len(text) < left:
            line += [("  ", "text"), (text, role)]
    return [*line, (" " * max(left - length(line), 0), "text"), job]


def _built(bench: Workbench) -> Piece:
    if not bench.built:
        return ("not built", "muted")
    stale = bench.built_target != bench.target
    return (f"{bench.built}{f' for {bench.built_target}' if stale else ''}", "warning" if stale else "text")


def key_line(keymap: Keymap, width: int) -> Line:
    """The actions that have a label, with their keys, as many as fit; the way to all keys and out always do."""
    always = ("keys", "quit")
    line: list[Piece] = []
    room = width - 2 - sum(len(keymap.first(name)) + len(name) + 3 for name in always)
    for action in ACTIONS:
        if not action.label or not keymap.first(action.id):
            continue
        item: list[Piece] = [(f" {keymap.first(action.id)}", "key"), (f" {action.label} ", "muted")]
        if action.id in always or length([*line, *item]) <= room:
            line += item
    return line
