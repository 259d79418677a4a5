"""The commands `infer`, `perf`, `memory` and `analyze` with --device: what a board gives, and how fast."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.board_reports import measured_document, measured_memory_text, measured_perf_text, where_text
from engine.cli_board_arguments import RUNS, WARMUP
from engine.cli_console import Console, screen_width
from engine.cli_cost import without_own
from engine.cli_jobs import check_inputs, first_sample, input_files, read_npy, tell_outputs
from engine.cli_options import JobOptions, UsageError, job_options
from engine.cli_sessions import build_hybrid, check_folder, check_readable, ready
from engine.cli_text import accuracy_text, worst_layers
from engine.cli_tuning_text import sources_text
from engine.config import Config
from engine.core_masks import CORE_MASKS, cores_of
from engine.cost.reports import Estimated, document
from engine.devices.on_board import OnBoard
from engine.estimates import ModelEstimate
from engine.files import vendor
from engine.quantization.dataset import read_sample
from engine.session import Session
from engine.session_state import Array
from engine.summaries import AccuracyReport, BuildSummary, ErrorPair
from engine.targets import TARGETS
from engine.text_tables import printable, shortened, table

_SHOWN = 10


class _Model(NamedTuple):
    """A session whose build is to run, or a vendor's file; `built` where it was built just now."""

    session: Session
    path: str | None
    built: BuildSummary | None = None


def infer(arguments: argparse.Namespace, console: Console) -> int:
    """`infer MODEL FILE... --device ID`: outputs of the model as a board runs it."""
    files, raw = input_files(arguments)
    model = _model(arguments, console)
    with _opened(model, arguments, console) as board:
        inputs, formats, through = _inputs(board, files, arguments.data_format, raw)
        outputs = board.infer(inputs, data_format=formats, inputs_pass_through=through)
        named = list(zip(board.output_names, outputs, strict=True))
        where = board.where
    found = {"model": arguments.model, "built": _precision(model), "build": model.built, "board": where}
    tell_outputs(arguments, console, found, named, where_text(where))
    return 0


def perf(arguments: argparse.Namespace, console: Console) -> int:
    """`perf MODEL --device ID`: measured time, beside the estimated one where the model is ours."""
    model = _model(arguments, console)
    layers = bool(arguments.layers or arguments.worst)
    with _opened(model, arguments, console) as board:
        found = board.perf(
            runs=RUNS if arguments.runs is None else arguments.runs,
            warmup=WARMUP if arguments.warmup is None else arguments.warmup,
            layers=layers,
            pin=bool(arguments.pin),
            progress=console.progress(),
        )
    estimate = _estimate(model, found.where.chip, arguments)
    guesses = None if estimate is None else {layer.name: layer.time_us for layer in estimate.layers}
    worst = None if arguments.layers else arguments.worst or _SHOWN
    text = measured_perf_text(found, estimated=guesses, worst=worst)
    if estimate is not None:
        text += f"\nestimated: {estimate.totals.latency_us:.1f} us for {estimate.target}"
    return _finish(arguments, console, estimate, measured_document(found), text)


def memory(arguments: argparse.Namespace, console: Console) -> int:
    """`memory MODEL --device ID`: memory as the board's runtime tells it, beside the estimate."""
    model = _model(arguments, console)
    with _opened(model, arguments, console) as board:
        found = board.memory()
    estimate = _estimate(model, found.where.chip, arguments)
    text = measured_memory_text(found, model_bytes=Path(arguments.model).stat().st_size)
    if estimate is not None:
        guess = estimate.memory
        text += f"\nestimated: weights {guess.weight_bytes:,} B, between layers {guess.internal_bytes:,} B"
    return _finish(arguments, console, estimate, measured_document(found), text, blocks=True)


def analyze(arguments: argparse.Namespace, console: Console) -> int:
    """`analyze MODEL --device ID`: the board beside the simulator and the float model, layer by layer."""
    options = _options(arguments)
    check_folder(Path(arguments.output_dir), "--output-dir")
    check_readable(arguments.sample or [])
    if vendor.is_vendor_file(arguments.model):
        raise UsageError(
            "is a model of the vendor's compiler, whose float model nobody has",
            where=arguments.model,
            hint="analyse the source model, or a package of ours that was compiled",
        )
    session, model, built = ready(arguments, options, console)
    sample = arguments.sample or first_sample(options.dataset, session, model)
    report = session.board_accuracy(
        arguments.device or None,
        sample,
        arguments.output_dir,
        sources=arguments.sources,
        target=_target(arguments),
        core_mask=_mask(arguments),
        progress=console.progress(),
    )
    text = f"{accuracy_text(report, arguments.worst, screen_width())}\n\n{board_text(report, arguments.worst)}"
    if report.sources is not None:
        text += f"\n\n{sources_text(report.sources, arguments.worst)}\n"
    text += f"\ntensors and error_analysis.txt are in {report.directory}"
    found: dict[str, Any] = {"model": model.path, "build": built, "sample": sample, "report": report}
    if arguments.worst is not None:
        found["worst"] = [layer.name for layer in worst_layers(report, arguments.worst)]
    console.result(found, text)
    return 0


JOBS = {"infer": infer, "perf": perf, "memory": memory, "analyze": analyze}


