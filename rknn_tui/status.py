"""The lines around the layer table: the status at the top and the keys at the bottom, fitted to a width."""

from __future__ import annotations

from pathlib import Path

from rich.cells import cell_len

from rknn_tui.actions import BY_ID
from rknn_tui.bench.dialogue import counted
from rknn_tui.bench.tuning_bench import TuningBench
from rknn_tui.graph.bars import digits, milliseconds, size
from rknn_tui.keymap import Keymap, key_name
from rknn_tui.pieces import Line, Piece, length
from rknn_tui.symbols import Symbols, drawable, fit

JOB_CELLS = 26
"""Kept for a running job at the right end, so that its progress never moves what stands left of it."""
NARROW = 64
"""Screens with fewer cells never show the program's name; wider ones do where all else has room."""
PROGRAM = " rknn-tui "
ROOMY = 100
"""Cells from which there is room for more about a measurement than its time."""
LONGEST_BOARD = 20
"""Cells of a board's id in the status line; of a longer one the end is shown."""
LEAST_NAME = 12
"""Cells that a model's name keeps, whatever else there is to say."""


def status_line(bench: TuningBench, shown: int, total: int, marked: int, width: int, symbols: Symbols) -> Line:
    """File, target, build state, the outputs' cosine now and as saved, unsaved edits, estimated time and memory,
    filtered layers, marks and warnings, beside what `job_line` takes; where room is short, what matters least for an
    edit gives way."""
    cells = width - length(job_line(bench, width, symbols)) - 1
    name = drawable(Path(bench.path).name or "no model", symbols)
    facts = _facts(bench, shown, total, marked, brief=width < ROOMY)
    room, kept = cells - 1 - min(cell_len(name), LEAST_NAME), set()
    for place in sorted(range(len(facts)), key=lambda place: facts[place][0]):
        if (taken := 2 + len(facts[place][1])) <= room:
            room -= taken
            kept.add(place)
    room += min(cell_len(name), LEAST_NAME)
    whole = len(kept) == len(facts) and len(PROGRAM) - 1 + cell_len(name) <= room
    shown_name = fit(name, max(min(cell_len(name), room), 1), symbols, keep_end=True)
    line: list[Piece] = [(PROGRAM if whole and width >= NARROW else " ", "muted"), (shown_name, "title")]
    for place in sorted(kept):
        line += [("  ", "text"), facts[place][1:]]
    return line


def _facts(bench: TuningBench, shown: int, total: int, marked: int, *, brief: bool) -> list[tuple[int, str, str]]:
    """What there is to say beside the file: how soon it gives way (the highest number first), a text and its role.

    `~` is what the engine has not told yet: an estimate of the cosine, the time that is expected, or an old number.
    """
    editing, cosine, report = bench.editing, bench.output_cosine, bench.report
    facts = [(6, bench.target, "text"), (5, *_built(bench))]
    if cosine is not None:
        pending = editing.pending and editing.live
        now = editing.estimate if pending and editing.estimate is not None else cosine
        saved = editing.saved_quality
        before = f"{digits(saved.cosine)}>" if saved is not None and digits(saved.cosine) != digits(cosine) else ""
        facts.append((0, f"cos {before}{digits(now)}{'~' if pending else ''}", "text"))
    if bench.board_only:
        facts.append((1, "vendor's, read-only", "warning"))
    if bench.unsaved:
        facts.append((1, f"*{bench.unsaved}", "changed"))
    facts += [*_costs(bench), *_on_board(bench, brief=brief)]
    if shown != total:
        facts.append((3, f"{shown}/{total} layers", "warning"))
    if marked:
        facts.append((4, f"{marked} marked", "mark"))
    if report is not None and report.warnings:
        facts.append((8, counted(len(report.warnings), "warning"), "warning"))
    return facts


def _costs(bench: TuningBench) -> list[tuple[int, str, str]]:
    """The time of an inference, what the edits take of it, and the memory: all of them estimates."""
    costs, extra = bench.costs, bench.editing.extra
    told = f"{extra:+.1%}" if abs(extra) >= 0.0005 else ""
    if not costs.known or not milliseconds(costs.total_milliseconds):
        return [(2, f"{told} time est", "text")] if told else []
    total = costs.total_milliseconds
    # The engine tells the share that edits take for the target that was built for.
    if bench.built and bench.built_target != bench.target:
        told = ""
    elif not costs.settled and (base := costs.unedited_milliseconds(extra)) > 0:
        told = f"{total / base - 1:+.1%}" if abs(total / base - 1) >= 0.0005 else ""
    # What is not built yet would be quantized, unless a person asks for something else.
    built_as = "" if bench.built else "as int16" if "16" in str(bench.config.get("quantized_dtype")) else "as int8"
    words = [f"{milliseconds(total)}{'' if costs.settled else '~'} ms", told, built_as, "est"]
    return [(2, " ".join(filter(None, words)), "text"), (7, f"{size(costs.memory)} mem est", "text")]


def _on_board(bench: TuningBench, *, brief: bool) -> list[tuple[int, str, str]]:
    """The time that was measured, on which board where that is not left out, and whether edits were made since."""
    runs = bench.board_runs
    if (perf := runs.perf) is None:
        return []
    median, p95 = (milliseconds(time / 1000) for time in (perf.median_us, perf.p95_us))
    old = runs.old(runs.timed)
    device = perf.where.device
    device = device if len(device) <= LONGEST_BOARD else f"..{device[2 - LONGEST_BOARD :]}"
    place = " CPU" if perf.where.place == "cpu" else ""
    if brief:
        return [(4, f"{median} ms measured{place}{' old' if old else ''}", "muted" if old else "text")]
    text = f"{median} ms p95 {p95} measured on {drawable(device)}{place}{' old' if old else ''}"
    return [(4, text, "muted" if old else "text")]


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
    if bench.board_only:
        return ["filter", "open"]
    if not bench.built:
        return ["build_int8", "build_float16", "dataset", "target", "filter", "open"]
    if not bench.editing.ready:
        return ["build_int8", "build_float16", "export", "filter", "target", "open"]
    names = ["analyse"] if bench.report is None else ["cycle", "set_float16", "worst"]
    if bench.editing.history.undoable:
        names += ["undo", "save"]
    if bench.running is not None:
        names.append("cancel")
    names += ["tune" if bench.searches.report is None else "candidates", "editor", "filter", "export"]
    return names if bench.report is None else [*names, "screen_charts", "lint"]
