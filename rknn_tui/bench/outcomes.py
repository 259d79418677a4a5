"""What to tell of a job that ended well."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rknn_tui.bench.dialogue import Notice, Reply, counted
from rknn_tui.bench.job import Job
from rknn_tui.bench.project import LOAD_OPTIONS
from rknn_tui.graph.bars import digits

if TYPE_CHECKING:
    from rknn_tui.bench.workbench import Workbench


def outcome(bench: Workbench, job: Job, value: Any) -> list[Reply]:
    """What `job` came to, the most important last; `value` is what its last request returned."""
    seconds = time.monotonic() - job.started
    key, kind = bench.keymap.shown, "note"
    notes: tuple[str, ...] = ()
    if job.name == "load" and bench.summary is not None:
        model = bench.summary
        text = f"{len(model.layers)} layers, {short_count(model.parameters)} parameters: {next_step(bench)}"
        notes = model.notes
        cuts = [name for name in LOAD_OPTIONS if bench.given.get(name)]
        if bench.board_only and cuts:
            notes = (*notes, f"not used for a compiled file: {', '.join(cuts)}")
    elif job.name.startswith("build") and bench.build is not None:
        build = bench.build
        samples = f" with {build.samples} samples" if build.samples else ""
        batch = f", batch {build.batch}," if build.batch > 1 else ""
        analyse = f"{key('analyse')} analyses, " if build.precision != "float16" else ""
        text = f"built {build.precision}{samples}{batch} in {seconds:.1f} s: {analyse}{key('export')} exports"
        notes = build.notes
    elif job.name == "analyse" and bench.report is not None:
        worst = bench.output_cosine
        layers = sum(error.entire is not None for error in bench.report.layers)
        text = f"analysed {layers} layers in {seconds:.1f} s"
        text += f", output cosine {digits(worst)}" if worst is not None else ""
        notes, kind = bench.report.warnings, "warning"
    elif job.name == "export":
        text = f"written: {value}"
    else:
        text = f"target {bench.target}"
        if bench.built and bench.built_target != bench.target:
            text += f"; what was built is for {bench.built_target}: build again"
        if bench.costs.without_estimate:
            notes, kind = (bench.costs.without_estimate,), "warning"
    if notes:
        text += f"; {key('messages')} shows {counted(len(notes), kind)}"
    level = "warning" if notes and kind == "warning" else "info"
    return [*(Notice(note, "warning") for note in notes), Notice(text, level)]


def next_step(bench: Workbench) -> str:
    """What to do with a model that was just loaded."""
    key = bench.keymap.shown
    if bench.board_only:
        return f"a vendor's .rknn, read-only; {key('open')} opens the source model"
    if bench.built == "float16":
        return f"built float16, {key('build_int8')} quantizes to int8"
    if bench.built:
        return f"built {bench.built}, {key('analyse')} analyses"
    batch = f", in batches of {bench.batch}" if bench.batch > 1 else ""
    # --float16 is about what to build: it names the key that does, rather than giving the other key its work.
    float16 = f"{key('build_float16')} builds float16"
    return (float16 if bench.float16 else f"{key('build_int8')} quantizes to int8") + batch


def short_count(number: int) -> str:
    """A number with its unit: `1.2M`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