def board_text(report: AccuracyReport, worst: int | None) -> str:
    """The layers as a board computed them, against the simulator and the float model; those farthest off first where
    only `worst` of them are shown."""
    rows = [(layer, layer.board_simulator) for layer in report.layers if layer.board_simulator is not None]
    if worst is not None:
        rows = sorted(rows, key=lambda row: row[1].cosine)[:worst]
    lines = [] if report.board is None else [f"board: {where_text(report.board)}"]
    lines += [f"note: {printable(note)}" for note in (report.board.notes if report.board else ())]
    if rows:
        cells = [(shortened(one.name), one.op, *_pair(found), *_pair(one.board)) for one, found in rows]
        titles = ("layer", "op", "cos to simulator", "euc", "cos to float", "euc")
        lines.append(table(titles, cells, numbers=(2, 3, 4, 5)))
    lines += [
        f"output {printable(name)}: cosine {pair.cosine:.5f} to the float model"
        for name, pair in report.board_outputs.items()
    ]
    return "\n".join(lines)


def _pair(pair: ErrorPair | None) -> tuple[str, str]:
    return ("", "") if pair is None else (f"{pair.cosine:.5f}", f"{pair.euclidean:.5f}")


def _model(arguments: argparse.Namespace, console: Console) -> _Model:
    """What is to run. Raises UsageError for options that go with estimates, or with one model among several."""
    for option, given, hint in (
        ("--csv", getattr(arguments, "csv", None), "--json has what was measured"),
        ("--cores", getattr(arguments, "cores", 1) != 1, "--core-mask says which cores of the board"),
        ("--target", len(getattr(arguments, "targets", None) or []) > 1, "a board has one chip"),
        ("--cfg", len(getattr(arguments, "cfg", None) or []) > 1, "a board runs one model"),
    ):
        if given:
            raise UsageError("does not go with --device", where=option, hint=hint)
    targets = getattr(arguments, "targets", None)
    if targets:
        arguments.target = targets[0]
    if vendor.is_vendor_file(arguments.model):
        return _Model(Session(), arguments.model)
    options = _options(arguments)
    cfg = (getattr(arguments, "cfg", None) or [None])[0]
    if Path(arguments.model).suffix == ".model" and hasattr(arguments, "data"):
        hybrid, summary = build_hybrid(arguments, without_own(options), cfg, console)
        return _Model(hybrid, None, summary)
    if cfg is not None:
        raise UsageError("goes with a .model here", where="--cfg", hint="build a package from it, and give that")
    session, _, built = ready(arguments, options, console)
    return _Model(session, None, built)


def _options(arguments: argparse.Namespace) -> JobOptions:
    """Of a package, --target is compared with the board's chip, and is no option of a build."""
    options = job_options(arguments)
    if Path(arguments.model).suffix != ".rknn" or not arguments.target:
        return options
    config = dataclasses.replace(options.config, target_platform=Config.target_platform)
    return dataclasses.replace(options, config=config)


def _opened(model: _Model, arguments: argparse.Namespace, console: Console) -> OnBoard:
    board = model.session.on_board(
        arguments.device or None,
        target=_target(arguments),
        core_mask=_mask(arguments),
        path=model.path,
        progress=console.progress(),
    )
    for note in board.where.notes:
        console.warn(note)
    return board


def _target(arguments: argparse.Namespace) -> str | None:
    return arguments.target or None


def _mask(arguments: argparse.Namespace) -> int:
    return CORE_MASKS[arguments.core_mask or "auto"]


def _precision(model: _Model) -> str:
    return "" if model.path is not None else model.session.summary().built


def _estimate(model: _Model, chip: str, arguments: argparse.Namespace) -> ModelEstimate | None:
    if model.path is not None:
        return None
    target = chip if chip in TARGETS else model.session.summary().target
    return model.session.estimate(target, cores=cores_of(_mask(arguments), target))


def _finish(
    arguments: argparse.Namespace,
    console: Console,
    estimate: ModelEstimate | None,
    measured: Mapping[str, Any],
    text: str,
    *,
    blocks: bool = False,
) -> int:
    found: dict[str, Any] = {"kind": "measurement", "model": arguments.model}
    if estimate is not None:
        cfg = (arguments.cfg or [None])[0]
        found = document([Estimated(arguments.model, estimate, cfg)], blocks=blocks)
    console.result({**found, "measured": measured}, text)
    return 0


def _inputs(
    board: OnBoard, files: Sequence[str], data_format: str, raw: Sequence[bool]
) -> tuple[list[Array], list[str], list[int]]:
    """Arrays for `OnBoard.infer`: as a program on the board would give them, without mean and std."""
    specs = board.inputs
    check_inputs(specs, files, raw)
    arrays, formats = [], []
    for file, spec in zip(files, specs, strict=True):
        is_npy = Path(file).suffix.lower() == ".npy"
        plain = dataclasses.replace(spec, mean=(), std=())
        arrays.append(read_npy(file) if is_npy else read_sample([file], [plain])[spec.name])
        formats.append(data_format if is_npy else spec.layout or "nhwc")
    return arrays, formats, [int(raw[index % len(raw)]) for index in range(len(files))]
