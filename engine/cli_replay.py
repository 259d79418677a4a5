"""What the headless commands `replay` and `set` do; imported only when one runs."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.cli_console import Console, print_result
from engine.cli_options import UsageError
from engine.cli_sessions import check_folder, check_result
from engine.errors import EngineError, FileError, InputError, QuantizationError, nearest
from engine.files.writing import replacing
from engine.journal.entries import Entry, read
from engine.journal.replay_files import CFG, DATA, MODEL, written_by
from engine.journal.replaying import Outcome, Replay
from engine.layer_filter import parse
from engine.quantization.edits import row_of
from engine.quantization.table import GRIDS
from engine.session_hybrid import HybridSession
from engine.summaries import CfgReading, LayerSummary, Quality
from engine.text_tables import counted, printable, shortened, table

_PRECISIONS = {"int8": "int8", "int16": "int16", "float16": "float16", "default": ""}
_NAMES = 3
_NAME_CELLS = 40


# replay


def replay(arguments: argparse.Namespace, console: Console) -> int:
    """`replay JOURNAL`: do again what a journal says, step by step."""
    entries = [entry for entry in read(arguments.journal) if arguments.until is None or entry.line <= arguments.until]
    if arguments.folder is not None:
        check_folder(Path(arguments.folder), "--folder")
    player = Replay(arguments.journal, arguments.folder)
    try:
        player.check(entries)
    except FileError as error:
        error.where = f"{arguments.journal} {error.where}"
        raise
    if arguments.dry_run:
        steps = [_plain(entry) for entry in entries]
        lines = [_line(entry) for entry in entries] or ["nothing to do"]
        console.result({"journal": arguments.journal, "steps": steps, "final": None}, "\n".join(lines))
        return 0
    steps = []
    document: dict[str, Any] = {"journal": arguments.journal, "steps": steps, "final": None}
    for place, entry in enumerate(entries):
        following = entries[place + 1] if place + 1 < len(entries) else None
        try:
            outcome = player.do(entry, following, console.progress())
        except EngineError as error:
            error.where = f"{arguments.journal} line {entry.line}" + (f": {error.where}" if error.where else "")
            if not console.as_json:
                raise
            fault = {"kind": type(error).__name__, "what": error.what, "where": error.where, "hint": error.hint}
            console.result({**document, "error": {"line": entry.line, **fault}}, "")
            return 1
        steps.append(_step(outcome))
        if not console.as_json:
            console.finish_stage()
            print_result(_line(entry, outcome))
    player.measure(console.progress())
    edits = player.edits
    final = {"quality": player.quality, "extra": player.extra, "edits": edits}
    console.result({**document, "final": final}, _final_text(player))
    return 0


def _plain(entry: Entry) -> dict[str, Any]:
    return {"line": entry.line, "verb": entry.verb, "arguments": dict(entry.arguments)}


def _step(outcome: Outcome) -> dict[str, Any]:
    figures = {"seconds": outcome.seconds, "quality": outcome.quality, "extra": outcome.extra}
    return {**_plain(outcome.entry), **figures, "text": outcome.text, **outcome.details}


def _line(entry: Entry, outcome: Outcome | None = None) -> str:
    """`  12  set float16: conv1, conv2: cosine 0.99871, time +3.0%, 0.1 s`."""
    what = f"{entry.line:>5}  {entry.verb} {_subject(entry)}".rstrip()
    if outcome is None:
        return printable(what)
    told = [outcome.text] if outcome.text else []
    if outcome.quality is not None and entry.verb not in ("save", "export"):
        told.append(f"cosine {outcome.quality.cosine:.5f}, time {outcome.extra or 0.0:+.1%}")
    told.append(f"{outcome.seconds:.1f} s")
    return printable(f"{what}: {', '.join(told)}")


def _subject(entry: Entry) -> str:
    """What an entry is about, in a few words."""
    if entry.verb == "set":
        return _wishes_text(entry["wishes"])
    if entry.verb == "range":
        return "; ".join(
            f"{name} {'as built' if ends is None else f'{ends[0]:g} to {ends[1]:g}'}"
            for name, ends in list(entry["ranges"].items())[:_NAMES]
        ) + _more(entry["ranges"])
    if entry.verb == "cfg":
        return f"with {counted(len(entry['wishes']), 'line')}, {counted(len(entry['ranges']), 'range')}"
    if entry.verb == "config":
        return ", ".join(f"{name} {value}" for name, value in entry["settings"].items())
    if entry.verb == "take":
        return f"candidate {entry['candidate']} of search {entry['run']}"
    if entry.verb == "build":
        return entry["dataset"] or ("float16" if entry["do_quantization"] is False else "by its own parameters")
    path = entry["model"] or entry["inputs"] or entry["dataset"] or entry["cfg"] or entry["path"] or ""
    return path if isinstance(path, str) else " ".join(path)


def _wishes_text(wishes: Mapping[str, str]) -> str:
    by_precision: dict[str, list[str]] = {}
    for name, precision in wishes.items():
        by_precision.setdefault(precision or "default", []).append(shortened(name, _NAME_CELLS))
    return "; ".join(
        f"{precision}: {', '.join(names[:_NAMES])}{_more(names)}" for precision, names in by_precision.items()
    )


def _more(names: Sequence[str] | Mapping[str, Any]) -> str:
    return f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""


def _final_text(player: Replay) -> str:
    edits, quality = player.edits, player.quality
    if edits is None:
        return "final: no quantized model"
    counts = f"{counted(len(edits.wishes), 'line')} of custom_quantize_layers, {counted(len(edits.ranges), 'range')}"
    if quality is None:
        return f"final: {counts}; an analyze entry would tell the cosine"
    time = f", estimated time {player.extra or 0.0:+.1%}"
    return f"final: output cosine {quality.cosine:.5f}, SNR {_decibels(quality)}{time}; {counts}"


def _decibels(quality: Quality) -> str:
    return f"{quality.snr:.1f} dB" if math.isfinite(quality.snr) else "without end"


# set


def set_layers(arguments: argparse.Namespace, console: Console) -> int:
    """`set MODEL SELECTOR... PRECISION`: change the lines, or the ranges, of some layers in a cfg."""
    words, precision, ends = _asked(arguments)
    try:
        test = parse(words)
    except InputError as error:
        raise UsageError(error.what, hint=error.hint) from error
    session, cfg, text, reading = _opened(arguments, console)
    before = session.apply(reading.wishes, reading.ranges, errors=False, whole=False)
    chosen = [layer for layer in _layers(session, before.precisions) if test(layer)]
    if not chosen:
        names = [layer.name for layer in _layers(session, before.precisions)]
        raise EngineError(
            f"no layer matches {' '.join(words)!r}",
            where=arguments.model,
            hint=nearest(words[-1].rpartition(":")[2], names),
        )
    wishes, ranges = dict(reading.wishes), dict(reading.ranges)
    rows: dict[str, Any] = {}
    if ends is None:
        asked = {tensor: precision for layer in chosen for tensor in before.lines.get(layer.name, ())}
        if not asked:
            raise EngineError("the layers that match hold integers: they have no precision", where=arguments.model)
        wishes = {name: wish for name, wish in {**wishes, **asked}.items() if wish}
    else:
        rows = _rows(session, chosen, arguments.model)
        ranges.update(dict.fromkeys(rows, ends))
    after = session.apply(wishes, ranges, errors=False, whole=False)
    changed = [
        {"name": layer.name, "op": layer.op, "before": layer.precision, "after": now}
        for layer in _layers(session, before.precisions)
        if (now := after.precisions.get(layer.name, layer.precision)) != layer.precision
    ]
    lines = {name: wishes.get(name, "") for name in {**reading.wishes, **wishes} if _differ(name, reading, wishes)}
    moved = {row: {"before": old, "after": ends} for row, old in rows.items() if old != ends}
    extra = (1.0 + after.extra) / (1.0 + before.extra) - 1.0
    files = [] if arguments.dry_run else _write(session, cfg, text, wishes, ranges)
    document = {"model": arguments.model, "cfg": str(cfg), "matches": [layer.name for layer in chosen]}
    document |= {"layers": changed, "lines": lines, "ranges": moved, "extra": extra, "written": files}
    console.result(document, _set_text(document))
    return 0


def _asked(arguments: argparse.Namespace) -> tuple[list[str], str, tuple[float, float] | None]:
    """Which layers, and their precision ('' for none of their own) or range."""
    words = list(arguments.words)
    if arguments.range is not None:
        return words, "", arguments.range
    if not words or words[-1] not in _PRECISIONS:
        last = words[-1] if words else ""
        raise UsageError(
            f"{last!r} is no precision" if last else "what is to be set?",
            hint=f"end with {', '.join(_PRECISIONS)}, or give --range MIN,MAX",
        )
    return words[:-1], _PRECISIONS[words[-1]], None


def _opened(arguments: argparse.Namespace, console: Console) -> tuple[HybridSession, Path, str, CfgReading]:
    """A session of the model, the cfg with its text, and what that asks for."""
    model, session = Path(arguments.model), HybridSession()
    hybrid = model.suffix == MODEL
    if arguments.data and not hybrid:
        raise UsageError("belongs to a .model", where="--data", hint="leave it out")
    if arguments.cfg is None and not hybrid:
        raise UsageError("a package lies beside no cfg", where=arguments.model, hint="--cfg FILE names it")
    cfg = Path(arguments.cfg or model.with_suffix(CFG))
    check_result(cfg, "--cfg", [arguments.model, arguments.data])
    if hybrid:
        data = arguments.data or model.with_suffix(DATA)
        session.hybrid_step2(model, data, cfg, progress=console.progress())
    elif not session.load(model, progress=console.progress()).built:
        raise EngineError("is not built yet", where=arguments.model, hint="name a package, or the .model of `hybrid`")
    text = session.cfg_open(cfg)["text"] if hybrid or cfg.exists() else session.cfg_text()
    reading = session.cfg_read(text)
    if reading.faults:
        fault = reading.faults[0]
        more = f", and {counted(len(reading.faults) - 1, 'fault')} more" if len(reading.faults) > 1 else ""
        raise QuantizationError(f"{fault.message}{more}", where=f"{cfg} line {fault.line}")
    return session, cfg, text, reading


def _layers(session: HybridSession, precisions: Mapping[str, str]) -> list[LayerSummary]:
    """The model's inputs and layers, with what they compute in."""
    return [dataclasses.replace(layer, precision=precisions.get(layer.name, "")) for layer in session.summary().layers]


def _rows(session: HybridSession, chosen: Sequence[LayerSummary], model: str) -> dict[str, tuple[float, float]]:
    """The rows that set the ranges of what layers make, with their ranges."""
    found: dict[str, tuple[float, float]] = {}
    for layer in chosen:
        for tensor in layer.outputs:
            name = row_of(session.table, tensor)
            row = session.table.rows.get(name)
            if row is not None and row.dtype in GRIDS:
                found[name] = row.min, row.max
    if not found:
        raise EngineError("the layers that match are not quantized: they have no range", where=model)
    return found


def _differ(name: str, reading: CfgReading, wishes: Mapping[str, str]) -> bool:
    return reading.wishes.get(name) != wishes.get(name)


def _write(
    session: HybridSession, cfg: Path, text: str, wishes: Mapping[str, str], ranges: Mapping[str, tuple[float, ...]]
) -> list[str]:
    """Write what changed; returns the files' names. A cfg that was not there gets its .model and .data beside it."""
    new = session.cfg_write(text, wishes, ranges)
    if not cfg.exists():
        for path in written_by(Entry("save", {"cfg": str(cfg)})):
            if Path(path).exists():
                raise FileError("would be replaced", where=path, hint=f"choose another name than {cfg.name}")
        return session.save_cfg(cfg, new)
    if new == text:
        return []
    with replacing(cfg) as target:
        target.write(new.encode())
    return [str(cfg)]


def _set_text(document: Mapping[str, Any]) -> str:
    layers, ranges = document["layers"], document["ranges"]
    lines = []
    if layers:
        rows = [(shortened(one["name"]), one["op"], one["before"] or "-", one["after"] or "-") for one in layers]
        lines.append(table(("layer", "op", "before", "after"), rows))
    if ranges:
        ends = [(shortened(name), *(f"{a:.6g} to {b:.6g}" for a, b in one.values())) for name, one in ranges.items()]
        lines.append(table(("row", "before", "after"), ends))
    matches = counted(len(document["matches"]), "layer")
    if not (document["lines"] or ranges):
        lines.append(f"{matches} match, nothing changes")
    else:
        lines.append(f"{matches} match; estimated time {document['extra']:+.1%}")
    lines += [f"wrote {printable(name)}" for name in document["written"]]
    return "\n".join(lines)
